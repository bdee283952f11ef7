"""What `flask audit verify` leaves for `GET /v1/audit/verification`."""

from __future__ import annotations

from typing import Any

import pytest
import redis as redis_py
from flask.testing import FlaskClient

from syncapp import create_app
from syncapp.api.reference.system_schemas import VerificationAnswer
from syncapp.audit.last_verification import LastVerification, Verification
from syncapp.dev.ports import free_port
from tests.support.flask_commands import FlaskCommand, run_flask
from tests.support.outboxes import KEYS, commit_events
from tests.support.rest import expect_error
from tests.support.store import make_settings
from tests.support.types import Db


def last(client: FlaskClient) -> dict[str, Any] | None:
    answer = client.get("/v1/audit/verification")
    assert answer.status_code == 200
    VerificationAnswer.model_validate_json(answer.data)
    found: dict[str, Any] | None = answer.get_json()["data"]["last"]
    return found


def test_before_the_first_run_there_is_no_outcome(client: FlaskClient) -> None:
    assert last(client) is None


def test_a_run_over_the_whole_log_leaves_its_counts_and_instants(
    db: Db, client: FlaskClient, flask: FlaskCommand, redis_url: str
) -> None:
    commits = commit_events(redis_url, 2, 5)
    assert flask("audit", "drain").exit_code == 0
    assert flask("audit", "verify").exit_code == 0
    found = last(client)
    assert found is not None
    started, finished = found.pop("started_at"), found.pop("finished_at")
    assert started <= finished
    assert found == {
        "outcome": "as_committed",
        "sessions": 2,
        "events": commits,
        "faulty_sessions": 0,
        "forks": 0,
        "erased_parts": 0,
    }


def test_faults_are_counted_by_session_and_shown_until_a_run_finds_none(
    db: Db, client: FlaskClient, flask: FlaskCommand, redis_url: str
) -> None:
    commit_events(redis_url, 2, 5)
    flask("audit", "drain")
    with db.cursor() as cursor:
        cursor.execute("SELECT session_id::text FROM sync_events LIMIT 1")
        ((session_id,),) = cursor.fetchall()
        cursor.execute("DELETE FROM sync_events WHERE session_id = %s AND version = 3", [session_id])
    assert flask("audit", "verify").exit_code == 1
    found = last(client)
    assert found is not None
    assert (found["outcome"], found["faulty_sessions"]) == ("faults", 1)
    with db.cursor() as cursor:
        for table in ("sync_events", "sync_sessions", "sync_participants"):
            cursor.execute(f"DELETE FROM {table}")
    redis_py.Redis.from_url(redis_url).flushdb()
    assert flask("audit", "verify").exit_code == 0
    found = last(client)
    assert found is not None
    assert (found["outcome"], found["sessions"], found["faulty_sessions"]) == ("as_committed", 0, 0)


def test_a_run_over_one_session_leaves_no_outcome(
    db: Db, client: FlaskClient, flask: FlaskCommand, redis_url: str
) -> None:
    commit_events(redis_url, 1, 3)
    flask("audit", "drain")
    with db.cursor() as cursor:
        cursor.execute("SELECT session_id::text FROM sync_events LIMIT 1")
        ((session_id,),) = cursor.fetchall()
    assert flask("audit", "verify", session_id).exit_code == 0
    assert last(client) is None


def test_a_run_that_could_not_read_everything_is_incomplete(client: FlaskClient, redis_url: str) -> None:
    nowhere = make_settings(redis_url, database_url=f"postgresql://127.0.0.1:{free_port()}/none")
    assert run_flask(nowhere, "audit", "verify").exit_code == 1
    found = last(client)
    assert found is not None
    assert found["outcome"] == "incomplete"


def test_a_store_that_refuses_the_outcome_changes_nothing_else(
    db: Db, flask: FlaskCommand, redis: redis_py.Redis
) -> None:
    redis.set(KEYS.audit_counts(), "not a hash")
    done = flask("audit", "verify")
    assert done.exit_code == 0
    assert "The outcome is not kept in Redis" in done.output
    assert "Everything is as committed." in done.output


@pytest.mark.parametrize("written", [b"", b"1", b"{}", b'{"outcome": "unknown"}'])
def test_a_record_of_another_release_is_no_outcome(redis: redis_py.Redis, written: bytes) -> None:
    redis.hset(KEYS.audit_counts(), "verified", written)
    assert LastVerification(redis, KEYS).read() is None


def test_a_record_is_read_as_it_was_written(redis: redis_py.Redis) -> None:
    written = Verification("faults", 1, 2, 3, 4, 5, 6, 7)
    LastVerification(redis, KEYS).record(written)
    assert LastVerification(redis, KEYS).read() == written


def test_without_redis_the_outcome_is_unavailable(database_url: str) -> None:
    nowhere = make_settings(f"redis://127.0.0.1:{free_port()}/0", database_url=database_url)
    answer = create_app(nowhere).test_client().get("/v1/audit/verification")
    expect_error(answer, 503, "STORE_UNAVAILABLE")

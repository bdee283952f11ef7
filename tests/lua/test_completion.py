"""The reason and the result of a `complete`: in the state, in the event and in the log."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
import redis as redis_py
from flask.testing import FlaskClient

from syncapp.api.reference.history_schemas import PastAnswer
from syncapp.api.reference.messages import Patch
from syncapp.api.reference.schemas import CommandAnswer, StateAnswer
from syncapp.audit.verify import VerifyResult, verify
from syncapp.domain.patches import patch_of
from syncapp.domain.results import NO_CLAIM, Claim
from syncapp.domain.schemas import CreateSession
from syncapp.domain.session import Session
from syncapp.history.query_params import AtQuery, EventsQuery
from syncapp.history.recovery import Outcome
from syncapp.realtime.topic import Topic
from syncapp.store.keys import Keyspace
from syncapp.store.script_arguments import fingerprint_of
from syncapp.store.sessions import SessionStore
from tests.support.audit_log import AuditServices, query_rows
from tests.support.rest import CHESS, expect_error, expect_faults
from tests.support.store import (
    NOON_MS,
    chess_request,
    crowd_request,
    dump_session,
    make_store,
    outbox_messages,
)
from tests.support.types import Db

ID = "3e1f8e1a-3f44-4c55-9d0b-0f6f2b8f5a10"
RESULT = {"winner": "white king", "score": [1, 0.5], "note": 'completion=" ü  %1\\ idling=1 unattended=7 '}
GIVEN = {"reason": "checkmate, at last", "result": RESULT}


@pytest.fixture
def url(client: FlaskClient) -> str:
    made = client.post("/v1/sessions", json=CHESS | {"session_id": ID})
    client.post(f"{made.headers['Location']}/start")
    return made.headers["Location"]


def last_event(client: redis_py.Redis) -> dict[str, Any]:
    event: dict[str, Any] = outbox_messages(client, ID)[-1]["event"]
    return event


def test_the_event_tells_reason_and_result_and_the_state_keeps_them(
    client: FlaskClient, url: str, redis: redis_py.Redis
) -> None:
    done = client.post(f"{url}/complete", json=GIVEN)
    assert done.status_code == 200
    StateAnswer.model_validate_json(done.data)
    assert done.get_json()["data"]["completion"] == GIVEN
    assert client.get(url).get_json()["data"]["completion"] == GIVEN
    assert last_event(redis) == {"type": "session_completed", "at_ms": NOON_MS, "participant_id": "white"} | GIVEN


def test_a_minimal_answer_has_them_in_event_and_patch(client: FlaskClient, url: str) -> None:
    done = client.post(f"{url}/complete", json=GIVEN, headers={"Prefer": "return=minimal"})
    CommandAnswer.model_validate_json(done.data)
    data = done.get_json()["data"]
    assert data["patch"]["completion"] == GIVEN
    Patch.model_validate(data["patch"])
    assert data["event"]["result"] == RESULT


@pytest.mark.parametrize("result", [False, 0, "", [], {}, "draw", 1.5, -(2**63), 2**64 - 1, [None]])
def test_a_result_is_any_json(client: FlaskClient, url: str, result: Any) -> None:
    client.post(f"{url}/complete", json={"result": result})
    shown = client.get(url).get_json()["data"]["completion"]
    assert orjson.dumps(shown) == orjson.dumps({"result": result})


@pytest.mark.parametrize("body", [{}, {"reason": None, "result": None}])
def test_without_either_nothing_is_kept(
    client: FlaskClient, url: str, redis: redis_py.Redis, body: dict[str, Any]
) -> None:
    done = client.post(f"{url}/complete", json=body).get_json()["data"]
    assert "completion" not in done
    assert "completion" not in client.get(url).get_json()["data"]
    assert not redis.hexists(Keyspace().session(ID), "completion")
    assert set(last_event(redis)) == {"type", "at_ms", "participant_id"}


def test_the_first_complete_counts(client: FlaskClient, url: str, redis: redis_py.Redis) -> None:
    client.post(f"{url}/complete", json=GIVEN)
    before = dump_session(redis, ID)
    again = client.post(f"{url}/complete", json={"result": "another"})
    assert (again.status_code, again.get_json()["data"]["completion"]) == (200, GIVEN)
    assert dump_session(redis, ID) == before


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        ({"result": "x" * 1023}, {"result": "too_large"}),
        ({"result": {"a": "x" * 1017}}, {"result": "too_large"}),
        ({"result": "a\x00b"}, {"result": "nul_character"}),
        ({"result": {"a\x00": 1}}, {"result": "nul_character"}),
        ({"result": 2**64}, {"result": "number_too_large"}),
        ({"reason": ""}, {"reason": "string_too_short"}),
        ({"reason": 1, "result": "x" * 2000}, {"reason": "string_type", "result": "too_large"}),
        ({"winner": "white"}, {"winner": "extra_forbidden"}),
    ],
)
def test_what_is_too_large_or_odd_is_named_and_changes_nothing(
    client: FlaskClient, url: str, redis: redis_py.Redis, body: dict[str, Any], fault: dict[str, str]
) -> None:
    before = dump_session(redis, ID)
    assert expect_faults(client.post(f"{url}/complete", json=body)) == fault
    assert dump_session(redis, ID) == before


def test_a_result_that_is_not_json_is_refused(client: FlaskClient, url: str) -> None:
    deep = b'{"result":' + b"[" * 32 + b"]" * 32 + b"}"
    for body in (b'{"result": NaN}', b'{"result": Infinity}', deep):
        expect_error(client.post(f"{url}/complete", data=body, content_type="application/json"), 400, "INVALID_JSON")
    assert client.get(url).get_json()["data"]["status"] == "running"


def test_the_largest_result_is_replayed_although_its_record_has_no_room_for_it(
    client: FlaskClient, url: str, redis: redis_py.Redis
) -> None:
    body = {"reason": "r" * 500, "result": " " * 1022}
    for prefer in ("", "return=minimal"):
        headers = {"Idempotency-Key": "end", "Prefer": prefer}
        answer = client.post(f"{url}/complete", json=body, headers=headers)
        assert answer.status_code == 200
    assert answer.headers["Idempotency-Replayed"] == "true"
    assert answer.get_json()["data"]["completion"] == body
    record: Any = redis.get(Keyspace().idempotency(ID, "end"))
    assert len(record) <= 1024
    other = client.post(f"{url}/complete", json={"result": 1}, headers={"Idempotency-Key": "end"})
    expect_error(other, 422, "IDEMPOTENCY_MISMATCH")


def test_a_complete_without_either_has_the_fingerprint_it_always_had(
    store: SessionStore, redis: redis_py.Redis
) -> None:
    store.create(chess_request(session_id=ID))
    store.complete(ID, Claim(idempotency_key="end"))
    record: Any = redis.get(Keyspace().idempotency(ID, "end"))
    assert record.decode().split("\n")[0] == fingerprint_of("complete", Claim(), [])


@pytest.mark.parametrize(
    "new", [chess_request(session_id=ID), crowd_request(300, session_id=ID)], ids=["two", "three blocks"]
)
def test_every_process_reads_the_same_and_every_patch_leads_to_it(
    store: SessionStore, redis_url: str, redis: redis_py.Redis, new: CreateSession
) -> None:
    store.create(new)
    fresh, watching = make_store(redis_url), make_store(redis_url)
    before = watching.get(ID).found
    done = store.complete(ID, reason="over", result=RESULT).found
    assert fresh.get(ID).found == done
    assert watching.get(ID).found == done == watching.get(ID).found
    assert len(store._runner._cache._sessions[ID].tags.split()) == (3 if len(done.participants) > 2 else 0)
    (*_, message) = outbox_messages(redis, ID)
    assert before.fold(*patch_of(message)) == done
    assert Session.from_snapshot(ID, message["snapshot"]) == done


def test_the_log_keeps_them_and_its_check_finds_no_fault(
    store: SessionStore, log: AuditServices, redis: redis_py.Redis, redis_url: str, database_url: str
) -> None:
    store.create(chess_request(session_id=ID))
    store.complete(ID, reason="over", result=RESULT)
    log.store()
    found = log.history.state_at(ID, AtQuery(version=2)).document()
    PastAnswer.model_validate({"data": found})
    assert found["completion"] == {"reason": "over", "result": RESULT}
    assert list(verify(database_url, VerifyResult())) == []


@pytest.mark.parametrize("again", [False, True])
def test_a_restored_session_has_them_again(
    store: SessionStore, log: AuditServices, redis: redis_py.Redis, redis_url: str, *, again: bool
) -> None:
    store.create(chess_request(session_id=ID))
    store.complete(ID, reason="over", result=RESULT)
    log.store()
    redis.delete(Keyspace().session(ID))
    log.recoveries["run"]._store.time_ms = lambda: NOON_MS  # type: ignore[method-assign]  # the test's clock
    for _ in range(2 if again else 1):
        assert log.recoveries["run"].recover(ID) is Outcome.RESTORED
        found = make_store(redis_url).get(ID).found
        assert found.completion == {"reason": "over", "result": RESULT}
        assert Session.from_snapshot(ID, outbox_messages(redis, ID)[-1]["snapshot"]) == found
        log.store()
        redis.delete(Keyspace().session(ID))


# Next to processes of an earlier release, which have no completions.

KEPT: dict[str, Any] = {"reason": "over", "result": RESULT}
FORGET = "UPDATE sync_events SET snapshot = snapshot - 'completion', record = record - 'completion' RETURNING 1"


def complete_in_clear(store: SessionStore) -> None:
    """Complete the session as an earlier release does: the hashed message has the completion, and not its digest."""
    store._runner.run("complete", ID, NO_CLAIM, [orjson.dumps(value) for value in KEPT.values()])


def test_the_completion_stands_beside_the_patch_of_its_message(store: SessionStore, redis: redis_py.Redis) -> None:
    store.create(chess_request(session_id=ID))
    topic = Topic(ID, "")
    topic.mark_subscribed()
    topic.apply_read(store.get(ID).found, topic.order, NOON_MS)
    topic.current = True
    answer = store.complete(ID, **KEPT)
    (*_, message) = outbox_messages(redis, ID)
    assert "completion" not in message["patch"]  # an earlier release could not apply it
    assert message["completion"] == KEPT
    told = topic.apply(message, NOON_MS)
    assert told
    assert told.patch
    assert answer.patch
    assert told.patch["completion"] == answer.patch["completion"] == KEPT


def test_a_row_that_an_earlier_release_stored_is_as_committed_and_read_with_its_completion(
    store: SessionStore, log: AuditServices, db: Db, database_url: str
) -> None:
    store.create(chess_request(session_id=ID))
    complete_in_clear(store)
    log.store()
    exported = list(log.history.export(ID))
    assert exported[0][1]["snapshot"]["completion"] == exported[0][1]["patch"]["completion"] == KEPT
    query_rows(db, FORGET)
    assert list(verify(database_url, VerifyResult())) == []
    assert log.history.state_at(ID, AtQuery(version=2)).document()["completion"] == KEPT
    assert log.history.events(ID, EventsQuery()).rows[1]["patch"]["completion"] == KEPT
    assert list(log.history.export(ID)) == exported


def test_a_session_is_restored_with_the_completion_that_an_earlier_release_did_not_store(
    store: SessionStore, log: AuditServices, db: Db, redis: redis_py.Redis, redis_url: str, database_url: str
) -> None:
    store.create(chess_request(session_id=ID))
    complete_in_clear(store)
    log.recoveries["run"]._store.time_ms = lambda: NOON_MS  # type: ignore[method-assign]  # the test's clock
    for _ in range(2):  # the second time, from the restore's message
        log.store()
        query_rows(db, FORGET)
        redis.delete(Keyspace().session(ID))
        assert log.recoveries["run"].recover(ID) is Outcome.RESTORED
        assert make_store(redis_url).get(ID).found.completion == KEPT
    log.store()
    assert list(verify(database_url, VerifyResult())) == []


@pytest.mark.parametrize("is_forgotten", [False, True])
@pytest.mark.parametrize(
    ("change", "name"),
    [
        ('snapshot = snapshot || \'{"completion": {"reason": "flag"}}\'', "snapshot"),
        ("snapshot = snapshot || '{\"completion\": null}'", "snapshot"),
        ("snapshot = snapshot - 'metadata'", "snapshot"),
        ("snapshot = snapshot || '{\"cycle_count\": 7}'", "snapshot"),
        ("snapshot = NULL", "snapshot"),
        ('record = record || \'{"completion": "{}"}\'', "record"),
        ("record = record - 'turn'", "record"),
        ("patch = patch || '{\"completion\": {}}'", "patch"),
    ],
)
def test_any_other_difference_in_such_a_row_is_found(
    store: SessionStore, log: AuditServices, db: Db, database_url: str, change: str, name: str, *, is_forgotten: bool
) -> None:
    store.create(chess_request(session_id=ID))
    complete_in_clear(store)
    log.store()
    if is_forgotten:
        query_rows(db, FORGET)
    assert query_rows(db, f"UPDATE sync_events SET {change} WHERE version = 2 RETURNING 1")
    (fault,) = verify(database_url, VerifyResult())
    assert f"version 2: column {name} differs from its message" in str(fault)


@pytest.mark.parametrize("column", ["snapshot", "record"])
def test_a_completion_that_is_missing_in_one_column_only_is_found(
    store: SessionStore, log: AuditServices, db: Db, database_url: str, column: str
) -> None:
    store.create(chess_request(session_id=ID))
    complete_in_clear(store)
    log.store()
    query_rows(db, f"UPDATE sync_events SET {column} = {column} - 'completion' RETURNING 1")
    assert len(list(verify(database_url, VerifyResult()))) == 1

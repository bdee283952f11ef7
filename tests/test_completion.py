"""The reason and the result that a `complete` gives: kept by the state, told by the event, and in the log."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import orjson
import psycopg2
import pytest
import redis as redis_py
from clocks import NOON_MS, PARTIALS, SetClock, chess, crowd, dump, make_store, messages, settings
from flask.testing import FlaskClient
from test_api import CHESS, error, faults
from test_replay import Log

from syncapp import create_app
from syncapp.api.answers import PastAnswer
from syncapp.api.messages import Patch
from syncapp.api.schema import CommandAnswer, StateAnswer
from syncapp.calls import _fingerprint
from syncapp.commands import Claim
from syncapp.keys import Keyspace
from syncapp.models import CreateSession
from syncapp.questions import AtQuestion
from syncapp.recovery import Outcome
from syncapp.sessions import SessionStore
from syncapp.state import Session, patch_of
from syncapp.verifier import Checked, verify

Db = psycopg2.extensions.connection
ID = "3e1f8e1a-3f44-4c55-9d0b-0f6f2b8f5a10"
RESULT = {"winner": "white king", "score": [1, 0.5], "note": 'completion=" ü  %1\\ idling=1 unattended=7 '}
GIVEN = {"reason": "checkmate, at last", "result": RESULT}


@pytest.fixture
def clock(redis: redis_py.Redis) -> SetClock:
    return SetClock(redis)


@pytest.fixture
def store(redis_url: str, clock: SetClock) -> SessionStore:
    return make_store(redis_url)


@pytest.fixture
def client(redis_url: str, database_url: str, clock: SetClock) -> FlaskClient:
    return create_app(settings(redis_url, database_url=database_url), partials=PARTIALS).test_client()


@pytest.fixture
def log(database_url: str, db: Db, redis: redis_py.Redis, redis_url: str) -> Iterator[Log]:
    made = Log(database_url, redis, redis_url)
    yield made
    made.database.close()
    made.pool.close()


@pytest.fixture
def url(client: FlaskClient) -> str:
    made = client.post("/v1/sessions", json=CHESS | {"session_id": ID})
    client.post(f"{made.headers['Location']}/start")
    return made.headers["Location"]


def last_event(client: redis_py.Redis) -> dict[str, Any]:
    event: dict[str, Any] = messages(client, ID)[-1]["event"]
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
    before = dump(redis, ID)
    again = client.post(f"{url}/complete", json={"result": "another"})
    assert (again.status_code, again.get_json()["data"]["completion"]) == (200, GIVEN)
    assert dump(redis, ID) == before


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
    before = dump(redis, ID)
    assert faults(client.post(f"{url}/complete", json=body)) == fault
    assert dump(redis, ID) == before


def test_a_result_that_is_not_json_is_refused(client: FlaskClient, url: str) -> None:
    deep = b'{"result":' + b"[" * 32 + b"]" * 32 + b"}"
    for body in (b'{"result": NaN}', b'{"result": Infinity}', deep):
        error(client.post(f"{url}/complete", data=body, content_type="application/json"), 400, "INVALID_JSON")
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
    error(other, 422, "IDEMPOTENCY_MISMATCH")


def test_a_complete_without_either_has_the_fingerprint_it_always_had(
    store: SessionStore, redis: redis_py.Redis
) -> None:
    store.create(chess(session_id=ID))
    store.complete(ID, Claim(idempotency_key="end"))
    record: Any = redis.get(Keyspace().idempotency(ID, "end"))
    assert record.decode().split("\n")[0] == _fingerprint("complete", Claim(), [])


@pytest.mark.parametrize("new", [chess(session_id=ID), crowd(300, session_id=ID)], ids=["two", "three blocks"])
def test_every_process_reads_the_same_and_every_patch_leads_to_it(
    store: SessionStore, redis_url: str, redis: redis_py.Redis, new: CreateSession
) -> None:
    store.create(new)
    fresh, watching = make_store(redis_url), make_store(redis_url)
    before = watching.get(ID).found
    done = store.complete(ID, reason="over", result=RESULT).found
    assert fresh.get(ID).found == done
    assert watching.get(ID).found == done == watching.get(ID).found
    assert len(store._calls._known[ID].tags.split()) == (3 if len(done.participants) > 2 else 0)
    (*_, message) = messages(redis, ID)
    assert before.fold(*patch_of(message)) == done
    assert Session.from_snapshot(ID, message["snapshot"]) == done


def test_the_log_keeps_them_and_its_check_finds_no_fault(
    store: SessionStore, log: Log, redis: redis_py.Redis, redis_url: str, database_url: str
) -> None:
    store.create(chess(session_id=ID))
    store.complete(ID, reason="over", result=RESULT)
    log.store()
    found = log.history.at(ID, AtQuestion(version=2)).document()
    PastAnswer.model_validate({"data": found})
    assert found["completion"] == {"reason": "over", "result": RESULT}
    assert list(verify(database_url, Checked())) == []


@pytest.mark.parametrize("again", [False, True])
def test_a_restored_session_has_them_again(
    store: SessionStore, log: Log, redis: redis_py.Redis, redis_url: str, *, again: bool
) -> None:
    store.create(chess(session_id=ID))
    store.complete(ID, reason="over", result=RESULT)
    log.store()
    redis.delete(Keyspace().session(ID))
    log.recoveries["run"]._store.time_ms = lambda: NOON_MS  # type: ignore[method-assign]
    for _ in range(2 if again else 1):
        assert log.recoveries["run"].recover(ID) is Outcome.RESTORED
        found = make_store(redis_url).get(ID).found
        assert found.completion == {"reason": "over", "result": RESULT}
        assert Session.from_snapshot(ID, messages(redis, ID)[-1]["snapshot"]) == found
        log.store()
        redis.delete(Keyspace().session(ID))

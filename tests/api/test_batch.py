"""`POST /v1/sessions/batch`: one command on many sessions, each atomic, with one answer per session."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

import pytest
import requests
from flask.testing import FlaskClient

from syncapp import create_app
from syncapp.api.batch_commands import run_each
from syncapp.api.reference.history_schemas import BatchAnswer
from syncapp.dev.servers import Valkey
from syncapp.domain.results import Result
from syncapp.errors import StoreUnavailable, SyncError
from syncapp.store.keys import Keyspace
from tests.support.cluster import MakeCluster
from tests.support.rest import CHESS, UNKNOWN, expect_error, expect_faults
from tests.support.store import dump_session, make_settings, make_store
from tests.support.types import Redis


@pytest.fixture
def client(redis_url: str, database_url: str, redis: Redis) -> FlaskClient:
    return create_app(make_settings(redis_url, database_url=database_url)).test_client()


def made(client: FlaskClient, count: int = 3, *commands: str, **more: Any) -> list[str]:
    ids = [client.post("/v1/sessions", json=CHESS | more).get_json()["data"]["session_id"] for _ in range(count)]
    for each in ids:
        for command in commands:
            assert client.post(f"/v1/sessions/{each}/{command}").status_code == 200
    return ids


def send(client: FlaskClient, command: str, ids: list[str], headers: Any = None, **args: Any) -> dict[str, Any]:
    body = {"command": command, "session_ids": ids} | ({"args": args} if args else {})
    answer = client.post("/v1/sessions/batch", json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    BatchAnswer.model_validate_json(answer.data)
    data: dict[str, Any] = answer.get_json()["data"]
    assert [each["session_id"] for each in data["results"]] == ids
    statuses = [each["status"] for each in data["results"]]
    assert (data["succeeded"], data["failed"]) == (sum(s < 300 for s in statuses), sum(s >= 300 for s in statuses))
    return data


def test_an_exam_of_a_hundred_sessions_is_paused_at_once(client: FlaskClient) -> None:
    ids = made(client, 100, "start")
    data = send(client, "pause", ids)
    assert (data["succeeded"], data["failed"]) == (100, 0)
    assert {each["data"]["status"] for each in data["results"]} == {"paused"}
    assert {client.get(f"/v1/sessions/{each}").get_json()["data"]["status"] for each in ids} == {"paused"}


@pytest.mark.parametrize(
    ("command", "before", "args", "shows"),
    [
        ("start", [], {"participant_id": "black"}, {"status": "running", "active_participant_id": "black"}),
        ("switch", ["start"], {"participant_id": "white"}, {"active_participant_id": "black"}),
        ("pause", ["start"], {}, {"status": "paused"}),
        ("resume", ["start", "pause"], {}, {"status": "running"}),
        ("complete", ["start"], {"result": {"a": 1}}, {"completion": {"result": {"a": 1}}}),
        ("cancel", [], {"reason": "fire"}, {"status": "cancelled"}),
        ("update", [], {"metadata": {"hall": 3}}, {"metadata": {"hall": 3}}),
        ("adjust", [], {"op": "add", "ms": 1000, "participant_id": "white"}, {"version": 2}),
    ],
)
def test_every_command_does_what_it_does_alone(
    client: FlaskClient, command: str, before: list[str], args: dict[str, Any], shows: dict[str, Any]
) -> None:
    ids = made(client, 2, *before)
    for each in send(client, command, ids, **args)["results"]:
        alone = client.get(f"/v1/sessions/{each['session_id']}").get_json()["data"]
        live = {"server_time_ms", "clock"}
        assert {name: value for name, value in each["data"].items() if name not in live} == {
            name: value for name, value in alone.items() if name not in live
        }
        assert each["data"] | shows == each["data"]


def test_a_delete_answers_204_for_each_also_for_those_that_are_not_there(client: FlaskClient) -> None:
    ids = [*made(client, 2), UNKNOWN]
    assert send(client, "delete", ids)["results"] == [{"session_id": each, "status": 204} for each in ids]
    expect_error(client.get(f"/v1/sessions/{ids[0]}"), 404, "SESSION_NOT_FOUND")


def test_what_fails_has_its_own_error_and_changes_nothing_and_the_others_go_on(
    client: FlaskClient, redis: Redis
) -> None:
    running, pending = made(client, 1, "start") + made(client, 1)
    paused = made(client, 1, "start", "pause")[0]
    before = {each: dump_session(redis, each) for each in (pending, paused)}
    results = send(client, "pause", [pending, UNKNOWN, running, paused])["results"]
    assert [each["status"] for each in results] == [400, 404, 200, 400]
    assert [each.get("error", {}).get("code") for each in results] == [
        "INVALID_STATE_TRANSITION", "SESSION_NOT_FOUND", None, "INVALID_STATE_TRANSITION",
    ]  # fmt: skip
    alone = client.post(f"/v1/sessions/{pending}/pause").get_json()["error"]
    assert results[0]["error"]["message"] == alone["message"]
    hashes = [redis.hgetall(Keyspace().session(each)) for each in before]
    assert hashes == [found[Keyspace().session(each).encode()][0] for each, found in before.items()]  # type: ignore[index]  # a DUMP and its TTL


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({}, {"command": "missing", "session_ids": "missing"}),
        ({"command": "create", "session_ids": [UNKNOWN]}, {"command": "unknown_command"}),
        ({"command": "pause", "session_ids": []}, {"session_ids": "too_short"}),
        ({"command": "pause", "session_ids": [str(uuid.UUID(int=n)) for n in range(101)]}, {"session_ids": "too_long"}),
        (
            {"command": "pause", "session_ids": [UNKNOWN, "x", UNKNOWN.upper(), 5]},
            {"session_ids.1": "uuid", "session_ids.2": "duplicate", "session_ids.3": "string_type"},
        ),
        (
            {"command": "adjust", "session_ids": ["x"], "args": {"op": "half", "why": 1}, "more": 1},
            {
                "session_ids.0": "uuid", "args.op": "literal_error", "args.ms": "missing",
                "args.why": "extra_forbidden", "more": "extra_forbidden",
            },
        ),
        ({"command": "pause", "session_ids": [UNKNOWN], "args": []}, {"args": "dict_type"}),
        (
            {"command": "pause", "session_ids": [UNKNOWN], "args": {"expected_version": 1, "expected_epoch": 1}},
            {"args.expected_version": "misplaced", "args.expected_epoch": "misplaced"},
        ),
        ({"command": "pause", "session_ids": [UNKNOWN], "expected_epoch": 1}, {"expected_epoch": "extra_forbidden"}),
    ],
)  # fmt: skip
def test_a_batch_that_makes_no_sense_is_refused_whole_naming_every_fault(
    client: FlaskClient, body: dict[str, Any], expected: dict[str, str]
) -> None:
    assert expect_faults(client.post("/v1/sessions/batch", json=body)) == expected


def test_errors_of_the_arguments_are_in_the_order_of_the_arguments(client: FlaskClient) -> None:
    # Sets of names are in another order in each process, so many names make an equal order unlikely by chance.
    unknown = list("abcdefghijkl")
    args = dict.fromkeys(unknown) | {"expected_epoch": 1, "expected_version": 1}
    answer = client.post("/v1/sessions/batch", json={"command": "pause", "session_ids": [UNKNOWN], "args": args})
    expected = [f"args.{name}" for name in ("expected_version", "expected_epoch", *unknown)]
    assert list(expect_faults(answer)) == expected


def test_if_match_is_refused_before_anything_is_done(client: FlaskClient) -> None:
    (session_id,) = made(client, 1, "start")
    body = {"command": "pause", "session_ids": [session_id]}
    assert expect_faults(client.post("/v1/sessions/batch", json=body, headers={"If-Match": "*"})) == {
        "If-Match": "misplaced"
    }
    assert client.get(f"/v1/sessions/{session_id}").get_json()["data"]["status"] == "running"


def test_an_idempotency_key_holds_for_each_session(client: FlaskClient) -> None:
    ids = made(client, 2, "start")
    headers = {"Idempotency-Key": "round-1"}
    client.post(f"/v1/sessions/{ids[0]}/switch", headers=headers)
    first, second = send(client, "switch", ids, headers)["results"]
    assert (first.get("replayed"), second.get("replayed")) == (True, None)
    again = send(client, "switch", ids, headers)["results"]
    assert [each["replayed"] for each in again] == [True, True]
    assert {each["data"]["cycle_count"] for each in again} == {1}
    assert [each["status"] for each in send(client, "pause", ids, headers)["results"]] == [422, 422]


def test_a_minimal_answer_has_event_and_patch_of_each(client: FlaskClient) -> None:
    ids = made(client, 2)
    for each in send(client, "start", ids, {"Prefer": "return=minimal"})["results"]:
        assert set(each["data"]) == {"session_id", "epoch", "version", "event", "patch"}
        assert each["data"]["event"]["type"] == "session_started"


def test_the_limits_of_an_address_count_every_command(redis_url: str, database_url: str, redis: Redis) -> None:
    chosen = make_settings(redis_url, database_url=database_url, rate_limit_per_s=0.001, rate_limit_burst=10)
    client = create_app(chosen).test_client()
    ids = made(client, 2)
    assert send(client, "start", ids)["succeeded"] == 2
    assert send(client, "delete", [*ids, UNKNOWN])["succeeded"] == 3
    body = {"command": "delete", "session_ids": [str(uuid.UUID(int=n)) for n in range(4)]}
    refused = expect_error(client.post("/v1/sessions/batch", json=body), 429, "RATE_LIMITED")
    assert refused["details"]["reason"] == "rate_limit_per_s"


def test_a_batch_of_more_than_the_limit_at_once_is_taken_by_whoever_has_asked_for_nothing(
    redis_url: str, database_url: str, redis: Redis
) -> None:
    chosen = make_settings(redis_url, database_url=database_url, rate_limit_per_s=0.001, rate_limit_burst=10)
    client = create_app(chosen).test_client()
    ids = [str(uuid.UUID(int=n)) for n in range(30)]
    assert send(client, "delete", ids)["succeeded"] == 30
    expect_error(client.get("/v1/time"), 429, "RATE_LIMITED")


def test_bytes_that_each_command_adds_are_counted(redis_url: str, database_url: str, redis: Redis) -> None:
    chosen = make_settings(redis_url, database_url=database_url, address_store_bytes_per_hour=4 * 20_000)
    client = create_app(chosen).test_client()
    ids = made(client, 3)
    results = send(client, "update", ids, metadata={"a": "x" * 5000})["results"]
    assert sorted(each["status"] for each in results) == [200, 200, 429]


def test_a_fault_of_ours_with_one_session_is_its_500_and_no_other_ones(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = made(client, 3)
    store = client.application.extensions["syncapp"].store
    start = store.start

    def breaks(session_id: str, **more: Any) -> Result:
        if session_id == ids[1]:
            raise RuntimeError("broken")
        found: Result = start(session_id, **more)
        return found

    monkeypatch.setattr(store, "start", breaks)
    results = send(client, "start", ids)["results"]
    assert [each["status"] for each in results] == [200, 500, 200]
    assert results[1]["error"]["code"] == "INTERNAL_ERROR"
    assert "broken" not in str(results)


def test_a_store_that_is_away_is_a_503_for_each(database_url: str) -> None:
    client = create_app(make_settings("redis://127.0.0.1:1/0", database_url=database_url)).test_client()
    ids = [str(uuid.uuid4()) for _ in range(30)]
    data = send(client, "pause", ids)
    assert {(each["status"], each["error"]["code"]) for each in data["results"]} == {(503, "STORE_UNAVAILABLE")}


def test_a_store_that_hangs_midway_holds_up_a_batch_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syncapp.api.batch_commands._PATIENCE_S", 0.2)
    done: list[str] = []

    def run(session_id: str) -> Result:
        if len(done) >= 10:
            time.sleep(0.25)
            raise StoreUnavailable("the store does not answer", {"retry_after_s": 1, "reason": "TimeoutError"})
        done.append(session_id)
        return Result(None, 0)

    found = run_each([str(n) for n in range(100)], run)
    faults_found = [each for each in found if isinstance(each, SyncError)]
    assert len(faults_found) == 90
    assert sum("was not sent" in each.message for each in faults_found) >= 70


def test_a_session_that_takes_long_to_settle_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("syncapp.api.batch_commands._PATIENCE_S", 0.0)

    def run(session_id: str) -> Result:
        if session_id == "0":
            raise StoreUnavailable("more time has passed than could be settled at once", {"retry_after_s": 1})
        return Result(None, 0)

    found = run_each([str(n) for n in range(100)], run)
    assert sum(isinstance(each, SyncError) for each in found) == 1


def test_a_batch_over_http_answers_all_while_others_move(
    make_cluster: MakeCluster, redis: Redis, redis_url: str
) -> None:
    url = make_cluster(web=1, worker=False).urls[0]
    ids = [requests.post(f"{url}/v1/sessions", json=CHESS, timeout=60).json()["data"]["session_id"] for _ in range(100)]
    body = {"command": "start", "session_ids": ids}
    assert requests.post(f"{url}/v1/sessions/batch", json=body, timeout=30).json()["data"]["succeeded"] == 100
    moves = [
        threading.Thread(target=lambda: requests.post(f"{url}/v1/sessions/{ids[0]}/switch", timeout=30))
        for _ in range(5)
    ]
    for each in moves:
        each.start()
    paused = requests.post(f"{url}/v1/sessions/batch", json=body | {"command": "pause"}, timeout=30).json()["data"]
    for each in moves:
        each.join()
    assert [each["session_id"] for each in paused["results"]] == ids
    assert paused["failed"] == 0
    store = make_store(redis_url, set_clock=False)
    assert {store.get(each).found.status for each in ids} == {"paused"}


def test_a_store_that_is_stopped_and_comes_back_answers_for_each(
    make_cluster: MakeCluster, redis: Redis, valkey: Valkey
) -> None:
    url = make_cluster(web=1, worker=False, REDIS_TIMEOUT_S="1").urls[0]
    ids = [requests.post(f"{url}/v1/sessions", json=CHESS, timeout=60).json()["data"]["session_id"] for _ in range(40)]
    body = {"command": "start", "session_ids": ids}
    valkey.pause()
    try:
        answer = requests.post(f"{url}/v1/sessions/batch", json=body, timeout=60)
    finally:
        valkey.unpause()
    assert answer.status_code == 200
    assert {each["status"] for each in answer.json()["data"]["results"]} == {503}
    again = requests.post(f"{url}/v1/sessions/batch", json=body, timeout=60).json()["data"]
    assert again["succeeded"] + again["failed"] == 40
    assert {each["status"] for each in again["results"]} <= {200, 400}  # some had been sent

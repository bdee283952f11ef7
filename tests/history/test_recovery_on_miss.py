"""A request that misses a session restores it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import redis as redis_py
import requests
from flask.testing import FlaskClient

from syncapp import create_app
from syncapp.errors import AuditUnavailable
from syncapp.history.recovery import MissLimiter
from syncapp.metrics import RECOVERIES
from syncapp.store.sessions import SessionStore
from tests.support.audit_log import AuditServices
from tests.support.cluster import MakeCluster
from tests.support.lost_sessions import ID, lose_session, start_game
from tests.support.raw_websocket import RawWebSocket
from tests.support.rest import CHESS, UNKNOWN, expect_error
from tests.support.store import PARTIALS, ManualClock, make_settings, outbox_messages
from tests.support.types import Db
from tests.support.web_clients import wait_until


@pytest.fixture
def client(redis_url: str, database_url: str, clock: ManualClock) -> FlaskClient:
    chosen = make_settings(redis_url, database_url=database_url, recover_on_miss=True)
    return create_app(chosen, partials=PARTIALS).test_client()


@pytest.mark.parametrize("command", ["", "switch", "pause", "complete", "update", "delete"])
def test_a_read_or_command_that_misses_a_session_brings_it_back(
    client: FlaskClient,
    store: SessionStore,
    clock: ManualClock,
    log: AuditServices,
    redis: redis_py.Redis,
    command: str,
) -> None:
    start_game(store, clock)
    log.store()
    lose_session(redis)
    clock.advance_ms(1000)
    url = f"/v1/sessions/{ID}"
    ask: dict[str, Callable[[], Any]] = {
        "": lambda: client.get(url),
        "update": lambda: client.patch(url, json={"metadata": {"a": 1}}),
        "delete": lambda: client.delete(url),
    }
    answer = ask.get(command, lambda: client.post(f"{url}/{command}"))()
    assert answer.status_code == (204 if command == "delete" else 200), answer.text
    told = [message["event"]["type"] for message in outbox_messages(redis, ID)]
    assert told[0] == "session_restored"
    assert len(told) == (1 if command == "" else 2)
    if command == "delete":
        assert told[1] == "session_deleted"
        log.store()
        expect_error(client.get(url), 404, "SESSION_NOT_FOUND")
    else:
        assert answer.get_json()["data"]["epoch"] == clock.now_ms


def test_a_replay_that_misses_its_session_brings_it_back_and_does_nothing_twice(
    client: FlaskClient, store: SessionStore, clock: ManualClock, log: AuditServices, redis: redis_py.Redis
) -> None:
    start_game(store, clock)
    url, headers = f"/v1/sessions/{ID}/switch", {"Idempotency-Key": "move-17"}
    first = client.post(url, headers=headers).get_json()["data"]
    log.store()
    lose_session(redis)
    again = client.post(url, headers=headers)
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (200, "true")
    assert again.get_json()["data"]["cycle_count"] == first["cycle_count"]
    assert [message["event"]["type"] for message in outbox_messages(redis, ID)] == ["session_restored"]


def test_unknown_ids_are_looked_for_once_in_a_while_and_not_too_many(client: FlaskClient, db: Db) -> None:
    looked = RECOVERIES.labels("unknown")._value.get
    before = looked()
    for _ in range(5):
        expect_error(client.get(f"/v1/sessions/{UNKNOWN}"), 404, "SESSION_NOT_FOUND")
    assert looked() - before == 1
    began_s = time.monotonic()
    statuses = [client.get(f"/v1/sessions/{UNKNOWN[:-4]}{number:04}").status_code for number in range(1, 300)]
    took_s = time.monotonic() - began_s
    assert set(statuses) == {404, 503} or took_s > 5  # 20 a second are admitted
    assert looked() - before <= 2 + 20 * (1 + took_s)


def test_misses_are_admitted_by_rate_and_forgotten() -> None:
    misses = MissLimiter()
    assert misses.admit("a", 0.0)
    misses.note("a", 0.0)
    assert not misses.admit("a", 9.9)
    assert misses.admit("a", 10.0)
    for number in range(19):
        assert misses.admit(str(number), 10.0)
    with pytest.raises(AuditUnavailable):
        misses.admit("b", 10.0)
    assert misses.admit("b", 10.06)
    for number in range(20_000):
        misses.note(str(number), 11.0)
    assert len(misses._until_s) == 10_000


def test_a_miss_is_a_503_while_the_log_is_away_and_a_404_when_it_is_not_asked(
    redis_url: str, clock: ManualClock, redis: redis_py.Redis
) -> None:
    nowhere = "postgresql://127.0.0.1:1/nothing"
    asking = create_app(make_settings(redis_url, database_url=nowhere, recover_on_miss=True), partials=PARTIALS)
    refused = asking.test_client().get(f"/v1/sessions/{UNKNOWN}")
    assert expect_error(refused, 503, "AUDIT_UNAVAILABLE")
    assert refused.headers["Retry-After"] == "1"
    plain = create_app(make_settings(redis_url, database_url=nowhere), partials=PARTIALS).test_client()
    expect_error(plain.get(f"/v1/sessions/{UNKNOWN}"), 404, "SESSION_NOT_FOUND")
    assert asking.test_client().post("/v1/sessions", json=CHESS).status_code == 201


# Real processes.


def test_clients_of_every_process_see_the_new_epoch_and_go_on(
    make_cluster: MakeCluster, redis: redis_py.Redis, db: Db
) -> None:
    cluster = make_cluster(RECOVER_ON_MISS="true")
    bases = [f"{url}/v1/sessions" for url in cluster.urls]
    made = requests.post(bases[0], json=CHESS, timeout=60).json()["data"]
    session_id = made["session_id"]
    requests.post(f"{bases[0]}/{session_id}/start", timeout=60)

    def logged(version: int) -> bool:
        return requests.get(f"{bases[1]}/{session_id}/at?version={version}", timeout=60).status_code == 200

    with ExitStack() as stack:
        clients = [
            stack.enter_context(RawWebSocket(url, f"{session_id}{more}"))
            for url in cluster.urls
            for more in ("", "&format=patch")
        ]
        for client in clients:
            assert client.message("STATE_SYNC")["state"]["version"] == 2
        wait_until(lambda: logged(2))
        lose_session(redis, session_id)
        answer = requests.post(f"{bases[1]}/{session_id}/switch", timeout=60)
        assert answer.status_code == 200
        found = answer.json()["data"]
        assert (found["epoch"] > made["epoch"], found["version"], found["cycle_count"]) == (True, 2, 1)
        for client in clients:
            restored = client.message("STATE_UPDATE")
            assert (restored["epoch"], restored["version"]) == (found["epoch"], 1)
            assert restored["event"]["type"] == "session_restored"
            assert restored["state"]["active_participant_id"] == "white"
            switched = client.message()
            assert switched["type"] in ("STATE_UPDATE", "STATE_PATCH")
            assert (switched["epoch"], switched["version"]) == (found["epoch"], 2)
    wait_until(lambda: logged(2))
    lose_session(redis, session_id)
    with RawWebSocket(cluster.urls[0], session_id) as late:
        state = late.message("STATE_SYNC")["state"]
        assert (state["epoch"] > found["epoch"], state["version"], state["cycle_count"]) == (True, 1, 1)

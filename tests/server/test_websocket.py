"""What a WebSocket client receives, also while the store is unavailable."""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from syncapp.dev.servers import Valkey
from syncapp.errors import SyncError
from syncapp.realtime import frames, protocol
from syncapp.realtime.protocol import Close, Incoming, Outgoing
from tests.support.cluster import Cluster
from tests.support.raw_websocket import CLOSE, RawWebSocket
from tests.support.types import Redis
from tests.support.web_clients import OpenWebSocket, RestClient, wait_until

pytestmark = pytest.mark.usefixtures("no_errors_logged")

# Messages.


def test_a_client_is_told_where_it_stands_and_then_what_the_session_is(
    apis: list[RestClient], open_websocket: OpenWebSocket
) -> None:
    session_id = apis[0].running(metadata={"round": 1})
    state = apis[0].state(session_id)
    one = open_websocket(apis[1].url, session_id.upper())
    connected, sync = one.next(), one.next()
    assert (connected["type"], connected["epoch"], connected["version"]) == ("CONNECTED", state["epoch"], 2)
    assert sync["type"] == "STATE_SYNC"
    now = {"server_time_ms": sync["state"]["server_time_ms"], "clock": sync["state"]["clock"]}
    assert sync["state"] == state | now
    assert sync["timestamp"] == sync["state"]["server_time_ms"]
    assert sync["state"]["clock"]["deadline_ms"] == state["clock"]["deadline_ms"]
    assert {connected["sessionId"], sync["sessionId"]} == {session_id}


def test_every_client_of_every_process_is_told_every_commit_in_order(
    apis: list[RestClient], open_websocket: OpenWebSocket
) -> None:
    session_id = apis[0].running()
    clients = [open_websocket(api.url, session_id) for api in apis for _ in range(3)]
    for each in clients:
        each.next("STATE_SYNC")
    states = [apis[i % 2].command(session_id, "switch") for i in range(10)]
    states.append(apis[0].command(session_id, "pause"))
    for each in clients:
        for state in states:
            update = each.next()
            assert (update["type"], update["version"], update["epoch"]) == (
                "STATE_UPDATE",
                state["version"],
                state["epoch"],
            )
            assert update["event"]["type"] in ("cycle_switched", "session_paused")
            now = {"server_time_ms": update["timestamp"], "clock": update["state"]["clock"]}
            assert update["state"] == state | now
            assert update["timestamp"] >= update["event"]["at_ms"]
        assert each.silent(0.05)


def test_a_pong_is_the_servers_time_and_brings_the_clients_own_back(
    apis: list[RestClient], open_websocket: OpenWebSocket
) -> None:
    one = open_websocket(apis[0].url, apis[0].running())
    one.next("STATE_SYNC")
    time.sleep(1)
    offsets = []
    for _ in range(10):
        t0 = time.time() * 1000
        pong = one.ask(type="PING", t0=t0)
        t1 = time.time() * 1000
        assert (pong["type"], pong["t0"]) == ("PONG", t0)
        offsets.append((abs(pong["timestamp"] - (t0 + t1) / 2), (t1 - t0) / 2))
    assert any(offset <= uncertainty + 10 for offset, uncertainty in offsets)
    assert "t0" not in one.ask(type="PING")
    assert one.ask(type="PING", t0=7)["t0"] == 7
    pong = one.ask(type="PING", timestamp=1767268805101)
    assert (pong["client_timestamp"], "t0" in pong) == (1767268805101, False)
    assert pong["timestamp"] > 1767268805101
    pong = one.ask(type="PING", t0=1.5, timestamp=2)
    assert (pong["t0"], pong["client_timestamp"]) == (1.5, 2)


def test_reconnect_brings_the_state_unless_the_client_has_it(
    apis: list[RestClient], open_websocket: OpenWebSocket
) -> None:
    session_id = apis[0].running()
    one = open_websocket(apis[0].url, session_id)
    epoch = one.next()["epoch"]
    one.next("STATE_SYNC")
    for claim in ({}, {"epoch": epoch, "version": 1}, {"epoch": epoch, "version": 99}, {"epoch": 1, "version": 2}):
        connected, sync = one.ask(type="RECONNECT", **claim), one.next()
        assert (connected["type"], connected["epoch"], connected["version"]) == ("CONNECTED", epoch, 2)
        assert (sync["type"], sync["state"]["version"]) == ("STATE_SYNC", 2)
    connected = one.ask(type="RECONNECT", epoch=epoch, version=2)
    assert (connected["type"], connected["version"]) == ("CONNECTED", 2)
    assert one.silent()
    apis[1].command(session_id, "switch")
    assert one.next()["type"] == "STATE_UPDATE"


def test_a_connection_to_an_unknown_session_has_no_version_until_it_is_made(
    apis: list[RestClient], open_websocket: OpenWebSocket
) -> None:
    session_id = str(uuid.uuid4())
    clients = [open_websocket(api.url, session_id) for api in apis]
    for each in clients:
        for connected in (each.next(), each.ask(type="RECONNECT"), each.ask(type="RECONNECT", epoch=1, version=2)):
            assert (connected["type"], connected["epoch"], connected["version"]) == ("CONNECTED", None, None)
    apis[0].create(session_id=session_id)
    for each in clients:
        update = each.next()
        assert (update["type"], update["version"], update["event"]["type"]) == ("STATE_UPDATE", 1, "session_created")


def test_a_delete_is_told_and_ends_the_connection(apis: list[RestClient], open_websocket: OpenWebSocket) -> None:
    session_id = apis[0].running()
    clients = [open_websocket(api.url, session_id) for api in apis]
    for each in clients:
        each.next("STATE_SYNC")
    apis[1].delete(session_id)
    for each in clients:
        deleted = each.next()
        assert (deleted["type"], deleted["version"]) == ("SESSION_DELETED", 3)
        assert deleted["event"]["type"] == "session_deleted"
        assert each.close_code() == Close.DONE
    again = open_websocket(apis[0].url, session_id)
    assert again.next()["version"] is None
    apis[0].create(session_id=session_id)
    assert again.next()["version"] == 1


@pytest.mark.parametrize(
    ("message", "code", "field"),
    [
        ("", "INVALID_JSON", None),
        ("{", "INVALID_JSON", None),
        ("NaN", "INVALID_JSON", None),
        ('{"type":"PING","t0":"\\ud800"}', "INVALID_JSON", None),
        ("[" * 5000, "INVALID_JSON", None),
        ("null", "VALIDATION_ERROR", "message"),
        ("[]", "VALIDATION_ERROR", "message"),
        ("{}", "VALIDATION_ERROR", "type"),
        ('{"type":["PING"]}', "VALIDATION_ERROR", "type"),
        ('{"type":"ping"}', "VALIDATION_ERROR", "type"),
        ('{"type":"PING","t0":"1"}', "VALIDATION_ERROR", "t0"),
        ('{"type":"PING","t0":1e999}', "INVALID_JSON", None),
        ('{"type":"PING","t0":true}', "VALIDATION_ERROR", "t0"),
        ('{"type":"PING","timestamp":"now"}', "VALIDATION_ERROR", "timestamp"),
        ('{"type":"PING","more":1}', "VALIDATION_ERROR", "more"),
        ('{"type":"RECONNECT","epoch":1}', "VALIDATION_ERROR", "version"),
        ('{"type":"RECONNECT","version":-1,"epoch":1}', "VALIDATION_ERROR", "version"),
        ('{"type":"COMMAND","command":"switch"}', "VALIDATION_ERROR", "id"),
        ('{"type":"COMMAND","id":"","command":"switch"}', "VALIDATION_ERROR", "id"),
        ('{"type":"COMMAND","id":"a"}', "VALIDATION_ERROR", "command"),
        ('{"type":"COMMAND","id":"a","command":"sweep"}', "VALIDATION_ERROR", "command"),
        ('{"type":"COMMAND","id":"a","command":["switch"]}', "VALIDATION_ERROR", "command"),
        ('{"type":"COMMAND","id":"a","command":"switch","args":[]}', "VALIDATION_ERROR", "args"),
        ('{"type":"COMMAND","id":"a","command":"switch","args":{"more":1}}', "VALIDATION_ERROR", "more"),
        ('{"type":"COMMAND","id":"a","command":"switch","expected_version":0}', "VALIDATION_ERROR", "expected_version"),
        ('{"type":"COMMAND","id":"a","command":"switch","idempotency_key":" "}', "VALIDATION_ERROR", "idempotency_key"),
        (
            '{"type":"COMMAND","id":"a","command":"switch","args":{"expected_version":1}}',
            "VALIDATION_ERROR",
            "args.expected_version",
        ),
        (
            json.dumps(
                {"type": "COMMAND", "id": 1, "command": "create", "args": {"session_id": str(uuid.UUID(int=1))}}
            ),
            "VALIDATION_ERROR",
            "session_id",
        ),
        (
            '{"type":"COMMAND","id":"a","command":"update","args":{"metadata":' + "[" * 40 + "]" * 40 + "}}",
            "INVALID_JSON",
            None,
        ),
    ],
)
def test_what_is_not_a_message_is_answered_with_an_error(
    apis: list[RestClient], open_websocket: OpenWebSocket, message: str, code: str, field: str | None
) -> None:
    one = open_websocket(apis[0].url, str(uuid.uuid4()))
    one.next()
    one.connection.send(message)
    error = one.next()
    assert (error["type"], error["code"]) == ("ERROR", code)
    if field:
        assert field in {detail["field"] for detail in error["details"]}
        assert {"field", "message", "code"} == error["details"][0].keys()
    assert one.ask(type="PING")["type"] == "PONG"


def test_an_error_carries_the_id_of_what_it_answers(apis: list[RestClient], open_websocket: OpenWebSocket) -> None:
    one = open_websocket(apis[0].url, str(uuid.uuid4()))
    one.next()
    assert one.ask(type="COMMAND", id="a1")["id"] == "a1"
    assert one.ask(type="COMMAND", id=7)["id"] == 7
    assert one.ask(type="OTHER", id="b")["id"] == "b"
    odd: Any
    for odd in (None, True, 1.5, [], {}, "x" * 200):
        assert "id" not in one.ask(type="COMMAND", id=odd)


def test_an_error_does_not_grow_with_the_number_of_faults(
    apis: list[RestClient], open_websocket: OpenWebSocket
) -> None:
    one = open_websocket(apis[0].url, str(uuid.uuid4()))
    one.next()
    for count, named in ((21, 20), (3000, 1)):
        error = one.ask(type="PING", **{f"field{i}": i for i in range(count)})
        assert len(error["details"]) == named
        assert len(json.dumps(error)) < 5000


@given(
    text=st.one_of(
        st.text(max_size=200),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        ).map(json.dumps),
        st.fixed_dictionaries(
            {"type": st.sampled_from([*Incoming, "X"])},
            optional={
                name: st.integers() | st.text() | st.none() | st.just(str(uuid.UUID(int=1)))
                for name in ("id", "t0", "timestamp", "epoch", "version", "args", "session_id")
            },
        ).map(json.dumps),
    )
)
@hypothesis_settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_text_comes_is_a_message_or_an_error_a_client_may_see(text: str) -> None:
    try:
        protocol.parse(text)
    except SyncError as fault:
        sent = frames.text_frame(protocol.error("s", 0, fault, protocol.echo_of(text)))
        size = int.from_bytes(sent[2:4]) if sent[1] == 126 else sent[1]
        document = json.loads(sent[4 if sent[1] == 126 else 2 :])
        assert len(sent) - (4 if sent[1] == 126 else 2) == size
        assert document["type"] == Outgoing.ERROR


# Store outages.


def test_after_a_restart_and_flushed_scripts_nothing_fails_and_nobody_is_behind(
    pair: Cluster, apis: list[RestClient], open_websocket: OpenWebSocket, redis_url: str, valkey: Valkey
) -> None:
    session_id = apis[0].running()
    clients = [open_websocket(api.url, session_id) for api in apis for _ in range(3)]
    stop = threading.Event()
    failed: list[tuple[float, str]] = []

    def traffic(api: RestClient) -> None:
        while not stop.is_set():
            began_s = time.monotonic()
            answer = requests.post(f"{api.url}/v1/sessions/{session_id}/switch", json={}, timeout=60)
            if answer.status_code != 200:
                failed.append((began_s, answer.text))
            time.sleep(0.02)

    with ThreadPoolExecutor() as pool, Redis.from_url(redis_url) as redis:
        running = [pool.submit(traffic, api) for api in apis]
        time.sleep(0.5)
        redis.script_flush()
        time.sleep(0.5)
        assert not failed
        valkey.kill()
        valkey.start()
        for api in apis:
            url = f"{api.url}/v1/sessions/{session_id}"
            wait_until(lambda url=url: requests.get(url, timeout=60).status_code == 200)  # type: ignore[misc]  # a default
        served_s = time.monotonic()
        redis.script_flush()
        time.sleep(1)
        stop.set()
        for future in running:
            future.result()
    assert not [text for began_s, text in failed if began_s > served_s]
    newest = apis[0].state(session_id)
    for each in clients:
        orders: list[tuple[int, int]] = []
        while not orders or orders[-1] < (newest["epoch"], newest["version"]):
            message = each.next()
            if message["type"] == "ERROR":  # on a busy machine the outage is long enough to be reported
                assert message["code"] == "STORE_UNAVAILABLE"
                continue
            assert message["type"] in ("CONNECTED", "STATE_SYNC", "STATE_UPDATE")
            if "state" in message:
                orders.append((message["state"]["epoch"], message["state"]["version"]))
        assert orders == sorted(set(orders))


def test_who_connects_while_the_store_is_away_is_told_so_and_then_the_state(
    pair: Cluster, apis: list[RestClient], open_websocket: OpenWebSocket, valkey: Valkey
) -> None:
    session_id = apis[0].running()
    valkey.stop()
    try:
        time.sleep(0.5)
        one = open_websocket(apis[0].url, session_id)
        error = one.next()
        assert (error["type"], error["code"]) == ("ERROR", "STORE_UNAVAILABLE")
        assert one.ask(type="PING")["type"] == "PONG"
    finally:
        valkey.start()
    assert [one.next()["type"], one.next()["type"]] == ["CONNECTED", "STATE_SYNC"]


def test_who_is_connected_while_the_store_is_away_is_told_so_stays_and_catches_up(
    pair: Cluster, apis: list[RestClient], open_websocket: OpenWebSocket, valkey: Valkey
) -> None:
    session_id = apis[0].running()
    clients = [open_websocket(api.url, session_id) for api in apis]
    for each in clients:
        each.next("STATE_SYNC")
    valkey.stop()
    try:
        for each in clients:
            error = each.next()
            assert (error["type"], error["code"], "id" in error) == ("ERROR", "STORE_UNAVAILABLE", False)
            each.send(type="COMMAND", id=1, command="switch", idempotency_key="k")
            assert each.next("ERROR")["id"] == 1
            assert each.ask(type="PING")["type"] == "PONG"
    finally:
        valkey.start()
    for each in clients:
        connected = each.next()
        assert (connected["type"], connected["version"]) == ("CONNECTED", 2)
        assert each.silent(0.2)
    apis[0].command(session_id, "switch")
    assert {each.next()["type"] for each in clients} == {"STATE_UPDATE"}


# Log lines.


def test_a_connection_is_one_line_at_its_begin_and_one_at_its_end(
    pair: Cluster, apis: list[RestClient], open_websocket: OpenWebSocket
) -> None:
    session_id = apis[0].running()
    with RawWebSocket(apis[0].url, session_id) as raw:
        raw.message("STATE_SYNC")
        raw.send((1000).to_bytes(2), CLOSE)
        raw.until_end()
    wait_until(lambda: len([line for line in pair.web[0].output().splitlines() if session_id in line]) == 2)
    opened, closed = [line for line in pair.web[0].output().splitlines() if session_id in line]
    assert "websocket opened" in opened
    assert re.search(r"websocket closed .*by=client code=1000 .*duration_s=\d", closed)

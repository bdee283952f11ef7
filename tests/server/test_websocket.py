"""WebSockets against real web processes: what a client is told, what it may not do, what it costs others."""

from __future__ import annotations

import json
import random
import re
import socket
import struct
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pydantic import BaseModel
from websockets.sync.client import connect

from syncapp import create_app
from syncapp.api.reference.messages import ERROR_CODES, RECEIVED, SENT
from syncapp.dev.servers import Valkey
from syncapp.domain.commands import COMMANDS
from syncapp.errors import SyncError
from syncapp.realtime import protocol
from syncapp.realtime.protocol import Close, Incoming, Outgoing
from tests.conftest import Cluster, MakeCluster, Redis
from tests.support.paths import ROOT
from tests.support.raw_websocket import BINARY, CLOSE, PING, PONG, TEXT, Raw, frame
from tests.support.store import settings
from tests.support.web_clients import CHESS, Api, Client, errors_in, eventually, metric

DOCUMENT = ROOT / "docs" / "protocol.md"
STRICT = {
    "ALLOWED_ORIGINS": "https://play.example, https://admin.example",
    "WS_MAX_CONNECTIONS": "8",
    "WS_MAX_CONNECTIONS_PER_SESSION": "4",
    "WS_MAX_CONNECTIONS_PER_ADDRESS": "6",
    "WS_MAX_MESSAGE_BYTES": "2000",
    "WS_MESSAGES_PER_S": "20",
    "WS_MESSAGES_BURST": "30",
    "WS_PING_INTERVAL_S": "1",
    "PROXY_HOPS": "1",
}


Open = Callable[..., Client]


@pytest.fixture(scope="module")
def pair(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    """Two web processes with the settings that they have by default."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(worker=False)


@pytest.fixture(scope="module")
def strict_cluster(make_cluster: MakeCluster) -> Cluster:
    return make_cluster(web=1, worker=False, **STRICT)


@pytest.fixture
def strict(strict_cluster: Cluster) -> Cluster:
    """A web process that allows little; connections of earlier tests have ended."""
    eventually(lambda: metric(strict_cluster.urls[0], "syncapp_ws_connections") == 0)
    return strict_cluster


@pytest.fixture(scope="module")
def apis(pair: Cluster) -> list[Api]:
    return [Api(url) for url in pair.urls]


@pytest.fixture
def client() -> Iterator[Open]:
    """Opens connections that end with the test."""
    with ExitStack() as stack:

        def open_connection(url: str, session_id: str, **options: Any) -> Client:
            address = f"{url.replace('http', 'ws', 1)}/ws?sessionId={session_id}"
            return Client(stack.enter_context(connect(address, max_size=None, **options)))

        yield open_connection


@pytest.fixture(autouse=True)
def nothing_goes_wrong(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for name in ("pair", "strict_cluster"):
        if name in request.fixturenames:
            assert not errors_in(request.getfixturevalue(name))


# What a client is told.


def test_a_client_is_told_where_it_stands_and_then_what_the_session_is(apis: list[Api], client: Open) -> None:
    session_id = apis[0].running(metadata={"round": 1})
    state = apis[0].state(session_id)
    one = client(apis[1].url, session_id.upper())
    connected, sync = one.next(), one.next()
    assert (connected["type"], connected["epoch"], connected["version"]) == ("CONNECTED", state["epoch"], 2)
    assert sync["type"] == "STATE_SYNC"
    now = {"server_time_ms": sync["state"]["server_time_ms"], "clock": sync["state"]["clock"]}
    assert sync["state"] == state | now
    assert sync["timestamp"] == sync["state"]["server_time_ms"]
    assert sync["state"]["clock"]["deadline_ms"] == state["clock"]["deadline_ms"]
    assert {connected["sessionId"], sync["sessionId"]} == {session_id}


def test_every_client_of_every_process_is_told_every_commit_in_order(apis: list[Api], client: Open) -> None:
    session_id = apis[0].running()
    clients = [client(api.url, session_id) for api in apis for _ in range(3)]
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


def test_a_pong_is_the_servers_time_and_brings_the_clients_own_back(apis: list[Api], client: Open) -> None:
    one = client(apis[0].url, apis[0].running())
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


def test_reconnect_brings_the_state_unless_the_client_has_it(apis: list[Api], client: Open) -> None:
    session_id = apis[0].running()
    one = client(apis[0].url, session_id)
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


def test_a_connection_to_an_unknown_session_has_no_version_until_it_is_made(apis: list[Api], client: Open) -> None:
    session_id = str(uuid.uuid4())
    clients = [client(api.url, session_id) for api in apis]
    for each in clients:
        for connected in (each.next(), each.ask(type="RECONNECT"), each.ask(type="RECONNECT", epoch=1, version=2)):
            assert (connected["type"], connected["epoch"], connected["version"]) == ("CONNECTED", None, None)
    apis[0].create(session_id=session_id)
    for each in clients:
        update = each.next()
        assert (update["type"], update["version"], update["event"]["type"]) == ("STATE_UPDATE", 1, "session_created")


def test_a_delete_is_told_and_ends_the_connection(apis: list[Api], client: Open) -> None:
    session_id = apis[0].running()
    clients = [client(api.url, session_id) for api in apis]
    for each in clients:
        each.next("STATE_SYNC")
    apis[1].delete(session_id)
    for each in clients:
        deleted = each.next()
        assert (deleted["type"], deleted["version"]) == ("SESSION_DELETED", 3)
        assert deleted["event"]["type"] == "session_deleted"
        assert each.close_code() == Close.DONE
    again = client(apis[0].url, session_id)
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
    apis: list[Api], client: Open, message: str, code: str, field: str | None
) -> None:
    one = client(apis[0].url, str(uuid.uuid4()))
    one.next()
    one.connection.send(message)
    error = one.next()
    assert (error["type"], error["code"]) == ("ERROR", code)
    if field:
        assert field in {detail["field"] for detail in error["details"]}
        assert {"field", "message", "code"} == error["details"][0].keys()
    assert one.ask(type="PING")["type"] == "PONG"


def test_an_error_carries_the_id_of_what_it_answers(apis: list[Api], client: Open) -> None:
    one = client(apis[0].url, str(uuid.uuid4()))
    one.next()
    assert one.ask(type="COMMAND", id="a1")["id"] == "a1"
    assert one.ask(type="COMMAND", id=7)["id"] == 7
    assert one.ask(type="OTHER", id="b")["id"] == "b"
    odd: Any
    for odd in (None, True, 1.5, [], {}, "x" * 200):
        assert "id" not in one.ask(type="COMMAND", id=odd)


def test_an_error_does_not_grow_with_the_number_of_faults(apis: list[Api], client: Open) -> None:
    one = client(apis[0].url, str(uuid.uuid4()))
    one.next()
    for count, named in ((21, 20), (3000, 1)):
        error = one.ask(type="PING", **{f"field{i}": i for i in range(count)})
        assert len(error["details"]) == named
        assert len(json.dumps(error)) < 5000


# What is checked before a connection opens.


def refusal(api: Api, session_id: str, headers: Mapping[str, str] | None = None) -> tuple[int, str, Raw]:
    """Return status and code of a refused handshake; the form of its body is checked."""
    with Raw(api.url, session_id, headers) as raw:
        size = int(re.search(r"(?i)content-length: (\d+)", raw.answer)[1])  # type: ignore[index]  # fails the test
        body = json.loads(raw._take(size))
        assert body.keys() == {"error"}
        assert {"code", "message"} <= body["error"].keys() <= {"code", "message", "details"}
        return raw.status, body["error"]["code"], raw


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Upgrade": "absent"}, 426, "UPGRADE_REQUIRED"),
        ({"Connection": "absent"}, 426, "UPGRADE_REQUIRED"),
        ({"Connection": "keep-alive"}, 426, "UPGRADE_REQUIRED"),
        ({"Upgrade": "h2c"}, 426, "UPGRADE_REQUIRED"),
        ({"Sec-WebSocket-Version": "absent"}, 426, "UPGRADE_REQUIRED"),
        ({"Sec-WebSocket-Version": "8"}, 426, "UPGRADE_REQUIRED"),
        ({"Sec-WebSocket-Version": "13, 13"}, 426, "UPGRADE_REQUIRED"),
        ({"Sec-WebSocket-Key": "absent"}, 400, "VALIDATION_ERROR"),
        ({"Sec-WebSocket-Key": "short"}, 400, "VALIDATION_ERROR"),
        ({"Sec-WebSocket-Key": "*" * 24}, 400, "VALIDATION_ERROR"),
        ({"Sec-WebSocket-Key": "\xff" * 24}, 400, "VALIDATION_ERROR"),
    ],
)
def test_a_bad_handshake_is_refused_with_a_status(
    apis: list[Api], headers: dict[str, str], status: int, code: str
) -> None:
    found, word, raw = refusal(apis[0], str(uuid.uuid4()), headers)
    assert (found, word) == (status, code)
    if status == 426:
        assert re.search(r"(?im)^upgrade: websocket", raw.answer)
        assert re.search(r"(?im)^sec-websocket-version: 13", raw.answer)


@pytest.mark.parametrize("given", ["", "x", "3e1f8e1a-3f44-4c55-9d0b-0f6f2b8f5a1", "%00", "a&sessionId=b"])
def test_a_bad_session_id_is_refused_by_name(apis: list[Api], given: str) -> None:
    status, code, _ = refusal(apis[0], given)
    assert (status, code) == (400, "VALIDATION_ERROR")


@pytest.mark.parametrize(
    "headers",
    [
        {"Cookie": "a=\xe9; b=\x80"},
        {"Sec-WebSocket-Protocol": "chat, \xff"},
        {"Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits"},
        {"Connection": "keep-alive, Upgrade", "Upgrade": "WebSocket"},
        {"X-Long": "x" * 7000},
        {"Expect": "100-continue"},
    ],
)
def test_odd_headers_do_not_keep_a_client_out(apis: list[Api], headers: dict[str, str]) -> None:
    with Raw(apis[0].url, apis[0].running(), headers) as raw:
        if raw.status == 100:
            raw.answer, _, raw._buffer = raw._buffer.partition(b"\r\n\r\n")  # type: ignore[assignment]
            return
        assert raw.status == 101
        assert "extensions" not in raw.answer.lower()
        assert raw.message()["type"] == "CONNECTED"
        assert raw.message()["type"] == "STATE_SYNC"


def test_a_plain_request_is_told_to_upgrade(redis_url: str) -> None:
    app = create_app(settings(redis_url))
    answer = app.test_client().get("/ws")
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (426, "UPGRADE_REQUIRED")
    assert app.test_client().post("/ws").status_code == 405
    upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    assert app.test_client().get("/ws", headers=upgrade).status_code == 426


def test_only_allowed_origins_come_in_and_clients_without_one(strict: Cluster, client: Open) -> None:
    api = Api(strict.urls[0])
    session_id = str(uuid.uuid4())
    for origin in ("https://evil.example", "null", "https://play.example.evil", "http://play.example", ""):
        status, code, _ = refusal(api, session_id, {"Origin": origin})
        assert (status, code) == (403, "ORIGIN_NOT_ALLOWED"), origin
    own = {"Host": "clock.example", "Origin": "http://clock.example"}
    for headers in ({"Origin": "https://play.example"}, {"Origin": "HTTPS://admin.example"}, {}, own):
        with Raw(api.url, session_id, headers) as raw:
            assert raw.status == 101


def test_quotas_refuse_before_the_upgrade_and_give_back_what_was_taken(strict: Cluster) -> None:
    api = Api(strict.urls[0])

    def opened(count: int, session_id: str, address: str) -> list[Raw]:
        return [stack.enter_context(Raw(api.url, session_id, {"X-Forwarded-For": address})) for _ in range(count)]

    for _ in range(2):
        full, other = str(uuid.uuid4()), str(uuid.uuid4())
        with ExitStack() as stack:
            assert [raw.status for raw in opened(4, full, "10.0.0.1")] == [101] * 4
            status, code, raw = refusal(api, full, {"X-Forwarded-For": "10.0.0.1"})
            assert (status, code) == (503, "TOO_MANY_CONNECTIONS")
            assert re.search(r"(?im)^retry-after: [1-9]", raw.answer)
            assert [raw.status for raw in opened(2, other, "10.0.0.1")] == [101] * 2
            status, code, raw = refusal(api, other, {"X-Forwarded-For": "10.0.0.1"})
            assert (status, code) == (429, "RATE_LIMIT_EXCEEDED")
            assert re.search(r"(?im)^retry-after: [1-9]", raw.answer)
            assert [raw.status for raw in opened(2, other, "10.0.0.2")] == [101] * 2
            status, code, _ = refusal(api, str(uuid.uuid4()), {"X-Forwarded-For": "10.0.0.3"})
            assert (status, code) == (503, "TOO_MANY_CONNECTIONS")
        eventually(lambda: metric(api.url, "syncapp_ws_connections") == 0)


# What a client may not do.


@pytest.fixture
def raw(strict: Cluster) -> Iterator[Raw]:
    """A connection that has been told that there is no such session."""
    with Raw(strict.urls[0], str(uuid.uuid4())) as connection:
        assert connection.message()["version"] is None
        yield connection


def test_binary_messages_close_the_connection(raw: Raw) -> None:
    raw.send(b"\x00\x01", BINARY)
    assert raw.close_code() == Close.NOT_TEXT


@pytest.mark.parametrize(
    "sent",
    [
        frame(b"x" * 3000),
        frame(b"x" * 1500, fin=False) + frame(b"x" * 1500, 0),
        b"".join([frame(b"", fin=False)] + [frame(b"x" * 120, 0, fin=False)] * 20),
        frame(b"x" * 60_000_000)[:400_000],
        frame("é".encode() * 1100),
    ],
    ids=["one frame", "two frames", "many frames", "a promise of 60 MB", "few characters of many bytes"],
)
def test_too_large_a_message_closes_the_connection_before_it_is_whole(raw: Raw, sent: bytes) -> None:
    with suppress(ConnectionError):
        raw.socket.sendall(sent)
    assert raw.close_code() == Close.TOO_BIG


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (frame(b"{}", masked=False), Close.PROTOCOL_ERROR),
        (frame(b"{}", rsv=4), Close.PROTOCOL_ERROR),
        (frame(b"{}", rsv=1), Close.PROTOCOL_ERROR),
        (frame(b"{}", 0x3), Close.PROTOCOL_ERROR),
        (frame(b"{}", 0xB), Close.PROTOCOL_ERROR),
        (frame(b"{}", 0x0), Close.PROTOCOL_ERROR),
        (frame(b"x", fin=False) + frame(b"y"), Close.PROTOCOL_ERROR),
        (frame(b"x" * 126, PING), Close.PROTOCOL_ERROR),
        (frame(b"x", PING, fin=False), Close.PROTOCOL_ERROR),
        (b"\x81\xff" + b"\xff" * 8 + b"mask", Close.PROTOCOL_ERROR),
        (b"\x81\xfe\x00\x05maskhello", Close.PROTOCOL_ERROR),
        (frame(b"\x03", CLOSE), Close.PROTOCOL_ERROR),
        (frame(b"\xff\xfe{}"), Close.BAD_TEXT),
        (frame(b"\xc3", fin=False) + frame(b"\x28", 0), Close.BAD_TEXT),
        (frame(b"\x03\xe8\xff\xff", CLOSE), Close.BAD_TEXT),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Close.PROTOCOL_ERROR),
    ],
    ids=map(str, range(16)),  # masks are random
)
def test_a_frame_that_breaks_the_protocol_closes_the_connection(raw: Raw, sent: bytes, code: int) -> None:
    raw.socket.sendall(sent)
    assert raw.close_code() == code


BROKEN: dict[str, tuple[bytes, int]] = {
    "reserved bits 2": (frame(b"x", rsv=2), Close.PROTOCOL_ERROR),
    "reserved bits 3": (frame(b"x", rsv=3), Close.PROTOCOL_ERROR),
    "reserved bits of a ping": (frame(b"", PING, rsv=4), Close.PROTOCOL_ERROR),
    "reserved opcode 5": (frame(b"x", 5), Close.PROTOCOL_ERROR),
    "reserved control opcode 13": (frame(b"", 13), Close.PROTOCOL_ERROR),
    "a continuation of nothing": (frame(b"x", 0), Close.PROTOCOL_ERROR),
    "two beginnings": (frame(b"x", fin=False) + frame(b"y"), Close.PROTOCOL_ERROR),
    "not masked": (frame(b"{}", masked=False), Close.PROTOCOL_ERROR),
    "a ping in parts": (frame(b"x", PING, fin=False), Close.PROTOCOL_ERROR),
    "not UTF-8": (frame(b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80"), Close.BAD_TEXT),
    "not UTF-8, in the second part": (frame(b"\xce", fin=False) + frame(b"\xff", 0, fin=False), Close.BAD_TEXT),
    "binary": (frame(b"x", BINARY), Close.NOT_TEXT),
    "too big": (frame(b"x" * 3000), Close.TOO_BIG),
    "few characters of many bytes": (frame("é".encode() * 1100), Close.TOO_BIG),
    "a close": (frame(b"\x03\xe8", CLOSE), Close.DONE),
}
ASKED = {
    "a ping": ({"type": "PING", "t0": 7}, "PONG"),
    "a command": ({"type": "COMMAND", "id": 1, "command": "create", "args": CHESS}, "ACK"),
    "a refused command": ({"type": "COMMAND", "id": 1, "command": "start"}, "ERROR"),
    "an unknown type of message": ({"type": "NOTHING"}, "ERROR"),
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("broken", BROKEN)
def test_a_valid_message_is_answered_although_a_broken_frame_follows(raw: Raw, asked: str, broken: str) -> None:
    """As in the cases 3, 4, 5 and 6.4 of Autobahn: in one packet, in two, and cut into bytes."""
    sent, code = BROKEN[broken]
    message, answer = ASKED[asked]
    raw.socket.sendall(frame(json.dumps(message).encode()) + sent)
    frames = raw.until_end()
    kinds = [received.message["type"] for received in frames if received.opcode == TEXT]
    assert kinds == (["STATE_UPDATE", "ACK"] if answer == "ACK" else [answer])
    assert [received.code for received in frames if received.opcode == CLOSE] == [code]


@pytest.mark.parametrize("pieces", ["two packets", "single bytes"])
def test_a_broken_frame_may_come_in_pieces_right_after_a_valid_message(raw: Raw, pieces: str) -> None:
    whole = frame(b'{"type":"PING","t0":1}') + frame(b"x", rsv=2)
    size = len(whole) - 7 if pieces == "two packets" else 1
    for i in range(0, len(whole), size):
        raw.socket.sendall(whole[i : i + size])
        time.sleep(0.001)
    assert raw.message("PONG")["t0"] == 1
    assert raw.close_code() == Close.PROTOCOL_ERROR


def test_what_is_sent_before_the_beginning_is_answered_although_the_client_closes_at_once(strict: Cluster) -> None:
    api = Api(strict.urls[0])
    session_id = api.running()
    for _ in range(5):
        with Raw(api.url, session_id) as hasty:
            switch = frame(b'{"type":"COMMAND","id":1,"command":"switch"}')
            hasty.socket.sendall(switch + frame(b"\x03\xe8", CLOSE))
            kinds = [received.message["type"] for received in hasty.until_end() if received.opcode == TEXT]
        assert kinds == ["CONNECTED", "STATE_SYNC", "STATE_UPDATE", "ACK"]
    assert api.state(session_id)["version"] == 7


@pytest.mark.parametrize(
    "sent",
    [
        frame(b'{"type":"PING"}') * 400,
        frame(b"{}") * 2000,
        frame(b"", PING) * 4000,
        frame(b"", PONG) * 4000,
        frame(b"", fin=False) + frame(b"", 0, fin=False) * 4000,
    ],
    ids=["messages", "refused messages", "pings", "pongs", "empty parts"],
)
def test_a_flood_closes_the_connection(raw: Raw, sent: bytes) -> None:
    with suppress(ConnectionError):
        raw.socket.sendall(sent)
    assert raw.close_code() == Close.ABUSE


def test_a_client_within_its_rate_is_let_be(raw: Raw) -> None:
    for i in range(40):
        raw.send({"type": "PING", "t0": i})
        assert raw.message("PONG")["t0"] == i
        time.sleep(0.06)


def test_messages_in_many_parts_and_single_bytes_are_put_together(raw: Raw) -> None:
    text = b'{"type":"PING","t0":1}'
    parts = [frame(text[:5], fin=False), frame(b"alive", PING), frame(text[5:9], 0, fin=False), frame(text[9:], 0)]
    for i in range(0, len(b"".join(parts)), 3):
        raw.socket.sendall(b"".join(parts)[i : i + 3])
        time.sleep(0.002)
    assert raw.message("PONG")["t0"] == 1


def test_a_handshake_that_comes_byte_by_byte_is_one(strict: Cluster) -> None:
    address = urlsplit(strict.urls[0])
    request = (
        f"GET /ws?sessionId={uuid.uuid4()} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    ).encode()
    with socket.create_connection((address.hostname, address.port)) as slow:
        for i in range(len(request)):
            slow.sendall(request[i : i + 1])
            time.sleep(0.002)
        answer = slow.recv(4096)
    assert answer.startswith(b"HTTP/1.1 101")
    assert b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in answer  # of RFC 6455


@pytest.mark.parametrize(
    "sent",
    [b"", frame(b'{"type":"PING"}')[:5], frame(b"x" * 1500)[:700], frame(b"x", fin=False)],
    ids=["nothing", "half a head", "half a frame", "a first part"],
)
def test_a_reset_in_the_middle_leaves_nothing_behind(strict: Cluster, sent: bytes) -> None:
    url = strict.urls[0]
    for _ in range(4):
        with Raw(url, str(uuid.uuid4())) as broken:
            broken.socket.sendall(sent)
            broken.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            broken.socket.close()
    eventually(lambda: metric(url, "syncapp_ws_connections") == 0)
    eventually(lambda: metric(url, "syncapp_hub_sessions") == 0)


def test_a_close_is_answered_with_its_code(raw: Raw) -> None:
    raw.send((4000).to_bytes(2) + b"bye", CLOSE)
    assert raw.close_code() == 4000


def test_a_client_that_goes_without_a_word_is_let_go(strict: Cluster) -> None:
    api = Api(strict.urls[0])
    session_id = str(uuid.uuid4())
    with Raw(api.url, session_id) as half:
        half.message()
        half.socket.shutdown(1)
        assert half.close_code() is None
    for _ in range(4):
        with Raw(api.url, session_id):
            pass
    eventually(lambda: metric(api.url, "syncapp_ws_connections") == 0)
    eventually(lambda: metric(api.url, "syncapp_hub_sessions") == 0)


def test_a_client_that_answers_pings_stays_and_one_that_does_not_is_closed(strict: Cluster, client: Open) -> None:
    session_id = str(uuid.uuid4())
    one = client(strict.urls[0], session_id)
    with Raw(strict.urls[0], session_id) as silent:
        frames = silent.until_end()
    assert [received.opcode for received in frames] == [TEXT, PING, CLOSE]
    assert frames[-1].code == Close.SILENT
    assert one.next()["type"] == "CONNECTED"
    time.sleep(2)
    assert one.ask(type="PING")["type"] == "PONG"


def test_fuzz_never_hurts_anybody_else(strict: Cluster, client: Open) -> None:
    url, session_id = strict.urls[0], str(uuid.uuid4())
    well_behaved = client(url, session_id)
    well_behaved.next()
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    ids = [str(uuid.uuid4()) for _ in range(5)]

    def noise() -> bytes:
        payload = chance.randbytes(chance.choice((0, 1, 2, 20, 125, 126, 500, 3000)))
        return chance.choice(
            (
                lambda: payload,
                lambda: frame(
                    payload, chance.randrange(16), fin=chance.random() < 0.7, rsv=chance.choice((0, 0, 0, 1))
                ),
                lambda: frame(payload, masked=chance.random() < 0.5),
                lambda: frame(b'{"type":"RECONNECT"}'),
                lambda: frame(b'{"type":"SUBSCRIBE","session_id":"%s"}' % chance.choice(ids).encode()),
                lambda: frame(b'{"type":"UNSUBSCRIBE","session_id":"%s"}' % chance.choice(ids).encode()),
                lambda: frame(payload.hex().encode(), fin=chance.random() < 0.5),
                lambda: frame(chance.randbytes(2) + payload[:100], CLOSE),
            )
        )()

    for _ in range(150):
        eventually(lambda: metric(url, "syncapp_ws_connections") < 4)  # few are allowed
        with Raw(url, str(uuid.uuid4())) as fuzzed, suppress(ConnectionError, TimeoutError):
            assert fuzzed.status == 101, f"seed {seed}"
            for _ in range(chance.randrange(1, 12)):
                fuzzed.socket.sendall(noise())
            if chance.random() < 0.5:
                fuzzed.socket.shutdown(1)
                for received in fuzzed.until_end(5):
                    assert b"Traceback" not in received.payload, f"seed {seed}"
    assert well_behaved.ask(type="PING", t0=1)["t0"] == 1
    eventually(lambda: metric(url, "syncapp_ws_connections") == 1)
    assert not [line for line in strict.web[0].output().splitlines() if "WebSocket" in line and "failed" in line], (
        f"seed {seed}"
    )


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
@hypothesis_settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_whatever_text_comes_is_a_message_or_an_error_a_client_may_see(text: str) -> None:
    try:
        protocol.parse(text)
    except SyncError as fault:
        sent = protocol.text_frame(protocol.error("s", 0, fault, protocol.echo_of(text)))
        size = int.from_bytes(sent[2:4]) if sent[1] == 126 else sent[1]
        document = json.loads(sent[4 if sent[1] == 126 else 2 :])
        assert len(sent) - (4 if sent[1] == 126 else 2) == size
        assert document["type"] == Outgoing.ERROR


# Trouble with the store.


def test_after_a_restart_and_flushed_scripts_nothing_fails_and_nobody_is_behind(
    pair: Cluster, apis: list[Api], client: Open, redis_url: str, valkey: Valkey
) -> None:
    session_id = apis[0].running()
    clients = [client(api.url, session_id) for api in apis for _ in range(3)]
    stop = threading.Event()
    failed: list[tuple[float, str]] = []

    def traffic(api: Api) -> None:
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
            eventually(lambda url=url: requests.get(url, timeout=60).status_code == 200)  # type: ignore[misc]  # a default
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
            if message["type"] == "ERROR":  # on a busy machine the outage is long enough to be told
                assert message["code"] == "STORE_UNAVAILABLE"
                continue
            assert message["type"] in ("CONNECTED", "STATE_SYNC", "STATE_UPDATE")
            if "state" in message:
                orders.append((message["state"]["epoch"], message["state"]["version"]))
        assert orders == sorted(set(orders))


def test_who_connects_while_the_store_is_away_is_told_so_and_then_the_state(
    pair: Cluster, apis: list[Api], client: Open, valkey: Valkey
) -> None:
    session_id = apis[0].running()
    valkey.stop()
    try:
        time.sleep(0.5)
        one = client(apis[0].url, session_id)
        error = one.next()
        assert (error["type"], error["code"]) == ("ERROR", "STORE_UNAVAILABLE")
        assert one.ask(type="PING")["type"] == "PONG"
    finally:
        valkey.start()
    assert [one.next()["type"], one.next()["type"]] == ["CONNECTED", "STATE_SYNC"]


def test_who_is_connected_while_the_store_is_away_is_told_so_stays_and_catches_up(
    pair: Cluster, apis: list[Api], client: Open, valkey: Valkey
) -> None:
    session_id = apis[0].running()
    clients = [client(api.url, session_id) for api in apis]
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


# What is written about it.


def test_a_connection_is_one_line_at_its_begin_and_one_at_its_end(pair: Cluster, apis: list[Api], client: Open) -> None:
    session_id = apis[0].running()
    with Raw(apis[0].url, session_id) as raw:
        raw.message("STATE_SYNC")
        raw.send((1000).to_bytes(2), CLOSE)
        raw.until_end()
    eventually(lambda: len([line for line in pair.web[0].output().splitlines() if session_id in line]) == 2)
    opened, closed = [line for line in pair.web[0].output().splitlines() if session_id in line]
    assert "websocket opened" in opened
    assert re.search(r"websocket closed .*by=client code=1000 .*duration_s=\d", closed)


def test_requests_for_websockets_are_counted_as_what_they_were_answered(strict: Cluster) -> None:
    api = Api(strict.urls[0])
    requests.get(f"{api.url}/ws", timeout=60)
    with Raw(api.url, str(uuid.uuid4())) as raw:
        raw.message()
    counted = [f'syncapp_http_requests_total{{method="GET",route="/ws",status="{status}"}}' for status in (101, 426)]
    eventually(lambda: all(metric(api.url, name) for name in counted))


def table(heading: str) -> dict[str, list[str]]:
    """Return the rows of the table under a heading of the protocol's document, by their first column."""
    part = DOCUMENT.read_text().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [re.split(r" \| ", line.strip("| ")) for line in part.splitlines() if line.startswith("| `")]
    return {re.findall(r"`(\w+)`", row[0])[0]: row[1:] for row in rows}


def fields_of(model: type[BaseModel]) -> set[str]:
    return set(model.model_fields) - {"type", "sessionId", "timestamp"}


def test_the_document_names_every_message_with_its_fields() -> None:
    sent, received = table("What the server sends"), table("What a client may send")
    assert sent.keys() == set(Outgoing)
    assert received.keys() == set(Incoming)
    for kind, model in SENT.items():
        assert set(re.findall(r"`(\w+)`", sent[kind][0].split(". ")[0])) == fields_of(model), kind
    for asked, kind_model in RECEIVED.items():
        assert set(re.findall(r"`(\w+)`", received[asked][0])) == set(kind_model.model_fields) - {"type"}, asked


def test_the_document_says_of_every_close_code_whether_to_come_back() -> None:
    codes = table("Close codes")
    assert {int(code) for code in codes} == {*Close, 1001, 1006}
    for row in codes.values():
        assert re.match(r"(yes|no)\b", row[-1])


def test_the_document_names_every_command_and_every_error_with_what_to_do() -> None:
    rows = table("Error codes")
    assert sorted(rows) == ERROR_CODES
    assert all(len(row) == 2 for row in rows.values())
    commands = DOCUMENT.read_text().split("`command` is one of ")[1].split(", and acts")[0]
    assert re.findall(r"`(\w+)`", commands) == list(COMMANDS)


def test_every_example_in_the_document_is_a_message() -> None:
    examples = re.findall(r"```json\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    kinds = set()
    for text in examples:
        example = json.loads(text)
        kinds.add(example["type"])
        if example["type"] in set(Incoming):
            protocol.parse(text)
        elif "state" not in example:  # those are shortened
            SENT[Outgoing(example["type"])].model_validate_json(text)
    assert kinds == {*Outgoing, *Incoming}


def test_the_asyncapi_document_says_what_the_code_does(redis_url: str) -> None:
    document = create_app(settings(redis_url)).test_client().get("/asyncapi.json").get_json()
    assert document["asyncapi"] == "3.1.0"
    older = create_app(settings(redis_url)).test_client().get("/asyncapi.json?version=3.0.0").get_json()
    assert older == document | {"asyncapi": "3.0.0"}
    messages = document["components"]["messages"]
    assert messages.keys() == {*Outgoing, *Incoming}
    channel = document["channels"]["session"]
    assert channel["messages"].keys() == messages.keys() - {Outgoing.HEARTBEAT}  # a stream's only
    assert set(channel["x-close-codes"]) == {str(int(code)) for code in Close}
    schemas = document["components"]["schemas"]
    assert schemas["ErrorMessage"]["properties"]["code"]["enum"] == ERROR_CODES
    assert schemas["Command"]["properties"]["command"]["enum"] == list(COMMANDS)
    actions = {operation["action"] for operation in document["operations"].values()}
    assert actions == {"send", "receive"}
    for ref in re.findall(r'"\$ref": "#/([^"]+)"', json.dumps(document)):
        found = document
        for part in ref.split("/"):
            found = found[part]

"""Frames that break the protocol or the limits close their own connection, and disturb no other."""

from __future__ import annotations

import json
import random
import socket
import struct
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress

import pytest

from syncapp.realtime.protocol import Close
from tests.support.cluster import Cluster
from tests.support.raw_websocket import BINARY, CLOSE, PING, PONG, TEXT, RawWebSocket, client_frame
from tests.support.web_clients import CHESS, OpenWebSocket, RestClient, metric_value, wait_until

pytestmark = pytest.mark.usefixtures("no_errors_logged")


@pytest.fixture
def raw(strict: Cluster) -> Iterator[RawWebSocket]:
    """A connection to a session that does not exist, after CONNECTED."""
    with RawWebSocket(strict.urls[0], str(uuid.uuid4())) as connection:
        assert connection.message()["version"] is None
        yield connection


def test_binary_messages_close_the_connection(raw: RawWebSocket) -> None:
    raw.send(b"\x00\x01", BINARY)
    assert raw.close_code() == Close.NOT_TEXT


@pytest.mark.parametrize(
    "sent",
    [
        client_frame(b"x" * 3000),
        client_frame(b"x" * 1500, fin=False) + client_frame(b"x" * 1500, 0),
        b"".join([client_frame(b"", fin=False)] + [client_frame(b"x" * 120, 0, fin=False)] * 20),
        client_frame(b"x" * 60_000_000)[:400_000],
        client_frame("é".encode() * 1100),
    ],
    ids=["one frame", "two frames", "many frames", "a promise of 60 MB", "few characters of many bytes"],
)
def test_too_large_a_message_closes_the_connection_before_it_is_whole(raw: RawWebSocket, sent: bytes) -> None:
    with suppress(ConnectionError):
        raw.socket.sendall(sent)
    assert raw.close_code() == Close.TOO_BIG


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (client_frame(b"{}", masked=False), Close.PROTOCOL_ERROR),
        (client_frame(b"{}", rsv=4), Close.PROTOCOL_ERROR),
        (client_frame(b"{}", rsv=1), Close.PROTOCOL_ERROR),
        (client_frame(b"{}", 0x3), Close.PROTOCOL_ERROR),
        (client_frame(b"{}", 0xB), Close.PROTOCOL_ERROR),
        (client_frame(b"{}", 0x0), Close.PROTOCOL_ERROR),
        (client_frame(b"x", fin=False) + client_frame(b"y"), Close.PROTOCOL_ERROR),
        (client_frame(b"x" * 126, PING), Close.PROTOCOL_ERROR),
        (client_frame(b"x", PING, fin=False), Close.PROTOCOL_ERROR),
        (b"\x81\xff" + b"\xff" * 8 + b"mask", Close.PROTOCOL_ERROR),
        (b"\x81\xfe\x00\x05maskhello", Close.PROTOCOL_ERROR),
        (client_frame(b"\x03", CLOSE), Close.PROTOCOL_ERROR),
        (client_frame(b"\xff\xfe{}"), Close.BAD_TEXT),
        (client_frame(b"\xc3", fin=False) + client_frame(b"\x28", 0), Close.BAD_TEXT),
        (client_frame(b"\x03\xe8\xff\xff", CLOSE), Close.BAD_TEXT),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", Close.PROTOCOL_ERROR),
    ],
    ids=map(str, range(16)),  # masks are random
)
def test_a_frame_that_breaks_the_protocol_closes_the_connection(raw: RawWebSocket, sent: bytes, code: int) -> None:
    raw.socket.sendall(sent)
    assert raw.close_code() == code


BROKEN: dict[str, tuple[bytes, int]] = {
    "reserved bits 2": (client_frame(b"x", rsv=2), Close.PROTOCOL_ERROR),
    "reserved bits 3": (client_frame(b"x", rsv=3), Close.PROTOCOL_ERROR),
    "reserved bits of a ping": (client_frame(b"", PING, rsv=4), Close.PROTOCOL_ERROR),
    "reserved opcode 5": (client_frame(b"x", 5), Close.PROTOCOL_ERROR),
    "reserved control opcode 13": (client_frame(b"", 13), Close.PROTOCOL_ERROR),
    "a continuation of nothing": (client_frame(b"x", 0), Close.PROTOCOL_ERROR),
    "two beginnings": (client_frame(b"x", fin=False) + client_frame(b"y"), Close.PROTOCOL_ERROR),
    "not masked": (client_frame(b"{}", masked=False), Close.PROTOCOL_ERROR),
    "a ping in parts": (client_frame(b"x", PING, fin=False), Close.PROTOCOL_ERROR),
    "not UTF-8": (client_frame(b"\xce\xba\xe1\xbd\xb9\xed\xa0\x80"), Close.BAD_TEXT),
    "not UTF-8, in the second part": (
        client_frame(b"\xce", fin=False) + client_frame(b"\xff", 0, fin=False),
        Close.BAD_TEXT,
    ),
    "binary": (client_frame(b"x", BINARY), Close.NOT_TEXT),
    "too big": (client_frame(b"x" * 3000), Close.TOO_BIG),
    "few characters of many bytes": (client_frame("é".encode() * 1100), Close.TOO_BIG),
    "a close": (client_frame(b"\x03\xe8", CLOSE), Close.DONE),
}
ASKED = {
    "a ping": ({"type": "PING", "t0": 7}, "PONG"),
    "a command": ({"type": "COMMAND", "id": 1, "command": "create", "args": CHESS}, "ACK"),
    "a refused command": ({"type": "COMMAND", "id": 1, "command": "start"}, "ERROR"),
    "an unknown type of message": ({"type": "NOTHING"}, "ERROR"),
}


@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("broken", BROKEN)
def test_a_valid_message_is_answered_although_a_broken_frame_follows(
    raw: RawWebSocket, asked: str, broken: str
) -> None:
    """As in the cases 3, 4, 5 and 6.4 of Autobahn: in one packet, in two, and cut into bytes."""
    sent, code = BROKEN[broken]
    message, answer = ASKED[asked]
    raw.socket.sendall(client_frame(json.dumps(message).encode()) + sent)
    frames = raw.until_end()
    kinds = [received.message["type"] for received in frames if received.opcode == TEXT]
    assert kinds == (["STATE_UPDATE", "ACK"] if answer == "ACK" else [answer])
    assert [received.code for received in frames if received.opcode == CLOSE] == [code]


@pytest.mark.parametrize("pieces", ["two packets", "single bytes"])
def test_a_broken_frame_may_come_in_pieces_right_after_a_valid_message(raw: RawWebSocket, pieces: str) -> None:
    whole = client_frame(b'{"type":"PING","t0":1}') + client_frame(b"x", rsv=2)
    size = len(whole) - 7 if pieces == "two packets" else 1
    for i in range(0, len(whole), size):
        raw.socket.sendall(whole[i : i + size])
        time.sleep(0.001)
    assert raw.message("PONG")["t0"] == 1
    assert raw.close_code() == Close.PROTOCOL_ERROR


def test_what_is_sent_before_the_beginning_is_answered_although_the_client_closes_at_once(strict: Cluster) -> None:
    api = RestClient(strict.urls[0])
    session_id = api.running()
    for _ in range(5):
        with RawWebSocket(api.url, session_id) as hasty:
            switch = client_frame(b'{"type":"COMMAND","id":1,"command":"switch"}')
            hasty.socket.sendall(switch + client_frame(b"\x03\xe8", CLOSE))
            kinds = [received.message["type"] for received in hasty.until_end() if received.opcode == TEXT]
        assert kinds == ["CONNECTED", "STATE_SYNC", "STATE_UPDATE", "ACK"]
    assert api.state(session_id)["version"] == 7


@pytest.mark.parametrize(
    "sent",
    [
        client_frame(b'{"type":"PING"}') * 400,
        client_frame(b"{}") * 2000,
        client_frame(b"", PING) * 4000,
        client_frame(b"", PONG) * 4000,
        client_frame(b"", fin=False) + client_frame(b"", 0, fin=False) * 4000,
    ],
    ids=["messages", "refused messages", "pings", "pongs", "empty parts"],
)
def test_a_flood_closes_the_connection(raw: RawWebSocket, sent: bytes) -> None:
    with suppress(ConnectionError):
        raw.socket.sendall(sent)
    assert raw.close_code() == Close.ABUSE


def test_a_client_within_its_rate_is_let_be(raw: RawWebSocket) -> None:
    for i in range(40):
        raw.send({"type": "PING", "t0": i})
        assert raw.message("PONG")["t0"] == i
        time.sleep(0.06)


def test_messages_in_many_parts_and_single_bytes_are_put_together(raw: RawWebSocket) -> None:
    text = b'{"type":"PING","t0":1}'
    parts = [
        client_frame(text[:5], fin=False),
        client_frame(b"alive", PING),
        client_frame(text[5:9], 0, fin=False),
        client_frame(text[9:], 0),
    ]
    for i in range(0, len(b"".join(parts)), 3):
        raw.socket.sendall(b"".join(parts)[i : i + 3])
        time.sleep(0.002)
    assert raw.message("PONG")["t0"] == 1


@pytest.mark.parametrize(
    "sent",
    [b"", client_frame(b'{"type":"PING"}')[:5], client_frame(b"x" * 1500)[:700], client_frame(b"x", fin=False)],
    ids=["nothing", "half a head", "half a frame", "a first part"],
)
def test_a_reset_in_the_middle_leaves_nothing_behind(strict: Cluster, sent: bytes) -> None:
    url = strict.urls[0]
    for _ in range(4):
        with RawWebSocket(url, str(uuid.uuid4())) as broken:
            broken.socket.sendall(sent)
            broken.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            broken.socket.close()
    wait_until(lambda: metric_value(url, "syncapp_ws_connections") == 0)
    wait_until(lambda: metric_value(url, "syncapp_hub_sessions") == 0)


def test_a_close_is_answered_with_its_code(raw: RawWebSocket) -> None:
    raw.send((4000).to_bytes(2) + b"bye", CLOSE)
    assert raw.close_code() == 4000


def test_a_client_that_goes_without_a_word_is_let_go(strict: Cluster) -> None:
    api = RestClient(strict.urls[0])
    session_id = str(uuid.uuid4())
    with RawWebSocket(api.url, session_id) as half:
        half.message()
        half.socket.shutdown(1)
        assert half.close_code() is None
    for _ in range(4):
        with RawWebSocket(api.url, session_id):
            pass
    wait_until(lambda: metric_value(api.url, "syncapp_ws_connections") == 0)
    wait_until(lambda: metric_value(api.url, "syncapp_hub_sessions") == 0)


def test_a_client_that_answers_pings_stays_and_one_that_does_not_is_closed(
    strict: Cluster, open_websocket: OpenWebSocket
) -> None:
    session_id = str(uuid.uuid4())
    one = open_websocket(strict.urls[0], session_id)
    with RawWebSocket(strict.urls[0], session_id) as silent:
        frames = silent.until_end()
    opcodes = [received.opcode for received in frames]
    assert opcodes in ([TEXT, PING, CLOSE], [PING, TEXT, CLOSE])  # on a slow machine the ping comes first
    assert frames[-1].code == Close.SILENT
    assert one.next()["type"] == "CONNECTED"
    time.sleep(2)
    assert one.ask(type="PING")["type"] == "PONG"


def test_fuzz_never_hurts_anybody_else(strict: Cluster, open_websocket: OpenWebSocket) -> None:
    url, session_id = strict.urls[0], str(uuid.uuid4())
    well_behaved = open_websocket(url, session_id)
    well_behaved.next()
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    ids = [str(uuid.uuid4()) for _ in range(5)]

    def noise() -> bytes:
        payload = chance.randbytes(chance.choice((0, 1, 2, 20, 125, 126, 500, 3000)))
        return chance.choice(
            (
                lambda: payload,
                lambda: client_frame(
                    payload, chance.randrange(16), fin=chance.random() < 0.7, rsv=chance.choice((0, 0, 0, 1))
                ),
                lambda: client_frame(payload, masked=chance.random() < 0.5),
                lambda: client_frame(b'{"type":"RECONNECT"}'),
                lambda: client_frame(b'{"type":"SUBSCRIBE","session_id":"%s"}' % chance.choice(ids).encode()),
                lambda: client_frame(b'{"type":"UNSUBSCRIBE","session_id":"%s"}' % chance.choice(ids).encode()),
                lambda: client_frame(payload.hex().encode(), fin=chance.random() < 0.5),
                lambda: client_frame(chance.randbytes(2) + payload[:100], CLOSE),
            )
        )()

    for _ in range(150):
        wait_until(lambda: metric_value(url, "syncapp_ws_connections") < 4)  # few connections are allowed
        with RawWebSocket(url, str(uuid.uuid4())) as fuzzed, suppress(ConnectionError, TimeoutError):
            assert fuzzed.status == 101, f"seed {seed}"
            for _ in range(chance.randrange(1, 12)):
                fuzzed.socket.sendall(noise())
            if chance.random() < 0.5:
                fuzzed.socket.shutdown(1)
                for received in fuzzed.until_end(5):
                    assert b"Traceback" not in received.payload, f"seed {seed}"
    assert well_behaved.ask(type="PING", t0=1)["t0"] == 1
    wait_until(lambda: metric_value(url, "syncapp_ws_connections") == 1)
    assert not [line for line in strict.web[0].output().splitlines() if "WebSocket" in line and "failed" in line], (
        f"seed {seed}"
    )

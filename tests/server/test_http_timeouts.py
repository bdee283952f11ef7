"""HTTP clients that are slow, or send without end, delay nobody else."""

from __future__ import annotations

import random
import re
import socket
import struct
import threading
import time
from contextlib import ExitStack, suppress

import gevent
import orjson
import psutil
import pytest

from syncapp.server.http_reader import HttpReader
from tests.support.cluster import Cluster, MakeCluster
from tests.support.raw_http import (
    MOST_BODY_BYTES,
    MOST_CONNECTIONS,
    TIMEOUT_S,
    RawConnection,
    others_are_served,
    post_request,
    send_until_blocked,
)
from tests.support.raw_websocket import RawWebSocket
from tests.support.web_clients import CHESS, RestClient, logged_errors, wait_until


@pytest.fixture(scope="module")
def brisk(make_cluster: MakeCluster) -> Cluster:
    """A web process with a short request timeout and room for few connections."""
    return make_cluster(web=1, worker=False, REQUEST_TIMEOUT_S=str(TIMEOUT_S), WORKER_CONNECTIONS=str(MOST_CONNECTIONS))


# Endless and pipelined requests.
PIPELINED = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 200
CHUNKS = b"1\r\n \r\n" * 10_000


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000000\r\n\r\n", b" " * 100_000),
        (post_request("/v1/sessions", "Content-Length: 100000000000\r\n"), b" " * 100_000),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", CHUNKS),
        (post_request("/v1/sessions", "Transfer-Encoding: chunked\r\n"), b"fffffff\r\n" + b" " * 100_000),
        (b"GET /health HTTP/1.1\r\n", b"a: b\r\n" * 10_000),
        (b"", b"a" * 100_000),
    ],
)
def test_what_has_no_end_is_cut_off_and_holds_nobody_up(web: Cluster, head: bytes, more: bytes) -> None:
    with others_are_served(web.urls[0]), RawConnection(web.urls[0], head) as peer:
        assert send_until_blocked(peer.socket, more, 500_000_000) < 200_000_000


def test_a_client_that_does_not_wait_for_answers_has_no_more_than_its_share(web: Cluster) -> None:
    with others_are_served(web.urls[0], least=5), RawConnection(web.urls[0]) as peer:
        reader = threading.Thread(target=_read_all, args=(peer.socket,))
        reader.start()
        peer.socket.settimeout(60)
        end_s = time.monotonic() + 3
        while time.monotonic() < end_s:
            peer.socket.sendall(PIPELINED)
        peer.socket.shutdown(socket.SHUT_RDWR)
        reader.join()


def _read_all(from_: socket.socket) -> None:
    with suppress(OSError):
        while from_.recv(1 << 20):
            pass


# Time.


@pytest.mark.parametrize(
    "sent",
    [
        "GET /health HTTP/1.1\r\nHost",
        post_request("/v1/sessions", "Content-Length: 100\r\n", b"{"),
        post_request("/v1/sessions", "Transfer-Encoding: chunked\r\n", b"2\r\n{"),
    ],
)
def test_a_request_that_takes_too_long_to_arrive_is_refused(brisk: Cluster, sent: bytes | str) -> None:
    began_s = time.monotonic()
    with RawConnection(brisk.urls[0], sent) as peer:
        peer.refused(408, "REQUEST_TIMEOUT")
    assert TIMEOUT_S - 0.1 < time.monotonic() - began_s < 15  # as long as a request may take by default


def test_a_request_that_drips_in_is_refused_as_well(brisk: Cluster) -> None:
    with RawConnection(brisk.urls[0], post_request("/v1/sessions", "Content-Length: 1000\r\n")) as peer:
        end_s = time.monotonic() + 15
        with suppress(OSError):
            while time.monotonic() < end_s:
                peer.send(b" ")
                time.sleep(0.1)
        assert time.monotonic() < end_s


def test_a_request_that_comes_byte_by_byte_but_in_time_is_answered(web: Cluster) -> None:
    with RawConnection(web.urls[0]) as peer:
        for each in b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n":
            peer.send(bytes([each]))
            time.sleep(0.005)
        assert peer.rest().startswith(b"HTTP/1.1 200 ")


def test_a_connection_on_which_nothing_is_asked_is_closed_without_a_word(brisk: Cluster) -> None:
    with RawConnection(brisk.urls[0]) as peer:
        assert peer.rest() == b""


def test_a_connection_waits_longer_for_another_request_than_for_the_first(brisk: Cluster) -> None:
    with RawConnection(brisk.urls[0], "GET /health HTTP/1.1\r\nHost: x\r\n\r\n") as peer:
        while not peer.socket.recv(10_000).endswith(b"}"):
            pass
        time.sleep(TIMEOUT_S + 0.5)
        peer.send("GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert peer.rest().startswith(b"HTTP/1.1 200 ")


def test_a_client_that_does_not_read_its_answers_is_given_up(brisk: Cluster) -> None:
    api = RestClient(brisk.urls[0])
    session_id = api.create(metadata={"text": "x" * 16_000})
    worker = psutil.Process(brisk.web[0].pid).children()[0]

    def is_served(peer: RawConnection) -> bool:
        return peer.socket.getsockname()[:2] in [each.raddr for each in worker.net_connections()]

    with RawConnection(brisk.urls[0]) as peer:
        wait_until(lambda: is_served(peer))
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.socket.settimeout(1)
        with suppress(OSError):
            for _ in range(2000):
                peer.send(f"GET /v1/sessions/{session_id} HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_until(lambda: not is_served(peer))


def test_a_websocket_may_stay_silent_for_longer_than_a_request(brisk: Cluster) -> None:
    api = RestClient(brisk.urls[0])
    with RawWebSocket(brisk.urls[0], api.create()) as raw:
        raw.message()
        time.sleep(TIMEOUT_S + 0.5)
        raw.send({"type": "PING"})
        assert raw.message("PONG")


def test_more_connections_than_there_is_room_for_hold_nobody_up(brisk: Cluster) -> None:
    stuck = post_request("/v1/sessions", "Content-Length: 100\r\n", b"{")
    with ExitStack() as stack, others_are_served(brisk.urls[0], least=5, reconnect=True):
        end_s = time.monotonic() + 3
        while time.monotonic() < end_s:
            for _ in range(10):
                stack.enter_context(RawConnection(brisk.urls[0], stuck))
            time.sleep(0.05)


def test_a_worker_that_stops_does_not_wait_for_what_is_stuck(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(web=1, worker=False, REQUEST_TIMEOUT_S="60")
    with ExitStack() as stack:
        for sent in ("", "GET /", post_request("/v1/sessions", "Content-Length: 100\r\n", b"{")):
            stack.enter_context(RawConnection(cluster.urls[0], sent))
        time.sleep(0.2)
        began_s = time.monotonic()
        cluster.web[0].stop()
        assert time.monotonic() - began_s < 14  # after 15 s gunicorn kills
    assert "graceful timeout" not in cluster.web[0].output()


# Random bytes.


def noise(chance: random.Random) -> list[bytes]:
    """Return a request of a broken client, in pieces."""
    body = orjson.dumps(CHESS)
    start = chance.choice([b"POST /v1/sessions HTTP/1.1", b"GET /health HTTP/1.1", b"PATCH /v1/sessions/x HTTP/1.0"])
    framing = chance.choice([
        b"Content-Length: %d" % (len(body) + chance.choice([-1, 0, 0, 0, 1, 9, MOST_BODY_BYTES])),
        b"Transfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3",
        b"Transfer-Encoding: gzip, chunked",
        b"Expect: 100-continue\r\nContent-Length: %d" % len(body),
        b"",
    ])  # fmt: skip
    if b"chunked" in framing and chance.random() < 0.9:
        cuts = sorted(chance.sample(range(1, len(body)), 3))
        parts = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(part) + chance.choice([0] * 9 + [1]), part) for part in parts)
        body += chance.choice([b"0\r\n\r\n", b"0\r\na: b\r\n\r\n", b"", b"\xff\xff"])
    whole = bytearray(b"%b\r\nHost: x\r\nContent-Type: application/json\r\n%b\r\n\r\n%b" % (start, framing, body))
    for _ in range(chance.choice([0, 0, 1, 3])):
        whole[chance.randrange(len(whole))] = chance.randrange(256)
    whole *= chance.choice([1, 1, 1, 5])
    del whole[chance.choice([len(whole), len(whole), chance.randrange(len(whole))]) :]
    cut = chance.randrange(len(whole) + 1)
    return [bytes(whole[:cut]), bytes(whole[cut:])]


def test_nothing_that_comes_over_a_socket_is_a_fault_of_ours_or_holds_anybody_up(web: Cluster) -> None:
    errors = logged_errors(web)
    with others_are_served(web.urls[0], least=5):
        end_s, seed = time.monotonic() + 6, 0
        while time.monotonic() < end_s or seed <= 100:
            seed += 1
            chance = random.Random(seed)
            with RawConnection(web.urls[0]) as peer, suppress(OSError):
                for piece in noise(chance):
                    peer.send(piece)
                if chance.random() < 0.2:
                    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    continue
                peer.end()
                answers = peer.rest()
                assert not re.search(rb"(?m)^HTTP/1.1 5|<html|Traceback", answers), (seed, answers)
    assert logged_errors(web) == errors


def test_who_always_has_the_next_request_there_lets_others_run_between_two() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        inflow = HttpReader(ours, 1.0)
        ran: list[str] = []
        inflow.expect(1.0)
        gevent.spawn(ran.append, "others")
        inflow.expect(1.0)
        assert ran == ["others"]

"""Clients that break the rules of HTTP or take their time: what they are answered, and that nobody waits for them."""

from __future__ import annotations

import gzip
import random
import re
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import urlsplit

import gevent  # type: ignore[import-untyped]
import orjson
import psutil
import pytest
import requests
from flask import Request, Response

from syncapp.api.compression import compress
from syncapp.api.reference.schemas import ErrorAnswer
from syncapp.server.http_reader import HttpReader
from tests.conftest import Cluster, MakeCluster, Redis
from tests.support.raw_websocket import PONG, Raw, frame
from tests.support.web_clients import CHESS, Api, errors_in, eventually, metric

MOST_BODY_BYTES = 100_000
TIMEOUT_S = 2
MOST_CONNECTIONS = 200
JSON = "Content-Type: application/json\r\n"


@pytest.fixture(scope="module")
def web(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    """One web process of one worker: whoever blocks it blocks all."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(web=1, worker=False, MAX_BODY_BYTES=str(MOST_BODY_BYTES))


@pytest.fixture(scope="module")
def brisk(make_cluster: MakeCluster) -> Cluster:
    """A web process that soon gives up whom it waits for, and has room for a few only."""
    return make_cluster(web=1, worker=False, REQUEST_TIMEOUT_S=str(TIMEOUT_S), WORKER_CONNECTIONS=str(MOST_CONNECTIONS))


@pytest.fixture
def api(web: Cluster) -> Api:
    return Api(web.urls[0])


@pytest.fixture
def path(api: Api) -> str:
    """A running session's path."""
    return f"/v1/sessions/{api.running()}"


class Peer:
    """A bare connection; a context manager."""

    def __init__(self, url: str, sent: bytes | str = b"") -> None:
        address = urlsplit(url)
        self.socket = socket.create_connection((address.hostname, address.port), timeout=60)
        self.send(sent)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *exc: object) -> None:
        self.socket.close()

    def send(self, data: bytes | str) -> None:
        self.socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)

    def end(self) -> None:
        """Send no more."""
        self.socket.shutdown(socket.SHUT_WR)

    def rest(self, within_s: float = 60) -> bytes:
        """Return all that comes, to the end of the stream."""
        self.socket.settimeout(within_s)
        data = b""
        while more := self.socket.recv(1 << 16):
            data += more
        return data

    def refused(self, status: int, code: str) -> None:
        """Check that all that comes is one failure in the usual form, and the end."""
        head, _, body = self.rest().partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status), head
        assert b"\r\nContent-Type: application/json" in head
        assert b"\r\nConnection: close" in head
        ErrorAnswer.model_validate_json(body)
        assert orjson.loads(body)["error"]["code"] == code


def post(path: str, headers: str, body: bytes = b"") -> bytes:
    return f"POST {path} HTTP/1.1\r\nHost: x\r\n{JSON}{headers}\r\n".encode("latin-1") + body


def version(api: Api, path: str) -> int:
    found: int = api.state(path.rpartition("/")[2])["version"]
    return found


@contextmanager
def served(url: str, *, least: int = 1, anew: bool = False) -> Iterator[list[float]]:
    """Check that a well-behaved client is answered all the while: so many times at least, and never late.

    anew: it comes back for every request. How soon it is answered is for bench/. Gives how long it waited (s).
    """
    waits_s: list[float] = []
    done = threading.Event()

    headers = {"Connection": "close"} if anew else {}

    def ask() -> None:
        with requests.Session() as http:
            while not done.is_set():
                began_s = time.monotonic()
                with suppress(requests.RequestException):
                    http.get(f"{url}/health", headers=headers, timeout=30)
                waits_s.append(time.monotonic() - began_s)
                time.sleep(0.02)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield waits_s
        assert len(waits_s) >= least
    finally:
        done.set()
        thread.join()
    assert max(waits_s) < 10


def keep_sending(to: socket.socket, data: bytes, most_bytes: int = 64_000_000) -> int:
    """Send until the server takes no more; returns how much it took."""
    sent = 0
    to.settimeout(5)
    with suppress(OSError):
        while sent < most_bytes:
            sent += to.send(data)
    return sent


def test_frames_right_after_the_handshake_are_counted_as_any_and_hold_nobody_up(web: Cluster, api: Api) -> None:
    session_id, tries = api.create(), 4
    flood = frame(b"", PONG) * 5000
    with served(web.urls[0]):
        for _ in range(tries):
            with Raw(web.urls[0], session_id) as raw:
                assert keep_sending(raw.socket, flood) < 64_000_000
    eventually(lambda: metric(web.urls[0], 'syncapp_ws_closed_total{code="1008"}') == tries)


# Bodies.


@pytest.mark.parametrize("body", [b"", b'{"expected_version":', b'{"expected_version": 1}'])
def test_a_body_that_is_cut_off_is_not_acted_on(web: Cluster, api: Api, path: str, body: bytes) -> None:
    before = version(api, path)
    for headers, sent in (
        ("Content-Length: 24\r\n", body),
        ("Transfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n" % (len(body), body) if body else b""),
        ("Transfer-Encoding: chunked\r\n", b"18\r\n%b" % body),
    ):
        with Peer(web.urls[0], post(f"{path}/switch", headers, sent)) as peer:
            peer.end()
            peer.refused(400, "BAD_REQUEST")
        with Peer(web.urls[0], post(f"{path}/switch", headers, sent)):
            pass
    assert version(api, path) == before


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"zz\r\n{}\r\n0\r\n\r\n", 400, "BAD_REQUEST"),
        (b"-1\r\n{}\r\n0\r\n\r\n", 400, "BAD_REQUEST"),
        (b"0x2\r\n{}\r\n0\r\n\r\n", 400, "BAD_REQUEST"),
        (b"0_2\r\n{}\r\n0\r\n\r\n", 400, "BAD_REQUEST"),
        (b"\r\n{}\r\n0\r\n\r\n", 400, "BAD_REQUEST"),
        (b"2;=\r\n{}\r\n0\r\n\r\n", 400, "BAD_REQUEST"),
        (b"2" + b" " * 9000 + b"\r\n{}\r\n0\r\n\r\n", 400, "BAD_REQUEST"),
        (b"2" * 9000, 400, "BAD_REQUEST"),
        (b"2\r\n{}..0\r\n\r\n", 400, "BAD_REQUEST"),
        (b"2\r\n{}\r\n0\r\nno trailer\r\n\r\n", 400, "BAD_REQUEST"),
        (b"2\r\n{}\r\n0\r\nHost: y\r\n\r\n", 400, "BAD_REQUEST"),
        (b"2\r\n{}\r\n0\r\n" + b"a: b\r\n" * 70 + b"\r\n", 431, "REQUEST_HEADER_FIELDS_TOO_LARGE"),
        (b"2\r\n{}\r\n0\r\n" + b"a: b\r\n" * 200_000, 413, "PAYLOAD_TOO_LARGE"),
    ],
)
def test_a_body_of_broken_chunks_is_refused_and_not_acted_on(
    web: Cluster, api: Api, path: str, body: bytes, status: int, code: str
) -> None:
    before, errors = version(api, path), errors_in(web)
    with Peer(web.urls[0], post(f"{path}/switch", "Transfer-Encoding: chunked\r\n")) as peer:
        with suppress(OSError):  # it may be refused before all is sent
            peer.send(body)
        peer.refused(status, code)
    assert version(api, path) == before
    assert errors_in(web) == errors


def test_a_body_in_chunks_is_read_whole(web: Cluster, api: Api, path: str) -> None:
    before = version(api, path)
    chunks = b"".join(b"1;a=b\r\n%c\r\n" % each for each in b'{"expected_version": %d}' % before)
    headers = "Transfer-Encoding: chunked\r\nConnection: close\r\n"
    with Peer(web.urls[0], post(f"{path}/switch", headers, chunks + b"0\r\nx: y\r\n\r\n")) as peer:
        assert peer.rest().startswith(b"HTTP/1.1 200 ")
    assert version(api, path) == before + 1


@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_over_the_limit_is_refused_however_it_comes(
    web: Cluster, api: Api, path: str, over: int, *, is_chunked: bool
) -> None:
    before = version(api, path)
    body = b"{}" + b" " * (MOST_BODY_BYTES - 2 + over)
    headers = "Transfer-Encoding: chunked\r\n" if is_chunked else f"Content-Length: {len(body)}\r\n"
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if is_chunked else body
    with Peer(web.urls[0], post(f"{path}/switch", headers + ("" if over else "Connection: close\r\n"), sent)) as peer:
        if over:
            peer.refused(413, "PAYLOAD_TOO_LARGE")
        else:
            assert peer.rest().startswith(b"HTTP/1.1 200 ")
    assert version(api, path) == before + 1 - over


def test_a_body_whose_transfer_is_encoded_is_refused(web: Cluster, api: Api, path: str) -> None:
    before = version(api, path)
    headers = "Transfer-Encoding: gzip, chunked\r\n"
    with Peer(web.urls[0], post(f"{path}/switch", headers, b"2\r\n{}\r\n0\r\n\r\n")) as peer:
        peer.refused(415, "UNSUPPORTED_MEDIA_TYPE")
    assert version(api, path) == before


@pytest.mark.parametrize(
    ("framing", "body"), [("Content-Length: 5", b"hello"), ("Transfer-Encoding: chunked", b"0\r\n\r\n")]
)
def test_a_handshake_with_a_body_opens_no_websocket(web: Cluster, api: Api, framing: str, body: bytes) -> None:
    head = (
        f"GET /ws?sessionId={api.create()} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n{framing}\r\n\r\n"
    )
    with Peer(web.urls[0], head.encode() + body) as peer:
        assert peer.socket.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_chunks_that_are_mostly_padding_are_refused(web: Cluster, path: str) -> None:
    with Peer(web.urls[0], post(f"{path}/switch", "Transfer-Encoding: chunked\r\n")) as peer:
        assert keep_sending(peer.socket, (b"1;" + b"a" * 8000 + b"\r\n \r\n") * 10, 500_000_000) < 100_000_000
        with suppress(ConnectionError):
            peer.refused(413, "PAYLOAD_TOO_LARGE")


def test_who_asks_first_is_told_to_go_on_or_refused_before_sending(web: Cluster, path: str) -> None:
    expect = "Expect: 100-continue\r\n"
    with Peer(web.urls[0], post(f"{path}/switch", f"{expect}Connection: close\r\nContent-Length: 2\r\n")) as peer:
        assert peer.socket.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.send("{}")
        assert peer.rest().startswith(b"HTTP/1.1 200 ")
    with Peer(web.urls[0], post(f"{path}/switch", f"{expect}Content-Length: {MOST_BODY_BYTES + 1}\r\n")) as peer:
        peer.refused(413, "PAYLOAD_TOO_LARGE")


# What is no request.

NO_HOSTS = ["", "a b", "a/b", "a@b", "\xff\xfe", "a:b", "a:1:2", "::1", "[::1", "http://a", "a?b", "a:123456"]


@pytest.mark.parametrize(
    ("request_", "status", "code"),
    [
        ("GET /\xe9 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "BAD_REQUEST"),
        ("GET /health?\xe9 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "BAD_REQUEST"),
        ("GET /health\r\n\r\n", 400, "BAD_REQUEST"),
        ("get /health HTTP/1.1\r\nHost: x\r\n\r\n", 400, "BAD_REQUEST"),
        ("GET /health HTTP/9.9\r\nHost: x\r\n\r\n", 400, "BAD_REQUEST"),
        ("GET /health HTTP/2.0\r\nHost: x\r\n\r\n", 400, "BAD_REQUEST"),
        ("GET /health HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n", 400, "BAD_REQUEST"),
        ("GET /health HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", 400, "BAD_REQUEST"),
        ("GET /health HTTP/1.1\r\n\r\n", 400, "BAD_REQUEST"),
        ("GET /health HTTP/1.2\r\nA: b\r\n\r\n", 400, "BAD_REQUEST"),
        ("GET http://x/health HTTP/1.1\r\n\r\n", 400, "BAD_REQUEST"),
        *((f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n", 400, "BAD_REQUEST") for host in NO_HOSTS),
        ("GET /health HTTP/1.0\r\nHost: a b\r\n\r\n", 400, "BAD_REQUEST"),
        ("GET /health HTTP/1.1\r\nHost: x\r\nIdempotency-Key: a\x7f\r\n\r\n", 400, "BAD_REQUEST"),
        ("GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", 400, "BAD_REQUEST"),
        ("GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", 400, "BAD_REQUEST"),
        ("GET /health HTTP/1.1\r\nHost: x\r\n folded: x\r\n\r\n", 400, "BAD_REQUEST"),
        ("GET /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: br, chunked\r\n\r\n", 415, "UNSUPPORTED_MEDIA_TYPE"),
        ("GET /health HTTP/1.1\r\nHost: x\r\nExpect: cake\r\n\r\n", 417, "EXPECTATION_FAILED"),
        (f"GET /{'a' * 5000} HTTP/1.1\r\nHost: x\r\n\r\n", 414, "URI_TOO_LONG"),
        (f"GET /health HTTP/1.1\r\nHost: x\r\nA: {'a' * 9000}\r\n\r\n", 431, "REQUEST_HEADER_FIELDS_TOO_LARGE"),
        ("GET /health HTTP/1.1\r\n" + "A: a\r\n" * 70 + "\r\n", 431, "REQUEST_HEADER_FIELDS_TOO_LARGE"),
        ("GET / HTTP/1.1\r\n" + ("A: " + "a" * 8000 + "\r\n") * 9 + "\r\n", 431, "REQUEST_HEADER_FIELDS_TOO_LARGE"),
    ],
)  # fmt: skip
def test_what_is_no_request_is_refused_in_the_form_of_all_errors(
    web: Cluster, request_: str, status: int, code: str
) -> None:
    with Peer(web.urls[0]) as peer:
        with suppress(OSError):
            peer.send(request_)
        peer.refused(status, code)


# What is one, though not of the usual form.


@pytest.mark.parametrize(
    "host", ["x", "X.example.:80", "127.0.0.1:8000", "[::1]:8000", "web_1", "a:", "xn--bcher-kva.de"]
)
def test_every_form_of_a_host_is_taken(web: Cluster, host: str) -> None:
    with Peer(web.urls[0], f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n") as peer:
        assert peer.rest().startswith(b"HTTP/1.1 200 ")


def test_http_1_0_needs_no_host_and_is_answered_once(web: Cluster) -> None:
    with Peer(web.urls[0], "GET /health HTTP/1.0\r\n\r\n") as peer:
        assert peer.rest().count(b" 200 ") == 1


@pytest.mark.parametrize("version", ["1.2", "1.9"])
def test_later_versions_of_http_1_are_answered_as_1_1(web: Cluster, version: str) -> None:
    with Peer(web.urls[0], f"GET /health HTTP/{version}\r\nHost: x\r\n\r\n") as peer:
        peer.send(f"GET /health HTTP/{version}\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert peer.rest().count(b"HTTP/1.1 200 ") == 2


@pytest.mark.parametrize(
    "headers",
    [
        "Connection: keep-alive, close",
        "Connection: close,keep-alive",
        "Connection: Keep-Alive\r\nConnection: Close",
        "Connection: x, CLOSE ,y",
    ],
)
def test_a_client_that_names_close_among_others_gets_no_second_answer(web: Cluster, headers: str) -> None:
    with Peer(web.urls[0], f"GET /health HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n" * 2) as peer:
        answer = peer.rest()
    assert answer.count(b"HTTP/1.1 200 ") == 1
    assert b"\r\nConnection: close\r\n" in answer


def test_a_connection_of_http_1_0_stays_open_where_that_is_asked_for(web: Cluster) -> None:
    asked = "GET /health HTTP/1.0\r\nConnection: x, keep-alive\r\n\r\n"
    with Peer(web.urls[0], asked + "GET /health HTTP/1.0\r\n\r\n") as peer:
        assert peer.rest().count(b" 200 ") == 2


def test_an_empty_line_before_a_request_is_skipped(web: Cluster, path: str) -> None:
    last = b"\r\nGET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with Peer(web.urls[0], b"\r\n" + post(f"{path}/switch", "Content-Length: 2\r\n", b"{}") + last) as peer:
        assert peer.rest().count(b"HTTP/1.1 200 ") == 2


@pytest.mark.parametrize("size", [b"z", b"0x", b"-", b"1z", b"f" * 17, b"0" * 17, b"2 x", b"2\rx", b" 2", b"\n"])
@pytest.mark.parametrize("before", [b"", b"2\r\n{}\r\n"])
def test_a_chunk_whose_size_cant_be_is_not_waited_for(web: Cluster, path: str, size: bytes, before: bytes) -> None:
    with Peer(web.urls[0], post(f"{path}/switch", "Transfer-Encoding: chunked\r\n", before + size)) as peer:
        peer.refused(400, "BAD_REQUEST")  # 408 after the limit, were it waited for


@pytest.mark.parametrize("size", [b"%x" % (MOST_BODY_BYTES + 1), b"ffffffff", b"f" * 16, b"2\r\n{}\r\nfffff"])
def test_a_chunk_that_is_too_large_is_not_waited_for(web: Cluster, path: str, size: bytes) -> None:
    with Peer(web.urls[0], post(f"{path}/switch", "Transfer-Encoding: chunked\r\n", size + b"\r\n")) as peer:
        peer.refused(413, "PAYLOAD_TOO_LARGE")


# gzip.


def test_an_answer_of_more_than_a_kilobyte_is_compressed_for_who_accepts_that(web: Cluster, api: Api) -> None:
    large, small = (f"{api.url}/v1/sessions/{api.create(metadata={'a': 'b' * size})}" for size in (5000, 1))
    for url in (large, f"{api.url}/api-docs.json", f"{api.url}/metrics"):
        for accepted in ("gzip", "gzip, deflate, br", "*", "br;q=1, gzip;q=0.5", "GZIP;q=0.1"):
            with requests.get(url, headers={"Accept-Encoding": accepted}, timeout=60, stream=True) as answer:
                raw = answer.raw.read(decode_content=False)
            assert answer.headers["Content-Encoding"] == "gzip", (url, accepted)
            assert answer.headers["Vary"] == "Accept-Encoding"
            assert int(answer.headers["Content-Length"]) == len(raw)
            assert len(gzip.decompress(raw)) > 2 * len(raw)
        for accepted in ("identity", "", "br", "gzip;q=0", "*;q=0", "gzip;q=0, *", "identity, gzip;q=0.5", "gzip;q=x"):
            answer = requests.get(url, headers={"Accept-Encoding": accepted}, timeout=60)
            assert "Content-Encoding" not in answer.headers, (url, accepted)
            assert answer.headers["Vary"] == "Accept-Encoding"
    accepted_ = {"Accept-Encoding": "gzip"}
    plain, packed = requests.get(large, headers={"Accept-Encoding": ""}, timeout=60), requests.get(large, timeout=60)
    assert packed.headers["ETag"] == plain.headers["ETag"]
    assert packed.json()["data"]["metadata"] == plain.json()["data"]["metadata"]
    head = requests.head(large, headers=accepted_, timeout=60)
    assert (head.headers["Content-Encoding"], head.content) == ("gzip", b"")
    assert int(head.headers["Content-Length"]) > 200
    for url in (f"{api.url}/health", small + "x", f"{api.url}/nothing"):
        answer = requests.get(url, headers=accepted_, timeout=60)
        assert not {"Content-Encoding", "Vary"} & answer.headers.keys()
    with requests.get(f"{large}/stream", headers=accepted_, stream=True, timeout=60) as stream:
        assert not {"Content-Encoding", "Vary"} & stream.headers.keys()
        lines = stream.iter_lines()
        assert any(b'"STATE_SYNC"' in line for line in lines)


def test_what_is_compressed_while_it_is_sent_ends_early_where_it_fails() -> None:
    def lines(*, fails: bool) -> Iterator[bytes]:
        for number in range(5000):
            yield b'{"number": %d}\n' % number
        if fails:
            raise RuntimeError("the source is gone")

    asked = Request({"HTTP_ACCEPT_ENCODING": "gzip", "REQUEST_METHOD": "GET"})
    for fails in (False, True):
        answer = Response(lines(fails=fails), content_type="application/x-ndjson")
        compress(asked, answer)
        assert answer.headers["Content-Encoding"] == "gzip"
        sent: list[bytes] = []
        with suppress(RuntimeError):
            sent.extend(answer.iter_encoded())
        assert len(sent) > 1
        reader = zlib.decompressobj(31)
        assert reader.decompress(b"".join(sent)).startswith(b'{"number": 0}\n')
        assert reader.eof is not fails


# Shares.


PIPELINED = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 200
CHUNKS = b"1\r\n \r\n" * 10_000


@pytest.mark.parametrize(
    ("head", "more"),
    [
        (b"GET /health HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000000\r\n\r\n", b" " * 100_000),
        (post("/v1/sessions", "Content-Length: 100000000000\r\n"), b" " * 100_000),
        (b"GET /health HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", CHUNKS),
        (post("/v1/sessions", "Transfer-Encoding: chunked\r\n"), b"fffffff\r\n" + b" " * 100_000),
        (b"GET /health HTTP/1.1\r\n", b"a: b\r\n" * 10_000),
        (b"", b"a" * 100_000),
    ],
)
def test_what_has_no_end_is_cut_off_and_holds_nobody_up(web: Cluster, head: bytes, more: bytes) -> None:
    with served(web.urls[0]), Peer(web.urls[0], head) as peer:
        assert keep_sending(peer.socket, more, 500_000_000) < 200_000_000


def test_a_client_that_does_not_wait_for_answers_has_no_more_than_its_share(web: Cluster) -> None:
    with served(web.urls[0], least=5), Peer(web.urls[0]) as peer:
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
        post("/v1/sessions", "Content-Length: 100\r\n", b"{"),
        post("/v1/sessions", "Transfer-Encoding: chunked\r\n", b"2\r\n{"),
    ],
)
def test_a_request_that_takes_too_long_to_arrive_is_refused(brisk: Cluster, sent: bytes | str) -> None:
    began_s = time.monotonic()
    with Peer(brisk.urls[0], sent) as peer:
        peer.refused(408, "REQUEST_TIMEOUT")
    assert TIMEOUT_S - 0.1 < time.monotonic() - began_s < 15  # as long as a request may take by default


def test_a_request_that_drips_in_is_refused_as_well(brisk: Cluster) -> None:
    with Peer(brisk.urls[0], post("/v1/sessions", "Content-Length: 1000\r\n")) as peer:
        end_s = time.monotonic() + 15
        with suppress(OSError):
            while time.monotonic() < end_s:
                peer.send(b" ")
                time.sleep(0.1)
        assert time.monotonic() < end_s


def test_a_request_that_comes_byte_by_byte_but_in_time_is_answered(web: Cluster) -> None:
    with Peer(web.urls[0]) as peer:
        for each in b"GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n":
            peer.send(bytes([each]))
            time.sleep(0.005)
        assert peer.rest().startswith(b"HTTP/1.1 200 ")


def test_a_connection_on_which_nothing_is_asked_is_closed_without_a_word(brisk: Cluster) -> None:
    with Peer(brisk.urls[0]) as peer:
        assert peer.rest() == b""


def test_a_connection_waits_longer_for_another_request_than_for_the_first(brisk: Cluster) -> None:
    with Peer(brisk.urls[0], "GET /health HTTP/1.1\r\nHost: x\r\n\r\n") as peer:
        while not peer.socket.recv(10_000).endswith(b"}"):
            pass
        time.sleep(TIMEOUT_S + 0.5)
        peer.send("GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert peer.rest().startswith(b"HTTP/1.1 200 ")


def test_a_client_that_does_not_read_its_answers_is_given_up(brisk: Cluster) -> None:
    api = Api(brisk.urls[0])
    session_id = api.create(metadata={"text": "x" * 16_000})
    worker = psutil.Process(brisk.web[0].pid).children()[0]

    def is_served(peer: Peer) -> bool:
        return peer.socket.getsockname()[:2] in [each.raddr for each in worker.net_connections()]

    with Peer(brisk.urls[0]) as peer:
        eventually(lambda: is_served(peer))
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.socket.settimeout(1)
        with suppress(OSError):
            for _ in range(2000):
                peer.send(f"GET /v1/sessions/{session_id} HTTP/1.1\r\nHost: x\r\n\r\n")
        eventually(lambda: not is_served(peer))


def test_a_websocket_may_stay_silent_for_longer_than_a_request(brisk: Cluster) -> None:
    api = Api(brisk.urls[0])
    with Raw(brisk.urls[0], api.create()) as raw:
        raw.message()
        time.sleep(TIMEOUT_S + 0.5)
        raw.send({"type": "PING"})
        assert raw.message("PONG")


def test_more_connections_than_there_is_room_for_hold_nobody_up(brisk: Cluster) -> None:
    stuck = post("/v1/sessions", "Content-Length: 100\r\n", b"{")
    with ExitStack() as stack, served(brisk.urls[0], least=5, anew=True):
        end_s = time.monotonic() + 3
        while time.monotonic() < end_s:
            for _ in range(10):
                stack.enter_context(Peer(brisk.urls[0], stuck))
            time.sleep(0.05)


def test_a_worker_that_stops_does_not_wait_for_what_is_stuck(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(web=1, worker=False, REQUEST_TIMEOUT_S="60")
    with ExitStack() as stack:
        for sent in ("", "GET /", post("/v1/sessions", "Content-Length: 100\r\n", b"{")):
            stack.enter_context(Peer(cluster.urls[0], sent))
        time.sleep(0.2)
        began_s = time.monotonic()
        cluster.web[0].stop()
        assert time.monotonic() - began_s < 14  # after 15 s gunicorn kills
    assert "graceful timeout" not in cluster.web[0].output()


# Anything.


def noise(chance: random.Random) -> list[bytes]:
    """Return a request as a client that is broken sends it, in pieces."""
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
    errors = errors_in(web)
    with served(web.urls[0], least=5):
        end_s, seed = time.monotonic() + 6, 0
        while time.monotonic() < end_s or seed <= 100:
            seed += 1
            chance = random.Random(seed)
            with Peer(web.urls[0]) as peer, suppress(OSError):
                for piece in noise(chance):
                    peer.send(piece)
                if chance.random() < 0.2:
                    peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    continue
                peer.end()
                answers = peer.rest()
                assert not re.search(rb"(?m)^HTTP/1.1 5|<html|Traceback", answers), (seed, answers)
    assert errors_in(web) == errors


def test_who_always_has_the_next_request_there_lets_others_run_between_two() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        inflow = HttpReader(ours, 1.0)
        ran: list[str] = []
        inflow.expect(1.0)
        gevent.spawn(ran.append, "others")
        inflow.expect(1.0)
        assert ran == ["others"]

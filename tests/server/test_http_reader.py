"""HTTP requests that break the rules or are unusual, and their answers."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from contextlib import suppress

import pytest
import requests
from flask import Request, Response

from syncapp.api.compression import compress
from tests.support.cluster import Cluster
from tests.support.raw_http import (
    MOST_BODY_BYTES,
    RawConnection,
    others_are_served,
    post_request,
    send_until_blocked,
    version_of,
)
from tests.support.raw_websocket import PONG, RawWebSocket, client_frame
from tests.support.web_clients import RestClient, logged_errors, metric_value, wait_until


def test_frames_right_after_the_handshake_are_counted_as_any_and_hold_nobody_up(web: Cluster, api: RestClient) -> None:
    session_id, tries = api.create(), 4
    flood = client_frame(b"", PONG) * 5000
    with others_are_served(web.urls[0]):
        for _ in range(tries):
            with RawWebSocket(web.urls[0], session_id) as raw:
                assert send_until_blocked(raw.socket, flood) < 64_000_000
    wait_until(lambda: metric_value(web.urls[0], 'syncapp_ws_closed_total{code="1008"}') == tries)


# Bodies.


@pytest.mark.parametrize("body", [b"", b'{"expected_version":', b'{"expected_version": 1}'])
def test_a_body_that_is_cut_off_is_not_acted_on(web: Cluster, api: RestClient, path: str, body: bytes) -> None:
    before = version_of(api, path)
    for headers, sent in (
        ("Content-Length: 24\r\n", body),
        ("Transfer-Encoding: chunked\r\n", b"%x\r\n%b\r\n" % (len(body), body) if body else b""),
        ("Transfer-Encoding: chunked\r\n", b"18\r\n%b" % body),
    ):
        with RawConnection(web.urls[0], post_request(f"{path}/switch", headers, sent)) as peer:
            peer.end()
            peer.refused(400, "BAD_REQUEST")
        with RawConnection(web.urls[0], post_request(f"{path}/switch", headers, sent)):
            pass
    assert version_of(api, path) == before


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
    web: Cluster, api: RestClient, path: str, body: bytes, status: int, code: str
) -> None:
    before, errors = version_of(api, path), logged_errors(web)
    with RawConnection(web.urls[0], post_request(f"{path}/switch", "Transfer-Encoding: chunked\r\n")) as peer:
        with suppress(OSError):  # the server may refuse before everything is sent
            peer.send(body)
        peer.refused(status, code)
    assert version_of(api, path) == before
    assert logged_errors(web) == errors


def test_a_body_in_chunks_is_read_whole(web: Cluster, api: RestClient, path: str) -> None:
    before = version_of(api, path)
    chunks = b"".join(b"1;a=b\r\n%c\r\n" % each for each in b'{"expected_version": %d}' % before)
    headers = "Transfer-Encoding: chunked\r\nConnection: close\r\n"
    with RawConnection(web.urls[0], post_request(f"{path}/switch", headers, chunks + b"0\r\nx: y\r\n\r\n")) as peer:
        assert peer.rest().startswith(b"HTTP/1.1 200 ")
    assert version_of(api, path) == before + 1


@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_over_the_limit_is_refused_however_it_comes(
    web: Cluster, api: RestClient, path: str, over: int, *, is_chunked: bool
) -> None:
    before = version_of(api, path)
    body = b"{}" + b" " * (MOST_BODY_BYTES - 2 + over)
    headers = "Transfer-Encoding: chunked\r\n" if is_chunked else f"Content-Length: {len(body)}\r\n"
    sent = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if is_chunked else body
    with RawConnection(
        web.urls[0], post_request(f"{path}/switch", headers + ("" if over else "Connection: close\r\n"), sent)
    ) as peer:
        if over:
            peer.refused(413, "PAYLOAD_TOO_LARGE")
        else:
            assert peer.rest().startswith(b"HTTP/1.1 200 ")
    assert version_of(api, path) == before + 1 - over


def test_a_body_whose_transfer_is_encoded_is_refused(web: Cluster, api: RestClient, path: str) -> None:
    before = version_of(api, path)
    headers = "Transfer-Encoding: gzip, chunked\r\n"
    with RawConnection(web.urls[0], post_request(f"{path}/switch", headers, b"2\r\n{}\r\n0\r\n\r\n")) as peer:
        peer.refused(415, "UNSUPPORTED_MEDIA_TYPE")
    assert version_of(api, path) == before


@pytest.mark.parametrize(
    ("framing", "body"), [("Content-Length: 5", b"hello"), ("Transfer-Encoding: chunked", b"0\r\n\r\n")]
)
def test_a_handshake_with_a_body_opens_no_websocket(web: Cluster, api: RestClient, framing: str, body: bytes) -> None:
    head = (
        f"GET /ws?sessionId={api.create()} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\n{framing}\r\n\r\n"
    )
    with RawConnection(web.urls[0], head.encode() + body) as peer:
        assert peer.socket.recv(1000).startswith(b"HTTP/1.1 400 ")


def test_chunks_that_are_mostly_padding_are_refused(web: Cluster, path: str) -> None:
    with RawConnection(web.urls[0], post_request(f"{path}/switch", "Transfer-Encoding: chunked\r\n")) as peer:
        assert send_until_blocked(peer.socket, (b"1;" + b"a" * 8000 + b"\r\n \r\n") * 10, 500_000_000) < 100_000_000
        with suppress(ConnectionError):
            peer.refused(413, "PAYLOAD_TOO_LARGE")


def test_who_asks_first_is_told_to_go_on_or_refused_before_sending(web: Cluster, path: str) -> None:
    expect = "Expect: 100-continue\r\n"
    with RawConnection(
        web.urls[0], post_request(f"{path}/switch", f"{expect}Connection: close\r\nContent-Length: 2\r\n")
    ) as peer:
        assert peer.socket.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        peer.send("{}")
        assert peer.rest().startswith(b"HTTP/1.1 200 ")
    with RawConnection(
        web.urls[0], post_request(f"{path}/switch", f"{expect}Content-Length: {MOST_BODY_BYTES + 1}\r\n")
    ) as peer:
        peer.refused(413, "PAYLOAD_TOO_LARGE")


# Invalid requests.
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
    with RawConnection(web.urls[0]) as peer:
        with suppress(OSError):
            peer.send(request_)
        peer.refused(status, code)


# Unusual but valid requests.


@pytest.mark.parametrize(
    "host", ["x", "X.example.:80", "127.0.0.1:8000", "[::1]:8000", "web_1", "a:", "xn--bcher-kva.de"]
)
def test_every_form_of_a_host_is_taken(web: Cluster, host: str) -> None:
    with RawConnection(web.urls[0], f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n") as peer:
        assert peer.rest().startswith(b"HTTP/1.1 200 ")


def test_http_1_0_needs_no_host_and_is_answered_once(web: Cluster) -> None:
    with RawConnection(web.urls[0], "GET /health HTTP/1.0\r\n\r\n") as peer:
        assert peer.rest().count(b" 200 ") == 1


@pytest.mark.parametrize("version", ["1.2", "1.9"])
def test_later_versions_of_http_1_are_answered_as_1_1(web: Cluster, version: str) -> None:
    with RawConnection(web.urls[0], f"GET /health HTTP/{version}\r\nHost: x\r\n\r\n") as peer:
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
    with RawConnection(web.urls[0], f"GET /health HTTP/1.1\r\nHost: x\r\n{headers}\r\n\r\n" * 2) as peer:
        answer = peer.rest()
    assert answer.count(b"HTTP/1.1 200 ") == 1
    assert b"\r\nConnection: close\r\n" in answer
    assert b"\r\nX-Content-Type-Options: nosniff\r\n" in answer


def test_a_connection_of_http_1_0_stays_open_where_that_is_asked_for(web: Cluster) -> None:
    asked = "GET /health HTTP/1.0\r\nConnection: x, keep-alive\r\n\r\n"
    with RawConnection(web.urls[0], asked + "GET /health HTTP/1.0\r\n\r\n") as peer:
        assert peer.rest().count(b" 200 ") == 2


def test_an_empty_line_before_a_request_is_skipped(web: Cluster, path: str) -> None:
    last = b"\r\nGET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    with RawConnection(
        web.urls[0], b"\r\n" + post_request(f"{path}/switch", "Content-Length: 2\r\n", b"{}") + last
    ) as peer:
        assert peer.rest().count(b"HTTP/1.1 200 ") == 2


@pytest.mark.parametrize("size", [b"z", b"0x", b"-", b"1z", b"f" * 17, b"0" * 17, b"2 x", b"2\rx", b" 2", b"\n"])
@pytest.mark.parametrize("before", [b"", b"2\r\n{}\r\n"])
def test_a_chunk_whose_size_cant_be_is_not_waited_for(web: Cluster, path: str, size: bytes, before: bytes) -> None:
    with RawConnection(
        web.urls[0], post_request(f"{path}/switch", "Transfer-Encoding: chunked\r\n", before + size)
    ) as peer:
        peer.refused(400, "BAD_REQUEST")  # it would be 408 after the limit if the server waited


@pytest.mark.parametrize("size", [b"%x" % (MOST_BODY_BYTES + 1), b"ffffffff", b"f" * 16, b"2\r\n{}\r\nfffff"])
def test_a_chunk_that_is_too_large_is_not_waited_for(web: Cluster, path: str, size: bytes) -> None:
    with RawConnection(
        web.urls[0], post_request(f"{path}/switch", "Transfer-Encoding: chunked\r\n", size + b"\r\n")
    ) as peer:
        peer.refused(413, "PAYLOAD_TOO_LARGE")


# gzip.


def test_an_answer_of_more_than_a_kilobyte_is_compressed_for_who_accepts_that(web: Cluster, api: RestClient) -> None:
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

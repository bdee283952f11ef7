"""Usual requests are read by llhttp, with the same results as by gunicorn's parser, which reads all others."""

from __future__ import annotations

import random
import re
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http import errors as gunicorn_errors
from gunicorn.http import wsgi
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncapp.errors import SyncError
from syncapp.server.http_parser import Head
from syncapp.server.http_reader import HttpReader
from syncapp.server.usual_requests import UsualRequest, UsualRequests
from tests.support.gunicorn_requests import raw_requests

SERVER, PEER = ("127.0.0.1", 8000), ("192.0.2.1", 50_000)
MAX_BODY_BYTES = 1000
LIMITS = {"limit_request_line": 200, "limit_request_fields": 6, "limit_request_field_size": 100}
USUAL = (
    b"POST /v1/sessions/%61?a=b&c=%20 HTTP/1.1\r\nHost: x:1\r\nIdempotency-Key: \xe9 b\r\nContent-Length: 2\r\n\r\n{}"
)
TELLING = b"\0\t\n\v\r\x1f !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~\x7f\x80\xb2\xe9\xff" + b"019AGPZagz"
"""Every byte that means something in a head, and some of those that do not."""
NOT_COMPARED = ("wsgi.input", "wsgi.errors", "wsgi.early_hints", "gunicorn.socket")


class Pieces:
    """A socket from which the given pieces arrive, one by one."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    def settimeout(self, _: float) -> None:
        pass

    def sendall(self, data: bytes) -> None:
        assert data == b"HTTP/1.1 100 Continue\r\n\r\n"

    send = sendall

    def recv(self, size: int) -> bytes:
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        if len(piece) > size:
            self._pieces.insert(0, piece[size:])
        return piece[:size]


def configured(**values: Any) -> Any:
    cfg = Config()
    for name, value in {"forwarded_allow_ips": "", **LIMITS, **values}.items():
        cfg.set(name, value)
    return cfg


CFG = configured()
TAKEN = UsualRequests(CFG, SERVER)


def outcomes(*pieces: bytes, usual: UsualRequests | None = TAKEN, cfg: Any = CFG, peer: Any = PEER) -> list[object]:
    """Return what each request of a connection becomes: its environ and body, or the error that ends it."""
    found: list[object] = []
    reader = HttpReader(Pieces(*pieces), 60)  # type: ignore[arg-type]  # what it uses of a socket
    try:
        while True:
            reader.expect(60)
            request: Any = (usual and reader.usual_request(usual, peer)) or Head(cfg, reader, peer)
            reader.read_body(request, MAX_BODY_BYTES)
            if isinstance(request, UsualRequest):
                environ = request.environ
            else:
                environ = wsgi.create(request, reader.sock, peer, SERVER, cfg)[1] | {"wsgi.multithread": True}
            body = environ["wsgi.input"].read()
            assert environ["wsgi.errors"]
            closes = request.should_close()
            found.append(({name: environ[name] for name in sorted(environ) if name not in NOT_COMPARED}, body, closes))
            if closes:
                return found
    except StopIteration:
        return found
    except (gunicorn_errors.ParseException, gunicorn_errors.NoMoreData, SyncError) as error:
        return [*found, type(error)]


def same(*pieces: bytes) -> list[object]:
    """Check that both ways give the same, and return it."""
    found = outcomes(*pieces)
    assert found == outcomes(*pieces, usual=None), pieces
    return found


def is_usual(request: bytes, usual: UsualRequests = TAKEN, peer: Any = PEER) -> bool:
    return usual.parse(request[: request.index(b"\r\n\r\n") + 4], None, peer) is not None


def test_gunicorns_own_requests_are_read_as_gunicorn_reads_them() -> None:
    found = raw_requests() or pytest.skip("gunicorn's source distribution, which has the requests, is not to be had")
    assert len(found) > 130
    for name, data in found.items():
        same(data)
        ends = {match.end() + shift for match in re.finditer(rb"\r\n", data) for shift in (-1, 0, 1)}
        anywhere = random.Random(name).sample(range(1, len(data)), min(12, len(data) - 1))
        for at in sorted({*ends, *anywhere} & {*range(1, len(data))}):
            same(data[:at], data[at:])
        same(*(bytes([each]) for each in data))


def test_any_byte_at_any_place_is_read_as_gunicorn_reads_it() -> None:
    for at in range(len(USUAL)):
        for each in TELLING:
            same(USUAL[:at] + bytes([each]) + USUAL[at:])
            same(USUAL[:at] + bytes([each]) + USUAL[at + 1 :])
        same(USUAL[:at] + USUAL[at + 1 :])


LINES = [
    *(b"GET / HTTP/1.1", b"POST /a?b#c HTTP/1.1", b"OPTIONS * HTTP/1.1", b"GET //x/y HTTP/1.1", b"GET /\xe9 HTTP/1.1"),
    *(b"GET http://x/ HTTP/1.1", b"CONNECT x:1 HTTP/1.1", b"GET / HTTP/1.0", b"GET / HTTP/1.2", b"GET  / HTTP/1.1"),
    *(b"PURGE / HTTP/1.1", b"get / HTTP/1.1", b"GET / HTTP/1.1 ", b"GET /" + b"a" * 200 + b" HTTP/1.1", b"GET /"),
    *(b"Host: x", b"Host:x:80", b"host: [::1]", b"Host: a b", b"Host:", b"Host : x", b"Connection: close"),
    *(b"Connection: a, Keep-Alive", b"Connection: Upgrade", b"Upgrade: websocket", b"Upgrade: h2c", b"A-B_C: d"),
    *(b"Content-Length: 2", b"Content-Length: 02", b"Content-Length: +2", b"Content-Length: 2, 2"),
    *(b"Content-Length: \xb2", b"Content-Length: 99999999999999999999", b"Content-Length: 1001", b"Content-Length: "),
    *(b"Transfer-Encoding: chunked", b"transfer-encoding: identity", b"Transfer-Encoding: gzip, chunked"),
    *(b"Expect: 100-continue", b"Expect: x", b"X-Forwarded-Proto: https", b"X_Forwarded_For: a", b"Script_Name: /a"),
    *(b"A: b", b"a:  b\t", b"A:", b"B: \xff", b"B: \x00", b" folded", b"\tfolded", b"no colon", b": x", b"\xdf: x"),
    *(b"Content-Type: a", b"Cookie: a=b", b"TE: trailers", b"Trailer: x", b"Long: " + b"a" * 100, b""),
    *(b"", b"2", b"0", b"{}", b"Content-Length: 0"),
]  # fmt: skip
ENDS = [b"\r\n"] * 12 + [b"\n", b"\r", b"\r\r\n", b"", b" \r\n"]


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    lines=st.lists(st.tuples(st.sampled_from(LINES), st.sampled_from(ENDS)), max_size=12),
    is_begun=st.booleans(),
    seed=st.integers(0, 1 << 32),
)
def test_any_lines_are_read_as_gunicorn_reads_them(
    lines: list[tuple[bytes, bytes]], seed: int, *, is_begun: bool
) -> None:
    start = b"POST /v1 HTTP/1.1\r\nHost: x\r\n" if is_begun else b""
    data = start + b"".join(line + end for line, end in lines) + b"\r\n\r\nGET / HTTP/1.1\r\nHost: y\r\n\r\n"
    same(data)
    cuts = sorted(random.Random(seed).sample(range(len(data) + 1), 2))
    same(*filter(None, (data[: cuts[0]], data[cuts[0] : cuts[1]], data[cuts[1] :])))


@pytest.mark.parametrize(
    "fields",
    [
        "Content-Length: 0",
        "Connection: keep-alive",
        "Connection: close",
        "Accept-Encoding: gzip, deflate, br, zstd\r\nUser-Agent: Mozilla/5.0 (X11)\r\nOrigin: https://x.example",
        "X-Forwarded-For: 192.0.2.7, 192.0.2.8\r\nX-Forwarded-Proto: https",
        "Authorization: Bearer a.b.c\r\nIf-Match: \"1-2\", W/\"1-3\"",
    ],
)  # fmt: skip
def test_what_clients_and_proxies_send_is_usual(fields: str) -> None:
    for line in ("GET /v1/sessions/a?wait_ms=1", "POST /v1/sessions/a/switch", "DELETE /%C3%A9", "OPTIONS /"):
        request = f"{line} HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n".encode()
        assert is_usual(request)
        same(request)


def test_pipelined_requests_and_their_bodies_are_told_apart() -> None:
    found = same(USUAL + USUAL, USUAL[:-1], b"}" + USUAL)
    assert [each[1] for each in found if isinstance(each, tuple)] == [b"{}"] * 4


def test_limits_are_those_of_the_configuration() -> None:
    line = b"GET /%b HTTP/1.1\r\nHost: x\r\n%b\r\n"
    for size in range(60, 200):
        same(line % (b"a" * size, b""))
        same(line % (b"", b"A: " + b"a" * size + b"\r\n"))
    for number in range(10):
        same(line % (b"", b"".join(b"A%d: b\r\n" % each for each in range(number))))


def test_a_peer_that_gunicorn_trusts_has_no_usual_requests() -> None:
    assert not is_usual(USUAL, peer="")  # a UNIX socket
    for name, value in (("forwarded_allow_ips", "*"), ("proxy_protocol", "v1")):
        assert not is_usual(USUAL, UsualRequests(configured(**{name: value}), SERVER))


@pytest.mark.parametrize("prefix", ["/app", "/"])
def test_below_a_prefix_of_gunicorns_environment_no_request_is_usual(
    prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCRIPT_NAME", prefix)
    request = b"GET /app/v1/time HTTP/1.1\r\nHost: x\r\n\r\n"
    assert not is_usual(request, UsualRequests(CFG, SERVER))
    found: Any = outcomes(request, usual=UsualRequests(CFG, SERVER))
    assert found[0][0]["SCRIPT_NAME"] == prefix
    assert prefix + found[0][0]["PATH_INFO"] == "/app/v1/time"

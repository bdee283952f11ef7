"""Answers are the bytes that gunicorn's `Response` writes, in fewer system calls."""

from __future__ import annotations

import io
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.http.wsgi import FileWrapper, Response
from hypothesis import given, settings
from hypothesis import strategies as st

from syncapp.server.http_answer import HttpAnswer

NAMES = [
    "Content-Type",
    "ETag",
    "Content-Length",
    "content-length",
    "Connection",
    "Upgrade",
    "Date",
    "Server",
    "a b",
    "",
    "X-Y",
]
STATUSES = ["200 OK", "204 No Content", "304 Not Modified", "101 Switching Protocols", "500", "x", "200\r\n"]
VALUES = ["3", "7", "text/plain", "Upgrade", "websocket", " padded\t", "\xe9", "\u20ac", "a\r\nb", "a\x7f", ""]


class Sent:
    """A socket that keeps what is sent, by call; `send` takes as much as there is room for."""

    def __init__(self, room: int = 1 << 30) -> None:
        self.calls: list[bytes] = []
        self._room = room

    def send(self, data: bytes) -> int:
        self.calls.append(bytes(data)[: self._room])
        return len(self.calls[-1])

    def sendall(self, data: bytes) -> None:
        self.calls.append(bytes(data))


def asked(method: str = "GET", version: tuple[int, int] = (1, 1), *, closes: bool = False) -> Any:
    return SimpleNamespace(method=method, version=version, should_close=lambda: closes)


def sent(kind: type[Response], request: Any, status: str, headers: Any, pieces: list[bytes]) -> object:
    """Return what an answer sends, without the date, and whether it closes; or its error."""
    to = Sent(room=20)
    answer = kind(request, to, Config())
    try:
        answer.start_response(status, headers)
        for piece in pieces:
            answer.write(piece)
        answer.close()
    except Exception as error:  # noqa: BLE001  # whatever gunicorn raises
        return type(error), str(error)
    head, _, body = b"".join(to.calls).partition(b"\r\n\r\n")
    return [line for line in head.split(b"\r\n") if not line.startswith(b"Date: ")], body, answer.should_close()


@settings(max_examples=400, deadline=None)
@given(
    method=st.sampled_from(["GET", "HEAD", "POST"]),
    version=st.sampled_from([(1, 1), (1, 0)]),
    closes=st.booleans(),
    status=st.sampled_from(STATUSES),
    headers=st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(VALUES)), max_size=5),
    pieces=st.lists(st.sampled_from([b"", b"abc", b"d" * 50]), max_size=4),
)  # fmt: skip
def test_answers_are_those_of_gunicorn(
    method: str,
    version: tuple[int, int],
    status: str,
    headers: list[tuple[str, str]],
    pieces: list[bytes],
    *,
    closes: bool,
) -> None:
    request = asked(method, version, closes=closes)
    expected = sent(Response, request, status, headers, pieces)
    assert sent(HttpAnswer, request, status, headers, pieces) == expected


@pytest.mark.parametrize("headers", [[("Content-Length", "4")], []])
def test_head_and_body_are_sent_in_one_call(headers: list[tuple[str, str]]) -> None:
    to = Sent()
    answer = HttpAnswer(asked(), to, Config())
    answer.start_response("200 OK", headers)
    answer.send_all([b"body"])
    assert len(to.calls) == (1 if headers else 2)  # the second is the last chunk
    assert b"\r\n\r\n" in to.calls[0]
    assert b"body" in to.calls[0]


def test_an_answer_without_a_body_is_sent_too() -> None:
    to = Sent()
    answer = HttpAnswer(asked(), to, Config())
    answer.start_response("204 No Content", [])
    answer.send_all([])
    assert len(to.calls) == 1
    assert to.calls[0].startswith(b"HTTP/1.1 204 No Content\r\n")


def test_what_the_application_returns_is_closed_even_if_it_fails() -> None:
    class Pieces(list[Any]):
        closed = False

        def close(self) -> None:
            self.closed = True

    pieces = Pieces([b"a", "no bytes"])
    answer = HttpAnswer(asked(), Sent(), Config())
    answer.start_response("200 OK", [])
    with pytest.raises(TypeError):
        answer.send_all(pieces)
    assert pieces.closed


@pytest.mark.parametrize("in_memory", [False, True])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_file_comes_after_its_head(tmp_path: Path, method: str, *, in_memory: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100_000)
    ours, theirs = socket.socketpair()
    with ours, theirs, path.open("rb") as file:
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        answer = HttpAnswer(asked(method), ours, Config())
        answer.start_response("200 OK", [("Content-Length", "100000")])
        answer.send_all(FileWrapper(io.BytesIO(b"x" * 100_000) if in_memory else file))
        ours.close()
        data = b""
        while more := theirs.recv(1 << 20):
            data += more
    head, _, body = data.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == (b"x" * 100_000 if method == "GET" else b"")

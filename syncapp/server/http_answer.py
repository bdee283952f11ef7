"""Writes answers: gunicorn's `Response`, with the head and the beginning of the body in one system call."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Any

from gunicorn import util
from gunicorn.http.errors import InvalidResponseHeader, InvalidResponseHeaderName
from gunicorn.http.message import TOKEN_RE
from gunicorn.http.wsgi import HEADER_VALUE_RE, STATUS_RE, FileWrapper, Response

_PLAIN, _LENGTH, _CONNECTION, _UPGRADE, _DROPPED = range(5)


class HttpAnswer(Response):
    """The answer to one request.

    headers_sent: the head was sent, or is to be sent with the first part of the body.
    """

    status: str | None
    headers: list[tuple[str, str]]
    headers_sent: bool
    response_length: int | None
    upgrade: bool

    def __init__(self, req: Any, sock: Any, cfg: Any) -> None:
        super().__init__(req, sock, cfg)
        self._head = b""

    def send_all(self, pieces: Iterable[bytes]) -> None:
        """Send what the application returned, and close that."""
        try:
            if isinstance(pieces, FileWrapper):
                self.write_file(pieces)
            else:
                for piece in pieces:
                    self.write(piece)
            self.close()
        finally:
            if close := getattr(pieces, "close", None):
                close()

    def start_response(self, status: str, headers: Sequence[tuple[str, str]], exc_info: Any = None) -> Any:
        """Take status and headers, as PEP 3333 says. Raises what gunicorn's `Response` raises."""
        if exc_info or self.status is not None:
            return super().start_response(status, headers, exc_info)
        self.status_code = _status_code(status)
        self.status = status
        self.process_headers(headers)
        self._omits_body = self._response_omits_body(self.req.method, self.status_code)
        if self._omits_body and self._response_forbids_content_length(self.status_code):
            self.headers = [each for each in self.headers if _kind(each[0]) != _LENGTH]
            self.response_length = None
        self.chunked = self.response_length is None and self.req.version > (1, 0) and not self._omits_body
        return self.write

    def process_headers(self, headers: Iterable[tuple[str, str]]) -> None:
        """Take the headers, without those of the connection. Raises what gunicorn's `Response` raises."""
        kept = self.headers
        for name, value in headers:
            kind = _kind(name)
            if not isinstance(value, str):
                raise TypeError(f"{value!r} is not a string")
            if not HEADER_VALUE_RE.fullmatch(value):
                raise InvalidResponseHeader(repr(name))  # the value may be secret
            if kind == _PLAIN:
                kept.append((name, value.strip(" \t")))
            elif kind != _DROPPED:
                self._take(kind, name, value.strip(" \t"))

    def _take(self, kind: int, name: str, value: str) -> None:
        if kind == _CONNECTION:
            self.upgrade = self.upgrade or value.lower() == "upgrade"
            return
        if kind == _UPGRADE and value.lower() != "websocket":
            return
        if kind == _LENGTH:
            self.response_length = int(value)
        self.headers.append((name, value))

    def send_headers(self) -> None:
        """Make the head; it is sent by whatever follows."""
        if self.headers_sent:
            return
        connection = "upgrade" if self.upgrade else "close" if self.should_close() else "keep-alive"
        lines = [
            f"HTTP/{self.req.version[0]}.{self.req.version[1]} {self.status}\r\n",
            f"Server: {self.version}\r\nDate: {_date(int(time.time()))}\r\nConnection: {connection}\r\n",
        ]
        if self.chunked:
            lines.append("Transfer-Encoding: chunked\r\n")
        lines += [f"{name}: {value}\r\n" for name, value in self.headers]
        lines.append("\r\n")
        self._head = "".join(lines).encode("latin-1")
        self.headers_sent = True

    def sendfile(self, respiter: Any) -> bool:
        """Send a file without copying it; return whether that was possible."""
        self.send_headers()
        self.flush()
        sent: bool = super().sendfile(respiter)
        return sent

    def close(self) -> None:
        """End the answer."""
        self.send_headers()
        if self.chunked:
            self._send(b"0\r\n\r\n")
        else:
            self.flush()

    def flush(self) -> None:
        """Send the head, if nothing of the body was sent yet."""
        if self._head:
            self._send(b"")

    def _emit_body(self, data: bytes) -> None:
        self._send(b"%X\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def _send(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        sent = self.sock.send(data)
        if sent < len(data):
            self.sock.sendall(memoryview(data)[sent:])


@lru_cache(maxsize=256)
def _kind(name: str) -> int:
    """Return what a response header means for the connection. Raises `InvalidResponseHeaderName` and `TypeError`."""
    if not isinstance(name, str):
        raise TypeError(f"{name!r} is not a string")
    if not TOKEN_RE.fullmatch(name):
        raise InvalidResponseHeaderName(repr(name))
    lower = name.lower()
    if lower == "content-length":
        return _LENGTH
    if not util.is_hoppish(name):
        return _PLAIN
    return {"connection": _CONNECTION, "upgrade": _UPGRADE}.get(lower, _DROPPED)


@lru_cache(maxsize=256)
def _status_code(status: str) -> int:
    """Return the code of a status line's end. Raises `TypeError` and `ValueError`."""
    if not isinstance(status, str):
        raise TypeError(f"{status!r} is not a string")
    if not STATUS_RE.fullmatch(status):
        raise ValueError(f"Invalid status {status!r}")
    return int(status[:3])


@lru_cache(maxsize=2)
def _date(now_s: int) -> str:
    text: str = util.http_date(now_s)
    return text

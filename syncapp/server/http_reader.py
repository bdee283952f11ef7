"""What a client sends over HTTP: whole requests, in time, of bounded size, and read in shares.

gevent lets nobody else run while there is something to read: who keeps sending, or always has the next request there
in time, would have the worker for itself.
"""

from __future__ import annotations

import io
import socket
import time
from contextlib import suppress
from typing import Any

import gevent  # type: ignore[import-untyped]
from gunicorn.http.body import ChunkedReader, LengthReader
from gunicorn.http.errors import NoMoreData
from gunicorn.http.unreader import SocketUnreader

from syncapp.errors import BadRequest, HeadersTooLarge, PayloadTooLarge, RequestTimeout, SyncError
from syncapp.server.http_parser import Chunks

MOST_HEAD_BYTES = 65_536
SHARE_BYTES = 8192
"""What is read of one connection before others have their turn."""


class HttpReader(SocketUnreader):
    """What gunicorn's parser reads of one connection.

    is_idle: nothing of a request has come yet. evicted: given up, to make room or because the process ends.
    """

    def __init__(self, sock: socket.socket, limit_s: float) -> None:
        super().__init__(sock)
        self._limit_s = limit_s
        self._share = SHARE_BYTES
        self._left = 0
        self._excess: type[SyncError] = HeadersTooLarge
        self._until_s = 0.0
        self._loop = gevent.get_hub().loop
        self._turn = -1
        self.is_idle = True
        self.evicted = False

    def expect(self, idle_s: float) -> None:
        """Wait for a request: `idle_s` for its first byte, then the limit for all of it, head and body."""
        self._left, self._excess = MOST_HEAD_BYTES, HeadersTooLarge
        self.is_idle = True
        self._until_s = time.monotonic() + idle_s
        if self._turn == self._loop.iteration:  # nobody else could run during the request before
            self._pause()
        self._turn = self._loop.iteration
        if self.buf.tell():  # sent without waiting for the answer before
            self._begin()

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Receive; nothing at the end of the stream, or when no request has begun in time.

        Raises `RequestTimeout` when one has, and `HeadersTooLarge` or `PayloadTooLarge`.
        """
        if self._left <= 0:
            raise self._excess("the request is larger than this server accepts")
        if self._share <= 0:
            self._pause()
        data: bytes | None = None
        wait_s = self._until_s - time.monotonic()
        if wait_s > 0:  # else a client that is never waited for would have no limit
            self.sock.settimeout(wait_s)
            with suppress(TimeoutError):
                data = super().chunk(size_hint)
        if data is None:
            if self.is_idle:
                return b""
            raise RequestTimeout(f"the request was not complete after {self._limit_s:g} s")
        if self.is_idle:
            self._begin()
        self._left -= len(data)
        self._share -= len(data)
        return data

    def read_body(self, request: Any, most_bytes: int) -> None:
        """Put the whole body in the place of the one to be read.

        Raises `PayloadTooLarge` before reading more than it must, `BadRequest` when the client ends too early,
        `RequestTimeout`, and gunicorn's `ParseException` for chunks that are none.
        """
        reader = request.body.reader
        if isinstance(reader, ChunkedReader):
            request.body = Chunks.of(request, self, most_bytes)
        length = reader.length if isinstance(reader, LengthReader) else None
        if length == 0:
            return
        if length is not None and length > most_bytes:
            raise PayloadTooLarge("the body is larger than this server accepts")
        # Chunks of a few bytes, or with extensions, cost more to read than they bring.
        self._left, self._excess = (length or 2 * most_bytes) + MOST_HEAD_BYTES, PayloadTooLarge
        if request._expected_100_continue:
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            request._expected_100_continue = False  # else gunicorn would say it again
        try:
            body = request.body.read(length if length is not None else most_bytes + 1)
        except NoMoreData:
            body = None
        if body is None or (length is not None and len(body) < length):
            raise BadRequest("the body ends too early; nothing was done")
        if len(body) > most_bytes:
            raise PayloadTooLarge("the body is larger than this server accepts")
        request.body = io.BytesIO(body)

    def evict(self) -> None:
        """End the wait: the client's part of the stream is over."""
        self.evicted = True
        with suppress(OSError):  # gone already
            self.sock.shutdown(socket.SHUT_RD)

    def _begin(self) -> None:
        self.is_idle = False
        self._until_s = time.monotonic() + self._limit_s

    def _pause(self) -> None:
        self._share = SHARE_BYTES
        gevent.sleep(0)

"""Reads HTTP requests: whole, within a time limit, of bounded size, and in shares so that clients take turns.

gevent runs nothing else as long as there is something to read: a client that keeps sending, or always has its next
request there in time, would block the whole worker.
"""

from __future__ import annotations

import io
import socket
import time
from contextlib import suppress
from typing import Any

import gevent
from gunicorn.http.body import LengthReader
from gunicorn.http.errors import NoMoreData
from gunicorn.http.unreader import SocketUnreader

from syncapp.errors import BadRequest, HeadersTooLarge, PayloadTooLarge, RequestTimeout, SyncError
from syncapp.server.http_parser import Chunks
from syncapp.server.usual_requests import UsualRequest, UsualRequests

MAX_HEAD_BYTES = 65_536
SHARE_BYTES = 8192
"""What is read of one connection before others get a turn."""
_CUT_OFF = "the body ends too early; nothing was done"


class HttpReader(SocketUnreader):
    """The input of one connection, for gunicorn's parser.

    is_idle: nothing of the next request has arrived. evicted: closed by us, to make room or because the process ends.
    """

    def __init__(self, sock: socket.socket, limit_s: float) -> None:
        super().__init__(sock)
        self._limit_s = limit_s
        self._share = SHARE_BYTES
        self._remaining = 0
        self._too_large: type[SyncError] = HeadersTooLarge
        self._deadline_s = 0.0
        self._loop = gevent.get_hub().loop
        self._turn = -1
        self.is_idle = True
        self.evicted = False

    def expect(self, idle_s: float) -> None:
        """Prepare for a request: it has `idle_s` for its first byte, then `limit_s` for the whole of head and body."""
        self._remaining, self._too_large = MAX_HEAD_BYTES, HeadersTooLarge
        self.is_idle = True
        self._deadline_s = time.monotonic() + idle_s
        if self._turn == self._loop.iteration:  # nothing else could run during the previous request
            self._pause()
        self._turn = self._loop.iteration
        if self.buf.tell():  # pipelined: sent before the previous answer
            self._begin()

    def chunk(self, size_hint: int | None = None) -> bytes:
        """Receive data; b'' at the end of the stream, or if no request has begun in time.

        Raises `RequestTimeout` if a request has begun but is not complete in time, `HeadersTooLarge` and
        `PayloadTooLarge`.
        """
        if self._remaining <= 0:
            raise self._too_large("the request is larger than this server accepts")
        if self._share <= 0:
            self._pause()
        data: bytes | None = None
        wait_s = self._deadline_s - time.monotonic()
        if wait_s > 0:  # otherwise a client that always has data there would have no limit
            self.sock.settimeout(wait_s)
            try:
                data = super().chunk(size_hint)
            except TimeoutError:
                data = None
        if data is None:
            if self.is_idle:
                return b""
            raise RequestTimeout(f"the request was not complete after {self._limit_s:g} s")
        if self.is_idle:
            self._begin()
        self._remaining -= len(data)
        self._share -= len(data)
        return data

    def usual_request(self, usual: UsualRequests, peer: Any) -> UsualRequest | None:
        """Read the head of a request, if it comes at once; None if it does not, or is not usual: then nothing is read.

        Raises `StopIteration` if there is no further request, and what `chunk` raises.
        """
        data = self.take_buffered() or self.chunk()
        if not data:
            raise StopIteration
        end = data.find(b"\r\n\r\n") + 4
        request = usual.parse(data[:end], self.sock, peer) if end > 3 else None
        if request is None:
            self.buf.write(data)
        elif end < len(data):
            self.buf.write(data[end:])
        return request

    def read_body(self, request: Any, max_bytes: int) -> None:
        """Read the whole body, and put it in the place of the request's unread one.

        Raises `PayloadTooLarge` as early as possible, `BadRequest` if the client ends too early, `RequestTimeout`, and
        gunicorn's `ParseException` for invalid chunks.
        """
        if isinstance(request, UsualRequest):
            if request.length:
                self._expect_body(request.length, max_bytes)
                request.environ["wsgi.input"] = io.BytesIO(self._read_all(request.length))
            return
        reader = request.body.reader
        length = reader.length if isinstance(reader, LengthReader) else None
        if length == 0:
            return
        self._expect_body(length, max_bytes)
        if request._expected_100_continue:
            self.sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            request._expected_100_continue = False  # otherwise gunicorn would send it again
        if length is not None:
            request.body = io.BytesIO(self._read_all(length))
            return
        try:
            body = Chunks.of(request, self, max_bytes).read(max_bytes + 1)
        except NoMoreData:
            raise BadRequest(_CUT_OFF) from None
        if len(body) > max_bytes:
            raise PayloadTooLarge("the body is larger than this server accepts")
        request.body = io.BytesIO(body)

    def _expect_body(self, length: int | None, max_bytes: int) -> None:
        """Prepare for a body; length: None for one in chunks. Raises `PayloadTooLarge`."""
        if length is not None and length > max_bytes:
            raise PayloadTooLarge("the body is larger than this server accepts")
        # Chunk sizes and extensions count too, up to twice the limit: tiny chunks cost more to read than they hold.
        self._remaining, self._too_large = (length or 2 * max_bytes) + MAX_HEAD_BYTES, PayloadTooLarge

    def _read_all(self, length: int) -> bytes:
        body: bytes = self.read(length, read_ahead=length)
        if len(body) < length:
            raise BadRequest(_CUT_OFF)
        return body

    def evict(self) -> None:
        """End the wait for input, by closing the receiving side of the connection."""
        self.evicted = True
        with suppress(OSError):  # closed already
            self.sock.shutdown(socket.SHUT_RD)

    def _begin(self) -> None:
        self.is_idle = False
        self._deadline_s = time.monotonic() + self._limit_s

    def _pause(self) -> None:
        self._share = SHARE_BYTES
        gevent.sleep(0)

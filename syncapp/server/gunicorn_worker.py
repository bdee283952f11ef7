"""The web worker: gunicorn's for gevent, in which no client has more than its share of time, room or attention."""

from __future__ import annotations

import errno
import socket
import struct
import time
from contextlib import suppress
from http import HTTPStatus
from typing import Any

import gevent  # type: ignore[import-untyped]
import orjson
from gunicorn import util
from gunicorn.http import errors as gunicorn_errors
from gunicorn.workers.ggevent import GeventWorker

from syncapp.errors import (
    BadRequest,
    ExpectationFailed,
    HeadersTooLarge,
    InternalError,
    SyncError,
    UnsupportedMediaType,
    UriTooLong,
)
from syncapp.server.http_parser import Parser
from syncapp.server.http_reader import HttpReader

LINGER_S = 1.0
"""How long input is thrown away after a refusal: a socket closed with input unread takes our last words with it."""
SEEN_S = 0.5
"""How long a process that ends at least says so, at `/ready`, before it takes no more connections."""
LAST_WORDS_S = 2.0
"""What clients may take to read to the end, once they are told that the process ends."""
IDLE_S, STUCK_S = 0.3, 0.4
"""What a request may take to begin, and one that has begun to arrive, once no more connections are taken."""
CROWDED = 0.9
"""From this part of `worker_connections` on who is waited for longest makes room."""
_DISCARD_BYTES = 262_144
_PAUSE_S = 0.01
_GONE = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF, errno.ECONNABORTED}
"""Of a client that is gone, or that was told all there is to say."""
_FAULTS: dict[type[Exception], tuple[type[SyncError], str]] = {
    gunicorn_errors.LimitRequestLine: (UriTooLong, "the path and query are longer than this server accepts"),
    gunicorn_errors.LimitRequestHeaders: (HeadersTooLarge, "the headers are larger than this server accepts"),
    gunicorn_errors.ExpectationFailed: (ExpectationFailed, "100-continue is the only expectation that is met"),
    gunicorn_errors.UnsupportedTransferCoding: (UnsupportedMediaType, "chunked is the only transfer coding"),
    gunicorn_errors.InvalidRequestLine: (BadRequest, "the request line is not valid HTTP; encode what is not ASCII"),
    gunicorn_errors.InvalidRequestMethod: (BadRequest, "the method is not valid HTTP"),
    gunicorn_errors.InvalidHTTPVersion: (BadRequest, "this server speaks HTTP/1.1 and 1.0"),
    gunicorn_errors.InvalidChunkSize: (BadRequest, "a chunk of the body does not begin with its size"),
    gunicorn_errors.InvalidChunkExtension: (BadRequest, "a chunk's extension is not valid HTTP"),
    gunicorn_errors.ChunkMissingTerminator: (BadRequest, "a chunk of the body does not end where it should"),
    gunicorn_errors.ParseException: (BadRequest, "a header is not valid HTTP, or given twice, or contradicts another"),
}
"""What a client is told of gunicorn's errors; the first that fits."""


class GunicornWorker(GeventWorker):
    """Serves connections, each in a greenlet: reads a whole request, in time, and only then asks the application.

    It ends in order: it says so, closes its WebSockets one by one, and answers what runs. Gunicorn's own would wait
    `graceful_timeout` for every browser or router that keeps a connection open.
    waiting: the connections of which a request, or the rest of one, is waited for, the longest wait first.
    """

    ends = False

    def run(self) -> None:
        """Serve until told to stop."""
        settings = self.wsgi.extensions["syncapp"].settings
        self.limit_s: float = settings.request_timeout_s
        self.most_body_bytes: int = settings.max_body_bytes
        self.waiting: dict[HttpReader, None] = {}
        self.connections = 0
        self.cfg.set("graceful_timeout", int(LAST_WORDS_S))  # for the requests that still run at the end
        gevent.spawn(self._end_waiting)
        super().run()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin the end, on SIGTERM: of the server, or of a worker that a reload replaces."""
        if not self.ends:
            self.ends = True
            gevent.spawn(self._drain)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection."""
        inflow = HttpReader(client, self.limit_s)
        parser = Parser(self.cfg, client, addr)
        parser.unreader = inflow
        self._make_room()
        self.connections += 1
        request: Any = None
        try:
            address = listener.getsockname()
            idle_s = self.limit_s  # a new connection is there for a request
            while True:
                request = None
                self.waiting[inflow] = None
                try:
                    inflow.expect(idle_s)
                    request = next(parser)
                    inflow.read_body(request, self.most_body_bytes)
                finally:
                    self.waiting.pop(inflow, None)
                client.settimeout(self.limit_s)  # for each write; `syncapp.server.transport` has limits of its own
                self.handle_request(address, request, client, addr)
                idle_s = self.cfg.keepalive
        except (StopIteration, gunicorn_errors.NoMoreData):
            pass  # all is said
        except OSError as error:
            if not inflow.evicted:  # gevent wakes who waits with an error
                self._abort(client, error)
        except Exception as error:  # noqa: BLE001  # each is answered
            if not inflow.evicted:
                self.handle_error(request, client, addr, error)
        finally:
            self.connections -= 1
            util.close(client)

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer what is no request, or what failed outside of the application, in the form of all errors."""
        fault = _fault(exc)
        if fault.status >= 500:
            self.log.error("Error handling a request", exc_info=exc)
        _count(fault.status)
        body = orjson.dumps({"error": fault.document()})
        head = (
            f"HTTP/1.1 {fault.status} {HTTPStatus(fault.status).phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\nCache-Control: no-store\r\n"
        )
        # The origin of what could not be read is unknown: only where all may read answers may its page read this.
        origin = next((value for name, value in getattr(req, "headers", ()) if name == "ORIGIN"), "null")
        for name, value in self.wsgi.extensions["syncapp"].guards.origins.headers(origin).items():
            head += f"{name}: {value}\r\n"
        with suppress(OSError):
            client.settimeout(LINGER_S)
            client.sendall(head.encode("latin-1") + b"\r\n" + body)
            client.shutdown(socket.SHUT_WR)
            end_s = time.monotonic() + LINGER_S
            while time.monotonic() < end_s and client.recv(_DISCARD_BYTES):
                gevent.sleep(_PAUSE_S)

    def _abort(self, client: Any, error: OSError) -> None:
        """Reset the connection of a client that is gone or does not read, or whose answer can't be sent to its end."""
        if error.errno not in _GONE and not isinstance(error, TimeoutError):
            self.log.error("Socket error", exc_info=error)
        with suppress(OSError):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _make_room(self) -> None:
        """Give up whoever is waited for longest, when there are too many: a client that is served does not wait."""
        if self.connections >= CROWDED * self.worker_connections and self.waiting:
            inflow = next(iter(self.waiting))
            del self.waiting[inflow]
            inflow.evict()

    def _drain(self) -> None:
        try:
            seen_s = time.monotonic() + SEEN_S
            draining = self.wsgi.extensions["syncapp"].guards.draining
            draining.run()
            end_s = time.monotonic() + LAST_WORDS_S
            while draining.held and time.monotonic() < end_s:
                gevent.sleep(0.05)
            gevent.sleep(max(0.0, seen_s - time.monotonic()))
        finally:
            self.alive = False

    def _end_waiting(self) -> None:
        while self.alive:
            gevent.sleep(0.2)
        gevent.sleep(IDLE_S)
        for inflow in [each for each in self.waiting if each.is_idle]:
            inflow.evict()
        gevent.sleep(STUCK_S)
        for inflow in list(self.waiting):
            inflow.evict()


def _fault(error: BaseException) -> SyncError:
    if isinstance(error, SyncError):
        return error
    for kind, (fault, message) in _FAULTS.items():
        if isinstance(error, kind) and not isinstance(error, _OURS):
            return fault(message)
    return InternalError("something went wrong on our side")


_OURS = (
    gunicorn_errors.InvalidResponseHeader,
    gunicorn_errors.InvalidResponseHeaderName,
    gunicorn_errors.ConfigurationProblem,
)
"""Errors of gunicorn's that no client is to blame for."""


def _count(status: int) -> None:
    # Not before a worker runs: gunicorn's main process must not have metrics of its own.
    from syncapp.metrics import REQUESTS

    REQUESTS.labels("unparsed", "other", status).inc()

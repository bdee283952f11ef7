"""The web worker: gunicorn's gevent worker, with limits on how much time and memory each client can take."""

from __future__ import annotations

import errno
import socket
import struct
import time
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import gevent
import orjson
from gevent.server import StreamServer
from gunicorn import util
from gunicorn.http import errors as gunicorn_errors
from gunicorn.http import wsgi
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
from syncapp.server.hand_over import HandOvers
from syncapp.server.http_answer import HttpAnswer
from syncapp.server.http_parser import Head
from syncapp.server.http_reader import HttpReader
from syncapp.server.usual_requests import UsualRequest, UsualRequests

LINGER_S = 1.0
"""How long input is discarded after an error: closing a socket with unread input could lose the answer."""
ANNOUNCE_S = 0.5
"""How long a process that shuts down reports that at `/ready`, at least, before it stops accepting connections."""
FINAL_READ_S = 2.0
"""How long clients may take to read to the end, once the process has told them that it shuts down."""
IDLE_S, STUCK_S = 0.3, 0.4
"""How long a request may take to begin, and then to arrive as a whole, once no more connections are accepted."""
CROWDED_SHARE = 0.9
"""From this share of `worker_connections` on, each new connection closes the longest-waiting one."""
_DISCARD_BYTES = 262_144
_PAUSE_S = 0.01
_GONE = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF, errno.ECONNABORTED}
"""Error numbers that only say that the client has disconnected."""
_FAULTS: dict[type[Exception], tuple[type[SyncError], str]] = {
    gunicorn_errors.LimitRequestLine: (UriTooLong, "the path and query are longer than this server accepts"),
    gunicorn_errors.LimitRequestHeaders: (HeadersTooLarge, "the headers are larger than this server accepts"),
    gunicorn_errors.ExpectationFailed: (ExpectationFailed, "100-continue is the only supported expectation"),
    gunicorn_errors.UnsupportedTransferCoding: (
        UnsupportedMediaType,
        "chunked is the only supported transfer coding",
    ),
    gunicorn_errors.InvalidRequestLine: (BadRequest, "the request line is not valid HTTP; percent-encode non-ASCII"),
    gunicorn_errors.InvalidRequestMethod: (BadRequest, "the method is not valid HTTP"),
    gunicorn_errors.InvalidHTTPVersion: (BadRequest, "this server supports HTTP/1.1 and 1.0 only"),
    gunicorn_errors.InvalidChunkSize: (BadRequest, "a chunk of the body does not begin with its size"),
    gunicorn_errors.InvalidChunkExtension: (BadRequest, "a chunk's extension is not valid HTTP"),
    gunicorn_errors.ChunkMissingTerminator: (BadRequest, "a chunk of the body does not end where its size says"),
    gunicorn_errors.ParseException: (BadRequest, "a header is invalid, repeated, or contradicts another header"),
}
"""What gunicorn's errors become; the first entry that fits is used."""


class GunicornWorker(GeventWorker):
    """Serves connections, each in a greenlet: it reads a whole request within a time limit, then calls the application.

    It shuts down in order: `/ready` reports it, the WebSockets are closed one by one, and running requests are
    answered. Gunicorn's own worker would wait `graceful_timeout` for every client that keeps a connection open.
    waiting: the connections that wait for a request, or for the rest of one; the longest wait comes first.
    handed_over: sockets of requests that have become WebSockets; they count as connections until these end.
    """

    shutting_down = False

    def run(self) -> None:
        """Serve until SIGTERM."""
        settings = self.wsgi.extensions["syncapp"].settings
        self.limit_s: float = settings.request_timeout_s
        self.max_body_bytes: int = settings.max_body_bytes
        self.keepalive_s: float = self.cfg.keepalive
        self.waiting: dict[HttpReader, None] = {}
        self._usual: dict[Any, tuple[Any, UsualRequests]] = {}
        self.connections = 0
        self.handed_over = HandOvers()
        self.wsgi.wsgi_app = self.handed_over.offered_to(self.wsgi.wsgi_app)
        self.cfg.set("graceful_timeout", int(FINAL_READ_S))  # for requests that still run after the shutdown
        gevent.spawn(self._close_waiting)
        # gevent accepts up to 100 connections at once, and everything else waits until all of them were looked at.
        StreamServer.max_accept = 1
        super().run()

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Begin to shut down on SIGTERM: the server stops, or a reload replaces this worker."""
        if not self.shutting_down:
            self.shutting_down = True
            gevent.spawn(self._shut_down)

    def handle(self, listener: Any, client: Any, addr: Any) -> None:
        """Serve one connection."""
        reader = HttpReader(client, self.limit_s)
        self._make_room()
        self.connections += 1
        request: Any = None
        try:
            address, usual = self._usual_requests(listener)
            idle_s = self.limit_s  # a new connection is expected to send a request soon
            while True:
                request = None
                self.waiting[reader] = None
                try:
                    reader.expect(idle_s)
                    request = reader.usual_request(usual, addr) or Head(self.cfg, reader, addr)
                    reader.read_body(request, self.max_body_bytes)
                finally:
                    self.waiting.pop(reader, None)
                client.settimeout(self.limit_s)  # for each write; `syncapp.server.transport` has limits of its own
                self.handle_request(address, request, client, addr)
                if client in self.handed_over:
                    break
                idle_s = self.keepalive_s
        except (StopIteration, gunicorn_errors.NoMoreData):
            pass  # the client has ended its side
        except OSError as error:
            if not reader.evicted:  # an evicted connection fails with an error of its own
                self._abort(client, error)
        except Exception as error:  # noqa: BLE001  # each one is answered
            if not reader.evicted:
                self.handle_error(request, client, addr, error)
        finally:
            if begin := self.handed_over.take(client):
                begin(client, reader.take_buffered(), self._over)
            else:
                self._over()
                util.close(client)

    def handle_request(self, listener_name: Any, req: Any, sock: Any, addr: Any) -> None:
        """Call the application with a request that was read, and send its answer.

        Raises `StopIteration` if the connection ends with it, and `OSError`.
        """
        began = datetime.now(UTC) if self.log.access_log_enabled else None
        if isinstance(req, UsualRequest):
            answer, environ = HttpAnswer(req, sock, self.cfg), req.environ
        else:
            answer, environ = wsgi.create(req, sock, addr, listener_name, self.cfg, response_class=HttpAnswer)
            environ["wsgi.multithread"] = True
        self.nr += 1
        if self.nr >= self.max_requests:
            self.alive = False
        if not self.alive or not self.keepalive_s:
            answer.force_close()
        try:
            answer.send_all(self.wsgi(environ, answer.start_response))
        except (OSError, StopIteration):
            raise
        except (gevent.GreenletExit, SystemExit):  # a signal's; `alive` ends the worker
            raise StopIteration from None
        except Exception:
            if not answer.headers_sent:
                raise
            self.log.exception("Error handling a request")  # a second answer would look like part of this one
            raise StopIteration from None
        finally:
            if began:
                self.log.access(answer, req, environ, datetime.now(UTC) - began)
        if answer.should_close():
            raise StopIteration

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """Answer an invalid request, or a failure outside of the application, in the same form as all errors."""
        fault = _fault(exc)
        if fault.status >= 500:
            self.log.error("Error handling a request", exc_info=exc)
        _count(fault.status)
        body = orjson.dumps({"error": fault.document()})
        head = (
            f"HTTP/1.1 {fault.status} {HTTPStatus(fault.status).phrase}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\nConnection: close\r\nCache-Control: no-store\r\n"
            "X-Content-Type-Options: nosniff\r\n"
        )
        # The origin of an unreadable request is unknown: its page may read this answer only if all origins may.
        origin = next((value for name, value in getattr(req, "headers", ()) if name == "ORIGIN"), "null")
        origin_headers = self.wsgi.extensions["syncapp"].guards.origins.headers(origin)
        for name, value in {**fault.headers, **origin_headers}.items():
            head += f"{name}: {value}\r\n"
        with suppress(OSError):
            client.settimeout(LINGER_S)
            client.sendall(head.encode("latin-1") + b"\r\n" + body)
            client.shutdown(socket.SHUT_WR)
            end_s = time.monotonic() + LINGER_S
            while time.monotonic() < end_s and client.recv(_DISCARD_BYTES):
                gevent.sleep(_PAUSE_S)

    def _usual_requests(self, listener: Any) -> tuple[Any, UsualRequests]:
        """Return the address of a listening socket, and what makes its usual requests."""
        found = self._usual.get(listener)
        if found is None:
            address = listener.getsockname()
            found = self._usual[listener] = address, UsualRequests(self.cfg, address)
        return found

    def _over(self) -> None:
        """Count a connection no longer."""
        self.connections -= 1

    def _abort(self, client: Any, error: OSError) -> None:
        """Reset a connection whose client is gone or does not read, or whose answer cannot be completed."""
        if error.errno not in _GONE and not isinstance(error, TimeoutError):
            self.log.error("Socket error", exc_info=error)
        with suppress(OSError):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def _make_room(self) -> None:
        """Close the longest-waiting connection if there are too many; connections being served are not affected."""
        if self.connections >= CROWDED_SHARE * self.worker_connections and self.waiting:
            reader = next(iter(self.waiting))
            del self.waiting[reader]
            reader.evict()

    def _shut_down(self) -> None:
        try:
            announced_s = time.monotonic() + ANNOUNCE_S
            shutdown = self.wsgi.extensions["syncapp"].guards.shutdown
            shutdown.run()
            end_s = time.monotonic() + FINAL_READ_S
            while shutdown.open_connections and time.monotonic() < end_s:
                gevent.sleep(0.05)
            gevent.sleep(max(0.0, announced_s - time.monotonic()))
        finally:
            self.alive = False

    def _close_waiting(self) -> None:
        while self.alive:
            gevent.sleep(0.2)
        gevent.sleep(IDLE_S)
        for reader in [each for each in self.waiting if each.is_idle]:
            reader.evict()
        gevent.sleep(STUCK_S)
        for reader in list(self.waiting):
            reader.evict()


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
"""Errors of gunicorn's that are our fault, not the client's."""


def _count(status: int) -> None:
    # Imported only in a running worker: gunicorn's main process must not have metrics of its own.
    from syncapp.metrics import REQUESTS

    REQUESTS.labels("unparsed", "other", status).inc()

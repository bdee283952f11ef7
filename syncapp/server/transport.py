"""Limits on the sockets of slow clients: small buffers of the system, and a time limit for each message of a stream.

The sockets of WebSockets are `syncapp.server.frame_socket`'s.
"""

from __future__ import annotations

import _socket
import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from syncapp.loops import Loops
from syncapp.metrics import flush_counters
from syncapp.server.disconnects import DisconnectWatch

SEND_BUFFER_BYTES = 131_072
RECEIVE_BUFFER_BYTES = 65_536
"""What the system buffers for a client (Linux doubles the numbers); bounded, so that a slow client does not read old
states."""
_WATCH_S = 0.25


def set_options(raw: _socket.socket, limit_s: float) -> None:
    """Set the options of a client's socket; limit_s: how long a message may take to be sent."""
    with contextlib.suppress(OSError):  # a Unix socket has no such options
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # For clients that have vanished. It is later than our own limit, so that a slow client is closed as slow.
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(limit_s * 1000) + 5000)


def reset_on_close(raw: _socket.socket) -> None:
    """Have a close reset the connection: unsent data is discarded. Raises `OSError`."""
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Watchdog:
    """Aborts streams that take too long to write one message. One thread does it for all of them.

    The same thread notices clients that have disconnected, and adds what is counted in memory to the metrics.
    """

    def __init__(self, loops: Loops | None = None) -> None:
        self._disconnects = DisconnectWatch()
        self._loops = loops or Loops()
        self._deadlines: dict[Transport, float] = {}
        self._thread: threading.Thread | None = None

    def begin(self, transport: Transport, deadline_s: float) -> None:
        """Watch a transport that begins to write; it is aborted at this monotonic instant (s)."""
        self._deadlines[transport] = deadline_s

    def notify_disconnect(self, raw: socket.socket | None, stop: Callable[[], None]) -> AbstractContextManager[None]:
        """Have `stop` called when the client of a socket disconnects, while the context lasts; it must not wait."""
        self.start()
        return self._disconnects.notify(raw, stop)

    def start(self) -> None:
        """Start the thread, once."""
        if self._thread is None:
            self._thread = self._loops.start("ws_watchdog", self._turn, threading.Event())

    def shorten_limit(self, transport: Transport, deadline_s: float) -> None:
        """Move the deadline of a transport that is writing to an earlier instant."""
        if transport in self._deadlines:
            self._deadlines[transport] = min(deadline_s, self._deadlines[transport])

    def end(self, transport: Transport) -> None:
        """Stop watching a transport."""
        self._deadlines.pop(transport, None)

    def run_once(self, now_s: float) -> None:
        """Abort every transport whose deadline has passed."""
        for transport, deadline_s in list(self._deadlines.items()):
            if now_s >= deadline_s:
                self.end(transport)
                transport.abort()

    def _turn(self) -> float:
        self.run_once(time.monotonic())
        self._disconnects.run_once()
        flush_counters()
        return _WATCH_S


class Transport:
    """The socket of a stream, which the web server writes to.

    limit_s: how long one write may take. aborted: a write took longer.
    """

    __slots__ = ("_raw", "_watchdog", "aborted", "limit_s")

    def __init__(self, raw: socket.socket, watchdog: Watchdog, limit_s: float) -> None:
        self._raw = raw
        self._watchdog = watchdog
        watchdog.start()
        self.limit_s = limit_s
        self.aborted = False
        raw.settimeout(None)  # the web server's timeout is meant for a request
        set_options(raw, limit_s)

    def shorten_limit(self, limit_s: float) -> None:
        """Limit each write, including the one in progress, to this time from now."""
        self.limit_s = min(limit_s, self.limit_s)
        self._watchdog.shorten_limit(self, time.monotonic() + limit_s)

    def abort(self) -> None:
        """Reset the connection: waiting reads and writes end, and unsent data is discarded."""
        self.aborted = True
        with contextlib.suppress(OSError):
            reset_on_close(self._raw)
        with contextlib.suppress(OSError):
            self._raw.shutdown(socket.SHUT_RDWR)

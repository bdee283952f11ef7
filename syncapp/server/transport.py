"""The raw socket under a WebSocket or a stream: whole frames only, and no wait without an end."""

from __future__ import annotations

import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager

from syncapp.loops import Loops
from syncapp.metrics import SENT
from syncapp.server.disconnects import DisconnectWatch

SEND_BUFFER_BYTES = 131_072
RECEIVE_BUFFER_BYTES = 65_536
"""What the system buffers for a client (it doubles the numbers): bounded, so that what a slow one reads is not old."""
LINGER_S = 1.0
_WATCH_S = 0.25
_DISCARD_BYTES = 65_536
_AT_ONCE = socket.MSG_DONTWAIT
PAUSE_S = 0.01
"""gevent lets nobody else run while there is something to read."""


class Watchdog:
    """Aborts wires that have been writing one message for too long, on one thread; and flushes what they counted.

    On the same thread it notices clients that have hung up.
    """

    def __init__(self, loops: Loops | None = None) -> None:
        self._hangups = DisconnectWatch()
        self._loops = loops or Loops()
        self._deadlines: dict[Transport, float] = {}
        self._thread: threading.Thread | None = None

    def begin(self, wire: Transport, deadline_s: float) -> None:
        """Watch a wire that begins to write, until this monotonic instant."""
        self._deadlines[wire] = deadline_s

    def told(self, raw: socket.socket | None, leave: Callable[[], None]) -> AbstractContextManager[None]:
        """Have `leave` called when the client of a socket has hung up; it must not wait."""
        self.start()
        return self._hangups.told(raw, leave)

    def start(self) -> None:
        """Start the thread, once."""
        if self._thread is None:
            self._thread = self._loops.start("ws_watchdog", self._turn, threading.Event())

    def hurry(self, wire: Transport, deadline_s: float) -> None:
        """Watch a wire that is writing until an earlier instant."""
        if wire in self._deadlines:
            self._deadlines[wire] = min(deadline_s, self._deadlines[wire])

    def end(self, wire: Transport) -> None:
        """Watch a wire no more."""
        self._deadlines.pop(wire, None)

    def run_once(self, now_s: float) -> None:
        """Abort every wire whose time is up."""
        for wire, deadline_s in list(self._deadlines.items()):
            if now_s >= deadline_s:
                self.end(wire)
                wire.abort()

    def _turn(self) -> float:
        self.run_once(time.monotonic())
        self._hangups.run_once()
        SENT.flush()
        return _WATCH_S


class Transport:
    """A socket that sends whole frames, one at a time, whichever thread they come from.

    aborted: a message took longer than it may. heard_s: when the client was last heard of. wake: called, at once
    when there is something for `write`, or reading has ended. lock: never held for long. early: what was received
    already.
    """

    __slots__ = (
        "_direct", "_draining", "_early", "_is_writing", "_raw", "_rest", "_turn", "_watchdog", "aborted", "ended",
        "heard_s", "limit_s", "lock", "wake",
    )  # fmt: skip

    def __init__(self, raw: socket.socket, watchdog: Watchdog, limit_s: float, early: bytes = b"") -> None:
        self._raw = raw
        self._early = early
        # What gevent's socket has within never waits; a TLS socket can't be asked not to.
        self._direct = None if isinstance(raw, ssl.SSLSocket) else getattr(raw, "_sock", raw)
        self._rest: memoryview | None = None
        self._is_writing = False
        self._turn = threading.Lock()
        self.lock = threading.Lock()
        self._watchdog = watchdog
        watchdog.start()
        self._draining = False
        self.limit_s = limit_s
        self.aborted = self.ended = False
        self.heard_s = time.monotonic()
        self.wake: Callable[[], None] = lambda: None
        raw.settimeout(None)  # the web server's limits are those of a request
        with contextlib.suppress(OSError):  # a Unix socket has no such options
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # For a client that is gone; later than the watchdog, so that a slow one is known to be slow.
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(limit_s * 1000) + 5000)

    @property
    def is_open(self) -> bool:
        """Whether neither side has begun to end it."""
        return not (self._draining or self.aborted or self.ended)

    def try_write(self, frame: bytes) -> bool:
        """Send a frame without waiting for anything; False when there is no room for any of it now.

        When there is room for a part, the rest is left to `write`. The caller holds `lock`.
        """
        if self._is_writing or self._rest or self._direct is None:
            return self._draining  # then nobody reads it any more
        try:
            sent = self._direct.send(frame, _AT_ONCE)
        except BlockingIOError:
            return False
        except OSError:
            return True  # the client is gone: the next `recv` notices
        if sent < len(frame):
            self._rest = memoryview(frame)[sent:]
            self._watchdog.begin(self, time.monotonic() + self.limit_s)
            self.wake()
        return True

    @property
    def has_rest(self) -> bool:
        """Whether a frame is sent in part."""
        return self._rest is not None

    def write(self, frame: bytes) -> None:
        """Send the rest of a frame, and a frame. Raises `OSError` when the client is gone, or takes too long."""
        with self._turn:
            with self.lock:
                self._is_writing = True
            try:
                if self._rest:
                    self._raw.sendall(self._rest)
                    self._rest = None
                self._watchdog.begin(self, time.monotonic() + self.limit_s)
                self._raw.sendall(frame)
            finally:
                self._watchdog.end(self)
                self._is_writing = False

    def hurry(self, limit_s: float) -> None:
        """Give a message that is being written no more than this time, from now."""
        self.limit_s = min(limit_s, self.limit_s)
        self._watchdog.hurry(self, time.monotonic() + limit_s)

    def abort(self) -> None:
        """Give up: whoever waits on the socket is woken, and what is still to be sent is thrown away."""
        self.aborted = True
        with contextlib.suppress(OSError):
            self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            self._raw.shutdown(socket.SHUT_RDWR)

    # What simple_websocket calls.

    def send(self, data: bytes) -> int:
        """Send all of it; a client that is gone is noticed by the next `recv`."""
        if not self._draining:
            with contextlib.suppress(OSError):
                self.write(data)
        return len(data)

    def recv(self, size: int) -> bytes:
        """Receive; nothing once the connection is being closed."""
        while True:
            if self._early:
                data, self._early = self._early[:size], self._early[size:]
            else:
                data = self._raw.recv(size)
            self.heard_s = time.monotonic()
            if not self._draining or not data:
                time.sleep(0)  # else one client that keeps sending would have the whole worker
                return data
            time.sleep(PAUSE_S)

    def close(self) -> None:
        """Note that reading has ended; gunicorn closes the socket when the handler returns."""
        self.ended = True
        self.wake()

    # The end.

    def finish(self, reader: threading.Thread) -> None:
        """End the stream, and give the client a moment to read to its end.

        A socket that is closed with input unread is reset, and the client may then lose our last frames.
        """
        self._draining = True
        end_s = time.monotonic() + LINGER_S
        with contextlib.suppress(OSError):
            self._raw.shutdown(socket.SHUT_WR)
            reader.join(LINGER_S)
            self._raw.settimeout(max(0.01, end_s - time.monotonic()))
            while not reader.is_alive() and time.monotonic() < end_s and self._raw.recv(_DISCARD_BYTES):
                time.sleep(PAUSE_S)
        with contextlib.suppress(OSError):
            self._raw.shutdown(socket.SHUT_RDWR)
        reader.join(LINGER_S)

"""The raw socket under a WebSocket or a stream: it sends whole frames only, and no write waits without a limit."""

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
"""What the system buffers for a client (Linux doubles the numbers); bounded, so that a slow client does not read old
states."""
LINGER_S = 1.0
"""How long input is discarded after a close."""
_WATCH_S = 0.25
_DISCARD_BYTES = 65_536
_AT_ONCE = socket.MSG_DONTWAIT
PAUSE_S = 0.01
"""Between two reads: gevent runs nothing else as long as there is something to read."""


class Watchdog:
    """Aborts transports that take too long to write one message. One thread does it for all of them.

    The same thread notices clients that have disconnected, and adds the count of sent messages to the metric.
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
        SENT.flush()
        return _WATCH_S


class Transport:
    """A socket that sends whole frames, one at a time, whichever thread they come from.

    limit_s: how long one write may take. aborted: a write took longer. received_s: when the client last sent anything.
    wake: called when there is something for `write`, or reading has ended; it must return at once. lock: guards
    `try_write`; never held while a write waits. buffered: input that the web server has read already.
    """

    __slots__ = (
        "_buffered", "_direct", "_finishing", "_is_writing", "_raw", "_unsent", "_watchdog", "_write_lock", "aborted",
        "ended", "limit_s", "lock", "received_s", "wake",
    )  # fmt: skip

    def __init__(self, raw: socket.socket, watchdog: Watchdog, limit_s: float, buffered: bytes = b"") -> None:
        self._raw = raw
        self._buffered = buffered
        # The socket inside gevent's never waits. A TLS socket has no such mode.
        self._direct = None if isinstance(raw, ssl.SSLSocket) else getattr(raw, "_sock", raw)
        self._unsent: memoryview | None = None
        self._is_writing = False
        self._write_lock = threading.Lock()
        self.lock = threading.Lock()
        self._watchdog = watchdog
        watchdog.start()
        self._finishing = False
        self.limit_s = limit_s
        self.aborted = self.ended = False
        self.received_s = time.monotonic()
        self.wake: Callable[[], None] = lambda: None
        raw.settimeout(None)  # the web server's timeout is meant for a request
        with contextlib.suppress(OSError):  # a Unix socket has no such options
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # For clients that have vanished. It is later than the watchdog, so that a slow client is closed as slow.
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(limit_s * 1000) + 5000)

    @property
    def is_open(self) -> bool:
        """Whether neither side has begun to close."""
        return not (self._finishing or self.aborted or self.ended)

    def try_write(self, frame: bytes) -> bool:
        """Send a frame without waiting; return False if the socket has no room for any part of it now.

        If the socket has room for a part, the rest is left to `write`. The caller holds `lock`.
        """
        if self._is_writing or self._unsent or self._direct is None:
            return self._finishing  # once it is closing, frames are discarded
        try:
            sent = self._direct.send(frame, _AT_ONCE)
        except BlockingIOError:
            return False
        except OSError:
            return True  # the client has disconnected: the next `recv` notices
        if sent < len(frame):
            self._unsent = memoryview(frame)[sent:]
            self._watchdog.begin(self, time.monotonic() + self.limit_s)
            self.wake()
        return True

    @property
    def has_partial_frame(self) -> bool:
        """Whether a frame has been sent only in part."""
        return self._unsent is not None

    def write(self, frame: bytes) -> None:
        """Send the rest of a partial frame, then this frame. Raises `OSError` if the client is gone or too slow."""
        with self._write_lock:
            with self.lock:
                self._is_writing = True
            try:
                if self._unsent:
                    self._raw.sendall(self._unsent)
                    self._unsent = None
                self._watchdog.begin(self, time.monotonic() + self.limit_s)
                self._raw.sendall(frame)
            finally:
                self._watchdog.end(self)
                self._is_writing = False

    def shorten_limit(self, limit_s: float) -> None:
        """Limit each write, including the one in progress, to this time from now."""
        self.limit_s = min(limit_s, self.limit_s)
        self._watchdog.shorten_limit(self, time.monotonic() + limit_s)

    def abort(self) -> None:
        """Reset the connection: waiting reads and writes end, and unsent data is discarded."""
        self.aborted = True
        with contextlib.suppress(OSError):
            self._raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with contextlib.suppress(OSError):
            self._raw.shutdown(socket.SHUT_RDWR)

    # What simple_websocket calls.

    def send(self, data: bytes) -> int:
        """Send all of the data; that a client has disconnected is noticed by the next `recv`."""
        if not self._finishing:
            with contextlib.suppress(OSError):
                self.write(data)
        return len(data)

    def recv(self, size: int) -> bytes:
        """Receive data; b'' at the end. Once the connection is closing, input is discarded."""
        while True:
            if self._buffered:
                data, self._buffered = self._buffered[:size], self._buffered[size:]
            else:
                data = self._raw.recv(size)
            self.received_s = time.monotonic()
            if not self._finishing or not data:
                time.sleep(0)  # otherwise a client that keeps sending would block the whole worker
                return data
            time.sleep(PAUSE_S)

    def close(self) -> None:
        """Note that reading has ended; gunicorn closes the socket when the handler returns."""
        self.ended = True
        self.wake()

    # The end.

    def finish(self, reader: threading.Thread) -> None:
        """End the stream, and give the client up to 1 s to read to its end.

        Closing a socket with unread input resets the connection, and the client may then lose the last frames.
        """
        self._finishing = True
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

"""The raw socket under a WebSocket: whole frames only, no more input than allowed, no wait without an end.

simple_websocket reads it on a thread of its own, and answers pings and closes from there; `Connection` (ws)
writes everything else. Both go through `Wire`.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import structlog
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Event, Message, Ping, Pong

log = structlog.get_logger(__name__)

SEND_BUFFER_BYTES = 131_072
RECEIVE_BUFFER_BYTES = 65_536
"""What the system buffers for a client (it doubles the numbers): bounded, so that what a slow one reads is not old."""
LINGER_S = 1.0
_WATCH_S = 0.25
_DISCARD_BYTES = 65_536
_PAUSE_S = 0.01  # gevent lets nobody else run while there is something to read


class Flood(OSError):
    """More frames than a client may send."""


class Bucket:
    """Tokens that come back at a rate, `burst` of them at most."""

    __slots__ = ("_at_s", "_burst", "_per_s", "_tokens")

    def __init__(self, per_s: float, burst: int) -> None:
        self._per_s = per_s
        self._burst = burst
        self._tokens = float(burst)
        self._at_s = time.monotonic()

    def take(self) -> bool:
        """Take a token; False when there is none."""
        now_s = time.monotonic()
        self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Watchdog:
    """Aborts wires that have been writing one message for too long, on one thread, begun with the first write."""

    def __init__(self) -> None:
        self._deadlines: dict[Wire, float] = {}
        self._thread: threading.Thread | None = None

    def begin(self, wire: Wire, deadline_s: float) -> None:
        """Watch a wire that begins to write, until this monotonic instant."""
        self._deadlines[wire] = deadline_s
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="ws watchdog", daemon=True)
            self._thread.start()

    def end(self, wire: Wire) -> None:
        """Watch a wire no more."""
        self._deadlines.pop(wire, None)

    def run_once(self, now_s: float) -> None:
        """Abort every wire whose time is up."""
        for wire, deadline_s in list(self._deadlines.items()):
            if now_s >= deadline_s:
                self.end(wire)
                wire.abort()

    def _run(self) -> None:
        while True:
            time.sleep(_WATCH_S)
            self.run_once(time.monotonic())


class Wire:
    """A socket that sends whole frames, one at a time, whichever thread they come from.

    aborted: a message took longer than it may. heard_s: when the client was last heard of.
    """

    __slots__ = ("_draining", "_lock", "_raw", "_watchdog", "aborted", "ended", "heard_s", "limit_s", "wake")

    def __init__(self, raw: socket.socket, watchdog: Watchdog, limit_s: float) -> None:
        self._raw = raw
        self._lock = threading.Lock()
        self._watchdog = watchdog
        self._draining = False
        self.limit_s = limit_s
        self.aborted = self.ended = False
        self.heard_s = time.monotonic()
        self.wake: Callable[[], None] = lambda: None
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

    def write(self, frame: bytes) -> None:
        """Send a frame. Raises `OSError` when the client is gone, or takes longer than it may."""
        with self._lock:
            self._watchdog.begin(self, time.monotonic() + self.limit_s)
            try:
                self._raw.sendall(frame)
            finally:
                self._watchdog.end(self)

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
            data = self._raw.recv(size)
            self.heard_s = time.monotonic()
            if not self._draining or not data:
                return data
            time.sleep(_PAUSE_S)

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
                time.sleep(_PAUSE_S)
        with contextlib.suppress(OSError):
            self._raw.shutdown(socket.SHUT_RDWR)
        reader.join(LINGER_S)


class Inspected:
    """simple_websocket's protocol state, which takes no more than the handler and the client's rate allow.

    flooded: more frames came than may. closed: the client has closed. refused: the code with which a frame that
    breaks the protocol was answered.
    """

    def __init__(self, ws: Any, wire: Wire, bucket: Bucket, most_waiting_bytes: int) -> None:
        # Not the whole of it: the rest was for the handshake, and is kilobytes.
        self._inner = ws.ws.connection
        self._waiting = ws.input_buffer
        self._wire = wire
        self._bucket = bucket
        self._most_waiting_bytes = most_waiting_bytes
        self.flooded = self.closed = False
        self.refused: int | None = None

    def send(self, event: Event) -> bytes:
        """Return the bytes of an event."""
        data: bytes = self._inner.send(event)
        return data

    def receive_data(self, data: bytes) -> None:
        """Take bytes, once the handler has taken messages that came before: it may wait for a slow client."""
        while sum(map(len, self._waiting)) > self._most_waiting_bytes and self._wire.is_open:
            time.sleep(_PAUSE_S)
        self._inner.receive_data(data)

    def events(self) -> Iterator[Event]:
        """Yield what came. Raises `Flood`, which makes simple_websocket stop reading."""
        for event in self._inner.events():
            is_frame = isinstance(event, Ping | Pong) or (isinstance(event, Message) and event.frame_finished)
            if is_frame and not self._bucket.take():
                self.flooded = True
                raise Flood
            if isinstance(event, CloseConnection):
                if self._inner.state is ConnectionState.OPEN:
                    self.refused = int(event.code)
                else:
                    self.closed = True
            yield event


class Reader(threading.Thread):
    """simple_websocket's thread; however it ends, whoever waits for input is woken."""

    def run(self) -> None:
        """Read until the end."""
        websocket = self._target.__self__  # type: ignore[attr-defined]  # threading keeps it there while it runs
        try:
            super().run()
        except Exception:
            log.exception("a reader of a WebSocket failed")
        finally:
            websocket.connected = False
            websocket.event.set()

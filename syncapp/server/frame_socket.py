"""The socket of a WebSocket: it sends whole frames only, and never waits."""

from __future__ import annotations

import _socket
import socket
import time
from contextlib import suppress
from typing import Any

from syncapp.server.transport import reset_on_close, set_options

SHARE_BYTES = 8192
"""What is read of one connection before others get a turn."""
_DISCARD_BYTES = 65_536


class FrameSocket:
    """Takes over the descriptor of a socket of gevent's, whose object takes ten times the memory.

    limit_s: how long a message may take to be sent. blocked_until_s: when the time of the message that waits for room
    is up (monotonic); None if none waits. is_closing: the last frame was given; others are discarded. received_s: when
    the client last sent anything.
    """

    __slots__ = ("_pong", "_raw", "_unsent", "blocked_until_s", "is_closing", "limit_s", "received_s")

    def __init__(self, raw: Any, limit_s: float) -> None:
        family, kind, protocol = raw.family, raw.type, raw.proto
        self._raw = _socket.socket(family, kind, protocol, raw.detach())
        self._raw.settimeout(0)
        set_options(self._raw, limit_s)
        self._unsent = b""
        self._pong = b""
        self.limit_s = limit_s
        self.blocked_until_s: float | None = None
        self.is_closing = False
        self.received_s = time.monotonic()

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._raw.fileno()

    @property
    def has_unsent(self) -> bool:
        """Whether a frame has been sent only in part."""
        return bool(self._unsent)

    def try_write(self, frame: bytes) -> bool:
        """Send a frame; return False if the socket has no room for any part of it now.

        If the socket has room for a part, `flush` sends the rest. That the client has gone is noticed by reading.
        """
        if self._unsent or self.is_closing:
            return self.is_closing
        try:
            sent = self._raw.send(frame)
        except BlockingIOError:
            self._block()
            return False
        except OSError:
            return True
        self.blocked_until_s = None
        if sent < len(frame):
            self._unsent = frame[sent:]
            self._block()
        return True

    def flush(self) -> bool:
        """Send the rest of a partial frame, and then a pong that waits; return whether nothing is left."""
        while self._unsent or self._pong:
            if not self._unsent:
                self._unsent, self._pong = self._pong, b""
            try:
                sent = self._raw.send(self._unsent)
            except BlockingIOError:
                self._block()
                return False
            except OSError:
                sent = len(self._unsent)
            self._unsent = self._unsent[sent:]
            if not self._unsent:
                self.blocked_until_s = None
        return True

    def send_control(self, frame: bytes) -> None:
        """Send a ping or a pong before everything that waits; only the last one is kept if there is no room."""
        if self._unsent or not self.try_write(frame):
            self._pong = frame

    def is_late(self, now_s: float) -> bool:
        """Tell whether the message that waits has taken too long."""
        return self.blocked_until_s is not None and now_s >= self.blocked_until_s

    def shorten_limit(self, limit_s: float) -> None:
        """Limit each message, including the one that waits, to this time from now."""
        self.limit_s = min(limit_s, self.limit_s)
        if self.blocked_until_s is not None:
            self.blocked_until_s = min(self.blocked_until_s, time.monotonic() + limit_s)

    def read(self) -> bytes:
        """Return what has arrived, at most a share; b'' at the end. Raises `OSError`; `BlockingIOError` for nothing."""
        data = self._raw.recv(SHARE_BYTES)
        if data:
            self.received_s = time.monotonic()
        return data

    def finish(self, frame: bytes) -> bool:
        """Send the last frame, after the rest of a partial one; return whether both are sent, otherwise `flush`."""
        self.is_closing = True
        self._unsent, self._pong = self._unsent + frame, b""
        return self.flush()

    def end_stream(self) -> None:
        """Tell the client that nothing more comes."""
        with suppress(OSError):
            self._raw.shutdown(socket.SHUT_WR)

    def discard(self) -> bool:
        """Discard what has arrived; return whether that was the end. Raises `BlockingIOError`."""
        try:
            return not self._raw.recv(_DISCARD_BYTES)
        except BlockingIOError:
            raise
        except OSError:
            return True

    def abort(self) -> None:
        """Have `close` reset the connection, and discard what the system has not sent yet."""
        self.is_closing = True
        self._unsent = self._pong = b""
        with suppress(OSError):
            reset_on_close(self._raw)

    def close(self) -> None:
        """Close the socket."""
        self.is_closing = True
        self._unsent = self._pong = b""
        with suppress(OSError):
            self._raw.close()

    def _block(self) -> None:
        if self.blocked_until_s is None:
            self.blocked_until_s = time.monotonic() + self.limit_s

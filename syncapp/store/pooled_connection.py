"""One connection of the pool: scripts use its socket directly, without the layers of the client library."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import hiredis
from redis import exceptions

_READ_BYTES = 65_536
_FRESH_S = 0.5
"""A connection that was unused for longer is checked before use, because the server may have closed it."""
_ERRORS: dict[str, type[exceptions.RedisError]] = {
    "NOSCRIPT": exceptions.NoScriptError,
    "LOADING": exceptions.BusyLoadingError,
    "READONLY": exceptions.ReadOnlyError,
    "OOM": exceptions.OutOfMemoryError,
}


class PooledConnection:
    """A connection that one caller uses at a time."""

    def __init__(self, connection: Any, generation: int) -> None:
        connection.connect()
        self.connection = connection
        self.generation = generation
        self._socket = connection._sock  # redis-py has no public access to it
        self._reader = hiredis.Reader(encoding="utf-8", replyError=_error, protocolError=exceptions.InvalidResponse)
        self.opened_s = self.used_s = time.monotonic()

    def call(self, commands: bytes, count: int, *, raw: bool = False) -> list[Any]:
        """Send `count` packed commands; return the replies, including errors. Raises `OSError`, `ConnectionError`.

        raw: return bytes instead of text. Otherwise the error of a reply that is not UTF-8 takes its place.
        """
        if raw:
            self._reader.set_encoding(None)
        sent = self._socket.send(commands)  # usually sends all; cheaper than sendall under gevent
        if sent < len(commands):
            self._socket.sendall(memoryview(commands)[sent:])
        replies = []
        for _ in range(count):
            try:
                while (reply := self._reader.gets()) is False:
                    data = self._socket.recv(_READ_BYTES)
                    if not data:
                        raise exceptions.ConnectionError("the server closed the connection")
                    self._reader.feed(data)
            except UnicodeDecodeError:  # the reader has passed the whole reply, so the next one is the next command's
                reply = exceptions.ResponseError("the reply is not UTF-8")
            replies.append(reply)
        if raw:
            self._reader.set_encoding("utf-8")
        self.used_s = time.monotonic()
        return replies

    @property
    def is_usable(self) -> bool:
        """Whether it was used less than 0.5 s ago, or a check shows that it is open without unread data."""
        if time.monotonic() - self.used_s < _FRESH_S:
            return True
        try:
            return not self.connection.can_read()
        except (exceptions.RedisError, OSError):
            return False

    @property
    def is_open(self) -> bool:
        """Whether redis-py has left the connection open."""
        return self.connection._sock is self._socket

    def close(self) -> None:
        """Close the connection; does nothing if it is closed."""
        self.connection.disconnect()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # `__init__` may have failed, or the interpreter is exiting
            self.close()


def _error(text: str) -> Exception:
    """Return the exception for an error reply, with the text unchanged."""
    return _ERRORS.get(text.split(" ", 1)[0], exceptions.ResponseError)(text)

"""Lines to Redis for scripts: one packed command out, its reply back, without the layers of the client library.

redis-py makes the connection (TLS, password, database) with the timeouts of `redis.connect`; the line then uses
its socket. Nothing is retried, and a line on which anything went wrong is closed: its next user could otherwise
read the reply to somebody else's command.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import hiredis
import redis
from redis import exceptions

_READ_BYTES = 65_536
_FRESH_S = 0.5
"""A line that was silent for longer is looked at before it is used: the server may have closed it."""
_ERRORS: dict[str, type[exceptions.ResponseError]] = {"NOSCRIPT": exceptions.NoScriptError}
_AWAY: dict[str, type[exceptions.RedisError]] = {
    "LOADING": exceptions.BusyLoadingError,
    "READONLY": exceptions.ReadOnlyError,
    "OOM": exceptions.OutOfMemoryError,
}

Words = Sequence[str | bytes | int]


def packed(*words: str | bytes | int) -> bytes:
    """Return a command as it goes over the wire."""
    argument: Any = words  # its stub allows one word only
    command: bytes = hiredis.pack_command(argument)
    return command


class Line:
    """One connection, used by one caller at a time."""

    def __init__(self, connection: Any) -> None:
        connection.connect()
        self._connection = connection
        self._socket = connection._sock  # redis-py has no public way to it
        self._reader = hiredis.Reader(encoding="utf-8", replyError=_error, protocolError=exceptions.InvalidResponse)
        self._used_s = time.monotonic()

    def call(self, commands: bytes, count: int) -> list[Any]:
        """Send packed commands; return as many replies, errors among them. Raises `OSError`, `ConnectionError`."""
        sent = self._socket.send(commands)  # mostly all of it, and cheaper than sendall under gevent
        if sent < len(commands):
            self._socket.sendall(memoryview(commands)[sent:])
        replies = []
        for _ in range(count):
            while (reply := self._reader.gets()) is False:
                data = self._socket.recv(_READ_BYTES)
                if not data:
                    raise exceptions.ConnectionError("the server closed the connection")
                self._reader.feed(data)
            replies.append(reply)
        self._used_s = time.monotonic()
        return replies

    @property
    def usable(self) -> bool:
        """Whether it was in use moments ago, or is seen to be open and silent."""
        if time.monotonic() - self._used_s < _FRESH_S:
            return True
        try:
            return not self._connection.can_read()
        except (exceptions.RedisError, OSError):
            return False

    def close(self) -> None:
        """Close it; does nothing when it is closed."""
        self._connection.disconnect()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # it may have been half made, or the interpreter ends
            self.close()


class Lines:
    """As many lines as are needed at once, up to as many connections as the client's pool allows.

    A caller waits for a free one at most as long as for an answer.
    """

    def __init__(self, client: redis.Redis) -> None:
        pool = client.connection_pool
        self._pool = pool
        self._wait_s: float | None = pool.connection_kwargs["socket_timeout"]
        self._most = pool.max_connections
        self._idle: deque[Line] = deque()
        self._made = 0
        self._waiting = 0
        self._changed = threading.Condition(threading.Lock())

    def call(self, commands: bytes, count: int = 1) -> list[Any]:
        """Send packed commands over a free line; return as many replies, errors among them.

        Raises redis-py's `ConnectionError` and `TimeoutError`: whether the commands ran is then unknown.
        """
        line = self._take()
        try:
            replies = line.call(commands, count)
        except BaseException as error:
            self._drop(line)
            if isinstance(error, TimeoutError):
                raise exceptions.TimeoutError("the server has not answered in time") from error
            if isinstance(error, OSError | exceptions.ConnectionError):
                self._drop_idle()  # likely as dead as this one
                raise exceptions.ConnectionError(f"the connection failed: {error}") from error
            raise
        self._idle.append(line)
        if self._waiting:
            with self._changed:
                self._changed.notify()
        return replies

    def _take(self) -> Line:
        while True:
            try:
                line = self._idle.pop()  # the latest used is the least likely to be closed
            except IndexError:
                line = self._make_or_wait()
            if line.usable:
                return line
            self._drop(line)

    def _make_or_wait(self) -> Line:
        """Return a new line, or one that becomes free. Raises redis-py's `ConnectionError`."""
        with self._changed:
            if self._made >= self._most:
                self._waiting += 1
                try:
                    if not self._changed.wait_for(lambda: self._idle or self._made < self._most, self._wait_s):
                        raise exceptions.MaxConnectionsError("no connection became free in time")
                    if self._idle:
                        return self._idle.pop()
                finally:
                    self._waiting -= 1
            self._made += 1
        try:
            return Line(self._pool.connection_class(**self._pool.connection_kwargs))
        except BaseException:
            self._forget()
            raise

    def _drop(self, line: Line) -> None:
        line.close()
        self._forget()

    def _drop_idle(self) -> None:
        while self._idle:
            self._drop(self._idle.pop())

    def _forget(self) -> None:
        with self._changed:
            self._made -= 1
            self._changed.notify()


def _error(text: str) -> Exception:
    """Return the exception of an error reply, its text unchanged."""
    word = text.split(" ", 1)[0]
    return (_AWAY.get(word) or _ERRORS.get(word, exceptions.ResponseError))(text)

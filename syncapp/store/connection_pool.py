"""The connections of a process to Redis: one pool, shared by scripts and redis-py's commands.

redis-py makes a connection (TLS, password, database, timeouts) and speaks over it for its own commands. Scripts use
its socket directly, as a *line*: one packed command out, its reply back, without the layers of the client library.
Nothing is retried. A connection on which anything went wrong is closed: its next user could otherwise read the reply
to somebody else's command. Idle connections are closed after some seconds.

A reply that means "wrong server" ends all connections that were made before it (`syncapp.store.failover`).
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any, cast

import hiredis
import redis
from redis import exceptions

from syncapp.store.failover import Server, says_wrong_server, watchful

IDLE_S = 5.0
"""How long an unused connection stays open."""
AGE_S = 30.0
"""How long a connection is used: one to a server that the address has left, and that goes on, shows by nothing else."""
_REAP_S = 1.0
_READ_BYTES = 65_536
_FRESH_S = 0.5
"""A line that was silent for longer is looked at before it is used: the server may have closed it."""
_ERRORS: dict[str, type[exceptions.RedisError]] = {
    "NOSCRIPT": exceptions.NoScriptError,
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


def even_if_full(command: str, key: str, *words: str | bytes | int) -> bytes:
    """Return a command on one key, as a script that a full server takes, too: for what is small and does not grow."""
    script = f"#!lua flags=allow-oom\nreturn redis.call('{command}', KEYS[1], unpack(ARGV))"
    return packed("EVAL", script, 1, key, *words)


class PooledConnection:
    """One connection, used by one caller at a time."""

    def __init__(self, connection: Any, generation: int) -> None:
        connection.connect()
        self.connection = connection
        self.generation = generation
        self._socket = connection._sock  # redis-py has no public way to it
        self._reader = hiredis.Reader(encoding="utf-8", replyError=_error, protocolError=exceptions.InvalidResponse)
        self.made_s = self.used_s = time.monotonic()

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
        self.used_s = time.monotonic()
        return replies

    @property
    def usable(self) -> bool:
        """Whether it was in use moments ago, or is seen to be open and silent."""
        if time.monotonic() - self.used_s < _FRESH_S:
            return True
        try:
            return not self.connection.can_read()
        except (exceptions.RedisError, OSError):
            return False

    @property
    def is_whole(self) -> bool:
        """Whether redis-py has kept the connection open."""
        return self.connection._sock is self._socket

    def close(self) -> None:
        """Close it; does nothing when it is closed."""
        self.connection.disconnect()

    def __del__(self) -> None:
        with contextlib.suppress(Exception):  # it may have been half made, or the interpreter ends
            self.close()


class ConnectionPool(redis.ConnectionPool):
    """A pool of up to `max_connections` connections; a caller waits up to `wait_s` for a free one.

    `call` is for scripts; redis-py's own commands use the pool like any other.
    """

    def __init__(
        self, *, server: Server, wait_s: float, idle_s: float = IDLE_S, max_connections: int, **options: Any
    ) -> None:
        options["connection_class"] = watchful(options.get("connection_class", redis.Connection))
        self._server = server
        self._wait_s = wait_s
        self._idle_s = idle_s
        super().__init__(max_connections=max_connections, **options)

    def reset(self) -> None:
        """Forget every connection; redis-py calls this at the start, and after a fork."""
        super().reset()
        self._idle: deque[PooledConnection] = deque()
        self._lent: dict[Any, PooledConnection] = {}
        self._made = 0
        self._waiting = 0
        self._changed = threading.Condition(threading.Lock())
        self._is_reaped = False

    def grow(self, max_connections: int) -> None:
        """Raise the limit of connections."""
        with self._changed:
            self.max_connections = max(self.max_connections, max_connections)
            self._changed.notify_all()

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
        for reply in replies:
            if isinstance(reply, Exception) and says_wrong_server(reply):
                self._server.leave(line.generation)
        self._give(line)
        return replies

    def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        """Return a free connection for redis-py, or wait for one. Raises redis-py's `ConnectionError`."""
        self._checkpid()
        line = self._take()
        self._lent[line.connection] = line
        return line.connection

    def release(self, connection: Any) -> None:
        """Take a connection back from redis-py."""
        line = self._lent.pop(connection, None)
        if line is None:
            return
        if line.is_whole:
            line.used_s = time.monotonic()
            self._give(line)
        else:
            self._drop(line)

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the idle connections, and those that redis-py is using."""
        self._drop_idle()
        for connection in list(self._lent) if inuse_connections else ():
            connection.disconnect()

    def close_idle(self) -> None:
        """Close connections that have been idle for too long or belong to an earlier generation."""
        oldest_s = time.monotonic() - self._idle_s
        with contextlib.suppress(IndexError):
            while True:
                line = self._idle.popleft()  # the least recently used
                if line.used_s > oldest_s and line.generation == self._server.generation:
                    self._idle.appendleft(line)
                    return
                self._drop(line)

    def _take(self) -> PooledConnection:
        while True:
            try:
                line = self._idle.pop()  # the latest used is the least likely to be closed
            except IndexError:
                line = self._make_or_wait()
            if line.generation == self._server.generation and line.usable:
                return line
            self._drop(line)

    def _make_or_wait(self) -> PooledConnection:
        """Return a new line, or one that becomes free. Raises redis-py's `ConnectionError`."""
        with self._changed:
            while self._made >= self.max_connections:
                self._waiting += 1
                try:
                    if not self._changed.wait_for(self._has_room, self._wait_s):
                        raise exceptions.MaxConnectionsError("no connection became free in time")
                    with contextlib.suppress(IndexError):
                        return self._idle.pop()
                finally:
                    self._waiting -= 1
            self._made += 1
            self._reap()
        try:
            generation = self._server.generation
            connection = self.connection_class(**self.connection_kwargs)
            connection.server, connection.generation = self._server, generation
            return PooledConnection(connection, generation)
        except BaseException:
            self._forget()
            raise

    def _has_room(self) -> bool:
        return bool(self._idle) or self._made < self.max_connections

    def _give(self, line: PooledConnection) -> None:
        if line.generation != self._server.generation or line.used_s - line.made_s > AGE_S:
            self._drop(line)
            return
        self._idle.append(line)
        if self._waiting:
            with self._changed:
                self._changed.notify()

    def _drop(self, line: PooledConnection) -> None:
        line.close()
        self._forget()

    def _drop_idle(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._drop(self._idle.pop())

    def _forget(self) -> None:
        with self._changed:
            self._made -= 1
            self._changed.notify()

    def _reap(self) -> None:
        """Start closing idle connections, as long as there are connections; the caller holds the lock."""
        if not self._is_reaped:
            self._is_reaped = True
            # The thread has only a weak reference, so that an unused pool is collected together with its connections.
            thread = threading.Thread(target=_reap_while_used, args=(weakref.ref(self),), name="reaper", daemon=True)
            thread.start()

    def _is_empty(self) -> bool:
        with self._changed:
            if not self._made:
                self._is_reaped = False
            return not self._made


def _reap_while_used(reference: weakref.ref[ConnectionPool]) -> None:
    while True:
        time.sleep(_REAP_S)
        pool = reference()
        if pool is None:
            return
        with contextlib.suppress(Exception):  # a connection that fails to close is gone anyway
            pool.close_idle()
        if pool._is_empty():
            return
        del pool


def pool_of(client: redis.Redis) -> ConnectionPool:
    """Return the pool of a client that `syncapp.store.client.connect` made."""
    return cast("ConnectionPool", client.connection_pool)


def _error(text: str) -> Exception:
    """Return the exception of an error reply, its text unchanged."""
    return _ERRORS.get(text.split(" ", 1)[0], exceptions.ResponseError)(text)

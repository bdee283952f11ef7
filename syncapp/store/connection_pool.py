"""The connections of a process to Redis: one pool, shared by scripts and redis-py's commands.

redis-py opens the connections (TLS, password, database, timeouts) and uses them for its own commands. Scripts use the
socket of a connection directly, without the layers of the client library: they send packed commands and read the
replies. Nothing is retried. A connection is closed after any error: otherwise its next user could read the reply to
another caller's command. Idle connections are closed after 5 s.

A reply that means "wrong server" closes all connections that were opened before it (`syncapp.store.failover`).
"""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import hiredis
import redis
from redis import exceptions

from syncapp.store.failover import Server, says_wrong_server, watchful
from syncapp.store.pooled_connection import PooledConnection

if TYPE_CHECKING:
    from syncapp.store.command_batches import CommandBatches

IDLE_S = 5.0
"""Time after which an unused connection is closed."""
MAX_AGE_S = 30.0
"""Maximum age of a connection. Nothing else ends a connection to a live server that the address no longer points to."""
_REAP_S = 1.0

Arguments = Sequence[str | bytes | int]


def packed(*words: str | bytes | int) -> bytes:
    """Return a command in the Redis protocol."""
    untyped: Any = words  # the stub of `pack_command` allows only one word
    command: bytes = hiredis.pack_command(untyped)
    return command


def even_if_full(command: str, key: str, *args: str | bytes | int) -> bytes:
    """Return a command on one key, as a script that a full server also accepts; for small values that do not grow."""
    script = f"#!lua flags=allow-oom\nreturn redis.call('{command}', KEYS[1], unpack(ARGV))"
    return packed("EVAL", script, 1, key, *args)


class ConnectionPool(redis.ConnectionPool):
    """A pool of up to `max_connections` connections; a caller waits up to `wait_s` for a free one.

    Scripts use `call`; redis-py's own commands use the inherited interface.
    """

    is_cluster = False

    def __init__(
        self, *, server: Server, wait_s: float, idle_s: float = IDLE_S, max_connections: int, **options: Any
    ) -> None:
        options["connection_class"] = watchful(options.get("connection_class", redis.Connection))
        self._server = server
        self._wait_s = wait_s
        self._idle_s = idle_s
        super().__init__(max_connections=max_connections, **options)

    @property
    def name(self) -> str:
        """The address of the server, as far as it is known."""
        place = {**self.connection_kwargs, **self._server.known()}
        return str(place.get("path") or f"{place.get('host', 'localhost')}:{place.get('port', 6379)}")

    def reset(self) -> None:
        """Forget all connections; redis-py calls this in `__init__` and after a fork."""
        super().reset()
        self._idle: deque[PooledConnection] = deque()
        self._in_use: dict[Any, PooledConnection] = {}
        self._open_count = 0
        self._waiting = 0
        self._batches: CommandBatches | None = None
        self._changed = threading.Condition(threading.Lock())
        self._has_reaper = False

    def grow(self, max_connections: int) -> None:
        """Raise the maximum number of connections."""
        with self._changed:
            self.max_connections = max(self.max_connections, max_connections)
            self._changed.notify_all()

    def call(self, *commands: bytes, raw: bool = False) -> list[Any]:
        """Send packed commands over a free connection, in one round trip; return the replies, including errors.

        raw: return bytes instead of text. A reply that is no text is a `ResponseError` otherwise.
        Raises redis-py's `ConnectionError` and `TimeoutError`; then it is unknown whether the commands ran.
        """
        if self._batches and len(commands) == 1 and not raw:
            return self._batches.call(commands[0])
        return self._call(*commands, raw=raw)

    def batch_calls(self) -> None:
        """Send single commands of several greenlets together; only for a process whose threads are greenlets."""
        from syncapp.store.command_batches import CommandBatches  # imports gevent

        self._batches = CommandBatches(self._call)

    def _call(self, *commands: bytes, raw: bool = False) -> list[Any]:
        pooled = self._take()
        try:
            replies = pooled.call(b"".join(commands), len(commands), raw=raw)
        except BaseException as error:
            self._discard(pooled)
            self._server.suspect()
            if isinstance(error, TimeoutError):
                raise exceptions.TimeoutError("the server did not reply in time") from error
            if isinstance(error, OSError | exceptions.ConnectionError | exceptions.InvalidResponse):
                self._close_all_idle()  # they have probably failed, too
                raise exceptions.ConnectionError(f"the connection failed: {error}") from error
            raise
        for reply in replies:
            if isinstance(reply, Exception) and says_wrong_server(reply):
                self._server.leave(pooled.generation)
        self._put_back(pooled)
        return replies

    def call_each(self, *commands: bytes) -> list[Any]:
        """Do the same, but return the error of a server that fails as the reply to each command."""
        try:
            return self.call(*commands)
        except (exceptions.ConnectionError, exceptions.TimeoutError) as error:
            return [error] * len(commands)

    def nodes(self) -> list[ConnectionPool]:
        """Return this pool: there is only one server."""
        return [self]

    def by_node(self, keys: Sequence[str]) -> list[tuple[ConnectionPool, list[int]]]:
        """Return this pool, and the positions of all keys."""
        return [(self, list(range(len(keys))))]

    def awake(self, keys: Sequence[str]) -> Sequence[str]:
        """Return the keys on servers that may answer: all, because there is only one server."""
        return keys

    def is_silent(self, node: ConnectionPool) -> bool:
        """Return False: the only server is always asked."""
        return False

    def home(self, key: str) -> tuple[str, int] | None:
        """Return None: there is only one server."""
        return None

    def is_away(self, key: str) -> bool:
        """Return False: with only one server, every command needs it."""
        return False

    def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        """Return a free connection for redis-py, or wait for one. Raises redis-py's `ConnectionError`."""
        self._checkpid()
        pooled = self._take()
        self._in_use[pooled.connection] = pooled
        return pooled.connection

    def release(self, connection: Any) -> None:
        """Accept a connection back from redis-py."""
        pooled = self._in_use.pop(connection, None)
        if pooled is None:
            return
        if pooled.is_open:
            pooled.used_s = time.monotonic()
            self._put_back(pooled)
        else:
            self._discard(pooled)

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Close the idle connections, and those that redis-py uses."""
        self._close_all_idle()
        for connection in list(self._in_use) if inuse_connections else ():
            connection.disconnect()

    def close_idle(self) -> None:
        """Close connections that have been idle for too long, or are of an earlier generation."""
        oldest_s = time.monotonic() - self._idle_s
        with contextlib.suppress(IndexError):
            while True:
                pooled = self._idle.popleft()  # the least recently used
                if pooled.used_s > oldest_s and pooled.generation == self._server.generation:
                    self._idle.appendleft(pooled)
                    return
                self._discard(pooled)

    def _take(self) -> PooledConnection:
        while True:
            try:
                pooled = self._idle.pop()  # the most recently used is the least likely to be closed
            except IndexError:
                pooled = self._open_or_wait()
            if pooled.generation == self._server.generation and pooled.is_usable:
                return pooled
            self._discard(pooled)

    def _open_or_wait(self) -> PooledConnection:
        """Return a new connection, or one that becomes free. Raises redis-py's `ConnectionError`."""
        with self._changed:
            while self._open_count >= self.max_connections:
                self._waiting += 1
                try:
                    if not self._changed.wait_for(self._is_available, self._wait_s):
                        raise exceptions.MaxConnectionsError("no connection became free in time")
                    with contextlib.suppress(IndexError):
                        return self._idle.pop()
                finally:
                    self._waiting -= 1
            self._open_count += 1
            self._start_reaper()
        try:
            generation = self._server.generation
            connection = self.connection_class(**self.connection_kwargs, **self._server.endpoint())
            connection.server, connection.generation = self._server, generation
            return PooledConnection(connection, generation)
        except BaseException:
            self._server.suspect()
            self._free_slot()
            raise

    def _is_available(self) -> bool:
        return bool(self._idle) or self._open_count < self.max_connections

    def _put_back(self, pooled: PooledConnection) -> None:
        if pooled.generation != self._server.generation or pooled.used_s - pooled.opened_s > MAX_AGE_S:
            self._discard(pooled)
            return
        self._idle.append(pooled)
        if self._waiting:
            with self._changed:
                self._changed.notify()

    def _discard(self, pooled: PooledConnection) -> None:
        pooled.close()
        self._free_slot()

    def _close_all_idle(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._discard(self._idle.pop())

    def _free_slot(self) -> None:
        with self._changed:
            self._open_count -= 1
            self._changed.notify()

    def _start_reaper(self) -> None:
        """Start the thread that closes idle connections, unless it runs; the caller holds the lock."""
        if not self._has_reaper:
            self._has_reaper = True
            # The thread has only a weak reference, so that an unused pool and its connections are garbage-collected.
            thread = threading.Thread(target=_reap_while_used, args=(weakref.ref(self),), name="reaper", daemon=True)
            thread.start()

    def _is_empty(self) -> bool:
        with self._changed:
            if not self._open_count:
                self._has_reaper = False
            return not self._open_count


def _reap_while_used(reference: weakref.ref[ConnectionPool]) -> None:
    while True:
        time.sleep(_REAP_S)
        pool = reference()
        if pool is None:
            return
        with contextlib.suppress(Exception):  # a connection that fails to close is unusable anyway
            pool.close_idle()
        if pool._is_empty():
            return
        del pool


def pool_of(client: redis.Redis) -> ConnectionPool:
    """Return the pool of a client that `syncapp.store.client.connect` made."""
    return cast("ConnectionPool", client.connection_pool)

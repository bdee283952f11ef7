"""Replication: acknowledge a change only when enough replicas have it (`REDIS_MIN_REPLICAS`).

WAIT follows a change in the same write to the socket. It counts the replicas that have the newest write of its own
connection; after a command that wrote nothing, it counts even those that lack what the command has read. Such a command
is a repeated one, whose first answer was lost. So there is a small write in between, to a key that is called the mark.
It must not be sent later: a failover in between would have another server confirm what only the first one had.

The write changes nothing, and leaves no key where there was none: while a slot is moved key by key, the old and the new
node may both run it, and a key on both would stop the move.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import redis
from redis.exceptions import MaxConnectionsError, RedisError

from syncapp.config import Settings
from syncapp.store.connection_pool import ConnectionPool, packed, pool_of

# PERSIST first: a user without the right to it must not leave the key with a lifetime.
_MARK = """#!lua flags=allow-oom
redis.call('PERSIST', KEYS[1])
if redis.call('PEXPIRE', KEYS[1], 3600000) == 1 then
  return redis.call('PERSIST', KEYS[1])
end
redis.call('SET', KEYS[1], '')
return redis.call('DEL', KEYS[1])
"""
_SHARE = 0.75  # of a pool's connections may wait for replicas; reads use the others


class TooFewReplicas(RedisError):
    """A change was made, but too few replicas had it in time."""

    def __init__(self, replicas: int, required: int) -> None:
        super().__init__(f"{replicas} of {required} required replicas had the change in time")
        self.replicas = replicas
        self.required = required


class _Places:
    """The number of a pool's connections that wait for replicas now."""

    def __init__(self) -> None:
        self.taken = 0
        self.freed = threading.Condition(threading.Lock())


_places = WeakKeyDictionary[ConnectionPool, dict[Any, _Places]]()
_places_lock = threading.Lock()


class Replication:
    """Sends changes, and waits until `required` replicas have them, for at most half of `timeout_s`."""

    def __init__(self, client: redis.Redis, required: int = 0, timeout_s: float = 2.0) -> None:
        self.required = required
        self._pool = pool_of(client)
        self._wait_ms = max(1, int(timeout_s * 500))
        self._wait = packed("WAIT", required, self._wait_ms)
        self._timeout_s = timeout_s
        self._may_wait = False
        with _places_lock:
            self._places = _places.setdefault(self._pool, {})

    @classmethod
    def of(cls, client: redis.Redis, settings: Settings) -> Replication:
        """Return what the settings require."""
        return cls(client, settings.redis_min_replicas, settings.redis_timeout_s)

    def call(self, *commands: bytes, mark: str = "") -> tuple[list[Any], int]:
        """Send commands in one round trip; return the replies, including errors, and how many replicas have the change.

        mark: a key without a lifetime to write to after the commands, best one that they write to; '' if each of them
        writes. The number means nothing if no replicas are required. Raises redis-py's `ConnectionError` and
        `TimeoutError`, and before anything is written `MaxConnectionsError` and the error of a user who may not use
        WAIT.
        """
        if not self.required:
            return (self._pool.call(*commands) if commands else []), 0
        marks = [packed("EVAL", _MARK, 1, mark)] if mark else []
        with self._place(mark):
            self._check_right()
            *replies, replicas = self._pool.call(*commands, *marks, self._wait)
        self._may_wait = isinstance(replicas, int)
        is_marked = not any(isinstance(each, Exception) for each in replies[len(commands) :])
        return replies[: len(commands)], replicas if self._may_wait and is_marked else 0

    def check(self, replicas: int) -> None:
        """Raise `TooFewReplicas` if fewer replicas than required have a change."""
        if replicas < self.required:
            raise TooFewReplicas(replicas, self.required)

    def read(self, client: redis.Redis, ask: Callable[[redis.Redis], Any], mark: str) -> tuple[Any, int]:
        """Return what a command of a client finds, and how many replicas have that and everything older.

        ask: sends the command. Raises its error, and what redis raises.
        """
        if not self.required:
            return ask(client), 0
        with client.pipeline(transaction=False) as pipe:
            ask(pipe)
            pipe.eval(_MARK, 1, mark)
            pipe.wait(self.required, self._wait_ms)
            found, *rest = pipe.execute(raise_on_error=False)
        for reply in (found, *rest):
            if isinstance(reply, Exception):
                raise reply
        return found, rest[-1]

    def confirm_all(self, keys: Sequence[str]) -> None:
        """Raise `TooFewReplicas` if one of the servers that have these marks lacks replicas."""
        for _, positions in self._pool.by_node(keys) if self.required else ():
            self.check(self.call(mark=keys[positions[0]])[1])

    def _check_right(self) -> None:
        """Raise the error of a user who may not use WAIT, unless its last use succeeded."""
        if not self._may_wait:
            (reply,) = self._pool.call_each(packed("WAIT", 0, 1))
            if str(reply).startswith("NOPERM"):
                raise reply

    @contextmanager
    def _place(self, mark: str) -> Iterator[None]:
        """Take one of the places for changes that wait, of the server with a mark. Raises `MaxConnectionsError`."""
        places = self._places.setdefault(self._pool.home(mark) if mark else None, _Places())
        with places.freed:
            if not places.freed.wait_for(partial(self._has_place, places), self._timeout_s):
                raise MaxConnectionsError("too many changes wait for replicas")
            places.taken += 1
        try:
            yield
        finally:
            with places.freed:
                places.taken -= 1
                places.freed.notify()

    def _has_place(self, places: _Places) -> bool:
        # A pool may grow.
        return places.taken < max(1, int(self._pool.max_connections * _SHARE))

"""The reason of the last failed drain, kept in Redis, because a PostgreSQL whose disk is full still answers reads.

Web processes show it in `/ready`. This is best effort: it never delays or fails a drain.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

import redis

from syncapp.postgres.failures import CATEGORIES, Failure, failure_of
from syncapp.store.keys import Keyspace

_FIELD = "trouble"
_KEPT_S = 600.0  # drains that keep failing record it more often
_CLEARED_EVERY_S = 10.0


class LastFailure:
    """Records and returns why the last drain failed."""

    def __init__(self, client: redis.Redis, keyspace: Keyspace) -> None:
        self._client = client
        self._key = keyspace.audit_counts()
        self._cleared_s = float("-inf")

    def failed(self, error: BaseException) -> None:
        """Record that a drain failed, if PostgreSQL is the reason."""
        failure = failure_of(error)
        if failure:
            self._cleared_s = float("-inf")
            with contextlib.suppress(redis.RedisError):
                self._client.hset(self._key, _FIELD, f"{failure.category} {time.time():.0f}")

    def succeeded(self) -> None:
        """Record that a drain stored something; writes to Redis at most once in 10 s."""
        now_s = time.monotonic()
        if now_s >= self._cleared_s + _CLEARED_EVERY_S:
            with contextlib.suppress(redis.RedisError):
                self._client.hdel(self._key, _FIELD)
                self._cleared_s = now_s

    def read(self) -> Failure | None:
        """Return why the last drain failed, if that was within 10 minutes; None also if Redis cannot be read."""
        try:
            value: Any = self._client.hget(self._key, _FIELD)
        except redis.RedisError:
            return None
        category, _, at_s = (value.decode() if isinstance(value, bytes) else value or "").partition(" ")
        if category not in CATEGORIES or not at_s.isdigit() or time.time() > int(at_s) + _KEPT_S:
            return None
        return Failure.of(category, ", as the last drain found")

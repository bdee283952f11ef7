"""What the last drain that failed found wrong with PostgreSQL, kept in Redis: a disk that is full still answers reads.

Web processes show it in `/ready`. All of it is best effort: it never stands in a drain's way.
"""

from __future__ import annotations

import contextlib
import time
from typing import Any

import redis

from syncapp.keys import Keyspace
from syncapp.troubles import CATEGORIES, Trouble, trouble_of

_FIELD = "trouble"
_KEPT_S = 600.0  # a drain that goes on failing says so more often
_CLEARED_EVERY_S = 10.0


class LastDrain:
    """Notes how drains went, and tells it."""

    def __init__(self, client: redis.Redis, keyspace: Keyspace) -> None:
        self._client = client
        self._key = keyspace.tally()
        self._cleared_s = float("-inf")

    def failed(self, error: BaseException) -> None:
        """Note that a drain failed, if the error is about PostgreSQL."""
        trouble = trouble_of(error)
        if trouble:
            self._cleared_s = float("-inf")
            with contextlib.suppress(redis.RedisError):
                self._client.hset(self._key, _FIELD, f"{trouble.category} {time.time():.0f}")

    def went_through(self) -> None:
        """Note that a drain stored something; asks Redis once in a while only."""
        now_s = time.monotonic()
        if now_s >= self._cleared_s + _CLEARED_EVERY_S:
            with contextlib.suppress(redis.RedisError):
                self._client.hdel(self._key, _FIELD)
                self._cleared_s = now_s

    def read(self) -> Trouble | None:
        """Return what the last drain found, if it failed not long ago; None when Redis does not say."""
        try:
            noted: Any = self._client.hget(self._key, _FIELD)
        except redis.RedisError:
            return None
        category, _, at_s = (noted.decode() if isinstance(noted, bytes) else noted or "").partition(" ")
        if category not in CATEGORIES or not at_s.isdigit() or time.time() > int(at_s) + _KEPT_S:
            return None
        return Trouble.of(category, ", as the last drain found")

"""The lease by which only one run of `flask sessions rebucket` works at a time."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

import redis

from syncapp.errors import StoreUnavailable
from syncapp.store.client import call_all
from syncapp.store.connection_pool import even_if_full, packed, pool_of

LEASE_S = 10.0
_RENEW_S = 1.0
_RENEW = """#!lua flags=allow-oom
return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('PEXPIRE', KEYS[1], ARGV[2]) or 0"""
_RELEASE = """#!lua flags=allow-oom
return redis.call('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0"""


class LeaseLost(StoreUnavailable):
    """This run was suspended for so long that another may have begun."""


class RunLease:
    """A lease on a key. All methods raise `StoreUnavailable`."""

    def __init__(self, client: redis.Redis, key: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool_of(client)
        self._key = key
        self._clock = clock
        self._name = uuid.uuid4().hex
        self._renewed_s = 0.0
        self._is_held = False

    def take(self) -> bool:
        """Take the lease; return False if another run has it."""
        self._renewed_s = self._clock()
        command = even_if_full("SET", self._key, self._name, "NX", "PX", round(LEASE_S * 1000))
        self._is_held = bool(call_all(self._pool, [command])[0])
        return self._is_held

    def renew(self) -> None:
        """Renew the lease if it was taken, and it is time. Raises `LeaseLost`."""
        now_s = self._clock()
        if not self._is_held or now_s - self._renewed_s < _RENEW_S:
            return
        command = packed("EVAL", _RENEW, 1, self._key, self._name, round(LEASE_S * 1000))
        if call_all(self._pool, [command]) != [1]:
            raise LeaseLost("this run stood still for too long, and another may have begun")
        self._renewed_s = now_s

    def release(self) -> None:
        """Release the lease, if this run has it."""
        call_all(self._pool, [packed("EVAL", _RELEASE, 1, self._key, self._name)])

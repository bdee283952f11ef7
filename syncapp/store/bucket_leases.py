"""The leases by which processes share the buckets that they sweep.

Each bucket has a lease, a key with a lifetime of `LEASE_S` that names its holder. Each process also reports to a sorted
set that it sweeps. So it knows how many do, and its share: the buckets divided by their number, rounded down, or up for
the first in the order of names. It takes free leases up to its share, and releases those above it. A process that was
killed loses its leases and its place in the count after `LEASE_S`.

- A bucket that was released is swept until another process has taken it, so that no timeout is late because of it.
- A lease that was free for `PATIENCE_S` is taken by any process, whatever its share: if the sweepers cannot be counted,
  or one of them cannot take its share, no bucket stays unswept.
- A process that was suspended may sweep after its lease has ended, so nothing may depend on exclusive sweeping.
"""

from __future__ import annotations

import os
import random
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import Any

import redis
import structlog

from syncapp import metrics
from syncapp.store.connection_pool import packed, pool_of
from syncapp.store.keys import Keyspace

log = structlog.get_logger(__name__)

LEASE_S = 1.0
"""Lifetime of a lease, unless its holder renews it."""
RENEW_S = LEASE_S / 4
"""Time between two attempts to take and renew leases."""
PATIENCE_S = 2.0
"""Time after which a lease that is still free is taken above the share."""

_LEASE_MS = round(LEASE_S * 1000)
_LONGEST_MS = 2 * _LEASE_MS
"""A longer lifetime is not that of a lease: written by something else, or before the server's clock was set back."""

# These scripts write small values that do not grow, so a full server must accept them.
_TAKE = """#!lua flags=allow-oom
local key, holder, lease_ms, longest_ms = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local left_ms = redis.call('PTTL', key)
local is_lease = left_ms >= 0 and left_ms <= longest_ms
if is_lease and redis.pcall('GET', key) ~= holder then
  return 0
end
redis.call('SET', key, holder, 'PX', lease_ms)
return (is_lease or left_ms == -2) and 1 or 2"""
_TAKEN, _REPLACED = 1, 2
_RELEASE = """#!lua flags=allow-oom
return redis.pcall('GET', KEYS[1]) == ARGV[1] and redis.call('DEL', KEYS[1]) or 0"""
_REPORT = """#!lua flags=allow-oom
local key, name, lease_ms = KEYS[1], ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
if type(redis.pcall('ZADD', key, now_ms, name)) == 'table' then -- an error: the key has another type
  redis.call('DEL', key)
  redis.call('ZADD', key, now_ms, name)
end
redis.call('ZREMRANGEBYSCORE', key, '-inf', '(' .. now_ms - lease_ms)
redis.call('ZREMRANGEBYSCORE', key, '(' .. now_ms + lease_ms, '+inf') -- written before the clock was set back
redis.call('PEXPIRE', key, 10 * lease_ms)
local names, before = redis.call('ZRANGE', key, 0, -1), 0
for _, each in ipairs(names) do
  before = before + (each < name and 1 or 0)
end
return {#names, before}"""


class BucketLeases:
    """The leases of this process. held: the buckets whose leases it held at its last attempt, in order."""

    def __init__(self, client: redis.Redis, keys: Keyspace, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool = pool_of(client)
        self._keys = keys
        self._clock = clock
        self._next_attempt_s = 0.0
        self._share: int | None = None
        self._leaving: set[int] = set()
        self._free_since: dict[int, float] = {}
        self._failed: set[int] = set()
        self.held: tuple[int, ...] = ()

    @cached_property
    def name(self) -> str:
        """The name of this holder, which no other has; made when it is first used, after the fork."""
        return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"

    def hold(self) -> Sequence[int]:
        """Take, renew and release leases if it is time; return the buckets to sweep.

        These are the held ones, and those that were released and not yet taken by another process. Raises redis-py's
        errors if no lease can be read.
        """
        if self._clock() >= self._next_attempt_s:
            self._renew()
            self._level()
            self._next_attempt_s = self._clock() + RENEW_S
        return sorted(self._leaving.union(self.held))

    def release(self) -> None:
        """Release all leases, so that other processes can take them at once. Raises redis-py's errors."""
        held = self.held
        self._set_held(())
        self._leaving.clear()
        self._next_attempt_s = 0.0
        self._call([*map(self._release, held), packed("ZREM", self._keys.sweepers(), self.name)])

    def _renew(self) -> None:
        """Report this process, renew the held leases, and look which others are free, in one round trip."""
        others = [bucket for bucket in range(self._keys.buckets) if bucket not in self.held]
        looks = (self._look_commands[bucket] for bucket in others)
        count, *replies = self._call([self._report(), *map(self._take, self.held), *looks])
        by_bucket = self._readable(dict(zip([*self.held, *others], replies, strict=True)))
        self._share = None if isinstance(count, Exception) else self._share_of(*count)
        # A lease that could not be read is still held, as far as this process knows.
        self._set_held(bucket for bucket in self.held if self._is_taken(bucket, by_bucket.get(bucket, _TAKEN)))
        free = [bucket for bucket in others if not 0 <= by_bucket.get(bucket, 0) <= _LONGEST_MS]
        now_s = self._clock()
        self._free_since = {bucket: self._free_since.get(bucket, now_s) for bucket in free}
        self._leaving.intersection_update(free)

    def _level(self) -> None:
        """Release the leases above this process's share, or take free ones, if there are any."""
        if self._share is not None and len(self.held) > self._share:
            # Not the first bucket: its holder does work that would begin anew.
            excess = self.held[self._share :]
            self._leaving.update(excess)
            self._set_held(self.held[: self._share])
            self._call([self._release(bucket) for bucket in excess])
        elif wanted := self._wanted():
            replies = self._call([self._take(bucket) for bucket in wanted])
            taken = [bucket for bucket, reply in zip(wanted, replies, strict=True) if self._is_taken(bucket, reply)]
            self._leaving.difference_update(taken)
            self._set_held([*self.held, *taken])

    def _is_taken(self, bucket: int, reply: Any) -> bool:
        """Return what a reply of `_TAKE` means; report a key that was no lease."""
        if reply == _REPLACED:
            log.error("sweeper_lease_removed", bucket=bucket)
        return reply in (_TAKEN, _REPLACED)

    def _wanted(self) -> list[int]:
        """Return the free leases to take: some up to the share, and all that were free for too long."""
        oldest_s = self._clock() - PATIENCE_S
        overdue = [bucket for bucket, since_s in self._free_since.items() if since_s <= oldest_s]
        others = [bucket for bucket in self._free_since if bucket not in overdue]
        room = max(0, (self._share or 0) - len(self.held) - len(overdue))
        # Chosen at random, so that processes that look at the same time rarely want the same.
        return overdue + random.sample(others, min(room, len(others)))

    def _share_of(self, live: int, before: int) -> int:
        """Return how many buckets this process should hold, of `live` ones of which `before` have smaller names."""
        rounded_down, rest = divmod(self._keys.buckets, live)
        return rounded_down + (before < rest)

    def _readable(self, replies: dict[int, Any]) -> dict[int, int]:
        """Return the replies that are not errors. Raises the first error if all are."""
        errors = {bucket: each for bucket, each in replies.items() if isinstance(each, Exception)}
        if len(errors) == len(replies):
            raise next(iter(errors.values()))
        if errors.keys() != self._failed:
            self._failed = set(errors)
            if errors:
                log.error("sweeper_leases_not_read", buckets=sorted(errors), error=str(next(iter(errors.values()))))
        return {bucket: each for bucket, each in replies.items() if bucket not in errors}

    def _set_held(self, buckets: Iterable[int]) -> None:
        held = tuple(sorted(buckets))
        if held != self.held:
            before, self.held = {*self.held}, held
            metrics.SWEEPING.set(bool(held))
            metrics.SWEPT_BUCKETS.set(len(held))
            taken, ended = len({*held} - before), len(before - {*held})
            log.info("sweeper_leases_changed", taken=taken, ended=ended, held=len(held))

    def _take(self, bucket: int) -> bytes:
        return self._take_commands[bucket]

    @cached_property
    def _take_commands(self) -> Sequence[bytes]:
        """The commands that take or renew each lease: packed once, because they are sent four times a second."""
        args = (self.name, _LEASE_MS, _LONGEST_MS)
        return [packed("EVAL", _TAKE, 1, self._keys.lease(each), *args) for each in range(self._keys.buckets)]

    @cached_property
    def _look_commands(self) -> Sequence[bytes]:
        return [packed("PTTL", self._keys.lease(each)) for each in range(self._keys.buckets)]

    def _release(self, bucket: int) -> bytes:
        return packed("EVAL", _RELEASE, 1, self._keys.lease(bucket), self.name)

    def _report(self) -> bytes:
        return packed("EVAL", _REPORT, 1, self._keys.sweepers(), self.name, _LEASE_MS)

    def _call(self, commands: Sequence[bytes]) -> list[Any]:
        """Send commands in one round trip; return the replies, including errors."""
        return self._pool.call_each(*commands)

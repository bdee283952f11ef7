"""The retry schedule: which buckets a worker holds back after a failed drain, and until when.

Huey keeps a retry in Redis, and loses it if the worker that took it from its schedule dies, or if Redis refuses it.
So each worker process also remembers which buckets failed, how often, and when to try again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

POSTGRESQL, REDIS, REPLICAS = "postgresql", "redis", "replicas"
"""The servers that a drain needs; replicas only with `REDIS_MIN_REPLICAS`."""

_SLACK_S = 5.0  # so that Huey's retry, which waits for the scheduler and a free thread, comes first
_FORGET_S = 60.0  # a failure this long after the end of the hold starts a new count


@dataclass(frozen=True, slots=True)
class DrainFailure:
    """A bucket's latest failed drain.

    count: consecutive failures so far. retry_in_s: the time until Huey's retry. held_s: how long other drains leave the
    bucket alone. server: the one that failed; None for any other cause.
    """

    count: int
    retry_in_s: float
    held_s: float
    server: str | None


class RetrySchedule:
    """Counts failures by bucket; thread-safe."""

    def __init__(
        self, retries: int, delay_s: float, backoff: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._retries = retries
        self._delay_s = delay_s
        self._backoff = backoff
        self._clock = clock
        self._lock = threading.Lock()
        self._failures: dict[int, tuple[DrainFailure, float]] = {}

    def held_s(self, bucket: int) -> float:
        """Return how long a bucket is still held; 0 if it is not held."""
        with self._lock:
            _, until_s = self._failures.get(bucket, (None, 0.0))
            return max(0.0, until_s - self._clock())

    def count(self, bucket: int) -> int:
        """Return how many drains of a bucket have failed consecutively."""
        with self._lock:
            found = self._failures.get(bucket)
            return found[0].count if found else 0

    def failed(self, bucket: int, server: str | None) -> DrainFailure:
        """Record a failed drain and hold the bucket for the retry; after the last retry the count starts again."""
        with self._lock:
            now_s = self._clock()
            before, until_s = self._failures.get(bucket, (None, 0.0))
            count = 1
            if before and before.count <= self._retries and now_s < until_s + _FORGET_S:
                count = before.count + 1
            is_last = count > self._retries
            retry_in_s = self._delay_s if is_last else self._delay_s * self._backoff ** (count - 1)
            failure = DrainFailure(count, retry_in_s, retry_in_s if is_last else retry_in_s + _SLACK_S, server)
            self._failures[bucket] = (failure, now_s + failure.held_s)
            return failure

    def forget(self, bucket: int) -> None:
        """Record that a drain of a bucket succeeded."""
        with self._lock:
            self._failures.pop(bucket, None)

    def held_buckets(self, server: str) -> list[int]:
        """Return the buckets that are held because this server failed."""
        with self._lock:
            now_s = self._clock()
            return [
                each
                for each, (failure, until_s) in self._failures.items()
                if failure.server == server and until_s > now_s
            ]

    def release(self, server: str) -> list[int]:
        """Release and return the buckets that are held because this server failed; their counts stay."""
        released = self.held_buckets(server)
        with self._lock:
            for each in released:
                if found := self._failures.get(each):
                    self._failures[each] = (found[0], self._clock())
        return released

"""The live processes: each reports to the store once a second, while its loops run."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable
from typing import Any

import redis
from redis.exceptions import RedisError

from syncapp import metrics
from syncapp.loops import Loops
from syncapp.store.connection_pool import packed, pool_of
from syncapp.store.keys import Keyspace

PRESENT_MS = 5_000
"""A process is alive if its last report is at most this old."""
_KEPT_MS = 86_400_000
_START_S = 15.0
"""Time from its own start before a process reports that others are missing."""


class ProcessRegistry:
    """Reports that this process is alive, and reads which processes are; kind: `web` or `worker`.

    is_away: returns whether the process leaves the sessions alone for now, because they are being moved.
    """

    def __init__(
        self,
        client: redis.Redis,
        keys: Keyspace,
        *,
        kind: str,
        loops: Loops,
        name: str = "",
        is_away: Callable[[], bool] = lambda: False,
    ) -> None:
        self._client = client
        self._pool = pool_of(client)
        self._key = keys.processes()
        self._away_key = keys.processes_away()
        self._kind = kind
        self._loops = loops
        self._name = name
        self._is_away = is_away
        self._reported_s: float | None = None
        self._started_s: float | None = None

    @property
    def name(self) -> str:
        """The name of this process in the store."""
        # Computed after the fork, because it contains the process id.
        return self._name or f"{self._kind}:{socket.gethostname()}:{os.getpid()}"

    def report(self, now_ms: float) -> None:
        """Report that this process is alive, if its loops run. Raises redis-py's errors."""
        self._started_s = self._started_s or time.monotonic()
        if self._loops.unwell():
            return
        oldest_ms = round(now_ms) - _KEPT_MS
        forget = packed("ZREMRANGEBYSCORE", self._key, "-inf", oldest_ms)
        away = [packed("ZADD", self._away_key, round(now_ms), self.name)] if self._is_away() else []
        _, reply, *_ = self._pool.call(forget, packed("ZADD", self._key, round(now_ms), self.name), *away)
        self._reported_s = None if isinstance(reply, Exception) else time.monotonic()

    def live_processes(self, now_ms: float) -> list[str]:
        """Return the names of the live processes, including this one. Raises redis-py's errors."""
        return self._reported(self._key, now_ms)

    def serving_processes(self, now_ms: float) -> list[str]:
        """Return the names of the live processes that may use the sessions. Raises redis-py's errors."""
        away = self._reported(self._away_key, now_ms)
        return [name for name in self.live_processes(now_ms) if name not in away]

    def _reported(self, key: str, now_ms: float) -> list[str]:
        names: Any = self._client.zrangebyscore(key, now_ms - PRESENT_MS, now_ms + PRESENT_MS)
        return [each.decode() if isinstance(each, bytes) else each for each in names]

    def update_metric(self) -> list[str]:
        """Set the metric of processes; return a warning if no worker is alive to store audit events.

        Returns none while this process has just started, or cannot report itself.
        """
        if self._reported_s is None or self._started_s is None or time.monotonic() - self._started_s < _START_S:
            return []
        try:
            seconds, micros = self._client.time()
            names = self.live_processes(int(seconds) * 1000 + int(micros) / 1000)
        except RedisError:
            return []
        metrics.show_processes(names)
        return (
            []
            if any(name.startswith("worker:") for name in names)
            else ["no worker process is running: audit events wait"]
        )

"""Which processes are alive: each reports to the store once a second, as long as its loops run."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

import redis
from redis.exceptions import RedisError

from syncapp import metrics
from syncapp.loops import Loops
from syncapp.store.connection_pool import packed, pool_of
from syncapp.store.keys import Keyspace

PRESENT_MS = 5_000
"""A process that reported this recently is alive."""
_KEPT_MS = 86_400_000
_PATIENCE_S = 15.0
"""How long after its own start a process waits before it reports another as missing."""


class ProcessRegistry:
    """Reports that this process is alive, and reads which others are; kind: `web` or `worker`."""

    def __init__(self, client: redis.Redis, keys: Keyspace, *, kind: str, loops: Loops, name: str = "") -> None:
        self._client = client
        self._pool = pool_of(client)
        self._key = keys.processes()
        self._kind = kind
        self._loops = loops
        self._name = name
        self._said_s: float | None = None
        self._began_s: float | None = None

    @property
    def name(self) -> str:
        """Name of this process in the store."""
        # Read after the fork, because of the process id.
        return self._name or f"{self._kind}:{socket.gethostname()}:{os.getpid()}"

    def say(self, now_ms: float) -> None:
        """Report this process as alive if its loops run. Raises what redis raises."""
        self._began_s = self._began_s or time.monotonic()
        if self._loops.unwell():
            return
        old = round(now_ms) - _KEPT_MS
        commands = packed("ZREMRANGEBYSCORE", self._key, "-inf", old) + packed(
            "ZADD", self._key, round(now_ms), self.name
        )
        _, said = self._pool.call(commands, 2)
        self._said_s = None if isinstance(said, Exception) else time.monotonic()

    def others(self, now_ms: float) -> list[str]:
        """Return the names of the live processes, including this one. Raises what redis raises."""
        found: Any = self._client.zrangebyscore(self._key, now_ms - PRESENT_MS, now_ms + PRESENT_MS)
        return [each.decode() if isinstance(each, bytes) else each for each in found]

    def show(self) -> list[str]:
        """Set the metric of processes; return a worry if no worker is alive to move audit events.

        A process that has just started, or cannot report itself, reports no other as missing.
        """
        if self._said_s is None or self._began_s is None or time.monotonic() - self._began_s < _PATIENCE_S:
            return []
        try:
            seconds, micros = self._client.time()
            names = self.others(int(seconds) * 1000 + int(micros) / 1000)
        except RedisError:
            return []
        metrics.show_processes(names)
        return (
            []
            if any(name.startswith("worker:") for name in names)
            else ["no worker process is running: audit events wait"]
        )

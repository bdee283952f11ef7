"""Which processes are there: each says so once a second, in the store, for as long as its loops turn."""

from __future__ import annotations

import os
import socket
import time
from typing import Any

import redis
from redis.exceptions import RedisError

from syncapp import metrics
from syncapp.keys import Keyspace
from syncapp.lines import packed, pool_of
from syncapp.loops import Loops

PRESENT_MS = 5_000
"""A process that was seen so recently is there."""
_KEPT_MS = 86_400_000
_PATIENCE_S = 15.0
"""How long after its own start a process waits before it misses another."""


class Presence:
    """Says that this process is there, and knows which others are; kind: `web` or `worker`."""

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
        """How others know this process."""
        # Not before the process has forked.
        return self._name or f"{self._kind}:{socket.gethostname()}:{os.getpid()}"

    def say(self, now_ms: float) -> None:
        """Say that this process is there and its loops turn. Raises what redis raises."""
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
        """Return the names of the processes that are there, this one among them. Raises what redis raises."""
        found: Any = self._client.zrangebyscore(self._key, now_ms - PRESENT_MS, now_ms + PRESENT_MS)
        return [each.decode() if isinstance(each, bytes) else each for each in found]

    def show(self) -> list[str]:
        """Set the metric of processes; return a worry when no worker is there to move audit events.

        Nobody is missed by a process that has only begun, or that cannot say itself that it is there.
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
            else ["no worker process is there: audit events wait"]
        )

"""The metrics of each server of the store: one, or all masters of a cluster."""

from __future__ import annotations

from typing import Any

import redis
from redis import exceptions

from syncapp import metrics
from syncapp.store.connection_pool import ConnectionPool, pool_of
from syncapp.store.keys import Keyspace

TURN_S = 5.0
"""Time between two updates."""


class NodeMetrics:
    """Sets the gauges of each server; those of a server that is not a master any more become NaN."""

    def __init__(self, client: redis.Redis, keys: Keyspace) -> None:
        self._pool = pool_of(client)
        self._deadlines = [keys.deadlines(bucket) for bucket in range(keys.buckets)]
        self._known: set[str] = set()

    def turn(self) -> float:
        """Update the gauges, for a loop; return the time (s) until the next turn. Raises redis-py's errors."""
        buckets = {pool.name: len(found) for pool, found in self._pool.by_node(self._deadlines)}
        found = {pool.name: self._figures(pool) for pool in self._pool.nodes()}
        for name in self._known - found.keys():
            metrics.forget_node(name)
        for name, info in found.items():
            metrics.show_node(name, is_up=info is not None, buckets=buckets.get(name, 0), info=info or {})
        self._known = set(found)
        return TURN_S

    def _figures(self, pool: ConnectionPool) -> dict[str, Any] | None:
        """Return a server's INFO, empty if it is denied to this user; None if it does not answer."""
        try:
            info: Any = redis.Redis(connection_pool=pool).info("everything")
        except exceptions.NoPermissionError:
            return {}
        except exceptions.RedisError:
            return None
        return dict(info)

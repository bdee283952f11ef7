"""Scans the keys of a store: those of its server, or of all masters of a cluster, one after the other."""

from __future__ import annotations

from syncapp.store.client import call_all
from syncapp.store.connection_pool import ConnectionPool, packed


class KeyScan:
    """A scan of all keys that match a pattern; about `count` keys are examined in each step.

    A key that exists from beginning to end is found at least once, unless its slot moves to another node meanwhile.
    """

    def __init__(self, pool: ConnectionPool, pattern: str, count: int) -> None:
        self._pattern = pattern
        self._count = count
        self._nodes = pool.nodes()
        self._cursor = "0"
        self.is_complete = not self._nodes

    def next(self) -> list[str]:
        """Return the keys that the next step finds, perhaps none. Raises `StoreUnavailable`."""
        command = packed("SCAN", self._cursor, "MATCH", self._pattern, "COUNT", self._count)
        ((self._cursor, keys),) = call_all(self._nodes[0], [command])
        if self._cursor == "0":
            del self._nodes[0]
            self.is_complete = not self._nodes
        return list(keys)

"""How the buckets are spread over the masters of a cluster, and which slots to move so that the spread is even."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from syncapp.store.connection_pool import ConnectionPool
from syncapp.store.keys import Keyspace


@dataclass(frozen=True, slots=True)
class Move:
    """Move a bucket's slot from one server to another; both are named by their addresses."""

    bucket: int
    source: str
    target: str


def spread(pool: ConnectionPool, keys: Keyspace) -> dict[str, list[int]]:
    """Return the buckets on each server, by its address. Raises redis-py's errors."""
    by_node = {node.name: list[int]() for node in pool.nodes()}
    for node, buckets in pool.by_node([keys.deadlines(bucket) for bucket in range(keys.buckets)]):
        by_node.setdefault(node.name, []).extend(buckets)
    return by_node


def moves(by_node: Mapping[str, Sequence[int]]) -> list[Move]:
    """Return the fewest moves after which the numbers of buckets differ by at most one."""
    held = {name: list(buckets) for name, buckets in by_node.items()}
    found: list[Move] = []
    while True:
        most = max(held, key=lambda name: len(held[name]))
        least = min(held, key=lambda name: len(held[name]))
        if len(held[most]) - len(held[least]) < 2:
            return found
        bucket = held[most].pop()
        held[least].append(bucket)
        found.append(Move(bucket, most, least))

"""A node of a private Valkey Cluster, and what nodes say of each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from syncapp.dev.ports import free_port
from syncapp.dev.servers import Valkey

_TIMEOUT_S = 5
"""Seconds that a node has to answer."""


class ValkeyNode(Valkey):
    """One node of a cluster. `id` is valid when the cluster has started."""

    def __init__(self, directory: Path, data: Path, *, options: Sequence[str]) -> None:
        self.bus_port = free_port()
        self.data = data
        self.id = ""
        enabled = ["--cluster-enabled", "yes", "--cluster-port", str(self.bus_port)]
        super().__init__(directory, data, options=[*enabled, *options])
        self.name = f"Valkey node on port {self.port}"

    def ask(self, *command: str | int) -> Any:
        """Return the reply to a command. Raises `redis.RedisError`."""
        once = Retry(NoBackoff(), 0)
        with redis.Redis.from_url(
            self.url, decode_responses=True, protocol=3, socket_timeout=_TIMEOUT_S, retry=once
        ) as client:
            return client.execute_command(*command)

    def view(self) -> list[NodeView]:
        """Return all nodes as this one sees them, itself first. Raises `redis.RedisError`."""
        views = [NodeView.of(line) for line in self.ask("CLUSTER", "NODES").splitlines()]
        return sorted(views, key=lambda each: "myself" not in each.flags)


@dataclass(frozen=True, slots=True)
class NodeView:
    """A node as another one, or it itself, sees it: a line of CLUSTER NODES. The ranges of `slots` include their ends.

    Of two nodes that claim a slot, the one with the greater `epoch` has it.
    """

    id: str
    flags: frozenset[str]
    master_id: str
    epoch: int
    is_connected: bool
    slots: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, line: str) -> NodeView:
        """Parse a line."""
        name, _, flags, master, _, _, epoch, link, *slots = line.split()
        ranges = (each.partition("-") for each in slots if not each.startswith("["))
        parsed = tuple((int(first), int(last or first)) for first, _, last in ranges)
        return cls(name, frozenset(flags.split(",")), master.strip("-"), int(epoch), link == "connected", parsed)

    @property
    def fact(self) -> tuple[str, str, tuple[tuple[int, int], ...]]:
        """What all nodes agree on: id, master, slots."""
        return self.id, self.master_id, self.slots

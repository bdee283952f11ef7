"""The topology of a cluster: which node has which hash slot.

redis-py reads and keeps it: `NodesManager`, the part of its `RedisCluster` that does this.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Mapping, Sequence
from typing import Any

import structlog
from redis import exceptions
from redis.cluster import ClusterNode, NodesManager
from redis.crc import key_slot

from syncapp.errors import one_line

log = structlog.get_logger(__name__)

TURN_S = 1.0
"""Time between two checks whether the topology has changed."""
MAX_WAIT_S = 1.0
"""Maximum time to connect to a node for the topology, and to wait for its reply."""
_MAX_TAGS = 10_000
_MIN_PAUSE_S = 0.25  # between two readings of the whole topology

Address = tuple[str, int]
"""Host and port of a node."""


class Topology:
    """The nodes of a cluster, read at the first use. Any thread may use it.

    seeds: addresses to begin with; later, every node that is known is asked. options: arguments of redis-py's
    connections.
    """

    def __init__(self, seeds: Sequence[Address], options: Mapping[str, Any]) -> None:
        waits = dict.fromkeys(("socket_timeout", "socket_connect_timeout"), MAX_WAIT_S)
        self._seeds = list(seeds)
        self._options = {**options, **waits}
        self._options.pop("retry", None)  # each node gets one that does not retry
        self._lock = threading.Lock()
        self._manager: NodesManager | None = None
        self._epoch = ""
        self._read_s = float("-inf")
        self._is_failing = False
        self._has_loop = False
        self._hurry = threading.Event()
        self._slots: dict[bytes, int] = {}
        # The masters in `slots_cache`, which redis-py replaces when it reads the topology.
        self._masters: list[Address] = []
        self._seen: Any = None

    def slot_of(self, key: bytes) -> int:
        """Return the hash slot of a key. Those of hash tags are remembered."""
        start = key.find(b"{") + 1
        end = key.find(b"}", start) if start else -1
        tag = key[start:end] if end > start else key
        slot = self._slots.get(tag)
        if slot is None:
            slot = key_slot(tag)
            if tag is not key:
                if len(self._slots) >= _MAX_TAGS:  # each principal has a tag, too
                    self._slots.clear()
                self._slots[tag] = slot
        return slot

    def owner(self, slot: int) -> Address:
        """Return the address of the master that has a slot. Raises redis-py's `ConnectionError` if none is known."""
        nodes = self._nodes().slots_cache.get(slot)
        if not nodes:
            self.refresh()
            nodes = self._nodes().slots_cache.get(slot)
        if not nodes:
            raise exceptions.ClusterDownError(f"no node has slot {slot}")
        return nodes[0].host, nodes[0].port

    def known_owner(self, slot: int) -> Address | None:
        """Return the same without asking any node; None if it is not known."""
        nodes = self._manager.slots_cache.get(slot) if self._manager else None
        return (nodes[0].host, nodes[0].port) if nodes else None

    def masters(self) -> list[Address]:
        """Return the addresses of all masters that have slots, sorted. Raises redis-py's errors if there are none."""
        slots = self._nodes().slots_cache
        if slots is not self._seen or not self._masters:
            self._masters = sorted({(nodes[0].host, nodes[0].port) for nodes in list(slots.values())})
            self._seen = slots
        if not self._masters:
            raise exceptions.ClusterDownError("no node has any slot")
        return self._masters

    def moved(self, error: exceptions.MovedError) -> None:
        """Note the new owner that a MOVED reply names, and have the rest of the topology read."""
        manager = self._nodes()
        if error.slot_id in manager.slots_cache:
            manager.move_slot(error)
        self._seen = None
        self.suspect()

    def suspect(self) -> None:
        """Have the topology read again soon: by the loop, so that no command waits for it; at once without a loop."""
        if self._has_loop:
            self._hurry.set()
        else:
            with contextlib.suppress(exceptions.RedisError):
                self.refresh()

    def refresh(self) -> bool:
        """Read the topology, unless it was just read; return whether it was read now.

        Raises redis-py's `ConnectionError` if it has never been read.
        """
        with self._lock:
            if time.monotonic() - self._read_s < _MIN_PAUSE_S:
                return False
            try:
                self._read()
            except (exceptions.RedisClusterException, exceptions.RedisError, OSError) as error:
                self._read_s = time.monotonic()
                if not self._is_failing:
                    log.warning("topology_not_read", error=one_line(error))
                self._is_failing = True
                if self._manager is None:
                    raise exceptions.ConnectionError(f"the topology of the cluster cannot be read: {error}") from error
                return False
            self._read_s = time.monotonic()
            self._is_failing = False
            return True

    def turn(self) -> float:
        """Read the topology when it is suspect or has changed, for a loop; waits for at most `TURN_S`."""
        self._has_loop = True
        is_suspect = self._hurry.wait(TURN_S)
        self._hurry.clear()
        epoch = self._current_epoch()
        if is_suspect or epoch != self._epoch:
            if self.refresh():
                self._epoch = epoch
            else:
                self._hurry.set()  # the reading that came before may have missed the change
        return _MIN_PAUSE_S

    def _nodes(self) -> NodesManager:
        if self._manager is None:
            self.refresh()
        if self._manager is None:
            raise exceptions.ConnectionError("the topology of the cluster is not known")
        return self._manager

    def _read(self) -> None:
        if self._manager is None:
            node: Any = ClusterNode  # untyped in redis-py
            nodes = [node(host, port) for host, port in self._seeds]
            # Not `RedisCluster` itself: it asks one more node for its commands, at random, and fails with that.
            make: Any = NodesManager  # untyped in redis-py
            self._manager = make(startup_nodes=nodes, require_full_coverage=False, **self._options)
        else:
            self._manager.initialize(additional_startup_nodes_info=self._seeds)

    def _current_epoch(self) -> str:
        """Return what changes with the topology, as one node says it; what was known if it does not answer."""
        nodes = list(self._nodes().nodes_cache.values())
        for node in random.sample(nodes, len(nodes)):
            try:
                info: Any = node.redis_connection.execute_command("CLUSTER INFO")
            except (exceptions.RedisError, OSError):
                continue
            return f"{info.get('cluster_current_epoch')} {info.get('cluster_state')}"
        return self._epoch

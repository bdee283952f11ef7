"""The sweepers of a process for a cluster: one for each master, so that one that fails delays only its own sessions.

The leases are held by a loop of their own, and another one maintains deadlines and lists.
"""

from __future__ import annotations

import threading
from functools import partial

import redis
import structlog
from redis.exceptions import RedisError

from syncapp.config import Settings
from syncapp.loops import Loops
from syncapp.store.bucket_leases import RENEW_S, BucketLeases
from syncapp.store.client import topology_of
from syncapp.store.connection_pool import pool_of
from syncapp.store.deadline_rebuild import DeadlineRebuild
from syncapp.store.keys import Keyspace
from syncapp.store.list_upkeep import ListUpkeep
from syncapp.store.sessions import SessionStore
from syncapp.store.sweeper import Sweeper
from syncapp.store.topology import Address, Topology

log = structlog.get_logger(__name__)

_UPKEEP_S = 0.02
_CONNECTIONS = 3  # to each master: its sweeper, the leases, the upkeep


class NodeSweepers:
    """Sweeps while it holds leases; used like a `Sweeper`.

    client: one that requests do not use; store: preferably one on that client.
    """

    def __init__(
        self, client: redis.Redis, store: SessionStore, topology: Topology, *, buckets: int, loops: Loops
    ) -> None:
        self._client = client
        self._store = store
        self._topology = topology
        self._loops = loops
        self._keys = Keyspace(buckets)
        self._leases = BucketLeases(client, self._keys)
        self._buckets: tuple[int, ...] = ()
        self._rebuild = DeadlineRebuild(client, store, self._keys)
        self._list_upkeep = ListUpkeep(client, store, self._keys)
        self._sweepers: dict[Address, Sweeper] = {}
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def sweeping(self) -> bool:
        """Whether this process held the lease of a bucket at its last attempt."""
        return bool(self._leases.held)

    def start(self) -> None:
        """Start the threads, after the fork."""
        self._thread = self._loops.start("sweeper_leases", self._turn, self._stopping, at_end=self._release)
        self._loops.start("upkeep", self._maintain, self._stopping)

    def stop(self) -> None:
        """Stop the threads, so that other processes can take over at once; waits at most 5 s for each."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(5.0)

    def buckets_on(self, address: Address) -> list[int]:
        """Return the buckets to sweep whose slot a master has."""
        return [bucket for bucket in self._buckets if self._owner(bucket) == address]

    def _owner(self, bucket: int) -> Address | None:
        return self._topology.known_owner(self._topology.slot_of(self._keys.deadlines(bucket).encode()))

    def _turn(self) -> float:
        """Hold leases, and have a sweeper for each master that has some of their buckets."""
        self._buckets = tuple(self._leases.hold())
        masters = {owner for owner in map(self._owner, self._buckets) if owner}
        for address in masters - self._sweepers.keys():
            sweeper = self._sweepers[address] = Sweeper(
                self._client,
                self._store,
                buckets=self._keys.buckets,
                choose=partial(self.buckets_on, address),
                loops=self._loops,
                name=f"sweeper@{address[0]}:{address[1]}",
            )
            sweeper.start()
        for address in self._sweepers.keys() - masters:
            self._sweepers.pop(address).ask_to_stop()
        return RENEW_S

    def _maintain(self) -> float:
        self._store.require_buckets()
        has_first = 0 in self._leases.held
        self._rebuild.step(held=has_first)
        self._list_upkeep.step(held=has_first)
        return _UPKEEP_S if has_first else RENEW_S

    def _release(self) -> None:
        for sweeper in self._sweepers.values():
            sweeper.stop()
        try:
            self._leases.release()
        except RedisError as error:
            log.info("sweeper_leases_left", error=str(error))  # they expire by themselves


def make_sweeper(client: redis.Redis, store: SessionStore, settings: Settings, loops: Loops) -> Sweeper | NodeSweepers:
    """Return what sweeps the store: one server, or a cluster."""
    pool = pool_of(client)
    if not pool.is_cluster:
        return Sweeper(client, store, buckets=settings.sync_buckets, loops=loops)
    pool.grow(_CONNECTIONS)
    return NodeSweepers(client, store, topology_of(settings), buckets=settings.sync_buckets, loops=loops)

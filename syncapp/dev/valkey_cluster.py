"""A private Valkey Cluster for development and tests, on 127.0.0.1 only.

It is formed by commands on plain connections, because the wheel has no valkey-cli. Its nodes get other ports at each
start; what they remember of each other is brought up to date by CLUSTER MEET.
"""

from __future__ import annotations

import contextlib
import itertools
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import redis

from syncapp.dev.processes import StartError
from syncapp.dev.valkey_node import NodeView, ValkeyNode

SLOTS = 16_384


class ValkeyCluster:
    """Masters and replicas with their data in a directory; formed at the first start, and the same one at later starts.

    A context manager. `nodes` are its processes: at first the masters, then the replicas.

    node_timeout_ms: how long a node may be silent until its replica takes over, which takes 1 to 3 s more. A machine
    that stands still for longer causes failovers too.
    options: of each valkey-server.
    """

    def __init__(
        self,
        directory: Path,
        data: Path,
        *,
        masters: int = 3,
        replicas: int = 1,
        node_timeout_ms: int = 5000,
        options: Sequence[str] = (),
    ) -> None:
        shared = ["--cluster-node-timeout", str(node_timeout_ms), "--cluster-announce-ip", "127.0.0.1"]
        # When a master and its replicas are gone, the rest of the slots stay served.
        shared += ["--cluster-require-full-coverage", "no"]
        # A replica stays with its master, and a master that gave its last slot away stays a master.
        shared += ["--cluster-allow-replica-migration", "no"]
        shared += ["--repl-diskless-sync-delay", "0", *options]
        self.replicas = replicas
        self._shape = f"{masters} masters, {replicas} replicas of each\n"
        self._formed = data / "formed"
        self.nodes = [
            ValkeyNode(directory, data / f"node-{number}", options=shared)
            for number in range(1, masters * (1 + replicas) + 1)
        ]
        self._first_masters = self.nodes[:masters]

    @property
    def url(self) -> str:
        """The URL that names all nodes."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def __enter__(self) -> ValkeyCluster:
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        # All at once: otherwise the others would replace a master that has stopped.
        for node in self.nodes:
            if node.alive:
                node.unpause()
                node.ask_to_stop()
        for node in self.nodes:
            node.stop()

    def live(self) -> dict[ValkeyNode, list[NodeView]]:
        """Return the nodes that answer, each with its view."""
        found = {}
        for node in self.nodes:
            with contextlib.suppress(redis.RedisError):
                if node.alive:
                    found[node] = node.view()
        return found

    def masters(self) -> list[ValkeyNode]:
        """Return the live nodes that serve slots, in the order of `nodes`."""
        owners = set(self._owners(self.live()))
        return [node for node in self.nodes if node in owners]

    def node_of_slot(self, slot: int) -> ValkeyNode:
        """Return the live node that serves a slot. Raises `LookupError` if there is none now."""
        if node := self._owners(self.live())[slot]:
            return node
        raise LookupError(f"no live node serves slot {slot}")

    def replicas_of(self, node: ValkeyNode) -> list[ValkeyNode]:
        """Return the live replicas of a node, which may be dead itself."""
        return [each for each, (own, *_) in self.live().items() if own.master_id == node.id]

    def wait_ok(self, within_s: float = 120) -> None:
        """Wait until all slots are served, live nodes agree, and each master has a replica that is in sync.

        Raises `StartError` with what is missing.
        """
        _wait(self._trouble, within_s)

    def migrate_slots(self, first: int, last: int, source: ValkeyNode, target: ValkeyNode) -> None:
        """Move slots from one master to another, and wait until all live nodes know. Raises `StartError`."""
        source.ask("CLUSTER", "MIGRATESLOTS", "SLOTSRANGE", first, last, "NODE", target.id)

        def trouble() -> str:
            newest, *_ = source.ask("CLUSTER", "GETSLOTMIGRATIONS")
            state, why = newest["state"], newest["message"]
            if state in {"failed", "canceled", "cancelled"}:
                raise StartError(f"slots {first} to {last} did not move: {why or state}")
            return "" if state == "success" else f"the migration of slots {first} to {last} is {state}"

        _wait(trouble, within_s=120)
        _wait(lambda: self._dissent(self.live()), within_s=120)

    def fail_over(self, replica: ValkeyNode) -> None:
        """Have a replica and its live master change places without losing a write, and wait until the cluster is ok."""
        replica.ask("CLUSTER", "FAILOVER")

        def trouble() -> str:
            return "" if "master" in replica.view()[0].flags else f"{replica.name} is still a replica"

        _wait(trouble, within_s=60)
        self.wait_ok()

    def flush(self) -> None:
        """Delete all keys of all nodes."""
        for master in self.masters():
            master.ask("FLUSHALL")

    def _start(self) -> None:
        is_new = not self._formed.exists()
        if not is_new and self._formed.read_text() != self._shape:
            raise StartError(f"{self._formed.parent} has the data of a cluster of {self._formed.read_text().strip()}")
        for node in self.nodes:
            if is_new:  # or its formation was interrupted
                shutil.rmtree(node.data, ignore_errors=True)
                node.data.mkdir(parents=True)
            node.spawn()
        for node in self.nodes:
            node.wait_ready()
            node.id = node.ask("CLUSTER", "MYID")
        if is_new:
            for epoch, node in enumerate(self.nodes, 1):
                node.ask(
                    "CLUSTER", "SET-CONFIG-EPOCH", epoch
                )  # two nodes with one epoch would first have to agree on new ones
        for node, other in itertools.combinations(self.nodes, 2):
            node.ask("CLUSTER", "MEET", "127.0.0.1", other.port, other.bus_port)
        _wait(self._strangers, within_s=120)
        if is_new:
            self._assign()
        self.wait_ok()
        self._formed.write_text(self._shape)

    def _assign(self) -> None:
        """Give each of the first nodes an even part of the slots, and its replicas."""
        count = len(self._first_masters)
        for number, master in enumerate(self._first_masters):
            first, after = SLOTS * number // count, SLOTS * (number + 1) // count
            master.ask("CLUSTER", "ADDSLOTSRANGE", first, after - 1)
        for number, replica in enumerate(self.nodes[count:]):
            replica.ask("CLUSTER", "REPLICATE", self._first_masters[number % count].id)

    def _strangers(self) -> str:
        """Return which nodes do not know all others yet; empty if none."""
        for node in self.nodes:
            known = {each.id for each in node.view() if each.is_connected and "handshake" not in each.flags}
            if missing := [each.name for each in self.nodes if each.id not in known]:
                return f"{node.name} has no connection to {', '.join(missing)}"
        return ""

    def _owners(self, live: dict[ValkeyNode, list[NodeView]]) -> list[ValkeyNode | None]:
        """Return the node that serves each slot, by what each live node claims for itself."""
        owners: list[ValkeyNode | None] = [None] * SLOTS
        for node, (own, *_) in sorted(live.items(), key=lambda each: each[1][0].epoch):
            if "master" in own.flags:
                for first, last in own.slots:
                    owners[first : last + 1] = [node] * (last + 1 - first)
        return owners

    def _dissent(self, live: dict[ValkeyNode, list[NodeView]]) -> str:
        """Return that live nodes do not agree; empty if they do."""
        views = {frozenset(each.fact for each in view) for view in live.values()}
        return "" if len(views) == 1 else "its nodes do not agree on masters and slots"

    def _trouble(self) -> str:
        """Return why the cluster is not whole; empty if it is."""
        live = self.live()
        owners = self._owners(live)
        if None in owners:
            return f"no live node serves slot {owners.index(None)}"
        if dissent := self._dissent(live):
            return dissent
        ids = {node.id for node in live}
        for node, view in live.items():
            if "cluster_state:ok" not in node.ask("CLUSTER", "INFO").split():
                return f"{node.name} says that the cluster is down"
            if any(each.flags & {"fail", "fail?"} or not each.is_connected for each in view if each.id in ids):
                return f"{node.name} does not reach a live node"
        for master in {node for node in owners if node} if self.replicas else ():
            written = int(master.ask("INFO", "replication")["master_repl_offset"])
            replicas = [node for node, (own, *_) in live.items() if own.master_id == master.id]
            if not any(_has(replica, written) for replica in replicas):
                return f"{master.name} has no replica that is in sync"
        return ""


def _has(replica: ValkeyNode, offset: int) -> bool:
    """Return whether a replica is connected to its master and has everything up to this offset."""
    facts = replica.ask("INFO", "replication")
    return facts.get("master_link_status") == "up" and int(facts["slave_repl_offset"]) >= offset


def _wait(trouble: Callable[[], str], within_s: float) -> None:
    """Wait until a function returns no trouble. Raises `StartError` with the last one."""
    end = time.monotonic() + within_s
    while True:
        try:
            found = trouble()
        except redis.RedisError as error:
            found = f"a node does not answer: {error}"
        if not found:
            return
        if time.monotonic() > end:
            raise StartError(f"the Valkey Cluster is not ready after {within_s:.0f} s: {found}")
        time.sleep(0.05)

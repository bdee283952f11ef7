"""A cluster of three masters, compared with one server in the same run: time, server time, spread, and CPU.

All servers are pinned to one processor and this process to another, so that three masters have together what one server
has alone. There are no replicas, because their work would count for the masters. Sessions are ordered by their master,
so that each works for a while, as on a machine of its own: three processes that take turns on one processor evict each
other's data from its caches, which a last figure shows.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import psutil
from redis.crc import key_slot

from bench.figures import Part, Rounds, figure, interleave, timed
from bench.rig import Rig, new_session
from syncapp.config import Settings
from syncapp.dev.processes import Process
from syncapp.dev.valkey_cluster import ValkeyCluster
from syncapp.store import bucket_spread
from syncapp.store.client import connect
from syncapp.store.connection_pool import ConnectionPool, pool_of
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore

ROUNDS = 16
CALLS = 256
SESSIONS = 3_000
_CPU_ROUNDS = 12
_CPU_CALLS = 2_000


class Side:
    """One server, or a cluster, with a store and its sessions."""

    def __init__(self, url: str, servers: Sequence[Process]) -> None:
        settings = Settings(redis_url=url, session_ttl_s=3600, audit_backlog_limit=0)
        self.store = SessionStore(connect(settings), settings)
        self.keys = Keyspace(settings.sync_buckets)
        self.servers = servers
        new = new_session()
        self.names = [self.store.create(new).found.session_id for _ in range(SESSIONS)]
        for name in self.names:
            self.store.start(name)
        by_node = pool_of(self.store._client).by_node([self.keys.session(name) for name in self.names])
        self._in_turn = list(self.names)
        self.names = [self.names[place] for _, places in by_node for place in places]
        self._next = 0

    def switch(self) -> None:
        """Switch the next session."""
        self._next = (self._next + 1) % len(self.names)
        self.store.switch(self.names[self._next])

    def switch_in_turn(self) -> None:
        """Switch the next session, usually on another master than the last one."""
        self._next = (self._next + 1) % len(self.names)
        self.store.switch(self._in_turn[self._next])

    def cpu_s(self) -> float:
        """Return the CPU time that the servers have used."""
        return sum(sum(psutil.Process(each.pid).cpu_times()[:2]) for each in self.servers)

    def server_us(self) -> tuple[int, int]:
        """Return the time (µs) that the servers have spent in scripts, and the number of their calls."""
        found = [node.call(b"*2\r\n$4\r\nINFO\r\n$12\r\ncommandstats\r\n")[0] for node in self._nodes()]
        stats = [line for text in found for line in text.splitlines() if line.startswith("cmdstat_fcall:")]
        parts = [dict(pair.split("=") for pair in line.partition(":")[2].split(",")) for line in stats]
        return sum(int(each["usec"]) for each in parts), sum(int(each["calls"]) for each in parts)

    def _nodes(self) -> list[ConnectionPool]:
        return pool_of(self.store._client).nodes()


@contextmanager
def pinned(servers: Sequence[Process]) -> Iterator[None]:
    """Run the servers on one processor, and this process on the others."""
    mine = os.sched_getaffinity(0)
    last = max(mine)
    for each in servers:
        psutil.Process(each.pid).cpu_affinity([last])
    os.sched_setaffinity(0, mine - {last} or mine)
    try:
        yield
    finally:
        os.sched_setaffinity(0, mine)


def run(rig: Rig) -> Part:
    """Measure switches over one server and over a cluster, in turns."""
    if rig.servers.valkey is None:
        raise LookupError("the benchmark starts its own Valkey")
    with ValkeyCluster(rig.directory, rig.directory / "cluster", masters=3, replicas=0) as nodes:
        as_created = _even_out(nodes)
        servers = [rig.servers.valkey, *nodes.nodes]
        with pinned(servers):
            one = Side(rig.servers.redis_url, [rig.servers.valkey])
            three = Side(nodes.url, nodes.nodes)
            rounds = interleave(
                {
                    "one": lambda: timed(one.switch, CALLS),
                    "three": lambda: timed(three.switch, CALLS),
                    "in turn": lambda: timed(three.switch_in_turn, CALLS),
                },
                ROUNDS,
            )
            server, cpu = _by_server({"one": one, "three": three})
            spread = Counter(
                nodes.node_of_slot(key_slot(three.keys.session(name).encode())).port for name in three.names
            )
            buckets = Counter(
                nodes.node_of_slot(key_slot(three.keys.deadlines(bucket).encode())).port
                for bucket in range(three.keys.buckets)
            )
    even = SESSIONS / len(nodes.nodes)
    furthest = max(abs(count - even) / even for count in spread.values()) * 100
    return Part(
        "A cluster of three masters",
        [
            figure("switch, one server", "µs", rounds["one"]),
            figure("switch, three masters", "µs", rounds["three"], ("switch, one server", rounds["one"])),
            figure("switch, three masters in turn", "µs", rounds["in turn"], ("switch, one server", rounds["one"])),
            figure("server time of a switch, one server", "µs", server["one"]),
            figure("server time of a switch, three masters", "µs", server["three"], ("one server", server["one"])),
            figure("switches per server CPU second, one server", "1/s", cpu["one"]),
            figure("switches per server CPU second, three masters", "1/s", cpu["three"], ("one server", cpu["one"])),
            figure("sessions on the master furthest from a third", "%", [[furthest]]),
        ],
        [
            (
                f"Of {SESSIONS:,} sessions, the masters have {_sorted(spread.values())}; of the {three.keys.buckets} "
                f"buckets, {_sorted(buckets.values())} after the moves of `flask sessions buckets`, and "
                f"{_sorted(as_created)} before."
            ),
            "All servers share one processor, and the client has another.",
        ],
    )


def _even_out(nodes: ValkeyCluster) -> list[int]:
    """Make the moves that `flask sessions buckets` advises; return how many buckets the masters had before."""
    keys = Keyspace()
    by_port = {f"127.0.0.1:{node.port}": node for node in nodes.nodes}
    with connect(Settings(redis_url=nodes.url)) as client:
        held = bucket_spread.spread(pool_of(client), keys)
    for move in bucket_spread.moves(held):
        slot = key_slot(keys.deadlines(move.bucket).encode())
        nodes.migrate_slots(slot, slot, by_port[move.source], by_port[move.target])
    return [len(buckets) for buckets in held.values()]


def _sorted(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))


def _by_server(sides: dict[str, Side]) -> tuple[dict[str, Rounds], dict[str, Rounds]]:
    """Return the server time (µs) of a switch, and the switches per CPU second of the servers, by round."""
    server: dict[str, Rounds] = {name: [] for name in sides}
    cpu: dict[str, Rounds] = {name: [] for name in sides}
    for _ in range(_CPU_ROUNDS):
        for name, side in sides.items():
            before_us, before_calls, before_s = *side.server_us(), side.cpu_s()
            for _ in range(_CPU_CALLS):
                side.switch()
            after_us, after_calls, after_s = *side.server_us(), side.cpu_s()
            server[name].append([(after_us - before_us) / (after_calls - before_calls)])
            cpu[name].append([_CPU_CALLS / (after_s - before_s)])
    return server, cpu

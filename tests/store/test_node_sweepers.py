"""Sweeping a cluster: each master has its own sweeper, which follows failovers, and no other waits for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from redis.crc import key_slot

from syncapp.dev.valkey_cluster import ValkeyCluster
from syncapp.loops import Loops
from syncapp.store.client import connect, server_loops
from syncapp.store.keys import Keyspace
from syncapp.store.node_sweepers import NodeSweepers, make_sweeper
from syncapp.store.sessions import SessionStore
from syncapp.store.sweeper import Sweeper
from tests.support.store import chess_request, make_settings
from tests.support.web_clients import wait_until

KEYS = Keyspace(64)


class Process:
    """What a web process has for sweeping a cluster."""

    def __init__(self, url: str) -> None:
        self.settings = make_settings(url, sync_buckets=64, redis_timeout_s=1.0)
        self.loops = Loops()
        self.client = connect(self.settings, max_connections=1)
        self.store = SessionStore(self.client, self.settings)
        self.sweeper = make_sweeper(self.client, self.store, self.settings, self.loops)
        assert isinstance(self.sweeper, NodeSweepers)
        self.nodes = self.sweeper
        for name, turn in server_loops(self.settings).items():
            self.loops.start(name, turn, self.nodes._stopping)
        self.sweeper.start()

    def stop(self) -> None:
        self.sweeper.stop()


@pytest.fixture
def process(valkey_cluster: ValkeyCluster) -> Iterator[Process]:
    process = Process(valkey_cluster.url)
    yield process
    process.stop()


def slot_of(name: str) -> int:
    return int(key_slot(KEYS.session(name).encode()))


def is_expired(store: SessionStore, name: str) -> bool:
    """Return whether the sweeper has ended a session: what is stored is looked at, and nothing is settled."""
    position = store.position(name)
    return position is not None and position.version == 3


def started(store: SessionStore, count: int, time_ms: int) -> list[str]:
    names = [store.create(chess_request(time_ms)).found.session_id for _ in range(count)]
    for name in names:
        store.start(name)
    return names


def test_one_server_has_one_sweeper(redis_url: str) -> None:
    settings = make_settings(redis_url)
    client = connect(settings, max_connections=1)
    assert isinstance(make_sweeper(client, SessionStore(client, settings), settings, Loops()), Sweeper)


def test_timeouts_on_all_masters_are_applied(process: Process, valkey_cluster: ValkeyCluster) -> None:
    names = started(process.store, 40, 1000)
    assert {valkey_cluster.node_of_slot(slot_of(name)) for name in names} == set(valkey_cluster.masters())
    wait_until(lambda: all(is_expired(process.store, name) for name in names), within_s=60)
    assert process.sweeper.sweeping
    assert len(process.nodes._sweepers) == 3
    assert process.loops.unwell() == []


def test_a_dead_master_delays_only_its_own_timeouts_until_its_replica_takes_over(
    process: Process, valkey_cluster: ValkeyCluster
) -> None:
    names = started(process.store, 40, 2_000)
    dead = valkey_cluster.node_of_slot(slot_of(names[0]))
    affected = [name for name in names if valkey_cluster.node_of_slot(slot_of(name)) is dead]
    (replica,) = valkey_cluster.replicas_of(dead)
    wait_until(lambda: all(replica.ask("CLUSTER", "COUNTKEYSINSLOT", slot_of(name)) for name in affected))
    dead.kill()
    others = [name for name in names if name not in affected]
    wait_until(lambda: all(is_expired(process.store, name) for name in others), within_s=60)
    wait_until(lambda: all(_is_expired_now(process.store, name) for name in affected), within_s=60)
    more = started_when_possible(process.store, 12)
    wait_until(lambda: all(_is_expired_now(process.store, name) for name in more), within_s=60)


def started_when_possible(store: SessionStore, count: int) -> list[str]:
    names: list[str] = []

    def one_more() -> bool:
        try:
            names.extend(started(store, 1, 1000))
        except Exception:  # noqa: BLE001 the cluster may not have settled yet
            return False
        return len(names) >= count

    wait_until(one_more, within_s=60)
    return names


def _is_expired_now(store: SessionStore, name: str) -> bool:
    try:
        return is_expired(store, name)
    except Exception:  # noqa: BLE001 the master is not there yet
        return False


def test_two_processes_share_the_buckets_and_one_that_stops_leaves_all_to_the_other(
    process: Process, valkey_cluster: ValkeyCluster
) -> None:
    other = Process(valkey_cluster.url)
    try:
        wait_until(lambda: len(process.nodes._leases.held) == len(other.nodes._leases.held) == 32, within_s=60)
        assert set(process.nodes._leases.held).isdisjoint(other.nodes._leases.held)
    finally:
        other.stop()
    wait_until(lambda: len(process.nodes._leases.held) == 64, within_s=60)
    names = started(process.store, 20, 1000)
    wait_until(lambda: all(is_expired(process.store, name) for name in names), within_s=60)


def test_deleted_deadlines_of_any_master_are_rebuilt(process: Process, valkey_cluster: ValkeyCluster) -> None:
    names = started(process.store, 30, 86_400_000)
    wait_until(lambda: 0 in process.nodes._leases.held, within_s=60)
    for bucket in range(64):
        process.client.delete(KEYS.deadlines(bucket))
    wait_until(
        lambda: all(process.client.zscore(KEYS.deadlines(KEYS.bucket(name)), name) for name in names), within_s=120
    )

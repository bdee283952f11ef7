"""Fan-out in a cluster: watchers get every commit, through moved slots and failovers."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from redis.crc import key_slot

from syncapp.config import Settings
from syncapp.dev.valkey_cluster import ValkeyCluster
from syncapp.errors import StoreUnavailable
from syncapp.loops import Loops
from syncapp.realtime.hub import Hub
from syncapp.realtime.topic import SessionUpdate
from syncapp.store.client import connect, server_loops
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from tests.support.store import chess_request, make_settings
from tests.support.web_clients import wait_until

KEYS = Keyspace(64)


class Watching:
    """Records what a hub offers about one session."""

    def __init__(self) -> None:
        self.updates: list[SessionUpdate] = []

    def offer(self, update: SessionUpdate) -> None:
        self.updates.append(update)

    @property
    def version(self) -> int:
        """The version of the newest state that was offered."""
        states = [each.session for each in self.updates if each.session]
        return states[-1].version if states else 0


class World:
    """A hub, as a web process has one, and a store for commands."""

    def __init__(self, settings: Settings) -> None:
        self.client = connect(settings)
        self.store = SessionStore(self.client, settings)
        self.loops, self.stopped = Loops(), threading.Event()
        for name, turn in server_loops(settings).items():
            self.loops.start(name, turn, self.stopped)
        self.hub = Hub(settings, self.store.read, client=self.client, loops=self.loops)
        self.watching: dict[str, Watching] = {}

    def watch(self, count: int) -> list[str]:
        """Create sessions and watch them; return their ids when the first state of each is there."""
        for _ in range(count):
            name = self.store.create(chess_request()).found.session_id
            self.store.start(name)
            self.watching[name] = Watching()
            self.hub.watch(name, self.watching[name])
        self.wait_for(dict.fromkeys(self.watching, 2))
        return list(self.watching)

    def wait_for(self, versions: dict[str, int]) -> None:
        wait_until(lambda: {name: self.watching[name].version for name in versions} == versions, within_s=60)

    def stop(self) -> None:
        self.hub.stop()
        self.stopped.set()
        self.client.close()


@pytest.fixture
def world(valkey_cluster: ValkeyCluster) -> Iterator[World]:
    world = World(make_settings(valkey_cluster.url, sync_buckets=64))
    yield world
    world.stop()


def test_watchers_of_sessions_on_all_masters_get_every_commit(world: World, valkey_cluster: ValkeyCluster) -> None:
    names = world.watch(30)
    for version in (3, 4, 5):
        assert {world.store.switch(name).found.version for name in names} == {version}
    world.wait_for(dict.fromkeys(names, 5))
    assert not any(update.error for each in world.watching.values() for update in each.updates)
    for each in world.watching.values():  # the commits themselves, not states that were read later
        assert [update.event["type"] for update in each.updates if update.event][-3:] == ["cycle_switched"] * 3


def test_the_channel_of_a_moved_slot_is_subscribed_to_at_its_new_master(
    world: World, valkey_cluster: ValkeyCluster
) -> None:
    names = world.watch(12)
    slot, channel = key_slot(KEYS.session(names[0]).encode()), KEYS.channel(names[0])
    first = valkey_cluster.node_of_slot(slot)
    other = next(each for each in valkey_cluster.masters() if each is not first)
    version = 2
    for source, target in [(first, other), (other, first)] * 2:
        valkey_cluster.migrate_slots(slot, slot, source, target)
        world.store.switch(names[0])
        version += 1
        world.wait_for({names[0]: version})
        wait_until(lambda target=target: channel in target.ask("PUBSUB", "SHARDCHANNELS"), within_s=60)  # type: ignore[misc]  # the default binds it
    assert not any(update.error for each in world.watching.values() for update in each.updates)


def test_after_a_failover_watchers_converge_and_only_those_of_the_lost_master_were_told(
    world: World, valkey_cluster: ValkeyCluster
) -> None:
    names = world.watch(30)
    dead = valkey_cluster.node_of_slot(key_slot(KEYS.session(names[0]).encode()))
    affected = {name for name in names if valkey_cluster.node_of_slot(key_slot(KEYS.session(name).encode())) is dead}
    (replica,) = valkey_cluster.replicas_of(dead)
    wait_until(
        lambda: all(
            replica.ask("CLUSTER", "COUNTKEYSINSLOT", key_slot(KEYS.session(name).encode())) for name in affected
        )
    )
    dead.kill()
    others = dict.fromkeys(set(names) - affected, 3)
    for name in others:
        world.store.switch(name)
    world.wait_for(others)
    versions: dict[str, int] = {}
    for name in affected:
        wait_until(lambda name=name: _switch(world.store, name, versions), within_s=60)  # type: ignore[misc]  # as above
    world.wait_for(versions)
    for name in others:
        assert not any(update.error for update in world.watching[name].updates)
    dead.start()
    valkey_cluster.wait_ok()
    for name in names:
        world.store.switch(name)
    world.wait_for({name: version + 1 for name, version in (others | versions).items()})


def _switch(store: SessionStore, name: str, versions: dict[str, int]) -> bool:
    try:
        versions[name] = store.switch(name).found.version
    except StoreUnavailable:
        return False
    return True


def test_a_planned_failover_is_followed_without_losing_a_message(world: World, valkey_cluster: ValkeyCluster) -> None:
    names = world.watch(12)
    home = valkey_cluster.node_of_slot(key_slot(KEYS.session(names[0]).encode()))
    versions = dict.fromkeys(names, 2)
    for target in (valkey_cluster.replicas_of(home)[0], home):
        valkey_cluster.fail_over(target)
        for name in names:
            wait_until(lambda name=name: _switch(world.store, name, versions), within_s=60)  # type: ignore[misc]  # as above
        world.wait_for(versions)


def test_unwatched_sessions_are_unsubscribed_everywhere(world: World, valkey_cluster: ValkeyCluster) -> None:
    names = world.watch(12)
    for name in names:
        world.hub.unwatch(name, world.watching[name])
    channels = [KEYS.channel(name) for name in names]
    for node in valkey_cluster.masters():
        wait_until(lambda node=node: not set(channels) & set(node.ask("PUBSUB", "SHARDCHANNELS")), within_s=60)  # type: ignore[misc]  # as above


def test_without_the_cluster_a_watcher_is_told_and_gets_the_state_when_it_is_there(
    valkey_cluster: ValkeyCluster,
) -> None:
    world = World(make_settings(valkey_cluster.url, sync_buckets=64, redis_timeout_s=0.5))
    try:
        name = world.store.create(chess_request()).found.session_id
        for node in valkey_cluster.nodes:
            node.pause()
        watching = world.watching[name] = Watching()
        world.hub.watch(name, watching)
        wait_until(lambda: any(update.error for update in watching.updates), within_s=60)
        for node in valkey_cluster.nodes:
            node.unpause()
        wait_until(lambda: watching.version == 1, within_s=60)
    finally:
        world.stop()

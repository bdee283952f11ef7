"""Commands to a cluster: the way to the right master, redirections, patience, and what is never repeated."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest
import redis as redis_py
from redis import exceptions
from redis.crc import key_slot

from syncapp.dev.valkey_cluster import ValkeyCluster
from syncapp.dev.valkey_node import ValkeyNode
from syncapp.errors import StoreUnavailable
from syncapp.store.client import connect
from syncapp.store.cluster_pool import ClusterPool
from syncapp.store.command_keys import key_of
from syncapp.store.connection_pool import ConnectionPool, packed
from syncapp.store.connection_pool import pool_of as any_pool_of
from syncapp.store.key_scan import KeyScan
from syncapp.store.keys import Keyspace
from syncapp.store.replication import Replication
from syncapp.store.reply_errors import NoReply
from syncapp.store.sessions import SessionStore
from tests.support.store import chess_request, make_settings
from tests.support.types import Redis
from tests.support.web_clients import wait_until

KEYS = Keyspace(64)


@pytest.fixture
def client(valkey_cluster: ValkeyCluster) -> Iterator[redis_py.Redis]:
    with connect(make_settings(valkey_cluster.url, redis_timeout_s=5.0)) as client:
        yield client


@pytest.fixture
def patient(valkey_cluster: ValkeyCluster) -> Iterator[redis_py.Redis]:
    """A client that waits for slow nodes."""
    with connect(make_settings(valkey_cluster.url, redis_timeout_s=60.0)) as client:
        yield client


@pytest.fixture
def store(valkey_cluster: ValkeyCluster, client: redis_py.Redis) -> SessionStore:
    return SessionStore(client, make_settings(valkey_cluster.url, sync_buckets=64, redis_timeout_s=5.0))


def pool_of(client: redis_py.Redis) -> ClusterPool:
    return cast("ClusterPool", client.connection_pool)


def slot_of(session_id: str) -> int:
    return int(key_slot(KEYS.session(session_id).encode()))


def home_of(cluster: ValkeyCluster, session_id: str) -> tuple[ValkeyNode, ValkeyNode]:
    """Return the master that has a session, and another one."""
    return home_of_slot(cluster, slot_of(session_id))


def home_of_slot(cluster: ValkeyCluster, slot: int) -> tuple[ValkeyNode, ValkeyNode]:
    home = cluster.node_of_slot(slot)
    return home, next(each for each in cluster.masters() if each is not home)


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (("GET", "a"), b"a"),
        (("get", "a"), b"a"),
        (("EVALSHA", "f" * 40, 2, "one", "two", "an argument"), b"one"),
        (("FCALL", "f", 2, "one", "two", "an argument"), b"one"),
        (("EVAL", "return 1", 0, "an argument"), None),
        (("EVAL", "return {\n'GET', KEYS[1]}", 1, "k"), b"k"),
        (("XREADGROUP", "GROUP", "audit", "streams", "COUNT", 5, "STREAMS", "the key", ">"), b"the key"),
        (("XAUTOCLAIM", "k", "g", "c", 0, "0-0", "COUNT", 1), b"k"),
        (("ZRANGE", "k", 0, -1), b"k"),
        (("TIME",), None),
        (("SCAN", 0, "MATCH", "sync:*"), None),
        (("WAIT", 1, 100), None),
        (("SET", "", "empty"), b""),
    ],
)
def test_the_key_of_a_command_is_found(words: tuple[str | int, ...], key: bytes | None) -> None:
    assert key_of(packed(*words)) == key


def test_sessions_of_all_buckets_live_on_all_masters(
    store: SessionStore, client: redis_py.Redis, valkey_cluster: ValkeyCluster
) -> None:
    names = [store.create(chess_request()).found.session_id for _ in range(60)]
    for name in names:
        store.start(name)
        assert store.switch(name).found.version == 3
    assert {home_of(valkey_cluster, name)[0] for name in names} == set(valkey_cluster.masters())
    assert all(store.get(name).found.version == 3 for name in names)
    summaries, _ = store.summaries(names)
    assert [each.version for each in summaries if each] == [3] * 60
    assert store.check() == []
    scan, found = KeyScan(any_pool_of(client), KEYS.sessions(), 10), list[str]()
    while not scan.is_complete:
        found += scan.next()
    assert sorted(found) == sorted(map(KEYS.session, names))


def test_commands_of_redis_py_find_their_nodes_too(client: redis_py.Redis) -> None:
    names = [KEYS.outbox(bucket) for bucket in range(64)]
    with client.pipeline(transaction=False) as pipe:
        for number, name in enumerate(names):
            pipe.set(name, number)
            pipe.incr(name)
        pipe.time()
        *replies, now = pipe.execute()
    assert replies == [each for number in range(64) for each in (True, number + 1)]
    assert len(now) == 2
    assert [client.get(name) for name in names] == [str(number + 1) for number in range(64)]
    script = client.register_script("return redis.call('GET', KEYS[1])")  # loaded into every node at the first need
    assert [script(keys=[name]) for name in names] == [str(number + 1) for number in range(64)]
    with client.pipeline(transaction=False) as pipe:
        pipe.get(names[0])
        pipe.lpush(names[0], "x")
        pipe.get(names[1])
        one, error, other = pipe.execute(raise_on_error=False)
    assert (one, other) == ("1", "2")
    assert isinstance(error, exceptions.ResponseError)


def test_replies_are_bytes_for_a_client_that_does_not_decode(valkey_cluster: ValkeyCluster) -> None:
    with connect(make_settings(valkey_cluster.url), decode=False) as client:
        client.set("a", "ü")
        assert client.get("a") == "ü".encode()
        assert pool_of(client).call(packed("GET", "a")) == ["ü"]


def test_a_slot_that_has_moved_is_followed_at_once_and_there_and_back(
    store: SessionStore, valkey_cluster: ValkeyCluster
) -> None:
    name = store.create(chess_request()).found.session_id
    store.start(name)
    home, other = home_of(valkey_cluster, name)
    slot = slot_of(name)
    for version, (source, target) in enumerate([(home, other), (other, home)] * 2, 3):
        valkey_cluster.migrate_slots(slot, slot, source, target)
        assert store.switch(name).found.version == version  # MOVED, and no error


def test_a_slot_on_its_way_in_the_classic_manner_is_waited_for(
    store: SessionStore, client: redis_py.Redis, valkey_cluster: ValkeyCluster
) -> None:
    """ASK for what has been moved, TRYAGAIN for a session of which only some keys have been."""
    name = store.create(chess_request()).found.session_id
    store.start(name)
    home, other = home_of(valkey_cluster, name)
    slot = slot_of(name)
    other.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", home.id)
    home.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", other.id)
    session = KEYS.session(name)
    home.ask("MIGRATE", "127.0.0.1", other.port, session, 0, 5000)
    assert client.hget(session, "scalars")  # ASK

    def finish() -> None:
        for key in home.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
            home.ask("MIGRATE", "127.0.0.1", other.port, key, 0, 5000)
        for node in (other, home):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", other.id)

    later = threading.Timer(0.5, finish)
    later.start()
    wait_until(lambda: _accepts(store, name, 3), within_s=60)
    later.join()
    assert store.get(name).found.version == 3
    valkey_cluster.migrate_slots(slot, slot, other, home)


def test_a_delayed_command_is_confirmed_by_the_replicas_of_the_node_that_runs_it(
    patient: redis_py.Redis, valkey_cluster: ValkeyCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mark has no other key to wait for, so that it could go ahead of its command to the new node of a slot."""
    slot = key_slot(b"tag")
    home, other = home_of_slot(valkey_cluster, slot)
    patient.set("{tag}here", "1")
    other.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", home.id)
    home.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", other.id)
    sent: list[tuple[str, tuple[bytes, ...]]] = []
    call = ConnectionPool.call

    def recorded(pool: ConnectionPool, *commands: bytes, raw: bool = False) -> list[Any]:
        sent.append((pool.name, commands))
        return call(pool, *commands, raw=raw)

    def finish() -> None:
        home.ask("MIGRATE", "127.0.0.1", other.port, "{tag}here", 0, 5000)
        time.sleep(2)  # both nodes refuse now: ASK, TRYAGAIN
        for node in (other, home):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", other.id)

    later = threading.Timer(0.5, finish)
    later.start()
    monkeypatch.setattr(ConnectionPool, "call", recorded)
    script = packed("EVAL", "return redis.call('INCR', KEYS[1])", 2, "{tag}here", "{tag}there")
    replies, replicas = Replication(patient, 1, timeout_s=60).call(script, mark="{tag}mark")
    later.join()
    assert (replies, replicas) == ([2], 1)
    name, commands = sent[-1]
    assert name == f"127.0.0.1:{other.port}"
    assert commands[-3] == script
    assert commands[-1].startswith(b"*3\r\n$4\r\nWAIT")
    valkey_cluster.migrate_slots(slot, slot, other, home)


def test_a_confirmed_command_that_follows_its_slot_stops_no_move(
    patient: redis_py.Redis, valkey_cluster: ValkeyCluster
) -> None:
    """The new node runs its mark as well, while the old one still has the mark's key."""
    slot = key_slot(b"tag")
    home, other = home_of_slot(valkey_cluster, slot)
    patient.xadd("{tag}outbox", {"message": "1"})
    patient.set("{tag}session", "1")
    other.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", home.id)
    home.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", other.id)
    home.ask("MIGRATE", "127.0.0.1", other.port, "{tag}session", 0, 5000)
    replication = Replication(patient, 1, timeout_s=60)
    assert replication.call(packed("INCR", "{tag}session"), mark="{tag}outbox") == ([2], 1)
    assert other.ask("CLUSTER", "GETKEYSINSLOT", slot, 100) == ["{tag}session"]
    assert home.ask("MIGRATE", "127.0.0.1", other.port, "{tag}outbox", 0, 5000) == "OK"
    for node in (other, home):
        node.ask("CLUSTER", "SETSLOT", slot, "NODE", other.id)
    assert replication.call(packed("INCR", "{tag}session"), mark="{tag}outbox") == ([3], 1)
    assert patient.ttl("{tag}outbox") == -1
    assert patient.xlen("{tag}outbox") == 1
    valkey_cluster.migrate_slots(slot, slot, other, home)


def _accepts(store: SessionStore, name: str, version: int) -> bool:
    """Switch, if the store does not take too long; a refusal must have changed nothing."""
    try:
        return store.switch(name).found.version == version
    except StoreUnavailable as error:
        refused = error
    assert "nothing was changed" in refused.message
    return False


def test_scripts_that_a_promoted_replica_does_not_have_are_sent_again(
    store: SessionStore, valkey_cluster: ValkeyCluster
) -> None:
    name = store.create(chess_request()).found.session_id
    store.start(name)
    home, _ = home_of(valkey_cluster, name)
    valkey_cluster.fail_over(valkey_cluster.replicas_of(home)[0])
    assert store.switch(name).found.version == 3
    valkey_cluster.fail_over(home)
    assert store.switch(name).found.version == 4


def test_scripts_are_loaded_into_the_masters_that_are_there(
    client: redis_py.Redis, valkey_cluster: ValkeyCluster
) -> None:
    names = [KEYS.outbox(bucket) for bucket in range(64)]
    dead = valkey_cluster.node_of_slot(key_slot(names[0].encode()))
    others = [name for name in names if valkey_cluster.node_of_slot(key_slot(name.encode())) is not dead]
    dead.kill()
    script = client.register_script(f"return redis.call('STRLEN', KEYS[1]) -- {id(client)}")  # none of them has it yet
    assert [script(keys=[name]) for name in others] == [0] * len(others)


def test_a_killed_master_concerns_its_own_sessions_only_until_its_replica_takes_over(
    store: SessionStore, valkey_cluster: ValkeyCluster
) -> None:
    names = [store.create(chess_request()).found.session_id for _ in range(60)]
    for name in names:
        store.start(name)
    dead = home_of(valkey_cluster, names[0])[0]
    affected = [name for name in names if home_of(valkey_cluster, name)[0] is dead]
    (replica,) = valkey_cluster.replicas_of(dead)
    wait_until(lambda: all(replica.ask("CLUSTER", "COUNTKEYSINSLOT", slot_of(name)) for name in affected))
    dead.kill()
    for name in set(names) - set(affected):
        assert store.switch(name).found.version == 3
    with pytest.raises(StoreUnavailable):
        store.summaries(names)
    replies = pool_of(store._client).call_each(*(packed("EXISTS", KEYS.session(name)) for name in names))
    assert {name for name, reply in zip(names, replies, strict=True) if isinstance(reply, Exception)} == set(affected)
    for name in affected:
        wait_until(lambda name=name: _serves(store, name), within_s=60)  # type: ignore[misc]  # the default binds it
        assert store.switch(name).found.version == 3


def _serves(store: SessionStore, name: str) -> bool:
    try:
        store.get(name)
    except StoreUnavailable:
        return False
    return True


def test_without_any_node_every_command_is_refused_and_the_first_node_that_answers_is_enough(
    valkey_cluster: ValkeyCluster,
) -> None:
    url = f"redis+cluster://127.0.0.1:1,127.0.0.1:{valkey_cluster.nodes[4].port}"
    with connect(make_settings("redis+cluster://127.0.0.1:1")) as away, pytest.raises(exceptions.ConnectionError):
        away.get("a")
    with connect(make_settings(url)) as client:
        client.set("a", "1")
        with Redis.from_url(valkey_cluster.node_of_slot(key_slot(b"a")).url) as direct:
            assert direct.get("a") == b"1"


def test_a_command_whose_reply_is_lost_is_not_sent_again(
    store: SessionStore, client: redis_py.Redis, valkey_cluster: ValkeyCluster
) -> None:
    """The node runs it after a pause that is longer than the command's patience, unless it could not be sent at all."""
    name = store.create(chess_request()).found.session_id
    store.start(name)
    home, _ = home_of(valkey_cluster, name)
    settings = make_settings(valkey_cluster.url, sync_buckets=64, redis_timeout_s=0.5)
    with connect(settings) as hasty_client:
        hasty = SessionStore(hasty_client, settings)
        wait_until(lambda: _serves(hasty, name), within_s=60)
        home.pause()
        try:
            with pytest.raises(StoreUnavailable) as refused:
                hasty.switch(name)
        finally:
            home.unpause()
        assert "unknown" in refused.value.message
        wait_until(lambda: _serves(store, name), within_s=60)
        before = store.switch(name).found.version
        assert before in (3, 4)
        for _ in range(20):
            assert store.get(name).found.version == before


def test_background_work_does_not_wait_for_a_node_that_has_just_failed_and_commands_do(
    client: redis_py.Redis, valkey_cluster: ValkeyCluster
) -> None:
    """A hanging node costs the first caller the timeout; until then it is left alone, unless a command needs it."""
    pool = pool_of(client)
    keys = [KEYS.outbox(bucket) for bucket in range(64)]
    client.set(keys[0], "1")
    home = next(node for node in pool.nodes() if node.call(packed("EXISTS", keys[0])) == [1])
    address = pool.home(keys[0])
    assert address is not None
    pool._silent_until_s[address] = float("inf")
    assert pool.is_silent(home)
    assert pool.is_away(keys[0])
    assert keys[0] not in pool.awake(keys)
    replies = pool.call_each(*(packed("EXISTS", key) for key in keys))
    assert isinstance(replies[0], exceptions.ConnectionError)
    assert sum(not isinstance(each, Exception) for each in replies) == len(pool.awake(keys))
    assert pool.call(packed("EXISTS", keys[0])) == [1]  # it answers again
    assert not pool.is_away(keys[0])
    assert not any(isinstance(each, Exception) for each in pool.call_each(*(packed("EXISTS", key) for key in keys)))


def test_watched_sessions_of_other_masters_are_reported_while_one_is_lost(
    store: SessionStore, valkey_cluster: ValkeyCluster
) -> None:
    names = [store.create(chess_request()).found.session_id for _ in range(30)]
    assert list(store.attend(names)) == [None] * 30
    dead, _ = home_of(valkey_cluster, names[0])
    affected = {name for name in names if home_of(valkey_cluster, name)[0] is dead}
    dead.kill()
    for _ in range(2):  # the second time, the master is known to be away
        errors = dict(zip(names, store.attend(names), strict=True))
        assert {name for name, error in errors.items() if error} == affected
        assert {type(error) for error in errors.values() if error} == {NoReply}

"""In a cluster, a user with the rights that docs/keys.md names for it, and no others, does everything."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from redis.crc import key_slot

from syncapp.dev.valkey_cluster import ValkeyCluster
from syncapp.loops import Loops
from syncapp.realtime.hub import Hub
from syncapp.realtime.topic import SessionUpdate
from syncapp.store.client import connect, server_loops
from syncapp.store.health import StoreCheck
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from tests.support.paths import ROOT
from tests.support.store import chess_request, make_settings
from tests.support.web_clients import wait_until

RIGHTS = (ROOT / "docs" / "keys.md").read_text().split("\n## Rights\n")[1]
OF_ONE_SERVER = re.findall(r"ACL SETUSER syncapp (on .*?)\n```", RIGHTS, re.DOTALL)[0].replace("PASSWORD", "secret")
IN_A_CLUSTER = re.findall(r"In a cluster also, on all nodes:\n\n```\n(.*?)\n```", RIGHTS, re.DOTALL)[0]
NOT_NEEDED = ("+publish", "+subscribe", "+unsubscribe")
"""The document says so."""


class Watching:
    """Counts what a hub offers about one session."""

    def __init__(self) -> None:
        self.states = 0

    def offer(self, update: SessionUpdate) -> None:
        self.states += update.session is not None


@pytest.fixture
def restricted(valkey_cluster: ValkeyCluster) -> Iterator[str]:
    """The URL of the cluster for a user with these rights."""
    words = [word for word in f"{OF_ONE_SERVER} {IN_A_CLUSTER}".split() if word not in NOT_NEEDED]
    for node in valkey_cluster.nodes:
        node.ask("ACL", "SETUSER", "syncapp", *words)
        node.ask("ACL", "LOG", "RESET")
        node.ask("CONFIG", "RESETSTAT")
    yield valkey_cluster.url.replace("//", "//syncapp:secret@")
    for node in valkey_cluster.nodes:
        node.ask("ACL", "DELUSER", "syncapp")


def used(cluster: ValkeyCluster) -> set[str]:
    """Return the commands that any node has run."""
    names = {name for node in cluster.nodes for name in node.ask("INFO", "commandstats")}
    return {name.removeprefix("cmdstat_") for name in names}


def test_the_documented_rights_are_enough_and_each_is_used(valkey_cluster: ValkeyCluster, restricted: str) -> None:
    settings, loops, stopped = make_settings(restricted, sync_buckets=64), Loops(), threading.Event()
    with closing(connect(settings)) as client:
        store = SessionStore(client, settings)
        for name, turn in server_loops(settings).items():
            loops.start(name, turn, stopped)
        hub, watching = Hub(settings, store.read, client=client, loops=loops), Watching()
        try:
            session_id = store.create(chess_request()).found.session_id
            hub.watch(session_id, watching)
            wait_until(lambda: watching.states == 1)
            store.start(session_id)
            wait_until(lambda: watching.states == 2)
            hub.unwatch(session_id, watching)
            key = Keyspace(64).session(session_id)
            _read_while_it_moves(valkey_cluster, key_slot(b"sync:{none}"), lambda: client.hget("sync:{none}", "field"))
            assert client.hget(key, "scalars")
            assert StoreCheck(client, store.check).health().reason is None
            wanted = {word.removeprefix("+") for word in IN_A_CLUSTER.split()}
            wait_until(lambda: wanted <= used(valkey_cluster))
        finally:
            hub.stop()
            stopped.set()
    denied = {each["object"] for node in valkey_cluster.nodes for each in node.ask("ACL", "LOG")}
    assert denied <= {"config|get"}  # optional


def _read_while_it_moves(cluster: ValkeyCluster, slot: int, read: Callable[[], object]) -> None:
    """Read a key that a node no longer has, while its slot moves to another one: the reply is ASK."""
    source = cluster.node_of_slot(slot)
    target = next(each for each in cluster.masters() if each is not source)
    target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", source.id)
    source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", target.id)
    try:
        read()
    finally:
        for node in (source, target):
            node.ask("CLUSTER", "SETSLOT", slot, "STABLE")

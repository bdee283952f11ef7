"""A primary with a replica, and stores that wait for it (`REDIS_MIN_REPLICAS`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from syncapp.audit.outbox import Outbox
from syncapp.dev.servers import Valkey
from syncapp.domain.results import Claim, Result
from syncapp.errors import SessionNotFound
from syncapp.store.client import connect
from syncapp.store.connection_pool import packed
from syncapp.store.keys import Keyspace
from syncapp.store.links import LinkStore
from syncapp.store.replication import Replication
from syncapp.store.sessions import SessionStore
from tests.support.store import chess_request, make_settings
from tests.support.types import Redis
from tests.support.web_clients import wait_until

KEYS = Keyspace()
NEW = "0b54a2a1-4f0e-4b9e-8d58-0e9f6a3f2c11"
SOON_MS = 100
NEVER_MS = 600_000
LACKING = {"retry_after_s": 1, "replicas": 0, "required_replicas": 1}


def follow(replica: Valkey, primary: Valkey) -> None:
    with Redis.from_url(replica.url) as client:
        client.replicaof("127.0.0.1", str(primary.port))


def wait_in_step(primary: Valkey) -> None:
    """Wait until a replica has everything."""
    with Redis.from_url(primary.url, socket_timeout=60) as client:
        wait_until(lambda: client.set("in step", "1") and client.wait(1, 1000) == 1)
        client.delete("in step")


class Pair:
    """A primary, its replica, and stores that wait for it."""

    def __init__(self, primary: Valkey, replica: Valkey) -> None:
        self.primary, self.replica = primary, replica
        self.settings = make_settings(primary.url, redis_min_replicas=1, redis_timeout_s=60)

    def store(self, wait_ms: int = SOON_MS, url: str = "", **changes: Any) -> SessionStore:
        """A store with connections of its own. Only the replica decides, however slow the machine is."""
        chosen = replace(self.settings, redis_url=url or self.primary.url, **changes)
        store = SessionStore(connect(chosen), chosen)
        store._runner._replication._wait = packed("WAIT", 1, wait_ms)
        return store

    def patient(self) -> SessionStore:
        return self.store(NEVER_MS)

    def links(self, wait_ms: int = SOON_MS) -> LinkStore:
        client = connect(self.settings)
        replication = Replication.of(client, self.settings)
        replication._wait = packed("WAIT", 1, wait_ms)
        return LinkStore(client, KEYS, replication)

    def outbox(self, wait_ms: int = SOON_MS) -> Outbox:
        outbox = Outbox.of(connect(self.settings, decode=False), self.settings)
        outbox._replication._wait_ms = wait_ms
        return outbox


def running(store: SessionStore, **more: Any) -> str:
    session_id = store.create(chess_request(3_600_000, **more)).found.session_id
    store.start(session_id)
    return session_id


def pending(store: SessionStore) -> str:
    return store.create(chess_request()).found.session_id


def paused(store: SessionStore) -> str:
    session_id = running(store)
    store.pause(session_id)
    return session_id


def completed(store: SessionStore) -> str:
    session_id = running(store)
    store.complete(session_id)
    return session_id


def with_a_turn(store: SessionStore) -> str:
    session_id = running(store, takeback_cycles=2)
    store.switch(session_id)
    return session_id


Act = Callable[[], object]
Run = Callable[[SessionStore, str, Claim], Result]
COMMANDS: dict[str, tuple[Callable[[SessionStore], str], Run]] = {
    "create": (lambda _: NEW, lambda store, session, claim: store.create(chess_request(session_id=session), claim)),
    "start": (pending, lambda store, session, claim: store.start(session, claim)),
    "switch": (running, lambda store, session, claim: store.switch(session, claim)),
    "pause": (running, lambda store, session, claim: store.pause(session, claim)),
    "resume": (paused, lambda store, session, claim: store.resume(session, claim)),
    "complete": (running, lambda store, session, claim: store.complete(session, claim)),
    "cancel": (running, lambda store, session, claim: store.cancel(session, claim)),
    "adjust": (running, lambda store, session, claim: store.adjust(session, claim, op="add", ms=1000)),
    "takeback": (with_a_turn, lambda store, session, claim: store.takeback(session, claim, cycles=1)),
    "reopen": (completed, lambda store, session, claim: store.reopen(session, claim)),
    "update": (running, lambda store, session, claim: store.update(session, {"a": "b"}, claim)),
    "delete": (running, lambda store, session, claim: store.delete(session, claim)),
}


def version_of(store: SessionStore, session_id: str) -> int:
    """Return a session's version, 0 for a missing one."""
    try:
        return store.get(session_id).found.version
    except SessionNotFound:
        return 0

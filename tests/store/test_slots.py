"""In a cluster, all keys of a command must be in one slot. The server says which words of what we send are keys."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import hiredis
import psycopg2
import pytest
import redis as redis_py
from redis.crc import key_slot

from syncapp.access.rate_limits import RateLimits
from syncapp.audit.last_failure import LastFailure
from syncapp.audit.last_verification import LastVerification, Verification
from syncapp.audit.outbox import Outbox
from syncapp.audit.queue_stats import QueueCounts
from syncapp.config import Settings
from syncapp.domain.commands import COMMANDS
from syncapp.domain.link_ids import new_link_id
from syncapp.domain.principal import SCOPES, Principal
from syncapp.domain.results import Claim, Result
from syncapp.errors import SyncError
from syncapp.history.consistency import Consistency
from syncapp.loops import Loops
from syncapp.store.bucket_leases import BucketLeases
from syncapp.store.client import connect
from syncapp.store.clock_steps import ClockStepWatch, recorded_steps
from syncapp.store.command_keys import key_of
from syncapp.store.connection_pool import ConnectionPool, packed, pool_of
from syncapp.store.deadline_rebuild import DeadlineRebuild
from syncapp.store.failover import Server
from syncapp.store.health import StoreCheck
from syncapp.store.keys import Keyspace
from syncapp.store.links import Link, LinkStore
from syncapp.store.list_query import SessionsQuery
from syncapp.store.list_upkeep import ListUpkeep
from syncapp.store.live_sessions import LiveSessions
from syncapp.store.pooled_connection import PooledConnection
from syncapp.store.process_registry import ProcessRegistry
from syncapp.store.session_list import SessionList
from syncapp.store.sessions import SessionStore
from syncapp.store.sweeper import Sweeper
from tests.support.store import chess_request
from tests.support.types import Redis

ADA = Principal("ada", "acme", frozenset(SCOPES))
WITHOUT_KEYS = ("The command has no key arguments", "Invalid arguments specified for command", "Unknown subcommand")
"""How the server answers COMMAND GETKEYS about a command that has no keys; the second one, about EVAL without keys."""


class Recorder:
    """All commands that a process sends, by scripts and by redis-py."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[bytes] = []
        call, send = PooledConnection.call, cast("Any", redis_py.Connection.send_packed_command)

        def recorded_call(pooled: PooledConnection, commands: bytes, count: int, **options: Any) -> list[Any]:
            self.sent.append(commands)
            return call(pooled, commands, count, **options)

        def recorded_send(connection: Any, command: Any, check_health: bool = True) -> None:
            self.sent.append(command if isinstance(command, bytes) else b"".join(command))
            send(connection, command, check_health)

        monkeypatch.setattr(PooledConnection, "call", recorded_call)
        monkeypatch.setattr(redis_py.Connection, "send_packed_command", recorded_send)

    def commands(self) -> Iterator[list[bytes]]:
        """Yield the words of each command."""
        for text in self.sent:
            reader: Any = hiredis.Reader()
            reader.feed(text)
            while (words := reader.gets()) is not False:
                yield words


@dataclass(frozen=True, slots=True)
class Service:
    """What the operations use: a store, in which `session_id` is a running game of tenant `acme`."""

    settings: Settings
    client: redis_py.Redis
    keys: Keyspace
    store: SessionStore
    database_url: str
    session_id: str

    def run(self, command: str, session_id: str, key: str | None = None, **body: Any) -> Result:
        """Run a command as REST does with `AUTH=required`."""
        limits = RateLimits(self.settings, self.store.cached, self.store.read)
        known, claim = COMMANDS[command], Claim(idempotency_key=key, principal=ADA)
        parsed = chess_request(takeback_cycles=3) if command == "create" else known.body.parse(body)
        with limits.charge("203.0.113.7", command, session_id, parsed, claim) as charge:
            return charge.settle(known.run(self.store, session_id, parsed, charge.claim))


def commands_of_a_principal(service: Service) -> None:
    created = service.run("create", "", "0a2dd2a5-0b6a-4b6e-9d0c-5a3ad4ff0000").found.session_id
    service.run("create", "", "0a2dd2a5-0b6a-4b6e-9d0c-5a3ad4ff0000")
    for number, command in enumerate(
        ("start", "switch", "takeback", "pause", "resume", "adjust", "update", "complete")
    ):
        body: dict[str, Any] = {"takeback": {"cycles": 1}, "adjust": {"ms": 7}, "update": {"metadata": {"a": 1}}}
        for key in (None, f"k{number}", f"k{number}"):
            try:
                service.run(command, created, key, **body.get(command, {}))
            except SyncError as error:
                assert error.status < 500  # noqa: PT017 a second pause is refused, and so on
    service.run("reopen", created)
    service.run("cancel", created)
    service.run("delete", created, "last")


def commands_without_a_principal(service: Service) -> None:
    store = service.store
    claim = Claim(idempotency_key="0a2dd2a5-0b6a-4b6e-9d0c-5a3ad4ff0001")
    session_id = store.create(chess_request(), claim).found.session_id
    store.start(session_id, Claim(idempotency_key="k"))
    store.switch(session_id)
    store.update(session_id, {"a": 1})
    store.delete(session_id, erases=True)


def reads(service: Service) -> None:
    store = service.store
    ids = [service.session_id, *(store.create(chess_request()).found.session_id for _ in range(20))]
    store.get(ids[0])
    assert len(store.summaries(ids)[0]) == 21
    store.attend(ids)
    store.position(ids[0])


def the_check_of_writes(service: Service) -> None:
    service.store.check()
    StoreCheck(service.client, service.store.check).health()


def the_list(service: Service) -> None:
    live = SessionList(service.client, service.keys, service.store)
    for tenant in ("acme", "default"):
        live.page(SessionsQuery(), tenant)


def links(service: Service) -> None:
    made = LinkStore(service.client, service.keys)
    now_s = int(time.time())
    link = Link(new_link_id(1), "session:watch", now_s, now_s + 60, "ada", label="x")
    made.add(service.session_id, link)
    made.add(service.session_id, Link(new_link_id(1), "session:watch", now_s, now_s + 60, "ada", label="y"))
    made.links_of(service.session_id, 1)
    made.revoke(service.session_id, [link])
    made.revoked_from("")
    assert made.forget_creator("acme", "ada") == 2
    made.forget(service.session_id)


def a_sweep(service: Service) -> None:
    sweeper = Sweeper(service.client, service.store, buckets=service.keys.buckets)
    sweeper.run_once()
    sweeper.run_once(service.store.get(service.session_id).now_ms + 10_000_000)


def leases(service: Service) -> None:
    made = BucketLeases(service.client, service.keys)
    made.hold()
    made.release()


def lost_deadlines_and_lists(service: Service) -> None:
    clock_s = 0.0
    keys = [service.keys.deadlines(each) for each in range(service.keys.buckets)]
    for key in (*keys, *map(service.keys.listed, range(service.keys.buckets))):
        service.client.delete(key)
    rebuild = DeadlineRebuild(service.client, service.store, service.keys, lambda: clock_s)
    upkeep = ListUpkeep(service.client, service.store, service.keys, lambda: clock_s)
    for _ in range(200):
        clock_s += 10
        rebuild.step(held=True)
        upkeep.step(held=True)
    assert service.client.zscore(service.keys.deadlines(service.keys.bucket(service.session_id)), service.session_id)


def numbers_of_live_sessions(service: Service) -> None:
    service.client.zadd(service.keys.tenants(), {"live:acme": 7, "live:other": 7})
    live = LiveSessions(service.client, service.keys)
    live.begin()
    live.add([service.session_id])
    live.correct()
    assert service.client.zscore(service.keys.tenants(), "live:acme") == 1


def the_outbox(service: Service) -> None:
    outbox, bucket = Outbox(service.client, service.keys), service.keys.bucket(service.session_id)
    outbox.make_groups()
    entries = outbox.read_new(bucket, 100)
    assert entries
    outbox.read_pending(bucket, 100)
    assert outbox.has_undrained(service.session_id)
    outbox.backlogs()
    outbox.acknowledge(bucket, entries)


def counts_of_the_queue(service: Service) -> None:
    counts = QueueCounts(service.client, service.keys)
    counts.add(3, 1)
    counts.set_failed(2)
    assert counts.read().completed == 3


def outcomes(service: Service) -> None:
    last = LastVerification(service.client, service.keys)
    last.record(Verification("as_committed", 1, 2, 3, 4, 5, 6, 7))
    assert last.read()
    failure = LastFailure(service.client, service.keys)
    failure.failed(psycopg2.OperationalError("connection refused"))
    failure.read()
    failure.succeeded()


def processes(service: Service) -> None:
    registry = ProcessRegistry(service.client, service.keys, kind="web", loops=Loops())
    watch = ClockStepWatch(service.client, service.keys, registry, server=Server(), alert=lambda kind, **context: None)
    watch.turn()
    registry.live_processes(time.time() * 1000)
    registry.update_metric()
    recorded_steps(service.client, service.keys)


def consistency(service: Service) -> None:
    list(Consistency(service.client, service.keys, service.database_url).compare())


OPERATIONS: Sequence[Callable[[Service], None]] = (
    commands_of_a_principal,
    commands_without_a_principal,
    reads,
    the_check_of_writes,
    the_list,
    links,
    a_sweep,
    leases,
    lost_deadlines_and_lists,
    numbers_of_live_sessions,
    the_outbox,
    counts_of_the_queue,
    outcomes,
    processes,
    consistency,
)


@pytest.fixture(params=["one_server", "cluster"])
def url(request: pytest.FixtureRequest, redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """A server that is taken for a cluster but refuses nothing, so that all commands are seen; and a real one."""
    if request.param == "cluster":
        return str(request.getfixturevalue("valkey_cluster").url)
    monkeypatch.setattr(ConnectionPool, "is_cluster", True)
    return redis_url


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda operation: operation.__name__)
def test_all_keys_of_a_command_are_in_one_slot(
    operation: Callable[[Service], None],
    url: str,
    redis: Redis,
    database_url: str,
    db: psycopg2.extensions.connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = Settings(redis_url=url, sync_buckets=64)
    client = connect(settings)
    store = SessionStore(client, settings)
    session_id = store.create(chess_request(), Claim(principal=ADA)).found.session_id
    store.start(session_id)
    recorder = Recorder(monkeypatch)
    operation(Service(settings, client, Keyspace(64), store, database_url, session_id))
    monkeypatch.undo()
    client.close()
    assert crossing(redis, recorder) == []


def test_keys_of_two_slots_are_noticed(redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with connect(Settings(redis_url=redis_url)) as client:
        recorder = Recorder(monkeypatch)
        client.mget("sync:{a}:1", "sync:{a}:2")
        client.mget("sync:{a}:1", "sync:{b}:2")
        pool_of(client).call(packed("EVAL", "return 1", 2, "{a}", "{b}"), packed("TIME"))
    monkeypatch.undo()
    assert len(crossing(redis, recorder)) == 2


def crossing(redis: Redis, recorder: Recorder) -> list[str]:
    """Return the commands whose keys are in more than one slot, or of which the pool of a cluster finds no key."""
    commands = {tuple(words) for words in recorder.commands()}
    assert commands
    found = []
    for words in commands:
        keys = keys_of(redis, words)
        known = key_of(packed(*words))
        if len(set(map(key_slot, keys))) > 1 or (known not in keys if keys else known is not None):
            found.append(b" ".join(words).decode(errors="replace")[:300])
    return found


def keys_of(redis: Any, words: Sequence[bytes]) -> list[bytes]:
    """Return the keys of a command, as the server sees them."""
    try:
        keys: list[str] = redis.execute_command("COMMAND GETKEYS", *words)
    except redis_py.ResponseError as error:
        assert str(error).startswith(WITHOUT_KEYS), error  # noqa: PT017 any other error would hide keys
        return []
    return [key.encode() for key in keys]

"""A Redis whose memory is full: what is refused, what still works, and how it empties again by itself."""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import redis as redis_py
import requests
from flask import Flask

from syncapp import cli, create_app
from syncapp.audit.drain import Drain
from syncapp.audit.log import AuditLog
from syncapp.audit.outbox import Outbox
from syncapp.audit.queue_stats import QueueCounts
from syncapp.dev.runner import App, app_env
from syncapp.dev.servers import Postgres, Servers, Valkey
from syncapp.domain.results import Claim, Result
from syncapp.errors import StoreFull, StoreUnavailable
from syncapp.postgres.database import Database, upgrade
from syncapp.store.client import connect
from syncapp.store.sessions import SessionStore
from syncapp.store.sweeper import Sweeper
from tests.conftest import FAST_POSTGRES, Cluster
from tests.support.captured_logs import logged
from tests.support.store import chess, settings
from tests.support.web_clients import eventually
from tests.test_tasks import KEYS

MIB = 1_048_576
CREATE = {"sync_mode": "global", "total_time_ms": 3_600_000}
ENV = {
    "AUDIT_RETRIES": "1",
    "AUDIT_RETRY_DELAY_S": "1",
    "AUDIT_LAG_ALERT_S": "1",
    "ALERT_INTERVAL_S": "0",
    "LOG_FORMAT": "json",
}


class Full:
    """Servers of this module alone: a Valkey whose memory can be made full, and a PostgreSQL to stop."""

    def __init__(self, servers: Servers, directory: Path) -> None:
        assert servers.valkey
        assert servers.postgres
        self.servers = servers
        self.valkey: Valkey = servers.valkey
        self.postgres: Postgres = servers.postgres
        self.directory = directory
        self.redis = redis_py.Redis.from_url(servers.redis_url)
        self.chosen = settings(servers.redis_url, database_url=servers.database_url, memory_limit_percent=0)
        self.store = SessionStore(connect(self.chosen), self.chosen)

    @property
    def used(self) -> int:
        return int(self.redis.info("memory")["used_memory"])

    @property
    def left(self) -> int:
        return sum(self.redis.xlen(KEYS.outbox(bucket)) for bucket in range(16))

    def fill(self, *, mib: int = 8) -> list[str]:
        """Make sessions and commit to them until memory is full; return their ids."""
        self.redis.config_set("maxmemory", self.used + mib * MIB)
        sessions = [self.store.create(chess(3_600_000)).found.session_id for _ in range(8)]
        for session in sessions:
            self.store.start(session)
        with suppress(StoreUnavailable):
            while True:
                for session in sessions:
                    self.store.update(session, {"text": uuid.uuid4().hex * 400})
        with suppress(StoreUnavailable):
            while True:
                for session in sessions:
                    self.store.switch(session)
        # A few connections that end must not make it less than full.
        self.redis.config_set("maxmemory", self.used - MIB // 2)
        return sessions

    def no_limit(self) -> None:
        self.redis.config_set("maxmemory", 0)

    def dump(self) -> dict[bytes, tuple[Any, int]]:
        """All keys but the list of processes and those that expire within a second."""
        passing = re.compile(rb"sweeper|nudge|:ready$|processes$")
        keys = sorted(key for key in self.redis.scan_iter(count=1000) if not passing.search(key))
        # DUMP tells a hash's fields in an order of their own.
        hashes = {key for key in keys if self.redis.type(key) == b"hash"}
        return {
            key: (self.redis.hgetall(key) if key in hashes else self.redis.dump(key), self.redis.pexpiretime(key))
            for key in keys
        }

    def flask(self, *words: str) -> tuple[int, str]:
        """Run a command of `flask`; return its exit code and what it printed."""
        app = Flask("test")
        cli.register(app, self.chosen)
        with logged():
            done = app.test_cli_runner().invoke(args=words)
        return done.exit_code, done.output

    def check_that_all_is_well(self) -> None:
        """Everything works, and the log is as committed."""
        session = self.store.create(chess(3_600_000)).found.session_id
        self.store.start(session)
        assert self.store.switch(session).found.cycle_count == 1
        if self.left:
            code, printed = self.flask("audit", "drain")
            assert code == 0, printed
        code, printed = self.flask("audit", "verify")
        assert code == 0, printed


@pytest.fixture(scope="module")
def own(run_directory: Path) -> Iterator[Full]:
    directory = run_directory / "full"
    directory.mkdir()
    options = ("--maxmemory-policy", "noeviction", "--busy-reply-threshold", "100")
    with Servers(directory, valkey_options=options, postgres_options=FAST_POSTGRES) as servers:
        upgrade(servers.database_url)
        yield Full(servers, directory)


@pytest.fixture
def full(own: Full) -> Iterator[Full]:
    """The servers of this module, empty, and without a limit; both run again at the end."""
    own.redis.flushall()
    own.no_limit()
    with closing(psycopg2.connect(own.servers.database_url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("SET syncapp.allow_changes = 'on'")
        cursor.execute(r"SELECT string_agg(tablename, ', ') FROM pg_tables WHERE tablename LIKE 'sync\_%'")
        cursor.execute(f"TRUNCATE {(cursor.fetchone() or ('',))[0]} CASCADE")
    yield own
    own.no_limit()
    if not own.postgres.alive:
        own.postgres.start()


@contextmanager
def processes(full: Full, *, web: int = 1, **env: str) -> Iterator[Cluster]:
    """Web processes and a worker on these servers."""
    directory = full.directory / f"cluster-{time.monotonic_ns()}"
    directory.mkdir()
    with Cluster(full.servers, directory, web=web, worker=True, env=ENV | env) as cluster:
        yield cluster


@contextmanager
def worker(full: Full, **env: str) -> Iterator[App]:
    """A worker alone."""
    log = full.directory / f"worker-{time.monotonic_ns()}.log"
    process = App("worker", app_env({}, full.servers) | ENV | env, directory=full.directory, output=log)
    process.spawn()
    try:
        yield process
    finally:
        process.stop()


def told(process: App, event: str) -> list[dict[str, Any]]:
    """Return the lines of a process's log of one kind."""
    lines = [json.loads(line) for line in process.output().splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("event") == event]


# What empties again


def test_a_full_store_empties_by_itself_when_postgresql_is_back(full: Full) -> None:
    with processes(full) as cluster:
        url = f"{cluster.urls[0]}/v1/sessions"
        full.postgres.stop()
        sessions = full.fill()
        before = full.dump()
        refused = requests.post(f"{url}/{sessions[0]}/switch", timeout=30)
        assert (refused.status_code, refused.json()["error"]["details"]["reason"]) == (503, "OutOfMemoryError")
        refused = requests.post(url, json=CREATE, timeout=30)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "STORE_FULL")
        assert refused.headers["Retry-After"] == "30"
        assert requests.get(f"{url}/{sessions[0]}", timeout=30).status_code == 200
        assert {key: held for key, held in full.dump().items() if b"huey" not in key and b"outbox" not in key} == {
            key: held for key, held in before.items() if b"huey" not in key and b"outbox" not in key
        }
        # Alerts are sent although nothing can be written to Redis.
        eventually(lambda: told(cluster.worker, "drain_gave_up") and told(cluster.worker, "audit_lag"), within_s=60)
        assert (
            told(cluster.worker, "drain_gave_up")[-1]["waiting"] + told(cluster.worker, "drain_gave_up")[-1]["active"]
        )
        waiting = full.left
        assert waiting > 500
        full.postgres.start()
        began_s = time.monotonic()
        eventually(lambda: full.left == 0, within_s=60)
        print(f"{waiting} events were stored {time.monotonic() - began_s:.1f} s after PostgreSQL was back")
        assert requests.post(f"{url}/{sessions[0]}/switch", timeout=30).status_code == 200
        full.redis.config_set("maxmemory", full.used * 2)
        assert requests.post(url, json=CREATE, timeout=30).status_code == 201
        eventually(lambda: full.left == 0, within_s=60)
        assert "Traceback" not in cluster.worker.output()
    full.check_that_all_is_well()


def test_a_worker_that_starts_while_the_store_is_full_and_has_no_groups_empties_it(full: Full) -> None:
    full.fill()
    with suppress(redis_py.ResponseError):
        for bucket in range(16):
            full.redis.xgroup_destroy(KEYS.outbox(bucket), "audit")
    with pytest.raises(redis_py.exceptions.OutOfMemoryError):
        full.redis.xgroup_create(KEYS.outbox(0), "audit", "0", mkstream=True)
    with worker(full):
        eventually(lambda: full.left == 0, within_s=60)
    full.check_that_all_is_well()


def test_a_worker_whose_queue_takes_nothing_drains_all_the_same(full: Full) -> None:
    with worker(full) as process:
        eventually(lambda: full.redis.exists(KEYS.outbox(15)))  # its groups are made
        full.redis.flushall()
        full.redis.set("huey.redis.syncapp", "no list")
        session = full.store.create(chess(3_600_000)).found.session_id
        for _ in range(3):  # each time found by the sweep alone
            full.store.update(session, {"at": time.monotonic_ns()})
            eventually(lambda: full.left == 0, within_s=60)
        assert process.alive
        full.redis.delete("huey.redis.syncapp")
        full.store.update(session, {"at": 0})
        eventually(lambda: full.left == 0, within_s=60)
        eventually(lambda: full.redis.hget(KEYS.tally(), "completed") == b"5", within_s=30)
    full.check_that_all_is_well()


def test_a_retry_that_huey_lost_is_made_by_the_worker(full: Full) -> None:
    full.postgres.stop()
    session = full.store.create(chess(3_600_000)).found.session_id
    with worker(full, AUDIT_RETRIES="5") as process:
        eventually(lambda: full.redis.zcard("huey.schedule.syncapp"))
        with over_and_over(lambda: full.redis.delete("huey.schedule.syncapp")):
            eventually(lambda: len(told(process, "drain_failed")) >= 3, within_s=60)
        assert [line["retries_left"] for line in told(process, "drain_failed")][:3] == [5, 4, 3]
    full.postgres.start()
    full.check_that_all_is_well()
    assert full.store.get(session).found.version == 1


@contextmanager
def over_and_over(act: Callable[[], Any]) -> Iterator[None]:
    """Do something over and over on a thread."""
    stopping = threading.Event()

    def run() -> None:
        while not stopping.wait(0.02):
            act()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def test_buckets_that_wait_for_postgresql_are_drained_when_it_is_back_and_not_when_their_retry_is_due(
    full: Full,
) -> None:
    full.postgres.stop()
    for _ in range(20):
        full.store.create(chess(3_600_000))
    with worker(full, AUDIT_RETRY_DELAY_S="3600") as process:
        eventually(lambda: told(process, "drain_failed"))
        full.postgres.start()
        eventually(lambda: full.left == 0, within_s=60)
    full.check_that_all_is_well()


def test_the_watch_of_a_worker_survives_a_store_that_is_busy(full: Full) -> None:
    with worker(full) as process:
        eventually(lambda: full.redis.exists(KEYS.outbox(15)))
        with ExitStack() as stack, suppress(redis_py.RedisError):
            patient = stack.enter_context(redis_py.Redis.from_url(full.servers.redis_url, socket_timeout=60))
            blocked = threading.Thread(target=lambda: _run_for_ever(patient))
            blocked.start()
            eventually(lambda: told(process, "sweep_failed"), within_s=60)
            full.redis.script_kill()
            blocked.join()
        full.store.create(chess())  # nobody nudges
        eventually(lambda: full.left == 0, within_s=60)
        assert len(told(process, "sweep_failed")) == 1
    full.check_that_all_is_well()


def _run_for_ever(client: redis_py.Redis) -> None:
    with suppress(redis_py.RedisError):
        client.eval("while true do end", 0)


def test_a_batch_of_any_size_is_removed_at_once_from_a_full_store(full: Full) -> None:
    with full.redis.pipeline(transaction=False) as pipe:
        for number in range(10_000):
            pipe.xadd(KEYS.outbox(1), {"message": str(number)})
        pipe.execute()
    outbox = Outbox(connect(full.chosen, decode=False), KEYS)
    full.redis.config_set("maxmemory", 1)
    entries = outbox.read_new(1, 10_000)
    assert len(entries) == 10_000
    outbox.acknowledge(1, entries)
    assert (full.left, full.redis.xpending(KEYS.outbox(1), "audit")["pending"]) == (0, 0)
    full.no_limit()
    full.check_that_all_is_well()


# What is counted


def test_what_cannot_be_counted_fails_no_drain_and_repeats_no_batch_and_is_counted_later(full: Full) -> None:
    session = full.store.create(chess(3_600_000)).found.session_id
    full.store.start(session)
    for _ in range(98):
        full.store.switch(session)
    full.redis.set(KEYS.tally(), "no hash")
    client = connect(full.chosen, decode=False)
    outbox, tally, stored = Outbox(client, KEYS), QueueCounts(client, KEYS), []

    def count(completed: int, failed: int) -> None:
        stored.append(completed)
        tally.add(completed, failed)

    with closing(Database(full.servers.database_url)) as database, logged() as logs:
        drain = Drain(outbox, AuditLog(database), batch=10, count=count)
        assert drain.run_all() == (100, {})
        full.redis.delete(KEYS.tally())
        full.store.switch(session)
        assert drain.run_all() == (1, {})
    assert stored == [10] * 10 + [1]
    assert tally.read().completed == 101
    assert [line["event"] for line in logs] == ["tally_failed"]
    full.check_that_all_is_well()


def test_commands_of_operators_drain_a_full_store_and_go_on_after_a_bucket_that_fails(full: Full) -> None:
    sessions = full.fill()
    broken = next(bucket for bucket in range(16) if not full.redis.xlen(KEYS.outbox(bucket)))
    client = redis_py.Redis.from_url(full.servers.redis_url)
    client.eval("#!lua flags=allow-oom\nreturn redis.call('SET', KEYS[1], 'no stream')", 1, KEYS.outbox(broken))
    waiting = _left_but(full, broken)
    assert waiting > 500
    code, printed = full.flask("audit", "drain")
    assert (code, printed.count("\n")) == (1, 1)
    assert printed.startswith(f"Error: moved {waiting} events, but not all of buckets {broken} (WRONGTYPE")
    assert _left_but(full, broken) == 0
    client.delete(KEYS.outbox(broken))
    assert full.flask("audit", "drain") == (0, "Moved 0 events.\n")
    assert full.flask("audit", "status")[0] == 0
    assert full.store.get(sessions[0]).found.status == "running"
    full.no_limit()
    full.check_that_all_is_well()


def _left_but(full: Full, broken: int) -> int:
    return sum(full.redis.xlen(KEYS.outbox(bucket)) for bucket in range(16) if bucket != broken)


def test_dead_letters_are_driven_and_sessions_recovered_though_the_store_is_full(full: Full) -> None:
    lost = full.store.create(chess(3_600_000)).found.session_id
    kept = full.store.create(chess(3_600_000)).found.session_id
    full.redis.xadd(KEYS.outbox(0), {"message": "nothing of ours"})
    assert full.flask("audit", "drain")[0] == 0
    full.redis.delete(KEYS.session(lost))
    full.redis.config_set("maxmemory", 1)
    code, printed = full.flask("audit", "redrive")
    assert code == 0
    assert printed.startswith("0 dead letters went through, 1 did not.\nTheir count in Redis stays as it was")
    code, printed = full.flask("sessions", "recover", "--all")
    assert code == 1
    assert "1 current, 1 failed" in printed
    assert f"{lost} failed: the store takes no commands now" in printed
    full.no_limit()
    assert full.flask("sessions", "recover", "--all")[0] == 0
    assert {full.store.get(each).found.status for each in (lost, kept)} == {"pending"}
    full.check_that_all_is_well()


# What is refused


NEW = "0b54a2a1-4f0e-4b9e-8d58-0e9f6a3f2c11"
COMMANDS: dict[str, Callable[[SessionStore, str, Claim], Result]] = {
    "create": lambda store, session, claim: store.create(chess(session_id=NEW), claim),
    "start": lambda store, session, claim: store.start(session, claim),
    "switch": lambda store, session, claim: store.switch(session, claim),
    "pause": lambda store, session, claim: store.pause(session, claim),
    "resume": lambda store, session, claim: store.resume(session, claim),
    "adjust": lambda store, session, claim: store.adjust(session, claim, op="add", ms=1000),
    "update": lambda store, session, claim: store.update(session, {"a": "b"}, claim),
    "complete": lambda store, session, claim: store.complete(session, claim),
    "cancel": lambda store, session, claim: store.cancel(session, claim, reason="full"),
    "delete": lambda store, session, claim: store.delete(session, claim),
}
STATUS_FOR = {"start": "pending", "resume": "paused"}


@pytest.mark.parametrize("key", [None, "k"], ids=["bare", "keyed"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_store_takes_what_frees_memory_and_refuses_the_rest_unchanged(
    full: Full, name: str, key: str | None
) -> None:
    session = full.store.create(chess(3_600_000)).found.session_id
    if name != "start":
        full.store.start(session)
    if name == "resume":
        full.store.pause(session)
    claim = Claim(idempotency_key=key)
    full.redis.config_set("maxmemory", 1)
    before = full.dump()
    if name in ("complete", "cancel", "delete"):
        done = COMMANDS[name](full.store, session, claim)
        assert done.event_json
        if key:
            again = COMMANDS[name](full.store, session, claim)
            assert (again.replayed, again.event_json) == (True, done.event_json)
    else:
        with pytest.raises(StoreUnavailable, match="nothing was changed"):
            COMMANDS[name](full.store, session, claim)
        assert full.dump() == before
        assert full.store.get(session).found.version == {"start": 1, "resume": 3}.get(name, 2)
    full.no_limit()
    if name not in ("complete", "cancel", "delete"):
        assert not COMMANDS[name](full.store, session, claim).replayed
    full.check_that_all_is_well()


def test_what_frees_memory_and_finds_nothing_to_do_leaves_no_record_in_a_full_store(full: Full) -> None:
    completed, cancelled = (full.store.create(chess()).found.session_id for _ in range(2))
    full.store.complete(completed, Claim(idempotency_key="first"))
    full.store.cancel(cancelled)
    calls: list[Callable[[Claim], Result]] = [
        lambda claim: full.store.complete(completed, claim),
        lambda claim: full.store.cancel(cancelled, claim),
        lambda claim: full.store.delete(str(uuid.UUID(int=1)), claim),
    ]
    full.redis.config_set("maxmemory", 1)
    before = full.dump()
    for call in calls:
        with pytest.raises(StoreFull):
            call(Claim(idempotency_key="second"))
        assert call(Claim()).event_json == ""
    assert full.store.complete(completed, Claim(idempotency_key="first")).replayed
    assert full.dump() == before
    full.no_limit()
    for call in calls:
        assert call(Claim(idempotency_key="second")).event_json == ""
    full.check_that_all_is_well()


def test_sessions_that_are_there_can_all_be_ended_and_deleted_in_a_full_store(full: Full) -> None:
    sessions = [full.store.create(chess(3_600_000)).found.session_id for _ in range(100)]
    for session in sessions:
        full.store.start(session)
    before = full.used
    full.redis.config_set("maxmemory", before // 2)
    for number, session in enumerate(sessions):
        (full.store.complete if number % 2 else full.store.cancel)(session, Claim(idempotency_key="end"))
    print(f"ending a session in a full store added {(full.used - before) / len(sessions):.0f} bytes of it")
    for session in sessions:
        full.store.delete(session, Claim(idempotency_key="gone"))
    assert full.used < before + 100 * 10_000
    full.no_limit()
    full.check_that_all_is_well()


def test_what_is_due_shows_as_soon_as_there_is_memory_again(full: Full) -> None:
    sessions = [full.store.create(chess(3_600_000)).found.session_id for _ in range(30)]
    for session in sessions:
        full.store.start(session)
    sweeper = Sweeper(connect(full.chosen), full.store)
    later_ms = full.store.time_ms() + 3_700_000
    for session in sessions:
        full.store.adjust(session, op="set", ms=1)
    full.redis.config_set("maxmemory", 1)
    before = full.dump()
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="nothing was changed"):
            sweeper.run_once(later_ms)
    assert full.dump() == before
    with pytest.raises(StoreUnavailable):  # a read would have to write what is due
        full.store.get(sessions[0])
    full.no_limit()
    eventually(lambda: sweeper.run_once(later_ms).sessions == 0)  # none of them was set aside
    assert {full.store.peek(session).version for session in sessions} == {4}  # type: ignore[union-attr]
    full.check_that_all_is_well()


# New sessions


def test_new_sessions_are_refused_by_a_share_of_memory_and_others_go_on(full: Full) -> None:
    store = SessionStore(connect(full.chosen), replace(full.chosen, memory_limit_percent=80))
    made = Claim(idempotency_key=str(uuid.uuid4()))
    running = store.create(chess(), made).found.session_id
    store.start(running)
    full.redis.config_set("maxmemory", int(full.used / 0.9))
    before = full.dump()
    for claim in (Claim(), Claim(idempotency_key=str(uuid.uuid4()))):
        with pytest.raises(StoreFull, match="nothing was changed") as refused:
            store.create(chess(), claim)
        assert refused.value.details == {"retry_after_s": 30}
    assert full.dump() == before
    assert store.create(chess(), made).replayed
    assert store.switch(running).found.cycle_count == 1
    full.store.create(chess())  # its limit is 0: none
    full.redis.config_set("maxmemory", int(full.used / 0.7))
    store.create(chess())
    full.no_limit()
    store.create(chess())
    full.check_that_all_is_well()


def test_a_server_that_keeps_its_memory_to_itself_has_no_limit_of_ours(full: Full) -> None:
    full.redis.acl_setuser(
        "plain", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=["+@all", "-@dangerous", "-info"]
    )
    url = full.servers.redis_url.replace("redis://", "redis://plain:x@")
    chosen = replace(full.chosen, redis_url=url, memory_limit_percent=1)
    full.redis.config_set("maxmemory", full.used * 10)
    try:
        SessionStore(connect(chosen), chosen).create(chess())
        with pytest.raises(StoreFull):
            SessionStore(connect(full.chosen), replace(chosen, redis_url=full.servers.redis_url)).create(chess())
    finally:
        full.redis.acl_deluser("plain")
    full.no_limit()
    full.check_that_all_is_well()


# What tells of it


def test_the_queue_is_unavailable_and_the_metrics_answer_whatever_redis_replies(full: Full) -> None:
    client = create_app(full.chosen).test_client()

    def check(status: int) -> None:
        with logged():
            answer = client.get("/v1/audit/queue")
            assert answer.status_code == status
            if status == 503:
                assert answer.get_json()["error"]["code"] == "STORE_UNAVAILABLE"
            answer = client.get("/metrics")
            assert (answer.status_code, "syncapp_audit_queue" in answer.text) == (200, True)

    check(200)
    for key in (KEYS.tally(), KEYS.outbox(3), "huey.schedule.syncapp"):
        full.redis.set(key, "of another type")
        check(503)
        full.redis.delete(key)
    full.redis.hset(KEYS.tally(), "completed", "no number")
    check(503)
    full.redis.delete(KEYS.tally())
    patient = redis_py.Redis.from_url(full.servers.redis_url, socket_timeout=60)
    blocked = threading.Thread(target=_run_for_ever, args=[patient])
    blocked.start()
    try:
        eventually(lambda: _is_busy(full.redis))
        check(503)
    finally:
        full.redis.script_kill()
        blocked.join()
        patient.close()
    check(200)
    full.check_that_all_is_well()


def _is_busy(client: redis_py.Redis) -> bool:
    try:
        client.get("any")
    except redis_py.ResponseError as error:
        return str(error).startswith("BUSY")
    return False


def test_a_worker_with_fewer_connections_than_threads_takes_what_it_needs_and_says_so_once(full: Full) -> None:
    for _ in range(20):
        full.store.create(chess(3_600_000))
    with worker(full, REDIS_MAX_CONNECTIONS="1", WORKER_THREADS="4") as process:
        eventually(lambda: full.left == 0, within_s=60)
        (line,) = told(process, "redis_max_connections_too_small")
        assert (line["level"], line["setting"], line["value"], line["used"]) == (
            "warning",
            "REDIS_MAX_CONNECTIONS",
            1,
            9,
        )
        assert "No connection available" not in process.output()
    full.check_that_all_is_well()

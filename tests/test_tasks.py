"""Drains, the queue that asks for them, and real workers that are killed or find no PostgreSQL."""

from __future__ import annotations

import gc
import importlib
import json
import logging
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import psycopg2
import pytest
import redis as redis_py
from flask import Flask
from huey.registry import Message
from redis.exceptions import RedisError

from syncapp import cli, task_queue
from syncapp.audit.drain import Drain, Drained
from syncapp.audit.event import OutboxEntry
from syncapp.audit.log import AuditLog, Stored
from syncapp.audit.outbox import Outbox
from syncapp.dev.processes import free_port
from syncapp.dev.runner import App, app_env
from syncapp.dev.servers import Postgres, Servers
from syncapp.postgres.database import Database, upgrade
from syncapp.store.client import connect
from syncapp.store.keys import Keyspace
from tests.support.captured_logs import logged
from tests.support.store import chess, make_store, settings
from tests.support.web_clients import eventually

Db = psycopg2.extensions.connection
KEYS = Keyspace(16)


def count(db: Db, query: str = "SELECT count(*) FROM sync_events") -> int:
    with db.cursor() as cursor:
        cursor.execute(query)
        return int(cursor.fetchone()[0])  # type: ignore[index]


def play(redis_url: str, sessions: int, switches: int) -> int:
    """Create, start and switch sessions, one after another; return how many commits that makes."""
    store = make_store(redis_url, set_clock=False)
    for _ in range(sessions):
        session_id = store.create(chess(3_600_000)).found.session_id
        store.start(session_id)
        for _ in range(switches):
            store.switch(session_id)
    return sessions * (2 + switches)


def left(client: redis_py.Redis) -> int:
    return sum(client.xlen(KEYS.outbox(bucket)) for bucket in range(16))


@pytest.fixture
def tasks(
    redis: redis_py.Redis, redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModuleType]:
    """The module of tasks as a process imports it that is told the run's servers."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.delitem(sys.modules, "syncapp.tasks", raising=False)
    module = importlib.import_module("syncapp.tasks")
    monkeypatch.setitem(sys.modules, "syncapp.tasks", module)  # the old one comes back at the end
    yield module
    for nudges in (module.worker._nudger, module.worker._own):
        nudges._act = lambda bucket: None  # what it still waits for is not for the next test
    module.worker.database.close()


@pytest.fixture
def audit(db: Db, database_url: str) -> Iterator[AuditLog]:
    ours = Database(database_url)
    yield AuditLog(ours)
    ours.close()


@pytest.fixture
def outbox(redis: redis_py.Redis, redis_url: str) -> Outbox:
    return Outbox(connect(settings(redis_url), decode=False), KEYS)


# Drains


def test_a_drain_moves_everything_in_batches_and_leaves_an_empty_stream(
    db: Db, audit: AuditLog, outbox: Outbox, redis: redis_py.Redis, redis_url: str
) -> None:
    commits = play(redis_url, 3, 50)
    drain = Drain(outbox, audit, batch=20)
    assert sum(drain.run(bucket).moved for bucket in outbox.buckets) == commits == count(db)
    assert left(redis) == 0
    assert all(drain.run(bucket) == Drained(0, more=False) for bucket in outbox.buckets)


def test_what_could_not_be_stored_is_not_acknowledged_and_comes_again(
    db: Db, audit: AuditLog, outbox: Outbox, redis: redis_py.Redis, redis_url: str
) -> None:
    commits = play(redis_url, 1, 20)
    bucket = next(bucket for bucket in range(16) if redis.xlen(KEYS.outbox(bucket)))
    away = Drain(outbox, AuditLog(Database(f"postgresql://127.0.0.1:{free_port()}/none")), batch=10)
    for _ in range(3):
        with pytest.raises(psycopg2.OperationalError):
            away.run(bucket)
    assert left(redis) == commits
    assert Drain(outbox, audit, batch=10).run(bucket).moved == commits == count(db)


def test_an_event_that_was_stored_but_not_acknowledged_is_stored_once(
    db: Db, audit: AuditLog, outbox: Outbox, redis_url: str, redis: redis_py.Redis
) -> None:
    commits = play(redis_url, 1, 20)
    for bucket in outbox.buckets:
        audit.store(outbox.read_new(bucket, 10))  # and then the reader dies
    survivor = Outbox(connect(settings(redis_url), decode=False), KEYS, reader="survivor")
    assert sum(Drain(survivor, audit, batch=10).run(bucket).moved for bucket in range(16)) == commits
    assert count(db) == commits
    assert left(redis) == 0


def test_a_drain_ends_when_its_time_is_up(
    audit: AuditLog, outbox: Outbox, redis_url: str, redis: redis_py.Redis
) -> None:
    play(redis_url, 1, 20)
    bucket = next(bucket for bucket in range(16) if redis.xlen(KEYS.outbox(bucket)))
    drain = Drain(outbox, audit, batch=5)
    assert drain.run(bucket, at_most_s=0) == Drained(5, more=True)
    assert drain.run(bucket) == Drained(17, more=False)


class SlowLog:
    """Stands where the audit log does, and stores nothing before it is told to."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.seen: list[bytes | None] = []

    def store(self, entries: list[OutboxEntry]) -> Stored:
        self.entered.set()
        assert self.go_on.wait(10)
        self.seen += [entry.raw for entry in entries]
        return Stored(len(entries))


def test_a_bucket_is_drained_by_one_thread_which_looks_again_when_another_came(
    outbox: Outbox, redis: redis_py.Redis
) -> None:
    log = SlowLog()
    drain = Drain(outbox, log, batch=10)  # type: ignore[arg-type]  # of an AuditLog it uses `store`
    redis.xadd(KEYS.outbox(3), {"message": "1"})
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(drain.run, 3)
        assert log.entered.wait(10)
        assert drain.run(3) == Drained(0, more=False)
        assert drain.run(4) == Drained(0, more=False)
        redis.xadd(KEYS.outbox(3), {"message": "2"})
        log.go_on.set()
        assert running.result(10) == Drained(2, more=False)
    assert log.seen == [b"1", b"2"]


# The queue


def test_messages_come_back_from_json_as_they_were() -> None:
    serializer = task_queue.JsonSerializer()
    naive, aware = datetime(2026, 1, 2, 3, 4, 5, 678_901), datetime(2026, 1, 2, tzinfo=UTC)  # noqa: DTZ001 Huey's are naive
    inner = Message("1", "other", args=(), kwargs={})
    message = Message(
        *("drain-7", "drain_bucket", naive, 0, 4.0, None, (7, (1, [2, None])), {"a": {"b": 1.5}}),
        on_error=inner,
        expires=timedelta(days=1, seconds=2, microseconds=3),
        expires_resolved=aware,
        retry_backoff=2.0,
    )
    for value in (message, inner, (None, True), 17.25, "text", [1, "2"], {"message": 1}, None):
        again = serializer.deserialize(serializer.serialize(value))
        assert again == value
        assert type(again) is type(value)
    assert serializer.deserialize(serializer.serialize(message)).args[1][1] == [2, None]


@pytest.mark.parametrize(
    "text", [b'{"os.system": ["true"]}', b'{"message": {"no": 1}}', b"\x80\x04.", b'{"datetime": "x"}']
)
def test_a_message_that_is_none_of_ours_is_refused(text: bytes) -> None:
    with pytest.raises((ValueError, TypeError)):
        task_queue.JsonSerializer().deserialize(text)


def test_a_drain_that_is_queued_is_not_queued_again_until_it_has_begun(tasks: ModuleType) -> None:
    for _ in range(50):
        for bucket in range(16):
            tasks.enqueue_drain(bucket)
    assert tasks.huey.pending_count() == 16
    first = tasks.huey.dequeue()
    assert (first.name, first.args, first.retries) == ("drain_bucket", (0,), 5)
    tasks.enqueue_drain(0)
    assert tasks.huey.pending_count() == 16


def test_a_retry_comes_back_from_the_schedule_as_it_was_put_there(tasks: ModuleType) -> None:
    task = tasks.drain_bucket.s(7, id="drain-7")
    task.eta, task.retries, task.retry_delay = datetime(2026, 1, 2, 3, 4, 5, 6), 2, 16.0  # noqa: DTZ001 Huey's are naive
    tasks.huey.add_schedule(task)
    (again,) = tasks.huey.read_schedule(datetime(2027, 1, 1))  # noqa: DTZ001
    assert (again.id, again.args, again.eta, again.retries, again.retry_delay, again.retry_backoff) == (
        *("drain-7", (7,), task.eta, 2, 16.0, 2.0),
    )


def test_importing_the_tasks_connects_to_nothing_and_nudges_do_not_wait_for_a_redis_that_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    monkeypatch.setenv("DATABASE_URL", f"postgresql://127.0.0.1:{free_port()}/none")
    monkeypatch.delitem(sys.modules, "syncapp.tasks", raising=False)
    before = set(threading.enumerate())
    module = importlib.import_module("syncapp.tasks")
    monkeypatch.setitem(sys.modules, "syncapp.tasks", module)
    assert set(threading.enumerate()) <= before
    with pytest.raises(RedisError):
        module.enqueue_drain(1)
    with logged() as logs:
        began = time.monotonic()
        nudges = module.Nudger(module.enqueue_drain)
        for _ in range(1000):
            nudges.nudge(1)
        assert time.monotonic() - began < 5
        eventually(lambda: logs)
        time.sleep(0.1)
        nudges._act = lambda bucket: None  # it would try again each second, and tell the next tests so
    assert {(line["log_level"], line["event"]) for line in logs} == {("debug", "nudge_failed")}


# Nudges


def test_a_nudge_waits_for_nobody_and_what_is_asked_for_twice_is_enqueued_once(tasks: ModuleType) -> None:
    enqueued: list[int] = []
    blocked = threading.Event()

    def enqueue(bucket: int) -> None:
        enqueued.append(bucket)
        blocked.wait(10)

    nudger = tasks.Nudger(enqueue)
    nudger.nudge(1)
    eventually(lambda: enqueued == [1])
    began = time.monotonic()
    for _ in range(1000):
        nudger.nudge(2)
        nudger.nudge(3)
    assert time.monotonic() - began < 5
    blocked.set()
    eventually(lambda: len(enqueued) >= 3)
    time.sleep(0.05)
    assert enqueued == [1, 2, 3]


def test_a_delayed_nudge_comes_when_it_is_due_and_an_earlier_one_before_it(tasks: ModuleType) -> None:
    enqueued: list[tuple[int, float]] = []
    began = time.monotonic()
    nudger = tasks.Nudger(lambda bucket: enqueued.append((bucket, time.monotonic() - began)))
    nudger.nudge(1, 0.3)
    nudger.nudge(2, 0.1)
    nudger.nudge(1, 30)
    eventually(lambda: len(enqueued) == 2)
    assert [bucket for bucket, _ in enqueued] == [2, 1]
    assert enqueued[0][1] >= 0.1
    assert 0.3 <= enqueued[1][1] < 20


def test_a_nudge_that_fails_is_tried_again_and_holds_up_no_other(tasks: ModuleType) -> None:
    enqueued: list[int] = []
    failures = iter([True])

    def enqueue(bucket: int) -> None:
        if bucket == 1 and next(failures, False):
            raise RedisError("away")
        enqueued.append(bucket)

    nudger = tasks.Nudger(enqueue)
    nudger.nudge(1)
    nudger.nudge(2)
    eventually(lambda: enqueued == [2, 1])


def test_a_nudge_does_not_raise_when_there_is_no_thread_to_be_had(
    tasks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueued: list[int] = []
    nudger = tasks.Nudger(enqueued.append)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("no thread")))
        nudger.nudge(1)
    nudger.nudge(2)
    eventually(lambda: sorted(enqueued) == [1, 2])


# Tasks, run here


def run_next(tasks: ModuleType) -> Any:
    task = tasks.huey.dequeue()
    tasks.huey.execute(task)
    return task


def test_a_drain_task_moves_its_bucket_and_asks_for_one_more_shortly_after(
    tasks: ModuleType, db: Db, redis: redis_py.Redis, redis_url: str
) -> None:
    commits = play(redis_url, 1, 10)
    bucket = next(bucket for bucket in range(16) if redis.xlen(KEYS.outbox(bucket)))
    tasks.worker.sweep()
    assert tasks.huey.pending_count() == 1
    began = time.monotonic()
    run_next(tasks)
    assert count(db) == commits
    assert tasks.huey.pending_count() == 0 or time.monotonic() - began > 0.4
    eventually(lambda: tasks.huey.pending_count() == 1)
    assert tasks.huey.pending()[0].args == (bucket,)
    run_next(tasks)  # moves nothing
    time.sleep(1.2)
    assert tasks.huey.pending_count() == 0


def test_while_a_retry_waits_nudges_leave_its_bucket_alone(
    tasks: ModuleType, db: Db, redis: redis_py.Redis, redis_url: str
) -> None:
    commits = play(redis_url, 1, 10)
    bucket = next(bucket for bucket in range(16) if redis.xlen(KEYS.outbox(bucket)))
    good, tasks.worker.database._url = tasks.worker.database._url, f"postgresql://127.0.0.1:{free_port()}/none"
    with logged() as logs:
        tasks.enqueue_drain(bucket)
        run_next(tasks)
        for _ in range(5):
            tasks.enqueue_drain(bucket)
            run_next(tasks)
    (line,) = logs
    assert (line["log_level"], line["event"], line["retries_left"], line["retry_in_s"]) == (
        "warning",
        "drain_failed",
        5,
        2,
    )
    assert (line["bucket"], line["waiting"] + line["active"]) == (bucket, commits)
    assert tasks.huey.scheduled_count() == 1
    (retry,) = tasks.huey.scheduled()
    assert 1 < (retry.eta - datetime.now(UTC).replace(tzinfo=None)).total_seconds() <= 2
    assert (retry.retries, retry.retry_delay) == (4, 4.0)

    tasks.worker.database._url = good
    tasks.huey.execute(retry, retry.eta)
    assert count(db) == commits
    commits += play(redis_url, 40, 0)
    tasks.enqueue_drain(bucket)
    run_next(tasks)
    assert redis.xlen(KEYS.outbox(bucket)) == 0


class Batch(list[OutboxEntry]):
    """A batch that can be watched going."""


def test_a_drain_that_failed_keeps_nothing_of_its_batch(
    tasks: ModuleType, redis: redis_py.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(redis_url, 1, 3)
    bucket = next(bucket for bucket in range(16) if redis.xlen(KEYS.outbox(bucket)))
    watched: list[weakref.ref[Batch]] = []

    def store(entries: list[OutboxEntry]) -> Stored:
        batch = Batch(entries)
        watched.append(weakref.ref(batch))
        raise psycopg2.OperationalError("away")

    monkeypatch.setattr(tasks.worker._drain._audit, "store", store)
    gc.collect()
    gc.disable()  # a worker collects rarely: nothing may wait for that
    try:
        tasks.enqueue_drain(bucket)
        run_next(tasks)
        assert [batch() for batch in watched] == [None]
    finally:
        gc.enable()


def test_the_last_retry_is_told_at_critical_and_the_sweep_begins_anew(
    tasks: ModuleType, redis: redis_py.Redis, redis_url: str
) -> None:
    play(redis_url, 1, 3)
    bucket = next(bucket for bucket in range(16) if redis.xlen(KEYS.outbox(bucket)))
    tasks.worker.database._url = f"postgresql://127.0.0.1:{free_port()}/none"
    delays = []
    with logged() as logs:
        tasks.enqueue_drain(bucket)
        task = tasks.huey.dequeue()
        for _ in range(6):
            delays.append(task.retry_delay)
            tasks.huey.execute(task, task.eta)
            task = (tasks.huey.read_schedule(datetime(2100, 1, 1)) or [None])[0]  # noqa: DTZ001
        assert task is None
    assert delays == [2, 4, 8, 16, 32, 64]
    assert [line["log_level"] for line in logs] == ["warning"] * 5 + ["critical"]
    told = logs[-1]
    assert (told["event"], told["bucket"], told["waiting"] + told["active"]) == ("drain_gave_up", bucket, 5)
    assert told["oldest_age_ms"] >= 0
    assert "refused" in told["error"]
    tasks.worker.sweep()
    assert tasks.huey.pending_count() == 1


def test_what_is_no_outage_is_told_with_its_traceback(tasks: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.worker, "_drain", None)
    tasks.enqueue_drain(1)
    with logged() as logs:
        run_next(tasks)
    assert [(line["event"], line["exc_info"]) for line in logs] == [("drain_failed", True)]
    assert tasks.huey.scheduled_count() == 1


def test_what_huey_says_of_a_redis_that_is_away_is_one_line(tasks: ModuleType) -> None:
    for error, is_kept in ((RedisError("timed out"), False), (ValueError("ours"), True)):
        fault = (type(error), error, None)
        record = logging.LogRecord("huey.consumer", logging.ERROR, "", 0, "Error reading %s", ("x",), fault)
        assert tasks.without_traceback(record)
        assert (record.exc_info is not None) is is_kept
        assert record.getMessage() == ("Error reading x" if is_kept else "Error reading x: timed out")


def test_a_sweep_asks_for_the_buckets_that_hold_anything(
    tasks: ModuleType, redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    redis.xadd(KEYS.outbox(3), {"message": "1"})
    redis.xadd(KEYS.outbox(9), {"message": "1"})
    Outbox(connect(settings(os.environ["REDIS_URL"])), KEYS, reader="dead").read_new(9, 1)
    tasks.worker.sweep()
    assert sorted(task.args for task in tasks.huey.pending()) == [(3,), (9,)]
    away = connect(settings(f"redis://127.0.0.1:{free_port()}/0"))
    monkeypatch.setattr(tasks.worker._watch, "_outbox", Outbox(away, KEYS))
    with logged() as logs:
        tasks.worker.sweep()
    assert [line["event"] for line in logs] == ["sweep_failed"]


def test_a_worker_starts_once_with_every_bucket_and_the_months_to_come(
    tasks: ModuleType, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.logs, "configure", lambda settings: None)
    monkeypatch.setattr(tasks, "collect_rarely", lambda: None)
    (last,) = names = sorted(partitions(db))[-1:]
    with db.cursor() as cursor:
        cursor.execute(f"DROP TABLE {names[0]}")
    for _ in range(4):
        tasks.worker.start()
    eventually(lambda: tasks.huey.pending_count() == 16)
    assert last in partitions(db)
    tasks.worker.database._url = f"postgresql://127.0.0.1:{free_port()}/none"
    tasks.worker.database.close()
    with logged() as logs:
        tasks.worker.make_partitions()
    assert [line["event"] for line in logs] == ["make_partitions_failed"]


def partitions(db: Db) -> list[str]:
    with db.cursor() as cursor:
        cursor.execute(r"SELECT tablename FROM pg_tables WHERE tablename LIKE 'sync\_events\_2%'")
        return [name for (name,) in cursor.fetchall()]


def test_the_periodic_tasks_come_each_minute_and_each_night(tasks: ModuleType) -> None:
    def due(hour: int, minute: int) -> list[str]:
        at = datetime(2026, 1, 2, hour, minute)  # noqa: DTZ001 Huey's are naive
        return sorted(task.name for task in tasks.huey.read_periodic(at))

    assert due(12, 34) == ["sweep"]
    assert due(12, 40) == ["count_letters", "sweep"]
    assert due(3, 17) == ["make_partitions", "sweep"]


# Commands


@pytest.fixture
def run(db: Db, redis: redis_py.Redis, redis_url: str, database_url: str) -> Callable[..., tuple[int, str]]:
    """What runs a command of `flask` and returns its exit code and what it printed."""

    def run(*words: str, **changes: str) -> tuple[int, str]:
        app = Flask("test")
        cli.register(app, settings(**({"redis_url": redis_url, "database_url": database_url} | changes)))
        with logged():  # where nothing has configured them, log lines would go to standard output
            done = app.test_cli_runner().invoke(args=words)
        return done.exit_code, done.output

    return run


def test_events_can_be_counted_and_drained_without_a_worker(
    run: Callable[..., tuple[int, str]], db: Db, redis: redis_py.Redis, redis_url: str
) -> None:
    commits = play(redis_url, 1, 10)
    bucket = next(bucket for bucket in range(16) if redis.xlen(KEYS.outbox(bucket)))
    code, printed = run("audit", "status")
    assert code == 0
    assert [line.split()[:3] for line in printed.splitlines()] == [
        ["bucket", "waiting", "active"],
        [str(bucket), str(commits), "0"],
        ["total", str(commits), "0"],
        ["completed", "0,", "failed"],
    ]
    assert run("audit", "drain") == (0, f"Moved {commits} events.\n")
    assert run("audit", "drain") == (0, "Moved 0 events.\n")
    assert count(db) == commits
    assert f"completed {commits}, failed 0, delayed 0, " in run("audit", "status")[1]


@pytest.fixture
def no_fives(db: Db) -> Iterator[Callable[[], None]]:
    """A database that refuses every fifth version, until it is called."""

    def allow() -> None:
        with db.cursor() as cursor:
            cursor.execute("ALTER TABLE sync_events DROP CONSTRAINT IF EXISTS no_fives")

    with db.cursor() as cursor:
        cursor.execute("ALTER TABLE sync_events ADD CONSTRAINT no_fives CHECK (version % 5 > 0)")
    yield allow
    allow()


def test_dead_letters_are_driven_again_and_kept(
    run: Callable[..., tuple[int, str]],
    db: Db,
    audit: AuditLog,
    redis: redis_py.Redis,
    redis_url: str,
    no_fives: Callable[[], None],
) -> None:
    commits = play(redis_url, 1, 10)
    bucket = next(bucket for bucket in range(16) if redis.xlen(KEYS.outbox(bucket)))
    redis.xadd(KEYS.outbox(bucket), {"message": "nothing of ours"})
    assert run("audit", "drain") == (0, f"Moved {commits + 1} events.\n")
    assert (count(db), count(db, "SELECT count(*) FROM sync_dead_letters")) == (commits - 2, 3)
    assert "failed 3" in run("audit", "status")[1]
    assert run("audit", "redrive") == (0, "0 dead letters went through, 3 did not.\n")
    assert count(db, "SELECT count(*) FROM sync_dead_letters") == 3
    no_fives()
    assert run("audit", "redrive") == (0, "2 dead letters went through, 1 did not.\n")
    assert run("audit", "redrive") == (0, "0 dead letters went through, 1 did not.\n")
    assert (count(db), count(db, "SELECT count(*) FROM sync_dead_letters")) == (commits, 3)
    assert "failed 1" in run("audit", "status")[1]
    assert run("audit", "verify")[0] == 0


def test_a_divergence_does_not_go_through_when_it_is_driven_again(
    run: Callable[..., tuple[int, str]], audit: AuditLog, redis: redis_py.Redis, redis_url: str
) -> None:
    play(redis_url, 1, 1)
    bucket = next(bucket for bucket in range(16) if redis.xlen(KEYS.outbox(bucket)))
    entries: Any = redis.xrange(KEYS.outbox(bucket))
    redis.xadd(KEYS.outbox(bucket), {"message": entries[1][1][b"message"].replace(b"client", b"system")})
    assert run("audit", "drain")[0] == 0
    assert run("audit", "redrive") == (0, "0 dead letters went through, 1 did not.\n")


def test_retention_drops_months_that_are_over_and_no_longer_written_to(
    run: Callable[..., tuple[int, str]], db: Db
) -> None:
    def make(months_ago: int, latest: str) -> str:
        with db.cursor() as cursor:
            cursor.execute(
                "SELECT to_char(month, '\"sync_events_\"YYYY_MM'), extract(epoch FROM month)::bigint * 1000,"
                " extract(epoch FROM month + interval '1 month')::bigint * 1000"
                " FROM (SELECT date_trunc('month', now(), 'UTC') - make_interval(months => %s) AS month) AS made",
                [months_ago],
            )
            name, low, high = cursor.fetchone()  # type: ignore[misc]
            cursor.execute(f"CREATE TABLE {name} PARTITION OF sync_events FOR VALUES FROM ({low}) TO ({high})")
            cursor.execute(
                "INSERT INTO sync_events (session_id, epoch, version, event_type, at, sync_mode, status, cycle_count,"
                " actor, patch, message, content_hash) VALUES (gen_random_uuid(), %s, 1, 'session_created',"
                f" now() - interval '{latest}', 'global', 'pending', 0, 'client', '{{}}', '{{}}', '')",
                [low],
            )
        return str(name)

    old, lived_long, older, recent = (
        make(15, "14 months"),
        make(16, "1 day"),
        make(17, "17 months"),
        make(12, "12 months"),
    )
    try:
        assert run("audit", "retention", "--months", "13") == (0, f"Dropped {older}, {old}.\n")
        assert run("audit", "retention", "--months", "13") == (0, "There is nothing to drop.\n")
        assert {lived_long, recent} <= set(partitions(db))
        assert not {old, older} & set(partitions(db))
        assert count(db) == 2
        assert count(db, "SELECT count(*) FROM sync_dropped_partitions WHERE to_epoch > from_epoch") == 2
        assert run("audit", "retention", "--months", "0")[0] == 2
        assert run("audit", "retention")[0] == 2
    finally:
        with db.cursor() as cursor:
            cursor.execute(f"DROP TABLE IF EXISTS {old}, {lived_long}, {older}, {recent}")


def test_commands_fail_in_one_line(run: Callable[..., tuple[int, str]], redis: redis_py.Redis) -> None:
    redis.xadd(KEYS.outbox(1), {"message": "1"})
    nowhere = f"postgresql://127.0.0.1:{free_port()}/none"
    for words, away in (
        (("audit", "drain"), {"database_url": nowhere}),
        (("audit", "status"), {"redis_url": f"redis://127.0.0.1:{free_port()}/0"}),
        (("db", "upgrade"), {"database_url": nowhere}),
    ):
        code, printed = run(*words, **away)
        assert code == 1
        assert printed.startswith("Error: ")
        assert "refused" in printed
        assert printed.count("\n") == 1


def test_db_upgrade_says_what_it_did(run: Callable[..., tuple[int, str]]) -> None:
    assert run("db", "upgrade") == (0, "The database is up to date.\n")


# Real workers


@pytest.fixture
def workers(servers: Servers, run_directory: Path) -> Iterator[Callable[..., App]]:
    """What makes workers, not started, with settings of their own."""
    with ExitStack() as stack:

        def make(**env: str) -> App:
            log = run_directory / f"worker-{time.monotonic_ns()}.log"
            worker = App("worker", app_env(os.environ, servers) | env, directory=run_directory, output=log)
            stack.callback(worker.stop)
            return worker

        yield make


def more_than(db: Db, goal: int) -> Callable[[], bool]:
    return lambda: count(db) > goal


def test_a_worker_that_is_killed_while_it_drains_leaves_every_event_to_be_stored_once(
    db: Db, workers: Callable[..., App], redis: redis_py.Redis, redis_url: str
) -> None:
    commits = play(redis_url, 50, 98)
    assert commits == left(redis) == 5000
    # What a killed worker held is not left alone until somebody may claim it.
    worker = workers(AUDIT_BATCH="25", AUDIT_CLAIM_IDLE_S="600")
    for goal in (200, 600, 1000):
        worker.spawn()
        eventually(more_than(db, goal))
        worker.kill()
    assert count(db) < commits
    worker.spawn()
    eventually(lambda: left(redis) == 0, within_s=120)
    assert count(db) == commits == count(db, "SELECT count(DISTINCT (session_id, epoch, version)) FROM sync_events")
    assert count(db, "SELECT count(*) FROM sync_events WHERE event_type = 'cycle_switched'") == 50 * 98
    assert count(db, "SELECT sum(cycle_count) FROM sync_sessions") == 50 * 98
    assert count(db, "SELECT count(*) FROM sync_dead_letters") == 0


def test_when_all_is_well_an_event_is_stored_without_waiting_for_a_sweep(
    db: Db, workers: Callable[..., App], tasks: ModuleType, redis_url: str
) -> None:
    workers().spawn()
    store = make_store(redis_url, set_clock=False, on_nudge=tasks.Nudger(tasks.enqueue_drain).nudge)
    session_id = store.create(chess(3_600_000)).found.session_id
    store.start(session_id)
    eventually(lambda: count(db) == 2)
    for number in range(100):
        store.switch(session_id)
        time.sleep(0.04 if number % 20 else 0.9)  # bursts, and pauses as long as the nudges are held back
    eventually(lambda: count(db) == 102)
    with db.cursor() as cursor:
        cursor.execute(
            "SELECT percentile_disc(array[0.5, 0.95, 1]) WITHIN GROUP (ORDER BY extract(epoch FROM stored_at - at))"
            " FROM sync_events WHERE version > 2"
        )
        median_s, p95_s, slowest_s = cursor.fetchone()[0]  # type: ignore[index]
    print(f"from commit to row: median {median_s:.3f} s, p95 {p95_s:.3f} s, slowest {slowest_s:.3f} s")
    # How soon exactly is for bench/. Without nudges a sweep would come for events every 5 s.
    assert median_s < 1.5
    assert p95_s < 4


def test_events_of_an_outage_of_postgresql_all_arrive_after_it(
    workers: Callable[..., App], tasks: ModuleType, redis: redis_py.Redis, redis_url: str, run_directory: Path
) -> None:
    postgres = Postgres(run_directory, run_directory / "outage", options=("fsync=off",))
    postgres.start()
    try:
        upgrade(postgres.url)
        worker = workers(
            DATABASE_URL=postgres.url, SYNC_BUCKETS="1", AUDIT_RETRIES="3", AUDIT_RETRY_DELAY_S="1", LOG_FORMAT="json"
        )
        store = make_store(redis_url, set_clock=False, sync_buckets=1)
        session_id = store.create(chess(3_600_000)).found.session_id
        store.start(session_id)
        postgres.stop()
        worker.spawn()
        took_s = []
        for _ in range(100):
            began = time.monotonic()
            store.switch(session_id)
            took_s.append(time.monotonic() - began)
        eventually(lambda: "drain_gave_up" in worker.output())
        assert sorted(took_s)[50] < 0.5
        log = worker.output()
        assert "Traceback" not in log
        lines = [json.loads(line) for line in log.splitlines() if '"event": "drain_' in line][:4]
        assert [line.get("retry_in_s") for line in lines] == [1, 2, 4, None]
        assert [line["level"] for line in lines] == ["warning"] * 3 + ["critical"]
        instants = [datetime.fromisoformat(line["timestamp"]) for line in lines]
        waited = [(later - earlier).total_seconds() for earlier, later in pairwise(instants)]
        assert all(delay - 0.1 < wait < delay + 30 for wait, delay in zip(waited, (1, 2, 4), strict=True)), waited
        assert left(redis) == 102
        postgres.start()
        make_store(redis_url, set_clock=False, sync_buckets=1, on_nudge=tasks.Nudger(tasks.enqueue_drain).nudge).switch(
            session_id
        )
        eventually(lambda: left(redis) == 0)
        with closing(psycopg2.connect(postgres.url)) as connection:
            assert count(connection) == 103
    finally:
        postgres.stop()

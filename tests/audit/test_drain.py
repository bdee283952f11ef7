"""A drain moves a bucket's events into the log: each once, in batches, by one thread."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest
import redis as redis_py

from syncapp.audit.drain import Drain, Drained
from syncapp.audit.event import OutboxEntry
from syncapp.audit.log import AuditLog, Stored
from syncapp.audit.outbox import Outbox
from syncapp.dev.ports import free_port
from syncapp.postgres.database import Database
from syncapp.store.client import connect
from tests.support.outboxes import KEYS, commit_events, count_rows, entries_left
from tests.support.step_clock import StepClock
from tests.support.store import make_settings
from tests.support.types import Db


def test_a_drain_moves_everything_in_batches_and_leaves_an_empty_stream(
    db: Db, audit: AuditLog, outbox: Outbox, redis: redis_py.Redis, redis_url: str
) -> None:
    commits = commit_events(redis_url, 3, 50)
    drain = Drain(outbox, audit, batch=20)
    assert sum(drain.run(bucket).moved for bucket in outbox.buckets) == commits == count_rows(db)
    assert entries_left(redis) == 0
    assert all(drain.run(bucket) == Drained(0, more=False) for bucket in outbox.buckets)


def test_what_could_not_be_stored_is_not_acknowledged_and_comes_again(
    db: Db, audit: AuditLog, outbox: Outbox, redis: redis_py.Redis, redis_url: str
) -> None:
    commits = commit_events(redis_url, 1, 20)
    bucket = next(bucket for bucket in range(KEYS.buckets) if redis.xlen(KEYS.outbox(bucket)))
    away = Drain(outbox, AuditLog(Database(f"postgresql://127.0.0.1:{free_port()}/none")), batch=10)
    for _ in range(3):
        with pytest.raises(psycopg2.OperationalError):
            away.run(bucket)
    assert entries_left(redis) == commits
    assert Drain(outbox, audit, batch=10).run(bucket).moved == commits == count_rows(db)


def test_an_event_that_was_stored_but_not_acknowledged_is_stored_once(
    db: Db, audit: AuditLog, outbox: Outbox, redis_url: str, redis: redis_py.Redis
) -> None:
    commits = commit_events(redis_url, 1, 20)
    for bucket in outbox.buckets:
        audit.store(outbox.read_new(bucket, 10))  # then the reader dies
    survivor = Outbox(connect(make_settings(redis_url), decode=False), KEYS, reader="survivor")
    assert sum(Drain(survivor, audit, batch=10).run(bucket).moved for bucket in range(KEYS.buckets)) == commits
    assert count_rows(db) == commits
    assert entries_left(redis) == 0


def test_a_drain_ends_when_its_time_is_up(
    audit: AuditLog, outbox: Outbox, redis_url: str, redis: redis_py.Redis
) -> None:
    commit_events(redis_url, 1, 20)
    bucket = next(bucket for bucket in range(KEYS.buckets) if redis.xlen(KEYS.outbox(bucket)))
    drain = Drain(outbox, audit, batch=5)
    assert drain.run(bucket, at_most_s=0) == Drained(5, more=True)
    assert drain.run(bucket) == Drained(17, more=False)


class AskedLog:
    """A fake audit log: each transaction takes a second, and meanwhile another event comes and a drain is requested."""

    def __init__(self, redis: redis_py.Redis) -> None:
        self.clock = StepClock()
        self._redis = redis
        self.drain: Drain

    def store(self, entries: list[OutboxEntry]) -> Stored:
        self.clock.now_s += 1
        self._redis.xadd(KEYS.outbox(3), {"message": "1"})
        assert self.drain.run(3) == Drained(0, more=False)
        return Stored(len(entries))


def test_a_drain_ends_in_time_however_often_others_ask(outbox: Outbox, redis: redis_py.Redis) -> None:
    log = AskedLog(redis)
    log.drain = Drain(outbox, log, batch=1000, clock=log.clock)  # type: ignore[arg-type]  # it only uses `store`
    redis.xadd(KEYS.outbox(3), {"message": "1"})
    assert log.drain.run(3, at_most_s=5) == Drained(5, more=True)


class SlowLog:
    """A fake audit log that stores nothing until the test allows it."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.go_on = threading.Event()
        self.seen: list[bytes | None] = []

    def store(self, entries: list[OutboxEntry]) -> Stored:
        self.entered.set()
        assert self.go_on.wait(60)
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
        assert log.entered.wait(60)
        assert drain.run(3) == Drained(0, more=False)
        assert drain.run(4) == Drained(0, more=False)
        redis.xadd(KEYS.outbox(3), {"message": "2"})
        log.go_on.set()
        assert running.result(60) == Drained(2, more=False)
    assert log.seen == [b"1", b"2"]

"""The worker's tasks: drains, retries, sweeps and start-up."""

from __future__ import annotations

import gc
import logging
import os
import threading
import time
import weakref
from datetime import UTC, datetime
from types import ModuleType
from typing import Any

import psycopg2
import pytest
import redis as redis_py
from redis.exceptions import RedisError

from syncapp.audit.event import OutboxEntry
from syncapp.audit.log import Stored
from syncapp.audit.outbox import Outbox
from syncapp.dev.ports import free_port
from syncapp.store.client import connect
from syncapp.store.library_upkeep import LibraryUpkeep
from tests.support.audit_log import event_partitions
from tests.support.captured_logs import capture_own_logs
from tests.support.outboxes import KEYS, commit_events, count_rows
from tests.support.store import make_settings
from tests.support.types import Db
from tests.support.web_clients import wait_until

# Tasks, run in this process


def run_next(tasks: ModuleType) -> Any:
    task = tasks.huey.dequeue()
    tasks.huey.execute(task)
    return task


def test_a_drain_task_moves_its_bucket_and_asks_for_one_more_shortly_after_if_there_is_more(
    tasks: ModuleType, db: Db, redis: redis_py.Redis, redis_url: str
) -> None:
    commits = commit_events(redis_url, 1, 10)
    bucket = next(bucket for bucket in range(KEYS.buckets) if redis.xlen(KEYS.outbox(bucket)))
    entries: Any = redis.xrange(KEYS.outbox(bucket), count=1)
    tasks.worker.sweep()
    assert tasks.huey.pending_count() == 1
    began = time.monotonic()
    run_next(tasks)
    assert count_rows(db) == commits
    redis.xadd(KEYS.outbox(bucket), entries[0][1])  # without a nudge
    assert tasks.huey.pending_count() == 0 or time.monotonic() - began > 0.4
    wait_until(lambda: tasks.huey.pending_count() == 1)
    assert tasks.huey.pending()[0].args == (bucket,)
    run_next(tasks)
    assert redis.xlen(KEYS.outbox(bucket)) == 0
    time.sleep(1.2)
    assert tasks.huey.pending_count() == 0


def test_while_a_retry_waits_nudges_leave_its_bucket_alone(
    tasks: ModuleType, db: Db, redis: redis_py.Redis, redis_url: str
) -> None:
    commits = commit_events(redis_url, 1, 10)
    bucket = next(bucket for bucket in range(KEYS.buckets) if redis.xlen(KEYS.outbox(bucket)))
    good, tasks.worker.database._url = tasks.worker.database._url, f"postgresql://127.0.0.1:{free_port()}/none"
    with capture_own_logs() as logs:
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
    assert count_rows(db) == commits
    commits += commit_events(redis_url, 40, 0)
    tasks.enqueue_drain(bucket)
    run_next(tasks)
    assert redis.xlen(KEYS.outbox(bucket)) == 0


class Batch(list[OutboxEntry]):
    """A batch that a weak reference can watch."""


def test_a_drain_that_failed_keeps_nothing_of_its_batch(
    tasks: ModuleType, redis: redis_py.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_events(redis_url, 1, 3)
    bucket = next(bucket for bucket in range(KEYS.buckets) if redis.xlen(KEYS.outbox(bucket)))
    watched: list[weakref.ref[Batch]] = []

    def store(entries: list[OutboxEntry]) -> Stored:
        batch = Batch(entries)
        watched.append(weakref.ref(batch))
        raise psycopg2.OperationalError("away")

    monkeypatch.setattr(tasks.worker._drain._audit, "store", store)
    gc.collect()
    gc.disable()  # a worker collects garbage rarely, so nothing may depend on it
    try:
        tasks.enqueue_drain(bucket)
        run_next(tasks)
        assert [batch() for batch in watched] == [None]
    finally:
        gc.enable()


def test_the_last_retry_is_told_at_critical_and_the_sweep_begins_anew(
    tasks: ModuleType, redis: redis_py.Redis, redis_url: str
) -> None:
    commit_events(redis_url, 1, 3)
    bucket = next(bucket for bucket in range(KEYS.buckets) if redis.xlen(KEYS.outbox(bucket)))
    tasks.worker.database._url = f"postgresql://127.0.0.1:{free_port()}/none"
    delays = []
    with capture_own_logs() as logs:
        tasks.enqueue_drain(bucket)
        task = tasks.huey.dequeue()
        for _ in range(6):
            delays.append(task.retry_delay)
            tasks.huey.execute(task, task.eta)
            task = (tasks.huey.read_schedule(datetime(2100, 1, 1)) or [None])[0]  # noqa: DTZ001 Huey's are naive
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
    with capture_own_logs() as logs:
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
    Outbox(connect(make_settings(os.environ["REDIS_URL"])), KEYS, reader="dead").read_new(9, 1)
    tasks.worker.sweep()
    assert sorted(task.args for task in tasks.huey.pending()) == [(3,), (9,)]
    away = connect(make_settings(f"redis://127.0.0.1:{free_port()}/0"))
    monkeypatch.setattr(tasks.worker._watch, "_outbox", Outbox(away, KEYS))
    with capture_own_logs() as logs:
        tasks.worker.sweep()
    assert [line["event"] for line in logs] == ["sweep_failed"]


def test_a_worker_starts_once_with_the_buckets_that_have_events_and_the_months_to_come(
    tasks: ModuleType, db: Db, redis_url: str, redis: redis_py.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit_events(redis_url, 3, 3)
    waiting = [bucket for bucket in range(KEYS.buckets) if redis.xlen(KEYS.outbox(bucket))]
    monkeypatch.setattr(tasks.logs, "configure", lambda settings: None)
    monkeypatch.setattr(tasks, "collect_rarely", lambda: None)
    (last,) = names = sorted(event_partitions(db))[-1:]
    with db.cursor() as cursor:
        cursor.execute(f"DROP TABLE {names[0]}")
    for _ in range(4):
        tasks.worker.start()
    wait_until(lambda: tasks.huey.pending_count() == len(waiting))
    assert sorted(task.args[0] for task in tasks.huey.pending()) == waiting
    assert last in event_partitions(db)
    tasks.worker.database._url = f"postgresql://127.0.0.1:{free_port()}/none"
    tasks.worker.database.close()
    with capture_own_logs() as logs:
        tasks.worker.make_partitions()
    assert [line["event"] for line in logs] == ["make_partitions_failed"]


def test_the_periodic_tasks_come_each_minute_and_each_night(tasks: ModuleType) -> None:
    def due(hour: int, minute: int) -> list[str]:
        at = datetime(2026, 1, 2, hour, minute)  # noqa: DTZ001 Huey's are naive
        return sorted(task.name for task in tasks.huey.read_periodic(at))

    assert due(12, 34) == ["sweep"]
    assert due(12, 35) == ["repeat_erasures", "sweep"]
    assert due(12, 40) == ["count_letters", "repeat_erasures", "sweep"]
    assert due(3, 17) == ["make_partitions", "sweep"]


def test_a_worker_keeps_removing_libraries_of_other_releases(
    tasks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    turned = threading.Event()

    def turn(upkeep: LibraryUpkeep) -> float:
        turned.set()
        return 5.0

    monkeypatch.setattr(LibraryUpkeep, "turn", turn)
    tasks.worker.watch()
    try:
        assert turned.wait(60)
    finally:
        tasks.worker._stopped.set()

"""The worker's outbox watch, retries and drain requests survive any reply of Redis, and alerts are sent."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError, ResponseError

from syncapp.audit import outbox_watch as watch_module
from syncapp.audit.drain_requests import DrainRequests
from syncapp.audit.outbox import OutboxBacklog
from syncapp.audit.outbox_watch import OutboxWatch
from syncapp.audit.retry_schedule import POSTGRESQL, REDIS, RetrySchedule
from syncapp.loops import Loops
from tests.support.captured_logs import capture_own_logs
from tests.support.step_clock import StepClock
from tests.support.store import make_settings
from tests.support.web_clients import wait_until


class Buckets:
    """A fake outbox; `reply` is its answer, or the error that it raises."""

    buckets = range(3)

    def __init__(self) -> None:
        self.reply: dict[int, OutboxBacklog] | Exception = dict.fromkeys(range(3), OutboxBacklog(0, 0, None))

    is_spread = False

    def backlogs(self) -> dict[int, OutboxBacklog]:
        if isinstance(self.reply, Exception):
            raise self.reply
        return self.reply


@pytest.fixture
def happened() -> list[tuple[Any, ...]]:
    return []


@pytest.fixture
def clock() -> StepClock:
    return StepClock()


@pytest.fixture
def buckets() -> Buckets:
    return Buckets()


@pytest.fixture
def watch(buckets: Buckets, clock: StepClock, happened: list[tuple[Any, ...]]) -> OutboxWatch:
    return OutboxWatch(
        buckets,  # type: ignore[arg-type]  # of an Outbox it uses two names
        ask=lambda bucket: happened.append(("ask", bucket)),
        alert=lambda kind, **context: happened.append((kind, context)),
        lag_alert_s=300,
        before=lambda: happened.append(("before",)),
        after=lambda: happened.append(("after",)),
        clock=clock,
    )


def test_people_are_told_before_anything_is_asked_for(
    watch: OutboxWatch, buckets: Buckets, happened: list[tuple[Any, ...]]
) -> None:
    buckets.reply = {0: OutboxBacklog(0, 0, None), 1: OutboxBacklog(2, 0, 301_000), 2: OutboxBacklog(0, 1, 299_000)}
    watch.run_once()
    alert = ("audit_lag", {"oldest_age_ms": 301_000, "buckets": [1], "events": 3})
    assert happened == [("before",), alert, ("after",), ("ask", 1), ("ask", 2)]


@pytest.mark.parametrize("error", [RedisConnectionError("away"), ResponseError("BUSY script"), TypeError("a list")])
def test_people_are_told_when_it_cannot_be_known_for_too_long_whether_anything_waits(
    watch: OutboxWatch, buckets: Buckets, clock: StepClock, happened: list[tuple[Any, ...]], error: Exception
) -> None:
    buckets.reply = {0: OutboxBacklog(1, 0, 200_000), 1: OutboxBacklog(0, 0, None), 2: OutboxBacklog(0, 0, None)}
    watch.sweep()
    buckets.reply = error
    with capture_own_logs() as logs:
        clock.now_s += 99
        watch.sweep()
        assert "audit_lag" not in [each[0] for each in happened]
        clock.now_s += 2
        watch.sweep()
        assert ("audit_lag", {"not_seen_for_s": 101, "error": str(error)}) in happened
    assert [line["event"] for line in logs] == ["sweep_failed"]
    # A bucket that cannot be read is drained anyway, unless no bucket can be read.
    assert (("ask", 2) in happened) is not isinstance(error, RedisConnectionError)
    happened.clear()
    buckets.reply = dict.fromkeys(range(3), OutboxBacklog(0, 0, None))
    watch.sweep()
    assert happened == [("after",)]
    buckets.reply = error
    clock.now_s += 299
    with capture_own_logs() as logs:
        watch.sweep()
    assert "audit_lag" not in [each[0] for each in happened]
    assert [line["event"] for line in logs] == ["sweep_failed"]


def test_the_watch_goes_on_whatever_a_look_raises(
    watch: OutboxWatch, monkeypatch: pytest.MonkeyPatch, happened: list[tuple[Any, ...]]
) -> None:
    monkeypatch.setattr(watch_module, "_INTERVAL_S", 0.01)
    faults = iter([ValueError("one"), ValueError("two"), AttributeError("three")])

    def before() -> None:
        if fault := next(faults, None):
            raise fault
        happened.append(("before",))

    monkeypatch.setattr(watch, "_before", before)
    stopped = threading.Event()
    with capture_own_logs() as logs:
        Loops().start("watch", watch.turn, stopped)
        wait_until(lambda: happened.count(("before",)) > 2)
        stopped.set()
    assert happened.count(("after",)) > 2  # each look reached the sweep
    assert {line["event"] for line in logs} == {"loop_failed", "loop_recovered"}


def test_nudges_go_on_whatever_acting_on_one_raises_and_tell_once() -> None:
    faults = iter([ValueError("one"), ValueError("two"), RedisError("away")])
    acted: list[int] = []

    def act(bucket: int) -> None:
        if fault := next(faults, None):
            raise fault
        acted.append(bucket)

    with capture_own_logs() as logs:
        nudger = DrainRequests(act)
        nudger.nudge(999)
        wait_until(lambda: acted == [999])
    ours = [line for line in logs if line["bucket"] == 999]  # drain requests of other tests may still be running
    assert [(line["log_level"], line["error"]) for line in ours] == [("error", "one"), ("debug", "away")]


# Retries


def test_a_bucket_is_held_a_little_longer_than_until_hueys_retry_and_given_up_after_the_last(clock: StepClock) -> None:
    retries = RetrySchedule(3, 2, 2.0, clock=clock)
    found = []
    for _ in range(5):
        failure = retries.failed(7, POSTGRESQL)
        found.append((failure.count, failure.retry_in_s, failure.held_s))
        assert retries.held_s(7) == failure.held_s
        clock.now_s += failure.held_s
        assert retries.held_s(7) == 0
    assert found == [(1, 2, 7), (2, 4, 9), (3, 8, 13), (4, 2, 2), (1, 2, 7)]
    assert retries.held_s(8) == 0


def test_failures_long_after_one_another_are_not_in_a_row(clock: StepClock) -> None:
    retries = RetrySchedule(3, 2, 2.0, clock=clock)
    retries.failed(7, None)
    clock.now_s += 100
    assert retries.failed(7, None).count == 1
    retries.forget(7)
    assert (retries.held_s(7), retries.failed(7, None).count) == (0, 1)


def test_what_waits_for_a_server_is_released_when_it_is_back_and_counted_on(clock: StepClock) -> None:
    retries = RetrySchedule(3, 2, 2.0, clock=clock)
    for bucket, of in ((1, POSTGRESQL), (2, REDIS), (3, None), (4, POSTGRESQL)):
        retries.failed(bucket, of)
    assert retries.held_buckets(POSTGRESQL) == retries.release(POSTGRESQL) == [1, 4]
    assert [retries.held_s(bucket) for bucket in (1, 2, 3, 4)] == [0, 7, 7, 0]
    assert [retries.count(bucket) for bucket in (1, 5)] == [1, 0]
    assert retries.release(POSTGRESQL) == retries.held_buckets(POSTGRESQL) == []
    assert retries.failed(1, POSTGRESQL).count == 2


def test_what_a_worker_tries_between_retries_of_huey_begins_no_further_row_of_them(
    tasks: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RedisConnectionError("away")

    monkeypatch.setattr(tasks.worker._drain, "run", fail)
    with capture_own_logs():
        for _ in range(4):
            tasks.worker._retries.release(REDIS)
            tasks.enqueue_drain(3)
            tasks.huey.execute(tasks.huey.dequeue())
        assert tasks.worker._retries.count(3) == 4
        (retry,) = tasks.huey.scheduled()
        tasks.huey.execute(retry, retry.eta)
        assert tasks.huey.scheduled_count() == 2  # the next in the row; the first stays where it was


def test_the_last_failure_is_an_alert_though_redis_does_not_answer(
    tasks: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RedisConnectionError("away")

    monkeypatch.setattr(tasks.worker._drain, "run", fail)
    monkeypatch.setattr(tasks.worker.outbox, "backlogs", fail)
    told: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(tasks.worker, "_alert", lambda kind, **context: told.append((kind, context)))
    retries = make_settings("").audit_retries
    with capture_own_logs():
        for _ in range(retries + 1):
            tasks.worker._retries.release(REDIS)
            tasks.worker._drain_here(3)
    assert told == [("drain_gave_up", {"retries": retries, "bucket": 3, "error": "away"})]
    began_s = time.monotonic()
    tasks.worker._drain_here(3)  # held: nothing is tried
    assert time.monotonic() - began_s < 1
    assert len(told) == 1

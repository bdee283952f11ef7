"""Drain requests: sent without waiting, once per bucket, retried on failure."""

from __future__ import annotations

import threading
import time
from types import ModuleType

import pytest
from redis.exceptions import RedisError

from tests.support.web_clients import wait_until


def test_a_nudge_waits_for_nobody_and_what_is_asked_for_twice_is_enqueued_once(tasks: ModuleType) -> None:
    enqueued: list[int] = []
    blocked = threading.Event()

    def enqueue(bucket: int) -> None:
        enqueued.append(bucket)
        blocked.wait(60)

    nudger = tasks.DrainRequests(enqueue)
    nudger.nudge(1)
    wait_until(lambda: enqueued == [1])
    began = time.monotonic()
    for _ in range(1000):
        nudger.nudge(2)
        nudger.nudge(3)
    assert time.monotonic() - began < 5
    blocked.set()
    wait_until(lambda: len(enqueued) >= 3)
    time.sleep(0.05)
    assert enqueued == [1, 2, 3]


def test_a_delayed_nudge_comes_when_it_is_due_and_an_earlier_one_before_it(tasks: ModuleType) -> None:
    enqueued: list[tuple[int, float]] = []
    began = time.monotonic()
    nudger = tasks.DrainRequests(lambda bucket: enqueued.append((bucket, time.monotonic() - began)))
    nudger.nudge(1, 0.3)
    nudger.nudge(2, 0.1)
    nudger.nudge(1, 30)
    wait_until(lambda: len(enqueued) == 2)
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

    nudger = tasks.DrainRequests(enqueue)
    nudger.nudge(1)
    nudger.nudge(2)
    wait_until(lambda: enqueued == [2, 1])


def test_a_nudge_does_not_raise_when_there_is_no_thread_to_be_had(
    tasks: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    enqueued: list[int] = []
    nudger = tasks.DrainRequests(enqueued.append)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", lambda self: (_ for _ in ()).throw(RuntimeError("no thread")))
        nudger.nudge(1)
    nudger.nudge(2)
    wait_until(lambda: sorted(enqueued) == [1, 2])


def test_a_due_bucket_that_is_not_chosen_is_left_alone_until_it_is_asked_for_again(tasks: ModuleType) -> None:
    enqueued: list[int] = []
    chosen = [2, 3]
    nudger = tasks.DrainRequests(enqueued.append, choose=lambda due: [each for each in due if each in chosen])
    for bucket in (1, 2):
        nudger.nudge(bucket)
    wait_until(lambda: enqueued == [2])
    chosen.append(1)
    nudger.nudge(3)
    wait_until(lambda: enqueued == [2, 3])
    nudger.nudge(1)
    wait_until(lambda: enqueued == [2, 3, 1])


def test_under_steady_load_the_follow_up_of_the_last_drain_is_the_only_one(tasks: ModuleType) -> None:
    asked: list[int] = []
    requests = tasks.DrainRequests(asked.append)
    for _ in range(5):
        requests.follow_up(3, 30)
        requests.follow_up(3, 60)
    assert requests._due.keys() == {3}
    assert requests._due[3] > time.monotonic() + 45
    requests.nudge(3)
    wait_until(lambda: asked == [3])

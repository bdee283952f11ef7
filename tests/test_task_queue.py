"""The task queue: JSON messages, no duplicate drains, and no wait for an unavailable Redis."""

from __future__ import annotations

import importlib
import sys
import threading
import time
from datetime import UTC, datetime, timedelta
from types import ModuleType

import pytest
from huey.registry import Message
from redis.exceptions import RedisError

from syncapp import task_queue
from syncapp.dev.ports import free_port
from tests.support.captured_logs import capture_own_logs
from tests.support.web_clients import wait_until


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
        for bucket in range(64):
            tasks.enqueue_drain(bucket)
    assert tasks.huey.pending_count() == 64
    first = tasks.huey.dequeue()
    assert (first.name, first.args, first.retries) == ("drain_bucket", (0,), 5)
    tasks.enqueue_drain(0)
    assert tasks.huey.pending_count() == 64


def test_a_retry_comes_back_from_the_schedule_as_it_was_put_there(tasks: ModuleType) -> None:
    task = tasks.drain_bucket.s(7, id="drain-7")
    task.eta, task.retries, task.retry_delay = datetime(2026, 1, 2, 3, 4, 5, 6), 2, 16.0  # noqa: DTZ001 Huey's are naive
    tasks.huey.add_schedule(task)
    (again,) = tasks.huey.read_schedule(datetime(2027, 1, 1))  # noqa: DTZ001 Huey's are naive
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
    with capture_own_logs() as logs:
        began = time.monotonic()
        nudges = module.DrainRequests(module.enqueue_drain)
        for _ in range(1000):
            nudges.nudge(1)
        assert time.monotonic() - began < 5
        wait_until(lambda: logs)
        time.sleep(0.1)
        nudges._act = lambda bucket: None  # it would retry every second, and log in later tests
    assert {(line["log_level"], line["event"]) for line in logs} == {("debug", "nudge_failed")}

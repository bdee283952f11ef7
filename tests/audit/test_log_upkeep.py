"""The upkeep of the audit log: each task that fails is told in one line, and repeated later."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from syncapp.audit.log_upkeep import LogUpkeep
from syncapp.audit.queue_stats import QueueCounts
from syncapp.dev.ports import free_port
from syncapp.postgres.database import Database
from syncapp.store.client import connect
from syncapp.store.keys import Keyspace
from tests.support.captured_logs import capture_own_logs
from tests.support.store import make_settings


@pytest.mark.parametrize(
    ("task", "event"),
    [
        (LogUpkeep.count_dead_letters, "count_letters_failed"),
        (LogUpkeep.repeat_erasures, "repeat_erasures_failed"),
        (LogUpkeep.make_partitions, "make_partitions_failed"),
    ],
)
def test_without_postgresql_a_task_is_told_and_raises_nothing(
    redis_url: str, task: Callable[[LogUpkeep], None], event: str
) -> None:
    away = Database(f"postgresql://127.0.0.1:{free_port()}/none")
    upkeep = LogUpkeep(away, QueueCounts(connect(make_settings(redis_url)), Keyspace()), months=3)
    with capture_own_logs() as lines:
        task(upkeep)
    assert [(line["event"], line["log_level"]) for line in lines] == [(event, "warning")]
    assert "\n" not in lines[0]["error"]

"""Real workers that are killed or cannot reach PostgreSQL."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import psycopg2
import pytest
import redis as redis_py

from syncapp.dev.runner import App, app_env
from syncapp.dev.servers import Postgres, Servers
from syncapp.postgres.schema import upgrade
from tests.support.outboxes import commit_events, count_rows, entries_left
from tests.support.store import chess_request, make_store
from tests.support.types import Db
from tests.support.web_clients import wait_until


@pytest.fixture
def workers(servers: Servers, run_directory: Path) -> Iterator[Callable[..., App]]:
    """Makes workers with their own settings; the test starts them."""
    with ExitStack() as stack:

        def make(**env: str) -> App:
            log = run_directory / f"worker-{time.monotonic_ns()}.log"
            worker = App("worker", app_env(os.environ, servers) | env, directory=run_directory, output=log)
            stack.callback(worker.stop)
            return worker

        yield make


def more_than(db: Db, goal: int) -> Callable[[], bool]:
    return lambda: count_rows(db) > goal


def test_a_worker_that_is_killed_while_it_drains_leaves_every_event_to_be_stored_once(
    db: Db, workers: Callable[..., App], redis: redis_py.Redis, redis_url: str
) -> None:
    commits = commit_events(redis_url, 50, 98)
    assert commits == entries_left(redis) == 5000
    # The entries of a killed worker do not wait until another reader may claim them.
    worker = workers(AUDIT_BATCH="25", AUDIT_CLAIM_IDLE_S="600")
    for goal in (200, 600, 1000):
        worker.spawn()
        wait_until(more_than(db, goal))
        worker.kill()
    assert count_rows(db) < commits
    worker.spawn()
    wait_until(lambda: entries_left(redis) == 0, within_s=120)
    assert (
        count_rows(db)
        == commits
        == count_rows(db, "SELECT count(DISTINCT (session_id, epoch, version)) FROM sync_events")
    )
    assert count_rows(db, "SELECT count(*) FROM sync_events WHERE event_type = 'cycle_switched'") == 50 * 98
    assert count_rows(db, "SELECT sum(cycle_count) FROM sync_sessions") == 50 * 98
    assert count_rows(db, "SELECT count(*) FROM sync_dead_letters") == 0


def test_when_all_is_well_an_event_is_stored_without_waiting_for_a_sweep(
    db: Db, workers: Callable[..., App], tasks: ModuleType, redis_url: str
) -> None:
    workers().spawn()
    store = make_store(redis_url, set_clock=False, on_nudge=tasks.DrainRequests(tasks.enqueue_drain).nudge)
    session_id = store.create(chess_request(3_600_000)).found.session_id
    store.start(session_id)
    wait_until(lambda: count_rows(db) == 2)
    for number in range(100):
        store.switch(session_id)
        time.sleep(0.04 if number % 20 else 0.9)  # bursts, and pauses as long as drain requests are held back
    wait_until(lambda: count_rows(db) == 102)
    with db.cursor() as cursor:
        cursor.execute(
            "SELECT percentile_disc(array[0.5, 0.95, 1]) WITHIN GROUP (ORDER BY extract(epoch FROM stored_at - at))"
            " FROM sync_events WHERE version > 2"
        )
        (((median_s, p95_s, slowest_s),),) = cursor.fetchall()
    print(f"from commit to row: median {median_s:.3f} s, p95 {p95_s:.3f} s, slowest {slowest_s:.3f} s")
    # The exact delay is measured in bench/. Without drain requests, a sweep would store events every 5 s.
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
        session_id = store.create(chess_request(3_600_000)).found.session_id
        store.start(session_id)
        postgres.stop()
        worker.spawn()
        took_s = []
        for _ in range(100):
            began = time.monotonic()
            store.switch(session_id)
            took_s.append(time.monotonic() - began)
        wait_until(lambda: "drain_gave_up" in worker.output())
        assert sorted(took_s)[50] < 0.5
        log = worker.output()
        assert "Traceback" not in log
        lines = [json.loads(line) for line in log.splitlines() if '"event": "drain_' in line][:4]
        assert [line.get("retry_in_s") for line in lines] == [1, 2, 4, None]
        assert [line["level"] for line in lines] == ["warning"] * 3 + ["critical"]
        instants = [datetime.fromisoformat(line["timestamp"]) for line in lines]
        waited = [(later - earlier).total_seconds() for earlier, later in pairwise(instants)]
        assert all(delay - 0.1 < wait < delay + 30 for wait, delay in zip(waited, (1, 2, 4), strict=True)), waited
        assert entries_left(redis) == 102
        postgres.start()
        make_store(
            redis_url, set_clock=False, sync_buckets=1, on_nudge=tasks.DrainRequests(tasks.enqueue_drain).nudge
        ).switch(session_id)
        wait_until(lambda: entries_left(redis) == 0)
        with closing(psycopg2.connect(postgres.url)) as connection:
            assert count_rows(connection) == 103
    finally:
        postgres.stop()

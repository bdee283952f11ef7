"""Sweepers share the buckets; others take over those of one that is gone, also after outages."""

from __future__ import annotations

import os
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
from structlog.testing import LogCapture

from syncapp.dev.processes import Process
from syncapp.dev.runner import ROOT
from syncapp.dev.servers import Valkey
from syncapp.store.sessions import SessionStore
from syncapp.store.sweeper import Sweeper
from tests.support.store import ManualClock, chess_request, make_store, outbox_messages
from tests.support.sweepers import (
    KEYS,
    ONE_SWEEPER,
    endless_rounds,
    event_instants,
    make_sweeper,
    running_sweepers,
    start_session,
)
from tests.support.web_clients import wait_until

BUCKETS = KEYS.buckets
EVEN = [BUCKETS // 2] * 2

# Several sweepers


def test_sweepers_and_commands_at_once_apply_nothing_twice(
    clock: ManualClock, store: SessionStore, redis: redis_py.Redis, redis_url: str
) -> None:
    sessions = [start_session(store) for _ in range(60)]
    due_ms = clock.now_ms + 300_000
    clock.set(due_ms)
    ready = threading.Barrier(5)
    swept: list[int] = []

    def sweep(sweeper: Sweeper) -> None:
        ready.wait()
        swept.extend(sweeper.run_once(due_ms).instants for _ in range(4))

    def look() -> None:
        ready.wait()
        for session_id in reversed(sessions):
            assert store.get(session_id).found.status == "expired"

    threads = [threading.Thread(target=sweep, args=(make_sweeper(redis_url),)) for _ in range(4)]
    threads.append(threading.Thread(target=look))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(swept) <= 60
    for session_id in sessions:
        assert event_instants(redis, session_id) == [("participant_expired", due_ms)]
        assert [message["version"] for message in outbox_messages(redis, session_id)] == [1, 2, 3]


def test_two_sweepers_share_the_buckets_and_one_sweeps_all_when_the_other_stops(
    redis: redis_py.Redis, redis_url: str
) -> None:
    store = make_store(redis_url, set_clock=False)
    first, second = (make_sweeper(redis_url, set_clock=False, buckets=BUCKETS) for _ in range(2))
    with running_sweepers(first):
        wait_until(lambda: swept_buckets(redis) == [BUCKETS])
        with running_sweepers(second):
            wait_until(lambda: swept_buckets(redis) == EVEN)
            sessions = [start_session(store, chess_request(1000)) for _ in range(32)]
            wait_until(lambda: all(event_instants(redis, session) for session in sessions))
        assert not second.sweeping
        wait_until(lambda: swept_buckets(redis) == [BUCKETS])
        session_id = start_session(store, chess_request(1000))
        wait_until(lambda: event_instants(redis, session_id))
    assert not redis.exists(*map(KEYS.lease, range(BUCKETS)), KEYS.sweepers())


def test_a_sweeper_sweeps_only_the_buckets_that_were_chosen(
    clock: ManualClock, store: SessionStore, redis: redis_py.Redis, redis_url: str
) -> None:
    sessions = [start_session(store) for _ in range(60)]
    clock.advance_ms(300_000)
    sweeper = make_sweeper(redis_url, buckets=BUCKETS)
    some = sorted({KEYS.bucket(each) for each in sessions})[:3]
    sweeper.run_once(clock.now_ms, some[:2])
    assert {KEYS.bucket(each) for each in sessions if event_instants(redis, each)} == set(some[:2])
    sweeper.run_once(clock.now_ms, some[1:])  # read at once
    assert {KEYS.bucket(each) for each in sessions if event_instants(redis, each)} == set(some)


def test_a_sweeper_started_twice_has_one_thread_and_can_be_started_again(redis: redis_py.Redis, redis_url: str) -> None:
    sweeper = make_sweeper(redis_url, set_clock=False)
    sweeper.stop()
    for _ in range(2):
        with running_sweepers(sweeper, sweeper):
            wait_until(lambda: sweeper.sweeping)
            assert [thread.name for thread in threading.enumerate()].count("sweeper") == 1
        assert "sweeper" not in [thread.name for thread in threading.enumerate()]


# Killed, stopped, away


@pytest.fixture
def two_processes(redis: redis_py.Redis, redis_url: str, run_directory: Path) -> Iterator[list[Process]]:
    """Two processes that share the buckets."""
    found = [
        Process(
            f"sweeper {number}",
            [sys.executable, "-c", ONE_SWEEPER],
            directory=run_directory,
            output=run_directory / f"sweeper-{uuid.uuid4().hex}.log",
            env={**os.environ, "REDIS_URL": redis_url, "PYTHONUNBUFFERED": "1"},
            cwd=ROOT,
        )
        for number in range(2)
    ]
    try:
        for process in found:
            process.spawn()
        wait_until(lambda: swept_buckets(redis) == EVEN)
        yield found
    finally:
        for process in found:
            process.unpause()
            process.kill()


def swept_buckets(client: redis_py.Redis) -> list[int]:
    """Return how many leases each holder has."""
    found: Any = client.mget(list(map(KEYS.lease, range(BUCKETS))))
    return sorted(Counter(name for name in found if name).values())


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_another_process_takes_over_when_one_is_killed_or_stopped(
    fault: str, two_processes: list[Process], redis: redis_py.Redis, redis_url: str
) -> None:
    store = make_store(redis_url, set_clock=False)
    sessions = [start_session(store, endless_rounds(1000)) for _ in range(32)]
    wait_until(lambda: all(event_instants(redis, session) for session in sessions))
    since = time.monotonic()
    getattr(two_processes[0], fault)()
    wait_until(lambda: swept_buckets(redis) == [BUCKETS])
    print(f"{fault}: taken over after {time.monotonic() - since:.2f} s")
    before = {session: len(event_instants(redis, session)) for session in sessions}
    wait_until(lambda: all(len(event_instants(redis, session)) >= before[session] + 2 for session in sessions))
    two_processes[0].unpause()
    if fault == "pause":
        wait_until(lambda: swept_buckets(redis) == EVEN)
    for session in sessions:
        versions = [message["version"] for message in outbox_messages(redis, session)]
        assert versions == list(range(1, len(versions) + 1))
        instants = [at_ms for _, at_ms in event_instants(redis, session)]
        assert instants == list(range(instants[0], instants[0] + 1000 * len(instants), 1000))


def test_a_restart_of_redis_is_told_once_and_survived(
    valkey: Valkey, redis: redis_py.Redis, redis_url: str, logged: LogCapture
) -> None:
    store = make_store(redis_url, set_clock=False)
    sweeper = make_sweeper(redis_url, set_clock=False)
    with running_sweepers(sweeper):
        wait_until(lambda: sweeper.sweeping)
        session_id = start_session(store, endless_rounds(1000))
        valkey.kill()
        time.sleep(0.5)
        valkey.start()
        wait_until(lambda: len(event_instants(redis, session_id)) >= 2)
        instants = [at_ms for _, at_ms in event_instants(redis, session_id)]
        assert instants[1] == instants[0] + 1000
    told = [entry["event"] for entry in logged.entries if "lease" not in entry["event"]]
    # Once each for an outage; a busy machine may have had a second one.
    assert told[:2] == ["sweeper_without_store", "sweeper_recovered"]
    assert told == told[:2] * (len(told) // 2)
    assert len(told) <= 6


def test_a_redis_that_hangs_is_waited_for(valkey: Valkey, redis: redis_py.Redis, redis_url: str) -> None:
    store = make_store(redis_url, set_clock=False)
    sweeper = make_sweeper(redis_url, set_clock=False)
    with running_sweepers(sweeper):
        session_id = start_session(store, endless_rounds(1000))
        valkey.pause()
        time.sleep(1.5)  # longer than the client waits for an answer
        valkey.unpause()
        wait_until(lambda: len(event_instants(redis, session_id)) >= 3)


def test_a_sweeper_that_stops_while_redis_is_away_ends_all_the_same(
    valkey: Valkey, redis: redis_py.Redis, redis_url: str
) -> None:
    sweeper = make_sweeper(redis_url, set_clock=False)
    with running_sweepers(sweeper):
        wait_until(lambda: sweeper.sweeping)
        valkey.kill()
        try:
            sweeper.stop()
        finally:
            valkey.start()
    assert "sweeper" not in [thread.name for thread in threading.enumerate()]

"""The sweeper: what sessions do by themselves happens on time, once, whoever is killed or stopped."""

from __future__ import annotations

import os
import re
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
import structlog
from prometheus_client import REGISTRY
from structlog.testing import LogCapture

from syncapp.dev.processes import Process
from syncapp.dev.runner import ROOT
from syncapp.dev.servers import Valkey
from syncapp.domain.schemas import CreateSession
from syncapp.store import sweeper as sweeper_module
from syncapp.store.client import connect
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from syncapp.store.sweeper import LEASE_S, MOST_WAIT_S, RENEW_S, Lease, Sweeper
from tests.support.store import PARTIALS, SetClock, chess, make_store, messages, settings
from tests.support.web_clients import eventually

KEYS = Keyspace()
ONE_SWEEPER = """
from syncapp.config import Settings
from syncapp.store.client import connect
from syncapp.store.sessions import SessionStore
from syncapp.store.sweeper import Sweeper

settings = Settings.from_env()
client = connect(settings)
Sweeper(client, SessionStore(client, settings)).run()
"""


def make_sweeper(redis_url: str, *, set_clock: bool = True, buckets: int = 16, **store: Any) -> Sweeper:
    chosen = settings(redis_url, sync_buckets=buckets, redis_timeout_s=1.0)
    client = connect(chosen)
    partials = PARTIALS if set_clock else None
    return Sweeper(client, SessionStore(client, chosen, partials=partials, **store), buckets=buckets)


def rounds(budget_ms: int = 1000, **more: Any) -> CreateSession:
    """A clock for nobody in particular that goes on by itself, one cycle after the other."""
    return CreateSession.parse({"sync_mode": "per_cycle", "participants": [], "time_per_cycle_ms": budget_ms, **more})


def started(store: SessionStore, new: CreateSession | None = None) -> str:
    session_id = store.create(new or chess()).found.session_id
    store.start(session_id)
    return session_id


def events(client: redis_py.Redis, session_id: str) -> list[tuple[str, int]]:
    """Types and instants of a session's events after its start."""
    return [(found["event"]["type"], found["event"]["at_ms"]) for found in messages(client, session_id)[2:]]


def deadline(client: redis_py.Redis, session_id: str) -> float | None:
    """When a session must be looked at (ms), as the sweeper finds it."""
    score: float | None = client.zscore(KEYS.deadlines(KEYS.bucket(session_id)), session_id)
    return score


def sample(name: str) -> float:
    return REGISTRY.get_sample_value(name) or 0.0


@contextmanager
def running(*sweepers: Sweeper) -> Iterator[None]:
    for each in sweepers:
        each.start()
    try:
        yield
    finally:
        for each in sweepers:
            each.stop()


@pytest.fixture
def clock(redis: redis_py.Redis) -> SetClock:
    return SetClock(redis)


@pytest.fixture
def store(clock: SetClock, redis_url: str) -> SessionStore:
    return make_store(redis_url)


@pytest.fixture
def sweeper(clock: SetClock, redis_url: str) -> Sweeper:
    return make_sweeper(redis_url)


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    """What the sweeper logs."""
    capture = LogCapture()
    recorder = structlog.wrap_logger(None, processors=[capture], wrapper_class=structlog.make_filtering_bound_logger(0))
    monkeypatch.setattr(sweeper_module, "log", recorder)
    return capture


# One pass


def test_a_session_expires_when_its_deadline_has_come_and_not_before(
    clock: SetClock, store: SessionStore, sweeper: Sweeper, redis: redis_py.Redis
) -> None:
    session_id = started(store, chess(300_000))
    due_ms = clock.now_ms + 300_000
    clock.set(due_ms - 1)
    assert (sweeper.run_once(due_ms - 1).sessions, events(redis, session_id)) == (0, [])
    clock.set(due_ms)
    swept = sweeper.run_once(due_ms)
    assert (swept.sessions, swept.instants) == (1, 1)
    assert events(redis, session_id) == [("participant_expired", due_ms)]
    assert sweeper.run_once(due_ms).sessions == 0


def test_a_timeout_noticed_late_has_the_deadlines_own_instant_and_its_lateness_is_measured(
    clock: SetClock, store: SessionStore, sweeper: Sweeper, redis: redis_py.Redis
) -> None:
    session_id = started(store)
    due_ms = clock.now_ms + 300_000
    counted, summed = (sample(f"syncapp_expiry_lateness_seconds_{of}") for of in ("count", "sum"))
    clock.set(due_ms + 7000)
    sweeper.run_once(clock.now_ms)
    assert events(redis, session_id) == [("participant_expired", due_ms)]
    assert sample("syncapp_expiry_lateness_seconds_count") - counted == 1
    assert sample("syncapp_expiry_lateness_seconds_sum") - summed == pytest.approx(7.0)


def test_warnings_timeouts_and_idle_ends_are_swept(
    clock: SetClock, store: SessionStore, sweeper: Sweeper, redis: redis_py.Redis
) -> None:
    warned = started(store, chess(60_000, warn_at_ms=[10_000], action_on_timeout={"type": "notify"}))
    idle = store.create(chess(idle_timeout_s=90)).found.session_id
    start_ms = clock.now_ms
    for after_ms in (50_000, 60_000, 90_000):
        clock.set(start_ms + after_ms)
        sweeper.run_once(clock.now_ms)
    assert events(redis, warned) == [("time_warning", start_ms + 50_000), ("participant_expired", start_ms + 60_000)]
    assert store.get(idle).found.status == "cancelled"


def test_all_that_is_due_to_one_session_after_a_long_gap_is_applied_at_its_instants(
    clock: SetClock, store: SessionStore, sweeper: Sweeper, redis: redis_py.Redis
) -> None:
    session_id = started(store, rounds(1000))
    start_ms = clock.now_ms
    clock.pass_ms(200_000)
    passes = [sweeper.run_once(clock.now_ms) for _ in range(5)]
    assert sum(swept.instants for swept in passes) == 200
    assert passes[0].wait_s == 0.0
    assert passes[-1].wait_s > 0.0
    assert events(redis, session_id) == [("cycle_timed_out", start_ms + 1000 * cycle) for cycle in range(1, 201)]


def test_many_due_at_once_are_swept_in_batches_without_a_wait_between(
    clock: SetClock, store: SessionStore, sweeper: Sweeper, redis: redis_py.Redis
) -> None:
    sessions = [started(store) for _ in range(300)]
    due_ms = clock.now_ms + 300_000
    clock.set(due_ms)
    passes = [sweeper.run_once(due_ms)]
    while passes[-1].wait_s == 0.0:
        passes.append(sweeper.run_once(due_ms))
    assert 3 <= len(passes) <= 10
    assert max(swept.sessions for swept in passes) <= 128
    assert sum(swept.instants for swept in passes) == 300
    assert all(events(redis, session) == [("participant_expired", due_ms)] for session in sessions)


def test_the_next_pass_is_at_the_next_deadline_and_at_most_20_ms_away(
    clock: SetClock, store: SessionStore, sweeper: Sweeper
) -> None:
    assert sweeper.run_once(clock.now_ms).wait_s == MOST_WAIT_S == 0.02
    started(store, chess(10_000))
    assert sweeper.run_once(clock.now_ms).wait_s == MOST_WAIT_S
    assert 0.0 < sweeper.run_once(clock.now_ms + 9_995).wait_s <= 0.005


def test_the_time_is_the_servers_own_when_none_is_given(redis: redis_py.Redis, redis_url: str) -> None:
    store, sweeper = make_store(redis_url, set_clock=False), make_sweeper(redis_url, set_clock=False)
    session_id = started(store, chess(1000))
    due_ms = deadline(redis, session_id)
    assert sweeper.run_once().sessions == 0
    eventually(lambda: sweeper.run_once().sessions == 1)
    assert events(redis, session_id) == [("participant_expired", due_ms)]


def test_the_outbox_is_nudged_for_what_was_swept(clock: SetClock, store: SessionStore, redis_url: str) -> None:
    nudged: list[int] = []
    session_id = started(store)
    clock.pass_ms(300_000)
    bucket = KEYS.bucket(session_id)
    store._client.delete(KEYS.nudge(bucket))
    make_sweeper(redis_url, on_nudge=nudged.append).run_once(clock.now_ms)
    assert nudged == [bucket]


def test_scripts_that_the_server_forgot_are_sent_again(
    clock: SetClock, store: SessionStore, sweeper: Sweeper, redis: redis_py.Redis
) -> None:
    sessions = [started(store) for _ in range(5)]
    clock.pass_ms(300_000)
    redis.script_flush()
    assert sweeper.run_once(clock.now_ms).instants == 5
    assert all(len(events(redis, session)) == 1 for session in sessions)


# Stale entries


def test_the_entry_of_a_session_that_is_gone_is_removed(
    clock: SetClock, store: SessionStore, sweeper: Sweeper, redis: redis_py.Redis
) -> None:
    unknown, deleted, ended = str(uuid.uuid4()), started(store), started(store)
    store.delete(deleted)
    store.cancel(ended)
    for session_id in (unknown, deleted, ended):
        assert deadline(redis, session_id) is None
        redis.zadd(KEYS.deadlines(KEYS.bucket(session_id)), {session_id: clock.now_ms})
    swept = sweeper.run_once(clock.now_ms)
    assert (swept.sessions, swept.instants) == (3, 0)
    assert [deadline(redis, each) for each in (unknown, deleted, ended)] == [None] * 3
    assert sweeper.run_once(clock.now_ms).sessions == 0


def test_an_entry_that_is_too_early_is_put_right_and_nothing_happens_to_its_session(
    clock: SetClock, store: SessionStore, sweeper: Sweeper, redis: redis_py.Redis
) -> None:
    session_id = started(store)
    right = deadline(redis, session_id)
    redis.zadd(KEYS.deadlines(KEYS.bucket(session_id)), {session_id: clock.now_ms - 5})
    assert sweeper.run_once(clock.now_ms).instants == 0
    assert (deadline(redis, session_id), events(redis, session_id)) == (right, [])


def test_a_pass_that_changed_nothing_is_not_followed_by_another_at_once(
    clock: SetClock, sweeper: Sweeper, redis: redis_py.Redis
) -> None:
    for _ in range(400):
        session_id = str(uuid.uuid4())
        redis.zadd(KEYS.deadlines(KEYS.bucket(session_id)), {session_id: clock.now_ms})
    swept = sweeper.run_once(clock.now_ms)
    assert (swept.sessions, swept.instants) == (128, 0)
    assert swept.wait_s > 0.0


def test_broken_sessions_keep_nobody_from_expiring_and_are_told_and_tried_again(
    clock: SetClock, redis: redis_py.Redis, redis_url: str, logged: LogCapture
) -> None:
    store, keys = make_store(redis_url, sync_buckets=1), Keyspace(1)
    now_s = [0.0]
    client = connect(settings(redis_url))
    sweeper = Sweeper(client, store, buckets=1, clock=lambda: now_s[0])
    broken = [str(uuid.uuid4()) for _ in range(150)]
    for session_id in broken:
        redis.set(keys.session(session_id), "not a hash")
        redis.zadd(keys.deadlines(0), {session_id: clock.now_ms})
    started(store)
    clock.pass_ms(300_000)
    failures = sample("syncapp_expiry_failures_total")
    assert [sweeper.run_once(clock.now_ms).instants for _ in range(3)] == [0, 1, 0]
    assert sample("syncapp_expiry_failures_total") - failures == 150
    assert {entry["event"] for entry in logged.entries} == {"session_not_expired"}
    assert {entry["session_id"] for entry in logged.entries} == set(broken)
    redis.delete(*(keys.session(session_id) for session_id in broken))
    now_s[0] += 60
    assert sum(sweeper.run_once(clock.now_ms).sessions for _ in range(3)) == 150
    assert redis.zcard(keys.deadlines(0)) == 0


# Several sweepers


def test_sweepers_and_commands_at_once_apply_nothing_twice(
    clock: SetClock, store: SessionStore, redis: redis_py.Redis, redis_url: str
) -> None:
    sessions = [started(store) for _ in range(60)]
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
        assert events(redis, session_id) == [("participant_expired", due_ms)]
        assert [message["version"] for message in messages(redis, session_id)] == [1, 2, 3]


def test_a_lease_has_one_holder_who_may_renew_it_and_give_it_back(redis: redis_py.Redis) -> None:
    now_s = [0.0]
    first, second = (Lease(redis, KEYS.sweeper(), lambda: now_s[0]) for _ in range(2))
    assert [first.hold(), second.hold()] == [True, False]
    redis.pexpire(KEYS.sweeper(), 100)
    now_s[0] += RENEW_S
    assert [first.hold(), second.hold()] == [True, False]
    assert int(redis.pttl(KEYS.sweeper())) > 100
    second.release()
    assert redis.exists(KEYS.sweeper())
    first.release()
    now_s[0] += RENEW_S
    assert [second.hold(), first.hold()] == [True, False]


def test_who_lost_the_lease_notices_and_neither_renews_nor_removes_that_of_another(redis: redis_py.Redis) -> None:
    now_s = [0.0]
    first, second = (Lease(redis, KEYS.sweeper(), lambda: now_s[0]) for _ in range(2))
    assert first.hold()
    redis.delete(KEYS.sweeper())
    assert second.hold()
    token = redis.get(KEYS.sweeper())
    now_s[0] += RENEW_S
    assert not first.hold()
    assert redis.get(KEYS.sweeper()) == token
    redis.set(KEYS.sweeper(), "a third")
    second.release()
    assert (second.held, redis.get(KEYS.sweeper())) == (False, b"a third")


def test_a_lease_that_the_server_forgot_is_taken_again_at_the_next_look(redis: redis_py.Redis) -> None:
    now_s = [0.0]
    lease = Lease(redis, KEYS.sweeper(), lambda: now_s[0])
    assert lease.hold()
    redis.flushdb()
    now_s[0] += RENEW_S
    assert lease.hold()
    assert redis.exists(KEYS.sweeper())


def test_takeover_is_due_within_two_seconds() -> None:
    assert LEASE_S + 2 * RENEW_S < 2.0


def test_of_two_sweepers_one_sweeps_and_the_other_takes_over_when_it_stops(
    redis: redis_py.Redis, redis_url: str
) -> None:
    store = make_store(redis_url, set_clock=False)
    first, second = (make_sweeper(redis_url, set_clock=False) for _ in range(2))
    with running(first):
        eventually(lambda: first.sweeping)
        with running(second):
            time.sleep(2 * RENEW_S)
            # On a busy machine the first may have come too late to renew its lease.
            eventually(lambda: first.sweeping != second.sweeping)
            holder, other = (first, second) if first.sweeping else (second, first)
            holder.stop()
            assert not holder.sweeping
            eventually(lambda: other.sweeping)
            session_id = started(store, chess(1000))
            eventually(lambda: events(redis, session_id))
    assert not redis.exists(KEYS.sweeper())


def test_a_sweeper_started_twice_has_one_thread_and_can_be_started_again(redis: redis_py.Redis, redis_url: str) -> None:
    sweeper = make_sweeper(redis_url, set_clock=False)
    sweeper.stop()
    for _ in range(2):
        with running(sweeper, sweeper):
            eventually(lambda: sweeper.sweeping)
            assert [thread.name for thread in threading.enumerate()].count("sweeper") == 1
        assert "sweeper" not in [thread.name for thread in threading.enumerate()]


# Killed, stopped, away


@pytest.fixture
def two_processes(redis: redis_py.Redis, redis_url: str, run_directory: Path) -> Iterator[list[Process]]:
    """Two processes that sweep; the first holds the lease."""
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
            eventually(lambda: redis.exists(KEYS.sweeper()))
        eventually(lambda: told(found[0]))
        yield found
    finally:
        for process in found:
            process.unpause()
            process.kill()


def told(process: Process) -> list[str]:
    """What has become of a process's lease, oldest first."""
    return re.findall(r"sweeper_lease_(\w+)", process.output())


@pytest.mark.parametrize("fault", ["kill", "pause"])
def test_another_process_takes_over_when_the_holder_is_killed_or_stopped(
    fault: str, two_processes: list[Process], redis: redis_py.Redis, redis_url: str
) -> None:
    first, second = two_processes
    store = make_store(redis_url, set_clock=False)
    session_id = started(store, rounds(1000))
    eventually(lambda: events(redis, session_id))
    eventually(lambda: [told(process)[-1:] for process in two_processes] in ([["taken"], []], [["taken"], ["ended"]]))
    taken = told(second).count("taken")
    before = len(events(redis, session_id))
    since = time.monotonic()
    getattr(first, fault)()
    eventually(lambda: told(second).count("taken") > taken)
    print(f"{fault}: taken over after {time.monotonic() - since:.2f} s")
    eventually(lambda: len(events(redis, session_id)) >= before + 2)
    first.unpause()
    if fault == "pause":
        eventually(lambda: told(first)[-1] == "ended" or told(first).count("taken") > 1)
    versions = [message["version"] for message in messages(redis, session_id)]
    assert versions == list(range(1, len(versions) + 1))
    instants = [at_ms for _, at_ms in events(redis, session_id)]
    assert instants == list(range(instants[0], instants[0] + 1000 * len(instants), 1000))


def test_a_restart_of_redis_is_told_once_and_survived(
    valkey: Valkey, redis: redis_py.Redis, redis_url: str, logged: LogCapture
) -> None:
    store = make_store(redis_url, set_clock=False)
    sweeper = make_sweeper(redis_url, set_clock=False)
    with running(sweeper):
        eventually(lambda: sweeper.sweeping)
        session_id = started(store, rounds(1000))
        valkey.kill()
        time.sleep(0.5)
        valkey.start()
        eventually(lambda: len(events(redis, session_id)) >= 2)
        instants = [at_ms for _, at_ms in events(redis, session_id)]
        assert instants[1] == instants[0] + 1000
    told = [entry["event"] for entry in logged.entries if "lease" not in entry["event"]]
    # Once each for an outage; a busy machine may have had a second one.
    assert told[:2] == ["sweeper_without_store", "sweeper_recovered"]
    assert told == told[:2] * (len(told) // 2)
    assert len(told) <= 6


def test_a_redis_that_hangs_is_waited_for(valkey: Valkey, redis: redis_py.Redis, redis_url: str) -> None:
    store = make_store(redis_url, set_clock=False)
    sweeper = make_sweeper(redis_url, set_clock=False)
    with running(sweeper):
        session_id = started(store, rounds(1000))
        valkey.pause()
        time.sleep(1.5)  # longer than the client waits for an answer
        valkey.unpause()
        eventually(lambda: len(events(redis, session_id)) >= 3)


def test_a_sweeper_that_stops_while_redis_is_away_ends_all_the_same(
    valkey: Valkey, redis: redis_py.Redis, redis_url: str
) -> None:
    sweeper = make_sweeper(redis_url, set_clock=False)
    with running(sweeper):
        eventually(lambda: sweeper.sweeping)
        valkey.kill()
        try:
            sweeper.stop()
        finally:
            valkey.start()
    assert "sweeper" not in [thread.name for thread in threading.enumerate()]


def test_no_fault_ends_the_thread(redis: redis_py.Redis, redis_url: str, logged: LogCapture) -> None:
    store = make_store(redis_url, set_clock=False)
    session_id = started(store, chess(1000))
    expire, faults = store.expire, iter(range(3))

    def fails_at_first(session_ids: Any) -> Any:
        if next(faults, None) is not None:
            raise RuntimeError("a fault of ours")
        return expire(session_ids)

    store.expire = fails_at_first  # type: ignore[method-assign]  # a fault that cannot be provoked
    sweeper = Sweeper(connect(settings(redis_url)), store)
    with running(sweeper):
        eventually(lambda: events(redis, session_id))
    told = [entry["event"] for entry in logged.entries if "lease" not in entry["event"]]
    assert told == ["sweeper_failed", "sweeper_recovered"]


@pytest.mark.parametrize("made", ["list", "string that does not end", "string of before a clock was set back"])
def test_a_key_that_is_no_lease_does_not_end_all_sweeping(redis: redis_py.Redis, redis_url: str, made: str) -> None:
    key = Keyspace().sweeper()
    match made:
        case "list":
            redis.lpush(key, "what")
        case "string that does not end":
            redis.set(key, "somebody")
        case _:
            redis.set(key, "somebody", px=3_600_000)
    lease = Lease(connect(settings(redis_url)), key, lambda: now_s[0])
    now_s = [0.0]
    assert not lease.hold()
    now_s[0] += RENEW_S
    assert lease.hold()


def test_a_bucket_that_cannot_be_read_holds_up_no_other(redis: redis_py.Redis, redis_url: str) -> None:
    store, clock = make_store(redis_url), SetClock(redis)
    ids = {Keyspace().bucket(each): each for each in (str(uuid.uuid4()) for _ in range(100))}
    bad, *good = [store.create(chess(1_000, session_id=each)).found.session_id for each in list(ids.values())[:3]]
    for session_id in (bad, *good):
        store.start(session_id)
    key = Keyspace().deadlines(Keyspace().bucket(bad))
    redis.delete(key)
    redis.set(key, "something else")
    clock.pass_ms(2_000)
    sweeper = Sweeper(connect(settings(redis_url)), store)
    assert sweeper.run_once(clock.now_ms).sessions == 2
    assert {store.peek(each).version for each in good} == {3}  # type: ignore[union-attr]  # they are there

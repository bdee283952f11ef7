"""The sweeper applies timeouts, warnings and idle ends: on time, once."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
import redis as redis_py
from structlog.testing import LogCapture

from syncapp.store.client import connect
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from syncapp.store.sweeper import MAX_WAIT_S, Sweeper
from tests.support.store import ManualClock, chess_request, make_settings, make_store
from tests.support.sweepers import (
    KEYS,
    endless_rounds,
    event_instants,
    make_sweeper,
    metric_sample,
    running_sweepers,
    start_session,
    stored_deadline,
)
from tests.support.web_clients import wait_until

# One pass


def test_a_session_expires_when_its_deadline_has_come_and_not_before(
    clock: ManualClock, store: SessionStore, sweeper: Sweeper, redis: redis_py.Redis
) -> None:
    session_id = start_session(store, chess_request(300_000))
    due_ms = clock.now_ms + 300_000
    clock.set(due_ms - 1)
    assert (sweeper.run_once(due_ms - 1).sessions, event_instants(redis, session_id)) == (0, [])
    clock.set(due_ms)
    swept = sweeper.run_once(due_ms)
    assert (swept.sessions, swept.instants) == (1, 1)
    assert event_instants(redis, session_id) == [("participant_expired", due_ms)]
    assert sweeper.run_once(due_ms).sessions == 0


def test_a_timeout_noticed_late_has_the_deadlines_own_instant_and_its_lateness_is_measured(
    clock: ManualClock, store: SessionStore, sweeper: Sweeper, redis: redis_py.Redis
) -> None:
    session_id = start_session(store)
    due_ms = clock.now_ms + 300_000
    counted, summed = (metric_sample(f"syncapp_expiry_lateness_seconds_{of}") for of in ("count", "sum"))
    clock.set(due_ms + 7000)
    sweeper.run_once(clock.now_ms)
    assert event_instants(redis, session_id) == [("participant_expired", due_ms)]
    assert metric_sample("syncapp_expiry_lateness_seconds_count") - counted == 1
    assert metric_sample("syncapp_expiry_lateness_seconds_sum") - summed == pytest.approx(7.0)


def test_warnings_timeouts_and_idle_ends_are_swept(
    clock: ManualClock, store: SessionStore, sweeper: Sweeper, redis: redis_py.Redis
) -> None:
    warned = start_session(store, chess_request(60_000, warn_at_ms=[10_000], action_on_timeout={"type": "notify"}))
    idle = store.create(chess_request(idle_timeout_s=90)).found.session_id
    start_ms = clock.now_ms
    for after_ms in (50_000, 60_000, 90_000):
        clock.set(start_ms + after_ms)
        sweeper.run_once(clock.now_ms)
    assert event_instants(redis, warned) == [
        ("time_warning", start_ms + 50_000),
        ("participant_expired", start_ms + 60_000),
    ]
    assert store.get(idle).found.status == "cancelled"


def test_all_that_is_due_to_one_session_after_a_long_gap_is_applied_at_its_instants(
    clock: ManualClock, store: SessionStore, sweeper: Sweeper, redis: redis_py.Redis
) -> None:
    session_id = start_session(store, endless_rounds(1000))
    start_ms = clock.now_ms
    clock.advance_ms(200_000)
    passes = [sweeper.run_once(clock.now_ms) for _ in range(5)]
    assert sum(swept.instants for swept in passes) == 200
    assert passes[0].wait_s == 0.0
    assert passes[-1].wait_s > 0.0
    assert event_instants(redis, session_id) == [
        ("cycle_timed_out", start_ms + 1000 * cycle) for cycle in range(1, 201)
    ]


def test_many_due_at_once_are_swept_in_batches_without_a_wait_between(
    clock: ManualClock, store: SessionStore, sweeper: Sweeper, redis: redis_py.Redis
) -> None:
    sessions = [start_session(store) for _ in range(300)]
    due_ms = clock.now_ms + 300_000
    clock.set(due_ms)
    passes = [sweeper.run_once(due_ms)]
    while passes[-1].wait_s == 0.0:
        passes.append(sweeper.run_once(due_ms))
    assert 2 <= len(passes) <= 10
    assert max(swept.sessions for swept in passes) <= max(128, 4 * KEYS.buckets)
    assert sum(swept.instants for swept in passes) == 300
    assert all(event_instants(redis, session) == [("participant_expired", due_ms)] for session in sessions)


def test_the_next_pass_is_at_the_next_deadline_and_at_most_20_ms_away(
    clock: ManualClock, store: SessionStore, sweeper: Sweeper
) -> None:
    assert sweeper.run_once(clock.now_ms).wait_s == MAX_WAIT_S == 0.02
    start_session(store, chess_request(10_000))
    assert sweeper.run_once(clock.now_ms).wait_s == MAX_WAIT_S
    assert 0.0 < sweeper.run_once(clock.now_ms + 9_995).wait_s <= 0.005


def test_the_time_is_the_servers_own_when_none_is_given(redis: redis_py.Redis, redis_url: str) -> None:
    store, sweeper = make_store(redis_url, set_clock=False), make_sweeper(redis_url, set_clock=False)
    session_id = start_session(store, chess_request(1000))
    due_ms = stored_deadline(redis, session_id)
    assert sweeper.run_once().sessions == 0
    wait_until(lambda: sweeper.run_once().sessions == 1)
    assert event_instants(redis, session_id) == [("participant_expired", due_ms)]


def test_the_outbox_is_nudged_for_what_was_swept(clock: ManualClock, store: SessionStore, redis_url: str) -> None:
    nudged: list[int] = []
    session_id = start_session(store)
    clock.advance_ms(300_000)
    bucket = KEYS.bucket(session_id)
    store._client.delete(KEYS.nudge(bucket))
    make_sweeper(redis_url, on_nudge=nudged.append).run_once(clock.now_ms)
    assert nudged == [bucket]


def test_scripts_that_the_server_forgot_are_sent_again(
    clock: ManualClock, store: SessionStore, sweeper: Sweeper, redis: redis_py.Redis
) -> None:
    sessions = [start_session(store) for _ in range(5)]
    clock.advance_ms(300_000)
    redis.script_flush()
    assert sweeper.run_once(clock.now_ms).instants == 5
    assert all(len(event_instants(redis, session)) == 1 for session in sessions)


# Stale entries


def test_the_entry_of_a_session_that_is_gone_is_removed(
    clock: ManualClock, store: SessionStore, sweeper: Sweeper, redis: redis_py.Redis
) -> None:
    unknown, deleted, ended = str(uuid.uuid4()), start_session(store), start_session(store)
    store.delete(deleted)
    store.cancel(ended)
    for session_id in (unknown, deleted, ended):
        assert stored_deadline(redis, session_id) is None
        redis.zadd(KEYS.deadlines(KEYS.bucket(session_id)), {session_id: clock.now_ms})
    swept = sweeper.run_once(clock.now_ms)
    assert (swept.sessions, swept.instants) == (3, 0)
    assert [stored_deadline(redis, each) for each in (unknown, deleted, ended)] == [None] * 3
    assert sweeper.run_once(clock.now_ms).sessions == 0


def test_an_entry_that_is_too_early_is_put_right_and_nothing_happens_to_its_session(
    clock: ManualClock, store: SessionStore, sweeper: Sweeper, redis: redis_py.Redis
) -> None:
    session_id = start_session(store)
    right = stored_deadline(redis, session_id)
    redis.zadd(KEYS.deadlines(KEYS.bucket(session_id)), {session_id: clock.now_ms - 5})
    assert sweeper.run_once(clock.now_ms).instants == 0
    assert (stored_deadline(redis, session_id), event_instants(redis, session_id)) == (right, [])


def test_a_pass_that_changed_nothing_is_not_followed_by_another_at_once(
    clock: ManualClock, sweeper: Sweeper, redis: redis_py.Redis
) -> None:
    for _ in range(400):
        session_id = str(uuid.uuid4())
        redis.zadd(KEYS.deadlines(KEYS.bucket(session_id)), {session_id: clock.now_ms})
    swept = sweeper.run_once(clock.now_ms)
    assert 128 <= swept.sessions < 400
    assert swept.instants == 0
    assert swept.wait_s > 0.0


def test_broken_sessions_keep_nobody_from_expiring_and_are_told_and_tried_again(
    clock: ManualClock, redis: redis_py.Redis, redis_url: str, logged: LogCapture
) -> None:
    store, keys = make_store(redis_url, sync_buckets=1), Keyspace(1)
    now_s = [0.0]
    client = connect(make_settings(redis_url))
    sweeper = Sweeper(client, store, buckets=1, clock=lambda: now_s[0])
    broken = [str(uuid.uuid4()) for _ in range(150)]
    for session_id in broken:
        redis.set(keys.session(session_id), "not a hash")
        redis.zadd(keys.deadlines(0), {session_id: clock.now_ms})
    start_session(store)
    clock.advance_ms(300_000)
    failures = metric_sample("syncapp_expiry_failures_total")
    assert [sweeper.run_once(clock.now_ms).instants for _ in range(3)] == [0, 1, 0]
    assert metric_sample("syncapp_expiry_failures_total") - failures == 150
    assert {entry["event"] for entry in logged.entries} == {"session_not_expired"}
    assert {entry["session_id"] for entry in logged.entries} == set(broken)
    redis.delete(*(keys.session(session_id) for session_id in broken))
    now_s[0] += 60
    assert sum(sweeper.run_once(clock.now_ms).sessions for _ in range(3)) == 150
    assert redis.zcard(keys.deadlines(0)) == 0


def test_no_fault_ends_the_thread(redis: redis_py.Redis, redis_url: str, logged: LogCapture) -> None:
    store = make_store(redis_url, set_clock=False)
    session_id = start_session(store, chess_request(1000))
    expire, faults = store.expire, iter(range(3))

    def fails_at_first(session_ids: Any) -> Any:
        if next(faults, None) is not None:
            raise RuntimeError("a fault of ours")
        return expire(session_ids)

    store.expire = fails_at_first  # type: ignore[method-assign]  # a fault that cannot be provoked
    sweeper = Sweeper(connect(make_settings(redis_url)), store)
    with running_sweepers(sweeper):
        wait_until(lambda: event_instants(redis, session_id))
    told = [entry["event"] for entry in logged.entries if "lease" not in entry["event"]]
    assert told == ["sweeper_failed", "sweeper_recovered"]


def test_a_bucket_that_cannot_be_read_holds_up_no_other(redis: redis_py.Redis, redis_url: str) -> None:
    store, clock = make_store(redis_url), ManualClock(redis)
    ids = {Keyspace().bucket(each): each for each in (str(uuid.uuid4()) for _ in range(100))}
    bad, *good = [
        store.create(chess_request(1_000, session_id=each)).found.session_id for each in list(ids.values())[:3]
    ]
    for session_id in (bad, *good):
        store.start(session_id)
    key = Keyspace().deadlines(Keyspace().bucket(bad))
    redis.delete(key)
    redis.set(key, "something else")
    clock.advance_ms(2_000)
    sweeper = Sweeper(connect(make_settings(redis_url)), store)
    assert sweeper.run_once(clock.now_ms).sessions == 2
    assert {store.position(each).version for each in good} == {3}  # type: ignore[union-attr]  # they are there

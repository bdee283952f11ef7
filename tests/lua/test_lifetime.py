"""Idle sessions end, and finished sessions stay readable for their lifetime (docs/clock.md)."""

from __future__ import annotations

import pytest

from syncapp.errors import SessionNotFound
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from tests.support.store import ManualClock, make_store
from tests.support.store_sessions import (
    END,
    MODES,
    create_pending,
    create_running,
    current_state,
    event_instants,
    events_since_start,
)
from tests.support.types import Redis


def test_reads_and_what_a_session_does_by_itself_do_not_keep_it_from_being_idle(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = create_running(store, "per_cycle", idle_timeout_s=25)
    for _ in range(24):
        clock.advance_ms(1000)
        store.get(session_id)
    assert store.get(session_id).found.status == "running"
    clock.advance_ms(1000)
    shown = current_state(store, session_id)
    assert (shown["status"], shown["session_completed_at"]) == ("cancelled", "2100-01-01T12:00:25.000Z")
    assert events_since_start(redis, session_id)[-1] == {
        "type": "session_cancelled",
        "at": 25_000,
        "participant_id": "a",
        "reason": "idle",
    }
    assert [person["time_used_ms"] for person in shown["participants"]] == [15_000, 10_000]


def test_every_command_puts_the_idle_instant_off(store: SessionStore, clock: ManualClock) -> None:
    session_id = create_pending(store, "count_up", idle_timeout_s=5)
    store.adjust(session_id, op="set", ms=20_000)
    clock.advance_ms(4999)
    store.start(session_id)
    started_ms = clock.now_ms
    clock.advance_ms(10_000)
    store.pause(session_id)
    clock.advance_ms(4999)
    store.update(session_id, {"a": 1})
    clock.advance_ms(4999)
    assert store.get(session_id).found.status == "paused"
    clock.advance_ms(1)
    assert store.get(session_id).found.session_completed_ms == started_ms + 10_000 + 4999 + 5000


def test_a_stopwatch_without_a_cap_is_idle_in_the_end_and_has_counted_until_then(
    store: SessionStore, clock: ManualClock
) -> None:
    session_id = create_running(store, {"sync_mode": "count_up", "idle_timeout_s": 60})
    clock.advance_ms(100_000)
    shown = current_state(store, session_id)
    assert (shown["status"], shown["time_used_ms"], shown["clock"]["elapsed_ms"]) == ("cancelled", 60_000, 60_000)


@pytest.mark.parametrize("mode", MODES)
def test_a_lifetime_shorter_than_the_clock_drops_nothing(
    redis_url: str, clock: ManualClock, redis: Redis, mode: str
) -> None:
    store, day_ms = make_store(redis_url, session_ttl_s=1), 86_400_000
    session_id = create_running(store, mode, budget_ms=day_ms, action_on_timeout=END)
    assert redis.ttl(Keyspace().session(session_id)) == -1
    clock.advance_ms(day_ms - 1)
    assert current_state(store, session_id)["clock"]["remaining_ms"] == 1
    clock.advance_ms(1)
    assert current_state(store, session_id)["status"] == "expired"


def test_a_clock_that_was_given_more_time_is_not_idle_before_it_ends(store: SessionStore, clock: ManualClock) -> None:
    session_id = create_running(store, idle_timeout_s=1)
    store.adjust(session_id, op="set", ms=86_400_000)
    clock.advance_ms(86_399_999)
    assert store.get(session_id).found.status == "running"


def test_what_ended_stays_for_its_lifetime_and_no_command_prolongs_it(
    redis_url: str, clock: ManualClock, redis: Redis
) -> None:
    store = make_store(redis_url, session_ttl_s=60)
    key_of = Keyspace().session
    for end in ("complete", "cancel"):
        session_id = create_running(store)
        getattr(store, end)(session_id)
        gone_ms = clock.now_ms + 60_000
        assert redis.pexpiretime(key_of(session_id)) == gone_ms
        clock.advance_ms(5000)
        store.update(session_id, {"a": 1})
        store.expire([session_id])
        assert redis.pexpiretime(key_of(session_id)) == gone_ms
    late = create_running(store)
    clock.advance_ms(70_000)  # noticed a minute later, yet readable as long as any other
    store.expire([late])
    assert redis.pexpiretime(key_of(late)) == clock.now_ms + 60_000


def test_a_deleted_session_stops_its_clock(store: SessionStore, clock: ManualClock, redis: Redis) -> None:
    session_id = create_running(store)
    store.delete(session_id)
    clock.advance_ms(20_000)
    assert store.expire([session_id])[0].instants_ms == ()  # type: ignore[union-attr]  # no error is expected
    with pytest.raises(SessionNotFound):
        store.get(session_id)
    assert event_instants(redis, session_id) == [("session_deleted", 0)]


def test_at_one_instant_a_timeout_comes_before_the_idle_end(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = create_running(store, "per_cycle", idle_timeout_s=20)
    clock.advance_ms(60_000)
    store.get(session_id)
    assert event_instants(redis, session_id) == [
        ("cycle_timed_out", 10_000),
        ("cycle_timed_out", 20_000),
        ("session_cancelled", 20_000),
    ]

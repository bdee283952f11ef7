"""Increments, pauses and resumes are exact to the millisecond (docs/clock.md)."""

from __future__ import annotations

import pytest

from syncapp.errors import InvalidTransition
from syncapp.store.sessions import SessionStore
from tests.support.store import ManualClock, outbox_messages
from tests.support.store_sessions import (
    MODES,
    NOTIFY,
    SKIP,
    create_running,
    current_state,
    events_since_start,
    expired_ids,
    remaining_ms,
    state_of,
)
from tests.support.types import Redis

# Increments and the flag


@pytest.mark.parametrize("mode", ["per_participant", "per_group"])
def test_no_increment_is_paid_after_the_flag_fell(store: SessionStore, clock: ManualClock, mode: str) -> None:
    session_id = create_running(store, mode, increment_ms=2000)
    clock.advance_ms(10_000)
    with pytest.raises(InvalidTransition, match="expired") as refused:
        store.switch(session_id)
    assert refused.value.details["expired_participant_id"] == "a"
    shown = current_state(store, session_id)
    assert (remaining_ms(shown), expired_ids(shown), shown["cycle_count"]) == ([0, 10_000], ["a"], 0)


@pytest.mark.parametrize("mode", ["per_participant", "per_group"])
def test_no_increment_is_paid_in_overtime_but_again_after_time_was_added(
    store: SessionStore, clock: ManualClock, mode: str
) -> None:
    session_id = create_running(store, mode, increment_ms=2000, action_on_timeout=NOTIFY)
    clock.advance_ms(10_500)
    assert remaining_ms(state_of(store.switch(session_id))) == [-500, 10_000]
    store.switch(session_id, next_participant_id="a")
    store.adjust(session_id, op="set", ms=1)
    assert remaining_ms(state_of(store.switch(session_id))) == [2001, 12_000]


def test_a_skipped_cycle_earns_no_increment(store: SessionStore, clock: ManualClock) -> None:
    session_id = create_running(store, increment_ms=2000, action_on_timeout=SKIP)
    clock.advance_ms(10_000)
    assert remaining_ms(current_state(store, session_id)) == [0, 10_000]


@pytest.mark.parametrize("mode", ["per_participant", "per_group"])
def test_the_last_switch_of_a_session_still_earns_its_increment(
    store: SessionStore, clock: ManualClock, mode: str
) -> None:
    session_id = create_running(store, mode, increment_ms=2000, max_cycles=1)
    clock.advance_ms(1000)
    done = store.switch(session_id)
    assert (done.found.status, remaining_ms(state_of(done))) == ("completed", [11_000, 10_000])


# Pause and resume


@pytest.mark.parametrize("mode", MODES)
def test_pause_and_resume_neither_lose_nor_gain_a_millisecond(
    store: SessionStore, clock: ManualClock, mode: str
) -> None:
    session_id = create_running(store, mode)
    ran_ms = 0
    for ms in (1, 0, 2, 333, 4000, 7):
        clock.advance_ms(ms)
        ran_ms += ms
        paused = state_of(store.pause(session_id))
        assert paused["clock"]["remaining_ms"] == 10_000 - ran_ms
        assert paused["participants"][0]["time_used_ms"] == ran_ms
        clock.advance_ms(123_457)
        resumed = state_of(store.resume(session_id))
        assert resumed["clock"]["deadline_ms"] == clock.now_ms + 10_000 - ran_ms
        assert (resumed["cycle_count"], resumed["active_participant_id"]) == (0, "a")
    clock.advance_ms(10_000 - ran_ms - 1)
    assert current_state(store, session_id)["clock"]["remaining_ms"] == 1


def test_a_paused_cycle_keeps_what_it_had_left(store: SessionStore, clock: ManualClock) -> None:
    session_id = create_running(store, "per_cycle")
    clock.advance_ms(9000)
    store.pause(session_id)
    clock.advance_ms(5000)
    assert state_of(store.resume(session_id))["clock"]["remaining_ms"] == 1000
    clock.advance_ms(1000)
    assert current_state(store, session_id)["cycle_count"] == 1


@pytest.mark.parametrize("end", ["complete", "cancel"])
@pytest.mark.parametrize("mode", MODES)
def test_who_ran_when_the_session_was_ended_is_charged_until_then(
    store: SessionStore, clock: ManualClock, redis: Redis, mode: str, end: str
) -> None:
    session_id = create_running(store, mode)
    clock.advance_ms(1234)
    shown = state_of(getattr(store, end)(session_id))
    assert (shown["clock"]["remaining_ms"], shown["participants"][0]["time_used_ms"]) == (8766, 1234)
    assert outbox_messages(redis, session_id)[-1]["elapsed_ms"] == 1234
    assert events_since_start(redis, session_id)[-1]["participant_id"] == "a"

"""Warnings come at their own instants, once per crossing (docs/clock.md)."""

from __future__ import annotations

import pytest

from syncapp.store.sessions import SessionStore
from tests.support.store import NOON_MS, ManualClock
from tests.support.store_sessions import END, MODES, TIMEOUTS, create_running, event_instants, events_since_start
from tests.support.types import Redis


def warnings(client: Redis, session_id: str) -> list[tuple[int, int, int]]:
    """Return instant, threshold and remaining time of each warning."""
    found = [event for event in events_since_start(client, session_id) if event["type"] == "time_warning"]
    return [(event["at"], event["threshold_ms"], event["remaining_ms"]) for event in found]


@pytest.mark.parametrize("mode", MODES)
def test_warnings_come_at_their_instants_and_before_the_timeout_however_late(
    store: SessionStore, clock: ManualClock, redis: Redis, mode: str
) -> None:
    session_id = create_running(store, mode, warn_at_ms=[1000, 5000], action_on_timeout=END)
    clock.advance_ms(4999)
    assert store.get(session_id).found.version == 2
    clock.advance_ms(60_000)
    store.get(session_id)
    assert warnings(redis, session_id) == [(5000, 5000, 5000), (9000, 1000, 1000)]
    assert event_instants(redis, session_id)[-1] == (TIMEOUTS[mode], 10_000)
    assert events_since_start(redis, session_id)[0].get("group_id") == ("A" if mode == "per_group" else None)
    assert events_since_start(redis, session_id)[0]["participant_id"] == "a"


def test_a_warning_is_not_repeated_after_a_pause_but_after_more_time_and_in_the_next_cycle(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = create_running(store, warn_at_ms=[5000])
    clock.advance_ms(6000)
    store.pause(session_id)
    clock.advance_ms(1000)
    store.resume(session_id)
    clock.advance_ms(1000)
    store.adjust(session_id, op="add", ms=9000)
    clock.advance_ms(8000)
    store.get(session_id)
    assert warnings(redis, session_id) == [(5000, 5000, 5000), (15_000, 5000, 5000)]
    store.switch(session_id)
    clock.advance_ms(5500)
    store.get(session_id)
    assert warnings(redis, session_id)[2:] == [(21_000, 5000, 5000)]


@pytest.mark.parametrize("mode", MODES)
def test_an_auction_that_is_extended_in_its_last_seconds_warns_again_each_time(
    store: SessionStore, clock: ManualClock, redis: Redis, mode: str
) -> None:
    session_id = create_running(store, mode, warn_at_ms=[3000])
    clock.advance_ms(7600)
    store.adjust(session_id, op="at_least", ms=5000)  # at 2.4 s
    clock.advance_ms(2600)
    store.adjust(session_id, op="add", ms=1000)  # at 2.4 s again
    clock.advance_ms(1000)
    store.get(session_id)
    assert warnings(redis, session_id) == [(7000, 3000, 3000), (9600, 3000, 3000), (10_600, 3000, 3000)]


@pytest.mark.parametrize(("ms", "again"), [(3000, []), (3001, [(7601, 3000, 3000)]), (2999, [])])
def test_a_warning_comes_again_only_if_the_clock_was_lifted_above_its_threshold(
    store: SessionStore, clock: ManualClock, redis: Redis, ms: int, again: list[tuple[int, int, int]]
) -> None:
    session_id = create_running(store, warn_at_ms=[8000, 3000, 1000])
    clock.advance_ms(7600)
    store.adjust(session_id, op="set", ms=ms)
    clock.advance_ms(100)
    store.get(session_id)
    assert warnings(redis, session_id) == [(2000, 8000, 8000), (7000, 3000, 3000), *again]


def test_time_for_somebody_elses_clock_lets_no_warning_come_again(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = create_running(store, warn_at_ms=[3000])
    clock.advance_ms(7600)
    store.adjust(session_id, op="add", ms=60_000, participant_id="b")
    store.get(session_id)
    assert warnings(redis, session_id) == [(7000, 3000, 3000)]


def test_a_clock_that_is_lifted_and_taken_down_while_paused_warns_again_at_the_resume(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = create_running(store, warn_at_ms=[3000])
    clock.advance_ms(7600)
    store.pause(session_id)
    store.adjust(session_id, op="set", ms=5000)
    store.adjust(session_id, op="set", ms=2000)
    clock.advance_ms(100)
    store.resume(session_id)
    assert warnings(redis, session_id) == [(7000, 3000, 3000), (7700, 3000, 2000)]


def test_a_warning_still_comes_on_time_in_a_cycle_that_was_paused_before_it(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = create_running(store, warn_at_ms=[5000])
    clock.advance_ms(4000)
    store.pause(session_id)
    clock.advance_ms(50_000)
    store.resume(session_id)
    clock.advance_ms(1000)
    store.expire([session_id])
    assert warnings(redis, session_id) == [(55_000, 5000, 5000)]


@pytest.mark.parametrize(("budget_ms", "fires"), [(5000, False), (4999, False), (5001, True)])
def test_a_threshold_that_is_reached_when_the_cycle_starts_does_not_fire(
    store: SessionStore, clock: ManualClock, redis: Redis, budget_ms: int, fires: bool
) -> None:
    session_id = create_running(store, budget_ms=budget_ms, warn_at_ms=[5000])
    clock.advance_ms(4000)
    store.get(session_id)
    assert warnings(redis, session_id) == ([(1, 5000, 5000)] if fires else [])


def test_an_adjustment_that_passes_thresholds_fires_them_from_the_largest_with_what_is_left(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = create_running(store, warn_at_ms=[1000, 3000, 8000])
    clock.advance_ms(100)
    store.adjust(session_id, op="set", ms=2500)
    assert warnings(redis, session_id) == [(100, 8000, 2500), (100, 3000, 2500)]
    clock.advance_ms(1500)
    store.get(session_id)
    assert warnings(redis, session_id)[2:] == [(1600, 1000, 1000)]


def test_an_adjustment_to_nothing_warns_and_then_times_out_at_one_instant(store: SessionStore, redis: Redis) -> None:
    session_id = create_running(store, warn_at_ms=[1000])
    done = store.adjust(session_id, op="set", ms=0)
    assert done.found.status == "expired"
    assert event_instants(redis, session_id) == [("time_adjusted", 0), ("time_warning", 0), ("participant_expired", 0)]


def test_a_threshold_that_is_passed_while_paused_fires_at_the_resume(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = create_running(store, warn_at_ms=[5000])
    store.pause(session_id)
    store.adjust(session_id, op="set", ms=2000)
    clock.advance_ms(700)
    assert warnings(redis, session_id) == []
    store.resume(session_id)
    assert warnings(redis, session_id) == [(700, 5000, 2000)]


def test_each_cycle_has_its_warnings_in_per_cycle(store: SessionStore, clock: ManualClock, redis: Redis) -> None:
    session_id = create_running(store, "per_cycle", people="", warn_at_ms=[4000])
    clock.advance_ms(30_000)
    store.get(session_id)
    assert warnings(redis, session_id) == [(6000, 4000, 4000), (16_000, 4000, 4000), (26_000, 4000, 4000)]


def test_all_eight_thresholds_are_kept_apart(store: SessionStore, clock: ManualClock, redis: Redis) -> None:
    session_id = create_running(store, warn_at_ms=[8, 1, 7, 2, 6, 3, 5, 4])
    for ms in range(9990, 10_000):
        clock.set(NOON_MS + ms)
        store.get(session_id)
    assert warnings(redis, session_id) == [(10_000 - ms, ms, ms) for ms in (8, 7, 6, 5, 4, 3, 2, 1)]

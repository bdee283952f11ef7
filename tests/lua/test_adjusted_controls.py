"""Adjustments of clocks with a time control: what flags, periods and main time are afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from syncapp.errors import ValidationFailed
from syncapp.store.sessions import SessionStore
from tests.support.store import NOON_MS, ManualClock
from tests.support.store_sessions import NOTIFY, SKIP, controlled_body, create_running, current_state

BYO_YOMI = {"time_ms": 10_000, "periods": 3, "period_ms": 5_000}
LAST_STAGE = {"moves": 40, "time_ms": 10_000}


def running(store: SessionStore, *stages: dict[str, Any], action: dict[str, Any]) -> str:
    """Return a running session of a and b; a's time runs."""
    return create_running(store, controlled_body({"stages": list(stages)}, action_on_timeout=action))


def clock_of_a(store: SessionStore, session_id: str) -> dict[str, Any]:
    found: dict[str, Any] = current_state(store, session_id)["participants"][0]
    return found


def test_a_flagged_owner_who_is_put_into_a_stage_with_periods_is_not_flagged_any_more(
    store: SessionStore, clock: ManualClock
) -> None:
    session_id = running(store, LAST_STAGE, BYO_YOMI, action=SKIP)
    clock.advance_ms(10_000)
    assert clock_of_a(store, session_id)["has_expired"]
    store.adjust(session_id, stage=2, participant_id="a")
    assert not clock_of_a(store, session_id)["has_expired"]
    assert store.switch(session_id).found.active_participant_id == "a"
    assert current_state(store, session_id)["clock"]["deadline_ms"] == clock.now_ms + 15_000


def test_an_owner_without_any_time_left_stays_flagged(store: SessionStore, clock: ManualClock) -> None:
    session_id = running(store, {"time_ms": 1_000, "periods": 1, "period_ms": 1_000}, action=SKIP)
    clock.advance_ms(2_000)
    store.adjust(session_id, period_remaining_ms=0, participant_id="a")
    shown = clock_of_a(store, session_id)
    assert (shown["has_expired"], shown["period_remaining_ms"]) == (True, 0)
    store.adjust(session_id, period_remaining_ms=1, participant_id="a")
    assert not clock_of_a(store, session_id)["has_expired"]


def test_there_is_no_main_time_below_zero_in_a_period(store: SessionStore, clock: ManualClock) -> None:
    session_id = running(store, BYO_YOMI | {"increment_ms": 3_000}, action=NOTIFY)
    clock.advance_ms(12_000)
    event = store.adjust(session_id, op="add", ms=-8_000).event
    assert event
    assert (event["remaining_ms"], event["adjusted_ms"]) == (0, 0)
    shown = clock_of_a(store, session_id)
    assert (shown["time_remaining_ms"], shown["period_remaining_ms"]) == (0, 3_000)


def test_a_period_that_is_given_back_replaces_main_time_below_zero(store: SessionStore, clock: ManualClock) -> None:
    session_id = running(store, LAST_STAGE, BYO_YOMI, action=NOTIFY)
    clock.advance_ms(12_000)
    event = store.adjust(session_id, stage=2, periods_left=3).event
    assert event
    assert (event["remaining_ms"], event["adjusted_ms"]) == (0, 2_000)
    shown = clock_of_a(store, session_id)
    assert (shown["time_remaining_ms"], shown["period_remaining_ms"], shown["has_expired"]) == (0, 5_000, False)
    assert current_state(store, session_id)["clock"]["deadline_ms"] == NOON_MS + 12_000 + 15_000


def test_an_adjustment_gives_no_more_periods_than_the_stage_has(store: SessionStore, clock: ManualClock) -> None:
    session_id = running(store, BYO_YOMI, action=NOTIFY)
    before = current_state(store, session_id)
    with pytest.raises(ValidationFailed, match="periods_left: must be at most the stage's periods"):
        store.adjust(session_id, periods_left=4, targets="all")
    assert current_state(store, session_id) == before
    clock.advance_ms(16_000)
    assert clock_of_a(store, session_id)["periods_left"] == 2
    store.adjust(session_id, periods_left=3)
    assert clock_of_a(store, session_id)["periods_left"] == 3

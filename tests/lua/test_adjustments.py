"""Adjustments of budgets: which one, by how much, and what follows (docs/clock.md)."""

from __future__ import annotations

from typing import Any

import pytest

from syncapp.errors import ValidationFailed
from syncapp.store.sessions import SessionStore
from tests.support.store import ManualClock, dump_session
from tests.support.store_sessions import (
    END,
    MODES,
    NOTIFY,
    SKIP,
    TIMEOUTS,
    create_pending,
    create_running,
    current_state,
    event_instants,
    events_since_start,
    expired_ids,
    remaining_ms,
    state_of,
    team_body,
)
from tests.support.types import Redis


@pytest.mark.parametrize(
    ("op", "ms", "stop_ms", "shows"),
    [
        ("add", 500, None, 8500),
        ("add", -500, None, 7500),
        ("add", -7999, None, 1),
        ("set", 12_000, None, 12_000),
        ("at_least", 9000, None, 9000),
        ("at_least", 8000, None, 8000),
        ("at_least", 7999, None, 8000),
        ("add", 500, 8500, 8500),
        ("add", 501, 8500, 8500),
        ("add", 5000, 8100, 8100),
        ("at_least", 60_000, 9000, 9000),
        ("add", 5000, 8000, 8000),
        ("add", 5000, 3000, 8000),  # a limit in the past does not reduce the budget
        ("add", 5000, -3000, 8000),
        ("set", 6000, 3000, 6000),
        ("add", -500, 3000, 7500),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_an_adjustment_changes_what_the_running_clock_shows(
    store: SessionStore, clock: ManualClock, mode: str, op: str, ms: int, stop_ms: int | None, shows: int
) -> None:
    session_id = create_running(store, mode)
    clock.advance_ms(2000)
    stop = None if stop_ms is None else clock.now_ms + stop_ms
    done = store.adjust(session_id, op=op, ms=ms, not_after_ms=stop, reason="a bid")
    named: dict[str, Any] = {"per_participant": {"participant_id": "a"}, "per_group": {"group_id": "A"}}.get(mode, {})
    assert done.event == {
        "type": "time_adjusted",
        "at_ms": clock.now_ms,
        **named,
        "remaining_ms": shows,
        "adjusted_ms": shows - 8000,
        "reason": "a bid",
    }
    shown = state_of(done)
    assert (shown["clock"]["remaining_ms"], shown["clock"]["deadline_ms"]) == (shows, clock.now_ms + shows)
    assert (shown["version"], shown["status"], shown["clock"]["elapsed_ms"]) == (3, "running", 2000)
    assert shown["total_time_ms"] in (None, 10_000, 20_000)


@pytest.mark.parametrize("op", ["add", "set"])
@pytest.mark.parametrize("action", [END, SKIP, NOTIFY])
@pytest.mark.parametrize("mode", MODES)
def test_a_running_clock_that_is_taken_to_nothing_times_out_at_once(
    store: SessionStore, clock: ManualClock, redis: Redis, mode: str, action: dict[str, str], op: str
) -> None:
    session_id = create_running(store, mode, action_on_timeout=action)
    clock.advance_ms(2000)
    done = store.adjust(session_id, op=op, ms=-8500 if op == "add" else 0)
    shown = state_of(done)
    below_ms = -500 if op == "add" and action is NOTIFY else 0
    assert done.event["remaining_ms"] == below_ms  # type: ignore[index]  # an adjustment commits
    assert event_instants(redis, session_id) == [("time_adjusted", 2000), (TIMEOUTS[mode], 2000)]
    assert events_since_start(redis, session_id)[-1]["remaining_ms"] == below_ms
    skips = action is SKIP and mode not in ("global", "count_up")
    assert shown["status"] == ("running" if skips or action is NOTIFY else "expired")
    assert shown["active_participant_id"] == ("b" if skips else "a" if action is NOTIFY else None)
    assert expired_ids(shown) == (["a"] if mode in ("per_participant", "per_group") else [])
    assert shown["clock"]["remaining_ms"] == (10_000 if skips else below_ms)


def test_a_budget_that_does_not_run_is_taken_to_nothing_at_most_and_nobody_expires(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    for action in (END, SKIP, NOTIFY):
        session_id = create_running(store, action_on_timeout=action)
        shown = state_of(store.adjust(session_id, op="add", ms=-99_000, participant_id="b"))
        assert (remaining_ms(shown), expired_ids(shown), shown["status"]) == ([10_000, 0], [], "running")
        assert len(events_since_start(redis, session_id)) == 1


def test_overtime_that_does_not_run_is_made_no_longer(store: SessionStore, clock: ManualClock) -> None:
    session_id = create_running(store, action_on_timeout=NOTIFY)
    clock.advance_ms(12_000)
    store.switch(session_id)
    for ms, after_ms in ((-5000, -2000), (500, -1500), (1500, 0), (1, 1)):
        shown = state_of(store.adjust(session_id, op="add", ms=ms, participant_id="a"))
        assert (remaining_ms(shown)[0], expired_ids(shown)) == (after_ms, ["a"] if after_ms <= 0 else [])


@pytest.mark.parametrize("mode", MODES)
def test_before_the_start_and_while_paused_the_budget_that_would_run_is_adjusted(
    store: SessionStore, clock: ManualClock, mode: str
) -> None:
    session_id = create_pending(store, mode)
    clock.advance_ms(3000)
    assert state_of(store.adjust(session_id, op="add", ms=5000))["clock"]["remaining_ms"] == 15_000
    assert state_of(store.start(session_id))["clock"]["remaining_ms"] == 15_000
    clock.advance_ms(1000)
    store.pause(session_id)
    clock.advance_ms(3000)
    stop = clock.now_ms + 14_100
    paused = state_of(store.adjust(session_id, op="add", ms=5000, not_after_ms=stop))
    assert (paused["clock"]["remaining_ms"], paused["clock"]["deadline_ms"]) == (14_100, None)
    assert state_of(store.resume(session_id))["clock"]["deadline_ms"] == stop


def test_an_adjusted_cycle_is_followed_by_one_of_the_usual_length(store: SessionStore, clock: ManualClock) -> None:
    session_id = create_running(store, "per_cycle")
    store.adjust(session_id, op="set", ms=3000)
    clock.advance_ms(3000)
    assert current_state(store, session_id)["clock"]["remaining_ms"] == 10_000


@pytest.mark.parametrize(
    ("mode", "named", "field", "code"),
    [
        ("per_participant", {"participant_id": "z"}, "participant_id", "unknown_participant"),
        ("per_participant", {"group_id": "A"}, "group_id", "no_budget"),
        ("per_group", {"group_id": "Z"}, "group_id", "unknown_group"),
        ("per_group", {"participant_id": "z"}, "participant_id", "unknown_participant"),
        ("per_cycle", {"participant_id": "a"}, "participant_id", "no_budget"),
        ("global", {"participant_id": "z"}, "participant_id", "unknown_participant"),
        ("global", {"participant_id": "a"}, "participant_id", "no_budget"),
        ("count_up", {"group_id": "A"}, "group_id", "no_budget"),
    ],
)
def test_an_adjustment_of_a_budget_that_is_not_there_changes_nothing(
    store: SessionStore, redis: Redis, mode: str, named: dict[str, str], field: str, code: str
) -> None:
    session_id = create_running(store, mode)
    before = dump_session(redis, session_id)
    with pytest.raises(ValidationFailed) as refused:
        store.adjust(session_id, op="add", ms=1000, **named)  # type: ignore[arg-type]  # only names of budgets
    assert [(fault["field"], fault["code"]) for fault in refused.value.details] == [(field, code)]
    assert dump_session(redis, session_id) == before


def test_a_stopwatch_without_a_cap_has_nothing_to_adjust(store: SessionStore) -> None:
    session_id = create_running(store, {"sync_mode": "count_up"})
    with pytest.raises(ValidationFailed, match="op"):
        store.adjust(session_id, op="add", ms=1000)


def test_a_participant_of_a_group_stands_for_its_group(store: SessionStore) -> None:
    session_id = create_running(store, team_body({"X": "ac", "Y": "bd"}))
    done = store.adjust(session_id, op="add", ms=500, participant_id="d")
    assert done.event["group_id"] == "Y"  # type: ignore[index]  # an adjustment commits
    assert remaining_ms(state_of(done)) == [10_000, 10_500]


@pytest.mark.parametrize("way", [1, -1])
def test_a_budget_never_outgrows_its_place_among_the_others(store: SessionStore, redis: Redis, way: int) -> None:
    session_id = create_running(store, people="abc", action_on_timeout=NOTIFY)
    day_ms = 86_400_000
    with pytest.raises(ValidationFailed, match="ms"):  # noqa: PT012  it may take some
        for _ in range(1200):
            store.adjust(session_id, op="add", ms=way * day_ms)
    shown = current_state(store, session_id)
    assert abs(remaining_ms(shown)[0]) > 100 * day_ms
    assert remaining_ms(shown)[1:] == [10_000, 10_000]
    store.switch(session_id)
    assert [person["time_used_ms"] for person in current_state(store, session_id)["participants"]] == [0, 0, 0]


def test_the_largest_groups_fit_their_records_and_can_be_adjusted(store: SessionStore, clock: ManualClock) -> None:
    day_ms = 86_400_000
    people = [{"participant_id": f"p{i}", "group_id": "G", "total_time_ms": day_ms} for i in range(999)]
    people.append({"participant_id": "last", "group_id": "H", "total_time_ms": day_ms})
    session_id = create_running(store, {"sync_mode": "per_group", "participants": people})
    clock.advance_ms(1)
    assert remaining_ms(state_of(store.adjust(session_id, op="add", ms=day_ms))) == [1000 * day_ms, day_ms]
    store.switch(session_id)
    assert remaining_ms(current_state(store, session_id)) == [1000 * day_ms - 1, day_ms]

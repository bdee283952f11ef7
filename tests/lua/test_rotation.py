"""The next participant and group in rotation, and the last cycle (docs/clock.md)."""

from __future__ import annotations

import pytest

from syncapp.errors import ValidationFailed
from syncapp.store.sessions import SessionStore
from tests.support.store import ManualClock
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


def test_expired_participants_are_passed_over_until_nobody_is_left(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = create_running(store, people="abcd", action_on_timeout=SKIP)
    clock.advance_ms(9000)
    store.switch(session_id)
    clock.advance_ms(31_000)
    shown = current_state(store, session_id)
    found = [
        (e["type"], e["at"], e["participant_id"], e.get("next_participant_id"))
        for e in events_since_start(redis, session_id)
    ]
    assert found == [
        ("cycle_switched", 9000, "a", "b"),
        ("participant_expired", 19_000, "b", "c"),
        ("participant_expired", 29_000, "c", "d"),
        ("participant_expired", 39_000, "d", "a"),
        ("participant_expired", 40_000, "a", None),
    ]
    assert (shown["status"], shown["cycle_count"]) == ("expired", 4)


def test_everybody_in_overtime_takes_turns_all_the_same(store: SessionStore, clock: ManualClock) -> None:
    session_id = create_running(store, people="abc", action_on_timeout=NOTIFY)
    for _ in range(3):
        clock.advance_ms(11_000)
        store.switch(session_id)
    assert expired_ids(current_state(store, session_id)) == ["a", "b", "c"]
    turns = [store.switch(session_id).found.active_participant_id for _ in range(4)]
    assert turns == ["b", "c", "a", "b"]
    assert store.switch(session_id, next_participant_id="a").found.active_participant_id == "a"


def test_in_overtime_those_who_have_time_left_come_first(store: SessionStore, clock: ManualClock) -> None:
    session_id = create_running(store, people="abc", action_on_timeout=NOTIFY)
    clock.advance_ms(11_000)
    turns = [store.switch(session_id).found.active_participant_id for _ in range(4)]
    assert turns == ["b", "c", "b", "c"]


def test_the_turn_goes_round_the_groups_and_round_the_members_inside_each(store: SessionStore) -> None:
    session_id = create_running(store, team_body({"X": "ace", "Y": "bd"}))
    turns = [store.switch(session_id).found.active_participant_id for _ in range(6)]
    assert turns == ["b", "c", "d", "e", "b", "a"]


def test_a_group_goes_on_after_the_member_that_was_named(store: SessionStore) -> None:
    session_id = create_pending(store, team_body({"X": "ace", "Y": "bd"}))
    assert store.start(session_id, participant_id="e").found.active_participant_id == "e"
    assert store.switch(session_id, next_participant_id="d").found.active_participant_id == "d"
    turns = [store.switch(session_id).found.active_participant_id for _ in range(4)]
    assert turns == ["a", "b", "c", "d"]


def test_members_spend_one_budget_and_expire_together(store: SessionStore, clock: ManualClock, redis: Redis) -> None:
    session_id = create_running(store, team_body({"X": "ac", "Y": "bd"}, action_on_timeout=SKIP))
    clock.advance_ms(4000)
    store.switch(session_id)
    store.switch(session_id)
    clock.advance_ms(6000)
    shown = current_state(store, session_id)
    assert (expired_ids(shown), shown["active_participant_id"]) == (["a", "c"], "d")
    assert [group["has_expired"] for group in shown["groups"]] == [True, False]
    assert [person["time_used_ms"] for person in shown["participants"]] == [4000, 0, 6000, 0]
    assert [group["time_used_ms"] for group in shown["groups"]] == [10_000, 0]
    assert events_since_start(redis, session_id)[-1] == {
        "type": "group_expired",
        "at": 10_000,
        "participant_id": "c",
        "group_id": "X",
        "next_participant_id": "d",
        "remaining_ms": 0,
    }
    with pytest.raises(ValidationFailed, match="next_participant_id"):
        store.switch(session_id, next_participant_id="a")
    assert expired_ids(state_of(store.adjust(session_id, op="set", ms=1000, group_id="X"))) == []


def test_a_group_without_members_is_passed_over_and_a_one_member_group_is_a_participant(
    store: SessionStore, clock: ManualClock
) -> None:
    session_id = create_running(
        store, team_body({"X": "a", "none": "", "Y": "bc", "empty": ""}, action_on_timeout=SKIP)
    )
    turns = [store.switch(session_id).found.active_participant_id for _ in range(4)]
    assert turns == ["b", "a", "c", "a"]
    assert remaining_ms(state_of(store.adjust(session_id, op="set", ms=500, group_id="none"))) == [
        10_000,
        500,
        10_000,
        10_000,
    ]
    clock.advance_ms(10_000)
    assert current_state(store, session_id)["active_participant_id"] == "b"
    assert store.switch(session_id).found.active_participant_id == "c"
    clock.advance_ms(10_000)
    shown = current_state(store, session_id)
    assert (shown["status"], [group["has_expired"] for group in shown["groups"]]) == (
        "expired",
        [True, False, True, False],
    )


def test_a_group_of_everybody_hands_the_turn_round_inside(store: SessionStore, clock: ManualClock) -> None:
    session_id = create_running(store, team_body({"X": "abc"}, action_on_timeout=SKIP))
    turns = [store.switch(session_id).found.active_participant_id for _ in range(4)]
    assert turns == ["b", "c", "a", "b"]
    clock.advance_ms(10_000)
    assert current_state(store, session_id)["status"] == "expired"


def test_groups_that_the_members_make_have_the_sum_of_their_budgets(store: SessionStore) -> None:
    people = [("a", "X", 1000), ("b", "Y", 2000), ("c", "X", 4000)]
    members = [{"participant_id": name, "group_id": group, "total_time_ms": ms} for name, group, ms in people]
    shown = current_state(store, create_pending(store, {"sync_mode": "per_group", "participants": members}))
    assert [(group["group_id"], group["total_time_ms"]) for group in shown["groups"]] == [("X", 5000), ("Y", 2000)]
    assert shown["total_time_ms"] == 7000


@pytest.mark.parametrize("action", [END, SKIP, NOTIFY])
@pytest.mark.parametrize("mode", MODES)
def test_one_participant_alone_hands_the_turn_to_itself(
    store: SessionStore, clock: ManualClock, mode: str, action: dict[str, str]
) -> None:
    session_id = create_running(store, mode, people="a", action_on_timeout=action)
    clock.advance_ms(1000)
    assert store.switch(session_id).found.active_participant_id == "a"
    clock.advance_ms(10_000)
    shown = current_state(store, session_id)
    goes_on = action is NOTIFY or (action is SKIP and mode == "per_cycle")
    assert shown["status"] == ("running" if goes_on else "expired")
    assert shown["cycle_count"] == (2 if action is SKIP and mode == "per_cycle" else 1)


@pytest.mark.parametrize("mode", ["per_cycle", "global", "count_up"])
def test_a_session_of_nobody_runs_and_switches(
    store: SessionStore, clock: ManualClock, redis: Redis, mode: str
) -> None:
    session_id = create_running(store, mode, people="")
    clock.advance_ms(1000)
    shown = state_of(store.switch(session_id))
    assert (shown["participants"], shown["active_participant_id"], shown["cycle_count"]) == ([], None, 1)
    assert shown["clock"]["remaining_ms"] == (10_000 if mode == "per_cycle" else 9000)
    with pytest.raises(ValidationFailed, match="participant_id"):
        store.switch(session_id, participant_id="a")
    with pytest.raises(ValidationFailed, match="next_participant_id"):
        store.switch(session_id, next_participant_id="a")
    clock.advance_ms(10_000)
    shown = current_state(store, session_id)
    assert (shown["status"], shown["cycle_count"]) == (("running", 2) if mode == "per_cycle" else ("expired", 1))
    assert not {"participant_id", "next_participant_id"} & set(events_since_start(redis, session_id)[-1])


def test_who_begins_must_be_a_participant(store: SessionStore) -> None:
    session_id = create_pending(store)
    with pytest.raises(ValidationFailed, match="participant_id"):
        store.start(session_id, participant_id="c")
    assert store.start(session_id, participant_id="b").found.active_participant_id == "b"


# The last cycle


@pytest.mark.parametrize("mode", MODES)
def test_the_switch_that_ends_the_last_cycle_completes_the_session(
    store: SessionStore, clock: ManualClock, redis: Redis, mode: str
) -> None:
    session_id = create_running(store, mode, max_cycles=2)
    clock.advance_ms(1000)
    assert store.switch(session_id).found.status == "running"
    clock.advance_ms(1000)
    shown = state_of(store.switch(session_id))
    assert (shown["status"], shown["cycle_count"], shown["active_participant_id"]) == ("completed", 2, None)
    assert (shown["session_completed_at"], shown["cycle_started_at"]) == ("2100-01-01T12:00:02.000Z", None)
    assert [person["cycle_count"] for person in shown["participants"]] == [1, 1]
    assert events_since_start(redis, session_id)[-1].get("next_participant_id") is None


@pytest.mark.parametrize("mode", ["per_participant", "per_group", "per_cycle"])
def test_the_timeout_that_ends_the_last_cycle_completes_the_session(
    store: SessionStore, clock: ManualClock, redis: Redis, mode: str
) -> None:
    session_id = create_running(store, mode, people="abc", max_cycles=2, action_on_timeout=SKIP)
    clock.advance_ms(60_000)
    shown = current_state(store, session_id)
    assert (shown["status"], shown["cycle_count"]) == ("completed", 2)
    assert shown["session_completed_at"] == "2100-01-01T12:00:20.000Z"
    assert event_instants(redis, session_id) == [(TIMEOUTS[mode], 10_000), (TIMEOUTS[mode], 20_000)]
    assert "next_participant_id" not in events_since_start(redis, session_id)[-1]

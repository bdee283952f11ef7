"""Timeouts and overtime, and races of commands with timeouts (docs/clock.md)."""

from __future__ import annotations

import pytest

from syncapp.errors import InvalidTransition, NotActiveParticipant, ValidationFailed
from syncapp.store.sessions import SessionStore
from tests.support.store import NOON_MS, ManualClock, dump_session, outbox_messages
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
)
from tests.support.types import Redis

# Late sweepers and races


@pytest.mark.parametrize("late_ms", [0, 1, 7000])
@pytest.mark.parametrize("mode", ["per_participant", "per_group", "per_cycle"])
def test_a_late_sweeper_does_not_shift_the_next_players_start(
    store: SessionStore, clock: ManualClock, redis: Redis, mode: str, late_ms: int
) -> None:
    session_id = create_running(store, mode, action_on_timeout=SKIP)
    clock.advance_ms(10_000 + late_ms)
    store.expire([session_id])
    shown = current_state(store, session_id)
    assert (shown["active_participant_id"], shown["cycle_started_at"]) == ("b", "2100-01-01T12:00:10.000Z")
    assert shown["clock"]["deadline_ms"] == NOON_MS + 20_000
    assert (shown["clock"]["remaining_ms"], shown["clock"]["elapsed_ms"]) == (10_000 - late_ms, late_ms)
    assert event_instants(redis, session_id) == [(TIMEOUTS[mode], 10_000)]


@pytest.mark.parametrize("swept", [True, False])
@pytest.mark.parametrize(
    ("at_ms", "outcome"),
    [
        (9999, [("cycle_switched", 9999, "a", "b")]),
        (10_000, [("participant_expired", 10_000, "a", "b"), ("cycle_switched", 10_000, "b", "c")]),
        (10_001, [("participant_expired", 10_000, "a", "b"), ("cycle_switched", 10_001, "b", "c")]),
    ],
)
def test_a_switch_and_the_timeout_have_one_outcome_by_time(
    store: SessionStore,
    clock: ManualClock,
    redis: Redis,
    swept: bool,
    at_ms: int,
    outcome: list[tuple[str, int, str, str]],
) -> None:
    session_id = create_running(store, people="abc", action_on_timeout=SKIP)
    clock.advance_ms(at_ms)
    if swept:
        store.expire([session_id])
    switched = store.switch(session_id)
    assert switched.expired_participant_id == ("a" if at_ms >= 10_000 and not swept else None)
    found = events_since_start(redis, session_id)
    assert [(e["type"], e["at"], e["participant_id"], e["next_participant_id"]) for e in found] == outcome


def test_a_press_that_came_too_late_is_harmless_when_it_names_who_pressed(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = create_running(store, action_on_timeout=SKIP)
    clock.advance_ms(10_000)
    with pytest.raises(NotActiveParticipant) as refused:
        store.switch(session_id, participant_id="a")
    assert refused.value.details["active_participant_id"] == "b"
    assert event_instants(redis, session_id) == [("participant_expired", 10_000)]


def test_a_double_press_is_harmless_when_it_names_who_pressed(store: SessionStore) -> None:
    session_id = create_running(store)
    assert store.switch(session_id, participant_id="a").found.active_participant_id == "b"
    with pytest.raises(NotActiveParticipant):
        store.switch(session_id, participant_id="a")
    assert store.get(session_id).found.cycle_count == 1


# Zero, and overtime


@pytest.mark.parametrize("mode", MODES)
def test_the_end_has_its_event_and_echoes_the_callers_own_keys(
    store: SessionStore, clock: ManualClock, redis: Redis, mode: str
) -> None:
    action = {"type": "end_session", "action": "fold", "penalty": {"ms": [1, 2.5], "big": 12345678901234567, "no": []}}
    session_id = create_running(store, mode, action_on_timeout=action)
    clock.advance_ms(20_000)
    shown = current_state(store, session_id)
    assert (shown["status"], shown["session_completed_at"]) == ("expired", "2100-01-01T12:00:10.000Z")
    assert (shown["action_on_timeout"], shown["cycle_count"], shown["active_participant_id"]) == (action, 0, None)
    assert expired_ids(shown) == (["a"] if mode in ("per_participant", "per_group") else [])
    group = {"group_id": "A"} if mode == "per_group" else {}
    assert outbox_messages(redis, session_id)[-1]["event"] == {
        "type": TIMEOUTS[mode],
        "at_ms": NOON_MS + 10_000,
        "participant_id": "a",
        **group,
        "remaining_ms": 0,
        "action_on_timeout": action,
    }


@pytest.mark.parametrize(("mode", "default"), [(mode, SKIP if mode == "per_cycle" else END) for mode in MODES])
def test_a_cycle_is_skipped_by_default_and_everything_else_ends(
    store: SessionStore, mode: str, default: dict[str, str]
) -> None:
    assert current_state(store, create_pending(store, mode))["action_on_timeout"] == default


@pytest.mark.parametrize("mode", ["global", "count_up"])
def test_where_there_is_no_cycle_to_skip_the_session_ends(store: SessionStore, clock: ManualClock, mode: str) -> None:
    session_id = create_running(store, mode, action_on_timeout=SKIP)
    clock.advance_ms(10_000)
    assert (current_state(store, session_id)["status"], current_state(store, session_id)["cycle_count"]) == (
        "expired",
        0,
    )


def test_time_added_after_the_end_is_refused(store: SessionStore, clock: ManualClock, redis: Redis) -> None:
    session_id = create_running(store)
    clock.advance_ms(10_000)
    store.expire([session_id])
    before = dump_session(redis, session_id)
    with pytest.raises(InvalidTransition, match="cannot adjust a session that is expired"):
        store.adjust(session_id, op="add", ms=60_000)
    assert dump_session(redis, session_id) == before


@pytest.mark.parametrize("mode", ["per_participant", "per_group"])
def test_time_added_after_expiry_brings_one_back_into_the_rotation(
    store: SessionStore, clock: ManualClock, mode: str
) -> None:
    session_id = create_running(store, mode, people="abc", action_on_timeout=SKIP)
    clock.advance_ms(10_000)
    with pytest.raises(ValidationFailed, match="next_participant_id"):
        store.switch(session_id, next_participant_id="a")
    assert store.switch(session_id).found.active_participant_id == "c"
    assert store.switch(session_id).found.active_participant_id == "b"
    assert expired_ids(state_of(store.adjust(session_id, op="add", ms=5000, participant_id="a"))) == []
    assert store.switch(session_id).found.active_participant_id == "c"
    assert store.switch(session_id).found.active_participant_id == "a"
    clock.advance_ms(5000)
    assert expired_ids(current_state(store, session_id)) == ["a"]


def test_one_who_was_given_nothing_stays_expired(store: SessionStore, clock: ManualClock) -> None:
    session_id = create_running(store, action_on_timeout=SKIP)
    clock.advance_ms(10_000)
    for ms in (0, -5000):
        assert expired_ids(state_of(store.adjust(session_id, op="add", ms=ms, participant_id="a"))) == ["a"]
    assert remaining_ms(current_state(store, session_id)) == [0, 10_000]


@pytest.mark.parametrize("mode", MODES)
def test_overtime_is_told_once_a_crossing(store: SessionStore, clock: ManualClock, redis: Redis, mode: str) -> None:
    session_id = create_running(store, mode, action_on_timeout=NOTIFY)
    clock.advance_ms(10_700)
    shown = current_state(store, session_id)
    assert (shown["status"], shown["clock"]["running"], shown["clock"]["remaining_ms"]) == ("running", True, -700)
    assert shown["clock"]["deadline_ms"] == NOON_MS + 10_000
    store.pause(session_id)
    store.resume(session_id)
    store.adjust(session_id, op="add", ms=100)
    clock.advance_ms(1000)
    assert current_state(store, session_id)["clock"]["remaining_ms"] == -1600
    store.adjust(session_id, op="set", ms=500)
    clock.advance_ms(800)
    assert current_state(store, session_id)["clock"]["remaining_ms"] == -300
    assert [at for kind, at in event_instants(redis, session_id) if kind == TIMEOUTS[mode]] == [10_000, 12_200]


def test_a_cycle_that_starts_in_overtime_does_not_cross_again(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = create_running(store, people="a", action_on_timeout=NOTIFY)
    clock.advance_ms(11_000)
    store.switch(session_id)
    clock.advance_ms(11_000)
    assert current_state(store, session_id)["clock"]["remaining_ms"] == -12_000
    assert event_instants(redis, session_id) == [("participant_expired", 10_000), ("cycle_switched", 11_000)]


def test_each_cycle_may_cross_in_per_cycle(store: SessionStore, clock: ManualClock, redis: Redis) -> None:
    session_id = create_running(store, "per_cycle", action_on_timeout=NOTIFY)
    for _ in range(2):
        clock.advance_ms(10_500)
        assert state_of(store.switch(session_id))["clock"]["remaining_ms"] == 10_000
    assert [at for kind, at in event_instants(redis, session_id) if kind == "cycle_timed_out"] == [10_000, 20_500]


@pytest.mark.parametrize(
    ("action", "status", "active"), [(END, "expired", None), (SKIP, "running", "c"), (NOTIFY, "running", "b")]
)
def test_a_turn_that_starts_with_nothing_left_times_out_at_its_own_start(
    store: SessionStore, clock: ManualClock, redis: Redis, action: dict[str, str], status: str, active: str | None
) -> None:
    session_id = create_running(store, people="abc", action_on_timeout=action)
    store.adjust(session_id, op="set", ms=0, participant_id="b")
    clock.advance_ms(100)
    switched = store.switch(session_id)
    assert (switched.found.status, switched.expired_participant_id, expired_ids(state_of(switched))) == (
        status,
        "b",
        ["b"],
    )
    assert switched.event["type"] == "cycle_switched"  # type: ignore[index]  # a switch commits
    assert switched.found.active_participant_id == active
    assert event_instants(redis, session_id)[1:] == [("cycle_switched", 100), ("participant_expired", 100)]


def test_a_start_or_a_resume_with_nothing_left_times_out_at_once(store: SessionStore, redis: Redis) -> None:
    first = create_pending(store)
    store.adjust(first, op="set", ms=0)
    assert (store.get(first).found.status, expired_ids(current_state(store, first))) == ("pending", [])
    begun = store.start(first)
    assert (begun.found.status, begun.expired_participant_id) == ("expired", "a")
    second = create_running(store)
    store.pause(second)
    store.adjust(second, op="set", ms=0)
    assert store.get(second).found.status == "paused"
    resumed = store.resume(second)
    assert (resumed.found.status, resumed.expired_participant_id) == ("expired", "a")
    assert event_instants(redis, second)[-2:] == [("session_resumed", 0), ("participant_expired", 0)]

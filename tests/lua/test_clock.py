"""The clock, corner by corner (docs/clock.md), by a clock that the test sets: each trap is a test of its own."""

from __future__ import annotations

from typing import Any

import pytest
import redis as redis_py

from syncapp.domain.results import Claim, Result
from syncapp.domain.schemas import CreateSession
from syncapp.domain.session import public_patch
from syncapp.errors import (
    Conflict,
    InvalidTransition,
    NotActiveParticipant,
    SessionNotFound,
    StoreUnavailable,
    ValidationFailed,
)
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from tests.support.store import NOON_MS, SetClock, dump, make_store, messages

Redis = redis_py.Redis

NOTIFY, SKIP, END = ({"type": kind} for kind in ("notify", "skip_cycle", "end_session"))
BUDGETS = {"per_cycle": "time_per_cycle_ms", "global": "total_time_ms", "count_up": "max_time_ms"}
MODES = ("per_participant", "per_cycle", "per_group", "global", "count_up")
TIMEOUTS = {
    "per_participant": "participant_expired",
    "per_cycle": "cycle_timed_out",
    "per_group": "group_expired",
    "global": "session_expired",
    "count_up": "session_expired",
}


@pytest.fixture
def clock(redis: Redis) -> SetClock:
    return SetClock(redis)


@pytest.fixture
def store(redis_url: str, clock: SetClock) -> SessionStore:
    return make_store(redis_url)


def body(mode: str = "per_participant", budget_ms: int = 10_000, people: str = "ab", **more: Any) -> dict[str, Any]:
    """A session of participants named by letters; in per_group each is a group of its own, but for `more`."""
    found: list[dict[str, Any]] = [{"participant_id": name} for name in people]
    if mode == "per_participant":
        found = [person | {"total_time_ms": budget_ms} for person in found]
    if mode == "per_group":
        found = [
            person | {"total_time_ms": budget_ms, "group_id": person["participant_id"].upper()} for person in found
        ]
    own = {BUDGETS[mode]: budget_ms} if mode in BUDGETS else {}
    return {"sync_mode": mode, "participants": found} | own | more


def teams(groups: dict[str, str], budget_ms: int = 10_000, **more: Any) -> dict[str, Any]:
    """Groups with a budget each, and their members named by letters; the rotation is that of the alphabet."""
    owner = {member: group for group, members in groups.items() for member in members}
    return {
        "sync_mode": "per_group",
        "participants": [{"participant_id": name, "group_id": owner[name]} for name in sorted(owner)],
        "groups": [{"group_id": group, "total_time_ms": budget_ms} for group in groups],
    } | more


def pending(store: SessionStore, *args: Any, **more: Any) -> str:
    document = args[0] if args and isinstance(args[0], dict) else body(*args, **more)
    return store.create(CreateSession.parse(document)).found.session_id


def running(store: SessionStore, *args: Any, **more: Any) -> str:
    session_id = pending(store, *args, **more)
    store.start(session_id)
    return session_id


def state(found: Result) -> dict[str, Any]:
    return found.found.state(found.now_ms)


def now(store: SessionStore, session_id: str) -> dict[str, Any]:
    return state(store.get(session_id))


def left(shown: dict[str, Any]) -> list[int]:
    """What each participant, or each group, has left."""
    holders = shown.get("groups") or shown["participants"]
    return [holder["time_remaining_ms"] for holder in holders]


def expired(shown: dict[str, Any]) -> list[str]:
    return [person["participant_id"] for person in shown["participants"] if person["has_expired"]]


def events(client: Redis, session_id: str) -> list[dict[str, Any]]:
    """What happened after the start; instants count from noon, and what is echoed is left out."""
    found = [message["event"] for message in messages(client, session_id)]
    kept = found[1 + [event["type"] for event in found].index("session_started") :]
    return [
        {name: value for name, value in event.items() if name not in ("at_ms", "action_on_timeout")}
        | {"at": event["at_ms"] - NOON_MS}
        for event in kept
    ]


def told(client: Redis, session_id: str) -> list[tuple[str, int]]:
    """Types and instants of what happened after the start."""
    return [(event["type"], event["at"]) for event in events(client, session_id)]


# Increments and the flag


@pytest.mark.parametrize("mode", ["per_participant", "per_group"])
def test_no_increment_is_paid_after_the_flag_fell(store: SessionStore, clock: SetClock, mode: str) -> None:
    session_id = running(store, mode, increment_ms=2000)
    clock.pass_ms(10_000)
    with pytest.raises(InvalidTransition, match="expired") as refused:
        store.switch(session_id)
    assert refused.value.details["expired_participant_id"] == "a"
    shown = now(store, session_id)
    assert (left(shown), expired(shown), shown["cycle_count"]) == ([0, 10_000], ["a"], 0)


@pytest.mark.parametrize("mode", ["per_participant", "per_group"])
def test_no_increment_is_paid_in_overtime_but_again_after_time_was_added(
    store: SessionStore, clock: SetClock, mode: str
) -> None:
    session_id = running(store, mode, increment_ms=2000, action_on_timeout=NOTIFY)
    clock.pass_ms(10_500)
    assert left(state(store.switch(session_id))) == [-500, 10_000]
    store.switch(session_id, next_participant_id="a")
    store.adjust(session_id, op="set", ms=1)
    assert left(state(store.switch(session_id))) == [2001, 12_000]


def test_a_skipped_cycle_earns_no_increment(store: SessionStore, clock: SetClock) -> None:
    session_id = running(store, increment_ms=2000, action_on_timeout=SKIP)
    clock.pass_ms(10_000)
    assert left(now(store, session_id)) == [0, 10_000]


@pytest.mark.parametrize("mode", ["per_participant", "per_group"])
def test_the_last_switch_of_a_session_still_earns_its_increment(
    store: SessionStore, clock: SetClock, mode: str
) -> None:
    session_id = running(store, mode, increment_ms=2000, max_cycles=1)
    clock.pass_ms(1000)
    done = store.switch(session_id)
    assert (done.found.status, left(state(done))) == ("completed", [11_000, 10_000])


# Pause and resume


@pytest.mark.parametrize("mode", MODES)
def test_pause_and_resume_neither_lose_nor_gain_a_millisecond(store: SessionStore, clock: SetClock, mode: str) -> None:
    session_id = running(store, mode)
    ran_ms = 0
    for ms in (1, 0, 2, 333, 4000, 7):
        clock.pass_ms(ms)
        ran_ms += ms
        paused = state(store.pause(session_id))
        assert paused["clock"]["remaining_ms"] == 10_000 - ran_ms
        assert paused["participants"][0]["time_used_ms"] == ran_ms
        clock.pass_ms(123_457)
        resumed = state(store.resume(session_id))
        assert resumed["clock"]["deadline_ms"] == clock.now_ms + 10_000 - ran_ms
        assert (resumed["cycle_count"], resumed["active_participant_id"]) == (0, "a")
    clock.pass_ms(10_000 - ran_ms - 1)
    assert now(store, session_id)["clock"]["remaining_ms"] == 1


def test_a_paused_cycle_keeps_what_it_had_left(store: SessionStore, clock: SetClock) -> None:
    session_id = running(store, "per_cycle")
    clock.pass_ms(9000)
    store.pause(session_id)
    clock.pass_ms(5000)
    assert state(store.resume(session_id))["clock"]["remaining_ms"] == 1000
    clock.pass_ms(1000)
    assert now(store, session_id)["cycle_count"] == 1


# Late sweepers and races


@pytest.mark.parametrize("late_ms", [0, 1, 7000])
@pytest.mark.parametrize("mode", ["per_participant", "per_group", "per_cycle"])
def test_a_late_sweeper_does_not_shift_the_next_players_start(
    store: SessionStore, clock: SetClock, redis: Redis, mode: str, late_ms: int
) -> None:
    session_id = running(store, mode, action_on_timeout=SKIP)
    clock.pass_ms(10_000 + late_ms)
    store.expire([session_id])
    shown = now(store, session_id)
    assert (shown["active_participant_id"], shown["cycle_started_at"]) == ("b", "2100-01-01T12:00:10.000Z")
    assert shown["clock"]["deadline_ms"] == NOON_MS + 20_000
    assert (shown["clock"]["remaining_ms"], shown["clock"]["elapsed_ms"]) == (10_000 - late_ms, late_ms)
    assert told(redis, session_id) == [(TIMEOUTS[mode], 10_000)]


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
    clock: SetClock,
    redis: Redis,
    swept: bool,
    at_ms: int,
    outcome: list[tuple[str, int, str, str]],
) -> None:
    session_id = running(store, people="abc", action_on_timeout=SKIP)
    clock.pass_ms(at_ms)
    if swept:
        store.expire([session_id])
    switched = store.switch(session_id)
    assert switched.expired_participant_id == ("a" if at_ms >= 10_000 and not swept else None)
    found = events(redis, session_id)
    assert [(e["type"], e["at"], e["participant_id"], e["next_participant_id"]) for e in found] == outcome


def test_a_press_that_came_too_late_is_harmless_when_it_names_who_pressed(
    store: SessionStore, clock: SetClock, redis: Redis
) -> None:
    session_id = running(store, action_on_timeout=SKIP)
    clock.pass_ms(10_000)
    with pytest.raises(NotActiveParticipant) as refused:
        store.switch(session_id, participant_id="a")
    assert refused.value.details["active_participant_id"] == "b"
    assert told(redis, session_id) == [("participant_expired", 10_000)]


def test_a_double_press_is_harmless_when_it_names_who_pressed(store: SessionStore) -> None:
    session_id = running(store)
    assert store.switch(session_id, participant_id="a").found.active_participant_id == "b"
    with pytest.raises(NotActiveParticipant):
        store.switch(session_id, participant_id="a")
    assert store.get(session_id).found.cycle_count == 1


# Zero, and time after it


@pytest.mark.parametrize("mode", MODES)
def test_the_end_has_its_event_and_echoes_the_callers_own_keys(
    store: SessionStore, clock: SetClock, redis: Redis, mode: str
) -> None:
    action = {"type": "end_session", "action": "fold", "penalty": {"ms": [1, 2.5], "big": 12345678901234567, "no": []}}
    session_id = running(store, mode, action_on_timeout=action)
    clock.pass_ms(20_000)
    shown = now(store, session_id)
    assert (shown["status"], shown["session_completed_at"]) == ("expired", "2100-01-01T12:00:10.000Z")
    assert (shown["action_on_timeout"], shown["cycle_count"], shown["active_participant_id"]) == (action, 0, None)
    assert expired(shown) == (["a"] if mode in ("per_participant", "per_group") else [])
    group = {"group_id": "A"} if mode == "per_group" else {}
    assert messages(redis, session_id)[-1]["event"] == {
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
    assert now(store, pending(store, mode))["action_on_timeout"] == default


@pytest.mark.parametrize("mode", ["global", "count_up"])
def test_where_there_is_no_cycle_to_skip_the_session_ends(store: SessionStore, clock: SetClock, mode: str) -> None:
    session_id = running(store, mode, action_on_timeout=SKIP)
    clock.pass_ms(10_000)
    assert (now(store, session_id)["status"], now(store, session_id)["cycle_count"]) == ("expired", 0)


def test_time_added_after_the_end_is_refused(store: SessionStore, clock: SetClock, redis: Redis) -> None:
    session_id = running(store)
    clock.pass_ms(10_000)
    store.expire([session_id])
    before = dump(redis, session_id)
    with pytest.raises(InvalidTransition, match="cannot adjust a session that is expired"):
        store.adjust(session_id, op="add", ms=60_000)
    assert dump(redis, session_id) == before


@pytest.mark.parametrize("mode", ["per_participant", "per_group"])
def test_time_added_after_expiry_brings_one_back_into_the_rotation(
    store: SessionStore, clock: SetClock, mode: str
) -> None:
    session_id = running(store, mode, people="abc", action_on_timeout=SKIP)
    clock.pass_ms(10_000)
    with pytest.raises(ValidationFailed, match="next_participant_id"):
        store.switch(session_id, next_participant_id="a")
    assert store.switch(session_id).found.active_participant_id == "c"
    assert store.switch(session_id).found.active_participant_id == "b"
    assert expired(state(store.adjust(session_id, op="add", ms=5000, participant_id="a"))) == []
    assert store.switch(session_id).found.active_participant_id == "c"
    assert store.switch(session_id).found.active_participant_id == "a"
    clock.pass_ms(5000)
    assert expired(now(store, session_id)) == ["a"]


def test_one_who_was_given_nothing_stays_expired(store: SessionStore, clock: SetClock) -> None:
    session_id = running(store, action_on_timeout=SKIP)
    clock.pass_ms(10_000)
    for ms in (0, -5000):
        assert expired(state(store.adjust(session_id, op="add", ms=ms, participant_id="a"))) == ["a"]
    assert left(now(store, session_id)) == [0, 10_000]


@pytest.mark.parametrize("mode", MODES)
def test_overtime_is_told_once_a_crossing(store: SessionStore, clock: SetClock, redis: Redis, mode: str) -> None:
    session_id = running(store, mode, action_on_timeout=NOTIFY)
    clock.pass_ms(10_700)
    shown = now(store, session_id)
    assert (shown["status"], shown["clock"]["running"], shown["clock"]["remaining_ms"]) == ("running", True, -700)
    assert shown["clock"]["deadline_ms"] == NOON_MS + 10_000
    store.pause(session_id)
    store.resume(session_id)
    store.adjust(session_id, op="add", ms=100)
    clock.pass_ms(1000)
    assert now(store, session_id)["clock"]["remaining_ms"] == -1600
    store.adjust(session_id, op="set", ms=500)
    clock.pass_ms(800)
    assert now(store, session_id)["clock"]["remaining_ms"] == -300
    assert [at for kind, at in told(redis, session_id) if kind == TIMEOUTS[mode]] == [10_000, 12_200]


def test_a_cycle_that_starts_in_overtime_does_not_cross_again(
    store: SessionStore, clock: SetClock, redis: Redis
) -> None:
    session_id = running(store, people="a", action_on_timeout=NOTIFY)
    clock.pass_ms(11_000)
    store.switch(session_id)
    clock.pass_ms(11_000)
    assert now(store, session_id)["clock"]["remaining_ms"] == -12_000
    assert told(redis, session_id) == [("participant_expired", 10_000), ("cycle_switched", 11_000)]


def test_each_cycle_may_cross_in_per_cycle(store: SessionStore, clock: SetClock, redis: Redis) -> None:
    session_id = running(store, "per_cycle", action_on_timeout=NOTIFY)
    for _ in range(2):
        clock.pass_ms(10_500)
        assert state(store.switch(session_id))["clock"]["remaining_ms"] == 10_000
    assert [at for kind, at in told(redis, session_id) if kind == "cycle_timed_out"] == [10_000, 20_500]


@pytest.mark.parametrize(
    ("action", "status", "active"), [(END, "expired", None), (SKIP, "running", "c"), (NOTIFY, "running", "b")]
)
def test_a_turn_that_starts_with_nothing_left_times_out_at_its_own_start(
    store: SessionStore, clock: SetClock, redis: Redis, action: dict[str, str], status: str, active: str | None
) -> None:
    session_id = running(store, people="abc", action_on_timeout=action)
    store.adjust(session_id, op="set", ms=0, participant_id="b")
    clock.pass_ms(100)
    switched = store.switch(session_id)
    assert (switched.found.status, switched.expired_participant_id, expired(state(switched))) == (status, "b", ["b"])
    assert switched.event["type"] == "cycle_switched"  # type: ignore[index]  # a switch commits
    assert switched.found.active_participant_id == active
    assert told(redis, session_id)[1:] == [("cycle_switched", 100), ("participant_expired", 100)]


def test_a_start_or_a_resume_with_nothing_left_times_out_at_once(store: SessionStore, redis: Redis) -> None:
    first = pending(store)
    store.adjust(first, op="set", ms=0)
    assert (store.get(first).found.status, expired(now(store, first))) == ("pending", [])
    begun = store.start(first)
    assert (begun.found.status, begun.expired_participant_id) == ("expired", "a")
    second = running(store)
    store.pause(second)
    store.adjust(second, op="set", ms=0)
    assert store.get(second).found.status == "paused"
    resumed = store.resume(second)
    assert (resumed.found.status, resumed.expired_participant_id) == ("expired", "a")
    assert told(redis, second)[-2:] == [("session_resumed", 0), ("participant_expired", 0)]


# Rotation


def test_expired_participants_are_passed_over_until_nobody_is_left(
    store: SessionStore, clock: SetClock, redis: Redis
) -> None:
    session_id = running(store, people="abcd", action_on_timeout=SKIP)
    clock.pass_ms(9000)
    store.switch(session_id)
    clock.pass_ms(31_000)
    shown = now(store, session_id)
    found = [(e["type"], e["at"], e["participant_id"], e.get("next_participant_id")) for e in events(redis, session_id)]
    assert found == [
        ("cycle_switched", 9000, "a", "b"),
        ("participant_expired", 19_000, "b", "c"),
        ("participant_expired", 29_000, "c", "d"),
        ("participant_expired", 39_000, "d", "a"),
        ("participant_expired", 40_000, "a", None),
    ]
    assert (shown["status"], shown["cycle_count"]) == ("expired", 4)


def test_everybody_in_overtime_takes_turns_all_the_same(store: SessionStore, clock: SetClock) -> None:
    session_id = running(store, people="abc", action_on_timeout=NOTIFY)
    for _ in range(3):
        clock.pass_ms(11_000)
        store.switch(session_id)
    assert expired(now(store, session_id)) == ["a", "b", "c"]
    turns = [store.switch(session_id).found.active_participant_id for _ in range(4)]
    assert turns == ["b", "c", "a", "b"]
    assert store.switch(session_id, next_participant_id="a").found.active_participant_id == "a"


def test_in_overtime_those_who_have_time_left_come_first(store: SessionStore, clock: SetClock) -> None:
    session_id = running(store, people="abc", action_on_timeout=NOTIFY)
    clock.pass_ms(11_000)
    turns = [store.switch(session_id).found.active_participant_id for _ in range(4)]
    assert turns == ["b", "c", "b", "c"]


def test_the_turn_goes_round_the_groups_and_round_the_members_inside_each(store: SessionStore) -> None:
    session_id = running(store, teams({"X": "ace", "Y": "bd"}))
    turns = [store.switch(session_id).found.active_participant_id for _ in range(6)]
    assert turns == ["b", "c", "d", "e", "b", "a"]


def test_a_group_goes_on_after_the_member_that_was_named(store: SessionStore) -> None:
    session_id = pending(store, teams({"X": "ace", "Y": "bd"}))
    assert store.start(session_id, participant_id="e").found.active_participant_id == "e"
    assert store.switch(session_id, next_participant_id="d").found.active_participant_id == "d"
    turns = [store.switch(session_id).found.active_participant_id for _ in range(4)]
    assert turns == ["a", "b", "c", "d"]


def test_members_spend_one_budget_and_expire_together(store: SessionStore, clock: SetClock, redis: Redis) -> None:
    session_id = running(store, teams({"X": "ac", "Y": "bd"}, action_on_timeout=SKIP))
    clock.pass_ms(4000)
    store.switch(session_id)
    store.switch(session_id)
    clock.pass_ms(6000)
    shown = now(store, session_id)
    assert (expired(shown), shown["active_participant_id"]) == (["a", "c"], "d")
    assert [group["has_expired"] for group in shown["groups"]] == [True, False]
    assert [person["time_used_ms"] for person in shown["participants"]] == [4000, 0, 6000, 0]
    assert [group["time_used_ms"] for group in shown["groups"]] == [10_000, 0]
    assert events(redis, session_id)[-1] == {
        "type": "group_expired",
        "at": 10_000,
        "participant_id": "c",
        "group_id": "X",
        "next_participant_id": "d",
        "remaining_ms": 0,
    }
    with pytest.raises(ValidationFailed, match="next_participant_id"):
        store.switch(session_id, next_participant_id="a")
    assert expired(state(store.adjust(session_id, op="set", ms=1000, group_id="X"))) == []


def test_a_group_without_members_is_passed_over_and_a_one_member_group_is_a_participant(
    store: SessionStore, clock: SetClock
) -> None:
    session_id = running(store, teams({"X": "a", "none": "", "Y": "bc", "empty": ""}, action_on_timeout=SKIP))
    turns = [store.switch(session_id).found.active_participant_id for _ in range(4)]
    assert turns == ["b", "a", "c", "a"]
    assert left(state(store.adjust(session_id, op="set", ms=500, group_id="none"))) == [10_000, 500, 10_000, 10_000]
    clock.pass_ms(10_000)
    assert now(store, session_id)["active_participant_id"] == "b"
    assert store.switch(session_id).found.active_participant_id == "c"
    clock.pass_ms(10_000)
    shown = now(store, session_id)
    assert (shown["status"], [group["has_expired"] for group in shown["groups"]]) == (
        "expired",
        [True, False, True, False],
    )


def test_a_group_of_everybody_hands_the_turn_round_inside(store: SessionStore, clock: SetClock) -> None:
    session_id = running(store, teams({"X": "abc"}, action_on_timeout=SKIP))
    turns = [store.switch(session_id).found.active_participant_id for _ in range(4)]
    assert turns == ["b", "c", "a", "b"]
    clock.pass_ms(10_000)
    assert now(store, session_id)["status"] == "expired"


def test_groups_that_the_members_make_have_the_sum_of_their_budgets(store: SessionStore) -> None:
    people = [("a", "X", 1000), ("b", "Y", 2000), ("c", "X", 4000)]
    members = [{"participant_id": name, "group_id": group, "total_time_ms": ms} for name, group, ms in people]
    shown = now(store, pending(store, {"sync_mode": "per_group", "participants": members}))
    assert [(group["group_id"], group["total_time_ms"]) for group in shown["groups"]] == [("X", 5000), ("Y", 2000)]
    assert shown["total_time_ms"] == 7000


@pytest.mark.parametrize("action", [END, SKIP, NOTIFY])
@pytest.mark.parametrize("mode", MODES)
def test_one_participant_alone_hands_the_turn_to_itself(
    store: SessionStore, clock: SetClock, mode: str, action: dict[str, str]
) -> None:
    session_id = running(store, mode, people="a", action_on_timeout=action)
    clock.pass_ms(1000)
    assert store.switch(session_id).found.active_participant_id == "a"
    clock.pass_ms(10_000)
    shown = now(store, session_id)
    goes_on = action is NOTIFY or (action is SKIP and mode == "per_cycle")
    assert shown["status"] == ("running" if goes_on else "expired")
    assert shown["cycle_count"] == (2 if action is SKIP and mode == "per_cycle" else 1)


@pytest.mark.parametrize("mode", ["per_cycle", "global", "count_up"])
def test_a_session_of_nobody_runs_and_switches(store: SessionStore, clock: SetClock, redis: Redis, mode: str) -> None:
    session_id = running(store, mode, people="")
    clock.pass_ms(1000)
    shown = state(store.switch(session_id))
    assert (shown["participants"], shown["active_participant_id"], shown["cycle_count"]) == ([], None, 1)
    assert shown["clock"]["remaining_ms"] == (10_000 if mode == "per_cycle" else 9000)
    with pytest.raises(ValidationFailed, match="participant_id"):
        store.switch(session_id, participant_id="a")
    with pytest.raises(ValidationFailed, match="next_participant_id"):
        store.switch(session_id, next_participant_id="a")
    clock.pass_ms(10_000)
    shown = now(store, session_id)
    assert (shown["status"], shown["cycle_count"]) == (("running", 2) if mode == "per_cycle" else ("expired", 1))
    assert not {"participant_id", "next_participant_id"} & set(events(redis, session_id)[-1])


def test_who_begins_must_be_a_participant(store: SessionStore) -> None:
    session_id = pending(store)
    with pytest.raises(ValidationFailed, match="participant_id"):
        store.start(session_id, participant_id="c")
    assert store.start(session_id, participant_id="b").found.active_participant_id == "b"


# The last cycle


@pytest.mark.parametrize("mode", MODES)
def test_the_switch_that_ends_the_last_cycle_completes_the_session(
    store: SessionStore, clock: SetClock, redis: Redis, mode: str
) -> None:
    session_id = running(store, mode, max_cycles=2)
    clock.pass_ms(1000)
    assert store.switch(session_id).found.status == "running"
    clock.pass_ms(1000)
    shown = state(store.switch(session_id))
    assert (shown["status"], shown["cycle_count"], shown["active_participant_id"]) == ("completed", 2, None)
    assert (shown["session_completed_at"], shown["cycle_started_at"]) == ("2100-01-01T12:00:02.000Z", None)
    assert [person["cycle_count"] for person in shown["participants"]] == [1, 1]
    assert events(redis, session_id)[-1].get("next_participant_id") is None


@pytest.mark.parametrize("mode", ["per_participant", "per_group", "per_cycle"])
def test_the_timeout_that_ends_the_last_cycle_completes_the_session(
    store: SessionStore, clock: SetClock, redis: Redis, mode: str
) -> None:
    session_id = running(store, mode, people="abc", max_cycles=2, action_on_timeout=SKIP)
    clock.pass_ms(60_000)
    shown = now(store, session_id)
    assert (shown["status"], shown["cycle_count"]) == ("completed", 2)
    assert shown["session_completed_at"] == "2100-01-01T12:00:20.000Z"
    assert told(redis, session_id) == [(TIMEOUTS[mode], 10_000), (TIMEOUTS[mode], 20_000)]
    assert "next_participant_id" not in events(redis, session_id)[-1]


# Warnings


def warnings(client: Redis, session_id: str) -> list[tuple[int, int, int]]:
    """Instant, threshold and what was left, of each."""
    found = [event for event in events(client, session_id) if event["type"] == "time_warning"]
    return [(event["at"], event["threshold_ms"], event["remaining_ms"]) for event in found]


@pytest.mark.parametrize("mode", MODES)
def test_warnings_come_at_their_instants_and_before_the_timeout_however_late(
    store: SessionStore, clock: SetClock, redis: Redis, mode: str
) -> None:
    session_id = running(store, mode, warn_at_ms=[1000, 5000], action_on_timeout=END)
    clock.pass_ms(4999)
    assert store.get(session_id).found.version == 2
    clock.pass_ms(60_000)
    store.get(session_id)
    assert warnings(redis, session_id) == [(5000, 5000, 5000), (9000, 1000, 1000)]
    assert told(redis, session_id)[-1] == (TIMEOUTS[mode], 10_000)
    assert events(redis, session_id)[0].get("group_id") == ("A" if mode == "per_group" else None)
    assert events(redis, session_id)[0]["participant_id"] == "a"


def test_a_warning_is_not_repeated_after_a_pause_but_after_more_time_and_in_the_next_cycle(
    store: SessionStore, clock: SetClock, redis: Redis
) -> None:
    session_id = running(store, warn_at_ms=[5000])
    clock.pass_ms(6000)
    store.pause(session_id)
    clock.pass_ms(1000)
    store.resume(session_id)
    clock.pass_ms(1000)
    store.adjust(session_id, op="add", ms=9000)
    clock.pass_ms(8000)
    store.get(session_id)
    assert warnings(redis, session_id) == [(5000, 5000, 5000), (15_000, 5000, 5000)]
    store.switch(session_id)
    clock.pass_ms(5500)
    store.get(session_id)
    assert warnings(redis, session_id)[2:] == [(21_000, 5000, 5000)]


@pytest.mark.parametrize("mode", MODES)
def test_an_auction_that_is_extended_in_its_last_seconds_warns_again_each_time(
    store: SessionStore, clock: SetClock, redis: Redis, mode: str
) -> None:
    session_id = running(store, mode, warn_at_ms=[3000])
    clock.pass_ms(7600)
    store.adjust(session_id, op="at_least", ms=5000)  # at 2.4 s
    clock.pass_ms(2600)
    store.adjust(session_id, op="add", ms=1000)  # at 2.4 s again
    clock.pass_ms(1000)
    store.get(session_id)
    assert warnings(redis, session_id) == [(7000, 3000, 3000), (9600, 3000, 3000), (10_600, 3000, 3000)]


@pytest.mark.parametrize(("ms", "again"), [(3000, []), (3001, [(7601, 3000, 3000)]), (2999, [])])
def test_a_warning_comes_again_only_if_the_clock_was_lifted_above_its_threshold(
    store: SessionStore, clock: SetClock, redis: Redis, ms: int, again: list[tuple[int, int, int]]
) -> None:
    session_id = running(store, warn_at_ms=[8000, 3000, 1000])
    clock.pass_ms(7600)
    store.adjust(session_id, op="set", ms=ms)
    clock.pass_ms(100)
    store.get(session_id)
    assert warnings(redis, session_id) == [(2000, 8000, 8000), (7000, 3000, 3000), *again]


def test_time_for_somebody_elses_clock_lets_no_warning_come_again(
    store: SessionStore, clock: SetClock, redis: Redis
) -> None:
    session_id = running(store, warn_at_ms=[3000])
    clock.pass_ms(7600)
    store.adjust(session_id, op="add", ms=60_000, participant_id="b")
    store.get(session_id)
    assert warnings(redis, session_id) == [(7000, 3000, 3000)]


def test_a_clock_that_is_lifted_and_taken_down_while_paused_warns_again_at_the_resume(
    store: SessionStore, clock: SetClock, redis: Redis
) -> None:
    session_id = running(store, warn_at_ms=[3000])
    clock.pass_ms(7600)
    store.pause(session_id)
    store.adjust(session_id, op="set", ms=5000)
    store.adjust(session_id, op="set", ms=2000)
    clock.pass_ms(100)
    store.resume(session_id)
    assert warnings(redis, session_id) == [(7000, 3000, 3000), (7700, 3000, 2000)]


def test_a_warning_still_comes_on_time_in_a_cycle_that_was_paused_before_it(
    store: SessionStore, clock: SetClock, redis: Redis
) -> None:
    session_id = running(store, warn_at_ms=[5000])
    clock.pass_ms(4000)
    store.pause(session_id)
    clock.pass_ms(50_000)
    store.resume(session_id)
    clock.pass_ms(1000)
    store.expire([session_id])
    assert warnings(redis, session_id) == [(55_000, 5000, 5000)]


@pytest.mark.parametrize(("budget_ms", "fires"), [(5000, False), (4999, False), (5001, True)])
def test_a_threshold_that_is_reached_when_the_cycle_starts_does_not_fire(
    store: SessionStore, clock: SetClock, redis: Redis, budget_ms: int, fires: bool
) -> None:
    session_id = running(store, budget_ms=budget_ms, warn_at_ms=[5000])
    clock.pass_ms(4000)
    store.get(session_id)
    assert warnings(redis, session_id) == ([(1, 5000, 5000)] if fires else [])


def test_an_adjustment_that_passes_thresholds_fires_them_from_the_largest_with_what_is_left(
    store: SessionStore, clock: SetClock, redis: Redis
) -> None:
    session_id = running(store, warn_at_ms=[1000, 3000, 8000])
    clock.pass_ms(100)
    store.adjust(session_id, op="set", ms=2500)
    assert warnings(redis, session_id) == [(100, 8000, 2500), (100, 3000, 2500)]
    clock.pass_ms(1500)
    store.get(session_id)
    assert warnings(redis, session_id)[2:] == [(1600, 1000, 1000)]


def test_an_adjustment_to_nothing_warns_and_then_times_out_at_one_instant(store: SessionStore, redis: Redis) -> None:
    session_id = running(store, warn_at_ms=[1000])
    done = store.adjust(session_id, op="set", ms=0)
    assert done.found.status == "expired"
    assert told(redis, session_id) == [("time_adjusted", 0), ("time_warning", 0), ("participant_expired", 0)]


def test_a_threshold_that_is_passed_while_paused_fires_at_the_resume(
    store: SessionStore, clock: SetClock, redis: Redis
) -> None:
    session_id = running(store, warn_at_ms=[5000])
    store.pause(session_id)
    store.adjust(session_id, op="set", ms=2000)
    clock.pass_ms(700)
    assert warnings(redis, session_id) == []
    store.resume(session_id)
    assert warnings(redis, session_id) == [(700, 5000, 2000)]


def test_each_cycle_has_its_warnings_in_per_cycle(store: SessionStore, clock: SetClock, redis: Redis) -> None:
    session_id = running(store, "per_cycle", people="", warn_at_ms=[4000])
    clock.pass_ms(30_000)
    store.get(session_id)
    assert warnings(redis, session_id) == [(6000, 4000, 4000), (16_000, 4000, 4000), (26_000, 4000, 4000)]


def test_all_eight_thresholds_are_kept_apart(store: SessionStore, clock: SetClock, redis: Redis) -> None:
    session_id = running(store, warn_at_ms=[8, 1, 7, 2, 6, 3, 5, 4])
    for ms in range(9990, 10_000):
        clock.set(NOON_MS + ms)
        store.get(session_id)
    assert warnings(redis, session_id) == [(10_000 - ms, ms, ms) for ms in (8, 7, 6, 5, 4, 3, 2, 1)]


# Adjustments


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
        ("add", 5000, 3000, 8000),  # a stop that is passed takes nothing away
        ("add", 5000, -3000, 8000),
        ("set", 6000, 3000, 6000),
        ("add", -500, 3000, 7500),
    ],
)
@pytest.mark.parametrize("mode", MODES)
def test_an_adjustment_changes_what_the_running_clock_shows(
    store: SessionStore, clock: SetClock, mode: str, op: str, ms: int, stop_ms: int | None, shows: int
) -> None:
    session_id = running(store, mode)
    clock.pass_ms(2000)
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
    shown = state(done)
    assert (shown["clock"]["remaining_ms"], shown["clock"]["deadline_ms"]) == (shows, clock.now_ms + shows)
    assert (shown["version"], shown["status"], shown["clock"]["elapsed_ms"]) == (3, "running", 2000)
    assert shown["total_time_ms"] in (None, 10_000, 20_000)


@pytest.mark.parametrize("op", ["add", "set"])
@pytest.mark.parametrize("action", [END, SKIP, NOTIFY])
@pytest.mark.parametrize("mode", MODES)
def test_a_running_clock_that_is_taken_to_nothing_times_out_at_once(
    store: SessionStore, clock: SetClock, redis: Redis, mode: str, action: dict[str, str], op: str
) -> None:
    session_id = running(store, mode, action_on_timeout=action)
    clock.pass_ms(2000)
    done = store.adjust(session_id, op=op, ms=-8500 if op == "add" else 0)
    shown = state(done)
    below_ms = -500 if op == "add" and action is NOTIFY else 0
    assert done.event["remaining_ms"] == below_ms  # type: ignore[index]  # an adjustment commits
    assert told(redis, session_id) == [("time_adjusted", 2000), (TIMEOUTS[mode], 2000)]
    assert events(redis, session_id)[-1]["remaining_ms"] == below_ms
    skips = action is SKIP and mode not in ("global", "count_up")
    assert shown["status"] == ("running" if skips or action is NOTIFY else "expired")
    assert shown["active_participant_id"] == ("b" if skips else "a" if action is NOTIFY else None)
    assert expired(shown) == (["a"] if mode in ("per_participant", "per_group") else [])
    assert shown["clock"]["remaining_ms"] == (10_000 if skips else below_ms)


def test_a_budget_that_does_not_run_is_taken_to_nothing_at_most_and_nobody_expires(
    store: SessionStore, clock: SetClock, redis: Redis
) -> None:
    for action in (END, SKIP, NOTIFY):
        session_id = running(store, action_on_timeout=action)
        shown = state(store.adjust(session_id, op="add", ms=-99_000, participant_id="b"))
        assert (left(shown), expired(shown), shown["status"]) == ([10_000, 0], [], "running")
        assert len(events(redis, session_id)) == 1


def test_overtime_that_does_not_run_is_made_no_longer(store: SessionStore, clock: SetClock) -> None:
    session_id = running(store, action_on_timeout=NOTIFY)
    clock.pass_ms(12_000)
    store.switch(session_id)
    for ms, after_ms in ((-5000, -2000), (500, -1500), (1500, 0), (1, 1)):
        shown = state(store.adjust(session_id, op="add", ms=ms, participant_id="a"))
        assert (left(shown)[0], expired(shown)) == (after_ms, ["a"] if after_ms <= 0 else [])


@pytest.mark.parametrize("mode", MODES)
def test_before_the_start_and_while_paused_the_budget_that_would_run_is_adjusted(
    store: SessionStore, clock: SetClock, mode: str
) -> None:
    session_id = pending(store, mode)
    clock.pass_ms(3000)
    assert state(store.adjust(session_id, op="add", ms=5000))["clock"]["remaining_ms"] == 15_000
    assert state(store.start(session_id))["clock"]["remaining_ms"] == 15_000
    clock.pass_ms(1000)
    store.pause(session_id)
    clock.pass_ms(3000)
    stop = clock.now_ms + 14_100
    paused = state(store.adjust(session_id, op="add", ms=5000, not_after_ms=stop))
    assert (paused["clock"]["remaining_ms"], paused["clock"]["deadline_ms"]) == (14_100, None)
    assert state(store.resume(session_id))["clock"]["deadline_ms"] == stop


def test_an_adjusted_cycle_is_followed_by_one_of_the_usual_length(store: SessionStore, clock: SetClock) -> None:
    session_id = running(store, "per_cycle")
    store.adjust(session_id, op="set", ms=3000)
    clock.pass_ms(3000)
    assert now(store, session_id)["clock"]["remaining_ms"] == 10_000


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
    session_id = running(store, mode)
    before = dump(redis, session_id)
    with pytest.raises(ValidationFailed) as refused:
        store.adjust(session_id, op="add", ms=1000, **named)  # type: ignore[arg-type]  # only names of budgets
    assert [(fault["field"], fault["code"]) for fault in refused.value.details] == [(field, code)]
    assert dump(redis, session_id) == before


def test_a_stopwatch_without_a_cap_has_nothing_to_adjust(store: SessionStore) -> None:
    session_id = running(store, {"sync_mode": "count_up"})
    with pytest.raises(ValidationFailed, match="op"):
        store.adjust(session_id, op="add", ms=1000)


def test_a_participant_of_a_group_stands_for_its_group(store: SessionStore) -> None:
    session_id = running(store, teams({"X": "ac", "Y": "bd"}))
    done = store.adjust(session_id, op="add", ms=500, participant_id="d")
    assert done.event["group_id"] == "Y"  # type: ignore[index]  # an adjustment commits
    assert left(state(done)) == [10_000, 10_500]


@pytest.mark.parametrize("way", [1, -1])
def test_a_budget_never_outgrows_its_place_among_the_others(store: SessionStore, redis: Redis, way: int) -> None:
    session_id = running(store, people="abc", action_on_timeout=NOTIFY)
    day_ms = 86_400_000
    with pytest.raises(ValidationFailed, match="ms"):  # noqa: PT012  it may take some
        for _ in range(1200):
            store.adjust(session_id, op="add", ms=way * day_ms)
    shown = now(store, session_id)
    assert abs(left(shown)[0]) > 100 * day_ms
    assert left(shown)[1:] == [10_000, 10_000]
    store.switch(session_id)
    assert [person["time_used_ms"] for person in now(store, session_id)["participants"]] == [0, 0, 0]


def test_the_largest_groups_fit_their_records_and_can_be_adjusted(store: SessionStore, clock: SetClock) -> None:
    day_ms = 86_400_000
    people = [{"participant_id": f"p{i}", "group_id": "G", "total_time_ms": day_ms} for i in range(999)]
    people.append({"participant_id": "last", "group_id": "H", "total_time_ms": day_ms})
    session_id = running(store, {"sync_mode": "per_group", "participants": people})
    clock.pass_ms(1)
    assert left(state(store.adjust(session_id, op="add", ms=day_ms))) == [1000 * day_ms, day_ms]
    store.switch(session_id)
    assert left(now(store, session_id)) == [1000 * day_ms - 1, day_ms]


# Idle, lifetime


def test_reads_and_what_a_session_does_by_itself_do_not_keep_it_from_being_idle(
    store: SessionStore, clock: SetClock, redis: Redis
) -> None:
    session_id = running(store, "per_cycle", idle_timeout_s=25)
    for _ in range(24):
        clock.pass_ms(1000)
        store.get(session_id)
    assert store.get(session_id).found.status == "running"
    clock.pass_ms(1000)
    shown = now(store, session_id)
    assert (shown["status"], shown["session_completed_at"]) == ("cancelled", "2100-01-01T12:00:25.000Z")
    assert events(redis, session_id)[-1] == {
        "type": "session_cancelled",
        "at": 25_000,
        "participant_id": "a",
        "reason": "idle",
    }
    assert [person["time_used_ms"] for person in shown["participants"]] == [15_000, 10_000]


def test_every_command_puts_the_idle_instant_off(store: SessionStore, clock: SetClock) -> None:
    session_id = pending(store, "count_up", idle_timeout_s=5)
    store.adjust(session_id, op="set", ms=20_000)
    clock.pass_ms(4999)
    store.start(session_id)
    started_ms = clock.now_ms
    clock.pass_ms(10_000)
    store.pause(session_id)
    clock.pass_ms(4999)
    store.update(session_id, {"a": 1})
    clock.pass_ms(4999)
    assert store.get(session_id).found.status == "paused"
    clock.pass_ms(1)
    assert store.get(session_id).found.session_completed_ms == started_ms + 10_000 + 4999 + 5000


def test_a_stopwatch_without_a_cap_is_idle_in_the_end_and_has_counted_until_then(
    store: SessionStore, clock: SetClock
) -> None:
    session_id = running(store, {"sync_mode": "count_up", "idle_timeout_s": 60})
    clock.pass_ms(100_000)
    shown = now(store, session_id)
    assert (shown["status"], shown["time_used_ms"], shown["clock"]["elapsed_ms"]) == ("cancelled", 60_000, 60_000)


@pytest.mark.parametrize("mode", MODES)
def test_a_lifetime_shorter_than_the_clock_drops_nothing(
    redis_url: str, clock: SetClock, redis: Redis, mode: str
) -> None:
    store, day_ms = make_store(redis_url, session_ttl_s=1), 86_400_000
    session_id = running(store, mode, budget_ms=day_ms, action_on_timeout=END)
    assert redis.ttl(Keyspace().session(session_id)) == -1
    clock.pass_ms(day_ms - 1)
    assert now(store, session_id)["clock"]["remaining_ms"] == 1
    clock.pass_ms(1)
    assert now(store, session_id)["status"] == "expired"


def test_a_clock_that_was_given_more_time_is_not_idle_before_it_ends(store: SessionStore, clock: SetClock) -> None:
    session_id = running(store, idle_timeout_s=1)
    store.adjust(session_id, op="set", ms=86_400_000)
    clock.pass_ms(86_399_999)
    assert store.get(session_id).found.status == "running"


def test_what_ended_stays_for_its_lifetime_and_no_command_prolongs_it(
    redis_url: str, clock: SetClock, redis: Redis
) -> None:
    store = make_store(redis_url, session_ttl_s=60)
    key_of = Keyspace().session
    for end in ("complete", "cancel"):
        session_id = running(store)
        getattr(store, end)(session_id)
        gone_ms = clock.now_ms + 60_000
        assert redis.pexpiretime(key_of(session_id)) == gone_ms
        clock.pass_ms(5000)
        store.update(session_id, {"a": 1})
        store.expire([session_id])
        assert redis.pexpiretime(key_of(session_id)) == gone_ms
    late = running(store)
    clock.pass_ms(70_000)  # noticed a minute after: readable for as long as any other
    store.expire([late])
    assert redis.pexpiretime(key_of(late)) == clock.now_ms + 60_000


# The server's clock


@pytest.mark.parametrize("mode", MODES)
def test_time_stands_still_while_the_servers_clock_is_behind(store: SessionStore, clock: SetClock, mode: str) -> None:
    session_id = running(store, mode)
    clock.pass_ms(4000)
    store.pause(session_id)
    store.resume(session_id)
    clock.pass_ms(-60_000)
    back = store.get(session_id)
    assert (back.now_ms, state(back)["clock"]["remaining_ms"]) == (NOON_MS + 4000, 6000)
    store.switch(session_id)
    shown = state(store.switch(session_id))
    assert shown["updated_at"] == "2100-01-01T12:00:04.000Z"
    assert sum(person["time_used_ms"] for person in shown["participants"]) == 4000
    clock.set(NOON_MS + 5000)
    assert now(store, session_id)["clock"]["elapsed_ms"] == (5000 if mode == "count_up" else 1000)


def test_a_jump_forward_is_applied_once_at_the_deadlines_own_instants(
    store: SessionStore, clock: SetClock, redis: Redis
) -> None:
    session_id = running(store, "per_cycle", people="ab", warn_at_ms=[1000])
    clock.pass_ms(25_000)
    store.switch(session_id)
    clock.pass_ms(-20_000)
    for _ in range(3):
        store.get(session_id)
    assert told(redis, session_id) == [
        ("time_warning", 9000),
        ("cycle_timed_out", 10_000),
        ("time_warning", 19_000),
        ("cycle_timed_out", 20_000),
        ("cycle_switched", 25_000),
    ]


# Long gaps


def test_a_long_gap_is_settled_cycle_by_cycle_at_its_own_instants(
    store: SessionStore, clock: SetClock, redis: Redis
) -> None:
    session_id = running(store, "per_cycle", budget_ms=1000, people="abc")
    clock.pass_ms(200_500)
    switched = store.switch(session_id)
    assert told(redis, session_id) == [("cycle_timed_out", 1000 * n) for n in range(1, 201)] + [
        ("cycle_switched", 200_500)
    ]
    assert (switched.found.version, switched.found.cycle_count) == (203, 201)
    assert [person.time_used_ms for person in switched.found.participants] == [67_000, 67_000, 66_500]
    assert [message["version"] for message in messages(redis, session_id)] == list(range(1, 204))


def test_one_call_applies_at_most_64_and_says_that_more_is_due(store: SessionStore, clock: SetClock) -> None:
    session_id = running(store, "per_cycle", budget_ms=1000)
    clock.pass_ms(100_000)
    first, second = store.expire([session_id])[0], store.expire([session_id])[0]
    assert [(len(each.instants_ms), each.more) for each in (first, second)] == [(64, True), (36, False)]  # type: ignore[union-attr]  # no error is expected


def test_a_command_is_begun_only_when_all_is_applied(store: SessionStore, clock: SetClock, redis: Redis) -> None:
    session_id = running(store, "per_cycle", budget_ms=1000)
    clock.pass_ms(100_000)
    reply = store._calls._scripts.call(
        "cancel_session",
        Keyspace().commit(session_id),
        [session_id, "", "", "", "", "", "", 1000, 1000, 1000, ""],
    )
    assert (reply[0], reply[2]) == ("busy", [])
    assert {kind for kind, _ in told(redis, session_id)} == {"cycle_timed_out"}
    assert store.get(session_id).found.version == 102


def test_a_command_that_finds_too_much_due_says_so_and_the_next_one_goes_on(
    store: SessionStore, clock: SetClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    session_id = running(store, "per_cycle", budget_ms=1000)
    clock.pass_ms(200_000)
    monkeypatch.setattr("syncapp.store.script_runner.SETTLE_S", 0)
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="try again") as refused:
            store.get(session_id)
        assert refused.value.details == {"retry_after_s": 1}
    assert store.pause(session_id).found.version == 203


def test_an_expected_version_is_compared_with_what_has_happened_by_then(store: SessionStore, clock: SetClock) -> None:
    for gap_ms in (1000, 30_000, 200_000):
        session_id = running(store, "per_cycle", budget_ms=1000)
        clock.pass_ms(gap_ms)
        with pytest.raises(Conflict) as refused:
            store.pause(session_id, Claim(expected_version=2))
        assert (refused.value.details or {})["actual_version"] == 2 + gap_ms // 1000
        done = store.pause(session_id, Claim(expected_version=2 + gap_ms // 1000))
        assert (done.found.status, done.found.version) == ("paused", 3 + gap_ms // 1000)


# What is shown


def shows(found: dict[str, Any]) -> tuple[Any, ...]:
    shown = found["clock"]
    deadline = shown["deadline_ms"] and shown["deadline_ms"] - NOON_MS
    return shown["running"], shown["remaining_ms"], shown["elapsed_ms"], deadline


@pytest.mark.parametrize(
    ("mode", "scope"),
    list(zip(MODES, ["participant", "cycle", "group", "session", "session"], strict=True)),
)
def test_the_clock_is_right_in_every_mode_and_status(
    store: SessionStore, clock: SetClock, mode: str, scope: str
) -> None:
    up = mode == "count_up"
    shared = mode in ("global", "count_up")
    session_id = pending(store, mode)
    clock.pass_ms(1000)
    shown = now(store, session_id)
    assert (shown["clock"]["scope"], shown["clock"]["direction"]) == (scope, "up" if up else "down")
    assert shows(shown) == (False, 10_000, 0, None)
    store.start(session_id)
    clock.pass_ms(1500)
    assert shows(now(store, session_id)) == (True, 8500, 1500, 11_000)
    store.pause(session_id)
    clock.pass_ms(500)
    assert shows(now(store, session_id)) == (False, 8500, 1500 if up else 0, None)
    store.resume(session_id)
    clock.pass_ms(500)
    assert shows(now(store, session_id)) == (True, 8000, 2000 if up else 500, 11_500)
    store.switch(session_id)
    clock.pass_ms(1000)
    assert shows(now(store, session_id)) == (
        True,
        7000 if shared else 9000,
        3000 if up else 1000,
        11_500 if shared else 13_500,
    )
    assert shows(state(store.complete(session_id))) == (False, 7000 if shared else 9000, 3000 if up else 0, None)


def test_an_uncapped_stopwatch_has_neither_remaining_nor_deadline(store: SessionStore, clock: SetClock) -> None:
    session_id = running(store, {"sync_mode": "count_up", "participants": [{"participant_id": "a"}]})
    clock.pass_ms(1234)
    shown = now(store, session_id)
    assert shows(shown) == (True, None, 1234, None)
    assert shown["time_remaining_ms"] is None
    assert "max_time_ms" not in shown


def test_what_is_not_set_is_null_or_absent(store: SessionStore) -> None:
    shown = now(store, pending(store))
    assert not {"max_time_ms", "groups", "warn_at_ms", "max_cycles", "time_used_ms"} & set(shown)
    assert "group_id" not in shown["participants"][0]
    for name in ("active_participant_id", "time_per_cycle_ms", "cycle_started_at", "session_started_at"):
        assert shown[name] is None
    assert (shown["session_completed_at"], shown["increment_ms"]) == (None, 0)


def test_a_deleted_session_stops_its_clock(store: SessionStore, clock: SetClock, redis: Redis) -> None:
    session_id = running(store)
    store.delete(session_id)
    clock.pass_ms(20_000)
    assert store.expire([session_id])[0].instants_ms == ()  # type: ignore[union-attr]  # no error is expected
    with pytest.raises(SessionNotFound):
        store.get(session_id)
    assert told(redis, session_id) == [("session_deleted", 0)]


def test_at_one_instant_a_timeout_comes_before_the_idle_end(store: SessionStore, clock: SetClock, redis: Redis) -> None:
    session_id = running(store, "per_cycle", idle_timeout_s=20)
    clock.pass_ms(60_000)
    store.get(session_id)
    assert told(redis, session_id) == [
        ("cycle_timed_out", 10_000),
        ("cycle_timed_out", 20_000),
        ("session_cancelled", 20_000),
    ]


FROM = {
    "start": {"pending"},
    "switch": {"running"},
    "pause": {"running"},
    "resume": {"paused"},
    "adjust": {"pending", "running", "paused"},
    "complete": {"pending", "running", "paused", "completed"},
    "cancel": {"pending", "running", "paused", "cancelled"},
}


@pytest.mark.parametrize("status", ["pending", "running", "paused", "completed", "expired", "cancelled"])
@pytest.mark.parametrize("command", FROM)
def test_a_command_out_of_place_is_refused_and_changes_nothing(
    store: SessionStore, clock: SetClock, redis: Redis, command: str, status: str
) -> None:
    session_id = pending(store)
    for step in {"pending": [], "running": ["start"], "paused": ["start", "pause"]}.get(status, ["start"]):
        getattr(store, step)(session_id)
    if status in ("completed", "cancelled"):
        getattr(store, {"completed": "complete", "cancelled": "cancel"}[status])(session_id)
    if status == "expired":
        clock.pass_ms(10_000)
    assert store.get(session_id).found.status == status
    before = dump(redis, session_id)
    args = {"op": "add", "ms": 1} if command == "adjust" else {}
    if status in FROM[command]:
        getattr(store, command)(session_id, **args)
        assert (dump(redis, session_id) == before) == (status in ("completed", "cancelled"))
        return
    with pytest.raises(InvalidTransition, match=f"cannot {command} a session that is {status}") as refused:
        getattr(store, command)(session_id, **args)
    assert refused.value.details["status"] == status
    assert dump(redis, session_id) == before


@pytest.mark.parametrize("mode", MODES)
def test_public_patches_over_a_public_state_give_every_later_one(
    store: SessionStore, clock: SetClock, redis: Redis, mode: str
) -> None:
    session_id = pending(store, mode, people="abc", action_on_timeout=SKIP, max_cycles=6)
    document, version = now(store, session_id), 1
    steps = ["start", "switch", "pause", "adjust", "resume", "get", "switch", "update", "switch", "pause", "complete"]
    for step in steps:
        clock.pass_ms(10_000 if step == "get" and mode not in ("global", "count_up") else 500)
        args = {"op": "add", "ms": -100} if step == "adjust" else {"metadata": {"a": 1}} if step == "update" else {}
        shown = state(getattr(store, step)(session_id, **args))
        for message in messages(redis, session_id)[version:]:
            patch = public_patch({**message["patch"], "idle_ms": message.get("idle_ms")})
            for holders, key in (("participants", "participant_id"), ("groups", "group_id")):
                changed = patch.pop(holders, {})
                for holder in document.get(holders, []):
                    holder.update(changed.get(holder[key], {}))
            document |= patch
            version += 1
            assert document["version"] == version
        assert document | {"clock": shown["clock"], "server_time_ms": shown["server_time_ms"]} == shown
    assert shown["status"] == "completed"


@pytest.mark.parametrize("count", [100, 129, 300])
def test_the_members_of_a_large_group_are_marked_together_and_unmarked(
    store: SessionStore, clock: SetClock, redis_url: str, count: int
) -> None:
    people = [{"participant_id": f"p{i}", "group_id": "GH"[i % 2], "total_time_ms": 1000} for i in range(count)]
    new = {"sync_mode": "per_group", "participants": people, "action_on_timeout": SKIP}
    session_id = running(store, new)
    clock.pass_ms(1000 * ((count + 1) // 2))
    for reader in (store, make_store(redis_url)):
        assert expired(now(reader, session_id)) == [f"p{i}" for i in range(0, count, 2)]
    shown = state(store.adjust(session_id, op="set", ms=1000, group_id="G"))
    assert expired(shown) == expired(now(make_store(redis_url), session_id)) == []
    assert sum(person["time_used_ms"] for person in shown["participants"]) == 1000 * ((count + 1) // 2)


def test_a_nudge_of_a_call_that_did_not_come_to_the_end_is_passed_on(redis_url: str, clock: SetClock) -> None:
    nudged: list[int] = []
    store = make_store(redis_url, on_nudge=nudged.append)
    session_id = running(store, "per_cycle", budget_ms=1000)
    store._client.delete(Keyspace().nudge(Keyspace().bucket(session_id)))
    nudged.clear()
    clock.pass_ms(100_000)
    store.switch(session_id)
    assert nudged == [Keyspace().bucket(session_id)]


@pytest.mark.parametrize("end", ["complete", "cancel"])
@pytest.mark.parametrize("mode", MODES)
def test_who_ran_when_the_session_was_ended_is_charged_until_then(
    store: SessionStore, clock: SetClock, redis: Redis, mode: str, end: str
) -> None:
    session_id = running(store, mode)
    clock.pass_ms(1234)
    shown = state(getattr(store, end)(session_id))
    assert (shown["clock"]["remaining_ms"], shown["participants"][0]["time_used_ms"]) == (8766, 1234)
    assert messages(redis, session_id)[-1]["elapsed_ms"] == 1234
    assert events(redis, session_id)[-1]["participant_id"] == "a"

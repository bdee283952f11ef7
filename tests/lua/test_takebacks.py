"""Takebacks: the same moves after one lead to the same clocks, and a refused one changes nothing (docs/clock.md)."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncapp.domain.patches import patch_of
from syncapp.domain.schemas import CreateSession
from syncapp.domain.session import TERMINAL, Session
from syncapp.errors import InvalidTransition, ValidationFailed
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from tests.support.clock_machine import bodies
from tests.support.control_machine import control_bodies
from tests.support.store import NOON_MS, ManualClock, dump_session, outbox_messages
from tests.support.store_sessions import (
    END,
    NOTIFY,
    SKIP,
    create_pending,
    create_running,
    event_instants,
    session_body,
    team_body,
)
from tests.support.types import Redis

CONTROLS: dict[str, dict[str, Any]] = {
    "fischer": {"time_ms": 10_000, "increment_ms": 500},
    "byo-yomi": {"time_ms": 1000, "periods": 3, "period_ms": 1000},
    "canadian": {"time_ms": 1000, "period_moves": 2, "period_ms": 3000},
    "per move": {"per_move_ms": 5000},
    "bronstein": {"time_ms": 10_000, "delay": "bronstein", "delay_ms": 700},
    "simple": {"time_ms": 10_000, "delay": "simple", "delay_ms": 700},
    "hourglass": {"time_ms": 10_000, "hourglass": True},
    "staged": {"time_ms": 3000, "moves": 1, "repeat": True},
}
ENDS = {"completed": "complete", "cancelled": "cancel"}
Move = tuple[int, int | None, int]
"""A wait before a pause, the length of the pause (None: there is none), and a wait after it, in ms."""
moves = st.tuples(
    st.integers(0, 12), st.sampled_from([None, None, None, 0, 3, 50]), st.sampled_from([0, 1, 2, 5, 10])
)  # fmt: skip
many_moves = st.lists(moves, max_size=8)


@st.composite
def games(draw: st.DrawFn) -> dict[str, Any]:
    """Draw the body of a session of which cycles can be taken back, with a time control or without."""
    mode = draw(st.sampled_from(["per_participant", "per_group"]))
    body = draw(st.one_of(control_bodies(mode), control_bodies(mode), bodies(mode)))
    # Cycles that are used up cannot be reopened, and an idle end does not belong to a game.
    body = {name: value for name, value in body.items() if name not in ("max_cycles", "idle_timeout_s")}
    return body | {"takeback_cycles": 100}


def play(store: SessionStore, clock: ManualClock, session_id: str, game: list[Move]) -> None:
    """Play moves until the session ends."""
    for before_ms, pause_ms, after_ms in game:
        try:
            clock.advance_ms(before_ms)
            if pause_ms is not None:
                store.pause(session_id)
                clock.advance_ms(pause_ms)
                store.resume(session_id)
            clock.advance_ms(after_ms)
            store.switch(session_id)
        except InvalidTransition:
            return


def restored(session: Session) -> tuple[Any, ...]:
    """Return what a takeback restores."""
    return session.turn, session.cycle_count, session.participants, session.groups, session.clocks


def folded(redis: Redis, session_id: str) -> Session:
    """Return the first snapshot with all patches applied."""
    first, *later = outbox_messages(redis, session_id)
    session = Session.from_snapshot(session_id, first["snapshot"])
    for message in later:
        session = session.fold(*patch_of(message))
        if "snapshot" in message:
            assert session == Session.from_snapshot(session_id, message["snapshot"])
    return session


def check_the_same_moves_again(
    store: SessionStore, clock: ManualClock, redis: Redis, body: dict[str, Any], first: list[Move], again: list[Move]
) -> None:
    session_id = create_pending(store, orjson.loads(orjson.dumps(body)))
    store.start(session_id)
    play(store, clock, session_id, first)
    before = store.get(session_id).found
    if before.status in TERMINAL:
        return
    play(store, clock, session_id, again)
    after = store.get(session_id).found
    cycles = after.cycle_count - before.cycle_count
    if cycles == 0 or cycles > 100:
        return
    clock.advance_ms(7)
    now = store.get(session_id).found
    if now.cycle_count != after.cycle_count:
        return  # a timeout came first
    if now.status in TERMINAL:
        store.reopen(session_id)
    taken = store.takeback(session_id, cycles=cycles).found
    assert folded(redis, session_id) == taken
    if taken.status == "paused":
        taken = store.resume(session_id).found  # a period without main time before it begins then
    assert restored(taken) == restored(before)
    play(store, clock, session_id, again)
    found = store.get(session_id).found
    assert restored(found) == restored(after)
    assert found.status == after.status
    assert folded(redis, session_id) == found


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(body=games(), first=many_moves, again=st.lists(moves, min_size=1, max_size=6))
def test_the_same_moves_after_a_takeback_lead_to_the_same_clocks(
    store: SessionStore, clock: ManualClock, redis: Redis, body: dict[str, Any], first: list[Move], again: list[Move]
) -> None:
    redis.delete(*map(Keyspace().outbox, range(64)))
    check_the_same_moves_again(store, clock, redis, body, first, again)


@pytest.mark.parametrize("mode", ["per_participant", "per_group"])
@pytest.mark.parametrize(
    ("kind", "action"),
    [
        pytest.param(kind, action, id=f"{kind}-{action['type']}")
        for kind in (*CONTROLS, "none")
        for action in (END, SKIP, NOTIFY)
        if (kind, action) != ("hourglass", SKIP)
    ],
)
def test_each_kind_of_clock_is_taken_back(
    store: SessionStore, clock: ManualClock, redis: Redis, kind: str, mode: str, action: dict[str, str]
) -> None:
    members = {"R": "ad", "B": "be", "G": "c"}
    more: dict[str, Any] = {"takeback_cycles": 10, "action_on_timeout": action, "warn_at_ms": [900, 400]}
    body = team_body(members, **more) if mode == "per_group" else session_body(people="abc", **more)
    if kind != "none":
        for each in [*body["participants"], *body.get("groups", [])]:
            each.pop("total_time_ms", None)
        body["time_control"] = {"stages": [CONTROLS[kind]]}
    first: list[Move] = [(400, None, 0), (600, 50, 600), (0, None, 100), (1500, None, 0)]
    again: list[Move] = [(300, None, 300), (0, 5000, 900), (700, None, 1000), (20, None, 0), (2000, None, 10)]
    check_the_same_moves_again(store, clock, redis, body, first, again)


def test_the_time_since_then_is_charged_to_nobody_and_the_clock_runs_on_from_now(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = create_running(store, takeback_cycles=2)
    clock.advance_ms(2000)
    store.switch(session_id)
    clock.advance_ms(3000)
    found = store.takeback(session_id, cycles=1).found
    assert (found.status, found.cycle_started_ms, found.active_participant_id) == ("running", NOON_MS + 5000, "a")
    assert [each.time_remaining_ms for each in found.participants] == [10_000, 10_000]
    assert found.clock(clock.now_ms)["deadline_ms"] == NOON_MS + 15_000
    message = outbox_messages(redis, session_id)[-1]
    assert Session.from_snapshot(session_id, message["snapshot"]) == found


def test_a_timeout_that_is_taken_back_may_come_again(store: SessionStore, clock: ManualClock, redis: Redis) -> None:
    session_id = create_running(store, takeback_cycles=2, action_on_timeout=SKIP, warn_at_ms=[1000])
    clock.advance_ms(10_500)
    found = store.get(session_id).found
    assert (found.active_participant_id, found.participants[0].has_expired) == ("b", True)
    found = store.takeback(session_id, cycles=1).found
    assert (found.active_participant_id, found.participants[0].has_expired) == ("a", False)
    clock.advance_ms(10_000)
    store.get(session_id)
    assert event_instants(redis, session_id) == [
        ("time_warning", 9000),
        ("participant_expired", 10_000),
        ("cycles_taken_back", 10_500),
        ("time_warning", 19_500),
        ("participant_expired", 20_500),
    ]


def test_the_members_of_a_group_that_expired_have_their_time_again(store: SessionStore, clock: ManualClock) -> None:
    body = team_body({"R": "ad", "B": "be"}, action_on_timeout=SKIP, takeback_cycles=5)
    session_id = create_running(store, body)
    before = store.get(session_id).found
    clock.advance_ms(10_000)
    expired = store.get(session_id).found
    assert [each.has_expired for each in expired.participants] == [True, False, True, False]
    found = store.takeback(session_id, cycles=1).found
    assert restored(found) == restored(before)
    # Within a group, the member who moves next is the one who would have moved.
    order = []
    for _ in range(4):
        order.append(store.get(session_id).found.active_participant_id)
        store.switch(session_id)
    assert order == ["a", "b", "d", "e"]


def test_a_named_next_member_is_taken_back_with_the_order_of_the_group(store: SessionStore, clock: ManualClock) -> None:
    session_id = create_running(store, team_body({"R": "adf", "B": "be"}, takeback_cycles=5))
    store.switch(session_id)
    store.switch(session_id, next_participant_id="f")
    assert store.takeback(session_id, cycles=1).found.active_participant_id == "b"
    assert store.switch(session_id).found.active_participant_id == "d"
    store.takeback(session_id, cycles=2)
    assert [store.switch(session_id).found.active_participant_id for _ in range(3)] == ["b", "d", "e"]


def test_a_session_keeps_as_many_cycles_as_it_was_created_with(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = create_running(store, takeback_cycles=3)
    for _ in range(6):
        clock.advance_ms(100)
        store.switch(session_id)
    before = dump_session(redis, session_id)
    with pytest.raises(ValidationFailed) as refused:
        store.takeback(session_id, cycles=4)
    assert refused.value.details[0]["code"] == "too_few_turns"
    assert dump_session(redis, session_id) == before
    assert store.takeback(session_id, cycles=3).found.cycle_count == 3
    with pytest.raises(ValidationFailed):
        store.takeback(session_id, cycles=1)
    store.switch(session_id)
    assert store.takeback(session_id, cycles=1).found.cycle_count == 3


@pytest.mark.parametrize("mode", ["per_participant", "per_group"])
@pytest.mark.parametrize("adjustment", [{"op": "add", "ms": 1}, {"op": "set", "ms": 5000, "targets": "all"}])
def test_nothing_before_an_adjustment_is_taken_back(
    store: SessionStore, clock: ManualClock, redis: Redis, mode: str, adjustment: dict[str, Any]
) -> None:
    session_id = create_running(store, mode, takeback_cycles=5)
    for _ in range(3):
        store.switch(session_id)
    store.adjust(session_id, **adjustment)
    for cycles in (1, 2):
        before = dump_session(redis, session_id)
        with pytest.raises(ValidationFailed):
            store.takeback(session_id, cycles=cycles)
        assert dump_session(redis, session_id) == before
        store.switch(session_id)
    assert store.takeback(session_id, cycles=1).found.cycle_count == 4


@pytest.mark.parametrize("case", ["pending", "completed", "cancelled", "none kept", "one cycle only"])
def test_a_refused_takeback_changes_nothing(store: SessionStore, clock: ManualClock, redis: Redis, case: str) -> None:
    session_id = create_pending(store, **({} if case == "none kept" else {"takeback_cycles": 5}))
    if case != "pending":
        store.start(session_id)
        clock.advance_ms(100)
        store.switch(session_id)
    if case in ENDS:
        getattr(store, ENDS[case])(session_id)
    clock.advance_ms(100)
    before = dump_session(redis, session_id)
    cycles = 2 if case == "one cycle only" else 1
    refusal = ValidationFailed if case in ("none kept", "one cycle only") else InvalidTransition
    with pytest.raises(refusal):
        store.takeback(session_id, cycles=cycles)
    assert dump_session(redis, session_id) == before
    assert store.get(session_id).found.version == outbox_messages(redis, session_id)[-1]["version"]


def test_sixteen_clocks_of_an_hourglass_are_taken_back_and_more_are_refused(
    store: SessionStore, clock: ManualClock
) -> None:
    names = "abcdefghijklmnopq"
    control = {"stages": [CONTROLS["hourglass"]]}
    people = [{"participant_id": name} for name in names]
    body = {"sync_mode": "per_participant", "time_control": control, "takeback_cycles": 20}
    with pytest.raises(ValidationFailed):
        CreateSession.parse(body | {"participants": people})
    session_id = create_running(store, body | {"participants": people[:16]})
    before = store.get(session_id).found
    for _ in range(20):
        clock.advance_ms(77)
        store.switch(session_id)
    found = store.get(session_id).found
    assert sum(each.time_remaining_ms for each in found.participants) == 160_000
    assert restored(store.takeback(session_id, cycles=20).found) == restored(before)

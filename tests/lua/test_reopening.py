"""Reopening a session that ended by mistake: paused, with the clocks as they were at its end (docs/clock.md)."""

from __future__ import annotations

from typing import Any

import pytest

from syncapp.domain.results import Claim
from syncapp.domain.session import Session
from syncapp.errors import Conflict, InvalidTransition, SessionNotFound
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from tests.support.store import NOON_MS, ManualClock, dump_session, make_store, outbox_messages
from tests.support.store_sessions import (
    MODES,
    NOTIFY,
    SKIP,
    controlled_body,
    create_pending,
    create_running,
    current_state,
    session_body,
    state_of,
    team_body,
)
from tests.support.types import Redis

ENDS = ("complete", "cancel", "expire")
BYO_YOMI = {"time_ms": 10_000, "periods": 3, "period_ms": 5000}
CANADIAN = {"time_ms": 10_000, "period_moves": 2, "period_ms": 5000}


def end(store: SessionStore, clock: ManualClock, session_id: str, how: str) -> Session:
    if how == "expire":
        clock.advance_ms(100_000)
        assert store.get(session_id).found.status == "expired"
    else:
        getattr(store, how)(session_id)
    return store.get(session_id).found


def clocks(session: Session) -> tuple[Any, ...]:
    budgets = [(each.time_used_ms, each.time_remaining_ms) for each in session.participants]
    of_groups = [(each.time_used_ms, each.time_remaining_ms) for each in session.groups]
    return (
        budgets,
        of_groups,
        session.clocks,
        session.turn,
        session.cycle_count,
        session.time_used_ms,
        session.time_remaining_ms,
    )


def has_anybody_expired(session: Session) -> bool:
    return any(each.has_expired for each in session.participants) or any(each.has_expired for each in session.groups)


@pytest.mark.parametrize("how", ENDS)
@pytest.mark.parametrize("mode", MODES)
def test_a_reopened_session_is_paused_with_the_clocks_of_its_end(
    store: SessionStore, clock: ManualClock, redis_url: str, mode: str, how: str
) -> None:
    more = {"action_on_timeout": {"type": "end_session"}}
    session_id = create_running(store, mode, **more)
    clock.advance_ms(1000)
    store.switch(session_id)
    clock.advance_ms(2000)
    ended = end(store, clock, session_id, how)
    clock.advance_ms(50_000)
    reopened = store.reopen(session_id, reason="a mistake")
    found = reopened.found
    assert (found.status, found.version, found.epoch) == ("paused", ended.version + 1, ended.epoch)
    assert clocks(found) == clocks(ended)
    assert (found.session_completed_ms, found.cycle_started_ms) == (None, None)
    assert found.active_participant_id == "b"
    event = reopened.event
    assert event
    assert (event["type"], event["at_ms"], event["reason"]) == ("session_reopened", clock.now_ms, "a mistake")
    assert event["remaining_ms"] == found.budget_ms()
    assert found == make_store(redis_url).get(session_id).found  # one that has nothing cached


@pytest.mark.parametrize("how", ["complete", "cancel"])
@pytest.mark.parametrize("mode", MODES)
def test_a_session_that_had_not_begun_is_pending_again(
    store: SessionStore, clock: ManualClock, mode: str, how: str
) -> None:
    session_id = create_pending(store, mode)
    before = store.get(session_id).found
    end(store, clock, session_id, how)
    found = store.reopen(session_id).found
    assert (found.status, found.active_participant_id, clocks(found)) == ("pending", None, clocks(before))
    assert store.start(session_id).found.active_participant_id == "a"


@pytest.mark.parametrize("how", ENDS)
def test_its_key_does_not_expire_and_it_is_due_and_listed_again(
    store: SessionStore, clock: ManualClock, redis: Redis, how: str
) -> None:
    session_id = create_running(store, warn_at_ms=[1000])
    end(store, clock, session_id, how)
    keys, bucket = Keyspace(), Keyspace().bucket(session_id)
    assert redis.pttl(keys.session(session_id)) > 0
    assert redis.zscore(keys.deadlines(bucket), session_id) is None
    redis.zrem(keys.listed(bucket), session_id)  # as if the list had been lost
    found = store.reopen(session_id).found
    assert redis.pttl(keys.session(session_id)) == -1
    assert redis.zscore(keys.deadlines(bucket), session_id) == found.idle_ms == clock.now_ms + 86_400_000
    assert redis.zscore(keys.listed(bucket), session_id) == NOON_MS
    store.adjust(session_id, op="set", ms=5000)
    store.resume(session_id)
    assert redis.zscore(keys.deadlines(bucket), session_id) == clock.now_ms + 4000


def test_the_completion_is_gone_and_does_not_come_back(store: SessionStore, clock: ManualClock, redis: Redis) -> None:
    session_id = create_running(store)
    store.complete(session_id, reason="checkmate", result={"winner": "a"})
    assert "completion" in current_state(store, session_id)
    assert "completion" not in state_of(store.reopen(session_id))
    key = Keyspace().session(session_id)
    assert redis.hmget(key, "completion", "completion_proof") == [None, None]
    store.resume(session_id)
    assert "completion" not in state_of(store.complete(session_id))
    snapshot = outbox_messages(redis, session_id)[-1]["snapshot"]
    assert Session.from_snapshot(session_id, snapshot).completion is None
    store.reopen(session_id)
    store.complete(session_id, reason="stalemate")
    assert current_state(store, session_id)["completion"] == {"reason": "stalemate"}


def test_a_reopening_has_a_snapshot(store: SessionStore, clock: ManualClock, redis: Redis) -> None:
    session_id = create_running(store, controlled_body({"stages": [BYO_YOMI]}))
    clock.advance_ms(12_000)
    store.cancel(session_id)
    found = store.reopen(session_id).found
    message = outbox_messages(redis, session_id)[-1]
    assert Session.from_snapshot(session_id, message["snapshot"]) == found
    assert message["patch"]["participants"]["a"]["is_active"] is True


@pytest.mark.parametrize("mode", MODES)
def test_a_reopened_game_goes_on(store: SessionStore, clock: ManualClock, mode: str) -> None:
    session_id = create_running(store, mode, action_on_timeout={"type": "end_session"})
    clock.advance_ms(2000)
    store.cancel(session_id)
    clock.advance_ms(1000)
    store.reopen(session_id)
    clock.advance_ms(1000)
    found = store.resume(session_id)
    assert found.found.clock(found.now_ms)["remaining_ms"] == 8000
    clock.advance_ms(3000)
    assert store.get(session_id).found.clock(clock.now_ms)["remaining_ms"] == 5000
    found = store.switch(session_id)
    assert (found.found.cycle_count, found.found.active_participant_id) == (1, "b")
    clock.advance_ms(10_000)
    assert store.get(session_id).found.status == "expired"


@pytest.mark.parametrize("mode", MODES)
def test_an_expired_budget_is_at_zero_and_runs_out_at_once_without_more_time(
    store: SessionStore, clock: ManualClock, redis: Redis, mode: str
) -> None:
    session_id = create_running(store, mode, action_on_timeout={"type": "end_session"})
    end(store, clock, session_id, "expire")
    found = store.reopen(session_id).found
    assert found.budget_ms() == 0
    assert not has_anybody_expired(found)
    assert store.resume(session_id).found.status == "expired"
    last = outbox_messages(redis, session_id)[-1]["event"]
    assert (last["at_ms"], last["remaining_ms"]) == (clock.now_ms, 0)
    store.reopen(session_id)
    store.adjust(session_id, op="add", ms=3000)
    store.resume(session_id)
    clock.advance_ms(2999)
    assert store.get(session_id).found.status == "running"
    clock.advance_ms(1)
    assert store.get(session_id).found.status == "expired"


def test_an_expired_cycle_may_be_taken_back_instead(store: SessionStore, clock: ManualClock) -> None:
    session_id = create_running(store, takeback_cycles=1)
    clock.advance_ms(1000)
    store.switch(session_id)
    end(store, clock, session_id, "expire")
    with pytest.raises(InvalidTransition):
        store.takeback(session_id, cycles=1)
    store.reopen(session_id)
    found = store.takeback(session_id, cycles=1).found
    assert (found.status, found.active_participant_id) == ("paused", "a")
    assert [(each.time_remaining_ms, each.has_expired) for each in found.participants] == [(10_000, False)] * 2


def test_everybody_else_who_has_expired_stays_so(store: SessionStore, clock: ManualClock) -> None:
    session_id = create_running(store, people="abc", action_on_timeout=SKIP)
    end(store, clock, session_id, "expire")
    found = store.reopen(session_id).found
    assert found.active_participant_id == "c"
    assert [each.has_expired for each in found.participants] == [True, True, False]
    store.adjust(session_id, op="set", ms=5000)
    store.resume(session_id)
    assert store.switch(session_id).found.active_participant_id == "c"


def test_all_members_of_the_group_have_time_again(store: SessionStore, clock: ManualClock) -> None:
    session_id = create_running(store, team_body({"R": "ac", "B": "bd"}))
    end(store, clock, session_id, "expire")
    found = store.reopen(session_id).found
    assert not has_anybody_expired(found)


@pytest.mark.parametrize("how", ["complete", "cancel"])
@pytest.mark.parametrize(
    ("stage", "ran_ms", "left"),
    [(BYO_YOMI, 17_000, (2, 3000)), (CANADIAN, 12_000, (2, 3000)), (BYO_YOMI, 24_999, (1, 1))],
)
def test_a_period_is_as_it_was_and_its_rest_runs(
    store: SessionStore,
    clock: ManualClock,
    redis: Redis,
    stage: dict[str, Any],
    ran_ms: int,
    left: tuple[int, int],
    how: str,
) -> None:
    session_id = create_running(store, controlled_body({"stages": [stage]}))
    clock.advance_ms(ran_ms)
    ended = end(store, clock, session_id, how)
    clock.advance_ms(100_000)
    found = store.reopen(session_id).found
    assert clocks(found) == clocks(ended)
    mover = found.clocks[0]
    assert (mover.overtime, mover.count, mover.period_ms, mover.turn_ms) == (True, *left, ran_ms)
    store.resume(session_id)
    shown = current_state(store, session_id)["clock"]
    assert shown["phase"] == ("period" if stage is BYO_YOMI else "block")
    assert shown["next_at_ms"] == clock.now_ms + left[1]
    clock.advance_ms(left[1])
    store.get(session_id)
    last = outbox_messages(redis, session_id)[-1]["event"]
    assert (last["type"], last["at_ms"]) == (
        "period_lost" if left == (2, 3000) and stage is BYO_YOMI else "participant_expired",
        clock.now_ms,
    )


def test_the_last_period_is_used_up_until_it_gets_more_time(store: SessionStore, clock: ManualClock) -> None:
    session_id = create_running(store, controlled_body({"stages": [BYO_YOMI]}))
    end(store, clock, session_id, "expire")
    found = store.reopen(session_id).found
    assert (found.clocks[0].count, found.clocks[0].period_ms, found.participants[0].has_expired) == (1, 0, False)
    store.adjust(session_id, period_remaining_ms=2000)
    store.resume(session_id)
    clock.advance_ms(1999)
    found = store.switch(session_id).found
    assert (found.clocks[0].count, found.clocks[0].period_ms) == (1, 5000)


def test_with_notify_a_crossed_budget_may_cross_again(store: SessionStore, clock: ManualClock, redis: Redis) -> None:
    session_id = create_running(store, action_on_timeout=NOTIFY)
    clock.advance_ms(12_000)
    store.cancel(session_id)
    found = store.reopen(session_id).found
    assert (found.budget_ms(), found.participants[0].has_expired) == (-2000, False)
    store.resume(session_id)
    types = [message["event"]["type"] for message in outbox_messages(redis, session_id)]
    assert types[2:] == [
        *("participant_expired", "session_cancelled", "session_reopened", "session_resumed", "participant_expired")
    ]


@pytest.mark.parametrize("status", ["pending", "running", "paused"])
def test_a_live_session_is_not_reopened(store: SessionStore, clock: ManualClock, redis: Redis, status: str) -> None:
    session_id = create_pending(store)
    if status != "pending":
        store.start(session_id)
    if status == "paused":
        store.pause(session_id)
    before = dump_session(redis, session_id)
    with pytest.raises(InvalidTransition):
        store.reopen(session_id)
    assert dump_session(redis, session_id) == before


@pytest.mark.parametrize("mode", MODES)
def test_a_session_that_has_had_all_its_cycles_is_not_reopened(
    store: SessionStore, clock: ManualClock, redis: Redis, mode: str
) -> None:
    session_id = create_running(store, mode, max_cycles=2)
    store.switch(session_id)
    store.cancel(session_id)
    assert store.reopen(session_id).found.cycle_count == 1
    store.resume(session_id)
    assert store.switch(session_id).found.status == "completed"
    before = dump_session(redis, session_id)
    with pytest.raises(InvalidTransition):
        store.reopen(session_id)
    assert dump_session(redis, session_id) == before


def test_a_stale_version_and_a_missing_session_are_refused(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = create_running(store)
    version = store.cancel(session_id).found.version
    before = dump_session(redis, session_id)
    with pytest.raises(Conflict):
        store.reopen(session_id, Claim(expected_version=version - 1))
    assert dump_session(redis, session_id) == before
    store.delete(session_id)
    with pytest.raises(SessionNotFound):
        store.reopen(session_id)


def test_warnings_that_have_fired_do_not_fire_again(store: SessionStore, clock: ManualClock, redis: Redis) -> None:
    session_id = create_running(store, session_body(warn_at_ms=[9000, 5000]))
    clock.advance_ms(2000)
    store.cancel(session_id)
    store.reopen(session_id)
    store.resume(session_id)
    clock.advance_ms(4000)
    store.get(session_id)
    events = [message["event"] for message in outbox_messages(redis, session_id)]
    warned = [(event["threshold_ms"], event["at_ms"] - NOON_MS) for event in events if event["type"] == "time_warning"]
    assert warned == [(9000, 1000), (5000, 5000)]


def test_a_session_ends_and_is_reopened_again_and_again(store: SessionStore, clock: ManualClock, redis: Redis) -> None:
    session_id = create_running(store)
    for _ in range(3):
        store.cancel(session_id)
        store.reopen(session_id)
        store.resume(session_id)
    assert store.cancel(session_id).found.version == 12
    pttl: Any = redis.pttl(Keyspace().session(session_id))
    assert pttl > 0

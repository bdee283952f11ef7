"""Lag compensation at the end of the time: who waits for a move that may be on its way, and for how long.

Instants are counted from the start of the session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from syncapp.domain.results import Claim
from syncapp.errors import Conflict, InvalidTransition, NotActiveParticipant, ValidationFailed
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from tests.support.lagging_games import (
    BYO_YOMI,
    CANADIAN,
    PLAIN,
    QUOTA_MS,
    lagging,
    quotas,
    switch,
)
from tests.support.store import NOON_MS, ManualClock, outbox_messages
from tests.support.store_sessions import NOTIFY, SKIP, event_instants
from tests.support.types import Redis


@pytest.mark.parametrize(
    ("at_ms", "acted_ms", "is_in_time"),
    [
        (10_000, 9999, True),
        (10_499, 9999, True),
        (10_499, 10_000, False),
        (10_400, 10_001, False),
        (10_500, 9999, False),
        (10_501, 9999, False),
        (12_000, 9000, False),
    ],
)
def test_a_move_that_was_made_in_time_counts_if_it_arrives_within_the_quota(
    store: SessionStore, clock: ManualClock, redis: Redis, at_ms: int, acted_ms: int, is_in_time: bool
) -> None:
    session_id = lagging(store)
    clock.advance_ms(at_ms)
    if is_in_time:
        event = switch(store, session_id, acted_at_ms=NOON_MS + acted_ms)
        assert (event["remaining_ms"], event["lag_ms"]) == (10_000 - acted_ms, at_ms - acted_ms)
        return
    with pytest.raises(InvalidTransition):
        switch(store, session_id, acted_at_ms=NOON_MS + acted_ms)
    assert event_instants(redis, session_id) == [("participant_expired", 10_000)]
    assert store.get(session_id).found.session_completed_ms == NOON_MS + 10_000


def _read(store: SessionStore, session_id: str) -> None:
    store.get(session_id)


def _sweep(store: SessionStore, session_id: str) -> None:
    store.expire([session_id])


def _summarize(store: SessionStore, session_id: str) -> None:
    store.summaries([session_id])


def _attend(store: SessionStore, session_id: str) -> None:
    store.attend([session_id])


READERS: tuple[Callable[[SessionStore, str], None], ...] = (_read, _sweep, _summarize, _attend)


@pytest.mark.parametrize("quota_of", ["flag", "period"])
def test_an_opponents_press_does_not_end_the_wait_for_a_move_on_its_way(
    store: SessionStore, clock: ManualClock, redis: Redis, quota_of: str
) -> None:
    session_id = lagging(store, PLAIN if quota_of == "flag" else BYO_YOMI)
    end_ms = 10_000 if quota_of == "flag" else 1000
    clock.advance_ms(end_ms + 100)
    with pytest.raises(NotActiveParticipant):
        store.switch(session_id, participant_id="b")
    with pytest.raises(ValidationFailed):
        store.switch(session_id, participant_id="c")
    assert event_instants(redis, session_id) == []
    event = switch(store, session_id, participant_id="a", acted_at_ms=NOON_MS + end_ms - 100)
    assert (event["spent_ms"], event["lag_ms"]) == (end_ms - 100, 200)
    assert event_instants(redis, session_id) == [("cycle_switched", end_ms + 100)]


@pytest.mark.parametrize("look", READERS)
@pytest.mark.parametrize(
    ("stage", "event", "end_ms"),
    [
        (PLAIN, "participant_expired", 10_000),
        (BYO_YOMI, "period_started", 1000),
        (CANADIAN, "block_started", 1000),
    ],
)
def test_nobody_else_ends_the_time_before_the_quota_is_used_up(
    store: SessionStore,
    clock: ManualClock,
    redis: Redis,
    look: Callable[[SessionStore, str], None],
    stage: dict[str, Any],
    event: str,
    end_ms: int,
) -> None:
    session_id = lagging(store, stage)
    score = redis.zscore(Keyspace().deadlines(Keyspace().bucket(session_id)), session_id)
    assert score == NOON_MS + end_ms + QUOTA_MS
    for offset_ms in (0, 1, QUOTA_MS - 1):
        clock.set(NOON_MS + end_ms + offset_ms)
        look(store, session_id)
        assert event_instants(redis, session_id) == []
        assert store.get(session_id).found.clock(clock.now_ms)["remaining_ms"] == 0
    clock.advance_ms(1)
    look(store, session_id)
    if look is not _attend:  # it settles nothing
        assert event_instants(redis, session_id) == [(event, end_ms)]


def test_the_second_period_is_waited_for_as_the_first(store: SessionStore, clock: ManualClock, redis: Redis) -> None:
    session_id = lagging(store, BYO_YOMI)
    clock.advance_ms(2499)
    store.get(session_id)
    assert event_instants(redis, session_id) == [("period_started", 1000)]
    event = switch(store, session_id, acted_at_ms=NOON_MS + 1999)
    assert (event["lag_ms"], event["spent_ms"]) == (500, 1999)
    assert store.get(session_id).found.clocks[0].count == 3


def test_a_claim_counts_from_the_start_of_the_turn_and_not_of_the_period(
    store: SessionStore, clock: ManualClock
) -> None:
    session_id = lagging(store, BYO_YOMI)
    clock.advance_ms(2300)
    event = switch(store, session_id, 240, spent_ms=2100)
    assert (event["lag_ms"], event["spent_ms"]) == (200, 2100)
    assert store.get(session_id).found.clocks[0].count == 2


def test_a_pause_is_no_lag(store: SessionStore, clock: ManualClock) -> None:
    session_id = lagging(store)
    clock.advance_ms(2000)
    store.pause(session_id)
    clock.advance_ms(60_000)
    store.resume(session_id)
    clock.advance_ms(1000)
    event = switch(store, session_id, 240, spent_ms=2900)
    assert (event["lag_ms"], event["spent_ms"]) == (100, 2900)


def test_a_period_is_not_begun_by_a_move_that_was_made_before_it(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = lagging(store, BYO_YOMI)
    clock.advance_ms(1200)
    event = switch(store, session_id, acted_at_ms=NOON_MS + 999)
    assert event["remaining_ms"] == 1
    assert event_instants(redis, session_id) == [("cycle_switched", 1200)]
    store.switch(session_id)
    clock.advance_ms(100)
    event = switch(store, session_id, acted_at_ms=clock.now_ms - 50)  # a has 1 ms, which it uses up
    assert event_instants(redis, session_id)[-2:] == [("period_started", 1201), ("cycle_switched", 1300)]
    assert (event["lag_ms"], event["spent_ms"]) == (50, 50)


COMMANDS: dict[str, dict[str, Any]] = {
    "pause": {},
    "adjust": {"op": "add", "ms": 1000, "participant_id": "b"},
    "complete": {},
    "cancel": {},
}


@pytest.mark.parametrize("command", COMMANDS)
def test_no_other_command_waits_for_a_move(store: SessionStore, clock: ManualClock, redis: Redis, command: str) -> None:
    session_id = lagging(store, BYO_YOMI)
    clock.advance_ms(1000)
    getattr(store, command)(session_id, **COMMANDS[command])
    assert event_instants(redis, session_id)[0] == ("period_started", 1000)
    assert len(event_instants(redis, session_id)) == 2
    session_id = lagging(store, action_on_timeout=NOTIFY)
    clock.advance_ms(10_001)
    getattr(store, command)(session_id, **COMMANDS[command])
    last = [message["event"] for message in outbox_messages(redis, session_id)]
    assert [event["type"] for event in last[2:3]] == ["participant_expired"]
    session_id = lagging(store)
    clock.advance_ms(10_000)
    with pytest.raises(InvalidTransition):
        getattr(store, command)(session_id, **COMMANDS[command])


def test_a_quota_that_is_used_up_leaves_nothing_to_wait_for(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = lagging(store)
    clock.advance_ms(500)
    switch(store, session_id, acted_at_ms=NOON_MS)
    store.switch(session_id)
    assert quotas(store, session_id) == [0, 500]
    clock.advance_ms(10_000)
    assert store.get(session_id).found.status == "expired"
    assert event_instants(redis, session_id)[-1] == ("participant_expired", 10_500)


def test_warnings_do_not_wait(store: SessionStore, clock: ManualClock, redis: Redis) -> None:
    session_id = lagging(store, warn_at_ms=[1000, 1])
    clock.advance_ms(10_000)
    store.get(session_id)
    assert event_instants(redis, session_id) == [("time_warning", 9000), ("time_warning", 9999)]


def test_a_skipped_cycle_is_skipped_at_its_own_instant(store: SessionStore, clock: ManualClock, redis: Redis) -> None:
    session_id = lagging(store, action_on_timeout=SKIP)
    clock.advance_ms(10_499)
    assert store.get(session_id).found.active_participant_id == "a"
    clock.advance_ms(1)
    found = store.get(session_id).found
    assert (found.active_participant_id, found.cycle_started_ms) == ("b", NOON_MS + 10_000)
    with pytest.raises(NotActiveParticipant):
        switch(store, session_id, acted_at_ms=NOON_MS + 9999, participant_id="a")
    assert quotas(store, session_id) == [500, 500]


def test_the_lag_of_a_turn_that_was_skipped_is_limited_by_the_quota_of_the_next(
    store: SessionStore, clock: ManualClock
) -> None:
    session_id = lagging(store, {"time_ms": 1000}, action_on_timeout=SKIP)
    clock.advance_ms(100)
    store.switch(session_id)
    clock.advance_ms(600)
    switch(store, session_id, acted_at_ms=clock.now_ms - 500)
    assert quotas(store, session_id) == [500, 0]
    clock.advance_ms(950)  # the time of a ended 50 ms ago
    event = switch(store, session_id, acted_at_ms=clock.now_ms - 20)
    assert (event["participant_id"], event["lag_ms"], event["spent_ms"]) == ("b", 0, 50)
    assert quotas(store, session_id) == [500, 0]


def test_what_runs_out_before_the_act_of_the_next_mover_does_so(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = lagging(store, {"time_ms": 1000}, action_on_timeout=SKIP)
    clock.advance_ms(100)
    store.switch(session_id)
    clock.advance_ms(550)
    switch(store, session_id, acted_at_ms=clock.now_ms - 500)
    store.adjust(session_id, op="set", ms=50, participant_id="b")  # it has no quota left
    clock.advance_ms(1000)  # the time of a ended 100 ms ago, and that of b 50 ms ago
    with pytest.raises(InvalidTransition):
        switch(store, session_id, acted_at_ms=clock.now_ms - 95)
    assert event_instants(redis, session_id)[-2:] == [("participant_expired", 1550), ("participant_expired", 1600)]
    assert [each.time_remaining_ms for each in store.get(session_id).found.participants] == [0, 0]


@pytest.mark.parametrize("lag_ms", [0, 500])
def test_a_clock_without_time_runs_out_with_the_move_that_starts_it(
    store: SessionStore, clock: ManualClock, redis: Redis, lag_ms: int
) -> None:
    session_id = lagging(store)
    store.adjust(session_id, op="set", ms=0, participant_id="b")
    clock.advance_ms(600)
    found = store.switch(session_id, acted_at_ms=clock.now_ms - lag_ms).found
    assert (found.status, quotas(store, session_id)[0]) == ("expired", 500 - lag_ms)
    clock.advance_ms(1000)
    session_id = lagging(store)
    clock.advance_ms(600)
    for _ in range(2):  # the quota of a is used up when it moves again
        switch(store, session_id, acted_at_ms=clock.now_ms - lag_ms)
    store.adjust(session_id, op="set", ms=0, participant_id="b")
    assert store.switch(session_id).found.status == "expired"


def test_an_expected_version_is_compared_after_what_was_due_before_the_act(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = lagging(store, BYO_YOMI)
    clock.advance_ms(1100)
    version = store.get(session_id).found.version
    late = Claim(expected_version=version)
    with pytest.raises(Conflict):
        store.switch(session_id, late, acted_at_ms=NOON_MS + 1050)
    assert event_instants(redis, session_id) == [("period_started", 1000)]
    again = Claim(expected_version=version + 1)
    assert store.switch(session_id, again, acted_at_ms=NOON_MS + 1050).found.version == version + 2

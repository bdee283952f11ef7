"""The limits of clocks with a time control: what records can hold, what all clocks may do together, late moves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from syncapp.domain.control_clock import CLOCK_WIDTH
from syncapp.domain.results import Claim
from syncapp.domain.schemas import CreateSession
from syncapp.errors import IdempotencyMismatch, NotActiveParticipant, ValidationFailed
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from tests.support.store import NOON_MS, ManualClock, outbox_messages
from tests.support.store_sessions import NOTIFY, SKIP, controlled_body, create_running
from tests.support.types import Redis

DAY_MS = 86_400_000


def start(store: SessionStore, control: str | dict[str, Any], people: Sequence[str] = "ab", **more: Any) -> str:
    return create_running(store, controlled_body(control, people, **more))


def test_years_of_overtime_do_not_outgrow_the_record_of_a_clock(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = start(store, "sgf:0 1x1 byo-yomi", "ab", idle_timeout_s=2_592_000, action_on_timeout=NOTIFY)
    for number in range(60):
        clock.advance_ms(20 * DAY_MS)
        store.update(session_id, {"a": number})
    found = store.switch(session_id).found
    assert found.clocks[0].period_ms == -9_999_999_999
    block = redis.hget(Keyspace().session(session_id), "c:0")
    assert block is not None
    assert len(block) == 2 * CLOCK_WIDTH
    assert store.get(session_id).found == found


def test_main_time_goes_into_a_period_within_what_the_record_can_hold(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    control = {
        "stages": [{"moves": 1000, "time_ms": 1000}, {"time_ms": 0, "periods": 1, "period_ms": 1}],
    }
    session_id = start(store, control, "ab", action_on_timeout=NOTIFY)
    clock.advance_ms(2000)
    for _ in range(3):
        store.adjust(session_id, op="add", ms=-30 * DAY_MS)
    store.adjust(session_id, op="add", ms=-9_999_998_000 + 90 * DAY_MS)
    store.complete(session_id)
    store.reopen(session_id)
    store.adjust(session_id, stage=2)
    store.resume(session_id)
    clock.advance_ms(1500)
    found = store.pause(session_id).found
    assert found.clocks[0].period_ms == -9_999_999_999
    block = redis.hget(Keyspace().session(session_id), "c:0")
    assert block is not None
    assert len(block) == 2 * CLOCK_WIDTH


def test_lag_belongs_to_the_owner_whose_move_it_is(store: SessionStore, clock: ManualClock) -> None:
    lag = {"per_move_ms": 0, "quota_ms": 10_000}
    session_id = start(store, "pgn:5", "abc", lag_compensation=lag, action_on_timeout=SKIP)
    deadline_ms = clock.now_ms + 5000
    clock.advance_ms(14_000)  # a has run out, which the quota hides until now; b has had its 5 s, too
    with pytest.raises(NotActiveParticipant, match="but a's"):
        store.switch(session_id, participant_id="b", acted_at_ms=deadline_ms)
    event = store.switch(session_id, acted_at_ms=deadline_ms).event
    assert event
    assert (event["participant_id"], event["spent_ms"], event["lag_ms"]) == ("c", 4000, 0)
    found = store.get(session_id).found
    assert [each.time_remaining_ms for each in found.participants] == [0, 0, 1000]
    assert [each.has_expired for each in found.participants] == [True, True, False]
    assert found.clock(clock.now_ms)["remaining_ms"] == 1000


def test_no_command_moves_a_flag_that_waits_for_a_move(store: SessionStore, clock: ManualClock, redis: Redis) -> None:
    session_id = start(store, "pgn:10", lag_compensation={"per_move_ms": 0, "quota_ms": 1000})
    clock.advance_ms(10_300)
    assert store.get(session_id).found.status == "running"
    assert store.update(session_id, {"seen": 1}).found.status == "expired"
    flag = next(
        each["event"] for each in outbox_messages(redis, session_id) if each["event"]["type"].endswith("expired")
    )
    assert (flag["at_ms"] - NOON_MS, flag["remaining_ms"]) == (10_000, 0)


def test_all_clocks_together_have_a_limited_number_of_periods(store: SessionStore) -> None:
    body = controlled_body("sgf:60 100x1 byo-yomi", [f"p{i}" for i in range(101)])
    with pytest.raises(ValidationFailed, match="10100 periods, more than 10000"):
        store.create(CreateSession.parse(body))


def test_a_groups_budget_may_be_more_than_a_stage_may_have(store: SessionStore) -> None:
    people = [{"participant_id": f"p{i}", "group_id": "g", "total_time_ms": DAY_MS} for i in range(31)]
    lag = {"per_move_ms": 1, "quota_ms": 1}
    new = CreateSession.parse({"sync_mode": "per_group", "participants": people, "lag_compensation": lag})
    assert store.create(new).found.groups[0].time_remaining_ms == 31 * DAY_MS


def test_a_period_can_be_given_back_to_an_owner_whose_flag_has_fallen(store: SessionStore, clock: ManualClock) -> None:
    session_id = start(store, "sgf:1 2x5 byo-yomi", "ab", action_on_timeout=NOTIFY)
    clock.advance_ms(12_000)
    assert store.get(session_id).found.participants[0].has_expired
    found = store.adjust(session_id, periods_left=1).found
    assert (found.participants[0].has_expired, found.clocks[0].period_ms) == (False, 5000)
    clock.advance_ms(5000)
    assert store.get(session_id).found.participants[0].has_expired


def test_a_key_used_for_everybody_is_another_command_than_for_one_named_all(store: SessionStore) -> None:
    session_id = start(store, "pgn:60", ["all", "b"])
    claim = Claim(idempotency_key="k")
    store.adjust(session_id, claim, op="add", ms=1000, targets="all")
    with pytest.raises(IdempotencyMismatch, match="this idempotency key was used for another command"):
        store.adjust(session_id, claim, op="add", ms=1000, targets=["all"])

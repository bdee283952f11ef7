"""Lag compensation: what a move is not charged, and what that leaves of the quota."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from syncapp.domain.session import Session
from syncapp.errors import InvalidTransition
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from tests.support.control_machine import control_bodies
from tests.support.lagging_games import (
    BYO_YOMI,
    PLAIN,
    lagging,
    quotas,
    switch,
)
from tests.support.store import NOON_MS, ManualClock
from tests.support.store_sessions import controlled_body, create_running, current_state
from tests.support.types import Redis

property_settings = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@pytest.mark.parametrize(
    ("claim_ms", "limit_ms", "ran_ms", "quota_ms", "lag_ms"),
    [
        (100, 200, 1000, 500, 100),
        (300, 200, 1000, 500, 200),
        (900, 800, 1000, 500, 500),
        (400, 800, 300, 500, 300),
        (0, 200, 1000, 500, 0),
        (-1, 200, 1000, 500, 0),
        (-900, 200, 1000, 500, 0),
        (1000, 1000, 1000, 1000, 1000),
        (1000, 0, 1000, 1000, 0),
    ],
)
def test_lag_is_the_least_of_claim_limit_elapsed_time_and_quota(
    store: SessionStore, clock: ManualClock, claim_ms: int, limit_ms: int, ran_ms: int, quota_ms: int, lag_ms: int
) -> None:
    session_id = lagging(store, quota_ms=quota_ms)
    clock.advance_ms(ran_ms)
    event = switch(store, session_id, limit_ms, spent_ms=max(0, ran_ms - claim_ms))
    expected_ms = min(lag_ms, ran_ms)
    assert (event["lag_ms"], event["spent_ms"]) == (expected_ms, ran_ms - expected_ms)
    assert event["remaining_ms"] == 10_000 - ran_ms + expected_ms
    assert quotas(store, session_id) == [quota_ms - expected_ms, quota_ms]


def test_the_instant_of_the_act_is_limited_by_quota_and_elapsed_time_only(
    store: SessionStore, clock: ManualClock
) -> None:
    session_id = lagging(store)
    for claimed_ms, lag_ms in ((300, 300), (0, 0), (900, 200), (-50, 0), (100, 0)):
        clock.advance_ms(1000)
        event = switch(store, session_id, None, acted_at_ms=clock.now_ms - claimed_ms)
        assert event["lag_ms"] == lag_ms
    session_id = lagging(store)
    clock.advance_ms(200)
    assert switch(store, session_id, acted_at_ms=0)["lag_ms"] == 200


def test_the_next_clock_is_charged_from_the_receipt(store: SessionStore, clock: ManualClock) -> None:
    session_id = lagging(store)
    clock.advance_ms(1300)
    event = switch(store, session_id, acted_at_ms=clock.now_ms - 300)
    assert event == {
        "type": "cycle_switched", "at_ms": NOON_MS + 1300, "participant_id": "a", "next_participant_id": "b",
        "remaining_ms": 9000, "spent_ms": 1000, "bonus_ms": 0, "lag_ms": 300,
    }  # fmt: skip
    found = store.get(session_id).found
    assert found.cycle_started_ms == found.updated_ms == NOON_MS + 1300
    assert found.participants[0].time_used_ms == 1000
    clock.advance_ms(700)
    event = switch(store, session_id, None)
    assert (event["spent_ms"], event["remaining_ms"], event["lag_ms"]) == (700, 9300, 0)


def test_a_quota_is_full_at_first_and_grows_with_each_move_up_to_full(store: SessionStore, clock: ManualClock) -> None:
    session_id = lagging(store, per_move_ms=200)
    assert quotas(store, session_id) == [500, 500]
    left = []
    for lag_ms in (400, 0, 0, 0, 100):
        clock.advance_ms(1000)
        switch(store, session_id, acted_at_ms=clock.now_ms - lag_ms)
        left.append(quotas(store, session_id)[0])
        clock.advance_ms(1000)
        switch(store, session_id)
    assert left == [300, 500, 500, 500, 500]
    assert quotas(store, session_id)[1] == 500


@property_settings
@given(
    quota_ms=st.integers(1, 1000),
    per_move_ms=st.integers(0, 300),
    moves=st.lists(
        st.tuples(st.integers(0, 1200), st.integers(-200, 2000), st.none() | st.integers(0, 1500), st.booleans()),
        min_size=1,
        max_size=8,
    ),
)
def test_a_client_that_lies_gains_at_most_its_quota(
    store: SessionStore,
    clock: ManualClock,
    quota_ms: int,
    per_move_ms: int,
    moves: list[tuple[int, int, int | None, bool]],
) -> None:
    session_id = lagging(store, {"time_ms": 1_000_000}, per_move_ms, quota_ms=quota_ms)
    quota, ran, gained = {"a": quota_ms, "b": quota_ms}, 0, 0
    for count, (ran_ms, claim_ms, limit_ms, states_act) in enumerate(moves, 1):
        clock.advance_ms(ran_ms)
        if states_act:
            said: dict[str, Any] = {"acted_at_ms": clock.now_ms - claim_ms}
            claimed_ms = claim_ms
        else:
            said = {"spent_ms": max(0, ran_ms - claim_ms)}
            claimed_ms = 0 if limit_ms is None else min(ran_ms - said["spent_ms"], limit_ms)
        event = switch(store, session_id, limit_ms, **said)
        mover = event["participant_id"]
        expected_ms = max(0, min(claimed_ms, ran_ms, quota[mover]))
        assert (event["lag_ms"], event["spent_ms"]) == (expected_ms, ran_ms - expected_ms)
        quota[mover] = min(quota[mover] - expected_ms + per_move_ms, quota_ms)
        ran += ran_ms
        gained += event["lag_ms"]
        assert gained <= 2 * quota_ms + count * per_move_ms
        assert quotas(store, session_id) == [quota["a"], quota["b"]]
    used = sum(person.time_used_ms for person in store.get(session_id).found.participants)
    assert used == ran - gained


def test_without_a_measured_limit_the_time_that_the_client_says_changes_nothing(
    store: SessionStore, clock: ManualClock
) -> None:
    session_id = lagging(store)
    clock.advance_ms(1000)
    event = switch(store, session_id, None, spent_ms=0)
    assert (event["lag_ms"], event["spent_ms"]) == (0, 1000)


@pytest.mark.parametrize("stage", [None, PLAIN, BYO_YOMI])
def test_a_session_without_compensation_commits_the_same_bytes_whatever_a_client_says(
    store: SessionStore, clock: ManualClock, redis: Redis, stage: dict[str, Any] | None
) -> None:
    def played(**said: Any) -> list[bytes]:
        redis.flushdb()
        clock.set(NOON_MS)
        body = controlled_body({"stages": [stage or PLAIN]}, session_id="3e1f8e1a-3f44-4c55-9d0b-0f6f2b8f5a10")
        if stage is None:
            del body["time_control"]
            body["participants"] = [person | {"total_time_ms": 10_000} for person in body["participants"]]
        session_id = create_running(store, body)
        for ran_ms in (400, 1100, 2900):
            clock.advance_ms(ran_ms)
            switch(store, session_id, 240, **said)
        entries: Any = redis.xrange(Keyspace().outbox(Keyspace().bucket(session_id)))
        texts = [fields[b"message"] for _, fields in entries]
        # A digest has a random salt, and a hash depends on it.
        unstable = rb'"(previous|salt|request_id)":"[^"]*"|"[0-9a-f]{40,}"|"[\w+/=-]{20,}"'
        return [re.sub(unstable, b"", text.split(b"\n")[0]) for text in texts]

    plain = played()
    assert played(spent_ms=0) == plain
    assert played(acted_at_ms=0) == plain
    assert played(spent_ms=10_000) == plain


def test_an_hourglass_moves_only_what_is_charged(store: SessionStore, clock: ManualClock) -> None:
    session_id = lagging(store, {"time_ms": 10_000, "hourglass": True})
    clock.advance_ms(1000)
    switch(store, session_id, acted_at_ms=clock.now_ms - 300)
    assert [person.time_remaining_ms for person in store.get(session_id).found.participants] == [9300, 10_700]


def test_a_takeback_gives_the_quota_back(store: SessionStore, clock: ManualClock) -> None:
    session_id = lagging(store, takeback_cycles=1)
    clock.advance_ms(1000)
    switch(store, session_id, acted_at_ms=clock.now_ms - 300)
    store.takeback(session_id, cycles=1)
    assert quotas(store, session_id) == [500, 500]


def test_members_of_a_group_share_its_quota(store: SessionStore, clock: ManualClock) -> None:
    people = [{"participant_id": name, "group_id": name[0]} for name in ("r1", "b1", "r2")]
    session_id = lagging(store, sync_mode="per_group", participants=people)
    for lag_ms in (300, 0, 400):
        clock.advance_ms(1000)
        event = switch(store, session_id, acted_at_ms=clock.now_ms - lag_ms)
    assert (event["participant_id"], event["lag_ms"], event["spent_ms"]) == ("r2", 200, 800)
    assert [group["lag_left_ms"] for group in current_state(store, session_id)["groups"]] == [0, 500]


def test_a_free_move_has_lag_too(store: SessionStore, clock: ManualClock) -> None:
    session_id = lagging(store)
    clock.advance_ms(1000)
    event = switch(store, session_id, acted_at_ms=clock.now_ms - 100, is_free=True)
    assert (event["lag_ms"], event["remaining_ms"]) == (100, 10_000)


def owners(found: Session) -> list[Any]:
    """Return the clocks, without the quotas."""
    budgets = [(each.time_used_ms, each.time_remaining_ms, each.has_expired) for each in found.participants]
    return [budgets, [replace(each, lag_left_ms=0) for each in found.clocks], found.turn, found.cycle_count]


@settings(property_settings, max_examples=60)
@given(
    body=control_bodies("per_participant"),
    quota_ms=st.sampled_from([1, 5, 20]),
    per_move_ms=st.sampled_from([0, 2]),
    moves=st.lists(
        st.tuples(st.integers(0, 12), st.sampled_from([0, 1, 2, 5, 10, 30]), st.booleans()), min_size=1, max_size=8
    ),
)
def test_lag_is_as_if_the_turn_had_been_shorter(
    store: SessionStore,
    clock: ManualClock,
    body: dict[str, Any],
    quota_ms: int,
    per_move_ms: int,
    moves: list[tuple[int, int, bool]],
) -> None:
    plain = {name: value for name, value in body.items() if name not in ("idle_timeout_s", "warn_at_ms", "warn_scope")}
    quota = {"per_move_ms": per_move_ms, "quota_ms": quota_ms}
    clock.set(NOON_MS)
    session_id = create_running(store, orjson.loads(orjson.dumps(plain | {"lag_compensation": quota})))
    lags: list[int] = []
    expected = [owners(store.get(session_id).found)]
    for ran_ms, claim_ms, pauses in moves:
        clock.advance_ms(ran_ms)
        try:
            event = switch(store, session_id, acted_at_ms=clock.now_ms - claim_ms)
            assert 0 <= event["lag_ms"] <= min(claim_ms, quota_ms)
            lags.append(event["lag_ms"])
        except InvalidTransition:
            lags.append(0)
        if pauses and store.get(session_id).found.status == "running":
            store.pause(session_id)
            store.resume(session_id)
        found = store.get(session_id).found
        assert all(0 <= each.lag_left_ms <= quota_ms for each in found.clocks)
        expected.append(owners(found))
        if found.status != "running":
            break
    clock.set(NOON_MS)
    session_id = create_running(store, orjson.loads(orjson.dumps(plain)))
    shown = [owners(store.get(session_id).found)]
    for (ran_ms, _, _), lag_ms in zip(moves, lags, strict=False):
        clock.advance_ms(ran_ms - lag_ms)
        with suppress(InvalidTransition):
            store.switch(session_id)
        shown.append(owners(store.get(session_id).found))
    assert shown == expected

"""Rules of time controls, in examples computed by hand; the machines compare everything else with the model."""

from __future__ import annotations

from typing import Any

import pytest

from syncapp.store.sessions import SessionStore
from tests.support.store import ManualClock
from tests.support.store_sessions import NOTIFY, controlled_body, create_running, event_instants
from tests.support.types import Redis

MONTH_MS = 30 * 86_400_000
MOST_MS = 99_999_999_999
BEFORE = {"first_bonus": "before_move"}
PER_MOVE = [{"per_move_ms": 5000, "moves": 1}, {"time_ms": 3000}]
STAGES = [{"time_ms": 10_000, "increment_ms": 1000, "moves": 1}, {"time_ms": 5000, "increment_ms": 2000}]
TO_BRONSTEIN: list[dict[str, Any]] = [
    {"time_ms": 10_000, "moves": 1},
    {"time_ms": 5000, "delay": "bronstein", "delay_ms": 1000},
]
BRONSTEIN = [TO_BRONSTEIN[1] | {"time_ms": 10_000, "moves": 1}, TO_BRONSTEIN[1]]
SIMPLE = [{"time_ms": 10_000, "delay": "simple", "delay_ms": 1000}]
CAPPED = [{"time_ms": 10_000, "increment_ms": 1000, "cap_ms": 5000}]
REPEATED = [{"time_ms": 10_000, "moves": 2, "repeat": True}]
PLAIN = [{"time_ms": 10_000}]
BYO_YOMI: list[dict[str, Any]] = [{"time_ms": 1000, "periods": 3, "period_ms": 5000}]
CSA = [BYO_YOMI[0] | {"increment_ms": 700}]
CANADIAN = [{"time_ms": 1000, "period_moves": 2, "period_ms": 5000}]


def started(store: SessionStore, stages: list[dict[str, Any]], rules: dict[str, Any] | None = None, **more: Any) -> str:
    return create_running(store, controlled_body({"stages": stages} | (rules or {}), **more))


@pytest.mark.parametrize(
    ("stages", "rules", "spent_ms", "main_ms", "stage"),
    [
        (PER_MOVE, {}, [1000], 3000, 2),
        (STAGES, {}, [1000], 15_000, 2),
        (STAGES, BEFORE, [], 11_000, 1),
        (STAGES, BEFORE, [1000], 17_000, 2),
        (STAGES, BEFORE, [1000, 1000], 18_000, 2),
        (TO_BRONSTEIN, BEFORE, [600], 15_400, 2),
        (TO_BRONSTEIN, {}, [600], 14_400, 2),
        (BRONSTEIN, BEFORE, [], 11_000, 1),
        (BRONSTEIN, BEFORE, [600], 16_000, 2),
        (BRONSTEIN, {}, [300], 15_000, 2),
        (BRONSTEIN, {}, [1600], 14_400, 2),
        (SIMPLE, {}, [999, 1500], 9500, 1),
        (CAPPED, {}, [1000], 9000, 1),
        (CAPPED, {}, [6000], 5000, 1),
        (REPEATED, {}, [1000, 1000, 1000], 17_000, 1),
        (PLAIN, {"charge_unit_ms": 1000}, [1999, 999], 9000, 1),
        (PLAIN, {"min_charge_ms": 3000}, [1000, 4000], 3000, 1),
        (PLAIN, {"margin_ms": 500}, [10_499], -499, 1),
    ],
)
def test_a_move_leaves_this_main_time(
    store: SessionStore,
    clock: ManualClock,
    stages: list[dict[str, Any]],
    rules: dict[str, Any],
    spent_ms: list[int],
    main_ms: int,
    stage: int,
) -> None:
    session_id = started(store, stages, rules)
    for each in spent_ms:
        clock.advance_ms(each)
        store.switch(session_id)
        store.switch(session_id, is_free=True)
    found = store.get(session_id).found
    assert (found.participants[0].time_remaining_ms, found.clocks[0].stage) == (main_ms, stage)


@pytest.mark.parametrize(
    ("stages", "spent_ms", "overtime", "count", "period_ms", "main_ms"),
    [
        (BYO_YOMI, [2000], True, 3, 5000, 0),
        (BYO_YOMI, [6000], True, 2, 5000, 0),
        (BYO_YOMI, [2000, 12_000], True, 1, 5000, 0),
        (CSA, [7000], False, 2, 0, 700),
        (CANADIAN, [2000], True, 1, 4000, 0),
        (CANADIAN, [2000, 1000], True, 2, 5000, 0),
        (CANADIAN, [2000, 1000, 1500], True, 1, 3500, 0),
    ],
)
def test_a_move_leaves_this_period(
    store: SessionStore,
    clock: ManualClock,
    stages: list[dict[str, Any]],
    spent_ms: list[int],
    overtime: bool,
    count: int,
    period_ms: int,
    main_ms: int,
) -> None:
    session_id = started(store, stages)
    for each in spent_ms:
        clock.advance_ms(each)
        store.switch(session_id)
        store.switch(session_id)
    found = store.get(session_id).found
    mover = found.clocks[0]
    assert (mover.overtime, mover.count, mover.period_ms) == (overtime, count, period_ms)
    assert found.participants[0].time_remaining_ms == main_ms


def test_an_owner_whose_flag_has_fallen_has_no_further_bonuses(store: SessionStore, clock: ManualClock) -> None:
    session_id = started(store, STAGES, action_on_timeout=NOTIFY)
    clock.advance_ms(12_000)
    found = store.switch(session_id).found
    assert (found.participants[0].time_remaining_ms, found.clocks[0].stage) == (-2000, 1)


@pytest.mark.parametrize(
    ("stages", "scope", "instants"),
    [
        (SIMPLE, "main", [8000, 10_000]),
        (BYO_YOMI, "main", []),
        (BYO_YOMI, "period", [3000, 5000, 8000, 10_000]),
        (CANADIAN, "period", [3000, 5000]),
        (CANADIAN, "main", []),
    ],
)
def test_warnings_come_when_the_clock_shows_the_threshold(
    store: SessionStore, clock: ManualClock, redis: Redis, stages: list[dict[str, Any]], scope: str, instants: list[int]
) -> None:
    session_id = started(store, stages, warn_at_ms=[3000, 1000], warn_scope=scope)
    clock.advance_ms(10_500)
    store.get(session_id)
    assert [at for kind, at in event_instants(redis, session_id) if kind == "time_warning"] == instants


def test_each_clock_of_an_hourglass_gains_its_share(store: SessionStore, clock: ManualClock) -> None:
    session_id = started(store, [{"time_ms": 10_000, "hourglass": True}], people="abc")
    clock.advance_ms(1001)
    found = store.switch(session_id).found
    assert [each.time_remaining_ms for each in found.participants] == [8999, 10_500, 10_501]
    clock.advance_ms(1)
    found = store.switch(session_id).found
    assert [each.time_remaining_ms for each in found.participants] == [8999, 10_499, 10_502]


def test_a_clock_holds_no_more_than_its_record(store: SessionStore, clock: ManualClock) -> None:
    session_id = started(store, [{"time_ms": MONTH_MS, "increment_ms": MONTH_MS}])
    store.adjust(session_id, op="set", ms=MOST_MS)
    clock.advance_ms(1000)
    assert store.switch(session_id).found.participants[0].time_remaining_ms == MOST_MS
    assert store.switch(session_id).found.participants[1].time_remaining_ms == 2 * MONTH_MS

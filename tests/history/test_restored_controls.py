"""Sessions with time controls that are lost and restored from the log: clocks, warnings, takebacks, reopenings."""

from __future__ import annotations

from typing import Any

import pytest
import redis as redis_py
from hypothesis import strategies as st
from hypothesis.stateful import rule, run_state_machine_as_test

from syncapp.audit.verify import VerifyResult, verify
from syncapp.domain.results import Claim
from syncapp.domain.schemas import CreateSession
from syncapp.domain.session import Session
from syncapp.errors import ValidationFailed
from syncapp.history.recovery import Outcome
from syncapp.store.sessions import SessionStore
from tests.support.arbiter_machine import ArbiterMachine
from tests.support.audit_log import AuditServices
from tests.support.clock_machine import MAX_UNATTENDED, machine_settings
from tests.support.control_machine import steps
from tests.support.lost_sessions import ID, lose_session
from tests.support.replay_machine import REPLAY_EXAMPLES, REPLAY_STEPS, ReplayMachine
from tests.support.store import ManualClock, make_store, outbox_messages

RULES = ("run", "freeze", "credit")
PEOPLE = [{"participant_id": name} for name in ("white", "black")]
TEAMS = [{"participant_id": name, "group_id": name[0]} for name in ("r1", "b1", "r2", "b2")]
STAGES = [{"moves": 1, "time_ms": 10_000, "increment_ms": 500}, {"time_ms": 5000, "delay": "simple", "delay_ms": 2000}]
BYO_YOMI = [{"time_ms": 2000, "periods": 3, "period_ms": 4000}]
CANADIAN = [{"time_ms": 2000, "period_moves": 2, "period_ms": 9000}]
HOURGLASS = [{"time_ms": 10_000, "hourglass": True}]
WARNS_IN_PERIODS = {"warn_at_ms": [3000, 1500, 500], "warn_scope": "period"}
GAMES: dict[str, dict[str, Any]] = {
    "stages": {"time_control": {"stages": STAGES}},
    "byo-yomi": {"time_control": {"stages": BYO_YOMI}},
    "byo-yomi with warnings": {"time_control": {"stages": BYO_YOMI}} | WARNS_IN_PERIODS,
    "canadian": {"time_control": {"stages": CANADIAN}, "takeback_cycles": 3},
    "canadian with warnings": {"time_control": {"stages": CANADIAN}} | WARNS_IN_PERIODS,
    "hourglass": {"time_control": {"stages": HOURGLASS}, "takeback_cycles": 3},
    "per move": {"time_control": {"stages": [{"per_move_ms": 20_000}]}, "warn_at_ms": [15_000]},
    "bonus before the move": {
        "time_control": {"stages": [{"time_ms": 10_000, "increment_ms": 900}], "first_bonus": "before_move"}
    },
    "units": {
        "time_control": {
            "stages": [{"time_ms": 2000, "periods": 3, "period_ms": 4000}],
            "margin_ms": 100,
            "charge_unit_ms": 1000,
            "min_charge_ms": 1000,
        }
    },
    "odds": {
        "participants": [PEOPLE[0], PEOPLE[1] | {"time_control": {"stages": CANADIAN}}],
        "time_control": {"stages": BYO_YOMI},
    },
    "groups": {
        "sync_mode": "per_group",
        "participants": TEAMS,
        "groups": [{"group_id": "r"}, {"group_id": "b", "time_control": {"stages": STAGES}}],
        "time_control": {"stages": BYO_YOMI},
        "takeback_cycles": 3,
        **WARNS_IN_PERIODS,
    },
    "lag": {
        "time_control": {"stages": BYO_YOMI},
        "lag_compensation": {"per_move_ms": 50, "quota_ms": 300},
    },
}


def begin_game(store: SessionStore, clock: ManualClock, game: dict[str, Any]) -> Session:
    """Play until the first side has thought for 3.7 s in its second turn: most are in a period, or in a later stage."""
    store.create(CreateSession.parse({"session_id": ID, "sync_mode": "per_participant", "participants": PEOPLE} | game))
    store.start(ID)
    clock.advance_ms(1500)
    store.switch(ID, Claim(lag_limit_ms=200), spent_ms=1400)
    clock.advance_ms(800)
    store.switch(ID)
    clock.advance_ms(3700)
    store.update(ID, {"round": 1})
    return store.get(ID).found


def clocks(session: Session) -> tuple[Any, ...]:
    return (
        *(session.participants, session.groups, session.clocks, session.turn, session.cycle_count),
        session.definition.to_json(),
    )


def as_charged(store: SessionStore, session: Session) -> tuple[Any, ...]:
    """Return the clocks once the time up to the last commit is charged."""
    if session.status != "running":
        return clocks(session)
    return clocks(store.pause(ID).found)


def verified(log: AuditServices) -> bool:
    log.store()
    return list(verify(log.url, VerifyResult(), ID)) == []


@pytest.mark.parametrize("rule_name", RULES)
@pytest.mark.parametrize("name", GAMES)
def test_a_game_goes_on_as_if_it_had_not_been_lost(
    store: SessionStore, clock: ManualClock, log: AuditServices, redis: redis_py.Redis, name: str, rule_name: str
) -> None:
    def played_on(start_ms: int) -> list[Any]:
        """Play on; return the events, with instants from a start."""
        known = len(outbox_messages(redis, ID))
        if store.get(ID).found.status == "paused":
            store.resume(ID)
        for ran_ms in (600, 700, 2100, 400, 3500, 30_000):
            clock.advance_ms(ran_ms)
            if store.get(ID).found.status != "running":
                break
            store.switch(ID)
        events = [message["event"] for message in outbox_messages(redis, ID)[known:]]
        return [event | {"at_ms": event["at_ms"] - start_ms} for event in events if event["type"] != "session_resumed"]

    before = begin_game(store, clock, GAMES[name])
    log.store()
    lose_session(redis)
    clock.advance_ms(0 if rule_name == "run" else 7000)
    lost_ms = clock.now_ms
    assert log.recoveries[rule_name].recover(ID) is Outcome.RESTORED
    restored = store.get(ID).found
    assert restored.status == ("paused" if rule_name == "freeze" else "running")
    if rule_name == "run":
        assert clocks(restored) == clocks(before)
    found = clocks(restored), played_on(lost_ms)
    assert verified(log)
    # The same game without a loss; by the other rules than run, the time until then is charged, and a new run begins.
    store.delete(ID)
    clock.advance_ms(1)
    before = begin_game(store, clock, GAMES[name])
    if rule_name != "run":
        store.pause(ID)
        store.resume(ID)
    expected = clocks(store.get(ID).found), played_on(clock.now_ms)
    assert found == expected


@pytest.mark.parametrize("rule_name", RULES)
def test_what_was_due_while_a_session_was_lost_happens_at_its_own_instant(
    store: SessionStore, clock: ManualClock, log: AuditServices, redis: redis_py.Redis, rule_name: str
) -> None:
    begin_game(store, clock, GAMES["byo-yomi with warnings"])
    log.store()
    lose_session(redis)
    clock.advance_ms(60_000)
    log.recoveries[rule_name].recover(ID)
    found = store.get(ID).found
    told = [(message["event"]["type"], message["event"].get("threshold_ms")) for message in outbox_messages(redis, ID)]
    first = ("session_restored", None)
    if rule_name == "run":
        # White had 500 ms of main time, and is 3.2 s into a period of 4 s.
        period = [("period_lost", None), ("time_warning", 3000), ("time_warning", 1500), ("time_warning", 500)]
        assert told == [first, ("time_warning", 500), *period, *period, ("participant_expired", None)]
        assert found.session_completed_ms == found.updated_ms == clock.now_ms - 60_000 - 3700 + 500 + 12_000
    else:
        assert told == [first]
        assert (found.clocks[0].period_ms, found.clocks[0].count) == (800, 3)
    assert verified(log)


@pytest.mark.parametrize("rule_name", RULES)
def test_no_cycle_before_a_restore_is_taken_back(
    store: SessionStore, clock: ManualClock, log: AuditServices, redis: redis_py.Redis, rule_name: str
) -> None:
    begin_game(store, clock, GAMES["canadian"])
    log.store()
    lose_session(redis)
    log.recoveries[rule_name].recover(ID)
    if rule_name == "freeze":
        store.resume(ID)
    for _ in range(2):
        with pytest.raises(ValidationFailed):
            store.takeback(ID, cycles=1)
        store.switch(ID)
    assert store.takeback(ID, cycles=1).found.cycle_count == 3
    assert verified(log)


@pytest.mark.parametrize("rule_name", RULES)
@pytest.mark.parametrize("name", ["byo-yomi with warnings", "groups", "hourglass", "none"])
def test_a_takeback_and_a_reopening_are_restored_as_they_were(
    store: SessionStore, clock: ManualClock, log: AuditServices, redis: redis_py.Redis, name: str, rule_name: str
) -> None:
    plain = {"participants": [person | {"total_time_ms": 20_000} for person in PEOPLE], "warn_at_ms": [19_000, 10_000]}
    begin_game(store, clock, (plain if name == "none" else GAMES[name]) | {"takeback_cycles": 5})
    for command, more in (("takeback", {"cycles": 2}), ("switch", {}), ("complete", {"result": 1}), ("reopen", {})):
        clock.advance_ms(100)
        before = getattr(store, command)(ID, **more).found
        log.store()
        lose_session(redis)
        assert log.recoveries[rule_name].recover(ID) is Outcome.RESTORED
        found = store.get(ID).found
        assert clocks(found) == clocks(before)
        assert (found.completion, found.session_completed_ms) == (before.completion, before.session_completed_ms)
        if found.status == "paused" and command in ("takeback", "switch"):
            store.resume(ID)
        if command == "switch":
            assert found.cycle_count == 1
    assert store.resume(ID).found.status == "running"
    assert verified(log)


@pytest.mark.parametrize("at_version", [100, 101, 130])
@pytest.mark.parametrize("name", ["byo-yomi with warnings", "canadian with warnings", "groups", "odds", "lag"])
def test_a_long_game_is_restored_from_a_snapshot_in_its_middle(
    store: SessionStore, clock: ManualClock, log: AuditServices, redis: redis_py.Redis, name: str, at_version: int
) -> None:
    version = begin_game(store, clock, GAMES[name]).version
    while version < at_version:
        clock.advance_ms(137)
        version = store.switch(ID).found.version
        assert store.get(ID).found.status == "running"
    before = store.get(ID).found
    log.store()
    lose_session(redis)
    assert log.recoveries["run"].recover(ID) is Outcome.RESTORED
    assert clocks(store.get(ID).found) == clocks(before)
    clock.advance_ms(137)
    assert store.switch(ID).found.cycle_count == before.cycle_count + 1
    assert verified(log)


@pytest.mark.parametrize("rule_name", RULES)
@pytest.mark.parametrize(
    ("adjustment", "instants"),
    [
        ({"op": "add", "ms": 1}, []),
        ({"op": "set", "ms": 2500}, [1500, 500]),
        ({"op": "set", "ms": 4000, "targets": "all"}, [3000, 1500, 500]),
        ({"period_remaining_ms": 2000}, [1500, 500]),
        ({"op": "add", "ms": 4000, "targets": ["black"]}, [500]),
    ],
)
def test_warnings_after_an_adjustment_come_once_after_a_restore(
    store: SessionStore,
    clock: ManualClock,
    log: AuditServices,
    redis: redis_py.Redis,
    adjustment: dict[str, Any],
    instants: list[int],
    rule_name: str,
) -> None:
    begin_game(store, clock, GAMES["byo-yomi with warnings"])  # white has 800 ms of its first period
    store.adjust(ID, **adjustment)
    log.store()
    lose_session(redis)
    log.recoveries[rule_name].recover(ID)
    if rule_name == "freeze":
        store.resume(ID)
    found = store.get(ID).found
    clock.advance_ms((found.clock(clock.now_ms)["next_at_ms"] or 0) - clock.now_ms)
    store.get(ID)
    events = [message["event"] for message in outbox_messages(redis, ID)]
    assert [event["threshold_ms"] for event in events if event["type"] == "time_warning"] == instants
    assert verified(log)


class ControlReplayMachine(ReplayMachine, ArbiterMachine):
    """Random games with time controls and an arbiter, lost and restored in between."""

    @rule(move=steps, clock=st.sampled_from(["run", "run", "run", "freeze", "credit"]), twice=st.booleans())
    def lose(self, move: tuple[str, int], clock: str, twice: bool) -> None:
        super().lose(move, clock, twice)


@pytest.mark.timeout(300 + 6 * REPLAY_EXAMPLES)
@pytest.mark.parametrize("mode", ["per_participant", "per_group"])
def test_the_log_tells_what_was_and_brings_clocks_back_as_they_were(
    log: AuditServices, redis: redis_py.Redis, redis_url: str, mode: str
) -> None:
    stores = [make_store(redis_url, max_unattended_cycles=MAX_UNATTENDED) for _ in range(2)]
    run_state_machine_as_test(
        lambda: ControlReplayMachine(log, redis, stores, redis_url, mode),  # type: ignore[arg-type]  # anything that makes one
        settings=machine_settings(REPLAY_EXAMPLES, REPLAY_STEPS),
    )

"""The clock of a restored session: budgets, due events, warnings, idle time and turns."""

from __future__ import annotations

from typing import Any

import pytest
import redis as redis_py

from syncapp.audit.verify import VerifyResult, verify
from syncapp.domain.schemas import CreateSession
from syncapp.domain.session_layout import SCALARS, values_of
from syncapp.errors import ValidationFailed
from syncapp.history.query_params import AtQuery
from syncapp.history.recovery import Outcome, Recovery
from syncapp.store.sessions import SessionStore
from tests.support.audit_log import AuditServices
from tests.support.clock_machine import MAX_UNATTENDED
from tests.support.lost_sessions import ID, dump_hash, lose_session, restore_hash, start_game
from tests.support.outboxes import KEYS
from tests.support.store import NOON_MS, ManualClock, chess_request, crowd_request, make_store, outbox_messages


@pytest.mark.parametrize(
    ("rule", "status", "white_ms", "at_ms"),
    [("run", "running", 48_000 - 30_000, 17_000), ("freeze", "paused", 48_000, 47_000),
     ("credit", "running", 48_000, 47_000)],
)  # fmt: skip
def test_the_clock_of_a_lost_session_goes_by_the_rule(
    store: SessionStore,
    clock: ManualClock,
    log: AuditServices,
    redis: redis_py.Redis,
    rule: str,
    status: str,
    white_ms: int,
    at_ms: int,
) -> None:
    start_game(store, clock)
    before = store.get(ID).found
    log.store()
    lose_session(redis)
    clock.advance_ms(30_000)
    assert log.recoveries[rule].recover(ID) is Outcome.RESTORED
    found = store.get(ID)
    assert found.found.epoch == clock.now_ms > before.epoch
    assert (found.found.version, found.found.status) == (1, status)
    shown = found.found.clock(clock.now_ms)
    assert (shown["remaining_ms"], shown["running"]) == (white_ms, status == "running")
    assert found.found.created_ms == before.created_ms
    assert found.found.metadata == {"round": 1}
    (message,) = outbox_messages(redis, ID)
    assert message["event"] == {
        "type": "session_restored", "at_ms": NOON_MS + at_ms, "participant_id": "white", "remaining_ms": 48_000,
        "reason": rule,
    }  # fmt: skip
    assert message["elapsed_ms"] == (None if rule == "run" else 2000)
    assert store.switch(ID).found.version >= 2 if status == "running" else store.resume(ID).found.version == 2


def test_what_was_due_meanwhile_happens_at_its_own_instant(
    store: SessionStore, clock: ManualClock, log: AuditServices, recovery: Recovery, redis: redis_py.Redis
) -> None:
    start_game(store, clock, warn_at_ms=[10_000])
    log.store()
    lose_session(redis)
    clock.advance_ms(1_000_000)
    assert recovery.recover(ID) is Outcome.RESTORED
    told = [(message["event"]["type"], message["event"]["at_ms"] - NOON_MS) for message in outbox_messages(redis, ID)]
    assert told == [("session_restored", 17_000), ("time_warning", 55_000), ("participant_expired", 65_000)]
    assert store.get(ID).found.session_completed_ms == NOON_MS + 65_000
    # For the time in between, the log shows what the clock did, although the session was lost.
    log.store()

    def at(ms: int) -> Any:
        return log.history.state_at(ID, AtQuery(time=NOON_MS + ms)).document()

    assert [at(ms)["status"] for ms in (16_999, 17_000, 64_999, 65_000, 1_017_000)] == [
        *["running"] * 3,
        *["expired"] * 2,
    ]
    assert [at(ms)["epoch"] for ms in (17_000, 65_000)] == [NOON_MS, clock.now_ms]
    assert at(64_999)["clock"]["remaining_ms"] == 1


@pytest.mark.parametrize(
    ("whose", "mode", "again"),
    [("white", "per_participant", True), ("black", "per_participant", False), (None, "global", True)],
)
def test_a_warning_that_an_adjustment_lets_come_again_comes_after_a_restore_too(
    store: SessionStore,
    clock: ManualClock,
    log: AuditServices,
    recovery: Recovery,
    redis: redis_py.Redis,
    whose: str | None,
    mode: str,
    again: bool,
) -> None:
    if mode == "global":
        body = {"sync_mode": mode, "total_time_ms": 60_000, "session_id": ID, "warn_at_ms": [10_000]}
        store.create(CreateSession.parse(body))
    else:
        store.create(chess_request(60_000, session_id=ID, warn_at_ms=[10_000]))
    store.start(ID)
    clock.advance_ms(55_000)
    store.adjust(ID, op="add", ms=9000, participant_id=whose)
    log.store()
    lose_session(redis)
    assert recovery.recover(ID) is Outcome.RESTORED
    clock.advance_ms(60_000)
    store.get(ID)
    warned = [
        message["event"]["at_ms"] - NOON_MS
        for message in outbox_messages(redis, ID)
        if "threshold_ms" in message["event"]
    ]
    assert warned == ([59_000] if again else [])


@pytest.mark.parametrize(("rule", "idle_ms"), [("run", 86_412_000), ("freeze", 86_400_000), ("credit", 86_448_000)])
def test_a_restored_session_is_idle_when_nobody_has_come_for_so_long(
    store: SessionStore, clock: ManualClock, log: AuditServices, redis: redis_py.Redis, rule: str, idle_ms: int
) -> None:
    start_game(store, clock)
    log.store()
    lose_session(redis)
    clock.advance_ms(36_000)
    log.recoveries[rule].recover(ID)
    known = redis.hget(KEYS.session(ID), "scalars")
    assert int(values_of([known.decode()])[SCALARS.index("idle_ms")]) == clock.now_ms + idle_ms  # type: ignore[union-attr]  # bytes


@pytest.mark.parametrize("rule", ["run", "freeze", "credit"])
def test_nobody_could_come_to_a_lost_session_so_its_idle_time_begins_anew(
    store: SessionStore, clock: ManualClock, log: AuditServices, redis: redis_py.Redis, rule: str
) -> None:
    people = [{"participant_id": "a", "total_time_ms": 10_000}]
    new = {"session_id": ID, "sync_mode": "per_participant", "participants": people, "idle_timeout_s": 60}
    store.create(CreateSession.parse(new | {"action_on_timeout": {"type": "notify"}}))
    store.start(ID)
    log.store()
    lose_session(redis)
    clock.advance_ms(500_000)  # by `run`, overtime began while it was lost
    log.recoveries[rule].recover(ID)
    assert store.get(ID).found.idle_ms == (None if rule == "credit" else clock.now_ms + 60_000)
    store.get(ID)
    clock.advance_ms(59_999)
    assert store.get(ID).found.status == {"freeze": "paused"}.get(rule, "running")
    log.store()
    assert list(verify(log.url, VerifyResult(), ID)) == []


@pytest.mark.parametrize(("rule", "cycles"), [("run", MAX_UNATTENDED), ("credit", 2 * MAX_UNATTENDED - 2)])
def test_the_count_of_unattended_cycles_goes_on_by_run_and_begins_anew_by_credit(
    redis_url: str, clock: ManualClock, log: AuditServices, redis: redis_py.Redis, rule: str, cycles: int
) -> None:
    store = make_store(redis_url, max_unattended_cycles=MAX_UNATTENDED)
    new = {"session_id": ID, "sync_mode": "per_cycle", "time_per_cycle_ms": 1000}
    store.create(CreateSession.parse(new))
    store.start(ID)
    clock.advance_ms(1000 * (MAX_UNATTENDED - 2))
    store.get(ID)
    log.store()
    lose_session(redis)
    clock.advance_ms(2_000_000)
    log.recoveries[rule].recover(ID)
    clock.advance_ms(60_000)
    found = store.get(ID).found
    assert (found.status, found.cycle_count) == ("paused", cycles)
    log.store()
    assert list(verify(log.url, VerifyResult(), ID)) == []


def test_groups_come_back_with_whose_turn_is_next_in_each(
    store: SessionStore, clock: ManualClock, log: AuditServices, recovery: Recovery, redis: redis_py.Redis
) -> None:
    people = [
        {"participant_id": name, "group_id": name[0], "total_time_ms": 60_000} for name in ("r1", "b1", "r2", "b2")
    ]
    store.create(CreateSession.parse({"session_id": ID, "sync_mode": "per_group", "participants": people}))
    store.start(ID)
    for _ in range(2):
        clock.advance_ms(1000)
        store.switch(ID)
    before = store.get(ID).found
    log.store()
    lose_session(redis)
    assert recovery.recover(ID) is Outcome.RESTORED
    found = store.get(ID).found
    assert (found.groups, found.active_participant_id) == (before.groups, "r2")
    assert [store.switch(ID).found.active_participant_id for _ in range(3)] == ["b2", "r1", "b1"]


def test_a_stale_session_of_another_roster_leaves_nothing_behind(
    store: SessionStore, clock: ManualClock, log: AuditServices, recovery: Recovery, redis: redis_py.Redis
) -> None:
    store.create(crowd_request(3, session_id=ID))
    file = dump_hash(redis)
    store.delete(ID)
    clock.advance_ms(1)
    start_game(store, clock)
    log.store()
    restore_hash(redis, file)
    assert recovery.recover(ID) is Outcome.REPLACED
    with pytest.raises(ValidationFailed):
        store.switch(ID, participant_id="p2")
    names = [name.decode() for name in redis.hkeys(KEYS.session(ID))]  # type: ignore[union-attr]  # bytes
    assert sorted(name for name in names if name.startswith("index:")) == ["index:black", "index:white"]

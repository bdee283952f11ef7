"""A session that Redis lost comes back from the audit log, once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha1

import pytest
import redis as redis_py

from syncapp import create_app
from syncapp.audit.outbox import Outbox
from syncapp.domain.results import Claim
from syncapp.errors import AuditIncomplete, Conflict, SessionExists, SessionNotFound
from syncapp.history.recovery import Outcome, Recovery
from syncapp.store.sessions import SessionStore
from tests.support.audit_log import AuditServices, query_rows
from tests.support.lost_sessions import ID, dump_hash, lose_session, restore_hash, start_game
from tests.support.outboxes import KEYS
from tests.support.rest import UNKNOWN
from tests.support.store import (
    NOON_MS,
    ManualClock,
    chess_request,
    crowd_request,
    make_settings,
    make_store,
    outbox_messages,
)
from tests.support.types import Db


def test_an_epoch_is_later_though_the_clock_was_set_back(
    store: SessionStore, clock: ManualClock, log: AuditServices, recovery: Recovery, redis: redis_py.Redis
) -> None:
    start_game(store, clock)
    log.store()
    lose_session(redis)
    clock.set(NOON_MS - 60_000)
    assert recovery.recover(ID) is Outcome.RESTORED
    found = store.get(ID)
    assert (found.found.epoch, found.found.version) == (NOON_MS + 1, 1)
    assert found.now_ms == found.found.updated_ms == NOON_MS + 17_000


def test_the_chain_of_messages_goes_on_over_a_restore(
    store: SessionStore, clock: ManualClock, log: AuditServices, recovery: Recovery, redis: redis_py.Redis, db: Db
) -> None:
    start_game(store, clock)
    log.store()
    lose_session(redis)
    recovery.recover(ID)
    store.switch(ID)
    log.store()
    found = query_rows(db, "SELECT message ->> 'previous', message::text FROM sync_events ORDER BY epoch, version")
    assert [previous for previous, _ in found[1:]] == [sha1(text.encode()).hexdigest() for _, text in found[:-1]]


def test_of_many_recoverers_one_wins(
    store: SessionStore, clock: ManualClock, log: AuditServices, recovery: Recovery, redis: redis_py.Redis
) -> None:
    start_game(store, clock)
    log.store()
    lose_session(redis)
    barrier = threading.Barrier(8)

    def recover(_: int) -> Outcome:
        barrier.wait(60)
        return recovery.recover(ID)

    with ThreadPoolExecutor(8) as threads:
        outcomes = sorted(threads.map(recover, range(8)))
    # A request that came while the event was on its way did not look further.
    assert outcomes.count(Outcome.RESTORED) == 1
    assert set(outcomes) <= {Outcome.RESTORED, Outcome.CURRENT}
    assert [message["event"]["type"] for message in outbox_messages(redis, ID)] == ["session_restored"]


def test_a_restore_by_another_while_one_looks_is_not_taken_for_events_to_wait_for(
    store: SessionStore,
    clock: ManualClock,
    log: AuditServices,
    recovery: Recovery,
    redis: redis_py.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start_game(store, clock)
    log.store()
    lose_session(redis)
    awaits, outcomes = Outbox.has_undrained, []

    def another_is_first(outbox: Outbox, session_id: str) -> bool:
        monkeypatch.setattr(Outbox, "has_undrained", awaits)
        outcomes.append(recovery.recover(session_id))
        return awaits(outbox, session_id)

    monkeypatch.setattr(Outbox, "has_undrained", another_is_first)
    outcomes.append(recovery.recover(ID))
    assert outcomes == [Outcome.RESTORED, Outcome.CURRENT]
    assert [message["event"]["type"] for message in outbox_messages(redis, ID)] == ["session_restored"]


def test_a_restore_of_a_session_that_is_there_changes_nothing(
    store: SessionStore, clock: ManualClock, log: AuditServices, redis: redis_py.Redis
) -> None:
    start_game(store, clock)
    log.store()
    known = log.history.restore_point(ID)
    assert known
    before = dump_hash(redis)
    with pytest.raises(SessionExists):
        store.restore(known, "run")
    with pytest.raises(Conflict):
        store.restore(known, "run", instead_of=(NOON_MS, 3))
    with pytest.raises(Conflict):
        store.renew(ID, (NOON_MS, 3), NOON_MS)
    assert dump_hash(redis) == before
    lose_session(redis)
    with pytest.raises(SessionNotFound):
        store.restore(known, "run", instead_of=known.order)
    with pytest.raises(SessionNotFound):
        store.renew(ID, known.order, NOON_MS)
    assert outbox_messages(redis, ID) == []


def test_a_retry_of_a_command_before_the_loss_is_a_replay_in_the_restored_session(
    store: SessionStore,
    clock: ManualClock,
    log: AuditServices,
    recovery: Recovery,
    redis: redis_py.Redis,
    redis_url: str,
) -> None:
    start_game(store, clock)
    first = store.switch(ID, Claim(idempotency_key="move-17"))
    log.store()
    lose_session(redis)
    clock.advance_ms(100)
    assert recovery.recover(ID) is Outcome.RESTORED
    for other in (store, make_store(redis_url)):
        again = other.switch(ID, Claim(idempotency_key="move-17"))
        assert (again.replayed, again.event, again.order) == (True, first.event, first.found.order)
        assert (again.found, again.found.version) == (other.get(ID).found, 1)
    log.store()
    lose_session(redis)
    store.create(chess_request(session_id=ID))  # another session, without a first result of this command
    with pytest.raises(SessionNotFound):
        store.switch(ID, Claim(idempotency_key="move-17"))


def test_what_ended_or_was_deleted_does_not_come_back(
    store: SessionStore, clock: ManualClock, log: AuditServices, recovery: Recovery, redis: redis_py.Redis, db: Db
) -> None:
    start_game(store, clock)
    store.complete(ID)
    log.store()
    lose_session(redis)
    recovery._store.time_ms = lambda: clock.now_ms + 3_600_000  # type: ignore[method-assign]  # the test's clock
    assert recovery.recover(ID) is Outcome.ENDED
    recovery._store.time_ms = lambda: clock.now_ms + 3_599_999  # type: ignore[method-assign]  # the test's clock
    assert recovery.recover(ID) is Outcome.RESTORED
    assert store.get(ID).found.status == "completed"
    assert redis.zscore(KEYS.deadlines(KEYS.bucket(ID)), ID) is None
    assert redis.pexpiretime(KEYS.session(ID)) == clock.now_ms + 3_600_000
    store.delete(ID)
    log.store()
    assert recovery.recover(ID) is Outcome.GONE
    lose_session(redis)
    assert recovery.recover(ID) is Outcome.GONE
    assert recovery.recover(UNKNOWN) is Outcome.UNKNOWN


def test_a_session_deleted_while_its_log_was_read_stays_deleted(
    store: SessionStore, clock: ManualClock, log: AuditServices, redis: redis_py.Redis
) -> None:
    start_game(store, clock)
    log.store()
    known = log.history.restore_point(ID)
    assert known
    store.delete(ID)
    with pytest.raises(SessionNotFound):
        store.restore(known, "run")


def test_events_on_their_way_are_waited_for(
    store: SessionStore, clock: ManualClock, log: AuditServices, recovery: Recovery, redis: redis_py.Redis
) -> None:
    start_game(store, clock)
    log.store()
    clock.advance_ms(10)
    store.switch(ID)
    lose_session(redis)
    with pytest.raises(AuditIncomplete):
        recovery.recover(ID)
    log.store()
    assert recovery.recover(ID) is Outcome.RESTORED
    assert store.get(ID).found.cycle_count == 3


def test_a_log_with_a_gap_brings_nothing_back(
    store: SessionStore, clock: ManualClock, log: AuditServices, recovery: Recovery, redis: redis_py.Redis, db: Db
) -> None:
    start_game(store, clock)
    log.store()
    lose_session(redis)
    query_rows(db, "SET syncapp.allow_changes = on; DELETE FROM sync_events WHERE version = 3; SELECT 1")
    with pytest.raises(AuditIncomplete):
        recovery.recover(ID)


def test_a_session_of_many_participants_comes_back_whole(
    store: SessionStore,
    clock: ManualClock,
    log: AuditServices,
    recovery: Recovery,
    redis: redis_py.Redis,
    redis_url: str,
) -> None:
    store.create(crowd_request(1000, session_id=ID))
    store.start(ID, participant_id="p500")
    clock.advance_ms(1000)
    store.switch(ID)
    before = store.get(ID).found
    log.store()
    lose_session(redis)
    assert recovery.recover(ID) is Outcome.RESTORED
    assert make_store(redis_url).get(ID).found.participants == before.participants
    assert store.switch(ID).found.active_participant_id == "p502"


def test_everything_is_what_the_log_or_redis_takes_for_live(
    store: SessionStore, clock: ManualClock, log: AuditServices, recovery: Recovery, redis: redis_py.Redis
) -> None:
    ids = [store.create(chess_request()).found.session_id for _ in range(4)]
    log.store()
    store.cancel(ids[1])
    store.delete(ids[2])
    log.store()
    lose_session(redis, ids[0])
    redis_only = store.create(chess_request()).found.session_id
    recovery._store.time_ms = lambda: clock.now_ms + 7_200_000  # type: ignore[method-assign]  # the test's clock
    assert sorted(recovery.all_session_ids()) == sorted([ids[0], ids[3], redis_only])
    recovery._store.time_ms = lambda: clock.now_ms  # type: ignore[method-assign]  # the test's clock
    assert sorted(recovery.all_session_ids()) == sorted([*ids[:2], ids[3], redis_only])


# The command of operators.


def test_the_command_drains_brings_back_and_tells(
    redis_url: str, database_url: str, db: Db, redis: redis_py.Redis
) -> None:
    store = make_store(redis_url, set_clock=False)
    lost, rolled, fine = (store.create(chess_request()).found.session_id for _ in range(3))
    for each in (lost, rolled, fine):
        store.start(each)
    file = dump_hash(redis, rolled)
    store.switch(rolled)
    lose_session(redis, lost)
    runner = create_app(make_settings(redis_url, database_url=database_url)).test_cli_runner()

    def run(*args: str) -> tuple[int, list[str]]:
        found = runner.invoke(args=["sessions", "recover", *args])
        return found.exit_code, [line for line in found.output.splitlines() if "warning" not in line]

    assert run(lost) == (0, [f"{lost} restored", "1 restored"])
    restore_hash(redis, file, rolled)
    code, lines = run("--all", "--clock", "freeze")
    assert (code, lines) == (0, [f"{rolled} replaced", "2 current, 1 replaced"])
    assert store.get(rolled).found.status == "paused"
    assert run(UNKNOWN) == (0, [f"{UNKNOWN} unknown", "1 unknown"])
    assert run()[0] == run("not-a-uuid")[0] == run("--all", lost)[0] == 2
    away = create_app(make_settings(redis_url, database_url="postgresql://127.0.0.1:1/x")).test_cli_runner()
    assert "run it again" in away.invoke(args=["sessions", "recover", "--all"]).output

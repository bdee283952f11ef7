"""What Redis lost comes back from the log, once, and nothing goes on in two ways without being told."""

from __future__ import annotations

import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from hashlib import sha1
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import redis as redis_py
import requests
from flask.testing import FlaskClient

from syncapp import create_app
from syncapp.audit.outbox import Outbox
from syncapp.audit.verify import VerifyResult, verify
from syncapp.dev.servers import Valkey
from syncapp.domain.results import Claim
from syncapp.domain.schemas import CreateSession
from syncapp.domain.session_layout import SCALARS, values_of
from syncapp.errors import (
    AuditIncomplete,
    AuditUnavailable,
    Conflict,
    SessionExists,
    SessionNotFound,
    ValidationFailed,
)
from syncapp.history.query_params import AtQuery
from syncapp.history.recovery import MissLimiter, Outcome, Recovery
from syncapp.metrics import RECOVERIES
from syncapp.store.sessions import SessionStore
from tests.api.test_api import CHESS, UNKNOWN, error
from tests.audit.test_log import KEYS, rows
from tests.conftest import MakeCluster
from tests.history.test_replay import Log
from tests.lua.test_model import MOST_UNATTENDED
from tests.support.raw_websocket import Raw
from tests.support.store import NOON_MS, PARTIALS, SetClock, chess, crowd, make_store, messages, settings
from tests.support.web_clients import eventually

Db = psycopg2.extensions.connection
ID = "3e1f8e1a-3f44-4c55-9d0b-0f6f2b8f5a10"


@pytest.fixture
def clock(redis: redis_py.Redis) -> SetClock:
    return SetClock(redis)


@pytest.fixture
def store(clock: SetClock, redis_url: str) -> SessionStore:
    return make_store(redis_url)


@pytest.fixture
def log(database_url: str, db: Db, redis: redis_py.Redis, redis_url: str) -> Iterator[Log]:
    made = Log(database_url, redis, redis_url)
    yield made
    made.database.close()
    made.pool.close()


@pytest.fixture
def recovery(log: Log) -> Recovery:
    return log.recoveries["run"]


def lose(client: redis_py.Redis, session_id: str = ID) -> None:
    client.delete(KEYS.session(session_id))
    client.zrem(KEYS.deadlines(KEYS.bucket(session_id)), session_id)


def dumped(client: redis_py.Redis, session_id: str = ID) -> bytes:
    """A session's hash as it would be in a file: to be put back later."""
    found: Any = client.dump(KEYS.session(session_id))
    return bytes(found)


def roll_back(client: redis_py.Redis, file: bytes, session_id: str = ID) -> None:
    client.restore(KEYS.session(session_id), 0, file, replace=True)


def playing(store: SessionStore, clock: SetClock, **more: Any) -> None:
    """White has 50 s left and is at it for 2 s."""
    store.create(chess(60_000, session_id=ID, increment_ms=0, **more))
    store.start(ID)
    clock.pass_ms(10_000)
    store.switch(ID)
    clock.pass_ms(5_000)
    store.switch(ID)
    clock.pass_ms(2_000)
    store.update(ID, {"round": 1})


@pytest.mark.parametrize(
    ("rule", "status", "white_ms", "at_ms"),
    [("run", "running", 48_000 - 30_000, 17_000), ("freeze", "paused", 48_000, 47_000),
     ("credit", "running", 48_000, 47_000)],
)  # fmt: skip
def test_the_clock_of_a_lost_session_goes_by_the_rule(
    store: SessionStore,
    clock: SetClock,
    log: Log,
    redis: redis_py.Redis,
    rule: str,
    status: str,
    white_ms: int,
    at_ms: int,
) -> None:
    playing(store, clock)
    before = store.get(ID).found
    log.store()
    lose(redis)
    clock.pass_ms(30_000)
    assert log.recoveries[rule].recover(ID) is Outcome.RESTORED
    found = store.get(ID)
    assert found.found.epoch == clock.now_ms > before.epoch
    assert (found.found.version, found.found.status) == (1, status)
    shown = found.found.clock(clock.now_ms)
    assert (shown["remaining_ms"], shown["running"]) == (white_ms, status == "running")
    assert found.found.created_ms == before.created_ms
    assert found.found.metadata == {"round": 1}
    (message,) = messages(redis, ID)
    assert message["event"] == {
        "type": "session_restored", "at_ms": NOON_MS + at_ms, "participant_id": "white", "remaining_ms": 48_000,
        "reason": rule,
    }  # fmt: skip
    assert message["elapsed_ms"] == (None if rule == "run" else 2000)
    assert store.switch(ID).found.version >= 2 if status == "running" else store.resume(ID).found.version == 2


def test_what_was_due_meanwhile_happens_at_its_own_instant(
    store: SessionStore, clock: SetClock, log: Log, recovery: Recovery, redis: redis_py.Redis
) -> None:
    playing(store, clock, warn_at_ms=[10_000])
    log.store()
    lose(redis)
    clock.pass_ms(1_000_000)
    assert recovery.recover(ID) is Outcome.RESTORED
    told = [(message["event"]["type"], message["event"]["at_ms"] - NOON_MS) for message in messages(redis, ID)]
    assert told == [("session_restored", 17_000), ("time_warning", 55_000), ("participant_expired", 65_000)]
    assert store.get(ID).found.session_completed_ms == NOON_MS + 65_000
    # Asked for the time between, the log tells what the clock did, not that nobody was there to see it.
    log.store()

    def at(ms: int) -> Any:
        return log.history.at(ID, AtQuery(time=NOON_MS + ms)).document()

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
    clock: SetClock,
    log: Log,
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
        store.create(chess(60_000, session_id=ID, warn_at_ms=[10_000]))
    store.start(ID)
    clock.pass_ms(55_000)
    store.adjust(ID, op="add", ms=9000, participant_id=whose)
    log.store()
    lose(redis)
    assert recovery.recover(ID) is Outcome.RESTORED
    clock.pass_ms(60_000)
    store.get(ID)
    warned = [
        message["event"]["at_ms"] - NOON_MS for message in messages(redis, ID) if "threshold_ms" in message["event"]
    ]
    assert warned == ([59_000] if again else [])


@pytest.mark.parametrize(("rule", "idle_ms"), [("run", 86_412_000), ("freeze", 86_400_000), ("credit", 86_448_000)])
def test_a_restored_session_is_idle_when_nobody_has_come_for_so_long(
    store: SessionStore, clock: SetClock, log: Log, redis: redis_py.Redis, rule: str, idle_ms: int
) -> None:
    playing(store, clock)
    log.store()
    lose(redis)
    clock.pass_ms(36_000)
    log.recoveries[rule].recover(ID)
    known = redis.hget(KEYS.session(ID), "scalars")
    assert int(values_of([known.decode()])[SCALARS.index("idle_ms")]) == clock.now_ms + idle_ms  # type: ignore[union-attr]


@pytest.mark.parametrize("rule", ["run", "freeze", "credit"])
def test_nobody_could_come_to_a_lost_session_so_its_idle_time_begins_anew(
    store: SessionStore, clock: SetClock, log: Log, redis: redis_py.Redis, rule: str
) -> None:
    people = [{"participant_id": "a", "total_time_ms": 10_000}]
    new = {"session_id": ID, "sync_mode": "per_participant", "participants": people, "idle_timeout_s": 60}
    store.create(CreateSession.parse(new | {"action_on_timeout": {"type": "notify"}}))
    store.start(ID)
    log.store()
    lose(redis)
    clock.pass_ms(500_000)  # by `run`, overtime began while it was away
    log.recoveries[rule].recover(ID)
    assert store.get(ID).found.idle_ms == (None if rule == "credit" else clock.now_ms + 60_000)
    store.get(ID)
    clock.pass_ms(59_999)
    assert store.get(ID).found.status == {"freeze": "paused"}.get(rule, "running")
    log.store()
    assert list(verify(log.url, VerifyResult(), ID)) == []


@pytest.mark.parametrize(("rule", "cycles"), [("run", MOST_UNATTENDED), ("credit", 2 * MOST_UNATTENDED - 2)])
def test_the_count_of_unattended_cycles_goes_on_by_run_and_begins_anew_by_credit(
    redis_url: str, clock: SetClock, log: Log, redis: redis_py.Redis, rule: str, cycles: int
) -> None:
    store = make_store(redis_url, max_unattended_cycles=MOST_UNATTENDED)
    new = {"session_id": ID, "sync_mode": "per_cycle", "time_per_cycle_ms": 1000}
    store.create(CreateSession.parse(new))
    store.start(ID)
    clock.pass_ms(1000 * (MOST_UNATTENDED - 2))
    store.get(ID)
    log.store()
    lose(redis)
    clock.pass_ms(2_000_000)
    log.recoveries[rule].recover(ID)
    clock.pass_ms(60_000)
    found = store.get(ID).found
    assert (found.status, found.cycle_count) == ("paused", cycles)
    log.store()
    assert list(verify(log.url, VerifyResult(), ID)) == []


def test_groups_come_back_with_whose_turn_is_next_in_each(
    store: SessionStore, clock: SetClock, log: Log, recovery: Recovery, redis: redis_py.Redis
) -> None:
    people = [
        {"participant_id": name, "group_id": name[0], "total_time_ms": 60_000} for name in ("r1", "b1", "r2", "b2")
    ]
    store.create(CreateSession.parse({"session_id": ID, "sync_mode": "per_group", "participants": people}))
    store.start(ID)
    for _ in range(2):
        clock.pass_ms(1000)
        store.switch(ID)
    before = store.get(ID).found
    log.store()
    lose(redis)
    assert recovery.recover(ID) is Outcome.RESTORED
    found = store.get(ID).found
    assert (found.groups, found.active_participant_id) == (before.groups, "r2")
    assert [store.switch(ID).found.active_participant_id for _ in range(3)] == ["b2", "r1", "b1"]


def test_a_stale_session_of_another_roster_leaves_nothing_behind(
    store: SessionStore, clock: SetClock, log: Log, recovery: Recovery, redis: redis_py.Redis
) -> None:
    store.create(crowd(3, session_id=ID))
    file = dumped(redis)
    store.delete(ID)
    clock.pass_ms(1)
    playing(store, clock)
    log.store()
    roll_back(redis, file)
    assert recovery.recover(ID) is Outcome.REPLACED
    with pytest.raises(ValidationFailed):
        store.switch(ID, participant_id="p2")
    names = [name.decode() for name in redis.hkeys(KEYS.session(ID))]  # type: ignore[union-attr]
    assert sorted(name for name in names if name.startswith("index:")) == ["index:black", "index:white"]


def test_an_epoch_is_later_though_the_clock_was_set_back(
    store: SessionStore, clock: SetClock, log: Log, recovery: Recovery, redis: redis_py.Redis
) -> None:
    playing(store, clock)
    log.store()
    lose(redis)
    clock.set(NOON_MS - 60_000)
    assert recovery.recover(ID) is Outcome.RESTORED
    found = store.get(ID)
    assert (found.found.epoch, found.found.version) == (NOON_MS + 1, 1)
    assert found.now_ms == found.found.updated_ms == NOON_MS + 17_000


def test_the_chain_of_messages_goes_on_over_a_restore(
    store: SessionStore, clock: SetClock, log: Log, recovery: Recovery, redis: redis_py.Redis, db: Db
) -> None:
    playing(store, clock)
    log.store()
    lose(redis)
    recovery.recover(ID)
    store.switch(ID)
    log.store()
    found = rows(db, "SELECT message ->> 'previous', message::text FROM sync_events ORDER BY epoch, version")
    assert [previous for previous, _ in found[1:]] == [sha1(text.encode()).hexdigest() for _, text in found[:-1]]


def test_of_many_recoverers_one_wins(
    store: SessionStore, clock: SetClock, log: Log, recovery: Recovery, redis: redis_py.Redis
) -> None:
    playing(store, clock)
    log.store()
    lose(redis)
    barrier = threading.Barrier(8)

    def recover(_: int) -> Outcome:
        barrier.wait(10)
        return recovery.recover(ID)

    with ThreadPoolExecutor(8) as threads:
        outcomes = sorted(threads.map(recover, range(8)))
    # Who came when its event was on its way already did not look further.
    assert outcomes.count(Outcome.RESTORED) == 1
    assert set(outcomes) <= {Outcome.RESTORED, Outcome.CURRENT}
    assert [message["event"]["type"] for message in messages(redis, ID)] == ["session_restored"]


def test_a_restore_by_another_while_one_looks_is_not_taken_for_events_to_wait_for(
    store: SessionStore,
    clock: SetClock,
    log: Log,
    recovery: Recovery,
    redis: redis_py.Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    playing(store, clock)
    log.store()
    lose(redis)
    awaits, outcomes = Outbox.awaits, []

    def another_is_first(outbox: Outbox, session_id: str) -> bool:
        monkeypatch.setattr(Outbox, "awaits", awaits)
        outcomes.append(recovery.recover(session_id))
        return awaits(outbox, session_id)

    monkeypatch.setattr(Outbox, "awaits", another_is_first)
    outcomes.append(recovery.recover(ID))
    assert outcomes == [Outcome.RESTORED, Outcome.CURRENT]
    assert [message["event"]["type"] for message in messages(redis, ID)] == ["session_restored"]


def test_a_restore_of_a_session_that_is_there_changes_nothing(
    store: SessionStore, clock: SetClock, log: Log, redis: redis_py.Redis
) -> None:
    playing(store, clock)
    log.store()
    known = log.history.remains(ID)
    assert known
    before = dumped(redis)
    with pytest.raises(SessionExists):
        store.restore(known, "run")
    with pytest.raises(Conflict):
        store.restore(known, "run", instead_of=(NOON_MS, 3))
    with pytest.raises(Conflict):
        store.renew(ID, (NOON_MS, 3), NOON_MS)
    assert dumped(redis) == before
    lose(redis)
    with pytest.raises(SessionNotFound):
        store.restore(known, "run", instead_of=known.order)
    with pytest.raises(SessionNotFound):
        store.renew(ID, known.order, NOON_MS)
    assert messages(redis, ID) == []


def test_a_retry_of_a_command_before_the_loss_is_a_replay_in_the_restored_session(
    store: SessionStore, clock: SetClock, log: Log, recovery: Recovery, redis: redis_py.Redis, redis_url: str
) -> None:
    playing(store, clock)
    first = store.switch(ID, Claim(idempotency_key="move-17"))
    log.store()
    lose(redis)
    clock.pass_ms(100)
    assert recovery.recover(ID) is Outcome.RESTORED
    for other in (store, make_store(redis_url)):
        again = other.switch(ID, Claim(idempotency_key="move-17"))
        assert (again.replayed, again.event, again.order) == (True, first.event, first.found.order)
        assert (again.found, again.found.version) == (other.get(ID).found, 1)
    log.store()
    lose(redis)
    store.create(chess(session_id=ID))  # another session: there is no first result of this command in it
    with pytest.raises(SessionNotFound):
        store.switch(ID, Claim(idempotency_key="move-17"))


def test_what_ended_or_was_deleted_does_not_come_back(
    store: SessionStore, clock: SetClock, log: Log, recovery: Recovery, redis: redis_py.Redis, db: Db
) -> None:
    playing(store, clock)
    store.complete(ID)
    log.store()
    lose(redis)
    recovery._store.time_ms = lambda: clock.now_ms + 3_600_000  # type: ignore[method-assign]
    assert recovery.recover(ID) is Outcome.ENDED
    recovery._store.time_ms = lambda: clock.now_ms + 3_599_999  # type: ignore[method-assign]
    assert recovery.recover(ID) is Outcome.RESTORED
    assert store.get(ID).found.status == "completed"
    assert redis.zscore(KEYS.deadlines(KEYS.bucket(ID)), ID) is None
    assert redis.pexpiretime(KEYS.session(ID)) == clock.now_ms + 3_600_000
    store.delete(ID)
    log.store()
    assert recovery.recover(ID) is Outcome.GONE
    lose(redis)
    assert recovery.recover(ID) is Outcome.GONE
    assert recovery.recover(UNKNOWN) is Outcome.UNKNOWN


def test_a_session_deleted_while_its_log_was_read_stays_deleted(
    store: SessionStore, clock: SetClock, log: Log, redis: redis_py.Redis
) -> None:
    playing(store, clock)
    log.store()
    known = log.history.remains(ID)
    assert known
    store.delete(ID)
    with pytest.raises(SessionNotFound):
        store.restore(known, "run")


def test_events_on_their_way_are_waited_for(
    store: SessionStore, clock: SetClock, log: Log, recovery: Recovery, redis: redis_py.Redis
) -> None:
    playing(store, clock)
    log.store()
    clock.pass_ms(10)
    store.switch(ID)
    lose(redis)
    with pytest.raises(AuditIncomplete):
        recovery.recover(ID)
    log.store()
    assert recovery.recover(ID) is Outcome.RESTORED
    assert store.get(ID).found.cycle_count == 3


def test_a_log_with_a_gap_brings_nothing_back(
    store: SessionStore, clock: SetClock, log: Log, recovery: Recovery, redis: redis_py.Redis, db: Db
) -> None:
    playing(store, clock)
    log.store()
    lose(redis)
    rows(db, "SET syncapp.allow_changes = on; DELETE FROM sync_events WHERE version = 3; SELECT 1")
    with pytest.raises(AuditIncomplete):
        recovery.recover(ID)


def test_a_store_rolled_back_behind_the_log_is_put_forward_again(
    store: SessionStore, clock: SetClock, log: Log, recovery: Recovery, redis: redis_py.Redis
) -> None:
    playing(store, clock)
    file = dumped(redis)
    clock.pass_ms(1000)
    store.switch(ID)
    last = store.get(ID).found
    log.store()
    roll_back(redis, file)
    assert store.peek(ID).version == last.version - 1  # type: ignore[union-attr]
    assert recovery.recover(ID) is Outcome.REPLACED
    found = store.get(ID).found
    assert (found.epoch > last.epoch, found.version) == (True, 1)
    assert (found.cycle_count, found.active_participant_id) == (3, "black")
    assert recovery.recover(ID) is Outcome.CURRENT


def test_a_fork_is_kept_as_a_dead_letter_and_the_later_past_goes_on_in_a_new_epoch(
    store: SessionStore, clock: SetClock, log: Log, recovery: Recovery, redis: redis_py.Redis, db: Db
) -> None:
    playing(store, clock)
    file = dumped(redis)
    for _ in range(2):
        clock.pass_ms(1000)
        store.switch(ID)
    log.store()
    roll_back(redis, file)
    clock.pass_ms(500)
    store.pause(ID)  # another version 6 than the log's
    log.store()
    assert rows(db, "SELECT kind FROM sync_dead_letters") == [("divergent",)]
    assert log.history.forks() == {(ID, NOON_MS)}
    assert recovery.recover(ID) is Outcome.REPLACED  # the log is further
    assert store.get(ID).found.cycle_count == 4
    log.store()
    assert recovery.recover(ID) is Outcome.CURRENT


def test_a_fork_that_is_further_than_the_log_goes_on_as_it_stands(
    store: SessionStore, clock: SetClock, log: Log, recovery: Recovery, redis: redis_py.Redis, db: Db
) -> None:
    playing(store, clock)
    file = dumped(redis)
    clock.pass_ms(1000)
    store.switch(ID)
    log.store()
    roll_back(redis, file)
    clock.pass_ms(500)
    store.pause(ID)
    store.update(ID, {"fork": True})
    log.store()
    here = store.get(ID).found
    assert recovery.recover(ID) is Outcome.RENEWED
    found = store.get(ID).found
    assert found.epoch > here.epoch
    assert (found.version, found.status, found.metadata) == (1, "paused", {"round": 1, "fork": True})
    assert found.metadata_version == 1
    assert found.participants == here.participants
    log.store()
    assert log.history.remains(ID).session == found  # type: ignore[union-attr]
    assert recovery.recover(ID) is Outcome.CURRENT


def test_what_was_deleted_before_a_rollback_is_deleted_again(
    store: SessionStore, clock: SetClock, log: Log, recovery: Recovery, redis: redis_py.Redis, db: Db
) -> None:
    playing(store, clock)
    file = dumped(redis)
    store.delete(ID)
    log.store()
    roll_back(redis, file)
    assert recovery.recover(ID) is Outcome.DELETED
    with pytest.raises(SessionNotFound):
        store.get(ID)
    log.store()
    assert rows(db, "SELECT kind FROM sync_dead_letters") == []
    assert recovery.recover(ID) is Outcome.GONE


def test_a_session_that_the_log_does_not_know_yet_is_left_alone(
    store: SessionStore, clock: SetClock, log: Log, recovery: Recovery, redis: redis_py.Redis
) -> None:
    playing(store, clock)
    assert recovery.recover(ID) is Outcome.CURRENT
    redis.delete(KEYS.outbox(KEYS.bucket(ID)))
    assert recovery.recover(ID) is Outcome.AHEAD


def test_a_session_of_many_participants_comes_back_whole(
    store: SessionStore, clock: SetClock, log: Log, recovery: Recovery, redis: redis_py.Redis, redis_url: str
) -> None:
    store.create(crowd(1000, session_id=ID))
    store.start(ID, participant_id="p500")
    clock.pass_ms(1000)
    store.switch(ID)
    before = store.get(ID).found
    log.store()
    lose(redis)
    assert recovery.recover(ID) is Outcome.RESTORED
    assert make_store(redis_url).get(ID).found.participants == before.participants
    assert store.switch(ID).found.active_participant_id == "p502"


def test_everything_is_what_the_log_or_redis_takes_for_live(
    store: SessionStore, clock: SetClock, log: Log, recovery: Recovery, redis: redis_py.Redis
) -> None:
    ids = [store.create(chess()).found.session_id for _ in range(4)]
    log.store()
    store.cancel(ids[1])
    store.delete(ids[2])
    log.store()
    lose(redis, ids[0])
    redis_only = store.create(chess()).found.session_id
    recovery._store.time_ms = lambda: clock.now_ms + 7_200_000  # type: ignore[method-assign]
    assert sorted(recovery.everything()) == sorted([ids[0], ids[3], redis_only])
    recovery._store.time_ms = lambda: clock.now_ms  # type: ignore[method-assign]
    assert sorted(recovery.everything()) == sorted([*ids[:2], ids[3], redis_only])


# On a miss.


@pytest.fixture
def client(redis_url: str, database_url: str, clock: SetClock) -> FlaskClient:
    chosen = settings(redis_url, database_url=database_url, recover_on_miss=True)
    return create_app(chosen, partials=PARTIALS).test_client()


@pytest.mark.parametrize("command", ["", "switch", "pause", "complete", "update", "delete"])
def test_a_read_or_command_that_misses_a_session_brings_it_back(
    client: FlaskClient, store: SessionStore, clock: SetClock, log: Log, redis: redis_py.Redis, command: str
) -> None:
    playing(store, clock)
    log.store()
    lose(redis)
    clock.pass_ms(1000)
    url = f"/v1/sessions/{ID}"
    ask: dict[str, Callable[[], Any]] = {
        "": lambda: client.get(url),
        "update": lambda: client.patch(url, json={"metadata": {"a": 1}}),
        "delete": lambda: client.delete(url),
    }
    answer = ask.get(command, lambda: client.post(f"{url}/{command}"))()
    assert answer.status_code == (204 if command == "delete" else 200), answer.text
    told = [message["event"]["type"] for message in messages(redis, ID)]
    assert told[0] == "session_restored"
    assert len(told) == (1 if command == "" else 2)
    if command == "delete":
        assert told[1] == "session_deleted"
        log.store()
        error(client.get(url), 404, "SESSION_NOT_FOUND")
    else:
        assert answer.get_json()["data"]["epoch"] == clock.now_ms


def test_a_replay_that_misses_its_session_brings_it_back_and_does_nothing_twice(
    client: FlaskClient, store: SessionStore, clock: SetClock, log: Log, redis: redis_py.Redis
) -> None:
    playing(store, clock)
    url, headers = f"/v1/sessions/{ID}/switch", {"Idempotency-Key": "move-17"}
    first = client.post(url, headers=headers).get_json()["data"]
    log.store()
    lose(redis)
    again = client.post(url, headers=headers)
    assert (again.status_code, again.headers["Idempotency-Replayed"]) == (200, "true")
    assert again.get_json()["data"]["cycle_count"] == first["cycle_count"]
    assert [message["event"]["type"] for message in messages(redis, ID)] == ["session_restored"]


def test_unknown_ids_are_looked_for_once_in_a_while_and_not_too_many(client: FlaskClient, db: Db) -> None:
    looked = RECOVERIES.labels("unknown")._value.get
    before = looked()
    for _ in range(5):
        error(client.get(f"/v1/sessions/{UNKNOWN}"), 404, "SESSION_NOT_FOUND")
    assert looked() - before == 1
    began_s = time.monotonic()
    statuses = [client.get(f"/v1/sessions/{UNKNOWN[:-4]}{number:04}").status_code for number in range(1, 300)]
    took_s = time.monotonic() - began_s
    assert set(statuses) == {404, 503} or took_s > 5  # 20 a second are admitted
    assert looked() - before <= 2 + 20 * (1 + took_s)


def test_misses_are_admitted_by_rate_and_forgotten() -> None:
    misses = MissLimiter()
    assert misses.admit("a", 0.0)
    misses.note("a", 0.0)
    assert not misses.admit("a", 9.9)
    assert misses.admit("a", 10.0)
    for number in range(19):
        assert misses.admit(str(number), 10.0)
    with pytest.raises(AuditUnavailable):
        misses.admit("b", 10.0)
    assert misses.admit("b", 10.06)
    for number in range(20_000):
        misses.note(str(number), 11.0)
    assert len(misses._until_s) == 10_000


def test_a_miss_is_a_503_while_the_log_is_away_and_a_404_when_it_is_not_asked(
    redis_url: str, clock: SetClock, redis: redis_py.Redis
) -> None:
    nowhere = "postgresql://127.0.0.1:1/nothing"
    asking = create_app(settings(redis_url, database_url=nowhere, recover_on_miss=True), partials=PARTIALS)
    refused = asking.test_client().get(f"/v1/sessions/{UNKNOWN}")
    assert error(refused, 503, "AUDIT_UNAVAILABLE")
    assert refused.headers["Retry-After"] == "1"
    plain = create_app(settings(redis_url, database_url=nowhere), partials=PARTIALS).test_client()
    error(plain.get(f"/v1/sessions/{UNKNOWN}"), 404, "SESSION_NOT_FOUND")
    assert asking.test_client().post("/v1/sessions", json=CHESS).status_code == 201


# By command.


def test_the_command_drains_brings_back_and_tells(
    redis_url: str, database_url: str, db: Db, redis: redis_py.Redis
) -> None:
    store = make_store(redis_url, set_clock=False)
    lost, rolled, fine = (store.create(chess()).found.session_id for _ in range(3))
    for each in (lost, rolled, fine):
        store.start(each)
    file = dumped(redis, rolled)
    store.switch(rolled)
    lose(redis, lost)
    runner = create_app(settings(redis_url, database_url=database_url)).test_cli_runner()

    def run(*args: str) -> tuple[int, list[str]]:
        found = runner.invoke(args=["sessions", "recover", *args])
        return found.exit_code, [line for line in found.output.splitlines() if "warning" not in line]

    assert run(lost) == (0, [f"{lost} restored", "1 restored"])
    roll_back(redis, file, rolled)
    code, lines = run("--all", "--clock", "freeze")
    assert (code, lines) == (0, [f"{rolled} replaced", "2 current, 1 replaced"])
    assert store.get(rolled).found.status == "paused"
    assert run(UNKNOWN) == (0, [f"{UNKNOWN} unknown", "1 unknown"])
    assert run()[0] == run("not-a-uuid")[0] == run("--all", lost)[0] == 2
    away = create_app(settings(redis_url, database_url="postgresql://127.0.0.1:1/x")).test_cli_runner()
    assert "run it again" in away.invoke(args=["sessions", "recover", "--all"]).output


# On real processes.


def test_clients_of_every_process_see_the_new_epoch_and_go_on(
    make_cluster: MakeCluster, redis: redis_py.Redis, db: Db
) -> None:
    cluster = make_cluster(RECOVER_ON_MISS="true")
    bases = [f"{url}/v1/sessions" for url in cluster.urls]
    made = requests.post(bases[0], json=CHESS, timeout=60).json()["data"]
    session_id = made["session_id"]
    requests.post(f"{bases[0]}/{session_id}/start", timeout=60)

    def logged(version: int) -> bool:
        return requests.get(f"{bases[1]}/{session_id}/at?version={version}", timeout=60).status_code == 200

    with ExitStack() as stack:
        clients = [
            stack.enter_context(Raw(url, f"{session_id}{more}"))
            for url in cluster.urls
            for more in ("", "&format=patch")
        ]
        for client in clients:
            assert client.message("STATE_SYNC")["state"]["version"] == 2
        eventually(lambda: logged(2))
        lose(redis, session_id)
        answer = requests.post(f"{bases[1]}/{session_id}/switch", timeout=60)
        assert answer.status_code == 200
        found = answer.json()["data"]
        assert (found["epoch"] > made["epoch"], found["version"], found["cycle_count"]) == (True, 2, 1)
        for client in clients:
            restored = client.message("STATE_UPDATE")
            assert (restored["epoch"], restored["version"]) == (found["epoch"], 1)
            assert restored["event"]["type"] == "session_restored"
            assert restored["state"]["active_participant_id"] == "white"
            switched = client.next().message
            assert switched["type"] in ("STATE_UPDATE", "STATE_PATCH")
            assert (switched["epoch"], switched["version"]) == (found["epoch"], 2)
    eventually(lambda: logged(2))
    lose(redis, session_id)
    with Raw(cluster.urls[0], session_id) as late:
        state = late.message("STATE_SYNC")["state"]
        assert (state["epoch"] > found["epoch"], state["version"], state["cycle_count"]) == (True, 1, 1)


def test_a_store_put_back_from_an_old_copy_of_its_files_is_put_right_by_the_command(
    make_cluster: MakeCluster, valkey: Valkey, redis: redis_py.Redis, db: Db, redis_url: str, database_url: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    cluster = make_cluster(web=1)
    base = f"{cluster.urls[0]}/v1/sessions"
    body = {"sync_mode": "count_up", "participants": [{"participant_id": name} for name in "ab"]}

    def post(session_id: str, command: str) -> dict[str, Any]:
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        for _ in range(10):  # a connection from before the restart fails once
            answer = requests.post(f"{base}/{session_id}/{command}", headers=headers, timeout=60)
            if answer.status_code != 503:
                break
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()["data"]
        return found

    def drained() -> bool:
        return not any(redis.xlen(KEYS.outbox(bucket)) for bucket in range(16))

    names = [requests.post(base, json=body, timeout=60).json()["data"]["session_id"] for _ in range(6)]
    for each in names:
        post(each, "start")
    eventually(drained)
    data = Path(valkey.argv[valkey.argv.index("--dir") + 1])
    valkey.stop()
    shutil.copytree(data, tmp_path / "old")
    valkey.start()
    eventually(lambda: requests.get(f"{cluster.urls[0]}/ready", timeout=60).status_code == 200)
    last = {each: [post(each, "switch") for _ in range(3)][-1] for each in names}
    newer = requests.post(base, json=body, timeout=60).json()["data"]["session_id"]
    post(names[5], "complete")
    eventually(drained)

    valkey.stop()
    shutil.rmtree(data)
    shutil.copytree(tmp_path / "old", data)
    valkey.start()
    eventually(lambda: requests.get(f"{cluster.urls[0]}/ready", timeout=60).status_code == 200)
    assert post(names[0], "switch")["cycle_count"] == 1  # nobody has told this client to wait
    runner = create_app(settings(redis_url, database_url=database_url)).test_cli_runner()
    drain = ["audit", "drain"]  # the worker's queue was put back, too: it may wait for the next sweep
    assert runner.invoke(args=drain).exit_code == 0
    assert rows(db, "SELECT kind FROM sync_dead_letters") == [("divergent",)]

    told = runner.invoke(args=["sessions", "recover", "--all"])
    assert (told.exit_code, told.output.splitlines()[-1]) == (0, "6 replaced, 1 restored"), told.output
    for each in names[:5]:
        state = requests.get(f"{base}/{each}", timeout=60).json()["data"]
        assert (state["cycle_count"], state["status"], state["version"]) == (3, "running", 1)
        assert state["epoch"] > last[each]["epoch"]
        assert post(each, "switch")["version"] == 2
    assert requests.get(f"{base}/{names[5]}", timeout=60).json()["data"]["status"] == "completed"
    assert requests.get(f"{base}/{newer}", timeout=60).json()["data"]["status"] == "pending"
    assert runner.invoke(args=drain).exit_code == 0
    checked = runner.invoke(args=["audit", "verify"])
    assert checked.exit_code == 0, checked.output
    assert runner.invoke(args=["sessions", "recover", "--all"]).output.splitlines()[-1] == "7 current"

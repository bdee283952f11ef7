"""The audit log: each event exactly once, totals independent of the events' order, nothing lost."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha1, sha256
from typing import Any

import orjson
import psycopg2
import pytest
import redis as redis_py
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from syncapp import metrics
from syncapp.audit.event import AuditEvent, OutboxEntry
from syncapp.audit.log import AuditLog, Stored
from syncapp.domain.instants import iso
from syncapp.domain.private_parts import split_entry
from syncapp.domain.results import Claim
from syncapp.postgres.database import Database
from syncapp.store.sessions import SessionStore
from tests.support.audit_log import outbox_entries, query_rows
from tests.support.captured_logs import capture_own_logs
from tests.support.store import ManualClock, chess_request, crowd_request, make_store
from tests.support.types import Db

ID = "3e1f8e1a-3f44-4c55-9d0b-0f6f2b8f5a10"


def changed(entry: OutboxEntry, stream_id: str = "9-9", **changes: Any) -> OutboxEntry:
    """An entry whose message has other values; `event` and `patch` are merged."""
    message = orjson.loads(entry.raw or b"")
    for name, value in changes.items():
        message[name] = message[name] | value if isinstance(value, dict) else value
    return OutboxEntry(entry.bucket, stream_id, orjson.dumps(message))


def counted(counter: Any) -> float:
    value: float = counter._value.get()
    return value


@pytest.fixture
def played(store: SessionStore, clock: ManualClock, redis: redis_py.Redis) -> list[OutboxEntry]:
    """Two lives of one session, each with every kind of event."""
    for name in ("first", "second"):
        store.create(chess_request(60_000, session_id=ID, increment_ms=1000, metadata={"name": name}))
        clock.advance_ms(10)
        store.start(ID, Claim(request_id=f"request-{name}"))
        for _ in range(4):
            clock.advance_ms(2_345)
            store.switch(ID)
        store.pause(ID)
        clock.advance_ms(5000)
        store.update(ID, {"score": [1, 2], "name": f"{name} half"})
        store.resume(ID)
        clock.advance_ms(111)
        if name == "first":
            store.complete(ID)
            store.update(ID, {"over": True})
            store.delete(ID)
            clock.advance_ms(1)
    clock.advance_ms(100_000)
    store.get(ID)  # time is up
    return outbox_entries(redis)


TOTALS = (
    "SELECT * FROM sync_sessions ORDER BY session_id",
    "SELECT * FROM sync_participants ORDER BY session_id, participant_id",
)


def empty(db: Db) -> None:
    query_rows(db, "DELETE FROM sync_events; DELETE FROM sync_sessions; DELETE FROM sync_participants; SELECT 1")


def totals(db: Db) -> list[Any]:
    return [query_rows(db, query) for query in TOTALS]


def test_a_session_leaves_one_row_for_each_commit(
    db: Db, audit: AuditLog, store: SessionStore, clock: ManualClock, played: list[OutboxEntry]
) -> None:
    assert audit.store(played) == Stored(new=len(played))
    found = query_rows(db, "SELECT epoch, version, event_type FROM sync_events ORDER BY epoch, version")
    epochs = sorted({epoch for epoch, _, _ in found})
    assert len(epochs) == 2
    assert [version for epoch, version, _ in found if epoch == epochs[0]] == list(range(1, 13))
    assert [version for epoch, version, _ in found if epoch == epochs[1]] == list(range(1, 11))
    assert found[0][2] == "session_created"
    assert found[11][2] == "session_deleted"
    assert found[-1][2] == "participant_expired"


def test_an_event_is_told_as_it_happened_to_the_millisecond(
    db: Db, audit: AuditLog, store: SessionStore, clock: ManualClock, redis: redis_py.Redis
) -> None:
    made = store.create(chess_request(60_000, session_id=ID, metadata={"a": []})).found
    clock.advance_ms(1)
    store.start(ID)
    clock.advance_ms(2_347)
    switched = store.switch(ID, Claim(request_id="r-1"))
    audit.store(outbox_entries(redis))
    columns = """to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), extract(epoch FROM at) * 1000,
        event_type, sync_mode, status, cycle_count, participant_id, next_participant_id, group_id, remaining_ms,
        elapsed_ms, actor, request_id, metadata, message->'event', patch, snapshot, record"""
    (created, _, found) = query_rows(db, f"SELECT {columns} FROM sync_events ORDER BY version")
    assert found == (
        iso(clock.now_ms),
        clock.now_ms,
        *("cycle_switched", "per_participant", "running", 1, "white", "black", None, 60_000 - 2347, 2347, "client"),
        *("r-1", None, switched.event, {**found[15]}, None, None),
    )
    assert found[15]["cycle_started_ms"] == found[15]["updated_ms"] == clock.now_ms
    assert found[15]["participants"]["white"]["time_used_ms"] == 2347
    assert created[12] is None
    assert created[13] is None  # metadata are a private part
    assert created[16] == made.state(made.created_ms) | {"metadata": {}}
    assert created[17]["idle_timeout_ms"] == "86400000"
    assert orjson.loads(created[17]["definition"])["participant_ids"] == ["white", "black"]


def test_each_row_names_the_hash_of_the_sessions_message_before_it(
    db: Db, audit: AuditLog, played: list[OutboxEntry]
) -> None:
    audit.store(played[::-1])
    found = query_rows(db, "SELECT message::text, previous_hash FROM sync_events ORDER BY epoch, version")
    messages = [split_entry(entry.raw or b"")[0] for entry in played]
    assert [message.encode() for message, _ in found] == messages
    hashes = [None, *(sha1(message).digest() for message in messages[:-1])]
    # Across epochs, too: a deleted session passes its hash on to the next one of its id.
    assert [previous and bytes(previous) for _, previous in found] == hashes
    last = sha256(messages[-1]).digest()
    assert bytes(query_rows(db, "SELECT content_hash FROM sync_sessions")[0][0]) == last


@pytest.mark.parametrize("change", ["UPDATE sync_events SET actor = 'me'", "DELETE FROM sync_events"])
def test_the_log_is_append_only_in_every_partition(
    db: Db, audit: AuditLog, played: list[OutboxEntry], change: str
) -> None:
    audit.store(played)
    query_rows(db, "SET syncapp.allow_changes = 'off'; SELECT 1")
    (partition,) = query_rows(db, "SELECT DISTINCT tableoid::regclass::text FROM sync_events")[0]
    for query in (change, change.replace("sync_events", partition), "TRUNCATE sync_events"):
        with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="append-only"):
            query_rows(db, query)
    assert query_rows(db, "SELECT count(*) FROM sync_events") == [(len(played),)]


def test_totals_are_those_of_the_newest_state(
    db: Db, audit: AuditLog, store: SessionStore, played: list[OutboxEntry]
) -> None:
    audit.store(played)
    last = store.get(ID).found
    (session,) = query_rows(
        db,
        """SELECT epoch, version, status, cycle_count, participant_count, total_time_ms, metadata, metadata_version,
        deleted_at, extract(epoch FROM created_at) * 1000, extract(epoch FROM started_at) * 1000,
        extract(epoch FROM completed_at) * 1000, extract(epoch FROM updated_at) * 1000 FROM sync_sessions""",
    )
    assert session == (
        *(last.epoch, last.version, "expired", last.cycle_count, 2, 120_000, last.metadata, last.metadata_version),
        *(None, last.created_ms, last.session_started_ms, last.session_completed_ms, last.updated_ms),
    )
    people = query_rows(
        db,
        """SELECT participant_id, participant_index, total_time_ms, time_used_ms, time_remaining_ms, cycle_count,
        has_expired, first_active_at < last_active_at FROM sync_participants ORDER BY participant_index""",
    )
    assert people == [
        (person["participant_id"], person["participant_index"], person["total_time_ms"], person["time_used_ms"],
         person["time_remaining_ms"], person["cycle_count"], person["has_expired"], True)
        for person in last.state(0)["participants"]
    ]  # fmt: skip


def test_a_deleted_session_says_so_and_keeps_what_it_was(
    db: Db, audit: AuditLog, store: SessionStore, clock: ManualClock, redis: redis_py.Redis
) -> None:
    store.create(chess_request(session_id=ID, metadata={"a": 1}))
    clock.advance_ms(7)
    store.delete(ID)
    audit.store(outbox_entries(redis))
    query = "SELECT status, deleted_at - created_at, metadata, participant_count FROM sync_sessions"
    ((status, lived, metadata, count),) = query_rows(db, query)
    assert (status, lived.total_seconds(), metadata, count) == ("deleted", 0.007, {"a": 1}, 2)


@hypothesis_settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(data=st.data())
def test_totals_do_not_depend_on_the_order_in_which_events_come(
    db: Db, audit: AuditLog, played: list[OutboxEntry], data: st.DataObject
) -> None:
    empty(db)
    audit.store(played)
    expected = totals(db)
    empty(db)
    again = data.draw(st.lists(st.sampled_from(played), max_size=5), label="delivered twice")
    mixed = data.draw(st.permutations([*played, *again]), label="order")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(mixed)), max_size=8), label="batches end at"))
    stored = [audit.store(mixed[a:b]) for a, b in zip([0, *cuts], [*cuts, len(mixed)], strict=True)]
    assert sum(each.new for each in stored) == len(played)
    assert sum(each.repeated for each in stored) == len(again)
    assert totals(db) == expected


def test_a_redelivered_event_is_stored_once(db: Db, audit: AuditLog, played: list[OutboxEntry]) -> None:
    before = counted(metrics.DRAINED)
    assert audit.store([*played, *played]) == Stored(new=len(played), repeated=len(played))
    assert audit.store(played) == Stored(repeated=len(played))
    assert query_rows(db, "SELECT count(*) FROM sync_events") == [(len(played),)]
    assert counted(metrics.DRAINED) - before == len(played)


def test_many_drains_of_the_same_events_at_once_neither_deadlock_nor_store_twice(
    db: Db, database_url: str, redis_url: str, redis: redis_py.Redis
) -> None:
    store = make_store(redis_url, set_clock=False)
    for _ in range(30):
        session_id = store.create(chess_request()).found.session_id
        store.start(session_id)
        for _ in range(6):
            store.switch(session_id)
    entries = outbox_entries(redis)
    database = Database(database_url)
    audit, barrier = AuditLog(database), threading.Barrier(6)

    def drain(number: int) -> Stored:
        shift = number * len(entries) // 6
        mine = [*entries[shift:], *entries[:shift]][: len(entries) * 2 // 3]
        barrier.wait(60)
        return sum((audit.store(mine[at : at + 50]) for at in range(0, len(mine), 50)), Stored())

    with ThreadPoolExecutor(6) as threads:
        stored = sum(threads.map(drain, range(6)), Stored())
    assert stored.new == len(entries)
    assert stored.dead_letters == ()
    assert query_rows(db, "SELECT count(*), sum(cycle_count) FROM sync_sessions") == [(30, 180)]
    assert query_rows(db, "SELECT count(*), sum(cycle_count) FROM sync_participants") == [(60, 180)]
    database.close()


@pytest.mark.parametrize(
    "change",
    [{"request_id": "another"}, {"event": {"at_ms": 4_102_488_999_999}}, {"event": {"at_ms": 4_200_000_000_000}}],
    ids=["other content", "another instant", "another month"],
)
def test_another_event_under_a_known_key_is_kept_and_told_and_stops_nothing(
    db: Db, audit: AuditLog, played: list[OutboxEntry], change: dict[str, Any]
) -> None:
    first, rest = played[:5], played[5:]
    audit.store(first)
    expected = totals(db)
    other = changed(played[3], **change)
    before = counted(metrics.DIVERGENCES)
    with capture_own_logs() as logs:
        stored = audit.store([other])
        assert totals(db) == expected
        stored += audit.store([other, *rest, other])
    assert stored.new == len(rest)
    assert [(letter.entry, letter.kind) for letter in stored.dead_letters] == [(other, "divergent")]
    assert [(line["log_level"], line["event"], line["count"]) for line in logs] == [("critical", "divergences", 1)]
    assert counted(metrics.DIVERGENCES) - before == 1
    ((bucket, stream_id, kind, error, raw),) = query_rows(
        db, "SELECT bucket, stream_id, kind, error, raw FROM sync_dead_letters"
    )
    assert (bucket, stream_id, kind, bytes(raw)) == (other.bucket, "9-9", "divergent", other.raw)
    assert f"session {ID}" in error


def test_two_events_of_one_key_in_one_batch_are_a_divergence_too(
    db: Db, audit: AuditLog, played: list[OutboxEntry]
) -> None:
    stored = audit.store([*played, changed(played[2], request_id="another")])
    assert stored.new == len(played)
    assert [letter.kind for letter in stored.dead_letters] == ["divergent"]


HUGE = {
    "white": {"time_used_ms": 2**63, "time_remaining_ms": 0, "cycle_count": 0, "has_expired": False, "is_active": False}
}


def nested(entry: OutboxEntry, depth: int = 600) -> OutboxEntry:
    deep = b'"patch":{"metadata":' + b"[" * depth + b"]" * depth + b","
    return OutboxEntry(1, "9-9", (changed(entry, version=99).raw or b"").replace(b'"patch":{', deep))


POISON = {
    "no JSON": lambda entry: OutboxEntry(entry.bucket, "9-9", b"{"),
    "no text": lambda entry: OutboxEntry(entry.bucket, "9-9", b"\xff\x00"),
    "not an object": lambda entry: OutboxEntry(entry.bucket, "9-9", b"[]"),
    "no event": lambda entry: OutboxEntry(
        entry.bucket, "9-9", orjson.dumps({"session_id": ID, "epoch": 1, "version": 1})
    ),
    "NUL in metadata": lambda entry: changed(entry, version=99, patch={"metadata": {"a": "\0"}}),
    "unknown status": lambda entry: changed(entry, version=99, status="asleep"),
    "unknown mode": lambda entry: changed(entry, version=99, sync_mode="cuckoo"),
    "no session id": lambda entry: changed(entry, session_id="white"),
    "version is text": lambda entry: changed(entry, version="seven"),
    "too large a number": lambda entry: changed(entry, version=2**63 - 1, cycle_count=2**64 - 1),
    "an instant no calendar has": lambda entry: changed(entry, version=99, event={"at_ms": 10**18}),
    "half a participant": lambda entry: changed(
        entry, version=99, patch={"participants": {"white": {"is_active": True}}}
    ),
    "nested too deeply": nested,
    "a number beyond 64 bits": lambda entry: changed(entry, version=99, patch={"participants": HUGE}),
    "an instant that is none": lambda entry: changed(entry, version=99, patch={"updated_ms": "noon"}),
    "an instant beyond all": lambda entry: changed(entry, version=99, patch={"cycle_started_ms": 10**17}),
    "a snapshot of nothing": lambda entry: changed(entry, version=99, snapshot=["1"]),
    "nobody acted": lambda entry: changed(entry, version=99, actor=None),
}


@pytest.mark.parametrize("poison", POISON.values(), ids=POISON.keys())
def test_an_event_that_cannot_be_stored_is_kept_raw_and_the_others_are_stored(
    db: Db, audit: AuditLog, played: list[OutboxEntry], poison: Any
) -> None:
    bad = poison(played[3])
    before = counted(metrics.DEAD_LETTERS)
    with capture_own_logs() as logs:
        stored = audit.store([*played[:7], bad, *played[7:]])
    assert stored.new == len(played)
    assert [(letter.entry, letter.kind) for letter in stored.dead_letters] == [(bad, "refused")]
    ((raw, kind, error),) = query_rows(db, "SELECT raw, kind, error FROM sync_dead_letters")
    assert (bytes(raw), kind) == (bad.raw, "refused")
    assert error
    assert [line["log_level"] for line in logs] == ["critical"]
    assert counted(metrics.DEAD_LETTERS) - before == 1
    assert audit.store([bad]) == Stored()  # already kept
    assert query_rows(db, "SELECT count(*) FROM sync_dead_letters") == [(1,)]


def test_an_event_that_fits_the_log_and_not_the_totals_is_kept_raw_too(
    db: Db, audit: AuditLog, played: list[OutboxEntry]
) -> None:
    good, bad = played[-1], nested(played[-2], 253)  # it fits alone, but not as part of a row
    stored = audit.store([bad, good])
    assert stored.new == 1
    assert [letter.entry for letter in stored.dead_letters] == [bad]


def test_several_bad_events_are_found_each_among_many_good_ones(
    db: Db, audit: AuditLog, store: SessionStore, redis: redis_py.Redis
) -> None:
    for _ in range(60):
        store.create(crowd_request(3))
    good = outbox_entries(redis)
    bad = [changed(entry, f"9-{number}", version=7, status="asleep") for number, entry in enumerate(good[::7])]
    with capture_own_logs() as logs:
        stored = audit.store([*good, *bad])
    assert (stored.new, len(stored.dead_letters)) == (60, len(bad))
    assert [line["count"] for line in logs] == [len(bad)]
    assert query_rows(db, "SELECT count(*) FROM sync_events") == [(60,)]


def test_what_is_not_the_events_fault_is_raised_and_stores_nothing(
    db: Db, audit: AuditLog, played: list[OutboxEntry]
) -> None:
    query_rows(db, "ALTER TABLE sync_participants RENAME TO hidden; SELECT 1")
    try:
        with pytest.raises(psycopg2.errors.UndefinedTable):
            audit.store(played)
        assert query_rows(db, "SELECT count(*) FROM sync_events") == [(0,)]
        assert query_rows(db, "SELECT count(*) FROM sync_dead_letters") == [(0,)]
    finally:
        query_rows(db, "ALTER TABLE hidden RENAME TO sync_participants; SELECT 1")
    assert audit.store(played).new == len(played)


class Conflicting(Database):
    """A database whose first transactions fail with a deadlock."""

    conflicts = 0

    def transaction(self) -> Any:
        if self.conflicts:
            self.conflicts -= 1
            raise psycopg2.errors.DeadlockDetected
        return super().transaction()


def test_a_conflict_with_another_transaction_is_tried_again_a_few_times(
    db: Db, database_url: str, played: list[OutboxEntry], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psycopg2.errors.DeadlockDetected, "pgcode", "40P01", raising=False)
    database = Conflicting(database_url)
    database.conflicts = 4
    assert AuditLog(database).store(played).new == len(played)
    database.conflicts = 5
    with pytest.raises(psycopg2.errors.DeadlockDetected):
        AuditLog(database).store(played)
    database.close()


class Failing(Database):
    """A database that goes away after some transactions."""

    left = 0

    def transaction(self) -> Any:
        self.left -= 1
        if self.left < 0:
            raise psycopg2.OperationalError("the server closed the connection")
        return super().transaction()


def test_a_dead_letter_is_told_once_however_often_postgresql_goes_away_meanwhile(
    db: Db, database_url: str, played: list[OutboxEntry]
) -> None:
    database = Failing(database_url)
    audit = AuditLog(database)
    bad = changed(played[3], version=99, status="asleep")
    new = 0
    with capture_own_logs() as logs:
        for allowed in range(20):
            database.left = allowed
            try:
                audit.store([*played, bad])
                break
            except psycopg2.OperationalError:
                new = len(query_rows(db, "SELECT FROM sync_events"))
    assert 0 < new < len(played)
    assert [line["count"] for line in logs] == [1]
    assert query_rows(db, "SELECT count(*) FROM sync_events") == [(len(played),)]
    database.close()


def test_empty_entries_are_passed_over(db: Db, audit: AuditLog) -> None:
    assert audit.store([OutboxEntry(1, "1-1", None)]) == audit.store([]) == Stored()


def test_a_whole_state_of_many_participants_is_stored(
    db: Db, audit: AuditLog, store: SessionStore, redis: redis_py.Redis
) -> None:
    store.create(crowd_request(1000, session_id=ID))
    assert audit.store(outbox_entries(redis)).new == 1
    assert query_rows(db, "SELECT count(*), sum(total_time_ms) FROM sync_participants") == [(1000, 300_000_000)]


def test_a_later_incarnation_takes_nothing_over_from_an_earlier_one(
    db: Db, audit: AuditLog, played: list[OutboxEntry]
) -> None:
    epoch = max(AuditEvent.parse(entry).key[1] for entry in played) + 5
    later = changed(played[3], epoch=epoch, version=2, status="running")
    query = "SELECT epoch, version, status, started_at, metadata, participant_count FROM sync_sessions"
    for order in ([*played, later], [later, *played]):
        empty(db)
        for entry in order:
            audit.store([entry])
        assert query_rows(db, query) == [(epoch, 2, "running", None, None, None)]

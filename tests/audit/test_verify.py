"""`flask audit verify` finds rows that were changed or deleted by hand, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from hashlib import sha1, sha256
from typing import Any

import orjson
import pytest
import redis as redis_py

from syncapp.audit import verify as verify_module
from syncapp.audit.event import OutboxEntry
from syncapp.audit.log import AuditLog
from syncapp.audit.outbox import Outbox
from syncapp.domain.schemas import CreateSession
from syncapp.postgres.database import Database
from syncapp.store.sessions import SessionStore
from tests.support.audit_log import outbox_entries, query_rows
from tests.support.flask_commands import FlaskCommand
from tests.support.outboxes import KEYS
from tests.support.store import ManualClock, chess_request
from tests.support.types import Db

ID = "3e1f8e1a-3f44-4c55-9d0b-0f6f2b8f5a10"
OTHERS = ("00000000-0000-4000-8000-000000000000", "ffffffff-ffff-4fff-8fff-ffffffffffff")
Verify = Callable[..., tuple[int, list[str]]]


@pytest.fixture
def drain(db: Db, redis: redis_py.Redis, database_url: str) -> Iterator[Callable[[], None]]:
    """Moves all entries of the outboxes into the log."""
    database = Database(database_url)
    outbox = Outbox(redis, KEYS)

    def drain() -> None:
        for bucket in outbox.buckets:
            while entries := outbox.read_new(bucket, 1000):
                AuditLog(database).store(entries)
                outbox.acknowledge(bucket, entries)

    yield drain
    database.close()


@pytest.fixture
def verify(db: Db, flask: FlaskCommand) -> Verify:
    """Runs the command; returns its exit code and the lines that it printed."""

    def verify(*words: str) -> tuple[int, list[str]]:
        done = flask("audit", "verify", *words)
        return done.exit_code, done.output.splitlines()

    return verify


@pytest.fixture
def played(store: SessionStore, clock: ManualClock, drain: Callable[[], None]) -> int:
    """A session of two epochs and two other sessions, in the log; the number of their events."""
    for other in OTHERS:
        store.create(chess_request(session_id=other))
        store.start(other)
    for switches in (3, 120):
        store.delete(ID)
        store.create(chess_request(3_600_000, session_id=ID, increment_ms=1000, metadata={"odd": [1.50, 1e5, "é\\\n"]}))
        store.start(ID)
        for _ in range(switches):
            clock.advance_ms(123)
            store.switch(ID)
        store.update(ID, {"over": None, "a": 1})
        store.pause(ID)
    drain()
    return 4 + (4 + 3) + 1 + (4 + 120)


def of_version(version: int) -> str:
    return f"session_id = '{ID}' AND version = {version} AND epoch = (SELECT max(epoch) FROM sync_events)"


def test_a_log_that_nobody_touched_is_as_committed(played: int, verify: Verify) -> None:
    assert verify() == (0, [f"Read {played} events of 3 sessions.", "Everything is as committed."])
    assert verify(ID) == (0, [f"Read {played - 4} events of 1 session.", "Everything is as committed."])


def test_a_session_that_the_log_does_not_know_is_no_success(redis: redis_py.Redis, verify: Verify) -> None:
    assert verify(ID) == (1, ["Read 0 events of 0 sessions.", "Error: the log has no such session"])


def test_the_log_is_read_in_order_and_not_sorted(played: int, db: Db) -> None:
    for query in (verify_module._EVENTS, verify_module._TOTALS):
        plan = [line for (line,) in query_rows(db, f"SET enable_sort = off; EXPLAIN {query.format('')}")]
        assert not [line for line in plan if re.match(r"[ >-]*(Incremental )?Sort  ", line)], plan


COLUMNS = {
    "event_type": "'cycle_ended'",
    "at": "at + interval '1 ms'",
    "status": "'paused'",
    "cycle_count": "cycle_count + 1",
    "participant_id": "'grey'",
    "remaining_ms": "remaining_ms + 1",
    "elapsed_ms": "NULL",
    "actor": "'system'",
    "request_id": "'another'",
    "metadata": """'{"a": 2}'""",
    "patch": """patch || '{"cycle_count": 7}'""",
    "snapshot": """'{"status": "running"}'""",
    "record": "'{}'",
    "previous_hash": r"'\x00'",
    "content_hash": r"'\x00'",
    "message": """replace(message::text, '"actor":"client"', '"actor":"judge!"')::json""",
}


@pytest.mark.parametrize("version", [1, 60, 124], ids=["first", "middle", "last"])
def test_a_row_of_which_any_column_was_changed_by_hand_is_named(
    played: int, db: Db, verify: Verify, version: int
) -> None:
    where = of_version(version).replace("(SELECT max(epoch) FROM sync_events)", "%s")
    ((epoch,),) = query_rows(db, f"SELECT epoch FROM sync_events WHERE {of_version(version)}")
    query_rows(db, f"CREATE TEMPORARY TABLE kept AS SELECT * FROM sync_events WHERE {where}; SELECT 1", epoch)
    changed = 0
    for column, value in COLUMNS.items():
        is_other = f"{column}::text IS DISTINCT FROM ({value})::text"
        if query_rows(db, f"UPDATE sync_events SET {column} = {value} WHERE {where} AND {is_other} RETURNING 1", epoch):
            changed += 1
            code, printed = verify()
            assert code == 1, column
            assert printed[0].startswith(f"session {ID}, epoch {epoch}, version {version}: "), column
            assert printed[-1] == "Error: sessions that are not as committed: 1"
            query_rows(
                db, f"DELETE FROM sync_events WHERE {where}; INSERT INTO sync_events TABLE kept; SELECT 1", epoch
            )
    assert changed >= len(COLUMNS) - 2
    assert verify()[0] == 0


def rewrite(db: Db, version: int, change: Callable[[dict[str, Any]], None]) -> int:
    """Change a message, and all columns of its row that depend on it."""
    ((epoch, text),) = query_rows(db, f"SELECT epoch, message::text FROM sync_events WHERE {of_version(version)}")
    message = orjson.loads(text)
    change(message)
    raw = orjson.dumps(message)
    query_rows(
        db,
        "UPDATE sync_events SET message = %s, content_hash = %s, request_id = %s, previous_hash = %s"
        f" WHERE {of_version(version)} RETURNING 1",
        *(raw.decode(), sha256(raw).digest(), message["request_id"] or None),
        bytes.fromhex(message["previous"]) or None,
    )
    return int(epoch)


@pytest.mark.parametrize("version", [1, 60, 123, 124], ids=["first", "middle", "last but one", "last"])
def test_a_row_that_was_forged_with_its_own_hash_is_named_by_the_chain(
    played: int, db: Db, verify: Verify, version: int
) -> None:
    epoch = rewrite(db, version, lambda message: message.update(request_id="forged"))
    code, printed = verify()
    assert code == 1
    assert printed[0].startswith(f"session {ID}, epoch {epoch}, version {version}: ")


def test_a_row_whose_link_was_forged_is_named_and_not_the_one_before(played: int, db: Db, verify: Verify) -> None:
    epoch = rewrite(db, 60, lambda message: message.update(previous="00" * 20))
    assert verify()[1][0].startswith(f"session {ID}, epoch {epoch}, version 60: ")


def test_a_last_row_that_was_forged_everywhere_in_the_log_is_known_to_the_store(
    played: int, db: Db, verify: Verify
) -> None:
    rewrite(db, 124, lambda message: message.update(request_id="forged"))
    query_rows(
        db,
        f"""UPDATE sync_sessions SET content_hash = (SELECT content_hash FROM sync_events WHERE {of_version(124)})
        WHERE session_id = '{ID}' RETURNING 1""",
    )
    code, printed = verify()
    assert code == 1
    assert "the store made another commit of this version" in printed[0]


@pytest.mark.parametrize("version", [1, 60, 124], ids=["first", "middle", "last"])
def test_a_row_that_was_taken_out_is_named(played: int, db: Db, verify: Verify, version: int) -> None:
    ((epoch,),) = query_rows(db, f"DELETE FROM sync_events WHERE {of_version(version)} RETURNING epoch")
    code, printed = verify()
    assert code == 1
    assert printed[0].startswith(f"session {ID}, epoch {epoch}, version {version}: is missing")


def test_an_epoch_that_was_taken_out_is_missed_by_the_next(played: int, db: Db, verify: Verify) -> None:
    query_rows(db, "DELETE FROM sync_events WHERE epoch = (SELECT min(epoch) FROM sync_events WHERE session_id = %s)"
         " AND session_id = %s RETURNING 1", ID, ID)  # fmt: skip
    code, printed = verify(ID)
    assert code == 1
    assert "version 1: follows a row of an earlier epoch that is missing" in printed[0]


@pytest.mark.parametrize("table", ["sync_events", "sync_sessions"])
def test_a_session_that_was_taken_out_of_one_table_is_named(played: int, db: Db, verify: Verify, table: str) -> None:
    for session_id in (OTHERS[0], ID, OTHERS[1]):
        query_rows(db, f"DELETE FROM {table} WHERE session_id = %s RETURNING 1", session_id)
        code, printed = verify(session_id)
        assert code == 1
        assert printed[0].startswith(f"session {session_id}, ")
    assert len(verify()[1]) == 5


@pytest.mark.parametrize(
    "change",
    [
        "sync_sessions SET cycle_count = cycle_count + 1",
        "sync_sessions SET metadata = '{}'",
        "sync_sessions SET created_at = created_at - interval '1 ms'",
        "sync_sessions SET deleted_at = now()",
        "sync_participants SET time_used_ms = time_used_ms + 1",
        "sync_participants SET first_active_at = first_active_at + interval '1 ms'",
        "sync_participants SET participant_id = 'grey'",
    ],
)
def test_a_total_that_was_changed_is_named(played: int, db: Db, verify: Verify, change: str) -> None:
    where = f"session_id = '{ID}'" + (" AND participant_id = 'white'" if "participants" in change else "")
    assert query_rows(db, f"UPDATE {change} WHERE {where} RETURNING 1")
    code, printed = verify()
    assert code == 1
    assert printed[0].startswith(f"session {ID}, ")
    assert "differs from the session's rows" in printed[0]


def test_a_commit_that_contradicts_the_ones_before_it_is_named(
    store: SessionStore, drain: Callable[[], None], db: Db, redis: redis_py.Redis, verify: Verify, database_url: str
) -> None:
    store.create(chess_request(session_id=ID))
    store.start(ID)
    for _ in range(98):
        store.switch(ID)
    entries = outbox_entries(redis)
    # A store that wrote a wrong patch, with a valid chain.
    chained, previous = [], ""
    for entry in entries:
        message = orjson.loads(entry.raw or b"") | {"previous": previous}
        if message["version"] == 2:
            message["patch"]["session_started_ms"] += 5
        raw = orjson.dumps(message)
        previous = sha1(raw).hexdigest()
        chained.append(OutboxEntry(entry.bucket, entry.stream_id, raw))
    database = Database(database_url)
    AuditLog(database).store(chained)
    database.close()
    code, printed = verify(ID)
    assert code == 1
    assert "version 100: its snapshot differs from the state that the patches make" in printed[0]


# The store


def test_events_on_their_way_are_no_fault_and_lost_ones_are(
    store: SessionStore, redis: redis_py.Redis, drain: Callable[[], None], verify: Verify
) -> None:
    store.create(chess_request(session_id=ID))
    assert verify()[0] == 0
    drain()
    store.start(ID)
    assert verify()[0] == 0
    redis.delete(KEYS.outbox(KEYS.bucket(ID)))
    code, printed = verify()
    assert code == 1
    assert "version 2: is in the store, but neither in the log nor in the outbox" in printed[0]


def test_a_store_that_lost_a_session_or_was_set_back_is_found(
    store: SessionStore, redis: redis_py.Redis, drain: Callable[[], None], verify: Verify
) -> None:
    store.create(chess_request(session_id=ID))
    early = redis.dump(KEYS.session(ID)) or b""
    store.start(ID)
    store.create(chess_request(session_id=OTHERS[0]))
    store.create(chess_request(session_id=OTHERS[1]))
    store.cancel(OTHERS[1])
    drain()
    assert verify()[0] == 0
    redis.restore(KEYS.session(ID), 0, early, replace=True)
    redis.delete(KEYS.session(OTHERS[0]), KEYS.session(OTHERS[1]))
    code, printed = verify()
    assert code == 1
    assert sorted((line.split()[1][:-1], line.split(": ")[1]) for line in printed if line.startswith("session")) == [
        (OTHERS[0], "the store does not have this session, which has not ended"),
        (ID, "the store is behind"),
    ]


MODES: list[dict[str, Any]] = [
    {"sync_mode": "per_participant", "participants": [{"participant_id": "a", "total_time_ms": 9000}]},
    {"sync_mode": "per_cycle", "time_per_cycle_ms": 1000, "max_cycles": 5},
    {"sync_mode": "per_cycle", "time_per_cycle_ms": 1000, "participants": [{"participant_id": "a"}]},
    {"sync_mode": "global", "total_time_ms": 9000, "warn_at_ms": [2000, 1000]},
    {"sync_mode": "count_up", "participants": [{"participant_id": "a"}, {"participant_id": "b"}]},
    {"sync_mode": "count_up", "max_time_ms": 9000, "action_on_timeout": {"type": "notify"}},
    {
        "sync_mode": "per_group",
        "groups": [{"group_id": "x", "total_time_ms": 5000}, {"group_id": "y"}],
        "participants": [
            {"participant_id": "a", "group_id": "x"},
            {"participant_id": "b", "group_id": "y", "total_time_ms": 4000},
        ],
    },
]


@pytest.mark.parametrize("body", MODES, ids=lambda body: body["sync_mode"])
def test_every_mode_is_stored_and_verified(
    store: SessionStore, clock: ManualClock, db: Db, drain: Callable[[], None], verify: Verify, body: dict[str, Any]
) -> None:
    store.create(CreateSession.parse(body | {"session_id": ID}))
    store.start(ID)
    for _ in range(3):
        clock.advance_ms(900)
        store.switch(ID)
    store.pause(ID)
    store.resume(ID)
    drain()
    clock.advance_ms(20_000)
    store.get(ID)
    store.delete(ID)
    drain()
    assert query_rows(db, "SELECT count(*) FROM sync_dead_letters") == [(0,)]
    assert verify()[0] == 0
    groups = query_rows(db, "SELECT DISTINCT group_id FROM sync_events WHERE event_type = 'cycle_switched' ORDER BY 1")
    assert groups == ([("x",), ("y",)] if body["sync_mode"] == "per_group" else [(None,)])

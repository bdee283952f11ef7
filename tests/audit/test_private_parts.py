"""Private parts: the log has their digests in its messages, and their values beside these."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import psycopg2
import pytest
import redis as redis_py

from syncapp.domain.principal import SCOPES, Principal
from syncapp.domain.private_parts import digest_of, split_entry
from syncapp.domain.results import Claim
from syncapp.errors import InvalidTransition
from syncapp.history.query_params import EventsQuery, HistoryQuery
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from tests.support.audit_log import AuditServices, outbox_entries, query_rows
from tests.support.flask_commands import FlaskCommand
from tests.support.outboxes import KEYS
from tests.support.store import ManualClock, chess_request, outbox_messages
from tests.support.types import Db

ID = "3e1f8e1a-3f44-4c55-9d0b-0f6f2b8f5a10"
SECRETS = ("Ada Lovelace", "Charles", "rude words", "the queen won", "a@example.org")
ADA = Principal(sub="a@example.org", scopes=frozenset(SCOPES), jti='t"1')


def play(store: SessionStore, clock: ManualClock) -> None:
    """Play a session whose metadata, reasons, result and principal are secrets."""
    claim = Claim(principal=ADA, request_id="r-1")
    store.create(chess_request(session_id=ID, metadata={"white": SECRETS[0], "odd": [1.50, 1e5, "é\\\n"]}), claim)
    store.start(ID, claim)
    clock.advance_ms(1000)
    store.switch(ID, claim)
    store.adjust(ID, claim, op="add", ms=5, reason=SECRETS[2])
    store.update(ID, {"black": SECRETS[1]}, claim)
    store.complete(ID, claim, reason="resigned by Charles", result={"text": SECRETS[3]})
    store.update(ID, {"note": 1}, claim)


Verify = Callable[[], tuple[int, list[str]]]


@pytest.fixture
def verify(flask: FlaskCommand) -> Verify:
    """Runs `flask audit verify`; returns its exit code and what it prints."""

    def verify() -> tuple[int, list[str]]:
        done = flask("audit", "verify")
        return done.exit_code, done.output.splitlines()

    return verify


def test_a_hashed_message_has_digests_in_place_of_values(
    store: SessionStore, clock: ManualClock, redis: redis_py.Redis
) -> None:
    play(store, clock)
    seen, salts = set[str](), []
    for entry in outbox_entries(redis):
        message, parts = split_entry(entry.raw or b"")
        assert not [secret for secret in SECRETS if secret.encode() in message]
        assert parts is not None
        digests = orjson.loads(message)["private"]
        values = orjson.loads(parts)
        assert digests == {name: digest_of(salt, orjson.dumps(value)) for name, (salt, value) in values.items()}
        assert values["principal"][1] == ADA.sub
        assert orjson.loads(message)["jti"] == ADA.jti
        seen |= values.keys()
        salts.append(values["principal"][0])
    assert len(set(salts)) == len(salts)
    assert seen == {"principal", "metadata", "reason", "completion"}


def test_a_published_message_has_the_values(store: SessionStore, clock: ManualClock, redis: redis_py.Redis) -> None:
    listener: Any = redis.pubsub(ignore_subscribe_messages=True)  # type: ignore[no-untyped-call]  # redis-py has no types here
    listener.subscribe(Keyspace().channel(ID))
    listener.get_message(timeout=60)
    play(store, clock)
    published = [orjson.loads(listener.get_message(timeout=60)["data"]) for _ in outbox_entries(redis)]
    logged = outbox_messages(redis, ID)
    for message in [*published, *logged]:
        message.pop("private", None)
        message.pop("jti", None)
    assert published == logged
    assert published[0]["patch"]["metadata"]["white"] == SECRETS[0]
    assert published[5]["event"]["result"] == {"text": SECRETS[3]}


def test_what_a_session_does_by_itself_names_no_principal_and_no_token(
    store: SessionStore, clock: ManualClock, redis: redis_py.Redis
) -> None:
    claim = Claim(principal=ADA)
    store.create(chess_request(session_id=ID, metadata={"white": SECRETS[0]}), claim)
    store.start(ID, claim)
    clock.advance_ms(24 * 3_600_000)
    with pytest.raises(InvalidTransition):
        store.switch(ID, claim)
    message, parts = split_entry(outbox_entries(redis)[-1].raw or b"")
    event = orjson.loads(message)
    assert event["actor"] == "system"
    assert "jti" not in event
    assert orjson.loads(parts or b"").keys() == event["private"].keys() == {"metadata"}


def test_without_anything_private_the_message_is_one_line_without_digests(
    store: SessionStore, clock: ManualClock, redis: redis_py.Redis
) -> None:
    store.create(chess_request(session_id=ID))
    store.start(ID)
    store.update(ID, {"a": 1})
    store.update(ID, {"a": None})
    first, second, third, last = (entry.raw or b"" for entry in outbox_entries(redis))
    assert not [raw for raw in (first, second, last) if b"\n" in raw or b'"private"' in raw]
    assert b"\n" in third
    assert orjson.loads(last)["patch"]["metadata"] == {}


def test_no_column_but_those_of_the_parts_has_a_value(
    store: SessionStore, clock: ManualClock, log: AuditServices, db: Db
) -> None:
    play(store, clock)
    log.store()
    rows = query_rows(db, "SELECT (to_jsonb(log) - 'private' - 'principal')::text FROM sync_events AS log")
    assert not [row for row in rows for secret in SECRETS if secret in row[0]]
    ((metadata, principal),) = query_rows(db, "SELECT metadata, principal FROM sync_sessions")
    assert (metadata["white"], metadata["black"], metadata["note"]) == (*SECRETS[:2], 1)
    assert principal == ADA.sub


def test_the_history_has_the_values_the_principal_and_the_token(
    store: SessionStore, clock: ManualClock, log: AuditServices, verify: Verify
) -> None:
    play(store, clock)
    log.store()
    events = log.history.events(ID, EventsQuery()).rows
    assert {(event["principal"], event["jti"]) for event in events} == {(ADA.sub, ADA.jti)}
    assert events[0]["patch"]["metadata"]["white"] == SECRETS[0]
    assert events[3]["event"]["reason"] == SECRETS[2]
    assert events[5]["event"]["result"] == {"text": SECRETS[3]}
    assert "erased" not in events[0]
    exported = [event for page in log.history.export(ID) for event in page]
    assert exported[0]["snapshot"]["metadata"]["white"] == SECRETS[0]
    assert exported[5]["snapshot"]["completion"]["result"] == {"text": SECRETS[3]}
    point = log.history.restore_point(ID)
    assert point
    assert point.session == store.get(ID).found
    assert len(log.history.events(ID, EventsQuery(principal=ADA.sub)).rows) == len(events)
    assert log.history.events(ID, EventsQuery(principal="bob")).rows == []
    assert [row["session_id"] for row in log.history.sessions(HistoryQuery(principal=ADA.sub)).rows] == [ID]
    assert log.history.sessions(HistoryQuery(principal="bob")).rows == []
    assert verify() == (0, ["Read 7 events of 1 session.", "Everything is as committed."])


TAMPERED = {
    "metadata": """replace(private::text, 'Ada', 'Eve')::json""",
    "reason": """replace(private::text, 'rude', 'kind')::json""",
    "completion": """replace(private::text, 'queen', 'king')::json""",
    "principal": """replace(private::text, 'a@ex', 'b@ex')::json""",
}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_part_that_was_changed_by_hand_is_named(
    name: str, store: SessionStore, clock: ManualClock, log: AuditServices, db: Db, verify: Verify
) -> None:
    play(store, clock)
    log.store()
    change = f"private = {TAMPERED[name]}, principal = replace(principal, 'a@', CASE '{name}' WHEN 'principal' THEN 'b@' ELSE 'a@' END)"  # noqa: E501  # one SQL expression
    assert query_rows(db, f"UPDATE sync_events SET {change} WHERE private::text <> {TAMPERED[name]}::text RETURNING 1")
    code, printed = verify()
    assert code == 1
    assert f"private part {name} was changed: it differs from its digest" in printed[0]


def test_a_principal_that_was_changed_in_its_column_only_is_found(
    store: SessionStore, clock: ManualClock, log: AuditServices, db: Db, verify: Verify
) -> None:
    play(store, clock)
    log.store()
    query_rows(db, "UPDATE sync_events SET principal = 'bob' WHERE version = 2 RETURNING 1")
    code, printed = verify()
    assert code == 1
    assert "column principal differs from its message" in printed[0]


def test_a_part_that_no_message_has_a_digest_of_is_found(
    store: SessionStore, clock: ManualClock, log: AuditServices, db: Db, verify: Verify
) -> None:
    store.create(chess_request(session_id=ID))
    log.store()
    query_rows(db, """UPDATE sync_events SET private = '{"reason":["00","forged"]}' RETURNING 1""")
    code, printed = verify()
    assert code == 1
    assert "private part reason is not one of its message" in printed[0]


def test_a_restored_session_has_its_values_and_new_salts(
    store: SessionStore, clock: ManualClock, log: AuditServices, redis: redis_py.Redis, verify: Verify
) -> None:
    play(store, clock)
    log.store()
    before = store.get(ID).found
    fields: Any = redis.hgetall(KEYS.session(ID))
    redis.delete(KEYS.session(ID))
    log.recoveries["run"].recover(ID)
    after = store.get(ID).found
    assert (after.metadata, after.completion) == (before.metadata, before.completion)
    again: Any = redis.hgetall(KEYS.session(ID))
    for name in (b"metadata_proof", b"completion_proof"):
        assert fields[name] != again[name]
    assert not [entry for entry in outbox_entries(redis) if SECRETS[0].encode() in split_entry(entry.raw or b"")[0]]
    log.store()
    assert log.history.events(ID, EventsQuery()).rows[-1]["event"]["reason"] == "run"  # the event's own
    assert verify()[0] == 0


def test_metadata_that_an_earlier_release_replaced_are_in_clear_until_the_next_update(
    store: SessionStore, clock: ManualClock, log: AuditServices, redis: redis_py.Redis, verify: Verify
) -> None:
    """Such a release replaces the metadata but not their proof, which then belongs to other metadata."""
    store.create(chess_request(session_id=ID, metadata={"a": 1}))
    redis.hset(KEYS.session(ID), "metadata", '{"a":2}')
    store.cancel(ID)
    (_, cancelled) = (entry.raw or b"" for entry in outbox_entries(redis))
    assert b'{\\"a\\":2}' in cancelled
    assert b'"private"' not in cancelled


def test_a_dead_letter_is_found_by_its_key_and_stored_later_with_its_parts(
    store: SessionStore, clock: ManualClock, log: AuditServices, db: Db, verify: Verify
) -> None:
    from syncapp.audit.dead_letters import DeadLetters

    play(store, clock)
    query_rows(db, "ALTER TABLE sync_events ADD CONSTRAINT broken CHECK (version <> 4); SELECT 1")
    try:
        log.store()
    finally:
        query_rows(db, "ALTER TABLE sync_events DROP CONSTRAINT broken; SELECT 1")
    assert query_rows(db, "SELECT session_id::text, version FROM sync_dead_letters") == [(ID, 4)]
    assert DeadLetters(log.database).redrive(log.audit) == (1, 0)
    assert log.history.events(ID, EventsQuery()).rows[3]["event"]["reason"] == SECRETS[2]
    assert verify()[0] == 0


def test_an_alert_has_no_private_part(
    store: SessionStore, clock: ManualClock, redis: redis_py.Redis, log: AuditServices, db: Db
) -> None:
    from syncapp.audit.log import AuditLog

    alerts: list[Any] = []
    play(store, clock)
    query_rows(db, "ALTER TABLE sync_events ADD CONSTRAINT broken CHECK (version <> 4); SELECT 1")
    try:
        AuditLog(log.database, lambda kind, **context: alerts.append(context)).store(outbox_entries(redis))
    finally:
        query_rows(db, "ALTER TABLE sync_events DROP CONSTRAINT broken; SELECT 1")
    (alert,) = alerts
    assert "time_adjusted" in alert["message"]
    assert not [secret for secret in SECRETS if secret in str(alert)]


def test_two_tenants_with_one_id_are_two_sessions_in_the_log(
    store: SessionStore,
    clock: ManualClock,
    log: AuditServices,
    verify: Verify,
    flask: FlaskCommand,
    redis: redis_py.Redis,
) -> None:
    red = Principal(sub="red", tenant="red", scopes=frozenset(SCOPES))
    store.create(chess_request(session_id=ID, metadata={"of": "default"}))
    store.create(chess_request(session_id=ID, metadata={"of": "red"}), Claim(principal=red))
    log.store()
    for tenant, name in (("default", ID), ("red", f"red/{ID}")):
        (row,) = log.history.sessions(HistoryQuery(), tenant).rows
        assert (row["session_id"], row["metadata"]) == (ID, {"of": tenant})
        (event,) = log.history.events(name, EventsQuery()).rows
        assert event["patch"]["metadata"] == {"of": tenant}
    assert log.history.sessions(HistoryQuery(), "blue").rows == []
    other = store.create(chess_request(), Claim(principal=red)).found.session_id
    log.store()
    page = log.history.sessions(HistoryQuery(limit=1), "red")
    rest = log.history.sessions(HistoryQuery.from_args({"limit": ["1"], "cursor": [str(page.next_cursor)]}), "red")
    assert {row["session_id"] for row in page.rows + rest.rows} == {ID, other.removeprefix("red/")}
    redis.delete(KEYS.session(f"red/{ID}"))
    assert flask("sessions", "recover", ID, "--tenant", "red").output.endswith(f"red/{ID} restored\n1 restored\n")
    assert flask("sessions", "recover", "--all").output == "3 current\n"
    log.store()
    assert flask("audit", "verify", ID, "--tenant", "red").output.startswith("Read 2 events of 1 session.")
    assert sorted(log.history.recent_ids(0)) == sorted([ID, f"red/{ID}", other])
    assert verify()[0] == 0


def test_a_role_that_writes_as_earlier_releases_do_still_can(db: Db) -> None:
    insert = (
        "INSERT INTO sync_events (session_id, epoch, version, event_type, at, sync_mode, status, cycle_count, actor,"
        " patch, message, content_hash) VALUES (%s, 1, 1, '', now(), 'global', 'pending', 0, '', '{}', '{}', 'hash')"
        " RETURNING tenant, private"
    )
    assert query_rows(db, insert, ID) == [("default", None)]
    with pytest.raises(psycopg2.errors.UniqueViolation):
        query_rows(db, insert, ID)


@pytest.mark.parametrize("field", ["metadata_proof", "completion_proof"])
def test_values_that_are_in_clear_in_a_later_message_are_no_fault(
    field: str,
    store: SessionStore,
    clock: ManualClock,
    log: AuditServices,
    redis: redis_py.Redis,
    verify: Verify,
    db: Db,
) -> None:
    """A process of an earlier release does not use the proofs, so its snapshots have the values."""
    store.create(chess_request(session_id=ID, metadata={"a": 1}))
    if field == "completion_proof":
        store.complete(ID, reason="over")
    redis.hdel(KEYS.session(ID), field)
    if field == "completion_proof":
        store.update(ID, {"b": 2})
    else:
        store.cancel(ID)
    log.store()
    assert verify() == (
        0,
        ["Read {} events of 1 session.".format(3 if "comp" in field else 2), "Everything is as committed."],
    )
    assert store.delete(ID, erases=True).session is None
    log.store()
    assert query_rows(db, "SELECT count(*) FROM sync_events") == [(0,)]  # erased as a whole

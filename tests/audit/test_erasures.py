"""Erasures: private parts leave the log, and what is left verifies."""

from __future__ import annotations

import time
from typing import Any

import orjson
import psycopg2
import pytest
import redis as redis_py
from flask.testing import FlaskClient

from syncapp import create_app
from syncapp.audit.erasures import repeat_erasures
from syncapp.audit.event import OutboxEntry
from syncapp.domain.principal import SCOPES, Principal
from syncapp.domain.results import NO_CLAIM, Claim
from syncapp.errors import SessionNotFound
from syncapp.history.query_params import AtQuery, EventsQuery, HistoryQuery
from syncapp.history.recovery import Outcome
from syncapp.postgres.database import Database
from syncapp.store.sessions import SessionStore
from tests.support.audit_log import AuditServices, outbox_entries, query_rows
from tests.support.flask_commands import FlaskCommand
from tests.support.outboxes import KEYS
from tests.support.played_game import answer_data
from tests.support.postgres_roles import limited_role
from tests.support.rest import CHESS, expect_error
from tests.support.store import NOON_MS, ManualClock, chess_request, make_settings
from tests.support.tokens import SECRET, bearer
from tests.support.types import Db

ID = "3e1f8e1a-3f44-4c55-9d0b-0f6f2b8f5a10"
OTHER = "00000000-0000-4000-8000-000000000000"
SECRETS = ("Ada Lovelace", "rude words", "the queen won", "a@example.org")


def claim_of(sub: str, tenant: str = "default") -> Claim:
    return Claim(principal=Principal(sub=sub, tenant=tenant, scopes=frozenset(SCOPES)))


ADA, BOB = claim_of(SECRETS[3]), claim_of("bob")


def play(store: SessionStore, session_id: str = ID, claim: Claim = ADA) -> None:
    store.create(chess_request(session_id=session_id.rpartition("/")[2], metadata={"white": SECRETS[0]}), claim)
    store.adjust(session_id, claim, op="add", ms=5, reason=SECRETS[1])
    store.complete(session_id, claim, reason="over", result={"text": SECRETS[2]})
    store.update(session_id, {"note": 1}, BOB)


def leaked(db: Db) -> list[str]:
    """Return the secrets that any table of the log still has."""
    tables = ("sync_events", "sync_sessions", "sync_participants", "sync_erasures")
    texts = [text for table in tables for (text,) in query_rows(db, f"SELECT one::text FROM {table} AS one")]
    texts += [text for (text,) in query_rows(db, "SELECT encode(raw, 'escape') || error FROM sync_dead_letters")]
    return [secret for secret in SECRETS if any(secret in text for text in texts)]


def test_an_erased_session_leaves_digests_that_verify(
    store: SessionStore, clock: ManualClock, log: AuditServices, db: Db, flask: FlaskCommand
) -> None:
    play(store)
    play(store, OTHER)
    log.store()
    assert set(leaked(db)) == set(SECRETS)
    store.delete(ID, ADA, erases=True)
    log.store()
    ((texts,),) = query_rows(db, "SELECT string_agg(log::text, '') FROM sync_events AS log WHERE session_id = %s", ID)
    assert not [secret for secret in SECRETS if secret in texts]
    checked = flask("audit", "verify")
    assert checked.exit_code == 0, checked.output
    assert "Everything is as committed." in checked.output
    assert "11 private parts of 1 session were erased." in checked.output
    assert query_rows(db, "SELECT metadata, principal FROM sync_sessions WHERE session_id = %s", ID) == [(None, None)]
    events = log.history.events(ID, EventsQuery()).rows
    assert [event.get("erased") for event in events] == [
        ["metadata", "principal"], ["principal", "reason"], ["completion", "metadata", "principal"],
        ["completion", "metadata", "principal"], ["principal"],
    ]  # fmt: skip
    assert "principal" not in events[0]
    exported = [event for page in log.history.export(ID) for event in page]
    assert exported[0]["snapshot"]["metadata"] == {}
    assert log.history.state_at(ID, AtQuery(version=2)).session.metadata == {}
    kept = log.history.events(OTHER, EventsQuery()).rows
    assert kept[0]["patch"]["metadata"] == {"white": SECRETS[0]}


def test_a_session_is_erased_twice_like_once(
    store: SessionStore, clock: ManualClock, log: AuditServices, db: Db, flask: FlaskCommand
) -> None:
    play(store)
    for _ in range(2):
        store.delete(ID, ADA, erases=True)
        log.store()
        assert leaked(db) == []
    assert repeat_erasures(log.database) == 0
    assert flask("audit", "verify").exit_code == 0


def test_a_session_that_the_store_no_longer_has_is_erased_and_not_restored(
    store: SessionStore, clock: ManualClock, log: AuditServices, db: Db, redis: redis_py.Redis, flask: FlaskCommand
) -> None:
    play(store)
    log.store()
    redis.flushall()
    clock.set(NOON_MS + 5000)
    store.delete(ID, ADA, erases=True)
    log.store()
    assert leaked(db) == []
    assert flask("audit", "verify").exit_code == 0
    assert log.recoveries["run"].recover(ID) is Outcome.GONE
    with pytest.raises(SessionNotFound):
        store.get(ID)


def test_an_id_that_nothing_has_can_be_erased(
    store: SessionStore, clock: ManualClock, log: AuditServices, db: Db, flask: FlaskCommand
) -> None:
    store.delete(ID, erases=True)
    log.store()
    assert query_rows(db, "SELECT session_id::text, is_whole, events FROM sync_erasures") == [(ID, False, 0)]
    assert flask("audit", "verify").exit_code == 0


def test_a_session_that_is_created_again_with_the_id_is_not_erased(
    store: SessionStore, clock: ManualClock, log: AuditServices, db: Db, flask: FlaskCommand
) -> None:
    play(store)
    store.delete(ID, ADA, erases=True)
    play(store, ID, BOB)  # at the same instant
    log.store()
    assert repeat_erasures(log.database) == 0
    (*_, last) = log.history.events(ID, EventsQuery()).rows
    assert last["patch"]["metadata"] == {"white": SECRETS[0], "note": 1}
    assert query_rows(db, "SELECT metadata FROM sync_sessions") == [({"white": SECRETS[0], "note": 1},)]
    assert flask("audit", "verify").exit_code == 0
    assert log.history.restore_point(ID).session.metadata == {"white": SECRETS[0], "note": 1}  # type: ignore[union-attr]  # it is there


def test_events_that_are_stored_after_the_erasure_are_erased_by_its_repetition(
    store: SessionStore, clock: ManualClock, log: AuditServices, db: Db, flask: FlaskCommand, redis: redis_py.Redis
) -> None:
    play(store)
    store.delete(ID, ADA, erases=True)
    *late, first, erasure = outbox_entries(redis)
    log.audit.store([first, erasure])
    log.audit.store(late[2:])
    log.audit.store(late[:2])
    assert leaked(db)
    redis.delete(KEYS.outbox(KEYS.bucket(ID)))
    checked = flask("audit", "verify")
    assert checked.exit_code == 0, checked.output
    assert repeat_erasures(log.database) > 0
    assert leaked(db) == []
    assert repeat_erasures(log.database) == 0
    assert flask("audit", "verify").exit_code == 0


def complete_in_clear(store: SessionStore) -> None:
    """Play a session as an earlier release does: its hashed messages have the values."""
    store.create(chess_request(session_id=ID))
    store._runner.run("update", ID, NO_CLAIM, ["1", orjson.dumps({"white": SECRETS[0]}), ""])
    store._runner.run("complete", ID, NO_CLAIM, [orjson.dumps(SECRETS[1]), orjson.dumps(SECRETS[2])])


def test_a_session_with_values_in_its_messages_is_erased_as_a_whole(
    store: SessionStore, clock: ManualClock, log: AuditServices, db: Db, flask: FlaskCommand
) -> None:
    complete_in_clear(store)
    clock.advance_ms(1000)
    store.delete(ID, erases=True)
    clock.advance_ms(1000)
    play(store, ID, BOB)
    log.store()
    assert query_rows(db, "SELECT is_whole, events FROM sync_erasures") == [(True, 4)]
    assert [event["version"] for event in log.history.events(ID, EventsQuery()).rows] == [1, 2, 3, 4]
    checked = flask("audit", "verify")
    assert checked.exit_code == 0, checked.output
    assert [row["session_id"] for row in log.history.sessions(HistoryQuery()).rows] == [ID]


def test_late_events_of_a_session_that_was_erased_as_a_whole_are_no_fault_and_go_too(
    store: SessionStore, clock: ManualClock, log: AuditServices, db: Db, flask: FlaskCommand, redis: redis_py.Redis
) -> None:
    complete_in_clear(store)
    store.delete(ID, erases=True)
    first, second, *others, erasure = outbox_entries(redis)
    log.audit.store([first, *others, erasure])
    log.audit.store([second])
    redis.delete(KEYS.outbox(KEYS.bucket(ID)))
    checked = flask("audit", "verify")
    assert checked.exit_code == 0, checked.output
    assert repeat_erasures(log.database) == 1
    assert leaked(db) == []
    assert query_rows(db, "SELECT count(*) FROM sync_events") == [(0,)]
    assert query_rows(db, "SELECT count(*) FROM sync_sessions") == [(0,)]
    assert flask("audit", "verify").exit_code == 0


def test_dead_letters_lose_their_private_parts_too(
    store: SessionStore, clock: ManualClock, log: AuditServices, db: Db, flask: FlaskCommand
) -> None:
    query_rows(db, "ALTER TABLE sync_events ADD CONSTRAINT broken CHECK (version <> 2); SELECT 1")
    try:
        play(store)
        log.store()
        store.delete(ID, ADA, erases=True)
        log.store()
        assert query_rows(db, "SELECT count(*) FROM sync_dead_letters") == [(1,)]
        assert leaked(db) == []
    finally:
        query_rows(db, "ALTER TABLE sync_events DROP CONSTRAINT broken; SELECT 1")
    assert flask("audit", "redrive").exit_code == 0
    assert flask("audit", "verify").exit_code == 0


def test_a_principal_is_erased_everywhere_in_its_tenant_and_metadata_stay(
    store: SessionStore, clock: ManualClock, log: AuditServices, db: Db, flask: FlaskCommand
) -> None:
    clock.set(int(time.time() * 1000) - 1000)  # the command erases what was committed until now
    red = claim_of(SECRETS[3], "red")
    play(store)
    play(store, OTHER, BOB)
    store.create(chess_request(session_id=ID), red)
    told = flask("sessions", "erase", "--principal", SECRETS[3])
    assert told.exit_code == 0, told.output
    assert told.output.splitlines() == [
        "Erased the principal from 3 events.",
        "It created 1 session, whose metadata stay: erase that session if it names the principal.",
    ]
    events = log.history.events(ID, EventsQuery()).rows
    assert [event.get("erased") for event in events] == [
        ["principal"], ["principal", "reason"], ["completion", "principal"], ["completion"],
    ]  # fmt: skip
    assert events[0]["patch"]["metadata"] == {"white": SECRETS[0]}
    assert log.history.events(OTHER, EventsQuery()).rows[1]["event"]["reason"] == SECRETS[1]
    assert log.history.events(f"red/{ID}", EventsQuery()).rows[0]["principal"] == SECRETS[3]
    assert query_rows(db, "SELECT count(*) FROM sync_sessions WHERE principal = %s AND tenant = 'default'", SECRETS[3])[
        0
    ] == (0,)
    checked = flask("audit", "verify")
    assert checked.exit_code == 0, checked.output


def test_a_principals_events_that_are_stored_later_are_erased_by_the_repetition(
    store: SessionStore, clock: ManualClock, log: AuditServices, db: Db, redis: redis_py.Redis
) -> None:
    from syncapp.audit.erasures import erase_principal

    play(store)
    assert erase_principal(log.database, "default", SECRETS[3], NOON_MS) == (0, 0)
    log.store()
    assert SECRETS[3] in leaked(db)
    assert repeat_erasures(log.database) == 3
    assert leaked(db) == [SECRETS[0]]
    ((erased,),) = query_rows(db, "SELECT string_agg(one::text, '') FROM sync_erasures AS one")
    assert SECRETS[3] not in erased


def test_the_command_erases_a_session_of_a_tenant(
    store: SessionStore, clock: ManualClock, log: AuditServices, db: Db, flask: FlaskCommand
) -> None:
    play(store)
    play(store, f"red/{ID}", claim_of(SECRETS[3], "red"))
    told = flask("sessions", "erase", ID, "--tenant", "red")
    assert (told.exit_code, told.output) == (0, "The session is deleted and erased.\n")
    assert "erased" in log.history.events(f"red/{ID}", EventsQuery()).rows[0]
    assert "erased" not in log.history.events(ID, EventsQuery()).rows[0]
    assert flask("sessions", "erase").exit_code == 2
    assert flask("sessions", "erase", ID, "--principal", "a").exit_code == 2


def test_a_replay_of_an_erasing_delete_is_not_another_command(store: SessionStore, clock: ManualClock) -> None:
    play(store)
    key = Claim(idempotency_key="k" * 20)
    assert not store.delete(ID, key, erases=True).replayed
    assert store.delete(ID, key, erases=True).replayed


def test_a_role_that_may_only_write_events_can_erase_and_a_reader_cannot(
    store: SessionStore, clock: ManualClock, log: AuditServices, db: Db, database_url: str
) -> None:
    play(store)
    log.store()
    for rights, allowed in (("SELECT", False), ("SELECT, INSERT", True)):
        with limited_role(database_url, rights) as url:
            database = Database(url)
            try:
                if allowed:
                    assert repeat_erasures(database) == 0
                    query = f"SELECT sync_erase_session('default', '{ID}', {2**50})"
                    with database.transaction() as cursor:
                        cursor.execute(query)
                    with pytest.raises(psycopg2.errors.InsufficientPrivilege), database.transaction() as cursor:
                        cursor.execute("SET syncapp.allow_changes = 'on'; UPDATE sync_events SET private = NULL")
                else:
                    with pytest.raises(psycopg2.errors.InsufficientPrivilege):
                        repeat_erasures(database)
            finally:
                database.close()
    assert leaked(db) == []


def test_an_erasure_that_cannot_be_read_is_a_dead_letter(log: AuditServices, db: Db) -> None:
    entries: list[Any] = [
        OutboxEntry(0, "1-1", b'{"erase":1}'),
        OutboxEntry(0, "1-2", b'{"erase":{"session_id":"x"},"before":1}'),
    ]
    stored = log.audit.store(entries)
    assert [each.kind for each in stored.dead_letters] == ["refused", "refused"]


def test_a_delete_over_rest_erases_if_it_says_so(client: FlaskClient, log: AuditServices, db: Db) -> None:
    url = client.post("/v1/sessions", json=CHESS | {"metadata": {"white": SECRETS[0]}}).headers["Location"]
    expect_error(client.delete(f"{url}?erase=yes"), 400, "VALIDATION_ERROR")
    expect_error(client.delete(f"{url}?erased=true"), 400, "VALIDATION_ERROR")
    assert client.get(url).status_code == 200
    assert client.delete(f"{url}?erase=false").status_code == 204
    log.store()
    assert leaked(db) == [SECRETS[0]]
    assert client.delete(f"{url}?erase=true").status_code == 204  # it no longer exists
    log.store()
    assert leaked(db) == []
    (event, _) = answer_data(client.get(f"{url}/events"))["events"]
    assert event["erased"] == ["metadata"]


def test_erasing_needs_the_scope_of_deleting(redis_url: str, database_url: str, log: AuditServices, db: Db) -> None:
    client = create_app(
        make_settings(redis_url, database_url=database_url, auth="required", auth_secrets=SECRET)
    ).test_client()
    url = client.post("/v1/sessions", json=CHESS | {"metadata": {"white": SECRETS[0]}}, headers=bearer()).headers[
        "Location"
    ]
    for query in ("erase=true", "erase=yes", "unknown=1"):
        refused = expect_error(
            client.delete(f"{url}?{query}", headers=bearer(scope="session:control")), 403, "FORBIDDEN"
        )
        assert refused["details"] == {"missing_scope": "session:delete"}
    other = client.delete(f"{url}?erase=true", headers=bearer(scope="session:delete", tenant="other"))
    assert other.status_code == 204  # as for a session that does not exist
    log.store()
    assert leaked(db)[:1] == [SECRETS[0]]
    assert client.delete(f"{url}?erase=true", headers=bearer(scope="session:delete")).status_code == 204
    log.store()
    assert SECRETS[0] not in leaked(db)

"""`flask audit verify` explains forks by dead letters, and still finds every other change."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from contextlib import ExitStack
from hashlib import sha1, sha256
from pathlib import Path
from typing import Any

import orjson
import pytest
import redis as redis_py

from syncapp.dev.servers import Valkey
from syncapp.domain.schemas import CreateSession
from syncapp.history.recovery import Outcome
from tests.support.audit_log import AuditServices, query_rows
from tests.support.flask_commands import run_flask
from tests.support.forked_log import FORK, ForkingSession, event_keys, expect_every_forgery_is_found, forge_row
from tests.support.lost_sessions import ID, lose_session
from tests.support.outboxes import KEYS
from tests.support.store import NOON_MS, chess_request, make_settings, make_store
from tests.support.types import Db
from tests.support.web_clients import wait_until


@pytest.mark.parametrize(
    ("lost", "won", "outcome", "expected"),
    [
        (1, 1, Outcome.RENEWED, [(4, 4, 1, "epoch E")]),
        (3, 3, Outcome.RENEWED, [(4, 6, 3, "epoch E")]),
        (1, 3, Outcome.RENEWED, [(4, 4, 1, "version 5")]),
        (2, 3, Outcome.RENEWED, [(4, 5, 2, "version 6")]),
        (3, 1, Outcome.REPLACED, []),  # the log continues from its own rows; nothing follows the dead letter
    ],
)
def test_a_fork_that_was_recovered_is_told_and_every_row_of_it_is_still_checked(
    play: ForkingSession, lost: int, won: int, outcome: Outcome, expected: list[Any]
) -> None:
    play.begin()
    play.fork(lost, won)
    assert play.recover() is outcome
    assert play.forks() == expected
    play.commit(2)
    assert play.forks() == expected
    expect_every_forgery_is_found(play)


@pytest.mark.parametrize(("lost", "won"), [(2, 130), (130, 132), (210, 210), (97, 97)])
def test_a_fork_of_many_commits_goes_over_snapshots(play: ForkingSession, lost: int, won: int) -> None:
    play.begin()
    play.fork(lost, won)
    last = 3 + lost
    goes_on = "epoch E" if lost == won else f"version {last + 1}"
    assert play.recover() is Outcome.RENEWED
    assert play.forks() == [(4, last, lost, goes_on)]
    for version in (4, last - 1, last):
        back = forge_row(play.db, NOON_MS, version)
        assert play.verify()[0] == 1
        back()
    assert play.forks() == [(4, last, lost, goes_on)]


def test_the_state_of_the_side_that_goes_on_is_held_against_its_snapshots(play: ForkingSession) -> None:
    play.begin()
    play.fork(2, 2)
    # From here on the store's patch is wrong, with a valid chain and valid hashes.
    play.commit(110)
    select = "SELECT version, message::text FROM sync_events WHERE epoch = %s AND version > 5 ORDER BY version"
    texts = query_rows(play.db, select, NOON_MS)
    chained = None
    for version, text in texts:
        message = orjson.loads(text)
        if chained:
            message["previous"] = chained
        if version == 50:
            message["patch"]["session_started_ms"] = 5
        raw = orjson.dumps(message)
        chained = sha1(raw).hexdigest()
        query_rows(
            play.db,
            "UPDATE sync_events SET message = %s, content_hash = %s, previous_hash = %s, patch = %s::json"
            " WHERE epoch = %s AND version = %s RETURNING 1",
            raw.decode(), sha256(raw).digest(), bytes.fromhex(message["previous"]),
            orjson.dumps(message["patch"]).decode(), NOON_MS, version,
        )  # fmt: skip
    code, printed = play.verify()
    assert code == 1
    assert FORK.fullmatch(printed[0])
    assert "version 100: its snapshot differs from the state that the patches make" in printed[1]


def test_a_fork_that_goes_on_without_a_recovery_is_told_too(play: ForkingSession) -> None:
    play.begin()
    play.fork(2, 3)
    assert play.forks() == [(4, 5, 2, "version 6")]
    play.commit(3)
    assert play.forks() == [(4, 5, 2, "version 6")]


def test_a_store_at_the_other_commit_of_the_newest_version_is_a_fork_and_one_behind_it_is_not(
    play: ForkingSession,
) -> None:
    play.begin()
    play.fork(2, 1)
    code, printed = play.verify()
    assert (code, "the store is behind" in printed[0]) == (1, True)
    play.commit(1)
    assert play.forks() == [(4, 5, 2, "the store (until flask sessions recover)")]
    query_rows(play.db, "DELETE FROM sync_dead_letters WHERE version = 4 RETURNING 1")
    code, printed = play.verify()
    assert (code, "the store made another commit of this version" in printed[0]) == (1, True)


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("harm", ["deleted", "changed"])
def test_a_dead_letter_that_is_gone_or_changed_explains_nothing(play: ForkingSession, version: int, harm: str) -> None:
    play.begin()
    play.fork(2, 2)
    play.recover()
    assert play.forks() == [(4, 5, 2, "epoch E")]
    where = f"WHERE version = {version} RETURNING 1"
    if harm == "deleted":
        assert query_rows(play.db, f"DELETE FROM sync_dead_letters {where}")
    else:
        change = r"overlay(raw PLACING '\x78' FROM position('request' IN encode(raw, 'escape')) + 15)"
        assert query_rows(play.db, f"UPDATE sync_dead_letters SET raw = {change} {where}")
    code, printed = play.verify()
    assert (code, "of an earlier epoch" in printed[0]) == (1, True)


def test_a_redrive_changes_nothing_of_a_fork(play: ForkingSession) -> None:
    play.begin()
    play.fork(2, 3)
    play.recover()
    expected = play.forks()
    assert play.run("audit", "redrive") == (0, ["0 dead letters were stored, 2 were not."])
    assert play.forks() == expected
    # As an earlier release may have marked them.
    query_rows(play.db, "UPDATE sync_dead_letters SET redriven_at = now() RETURNING 1")
    assert play.forks() == expected


def test_a_fork_from_the_first_row_of_an_epoch(play: ForkingSession) -> None:
    for commits in (2, 3):
        play.clock.set(NOON_MS)
        lose_session(play.client)
        play.begin(commits)
        play.clock.advance_ms(5000)
        play.log.store()
        play.number = itertools.count(100)
        if commits == 2:
            play.client.delete(KEYS.session(ID))
    assert {epoch for epoch, _ in event_keys(play.db)} == {NOON_MS}
    assert play.verify()[0] == 0  # the same message twice is no fork
    lose_session(play.client)
    play.clock.set(NOON_MS)
    play.store.create(chess_request(3_600_000, session_id=ID, increment_ms=1000, metadata={"other": True}))
    play.log.store()
    code, printed = play.verify()
    assert (code, "the store is behind" in printed[0]) == (1, True)
    play.store.start(ID)
    play.number = itertools.count(200)
    play.commit(1)
    assert play.recover() is Outcome.RENEWED
    assert play.forks() == [(1, 3, 3, "epoch E")]
    expect_every_forgery_is_found(play)


def test_a_fork_from_the_first_row_of_a_later_epoch_is_held_against_the_epoch_before(play: ForkingSession) -> None:
    play.begin()
    play.log.store()
    file = play.file()
    play.clock.advance_ms(50)
    now_ms = play.clock.now_ms
    for name in ("first", "second"):
        play.back(file)
        play.clock.set(now_ms)
        play.store.delete(ID)
        play.store.create(chess_request(60_000, session_id=ID, metadata={"name": name}))
        play.store.start(ID)
        if name == "second":
            play.commit(2)
        play.log.store()
    assert play.forks() == [(1, 2, 2, "version 3")]
    expect_every_forgery_is_found(play)


def test_several_forks_of_one_session_are_told_one_by_one(play: ForkingSession) -> None:
    play.begin()
    play.fork(2, 3)
    play.fork(1, 2)
    assert play.forks() == [(4, 5, 2, "version 6"), (7, 7, 1, "version 8")]
    assert play.recover() is Outcome.RENEWED
    play.fork(1, 1)
    assert play.recover() is Outcome.RENEWED
    assert play.forks() == [(4, 5, 2, "version 6"), (7, 7, 1, "version 8"), (2, 2, 1, "epoch E")]
    expect_every_forgery_is_found(play)


def test_three_pasts_of_one_version_and_a_fork_of_the_other_side(play: ForkingSession) -> None:
    play.begin()
    file = play.file()
    play.commit(1)  # version 4
    for _ in range(2):
        play.back(file)
        play.commit(1)
    other = play.file()
    play.commit(1)  # version 5, on the third version 4
    play.back(other)
    play.commit(2)  # another version 5, and 6
    assert len(query_rows(play.db, "SELECT FROM sync_dead_letters")) == 3
    assert play.forks() == [(4, 4, 1, "version 5"), (4, 5, 2, "version 6")]
    play.recover()
    expect_every_forgery_is_found(play)


def test_a_session_that_goes_back_to_its_first_past(play: ForkingSession) -> None:
    play.begin()
    file = play.file()
    play.commit(2)
    first = play.file()  # at version 5
    play.back(file)
    play.commit(3)  # 4 and 5 are letters, 6 is a row
    play.back(first)
    play.commit(2)  # 6 is a letter, 7 is a row
    assert play.forks() == [(4, 5, 2, "version 6"), (6, 6, 1, "version 7")]
    play.recover()
    expect_every_forgery_is_found(play)


def test_what_both_pasts_told_of_the_whole_is_that_of_the_first_and_nothing_else(play: ForkingSession) -> None:
    play.store.create(chess_request(60_000, session_id=ID, metadata={"a": 1}))
    play.log.store()
    file = play.file()
    play.store.start(ID)
    play.store.update(ID, {"a": 2})
    play.log.store()
    play.store.complete(ID)
    play.log.store()
    play.back(file)
    play.clock.advance_ms(700)
    play.store.update(ID, {"a": 3, "b": 1})
    play.store.start(ID)
    play.clock.advance_ms(300)
    play.store.switch(ID)
    play.store.complete(ID)
    play.log.store()
    assert play.forks() == [(2, 4, 3, "version 5")]
    for change in ("started_at = now()", "completed_at = now()", "metadata = '{}'", "metadata_version = 1",
                   "created_at = now()", "cycle_count = 7"):  # fmt: skip
        query_rows(play.db, "CREATE TEMPORARY TABLE kept AS TABLE sync_sessions; SELECT 1")
        query_rows(play.db, f"UPDATE sync_sessions SET {change} RETURNING 1")
        code, printed = play.verify()
        assert code == 1, change
        assert "differs from the session's rows" in printed[1]
        query_rows(play.db, "DELETE FROM sync_sessions; INSERT INTO sync_sessions TABLE kept RETURNING 1")
        query_rows(play.db, "DROP TABLE kept; SELECT 1")
    assert play.forks() == [(2, 4, 3, "version 5")]


def test_a_past_in_which_the_session_was_deleted_and_made_again(play: ForkingSession) -> None:
    play.begin()
    file = play.file()
    play.clock.advance_ms(10)
    play.store.delete(ID)
    play.store.create(chess_request(60_000, session_id=ID))
    play.log.store()
    play.back(file)
    play.commit(2)  # version 4 is a letter, 5 a row of the earlier epoch
    assert play.recover() is Outcome.REPLACED
    assert play.forks() == [(4, 4, 1, "version 5")]
    expect_every_forgery_is_found(play, unwatched=(NOON_MS, 5))


def test_forks_of_months_that_retention_has_dropped_are_passed_over(play: ForkingSession) -> None:
    ((name, low, high),) = query_rows(
        play.db,
        "SELECT to_char(month, '\"sync_events_\"YYYY_MM'), extract(epoch FROM month)::bigint * 1000,"
        " extract(epoch FROM month + interval '1 month')::bigint * 1000"
        " FROM (SELECT date_trunc('month', now(), 'UTC') - interval '15 months' AS month) AS made",
    )
    query_rows(play.db, f"CREATE TABLE {name} PARTITION OF sync_events FOR VALUES FROM ({low}) TO ({high}); SELECT 1")
    try:
        play.clock.set(low + 1000)
        play.begin()
        play.fork(2, 2)
        play.clock.set(int(time.time() * 1000))
        assert play.recover("freeze") is Outcome.RENEWED
        assert play.forks() == [(4, 5, 2, "epoch E")]
        assert play.run("audit", "retention", "--months", "13") == (0, [f"Dropped {name}."])
        assert play.forks() == []
        assert play.run("audit", "redrive") == (0, ["0 dead letters were stored, 2 were not."])
        assert play.forks() == []
        # The remaining rows are checked.
        epoch, version = event_keys(play.db)[0]
        forge_row(play.db, epoch, version)
        assert play.verify()[0] == 1
    finally:
        query_rows(play.db, f"DROP TABLE IF EXISTS {name}; SELECT 1")


def test_after_retention_an_epoch_is_still_held_against_the_one_before_it(play: ForkingSession) -> None:
    dropped = "INSERT INTO sync_dropped_partitions (name, from_epoch, to_epoch) VALUES ('old', 0, 1000) RETURNING 1"
    query_rows(play.db, dropped)
    play.begin()
    play.fork(1, 1)
    play.recover()
    assert play.forks() == [(4, 4, 1, "epoch E")]
    expect_every_forgery_is_found(play)


# Failover of real servers


def test_a_replica_that_was_promoted_without_the_last_writes(
    run_directory: Path, db: Db, database_url: str, tmp_path: Path
) -> None:
    with ExitStack() as stack:
        primary, replica = (
            Valkey(run_directory, run_directory / f"fork-{name}-{time.monotonic_ns()}") for name in ("old", "new")
        )
        for server in (primary, replica):
            server.start()
            stack.callback(server.stop)
        old = stack.enter_context(redis_py.Redis.from_url(primary.url))
        new = stack.enter_context(redis_py.Redis.from_url(replica.url))
        new.replicaof("127.0.0.1", str(primary.port))
        before, after = make_store(primary.url, set_clock=False), make_store(replica.url, set_clock=False)
        body = {"sync_mode": "count_up", "participants": [{"participant_id": name} for name in "ab"]}
        names = [before.create(CreateSession.parse(body)).found.session_id for _ in range(8)]
        for each in names:
            before.start(each)
        logs = [AuditServices(database_url, old, primary.url), AuditServices(database_url, new, replica.url)]
        for log in logs:
            stack.callback(log.pool.close)
            stack.callback(log.database.close)
        logs[0].store()
        wait_until(lambda: offset(new, "slave_repl_offset") == offset(old, "master_repl_offset"))
        new.replicaof("NO", "ONE")  # from now on the old primary's writes are lost
        for number, each in enumerate(names):
            for _ in range(number % 4):
                before.switch(each)
        logs[0].store()
        primary.stop()
        for number, each in enumerate(names):
            for _ in range(number // 2):
                after.switch(each)
        settings = make_settings(replica.url, database_url=database_url)

        def run(*words: str) -> tuple[int, str]:
            done = run_flask(settings, *words)
            return done.exit_code, done.output

        code, printed = run("sessions", "recover", "--all")
        assert code == 0, printed
        assert "renewed" in printed
        assert "replaced" in printed
        for each in names:
            after.switch(each)
        assert run("audit", "drain")[0] == 0
        code, printed = run("audit", "verify")
        assert code == 0, printed
        told = [line for line in printed.splitlines() if ": fork: " in line]
        # Sessions that were switched on both sides, unless the log had more commits.
        forked = [each for number, each in enumerate(names) if 0 < number % 4 <= number // 2]
        assert sorted(line.split()[1].rstrip(",") for line in told) == sorted(forked)
        back = forge_any(db, forked[0])
        assert run("audit", "verify")[0] == 1
        back()
        assert run("audit", "verify")[0] == 0


def forge_any(db: Db, session_id: str) -> Callable[[], Any]:
    """Forge the row that a dead letter stands beside."""
    ((version, content_hash),) = query_rows(
        db,
        "SELECT version, content_hash FROM sync_events WHERE session_id = %s AND (epoch, version) ="
        " (SELECT epoch, max(version) FROM sync_dead_letters WHERE session_id = %s GROUP BY epoch)",
        session_id, session_id,
    )  # fmt: skip
    where = "session_id = %s AND version = %s AND content_hash ="
    do = f"UPDATE sync_events SET content_hash = sha256(content_hash) WHERE {where} %s RETURNING 1"
    assert query_rows(db, do, session_id, version, content_hash)
    undo = f"UPDATE sync_events SET content_hash = %s WHERE {where} sha256(%s) RETURNING 1"
    return lambda: query_rows(db, undo, content_hash, session_id, version, content_hash)


def offset(client: redis_py.Redis, name: str) -> int:
    return int(client.info("replication").get(name, -1))

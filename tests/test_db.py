"""Migrations, connections, partitions, and the question whether PostgreSQL is fit."""

from __future__ import annotations

import re
import secrets
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from syncapp import db as database
from syncapp.db import Database, Probe, UpgradeFailed, upgrade
from syncapp.processes import free_port

MIGRATIONS = ["001_initial_schema", "002_add_indexes"]
ROOT = Path(__file__).parent.parent
Db = psycopg2.extensions.connection


def ask(url: str, query: str, *arguments: Any) -> list[Any]:
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(query, arguments)
        return cursor.fetchall() if cursor.description else []


@pytest.fixture
def empty_url(database_url: str) -> Iterator[str]:
    """Where a database without any table is."""
    name = f"empty_{secrets.token_hex(4)}"
    with closing(psycopg2.connect(database_url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(f"CREATE DATABASE {name}")
        yield re.sub(r"^(\w+://[^/?]*)(/[^?]*)?", rf"\1/{name}", database_url)
        cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")


def start_upgrade(url: str) -> subprocess.Popen[str]:
    code = f"from syncapp.db import upgrade; print(upgrade({url!r}))"
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_upgrade_applies_every_file_in_order_and_then_nothing(empty_url: str) -> None:
    assert upgrade(empty_url) == MIGRATIONS
    assert upgrade(empty_url.replace("postgresql://", "postgres://")) == []
    tables = {name for (name,) in ask(empty_url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    assert {"sync_sessions", "sync_events", "sync_participants", "sync_dead_letters"} <= tables
    assert ask(empty_url, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'sync_events'::regclass") == [(5,)]


def test_two_upgrades_at_once_apply_each_file_once(empty_url: str) -> None:
    both = [start_upgrade(empty_url) for _ in range(2)]
    printed = sorted(process.communicate(timeout=60)[0].strip() for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert printed == [str(MIGRATIONS), "[]"]


def test_an_upgrade_goes_through_after_one_was_killed_half_way(empty_url: str) -> None:
    with closing(psycopg2.connect(empty_url)) as blocker, blocker.cursor() as cursor:
        # Uncommitted, so that the migration waits for it in its middle.
        cursor.execute("CREATE TABLE sync_participants ()")
        killed = start_upgrade(empty_url)
        waiting = (
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%%CREATE TABLE sync_part%%' AND wait_event_type = 'Lock'"
        )
        while not ask(empty_url, waiting):
            time.sleep(0.02)
        killed.kill()
        killed.communicate()
        blocker.rollback()
    assert upgrade(empty_url) == MIGRATIONS


def test_a_lock_that_a_killed_upgrade_of_the_library_left_behind_does_not_stop_the_next(empty_url: str) -> None:
    upgrade(empty_url)
    ask(empty_url, "INSERT INTO yoyo_lock (locked, ctime, pid) VALUES (1, now(), 1)")
    made = re.findall(r"CREATE INDEX (\w+)", (ROOT / "migrations" / "002_add_indexes.sql").read_text())
    ask(empty_url, f"DROP INDEX {', '.join(made)} CASCADE")
    ask(empty_url, "DELETE FROM _yoyo_migration WHERE migration_id = '002_add_indexes'")
    began = time.monotonic()
    assert upgrade(empty_url) == ["002_add_indexes"]
    assert time.monotonic() - began < 5


def test_upgrade_waits_for_a_server_that_starts_and_fails_in_one_line_when_none_does() -> None:
    began = time.monotonic()
    with pytest.raises(UpgradeFailed) as failure:
        upgrade(f"postgresql://nobody:secret@127.0.0.1:{free_port()}/none", wait_s=0.5)
    assert 0.5 <= time.monotonic() - began < 3
    assert "refused" in str(failure.value)
    assert "\n" not in str(failure.value)
    assert "secret" not in str(failure.value)


def test_a_failing_migration_is_one_line_too_and_leaves_nothing_behind(empty_url: str) -> None:
    ask(empty_url, "CREATE TABLE sync_participants ()")
    with pytest.raises(UpgradeFailed, match="already exists") as failure:
        upgrade(empty_url)
    assert "\n" not in str(failure.value)
    assert ask(empty_url, "SELECT to_regclass('sync_sessions')") == [(None,)]


def test_a_migration_may_hold_what_no_transaction_can(
    empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade(empty_url)
    for path in database.MIGRATIONS.glob("*.sql"):
        (tmp_path / path.name).write_text(path.read_text())
    text = "-- transactional: false\nCREATE INDEX CONCURRENTLY IF NOT EXISTS more ON sync_sessions (created_at);\n"
    (tmp_path / "003_more.sql").write_text(text)
    monkeypatch.setattr(database, "MIGRATIONS", tmp_path)
    assert upgrade(empty_url) == ["003_more"]
    assert upgrade(empty_url) == []
    assert ask(empty_url, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'more'::regclass") == [(True,)]


def test_urls_may_name_a_socket_directory_and_options() -> None:
    with pytest.raises(UpgradeFailed, match=r"/nowhere/here/\.s\.PGSQL\.5432"):
        upgrade("postgresql:///syncapp?host=/nowhere/here", wait_s=0)
    with pytest.raises(UpgradeFailed, match="invalid sslmode"):
        upgrade("postgres://127.0.0.1/syncapp?sslmode=perhaps", wait_s=0)
    with pytest.raises(UpgradeFailed, match="invalid"):
        upgrade("postgresql://127.0.0.1/syncapp?no_such_word=1", wait_s=0)


def test_the_sql_function_makes_each_month_once_also_when_two_ask(db: Db, database_url: str) -> None:
    def make(months: int) -> list[str]:
        return [name for (name,) in ask(database_url, "SELECT sync_make_partitions(%s)", months)]

    with ThreadPoolExecutor(2) as threads:
        made = [name for names in threads.map(make, [7, 7]) for name in names]
    assert len(made) == len(set(made)) == 4  # the first three after this month were there
    assert all(re.fullmatch(r"sync_events_\d{4}_\d\d", name) for name in made)
    assert make(7) == []
    for name in made:
        ask(database_url, f"DROP TABLE {name}")


def test_rows_that_the_default_partition_took_move_into_their_month(db: Db, database_url: str) -> None:
    insert = """
        INSERT INTO sync_events (session_id, epoch, version, event_type, at, sync_mode, status, cycle_count, actor,
            patch, message, content_hash)
        SELECT gen_random_uuid(), extract(epoch FROM date_trunc('month', now(), 'UTC') + interval %s) * 1000 + %s, 1,
            'session_created', now(), 'global', 'pending', 0, 'client', '{}', '{}', ''
        RETURNING tableoid::regclass::text
    """
    (took,) = [name for (name,) in ask(database_url, insert, "9 months", 0)]
    (last,) = [name for (name,) in ask(database_url, insert, "10 months", -1)]
    (past,) = [name for (name,) in ask(database_url, insert, "10 months", 0)]
    assert took == last == past == "sync_events_default"
    made = [name for (name,) in ask(database_url, "SELECT sync_make_partitions(9)")]
    where = "SELECT tableoid::regclass::text, count(*) FROM sync_events GROUP BY 1 ORDER BY 1"
    assert ask(database_url, where) == [(made[-1], 2), ("sync_events_default", 1)]
    assert [name for (name,) in ask(database_url, insert, "9 months", 5)] == [made[-1]]
    indexes = "SELECT count(*) FROM pg_indexes WHERE tablename = %s"
    assert ask(database_url, indexes, made[-1]) == ask(database_url, indexes, "sync_events")
    for name in made:
        ask(database_url, f"DROP TABLE {name}")


def test_a_lost_connection_is_replaced_by_the_next_transaction(db: Db, database_url: str) -> None:
    ours = Database(database_url)

    def backend() -> int:
        with ours.transaction() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            return int(cursor.fetchone()[0])  # type: ignore[index]

    first = backend()
    assert backend() == first
    ask(database_url, "SELECT pg_terminate_backend(%s, 5000)", first)
    second = backend()
    assert second != first
    with pytest.raises(psycopg2.OperationalError), ours.transaction() as cursor:
        cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")
    assert backend() != second
    ours.close()


def test_each_thread_has_a_connection_and_a_failed_transaction_leaves_it_clean(db: Db, database_url: str) -> None:
    ours = Database(database_url)
    insert = "INSERT INTO sync_dead_letters (bucket, stream_id, kind, error, raw) VALUES (1, '', 'refused', '', '')"
    with pytest.raises(psycopg2.DataError), ours.transaction() as cursor:
        cursor.execute(f"{insert}; SELECT 1 / 0")
    barrier = threading.Barrier(3)

    def count() -> int:
        with ours.transaction() as cursor:
            barrier.wait(10)
            cursor.execute("SELECT count(*) FROM sync_dead_letters")
            return int(cursor.fetchone()[0])  # type: ignore[index]

    with ThreadPoolExecutor(3) as threads:
        assert [future.result() for future in [threads.submit(count) for _ in range(3)]] == [0, 0, 0]
    ours.close()


def test_a_statement_does_not_last_for_ever(db: Db, database_url: str) -> None:
    ours = Database(database_url)
    with ours.transaction() as cursor:
        cursor.execute("SHOW statement_timeout")
        assert cursor.fetchone() == ("30s",)
        cursor.execute("SHOW idle_in_transaction_session_timeout")
        assert cursor.fetchone() == ("30s",)
    ours.close()


def test_check_tells_what_is_wrong(empty_url: str, database_url: str) -> None:
    assert database.check(database_url) is None
    assert database.check(empty_url) == "is not migrated: run flask db upgrade"
    upgrade(empty_url)
    ask(empty_url, "DELETE FROM _yoyo_migration WHERE migration_id = '002_add_indexes'")
    time.sleep(1.1)  # an answer is kept for a second
    assert database.check(empty_url) == "lacks 002_add_indexes: run flask db upgrade"
    assert "refused" in (database.check(f"postgresql://127.0.0.1:{free_port()}/none") or "")


def test_check_asks_once_for_all_who_come_and_waits_no_longer_than_told() -> None:
    asked: list[float] = []
    answered = threading.Event()

    def slow() -> str | None:
        asked.append(time.monotonic())
        answered.wait(10)
        return "is ill"

    probe = Probe(slow, keep_s=0.2)
    began = time.monotonic()
    with ThreadPoolExecutor(8) as threads:
        reasons = list(threads.map(lambda _: probe.reason(0.3), range(8)))
    assert set(reasons) == {"does not answer within 0.3 s"}
    assert time.monotonic() - began < 2
    assert len(asked) == 1
    answered.set()
    assert probe.reason(5) == "is ill"
    time.sleep(0.25)
    assert probe.reason(5) == "is ill"
    assert len(asked) == 2


def test_check_never_holds_up_other_greenlets() -> None:
    silent = socket.create_server(("127.0.0.1", 0))  # takes connections and never says a word
    url = f"postgresql://127.0.0.1:{silent.getsockname()[1]}/none"
    code = f"""
from gevent import monkey; monkey.patch_all()
import gevent, time
from syncapp.db import check
ticks = 0
def tick():
    global ticks
    while True:
        ticks += 1
        gevent.sleep(0.01)
ticker = gevent.spawn(tick)
began = time.monotonic()
answers = [gevent.spawn(check, {url!r}, 0.5) for _ in range(20)]
gevent.joinall(answers)
print({{answer.value for answer in answers}}, ticks, time.monotonic() - began, sep="|")
"""
    with silent:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
        )
    reasons, ticks, took = done.stdout.split("|")
    assert reasons == "{'does not answer within 0.5 s'}"
    assert int(ticks) > 30
    assert float(took) < 1.5


def test_a_long_query_in_the_way_of_new_partitions_does_not_fail_an_upgrade(empty_url: str) -> None:
    upgrade(empty_url, partition_months=0)
    with closing(psycopg2.connect(empty_url)) as reader, reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM sync_events")
        began = time.monotonic()
        assert upgrade(empty_url, partition_months=1) == []
        assert 4 < time.monotonic() - began < 10
    assert upgrade(empty_url, partition_months=1) == []
    assert ask(empty_url, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'sync_events'::regclass") == [(3,)]

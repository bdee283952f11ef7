"""Migrations: applied once, in order, by one process, with clear errors."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import orjson
import psycopg2
import pytest

from syncapp.dev.ports import free_port
from syncapp.postgres import database, migrations
from syncapp.postgres.database import Database
from syncapp.postgres.migrations import UpgradeFailed
from syncapp.postgres.schema import upgrade
from tests.support.paths import ROOT
from tests.support.postgres_roles import add_migration, role_name, run_sql, set_read_only

MIGRATIONS = [
    "001_initial_schema",
    "002_add_indexes",
    "003_dead_letters_by_event",
    "004_tenants_and_private_parts",
    "005_erasures",
]


def start_upgrade(url: str) -> subprocess.Popen[str]:
    code = f"from syncapp.postgres.schema import upgrade; print(upgrade({url!r}))"
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_upgrade_applies_every_file_in_order_and_then_nothing(empty_url: str) -> None:
    assert upgrade(empty_url) == MIGRATIONS
    assert upgrade(empty_url.replace("postgresql://", "postgres://")) == []
    tables = {name for (name,) in run_sql(empty_url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}
    assert {"sync_sessions", "sync_events", "sync_participants", "sync_dead_letters"} <= tables
    assert run_sql(empty_url, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'sync_events'::regclass") == [(5,)]


def test_two_upgrades_at_once_apply_each_file_once(empty_url: str) -> None:
    both = [start_upgrade(empty_url) for _ in range(2)]
    printed = sorted(process.communicate(timeout=60)[0].strip() for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert printed == [str(MIGRATIONS), "[]"]


def test_an_upgrade_goes_through_after_one_was_killed_half_way(empty_url: str) -> None:
    with closing(psycopg2.connect(empty_url)) as blocker, blocker.cursor() as cursor:
        # Uncommitted, so that the migration waits halfway.
        cursor.execute("CREATE TABLE sync_participants ()")
        killed = start_upgrade(empty_url)
        waiting = (
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE '%%CREATE TABLE sync_part%%' AND wait_event_type = 'Lock'"
        )
        while not run_sql(empty_url, waiting):
            time.sleep(0.02)
        killed.kill()
        killed.communicate()
        blocker.rollback()
    assert upgrade(empty_url) == MIGRATIONS


def test_a_lock_that_a_killed_upgrade_of_the_library_left_behind_does_not_stop_the_next(empty_url: str) -> None:
    upgrade(empty_url)
    run_sql(empty_url, "INSERT INTO yoyo_lock (locked, ctime, pid) VALUES (1, now(), 1)")
    made = re.findall(r"CREATE INDEX (\w+)", (ROOT / "migrations" / "002_add_indexes.sql").read_text())
    run_sql(empty_url, f"DROP INDEX {', '.join(made)} CASCADE")
    run_sql(empty_url, "DELETE FROM _yoyo_migration WHERE migration_id = '002_add_indexes'")
    began = time.monotonic()
    assert upgrade(empty_url) == ["002_add_indexes"]
    assert time.monotonic() - began < 9  # the library waits 10 s for its lock


def test_upgrade_waits_for_a_server_that_starts_and_fails_in_one_line_when_none_does() -> None:
    began = time.monotonic()
    with pytest.raises(UpgradeFailed) as failure:
        upgrade(f"postgresql://nobody:secret@127.0.0.1:{free_port()}/none", wait_s=0.5)
    assert 0.5 <= time.monotonic() - began < 20
    assert "refused" in str(failure.value)
    assert "\n" not in str(failure.value)
    assert "secret" not in str(failure.value)


def test_a_failing_migration_is_one_line_too_and_leaves_nothing_behind(empty_url: str) -> None:
    run_sql(empty_url, "CREATE TABLE sync_participants ()")
    with pytest.raises(UpgradeFailed, match="already exists") as failure:
        upgrade(empty_url)
    assert "\n" not in str(failure.value)
    assert run_sql(empty_url, "SELECT to_regclass('sync_sessions')") == [(None,)]


def test_a_migration_may_hold_what_no_transaction_can(
    empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade(empty_url)
    text = "-- transactional: false\nCREATE INDEX CONCURRENTLY IF NOT EXISTS more ON sync_sessions (created_at);\n"
    add_migration(tmp_path, monkeypatch, text)
    assert upgrade(empty_url) == ["900_more"]
    assert upgrade(empty_url) == []
    assert run_sql(empty_url, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'more'::regclass") == [(True,)]


def test_letters_from_before_they_were_kept_by_event_are_found_by_it_afterwards(
    empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = migrations.MIGRATIONS
    for path in sorted(whole.glob("*.sql"))[:2]:
        (tmp_path / path.name).write_text(path.read_text())
    monkeypatch.setattr(migrations, "MIGRATIONS", tmp_path)
    assert upgrade(empty_url) == MIGRATIONS[:2]
    key = ("3e1f8e1a-3f44-4c55-9d0b-0f6f2b8f5a10", 5, 7)
    insert = (
        "INSERT INTO sync_events (session_id, epoch, version, event_type, at, sync_mode, status, cycle_count, actor,"
        " patch, message, content_hash) VALUES (%s, %s, %s, '', now(), 'global', 'pending', 0, '', '{}', '{}', 'hash')"
    )
    run_sql(empty_url, insert, *key)
    letter = "INSERT INTO sync_dead_letters (bucket, stream_id, kind, error, raw) VALUES (1, %s, %s, '', %s)"
    message = orjson.dumps(dict(zip(("session_id", "epoch", "version"), key, strict=True))).decode()
    noted = "session_id::text, epoch, version, convert_from(stored_hash, 'UTF8')"
    texts = [("divergent", message), ("refused", message), ("refused", "{"), ("refused", "\xff"), ("divergent", "[1]")]

    def keep(time: str) -> None:
        for number, (kind, text) in enumerate(texts):
            run_sql(empty_url, letter, f"{time}-{number}", kind, text.encode("latin1"))

    keep("before")
    monkeypatch.setattr(migrations, "MIGRATIONS", whole)
    assert upgrade(empty_url) == MIGRATIONS[2:]
    keep("after")
    assert (
        run_sql(empty_url, f"SELECT {noted} FROM sync_dead_letters ORDER BY id")
        == [(*key, "hash"), (*key, None), *[(None,) * 4] * 3] * 2
    )


def test_a_long_query_in_the_way_of_new_partitions_does_not_fail_an_upgrade(empty_url: str) -> None:
    upgrade(empty_url, partition_months=0)
    with closing(psycopg2.connect(empty_url)) as reader, reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM sync_events")
        began = time.monotonic()
        assert upgrade(empty_url, partition_months=1) == []
        assert 4 < time.monotonic() - began < 60
    assert upgrade(empty_url, partition_months=1) == []
    assert run_sql(empty_url, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'sync_events'::regclass") == [(3,)]


# Roles without write access


def test_an_upgrade_with_nothing_to_apply_needs_no_right_to_write(empty_url: str, guest: str) -> None:
    role = role_name(guest)
    run_sql(empty_url, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    warned: list[str] = []
    assert upgrade(guest, warn=warned.append) == []
    set_read_only(empty_url, on=True)
    assert upgrade(empty_url, warn=warned.append) == []
    assert warned == []
    # A missing month is reported, but is no failure.
    assert upgrade(empty_url, partition_months=4, warn=warned.append) == []
    assert upgrade(guest, partition_months=4, warn=warned.append) == []
    assert len(warned) == 2
    assert all(
        re.match(r"could not make sync_events_\d{4}_\d\d; rows go to the default partition", each) for each in warned
    )
    set_read_only(empty_url, on=False)
    assert upgrade(empty_url, partition_months=4, warn=warned.append) == []
    assert len(warned) == 2
    assert run_sql(empty_url, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'sync_events'::regclass") == [(6,)]


def test_an_upgrade_that_may_not_apply_what_is_missing_says_so_in_one_line(
    empty_url: str, guest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = role_name(guest)
    add_migration(tmp_path, monkeypatch, "CREATE TABLE more ();\n")
    with pytest.raises(UpgradeFailed, match="permission denied"):  # it may not even read the list of applied migrations
        upgrade(guest)
    run_sql(empty_url, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    with pytest.raises(UpgradeFailed, match=r"^900_more must be applied, but this role may not: permission") as refused:
        upgrade(guest)
    assert "\n" not in str(refused.value)
    set_read_only(empty_url, on=True)
    with pytest.raises(UpgradeFailed, match=r"^900_more must be applied, but the database is read-only$"):
        upgrade(empty_url)
    set_read_only(empty_url, on=False)
    assert upgrade(empty_url) == ["900_more"]
    assert upgrade(guest) == []


def test_an_upgrade_waits_for_a_connection_that_is_kept_for_a_moment(empty_url: str, guest: str) -> None:
    role = role_name(guest)
    run_sql(empty_url, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}; ALTER ROLE {role} CONNECTION LIMIT 1")
    theirs = Database(guest)
    with theirs.transaction() as cursor:
        cursor.execute("SELECT 1")
        with pytest.raises(psycopg2.OperationalError, match="too many connections"):
            database.connect(guest)
    assert upgrade(guest) == []  # their connection was closed meanwhile

"""Migrations, connections, partitions, and the question whether PostgreSQL is fit."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import closing
from pathlib import Path

import orjson
import psycopg2
import pytest

from syncapp.dev.processes import free_port
from syncapp.dev.servers import Postgres
from syncapp.postgres import database, migrations
from syncapp.postgres.database import Database, UpgradeFailed, upgrade
from syncapp.postgres.failures import failure_of
from syncapp.postgres.native_probe import NativeProbe
from tests.support.captured_logs import logged
from tests.support.paths import ROOT
from tests.support.postgres_roles import ask, guest_of, held, name_of, role_of, scratch, server_of, set_read_only
from tests.support.web_clients import eventually

MIGRATIONS = ["001_initial_schema", "002_add_indexes", "003_dead_letters_by_event"]
Db = psycopg2.extensions.connection


@pytest.fixture
def empty_url(database_url: str) -> Iterator[str]:
    """Where a database without any table is."""
    with scratch(database_url) as url:
        yield url


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
    ask(empty_url, "CREATE TABLE sync_participants ()")
    with pytest.raises(UpgradeFailed, match="already exists") as failure:
        upgrade(empty_url)
    assert "\n" not in str(failure.value)
    assert ask(empty_url, "SELECT to_regclass('sync_sessions')") == [(None,)]


def add_migration(directory: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    for path in migrations.MIGRATIONS.glob("*.sql"):
        (directory / path.name).write_text(path.read_text())
    (directory / "900_more.sql").write_text(text)
    monkeypatch.setattr(migrations, "MIGRATIONS", directory)


def test_a_migration_may_hold_what_no_transaction_can(
    empty_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade(empty_url)
    text = "-- transactional: false\nCREATE INDEX CONCURRENTLY IF NOT EXISTS more ON sync_sessions (created_at);\n"
    add_migration(tmp_path, monkeypatch, text)
    assert upgrade(empty_url) == ["900_more"]
    assert upgrade(empty_url) == []
    assert ask(empty_url, "SELECT indisvalid FROM pg_index WHERE indexrelid = 'more'::regclass") == [(True,)]


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
    ask(empty_url, insert, *key)
    letter = "INSERT INTO sync_dead_letters (bucket, stream_id, kind, error, raw) VALUES (1, %s, %s, '', %s)"
    message = orjson.dumps(dict(zip(("session_id", "epoch", "version"), key, strict=True))).decode()
    noted = "session_id::text, epoch, version, convert_from(stored_hash, 'UTF8')"
    texts = [("divergent", message), ("refused", message), ("refused", "{"), ("refused", "\xff"), ("divergent", "[1]")]

    def keep(time: str) -> None:
        for number, (kind, text) in enumerate(texts):
            ask(empty_url, letter, f"{time}-{number}", kind, text.encode("latin1"))

    keep("before")
    monkeypatch.setattr(migrations, "MIGRATIONS", whole)
    assert upgrade(empty_url) == MIGRATIONS[2:]
    keep("after")
    assert (
        ask(empty_url, f"SELECT {noted} FROM sync_dead_letters ORDER BY id")
        == [(*key, "hash"), (*key, None), *[(None,) * 4] * 3] * 2
    )


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


def sentence(url: str) -> str | None:
    """What `check` says now: an answer is kept for a second."""
    time.sleep(1.1)
    found = database.check(url, 10)
    return found.sentence if found else None


def test_check_tells_what_is_wrong(empty_url: str, database_url: str) -> None:
    assert database.check(database_url) is None
    assert sentence(empty_url) == "is not migrated: run flask db upgrade"
    upgrade(empty_url)
    ask(empty_url, "DELETE FROM _yoyo_migration WHERE migration_id = '002_add_indexes'")
    assert sentence(empty_url) == "lacks 002_add_indexes: run flask db upgrade"
    more = "INSERT INTO _yoyo_migration (migration_hash, migration_id) VALUES (%s, %s)"
    ask(empty_url, more, "2", "002_add_indexes")
    ask(empty_url, more, "9", "900_later")
    assert sentence(empty_url) == "has a newer schema than this release"
    assert sentence(f"postgresql://127.0.0.1:{free_port()}/none") == "cannot be reached"


@pytest.fixture
def guest(empty_url: str) -> Iterator[str]:
    """Where a role that has no rights yet meets the database of `empty_url`, which is migrated."""
    upgrade(empty_url)
    with guest_of(empty_url) as url:
        yield url


def test_check_tells_of_rights_limits_and_logins_in_words_that_name_nobody(empty_url: str, guest: str) -> None:
    role, name = role_of(guest), name_of(empty_url)
    said = [sentence(guest)]
    assert said == ["does not allow what is needed"]
    ask(empty_url, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    said.append(sentence(guest))
    assert "INSERT on sync_events" in (said[-1] or "")
    ask(empty_url, f"GRANT INSERT, UPDATE ON ALL TABLES IN SCHEMA public TO {role}")
    assert sentence(guest) is None
    for change, back, expected in (
        (f"ALTER ROLE {role} CONNECTION LIMIT 0", f"ALTER ROLE {role} CONNECTION LIMIT -1", "has no connection left"),
        (f"ALTER ROLE {role} NOLOGIN", f"ALTER ROLE {role} LOGIN", "refuses the login"),
        (
            f"ALTER DATABASE {name} SET default_transaction_read_only = on",
            f"ALTER DATABASE {name} RESET default_transaction_read_only",
            "is read-only",
        ),
        (
            f"ALTER DATABASE {name} ALLOW_CONNECTIONS off",
            f"ALTER DATABASE {name} ALLOW_CONNECTIONS on",
            "refuses the login",
        ),
    ):
        ask(server_of(empty_url), change)
        said.append(sentence(guest))
        ask(server_of(empty_url), back)
        assert said[-1] == expected
        assert sentence(guest) is None
    text = " ".join(each or "" for each in said)
    assert not re.search(rf"{role}|{name}|127\.0\.0\.1|port|FATAL|pass", text)


def test_a_trouble_is_logged_once_with_the_drivers_whole_text() -> None:
    port = free_port()
    with logged() as logs:
        for _ in range(3):
            assert sentence(f"postgresql://127.0.0.1:{port}/none") == "cannot be reached"
    (line,) = [line for line in logs if line["event"] == "postgresql_trouble"]
    assert (line["category"], str(port) in line["error"]) == ("unreachable", True)


@pytest.mark.parametrize(
    ("text", "category"),
    [
        ('connection to server at "10.0.0.1", port 5432 failed: FATAL:  too many connections for role "x"', "too_many"),
        ("FATAL:  sorry, too many clients already", "too_many"),
        ("FATAL:  remaining connection slots are reserved for roles with the SUPERUSER attribute", "too_many"),
        ("FATAL:  remaining connection slots are reserved for non-replication superuser connections", "too_many"),
        ("FATAL:  no more connections allowed (max_client_conn)", "too_many"),
        ("FATAL:  the database system is starting up", "starting_up"),
        ("FATAL:  the database system is not yet accepting connections", "starting_up"),
        ("FATAL:  the database system is shutting down", "shutting_down"),
        ('FATAL:  password authentication failed for user "x"', "refuses_login"),
        ('FATAL:  no pg_hba.conf entry for host "10.0.0.1", user "x", database "y", no encryption', "refuses_login"),
        ("server closed the connection unexpectedly", "unreachable"),
        ('could not translate host name "example" to address', "unreachable"),
        ("FATAL:  server login has been failing, cached error: connect failed (server_login_retry)", "unreachable"),
    ],
)
def test_a_refused_connection_is_known_by_what_it_says(text: str, category: str) -> None:
    found = failure_of(psycopg2.OperationalError(text))
    assert found is not None
    assert found.category.startswith(category)


def test_check_asks_once_for_all_who_come_and_waits_no_longer_than_told() -> None:
    asked: list[float] = []
    answered = threading.Event()

    def slow() -> str:
        asked.append(time.monotonic())
        answered.wait(10)
        return "is ill"

    probe = NativeProbe(slow, keep_s=0.2)
    began = time.monotonic()

    def answer(_: int) -> str:
        try:
            return probe.answer(0.3)
        except FutureTimeoutError:
            return "late"

    with ThreadPoolExecutor(8) as threads:
        reasons = list(threads.map(answer, range(8)))
    assert set(reasons) == {"late"}
    assert time.monotonic() - began < 8  # the answer comes after 10 s
    assert len(asked) == 1
    answered.set()
    assert probe.answer(5) == "is ill"
    time.sleep(0.25)
    assert probe.answer(5) == "is ill"
    assert len(asked) == 2


def test_check_never_holds_up_other_greenlets() -> None:
    silent = socket.create_server(("127.0.0.1", 0))  # takes connections and never says a word
    url = f"postgresql://127.0.0.1:{silent.getsockname()[1]}/none"
    code = f"""
from gevent import monkey; monkey.patch_all()
import gevent, time
from syncapp.postgres.database import check
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
print({{str(answer.value) for answer in answers}}, ticks, time.monotonic() - began, sep="|")
"""
    with silent:
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
        )
    reasons, ticks, took = done.stdout.splitlines()[-1].split("|")  # after what is logged
    assert reasons == "{'does not answer in time'}"
    assert int(ticks) > 5
    assert float(took) < 8  # one after the other they would take 10 s


def test_a_long_query_in_the_way_of_new_partitions_does_not_fail_an_upgrade(empty_url: str) -> None:
    upgrade(empty_url, partition_months=0)
    with closing(psycopg2.connect(empty_url)) as reader, reader.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM sync_events")
        began = time.monotonic()
        assert upgrade(empty_url, partition_months=1) == []
        assert 4 < time.monotonic() - began < 60
    assert upgrade(empty_url, partition_months=1) == []
    assert ask(empty_url, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'sync_events'::regclass") == [(3,)]


# Without the right to write


def test_an_upgrade_with_nothing_to_apply_needs_no_right_to_write(empty_url: str, guest: str) -> None:
    role = role_of(guest)
    ask(empty_url, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    warned: list[str] = []
    assert upgrade(guest, warn=warned.append) == []
    set_read_only(empty_url, on=True)
    assert upgrade(empty_url, warn=warned.append) == []
    assert warned == []
    # A month that is missing is told, and no failure.
    assert upgrade(empty_url, partition_months=4, warn=warned.append) == []
    assert upgrade(guest, partition_months=4, warn=warned.append) == []
    assert len(warned) == 2
    assert all(re.match(r"sync_events_\d{4}_\d\d could not be made, the default partition", each) for each in warned)
    set_read_only(empty_url, on=False)
    assert upgrade(empty_url, partition_months=4, warn=warned.append) == []
    assert len(warned) == 2
    assert ask(empty_url, "SELECT count(*) FROM pg_inherits WHERE inhparent = 'sync_events'::regclass") == [(6,)]


def test_an_upgrade_that_may_not_apply_what_is_missing_says_so_in_one_line(
    empty_url: str, guest: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = role_of(guest)
    add_migration(tmp_path, monkeypatch, "CREATE TABLE more ();\n")
    with pytest.raises(UpgradeFailed, match="permission denied"):  # it may not even read what is applied
        upgrade(guest)
    ask(empty_url, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}")
    with pytest.raises(UpgradeFailed, match=r"^900_more must be applied, and this role may not: permission") as refused:
        upgrade(guest)
    assert "\n" not in str(refused.value)
    set_read_only(empty_url, on=True)
    with pytest.raises(UpgradeFailed, match=r"^900_more must be applied, and the database is read-only$"):
        upgrade(empty_url)
    set_read_only(empty_url, on=False)
    assert upgrade(empty_url) == ["900_more"]
    assert upgrade(guest) == []


# Connections are given back


def test_a_thread_that_stores_nothing_for_seconds_holds_no_connection(empty_url: str) -> None:
    ours, barrier = Database(empty_url), threading.Barrier(4)

    def use(_: int) -> int:
        with ours.transaction() as cursor:
            cursor.execute("SELECT 1")
            barrier.wait(30)
            found = held(empty_url)
            barrier.wait(30)
        return found

    with ThreadPoolExecutor(4) as threads:
        for _ in range(2):
            assert list(threads.map(use, range(4))) == [4] * 4
            eventually(lambda: held(empty_url) == 0)


def test_a_transaction_ends_when_its_server_hangs_and_the_next_goes_through(postgres: Postgres, empty_url: str) -> None:
    ours = Database(empty_url, hang_s=1.0)

    def ask_while_it_hangs() -> None:
        with ours.transaction() as cursor:
            postgres.pause()
            cursor.execute("SELECT 1")  # would never be answered

    try:
        with pytest.raises((psycopg2.OperationalError, psycopg2.InterfaceError)):
            ask_while_it_hangs()
    finally:
        postgres.unpause()
    patient = Database(empty_url, hang_s=60.0)
    with patient.transaction() as cursor:
        cursor.execute("SELECT pg_sleep(2)")
        assert cursor.fetchone() == ("",)


def test_a_process_ends_though_it_kept_connections(empty_url: str) -> None:
    code = f"""
from syncapp.postgres.database import Database
from syncapp.history.read_pool import ReadPool
with Database({empty_url!r}).transaction() as cursor:
    cursor.execute("SELECT 1")
ReadPool({empty_url!r}).ask(lambda cursor: cursor.execute("SELECT 1"))
"""
    for first in ("", "from gevent import monkey; monkey.patch_all()"):
        subprocess.run([sys.executable, "-c", first + code], cwd=ROOT, timeout=60, check=True)


def test_an_upgrade_waits_for_a_connection_that_is_kept_for_a_moment(empty_url: str, guest: str) -> None:
    role = role_of(guest)
    ask(empty_url, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}; ALTER ROLE {role} CONNECTION LIMIT 1")
    theirs = Database(guest)
    with theirs.transaction() as cursor:
        cursor.execute("SELECT 1")
        with pytest.raises(psycopg2.OperationalError, match="too many connections"):
            database.connect(guest)
    assert upgrade(guest) == []  # theirs was given back meanwhile

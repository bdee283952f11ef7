"""Connections and partitions."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import psycopg2
import pytest

from syncapp.dev.servers import Postgres
from syncapp.postgres.database import Database
from syncapp.postgres.migrations import UpgradeFailed
from syncapp.postgres.schema import upgrade
from tests.support.paths import ROOT
from tests.support.postgres_roles import connection_count, run_sql
from tests.support.types import Db
from tests.support.web_clients import wait_until


def test_urls_may_name_a_socket_directory_and_options() -> None:
    with pytest.raises(UpgradeFailed, match=r"/nowhere/here/\.s\.PGSQL\.5432"):
        upgrade("postgresql:///syncapp?host=/nowhere/here", wait_s=0)
    with pytest.raises(UpgradeFailed, match="invalid sslmode"):
        upgrade("postgres://127.0.0.1/syncapp?sslmode=perhaps", wait_s=0)
    with pytest.raises(UpgradeFailed, match="invalid"):
        upgrade("postgresql://127.0.0.1/syncapp?no_such_word=1", wait_s=0)


def test_the_sql_function_makes_each_month_once_also_when_two_ask(db: Db, database_url: str) -> None:
    def make(months: int) -> list[str]:
        return [name for (name,) in run_sql(database_url, "SELECT sync_make_partitions(%s)", months)]

    with ThreadPoolExecutor(2) as threads:
        made = [name for names in threads.map(make, [7, 7]) for name in names]
    assert len(made) == len(set(made)) == 4  # the next three months exist already
    assert all(re.fullmatch(r"sync_events_\d{4}_\d\d", name) for name in made)
    assert make(7) == []
    for name in made:
        run_sql(database_url, f"DROP TABLE {name}")


def test_rows_that_the_default_partition_took_move_into_their_month(db: Db, database_url: str) -> None:
    insert = """
        INSERT INTO sync_events (session_id, epoch, version, event_type, at, sync_mode, status, cycle_count, actor,
            patch, message, content_hash)
        SELECT gen_random_uuid(), extract(epoch FROM date_trunc('month', now(), 'UTC') + interval %s) * 1000 + %s, 1,
            'session_created', now(), 'global', 'pending', 0, 'client', '{}', '{}', ''
        RETURNING tableoid::regclass::text
    """
    (took,) = [name for (name,) in run_sql(database_url, insert, "9 months", 0)]
    (last,) = [name for (name,) in run_sql(database_url, insert, "10 months", -1)]
    (past,) = [name for (name,) in run_sql(database_url, insert, "10 months", 0)]
    assert took == last == past == "sync_events_default"
    made = [name for (name,) in run_sql(database_url, "SELECT sync_make_partitions(9)")]
    where = "SELECT tableoid::regclass::text, count(*) FROM sync_events GROUP BY 1 ORDER BY 1"
    assert run_sql(database_url, where) == [(made[-1], 2), ("sync_events_default", 1)]
    assert [name for (name,) in run_sql(database_url, insert, "9 months", 5)] == [made[-1]]
    indexes = "SELECT count(*) FROM pg_indexes WHERE tablename = %s"
    assert run_sql(database_url, indexes, made[-1]) == run_sql(database_url, indexes, "sync_events")
    for name in made:
        run_sql(database_url, f"DROP TABLE {name}")


def test_a_lost_connection_is_replaced_by_the_next_transaction(db: Db, database_url: str) -> None:
    ours = Database(database_url)

    def backend() -> int:
        with ours.transaction() as cursor:
            cursor.execute("SELECT pg_backend_pid()")
            ((pid,),) = cursor.fetchall()
            return int(pid)

    first = backend()
    assert backend() == first
    run_sql(database_url, "SELECT pg_terminate_backend(%s, 5000)", first)
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
            barrier.wait(60)
            cursor.execute("SELECT count(*) FROM sync_dead_letters")
            ((rows,),) = cursor.fetchall()
            return int(rows)

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


# Connections are given back


def test_a_thread_that_stores_nothing_for_seconds_holds_no_connection(empty_url: str) -> None:
    ours, barrier = Database(empty_url), threading.Barrier(4)

    def use(_: int) -> int:
        with ours.transaction() as cursor:
            cursor.execute("SELECT 1")
            barrier.wait(30)
            found = connection_count(empty_url)
            barrier.wait(30)
        return found

    with ThreadPoolExecutor(4) as threads:
        for _ in range(2):
            assert list(threads.map(use, range(4))) == [4] * 4
            wait_until(lambda: connection_count(empty_url) == 0)


def test_a_transaction_ends_when_its_server_hangs_and_the_next_goes_through(postgres: Postgres, empty_url: str) -> None:
    ours = Database(empty_url, max_transaction_s=1.0)

    def ask_while_it_hangs() -> None:
        with ours.transaction() as cursor:
            postgres.pause()
            cursor.execute("SELECT 1")  # would never be answered

    try:
        with pytest.raises((psycopg2.OperationalError, psycopg2.InterfaceError)):
            ask_while_it_hangs()
    finally:
        postgres.unpause()
    patient = Database(empty_url, max_transaction_s=60.0)
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

"""PostgreSQL: connections, migrations, and whether it is fit.

psycopg2 blocks the thread it is called in, and under gevent with it every greenlet: `Database` is for
plain threads (the worker, commands), `check` and `pool` for anybody.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import cache
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2 import extensions

Connection = extensions.connection
Cursor = extensions.cursor
MIGRATIONS = Path(__file__).resolve().parent.parent / "migrations"
CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 30
AWAY = (psycopg2.OperationalError, psycopg2.InterfaceError)
"""What psycopg2 raises when the server is away, or went away."""
_UPGRADE_LOCK = 0x53796E63417070  # any number that no other user of the database has
_UPGRADE_LOCK_TIMEOUT_S = 120


class UpgradeFailed(Exception):
    """Migrations that could not be applied; its text is one line."""


def connect(database_url: str, *, connect_timeout_s: int = CONNECT_TIMEOUT_S) -> Connection:
    """Return a new connection that notices within half a minute that the server is gone; the URL's words win.

    Raises `psycopg2.OperationalError`, `psycopg2.ProgrammingError` for a URL that is none.
    """
    defaults: dict[str, Any] = {
        "application_name": "syncapp",
        "connect_timeout": connect_timeout_s,
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
    }
    connection: Connection = psycopg2.connect(**(defaults | extensions.parse_dsn(database_url)))
    return connection


class Database:
    """One connection a thread, opened when it is first needed and again after it was lost."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        self._own = threading.local()
        self._open: set[Connection] = set()

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """Yield a cursor in a transaction: committed at the end, rolled back by any exception.

        Raises what psycopg2 raises; after one of `AWAY` the next transaction has a new connection.
        """
        connection = self._begin()
        try:
            with connection.cursor() as cursor:
                yield cursor
            connection.commit()
        except AWAY:
            self._drop(connection)
            raise
        except BaseException:
            connection.rollback()
            raise

    def close(self) -> None:
        """Close the connections of all threads."""
        while self._open:
            self._open.pop().close()

    def _begin(self) -> Connection:
        connection: Connection | None = getattr(self._own, "connection", None)
        if connection is not None:
            try:
                return _begun(connection)
            except AWAY:  # it broke while nobody used it; nothing has been asked of it yet
                self._drop(connection)
        connection = self._own.connection = connect(self._url)
        self._open.add(connection)
        return _begun(connection)

    def _drop(self, connection: Connection) -> None:
        self._own.connection = None
        self._open.discard(connection)
        with contextlib.suppress(psycopg2.Error):
            connection.close()


def _begun(connection: Connection) -> Connection:
    """Begin a transaction with its limits. They are set here, because a pooler may refuse them at the start."""
    limits = ("statement_timeout", "idle_in_transaction_session_timeout")
    with connection.cursor() as cursor:
        cursor.execute("; ".join(f"SET LOCAL {name} = '{STATEMENT_TIMEOUT_S}s'" for name in limits))
    return connection


def upgrade(database_url: str, *, partition_months: int = 3, wait_s: float = 5.0) -> list[str]:
    """Apply the migrations that are not applied yet, in order, and make partitions ahead; return their names.

    Each is applied and marked in one transaction. Safe to run again, by several processes at once, and
    after one was killed half-way. Waits `wait_s` for a server that is just starting. Raises `UpgradeFailed`.
    """
    try:
        with contextlib.closing(_connect_patiently(database_url, wait_s)) as guard, guard, guard.cursor() as cursor:
            # Held by a transaction of a connection of its own: it goes with its process, however that ends.
            cursor.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
            cursor.execute(f"SET LOCAL lock_timeout = '{_UPGRADE_LOCK_TIMEOUT_S}s'")
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_UPGRADE_LOCK])
            applied = _apply_migrations(database_url)
            # A long query may be in the way of new partitions; the worker makes them too, each night.
            with (
                contextlib.suppress(psycopg2.errors.LockNotAvailable),
                contextlib.closing(Database(database_url)) as own,
                own.transaction() as maker,
            ):
                make_partitions(maker, partition_months)
            return applied
    except psycopg2.Error as error:
        raise UpgradeFailed(one_line(error)) from error


def make_partitions(cursor: Cursor, months_ahead: int) -> list[str]:
    """Make the monthly partitions of `sync_events` from this month on; return the names of those made."""
    cursor.execute("SELECT sync_make_partitions(%s)", [months_ahead])
    return [name for (name,) in cursor.fetchall()]


def drop_partitions(cursor: Cursor, months_kept: int) -> list[str]:
    """Drop the monthly partitions of `sync_events` that are older and no longer written to; return their names."""
    cursor.execute("SET LOCAL statement_timeout = 0; SELECT sync_drop_partitions(%s)", [months_kept])
    return [name for (name,) in cursor.fetchall()]


def check(database_url: str, timeout_s: float = 1.5) -> str | None:
    """Return None when PostgreSQL is reachable and migrated, or what is wrong with it.

    Safe to call from any greenlet and as often as one likes: one question a second is asked, in a
    native thread, and an answer that takes longer than `timeout_s` is not waited for.
    """
    return _probe(database_url).reason(timeout_s)


def one_line(error: BaseException) -> str:
    """Return an error's text as one line."""
    return " ".join(str(error).split()) or type(error).__name__


class Probe:
    """Asks PostgreSQL how it is, at most once in `keep_s` and one question at a time."""

    def __init__(self, ask: Callable[[], str | None], *, keep_s: float = 1.0) -> None:
        self._ask = ask
        self._keep_s = keep_s
        self._asked_at = float("-inf")
        self._answer: Future[str | None] | None = None
        self._executor: Executor | None = None
        self._lock = threading.Lock()

    def reason(self, timeout_s: float) -> str | None:
        """Return what the latest answer is, asking anew when it is old."""
        with self._lock:
            answer = self._answer
            if answer is None or (answer.done() and time.monotonic() > self._asked_at + self._keep_s):
                self._asked_at = time.monotonic()
                self._executor = self._executor or native_threads(1)
                answer = self._answer = self._executor.submit(self._ask)
        try:
            return answer.result(timeout_s)
        except FutureTimeoutError:
            return f"does not answer within {timeout_s:g} s"


@cache
def _probe(database_url: str) -> Probe:
    return Probe(lambda: _unfit(database_url))


def _unfit(database_url: str) -> str | None:
    try:
        with (
            contextlib.closing(connect(database_url, connect_timeout_s=2)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SET LOCAL statement_timeout = '2s'; SELECT pg_is_in_recovery()")
            if cursor.fetchone() == (True,):
                return "is a standby, not a primary"
            cursor.execute("SELECT migration_id FROM _yoyo_migration")
            missing = {path.stem for path in MIGRATIONS.glob("*.sql")} - {name for (name,) in cursor.fetchall()}
    except psycopg2.errors.UndefinedTable:
        return "is not migrated: run flask db upgrade"
    except psycopg2.Error as error:
        return one_line(error)
    return f"lacks {', '.join(sorted(missing))}: run flask db upgrade" if missing else None


def native_threads(count: int) -> Executor:
    """Return an executor whose threads are real: gevent's, where gevent has replaced the standard ones."""
    monkey = sys.modules.get("gevent.monkey")
    kind: Callable[[int], Executor] = ThreadPoolExecutor
    if monkey is not None and monkey.is_module_patched("threading"):
        from gevent.threadpool import ThreadPoolExecutor as kind  # type: ignore[import-untyped,no-redef] # noqa: N813
    return kind(count)


def _connect_patiently(database_url: str, wait_s: float) -> Connection:
    end = time.monotonic() + wait_s
    while True:
        try:
            return connect(database_url)
        except psycopg2.OperationalError:
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def _apply_migrations(database_url: str) -> list[str]:
    """Apply what is missing; the caller holds the lock of upgrades."""
    # Only this command needs them, and they take a while to load.
    from yoyo import read_migrations
    from yoyo.backends.core.postgresql import PostgresqlBackend
    from yoyo.connections import DatabaseURI
    from yoyo.migrations import default_migration_table

    # libpq reads the URL: sockets, host lists and what else yoyo's own reader does not know.
    words = extensions.parse_dsn(database_url)
    uri = DatabaseURI("postgresql", None, None, None, None, words.pop("dbname", None), words)
    applied = []
    with PostgresqlBackend(uri, default_migration_table) as backend:
        backend.init_database()
        # yoyo's own lock is a row, which stays when its holder is killed; ours says that nobody holds it.
        backend.break_lock()
        for migration in backend.to_apply(read_migrations(str(MIGRATIONS))):
            migration.load()
            # yoyo would mark it in another transaction; killed in between, it would apply it again.
            with backend.transaction() if migration.use_transactions else contextlib.nullcontext():
                migration.process_steps(backend, "apply")
                backend.mark_one(migration, log=False)
            applied.append(str(migration.id))
    return applied

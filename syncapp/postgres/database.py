"""PostgreSQL: connections, migrations, and whether it is fit.

psycopg2 blocks the thread it is called in, and under gevent with it every greenlet: `Database` is for
plain threads (the worker, commands), `check` and `pool` for anybody.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import TimeoutError as FutureTimeoutError
from functools import cache
from typing import Any

import psycopg2
import structlog
from psycopg2 import extensions

from syncapp.errors import one_line
from syncapp.postgres import migrations
from syncapp.postgres.failures import AWAY, Failure, FailureLog, failure_of
from syncapp.postgres.idle_connections import IDLE_S, IdleCloser
from syncapp.postgres.migrations import UpgradeFailed
from syncapp.postgres.native_probe import NativeProbe

__all__ = [
    "AWAY", "Connection", "Cursor", "Database", "UpgradeFailed", "check", "connect", "drop_partitions",
    "make_partitions", "upgrade",
]  # fmt: skip

log = structlog.get_logger(__name__)

Connection = extensions.connection
Cursor = extensions.cursor
CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_S = 30
_BUSY_WAIT_S = 30.0  # longer than any SyncApp process keeps an idle connection
_BUSY = ("too_many_connections", "starting_up", "shutting_down")
_MISSING_MONTHS = """
SELECT name FROM generate_series(0, %s) AS ahead, LATERAL (
    SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => ahead),
        '"sync_events_"YYYY_MM') AS name
) AS named WHERE to_regclass(name) IS NULL ORDER BY name
"""
# What drains and commands need.
_MISSING_RIGHTS = """
SELECT "right" || ' on ' || name FROM (VALUES
    ('sync_events', 'SELECT'), ('sync_events', 'INSERT'),
    ('sync_sessions', 'SELECT'), ('sync_sessions', 'INSERT'), ('sync_sessions', 'UPDATE'),
    ('sync_participants', 'SELECT'), ('sync_participants', 'INSERT'), ('sync_participants', 'UPDATE'),
    ('sync_dead_letters', 'SELECT'), ('sync_dead_letters', 'INSERT'), ('sync_dead_letters', 'UPDATE'),
    ('sync_dropped_partitions', 'SELECT')
) AS needed (name, "right") WHERE NOT has_table_privilege(to_regclass(name)::oid, "right")
UNION ALL SELECT 'TEMPORARY on the database' WHERE NOT has_database_privilege(current_database(), 'TEMPORARY')
"""


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
    """Transactions for native threads, each on its own connection.

    There are never more connections than threads that used it at once. A connection unused for 5 s is closed.
    hang_s: how long a transaction may take before its connection is shut, None for no limit. libpq has no such limit,
    and the server's own does not help when the server hangs.
    """

    def __init__(self, database_url: str, *, hang_s: float | None = None) -> None:
        self._url = database_url
        self._hang_s = hang_s
        self._used: dict[Connection, float] = {}
        self._idle: list[tuple[float, Connection]] = []  # the one used last is at the end, and is used next
        self._lock = threading.Lock()
        self._closer = IdleCloser(self._tend)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[Cursor]:
        """Yield a cursor in a transaction: committed at the end, rolled back by any exception.

        Raises what psycopg2 raises; after one of `AWAY`, or of a server that has become read-only, the next
        transaction has a new connection.
        """
        connection = self._begin()
        self._used[connection] = time.monotonic()
        try:
            with connection.cursor() as cursor:
                yield cursor
            connection.commit()
        except BaseException as error:
            # A server that accepts no writes may be the wrong one by now, and a read-only session stays read-only.
            if isinstance(error, (*AWAY, psycopg2.errors.ReadOnlySqlTransaction)) or not _rolled_back(connection):
                _close(connection)
                self.close()
            else:
                self._give_back(connection)
            raise
        finally:
            self._used.pop(connection, None)
        self._give_back(connection)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self.close_idle(0.0)

    def close_idle(self, idle_s: float = IDLE_S) -> None:
        """Close the connections that have been idle for too long."""
        latest = time.monotonic() - idle_s
        with self._lock:
            old = [connection for since, connection in self._idle if since <= latest]
            self._idle = [(since, connection) for since, connection in self._idle if since > latest]
        for connection in old:
            _close(connection)

    def _tend(self) -> None:
        """Close idle connections, and hang up on a server that has gone silent."""
        self.close_idle()
        now_s = time.monotonic()
        for connection, since_s in list(self._used.items()) if self._hang_s else ():
            if now_s - since_s > (self._hang_s or 0):
                log.warning("postgresql_hangs", for_s=round(now_s - since_s))
                _hang_up(connection)

    def _begin(self) -> Connection:
        self._closer.start()
        while True:
            with self._lock:
                connection = self._idle.pop()[1] if self._idle else None
            if connection is None:
                return _begun(connect(self._url))
            try:
                return _begun(connection)
            except AWAY:  # it broke while nobody used it; nothing has been asked of it yet
                _close(connection)

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            self._idle.append((time.monotonic(), connection))


def _rolled_back(connection: Connection) -> bool:
    try:
        connection.rollback()
    except psycopg2.Error:
        return False
    return True


def _hang_up(connection: Connection) -> None:
    """Shut the socket of a connection in use: whoever waits for its answer gets an `OperationalError`."""
    with contextlib.suppress(OSError, psycopg2.Error), socket.socket(fileno=os.dup(connection.fileno())) as raw:
        raw.shutdown(socket.SHUT_RDWR)


def _close(connection: Connection) -> None:
    with contextlib.suppress(psycopg2.Error):
        connection.close()


def _begun(connection: Connection) -> Connection:
    """Begin a transaction with its limits. They are set here, because a pooler may refuse them at the start."""
    limits = ("statement_timeout", "idle_in_transaction_session_timeout")
    try:
        with connection.cursor() as cursor:
            cursor.execute("; ".join(f"SET LOCAL {name} = '{STATEMENT_TIMEOUT_S}s'" for name in limits))
    except BaseException:
        _close(connection)
        raise
    return connection


def upgrade(
    database_url: str,
    *,
    partition_months: int = 3,
    wait_s: float = 5.0,
    warn: Callable[[str], None] = lambda text: log.warning("partitions_not_made", error=text),
) -> list[str]:
    """Apply the migrations that are not applied yet, in order, and make partitions ahead; return their names.

    Each is applied and marked in one transaction. Safe to run again, by several processes at once, and after one was
    killed half-way. Writes nothing when nothing is missing, so that a role that only reads will do then. Waits `wait_s`
    for a server that is away, and half a minute for one that is starting or has no connection left. warn is told of
    partitions that could not be made. Raises `UpgradeFailed`.
    """
    began_s = time.monotonic()
    while True:
        try:
            with contextlib.closing(connect(database_url)) as connection:
                applied = migrations.apply_missing(database_url, connection)
                _make_missing_partitions(connection, partition_months, warn)
                return applied
        except psycopg2.Error as error:
            trouble = failure_of(error)
            category = trouble.category if trouble else ""
            patience_s = _BUSY_WAIT_S if category in _BUSY and wait_s else wait_s if category == "unreachable" else 0.0
            if time.monotonic() >= began_s + patience_s:
                raise UpgradeFailed(one_line(error)) from error
        time.sleep(0.2)


def make_partitions(cursor: Cursor, months_ahead: int) -> list[str]:
    """Make the monthly partitions of `sync_events` from this month on; return the names of those made."""
    cursor.execute("SELECT sync_make_partitions(%s)", [months_ahead])
    return [name for (name,) in cursor.fetchall()]


def drop_partitions(cursor: Cursor, months_kept: int) -> list[str]:
    """Drop the monthly partitions of `sync_events` that are older and no longer written to; return their names."""
    cursor.execute("SET LOCAL statement_timeout = 0; SELECT sync_drop_partitions(%s)", [months_kept])
    return [name for (name,) in cursor.fetchall()]


def check(database_url: str, timeout_s: float = 1.5) -> Failure | None:
    """Return None if PostgreSQL can be reached and written to, or else what is wrong with it.

    Safe to call from any greenlet and as often as one likes: one question a second is asked, in a native thread, over a
    connection that is closed at once, and an answer that takes longer than `timeout_s` is not waited for. The driver's
    own text goes to the log, once for each trouble.
    """
    probe, streak = _probe(database_url)
    try:
        trouble, text = probe.answer(timeout_s)
    except FutureTimeoutError:
        trouble, text = Failure.of("slow"), f"no answer within {timeout_s:g} s"
    streak.note(trouble, text)
    return trouble


@cache
def _probe(database_url: str) -> tuple[NativeProbe[tuple[Failure | None, str]], FailureLog]:
    return NativeProbe(lambda: _unfit(database_url)), FailureLog("check")


def _unfit(database_url: str) -> tuple[Failure | None, str]:
    """Return what is wrong, and the driver's text."""
    try:
        with (
            contextlib.closing(connect(database_url, connect_timeout_s=2)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SET LOCAL statement_timeout = '2s'")
            return _trouble_with(cursor), ""
    except Exception as error:  # noqa: BLE001 gevent prints exceptions that leave its threads
        return failure_of(error) or Failure.of("failing"), one_line(error)


def _trouble_with(cursor: Cursor) -> Failure | None:
    cursor.execute(migrations.IS_FIXED)
    is_standby, is_read_only = cursor.fetchone() or (False, False)
    if is_standby:
        return Failure.of("standby")
    known, applied = migrations.known(), migrations.applied_to(cursor)
    if not applied:
        return Failure.of("not_migrated")
    if missing := sorted(known - applied):
        return Failure("not_migrated", f"lacks {', '.join(missing)}: run flask db upgrade")
    if is_read_only:
        return Failure.of("read_only")
    cursor.execute(_MISSING_RIGHTS)
    if rights := [name for (name,) in cursor.fetchall()]:
        return Failure.of("lacks_rights", f": {', '.join(rights)}")
    if applied - known:
        return Failure.of("newer_schema")
    return None


def _make_missing_partitions(connection: Connection, months_ahead: int, warn: Callable[[str], None]) -> None:
    """Make missing partitions ahead. Warns if that fails: the default partition then takes the rows."""
    with connection.cursor() as cursor:
        cursor.execute(_MISSING_MONTHS, [months_ahead])
        missing = [name for (name,) in cursor.fetchall()]
        if not missing:
            return
        try:
            # A long query may be in the way; the worker makes them too, each night.
            cursor.execute(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT_S}s'")
            make_partitions(cursor, months_ahead)
            connection.commit()
        except psycopg2.Error as error:
            warn(f"{', '.join(missing)} could not be made, the default partition takes their rows: {one_line(error)}")

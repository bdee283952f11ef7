"""Checks whether PostgreSQL can be reached, is migrated and accepts writes."""

from __future__ import annotations

import contextlib
from functools import cache

from syncapp.errors import one_line
from syncapp.postgres import migrations
from syncapp.postgres.database import Cursor, connect
from syncapp.postgres.failures import Failure, FailureLog, failure_of
from syncapp.postgres.native_probe import NativeProbe

# The rights that drains and commands need.
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


def check(database_url: str, timeout_s: float = 1.5) -> Failure | None:
    """Return None if PostgreSQL can be reached and written to, otherwise what is wrong.

    It may be called from any greenlet, at any rate: at most one check a second runs, in a native thread, over a
    connection that is closed at once. A check that takes longer than `timeout_s` counts as slow. The driver's own text
    goes to the log, once for each failure.
    """
    probe, failures = _probe(database_url)
    try:
        failure, text = probe.answer(timeout_s)
    except TimeoutError:
        failure, text = Failure.of("slow"), f"no answer within {timeout_s:g} s"
    failures.note(failure, text)
    return failure


@cache
def _probe(database_url: str) -> tuple[NativeProbe[tuple[Failure | None, str]], FailureLog]:
    return NativeProbe(lambda: _connect_and_check(database_url)), FailureLog("check")


def _connect_and_check(database_url: str) -> tuple[Failure | None, str]:
    """Return what is wrong, and the driver's text."""
    try:
        with (
            contextlib.closing(connect(database_url, connect_timeout_s=2)) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute("SET LOCAL statement_timeout = '2s'")
            return _check(cursor), ""
    except Exception as error:  # noqa: BLE001 gevent prints exceptions that leave its threads
        return failure_of(error) or Failure.of("failing"), one_line(error)


def _check(cursor: Cursor) -> Failure | None:
    cursor.execute(migrations.IS_READ_ONLY)
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

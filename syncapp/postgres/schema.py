"""The schema: upgrades it, and makes and drops the monthly partitions of `sync_events`."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable

import psycopg2
import structlog

from syncapp.errors import one_line
from syncapp.postgres import migrations
from syncapp.postgres.database import STATEMENT_TIMEOUT_S, Connection, Cursor, connect
from syncapp.postgres.failures import failure_of
from syncapp.postgres.migrations import UpgradeFailed

log = structlog.get_logger(__name__)

_BUSY_WAIT_S = 30.0  # longer than any SyncApp process keeps an idle connection
_BUSY = ("too_many_connections", "starting_up", "shutting_down")
_MISSING_MONTHS = """
SELECT name FROM generate_series(0, %s) AS ahead, LATERAL (
    SELECT to_char(date_trunc('month', now() AT TIME ZONE 'UTC') + make_interval(months => ahead),
        '"sync_events_"YYYY_MM') AS name
) AS named WHERE to_regclass(name) IS NULL ORDER BY name
"""


def upgrade(
    database_url: str,
    *,
    partition_months: int = 3,
    wait_s: float = 5.0,
    warn: Callable[[str], None] = lambda text: log.warning("partitions_not_made", error=text),
) -> list[str]:
    """Apply the missing migrations in order, make partitions ahead, and return the names of the applied migrations.

    Each migration is applied and recorded in one transaction. An upgrade may be repeated, run in several processes at
    once, or follow one that was killed. It writes nothing when nothing is missing, so a read-only role is enough then.
    It waits up to `wait_s` for a server that is unreachable, and 30 s for one that is starting, shutting down or out of
    connections. warn: called with a text if partitions could not be made. Raises `UpgradeFailed`.
    """
    began_s = time.monotonic()
    while True:
        try:
            with contextlib.closing(connect(database_url)) as connection:
                applied = migrations.apply_missing(database_url, connection)
                _make_missing_partitions(connection, partition_months, warn)
                return applied
        except psycopg2.Error as error:
            failure = failure_of(error)
            category = failure.category if failure else ""
            max_wait_s = _BUSY_WAIT_S if category in _BUSY and wait_s else wait_s if category == "unreachable" else 0.0
            if time.monotonic() >= began_s + max_wait_s:
                raise UpgradeFailed(one_line(error)) from error
        time.sleep(0.2)


def make_partitions(cursor: Cursor, months_ahead: int) -> list[str]:
    """Make the missing monthly partitions, from this month on; return the names of those made."""
    cursor.execute("SELECT sync_make_partitions(%s)", [months_ahead])
    return [name for (name,) in cursor.fetchall()]


def drop_partitions(cursor: Cursor, months_kept: int) -> list[str]:
    """Drop older monthly partitions whose sessions are no longer written to; return their names."""
    cursor.execute("SET LOCAL statement_timeout = 0; SELECT sync_drop_partitions(%s)", [months_kept])
    return [name for (name,) in cursor.fetchall()]


def _make_missing_partitions(connection: Connection, months_ahead: int, warn: Callable[[str], None]) -> None:
    """Make missing partitions. Warns if that fails: rows then go to the default partition."""
    with connection.cursor() as cursor:
        cursor.execute(_MISSING_MONTHS, [months_ahead])
        missing = [name for (name,) in cursor.fetchall()]
        if not missing:
            return
        try:
            # A long query may hold a lock that this needs. The worker makes partitions too, every night.
            cursor.execute(f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT_S}s'")
            make_partitions(cursor, months_ahead)
            connection.commit()
        except psycopg2.Error as error:
            warn(f"could not make {', '.join(missing)}; rows go to the default partition: {one_line(error)}")

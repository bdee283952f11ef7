"""Verification: reads the whole audit log again and names the first row of each session that is not as committed.

Rows are streamed one session at a time, in a single snapshot of the database; session_check.py checks them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from syncapp.audit.findings import AuditFault, BadRow, Fork
from syncapp.audit.session_check import SessionCheck
from syncapp.postgres.database import connect, stream

_EVENTS = """
SELECT session_id::text, epoch, version, message::text, private::text,
    (to_jsonb(log) - 'message' - 'private' - 'stored_at')::text
FROM sync_events AS log {} ORDER BY log.session_id, epoch, version
"""
# Sessions of which all rows up to an epoch were deleted.
_ERASED = "SELECT session_id::text, max(before) FROM sync_erasures WHERE is_whole GROUP BY session_id"
_TOTALS = """
SELECT session_id::text, to_jsonb(one)::text, (
    SELECT coalesce(jsonb_agg(to_jsonb(person)), '[]')::text FROM sync_participants AS person
    WHERE person.session_id = one.session_id
)
FROM sync_sessions AS one {} ORDER BY one.session_id
"""


@dataclass(slots=True)
class VerifyResult:
    """How much has been read so far."""

    sessions: int = 0
    events: int = 0
    erased_parts: int = 0
    erased_sessions: int = 0


def verify(database_url: str, result: VerifyResult, session_id: str | None = None) -> Iterator[AuditFault | Fork]:
    """Yield the forks and faults of all sessions, or of one; counts in `result`. Raises what psycopg2 raises."""
    where, arguments = ("WHERE session_id = %s", [session_id]) if session_id else ("", [])
    with contextlib.closing(connect(database_url)) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:
            # Reading may take hours, so there are no time limits. Sorting is off because the indexes have the order.
            cursor.execute(
                "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET TimeZone = 'UTC';"
                "SET enable_sort = off; SELECT from_epoch, to_epoch FROM sync_dropped_partitions"
            )
            dropped = cursor.fetchall()
            cursor.execute(_ERASED)
            erased = dict(cursor.fetchall())
        events = groupby(stream(connection, "events", _EVENTS.format(where), arguments), lambda row: row[0])
        totals = stream(connection, "totals", _TOTALS.format(where), arguments)
        for each, rows, its_totals in _merge_join(events, totals):
            result.sessions += 1
            check = SessionCheck(connection, each, dropped, erased.get(each, 0))
            try:
                for row in rows:
                    result.events += 1
                    check.read(row)
                check.compare_totals(its_totals)
            except BadRow as bad:
                yield from check.forks
                yield AuditFault(each, *bad.place, str(bad))
                result.events += sum(1 for _ in rows)
            else:
                yield from check.forks
            result.erased_parts += check.erased_parts
            result.erased_sessions += check.erased_parts > 0


def _merge_join(
    events: Iterable[tuple[str, Iterator[tuple[Any, ...]]]], totals: Iterator[tuple[Any, ...]]
) -> Iterator[tuple[str, Iterator[tuple[Any, ...]], tuple[str, str] | None]]:
    """Yield each session with its rows and its totals.

    Both inputs are in the order of session ids; a session may be missing from either.
    """
    session = next(totals, None)
    for session_id, rows in events:
        while session and session[0] < session_id:
            yield session[0], iter(()), session[1:]
            session = next(totals, None)
        its_totals = session[1:] if session and session[0] == session_id else None
        yield session_id, rows, its_totals
        if its_totals:
            session = next(totals, None)
    while session:
        yield session[0], iter(()), session[1:]
        session = next(totals, None)

"""The history: what the audit log answers about sessions, also about those that Redis no longer has.

Events come into the log within about a second of their commit; nothing in here asks Redis for more than the time,
and whether the log is behind for a session.
Every method raises `AuditUnavailable` when PostgreSQL does not answer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any

from syncapp.domain.definition import Definition
from syncapp.domain.instants import iso
from syncapp.domain.order import Order
from syncapp.domain.session import add_completion, public_patch
from syncapp.errors import AuditIncomplete, SessionNotFound, StoreUnavailable, ValidationFailed
from syncapp.history import last_known, snapshots, sql
from syncapp.history.query_params import AtQuery, EventsQuery, HistoryQuery
from syncapp.history.read_pool import ReadPool
from syncapp.history.replay import PastState
from syncapp.postgres.database import Cursor
from syncapp.store.restore import RestorePoint

Row = dict[str, Any]
"""A row as clients see it: JSON, instants as ISO 8601."""
EXPORT_ROWS = 500


@dataclass(frozen=True, slots=True)
class Page:
    """Rows, and the cursor to go on from; None when these are the last."""

    rows: list[Row]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Cycles:
    """Cycles of a participant, or of all: those that have ended, and the time (ms) charged to one that has not.

    total_ms is all time charged, mean_ms and longest_ms are of cycles that have ended; None when none has.
    """

    cycles: int = 0
    total_ms: int = 0
    mean_ms: int | None = None
    longest_ms: int | None = None
    open_ms: int = 0


@dataclass(frozen=True, slots=True)
class Statistics:
    """Cycles of a session's newest life: of all, and by participant id, in rotation order."""

    epoch: int
    whole: Cycles
    participants: dict[str, Cycles]


class HistoryQueries:
    """Answers from the log.

    now_ms: the server's time (ms), beyond which nothing is known. is_on_its_way: tells whether any event of a
    session is committed and not in the log yet.
    """

    def __init__(
        self, pool: ReadPool, now_ms: Callable[[], int], is_on_its_way: Callable[[str], bool] = lambda session_id: False
    ) -> None:
        self._pool = pool
        self.now_ms = now_ms
        self._is_on_its_way = is_on_its_way

    def events(self, session_id: str, asked: EventsQuery) -> Page:
        """Return events in the order of their commits. Raises `SessionNotFound` when the log has none at all."""
        return self._pool.ask(lambda cursor: _events(cursor, session_id, asked, sql.EVENT_COLUMNS))

    def export(self, session_id: str) -> Iterator[list[Row]]:
        """Yield all events, with snapshots, a bounded number at a time. Raises `SessionNotFound` at the first."""
        columns, page = (*sql.EVENT_COLUMNS, "snapshot"), Page([], "0-0")
        while page.next_cursor:
            asked = EventsQuery(limit=EXPORT_ROWS, cursor=page.next_cursor)
            page = self._pool.ask(partial(_events, session_id=session_id, asked=asked, columns=columns))
            yield page.rows

    def at(self, session_id: str, asked: AtQuery) -> PastState:
        """Return a session as it was at an instant, or after a version, shown as of that commit's own instant.

        Raises `SessionNotFound` when there was none, `AuditIncomplete` when an event is missing that the
        state stands on or may be on its way, `ValidationFailed` for an instant to come.
        """
        at_ms = asked.time
        if at_ms is not None and at_ms > self._latest_ms():
            raise ValidationFailed.of("time", "must not be in the future", "in_future")

        def found(cursor: Cursor) -> tuple[PastState, Order]:
            if at_ms is None:
                moment = snapshots.after_version(cursor, session_id, asked.version or 0, asked.epoch)
            else:
                moment = snapshots.at_time(cursor, session_id, at_ms)
            return moment, snapshots.newest(cursor, session_id)

        more = self._awaits_more(session_id)  # before: what comes into the log meanwhile is found
        try:
            moment, newest = self._pool.ask(found)
        except SessionNotFound:
            if more:
                raise _on_its_way() from None
            raise
        if more and at_ms is not None and moment.session.order >= newest:
            raise _on_its_way()
        return moment

    def _awaits_more(self, session_id: str) -> bool:
        """Tell whether the log is behind for a session; while the store is away, nothing is known of that."""
        try:
            return self._is_on_its_way(session_id)
        except StoreUnavailable:
            return False

    def _latest_ms(self) -> int:
        """Return the store's time; while the store is away this machine's is near enough to tell what is to come."""
        try:
            return self.now_ms()
        except StoreUnavailable:
            return int(time.time() * 1000)

    def sessions(self, asked: HistoryQuery) -> Page:
        """Return sessions, the last changed first."""
        return self._pool.ask(lambda cursor: _sessions(cursor, asked))

    def remains(self, session_id: str) -> RestorePoint | None:
        """Return what the log knows last of a session, for a recovery; None when it knows nothing.

        Raises `AuditIncomplete` when an event is missing that this stands on.
        """
        return self._pool.ask(lambda cursor: last_known.of(cursor, session_id))

    def forks(self) -> set[tuple[str, int]]:
        """Return each (session id, epoch) of which another event than the one stored is kept as a dead letter."""
        return self._pool.ask(last_known.forks)

    def ids_since(self, changed_ms: int) -> list[str]:
        """Return the ids of sessions that are live, or were changed since an instant (ms) and not deleted."""
        return self._pool.ask(lambda cursor: last_known.ids(cursor, changed_ms))

    def statistics(self, session_id: str) -> Statistics:
        """Return the cycles of a session since it was created last. Raises `SessionNotFound`."""
        return self._pool.ask(lambda cursor: _statistics(cursor, session_id))


def _events(cursor: Cursor, session_id: str, asked: EventsQuery, columns: Sequence[str]) -> Page:
    filters, values = "", {"session_id": session_id, "limit": asked.limit + 1}
    values["epoch"], values["version"] = asked.after
    if asked.type:
        filters += " AND event_type = ANY(%(types)s)"
    if asked.since is not None:
        filters += " AND at >= %(since)s"
    if asked.until is not None:
        filters += " AND at < %(until)s"
    named = ", ".join(sql.EXPRESSIONS.get(name, name) for name in columns)
    values |= {"types": asked.type, "since": iso(asked.since), "until": iso(asked.until)}
    cursor.execute(sql.EVENTS.format(columns=named, filters=filters), values)
    rows = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
    if not rows:
        _expect_any(cursor, session_id)
    page = [_shown(row) for row in rows[: asked.limit]]
    more = len(rows) > asked.limit
    return Page(page, f"{page[-1]['epoch']}-{page[-1]['version']}" if more else None)


def _shown(row: Row) -> Row:
    """Return an event's row under the names that clients know."""
    shown = {"epoch": row.pop("epoch"), "version": row.pop("version"), "type": row.pop("event_type")}
    completion = row.pop("completion")
    patch = public_patch({**add_completion(row["patch"], completion), "idle_ms": row.pop("idle_ms")})
    if row.get("snapshot"):
        row["snapshot"] = add_completion(row["snapshot"], completion)  # a worker of an earlier release left it out
    return shown | {"at": iso(row["at_ms"])} | row | {"patch": patch}


def _expect_any(cursor: Cursor, session_id: str) -> None:
    cursor.execute(sql.EXISTS, [session_id])
    if cursor.fetchone() is None:
        raise SessionNotFound("the log has no session of this id, or not yet")


def _sessions(cursor: Cursor, asked: HistoryQuery) -> Page:
    # One word alone is what an index by it can be read in order for.
    spans = {
        "status = %(status)s": asked.status if len(asked.status) == 1 else None,
        "status = ANY(%(statuses)s::sync_status[])": asked.status if len(asked.status) > 1 else None,
        "sync_mode = %(mode)s": asked.sync_mode if len(asked.sync_mode) == 1 else None,
        "sync_mode = ANY(%(modes)s::sync_mode[])": asked.sync_mode if len(asked.sync_mode) > 1 else None,
        "created_at >= %(created_from)s": asked.created_from,
        # What was created in the span was not changed before it: this is what an index of changes can use.
        "updated_at >= %(created_from)s": asked.created_from,
        "created_at < %(created_to)s": asked.created_to,
        "updated_at >= %(updated_from)s": asked.updated_from,
        "updated_at < %(updated_to)s": asked.updated_to,
        "(updated_at, session_id) < (%(before)s::timestamptz, %(before_id)s::uuid)": asked.before,
    }
    wanted = [condition for condition, value in spans.items() if value is not None]
    names = ("created_from", "created_to", "updated_from", "updated_to")
    values: Row = {name: iso(getattr(asked, name)) for name in names}
    values |= {"statuses": asked.status, "modes": asked.sync_mode, "limit": asked.limit + 1}
    values |= {"status": next(iter(asked.status), None), "mode": next(iter(asked.sync_mode), None)}
    if asked.before:
        values |= {"before": iso(asked.before[0]), "before_id": asked.before[1]}
    cursor.execute(sql.SESSIONS.format(filters=" WHERE " + " AND ".join(wanted) if wanted else ""), values)
    found = cursor.fetchall()
    rows = [dict(zip(sql.SESSION_COLUMNS, row, strict=True)) for row in found[: asked.limit]]
    if len(found) <= asked.limit:
        return Page([_dated(row) for row in rows], None)
    last_ms = _ms(rows[-1]["updated_at"])
    return Page([_dated(row) for row in rows], f"{last_ms}_{rows[-1]['session_id']}")


def _dated(row: Row) -> Row:
    return {name: iso(_ms(value)) if name.endswith("_at") and value else value for name, value in row.items()}


def _ms(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)


def _statistics(cursor: Cursor, session_id: str) -> Statistics:
    _expect_any(cursor, session_id)
    cursor.execute(sql.LIFE, [session_id])
    ((epoch,),) = cursor.fetchall()
    epoch = epoch or 0  # of a life without any whole state
    cursor.execute(sql.CYCLES, [session_id, epoch])
    (_, *whole), *others = cursor.fetchall()
    told = {name: Cycles(*numbers) for name, *numbers in others}
    cursor.execute(sql.ROSTER, [session_id, epoch])
    roster = [Definition.from_json(text).participant_ids for (text,) in cursor.fetchall()]
    return Statistics(epoch, Cycles(*whole), {name: told.get(name, Cycles()) for name in (roster or [()])[0]})


def _on_its_way() -> AuditIncomplete:
    return AuditIncomplete("events of this session are on their way into the log; try again", {"retry_after_s": 1})

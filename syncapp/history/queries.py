"""Queries of the audit log about sessions, including those that Redis no longer has.

Events are in the log about one second after their commit. From Redis, queries need only the time, and whether a session
has events that are not in the log yet. Every method raises `AuditUnavailable` if PostgreSQL does not answer.
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
from syncapp.domain.patches import add_completion, public_patch
from syncapp.domain.principal import DEFAULT_TENANT
from syncapp.domain.private_parts import revealed, values_of
from syncapp.domain.session_ids import log_id
from syncapp.domain.version_order import Order
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
    """Rows, and the cursor of the next page; None on the last page."""

    rows: list[Row]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Cycles:
    """The cycles of one participant or of all.

    cycles: how many have ended. total_ms: all charged time. mean_ms, longest_ms: of ended cycles; None without any.
    open_ms: the time charged to the cycle that has not ended.
    """

    cycles: int = 0
    total_ms: int = 0
    mean_ms: int | None = None
    longest_ms: int | None = None
    open_ms: int = 0


@dataclass(frozen=True, slots=True)
class Statistics:
    """The cycles of a session since it was last created: of all participants, and by id in rotation order."""

    epoch: int
    whole: Cycles
    participants: dict[str, Cycles]


class HistoryQueries:
    """Answers queries from the log.

    now_ms: returns the store's time (ms); later states are unknown. has_undrained: tells whether a session has events
    that are committed but not in the log yet.
    """

    def __init__(
        self, pool: ReadPool, now_ms: Callable[[], int], has_undrained: Callable[[str], bool] = lambda session_id: False
    ) -> None:
        self._pool = pool
        self.now_ms = now_ms
        self._has_undrained = has_undrained

    def events(self, session_id: str, query: EventsQuery) -> Page:
        """Return events in the order of the query. Raises `SessionNotFound` if the log has none of the session."""
        return self._pool.ask(lambda cursor: _events(cursor, session_id, query, sql.EVENT_COLUMNS))

    def export(self, session_id: str) -> Iterator[list[Row]]:
        """Yield all events, with snapshots, in pages of EXPORT_ROWS. Raises `SessionNotFound` at the first page."""
        columns, page = (*sql.EVENT_COLUMNS, "snapshot"), Page([], "0-0")
        while page.next_cursor:
            query = EventsQuery(limit=EXPORT_ROWS, cursor=page.next_cursor)
            page = self._pool.ask(partial(_events, session_id=session_id, query=query, columns=columns))
            yield page.rows

    def state_at(self, session_id: str, query: AtQuery) -> PastState:
        """Return a session as it was at an instant, or after a version, shown as of the instant of that commit.

        Raises `SessionNotFound` if it did not exist, `AuditIncomplete` if an event that the state needs is missing or
        may not be in the log yet, and `ValidationFailed` for an instant in the future.
        """
        at_ms = query.time
        if at_ms is not None and at_ms > self._latest_ms():
            raise ValidationFailed.of("time", "must not be in the future", "in_future")

        def read(cursor: Cursor) -> tuple[PastState, Order]:
            if at_ms is None:
                state = snapshots.state_after_version(cursor, session_id, query.version or 0, query.epoch)
            else:
                state = snapshots.state_at(cursor, session_id, at_ms)
            return state, snapshots.newest(cursor, session_id)

        # Asked before the log is read, so that events that reach the log in between are not missed.
        is_behind = self._is_behind(session_id)
        try:
            state, newest = self._pool.ask(read)
        except SessionNotFound:
            if is_behind:
                raise _undrained() from None
            raise
        if is_behind and at_ms is not None and state.session.order >= newest:
            raise _undrained()
        return state

    def _is_behind(self, session_id: str) -> bool:
        """Return whether the log is behind for a session; False while the store cannot be reached to find out."""
        try:
            return self._has_undrained(session_id)
        except StoreUnavailable:
            return False

    def _latest_ms(self) -> int:
        """Return the store's time; while it cannot be reached, this machine's, which is accurate enough here."""
        try:
            return self.now_ms()
        except StoreUnavailable:
            return int(time.time() * 1000)

    def sessions(self, query: HistoryQuery, tenant: str = DEFAULT_TENANT) -> Page:
        """Return a tenant's sessions, the most recently changed first."""
        return self._pool.ask(lambda cursor: _sessions(cursor, query, tenant))

    def restore_point(self, session_id: str) -> RestorePoint | None:
        """Return the last known state of a session; None if the log has no event of it.

        Raises `AuditIncomplete` if an event that the state needs is missing.
        """
        return self._pool.ask(lambda cursor: last_known.restore_point(cursor, session_id))

    def forks(self) -> set[tuple[str, int]]:
        """Return each (log id, epoch) that has a dead letter whose event differs from the stored one."""
        return self._pool.ask(last_known.forks)

    def recent_ids(self, changed_ms: int) -> list[str]:
        """Return the ids of sessions that are live, or that have changed since an instant (ms) and are not deleted."""
        return self._pool.ask(lambda cursor: last_known.recent_ids(cursor, changed_ms))

    def statistics(self, session_id: str) -> Statistics:
        """Return the cycles of a session since it was last created. Raises `SessionNotFound`."""
        return self._pool.ask(lambda cursor: _statistics(cursor, session_id))


def _events(cursor: Cursor, session_id: str, query: EventsQuery, columns: Sequence[str]) -> Page:
    filters, values = "", {"session_id": log_id(session_id), "limit": query.limit + 1}
    values["epoch"], values["version"] = query.after
    if query.type:
        filters += " AND event_type = ANY(%(types)s)"
    if query.principal is not None:
        filters += " AND principal = %(principal)s"
    if query.since is not None:
        filters += " AND at >= %(since)s"
    if query.until is not None:
        filters += " AND at < %(until)s"
    named = ", ".join(sql.EXPRESSIONS.get(name, name) for name in columns)
    values |= {"types": query.type, "principal": query.principal, "since": iso(query.since), "until": iso(query.until)}
    statement = sql.EVENTS if query.order == "oldest_first" else sql.EVENTS_BACKWARDS
    cursor.execute(statement.format(columns=named, filters=filters), values)
    rows = [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
    if not rows:
        _expect_any(cursor, session_id)
    page = [_shown(row) for row in rows[: query.limit]]
    more = len(rows) > query.limit
    return Page(page, f"{page[-1]['epoch']}-{page[-1]['version']}" if more else None)


def _shown(row: Row) -> Row:
    """Return an event's row with the names of the API."""
    shown = {"epoch": row.pop("epoch"), "version": row.pop("version"), "type": row.pop("event_type")}
    digests, values = row.pop("digests") or {}, values_of(row.pop("private"))
    row["event"], patch, completion = revealed(row["event"], row["patch"], row.pop("completion"), values)
    patch = public_patch({**add_completion(patch, completion), "idle_ms": row.pop("idle_ms")})
    if row.get("snapshot"):
        row["snapshot"] = add_completion(row["snapshot"], completion)  # workers of earlier releases left it out
        if "metadata" in values:
            row["snapshot"] = {**row["snapshot"], "metadata": values["metadata"]}
    erased = {"erased": sorted(digests.keys() - values.keys())} if digests.keys() - values.keys() else {}
    row = _without_nulls(row, "principal", "jti")
    return shown | {"at": iso(row["at_ms"])} | row | {"patch": patch} | erased


def _expect_any(cursor: Cursor, session_id: str) -> None:
    cursor.execute(sql.EXISTS, [log_id(session_id)])
    if cursor.fetchone() is None:
        raise SessionNotFound("the log has no session with this id, or not yet")


def _sessions(cursor: Cursor, query: HistoryQuery, tenant: str) -> Page:
    # A single value is compared with =, so that an index can return the rows in order.
    conditions = {
        "tenant = %(tenant)s": tenant,
        "principal = %(principal)s": query.principal,
        "status = %(status)s": query.status if len(query.status) == 1 else None,
        "status = ANY(%(statuses)s::sync_status[])": query.status if len(query.status) > 1 else None,
        "sync_mode = %(mode)s": query.sync_mode if len(query.sync_mode) == 1 else None,
        "sync_mode = ANY(%(modes)s::sync_mode[])": query.sync_mode if len(query.sync_mode) > 1 else None,
        "created_at >= %(created_from)s": query.created_from,
        # Redundant, because nothing is changed before it is created; but the index on updated_at can use it.
        "updated_at >= %(created_from)s": query.created_from,
        "created_at < %(created_to)s": query.created_to,
        "updated_at >= %(updated_from)s": query.updated_from,
        "updated_at < %(updated_to)s": query.updated_to,
        "(updated_at, session_id) < (%(before)s::timestamptz, %(before_id)s::uuid)": query.before,
    }
    filters = [condition for condition, value in conditions.items() if value is not None]
    names = ("created_from", "created_to", "updated_from", "updated_to")
    values: Row = {name: iso(getattr(query, name)) for name in names}
    values |= {"tenant": tenant, "principal": query.principal}
    values |= {"statuses": query.status, "modes": query.sync_mode, "limit": query.limit + 1}
    values |= {"status": next(iter(query.status), None), "mode": next(iter(query.sync_mode), None)}
    if query.before:
        values |= {"before": iso(query.before[0]), "before_id": query.before[1]}
    cursor.execute(sql.SESSIONS.format(filters=" WHERE " + " AND ".join(filters) if filters else ""), values)
    found = cursor.fetchall()
    rows = [dict(zip(sql.SESSION_COLUMNS, row, strict=False)) for row in found[: query.limit]]
    more = len(found) > query.limit
    next_cursor = f"{_ms(rows[-1]['updated_at'])}_{found[len(rows) - 1][-1]}" if more else None
    return Page([_dated(row) for row in rows], next_cursor)


def _without_nulls(row: Row, *names: str) -> Row:
    return {name: value for name, value in row.items() if name not in names or value is not None}


def _dated(row: Row) -> Row:
    row = _without_nulls(row, "principal")
    return {name: iso(_ms(value)) if name.endswith("_at") and value else value for name, value in row.items()}


def _ms(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)


def _statistics(cursor: Cursor, session_id: str) -> Statistics:
    _expect_any(cursor, session_id)
    session_id = log_id(session_id)
    cursor.execute(sql.LIFE, [session_id])
    ((epoch,),) = cursor.fetchall()
    epoch = epoch or 0  # the log has no snapshot of the session
    cursor.execute(sql.CYCLES, [session_id, epoch])
    (_, *whole), *others = cursor.fetchall()
    cycles = {name: Cycles(*numbers) for name, *numbers in others}
    cursor.execute(sql.ROSTER, [session_id, epoch])
    roster = [Definition.from_json(text).participant_ids for (text,) in cursor.fetchall()]
    return Statistics(epoch, Cycles(*whole), {name: cycles.get(name, Cycles()) for name in (roster or [()])[0]})


def _undrained() -> AuditIncomplete:
    return AuditIncomplete("some events of this session are not in the log yet; try again", {"retry_after_s": 1})

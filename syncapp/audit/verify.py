"""The verifier: reads the whole audit log again, and names the first row of each session that is not as committed.

It trusts nothing that is stored: columns and totals are made anew from the messages, messages are held against
their hashes, each hash against the next message, and patches against snapshots. Rows are streamed, a session at
a time, in one snapshot of the database. A row that follows on dead letters instead of rows is a fork: the
session goes on being checked from there, with the state of the letters' side.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from hashlib import sha1
from itertools import groupby
from typing import Any

import orjson

from syncapp.audit.event import GRANTED, AuditEvent, OutboxEntry, Row
from syncapp.audit.findings import AuditFault, BadRow, Fork
from syncapp.audit.log_forks import Forks
from syncapp.audit.totals import Totals
from syncapp.domain.session import Session, patch_of
from syncapp.postgres.database import Connection, connect

_AT_ONCE = 500
_EVENTS = """
SELECT session_id::text, epoch, version, message::text, (to_jsonb(log) - 'message' - 'stored_at')::text
FROM sync_events AS log {} ORDER BY log.session_id, epoch, version
"""
_TOTALS = """
SELECT session_id::text, to_jsonb(one)::text, (
    SELECT coalesce(jsonb_agg(to_jsonb(person)), '[]')::text FROM sync_participants AS person
    WHERE person.session_id = one.session_id
)
FROM sync_sessions AS one {} ORDER BY one.session_id
"""
_IS_NAMED = "SELECT EXISTS (SELECT FROM sync_events WHERE session_id = %s AND epoch < %s AND previous_hash = %s)"
_MESSAGES = "SELECT message::text FROM sync_events WHERE session_id = %s AND epoch = %s ORDER BY version"
_CHANGED = "was changed: the row after it follows on another"
_OVER_ALL_EPOCHS = frozenset({"first_active_at", "last_active_at"})
_TOLD = [
    *map(frozenset, (["metadata", "metadata_version"], ["participant_count"], ["participant_index"])),
    *map(frozenset, (["created_at"], ["started_at"], ["completed_at"], ["deleted_at"], ["total_time_ms"])),
]
"""Columns of totals that only some commits set; grouped by the commits that set them."""


@dataclass(slots=True)
class VerifyResult:
    """What was read so far."""

    sessions: int = 0
    events: int = 0


def verify(database_url: str, checked: VerifyResult, session_id: str | None = None) -> Iterator[AuditFault | Fork]:
    """Yield forks and faults of all sessions, or of one; counts what it reads. Raises what psycopg2 raises."""
    where, arguments = ("WHERE session_id = %s", [session_id]) if session_id else ("", [])
    with contextlib.closing(connect(database_url)) as connection:
        connection.set_session(isolation_level="REPEATABLE READ", readonly=True)
        with connection.cursor() as cursor:
            # Hours of reading are no fault; and nothing is sorted that an index has in order.
            cursor.execute(
                "SET statement_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET TimeZone = 'UTC';"
                "SET enable_sort = off; SELECT from_epoch, to_epoch FROM sync_dropped_partitions"
            )
            dropped = cursor.fetchall()
        events = groupby(_stream(connection, "events", _EVENTS.format(where), arguments), lambda row: row[0])
        totals = _stream(connection, "totals", _TOTALS.format(where), arguments)
        for each, rows, known in _side_by_side(events, totals):
            checked.sessions += 1
            history = _History(connection, each, dropped)
            try:
                for row in rows:
                    checked.events += 1
                    history.read(row)
                history.compare(known)
            except BadRow as bad:
                yield from history.forks
                yield AuditFault(each, *bad.place, str(bad))
                checked.events += sum(1 for _ in rows)
            else:
                yield from history.forks


class _History:
    """One session's rows, read in order."""

    def __init__(self, connection: Connection, session_id: str, dropped: Iterable[tuple[int, int]]) -> None:
        self._connection = connection
        self._session_id = session_id
        self._dropped = list(dropped)
        self._totals = Totals()
        self._order = (0, 0)
        self._is_cut = False
        self._before: tuple[int, bytes] = (0, b"")  # epoch and hash of the last row before this epoch
        self._chain = b""
        self._state: Session | None = None
        self._suspect: tuple[int, int] | None = None
        self._forked: set[int] = set()  # epochs
        self._ways = Forks(connection, session_id)
        self.forks: list[Fork] = []

    def read(self, row: tuple[Any, ...]) -> None:
        """Check the next row. Raises `BadRow`."""
        _, epoch, version, text, columns = row
        last_epoch, last_version = self._order
        if epoch != last_epoch:
            last_version = 0
        if version != last_version + 1:
            raise BadRow(epoch, last_version + 1, f"is missing; the next one there is version {version}")
        raw = text.encode()
        try:
            event = AuditEvent.parse(OutboxEntry(0, "", raw))
            message = orjson.loads(raw)
        except Exception as error:  # whatever is wrong with a message, it is not what was committed
            raise BadRow(epoch, version, f"its message cannot be read: {type(error).__name__}") from error
        found = orjson.loads(columns)
        if name := _difference(_as_stored(orjson.loads(orjson.dumps(event.row)), found), found):
            raise BadRow(epoch, version, f"{name} is not what its message says")
        self._check_chain(epoch, version, message["previous"])
        try:
            self._check_state(epoch, version, message)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise BadRow(epoch, version, f"its patch does not fit the state before: {type(error).__name__}") from error
        self._totals.add(event)
        self._chain = sha1(raw, usedforsecurity=False).digest()
        self._order = (epoch, version)

    def compare(self, known: tuple[str, str] | None) -> None:
        """Check the totals of the session. Raises `BadRow`."""
        if known is None:
            raise BadRow(*self._order, "has no row in sync_sessions")
        session, people = orjson.loads(known[0]), orjson.loads(known[1])
        newest = (session["epoch"], session["version"])
        if newest > self._order:
            if not any(low <= newest[0] < high for low, high in self._dropped):
                raise BadRow(
                    *newest, f"is missing; the last one there is epoch {self._order[0]}, version {self._order[1]}"
                )
            return
        if self._suspect and session["content_hash"] == self._totals.sessions[self._session_id]["content_hash"]:
            raise BadRow(*self._suspect, _CHANGED)
        if name := self._unexplained(_of_session, self._totals.sessions[self._session_id], session):
            raise BadRow(*self._order, f"{name} in sync_sessions is not what its rows say")
        expected = {name: row for (_, name), row in self._totals.participants.items()}
        found = {person["participant_id"]: person for person in people}
        if self._is_cut:
            # Of epochs that are dropped nothing but this is left.
            found = {name: person for name, person in found.items() if name in expected}
            expected = {name: _without(row, _OVER_ALL_EPOCHS) for name, row in expected.items()}
            found = {name: _without(row, _OVER_ALL_EPOCHS) for name, row in found.items()}
        for name in sorted(expected.keys() | found.keys()):
            if bad := self._unexplained(partial(_of_person, name), expected.get(name, {}), found.get(name, {})):
                raise BadRow(*self._order, f"{bad} of participant {name} is not what its rows say")

    def _check_chain(self, epoch: int, version: int, previous: str) -> None:
        named = bytes.fromhex(previous)
        if version == 1:
            if self._suspect:
                raise BadRow(*self._suspect, _CHANGED)
            self._before = (self._order[0], self._chain)
            self._check_first(epoch, named, self._before, f"epoch {epoch}")
        elif named != self._chain and not self._is_fork(epoch, version, named):
            # One of the two was changed; the next row shows which.
            if self._suspect:
                raise BadRow(*self._order, _CHANGED)
            self._suspect = self._order
        elif self._suspect:
            raise BadRow(*self._suspect, _CHANGED)

    def _check_first(self, epoch: int, named: bytes, before: tuple[int, bytes], what: str) -> None:
        """Check what the first message of an epoch follows: nothing, or a message of an earlier epoch.

        before: epoch and hash of the last row of an earlier epoch. what: whose first message it is.
        """
        last_epoch, last_hash = before
        if any(low < epoch and high > last_epoch for low, high in self._dropped):
            self._is_cut = True  # retention may have dropped the message it follows
        elif named and named != last_hash and not self._is_named(epoch, named):
            found = self._ways.earlier(epoch, named)
            if found is None:
                raise BadRow(epoch, 1, "follows a row of an earlier epoch that is missing or was changed")
            earlier_epoch, version, is_row = found
            if not is_row and not self._is_fork(earlier_epoch, version + 1, named, what):
                raise BadRow(epoch, 1, "follows a dead letter of an earlier epoch that follows no row")

    def _is_fork(self, epoch: int, version: int, named: bytes, what: str = "") -> bool:
        """Tell whether dead letters explain the hash named by a message with this epoch and version.

        what: what follows the letters, if not the row of this epoch and version.
        """
        way = self._ways.way(epoch, version - 1, named)
        if way is None:
            return False
        if way.root is not None:
            before = self._ways.last_before(epoch) if what else self._before
            self._check_first(epoch, way.root, before, f"a dead letter of epoch {epoch}")
        count = way.last - way.first + 1
        self.forks.append(Fork(self._session_id, epoch, way.first, way.last, count, what or f"version {version}"))
        if not what:
            self._state = way.state
            self._forked.add(epoch)
        return True

    def _check_state(self, epoch: int, version: int, message: Mapping[str, Any]) -> None:
        if version == 1:
            self._state = None
            if "snapshot" not in message:
                raise BadRow(epoch, version, "the first row has no snapshot")
        if message["status"] == "deleted":
            return
        state = self._state.fold(*patch_of(message)) if self._state else None
        if "snapshot" in message:
            whole = Session.from_snapshot(self._session_id, message["snapshot"])
            if state not in (None, whole):
                raise BadRow(epoch, version, "its snapshot is not what the patches up to it make")
            state = whole
        self._state = state

    def _is_named(self, epoch: int, named: bytes) -> bool:
        """Tell whether it is a row in the middle of an earlier epoch, which a restore did not know the rest of."""
        with self._connection.cursor() as cursor:
            cursor.execute(_IS_NAMED, [self._session_id, epoch, named])
            return cursor.fetchone() == (True,)

    def _unexplained(self, told_by: Callable[[AuditEvent], Row], expected: Row, found: Row) -> str | None:
        """Return the name of the first column that differs, unless a fork of its epoch explains it.

        In a fork, both branches may have set a column that only some commits set; it keeps the value of the first row.
        """
        name, epoch = _difference(expected, found), found.get("epoch")
        if name is None or epoch not in self._forked:
            return name
        left = [names for names in _TOLD if any(not _is_same(expected.get(name), found.get(name)) for name in names)]
        explained: set[str] = set()
        for (text,) in _stream(self._connection, "told", _MESSAGES, [self._session_id, epoch]) if left else ():
            row = told_by(AuditEvent.parse(OutboxEntry(0, "", text.encode())))
            for names in left:
                if all(name in row and _is_same(row[name], found.get(name)) for name in names):
                    explained |= names
        return _difference(_without(expected, explained), _without(found, explained))


def _of_session(event: AuditEvent) -> Row:
    return event.told


def _of_person(name: str, event: AuditEvent) -> Row:
    granted = next((granted for person, _, granted in event.people if person == name), None)
    return dict(zip(GRANTED, granted, strict=True)) if granted else {}


def _stream(connection: Connection, name: str, query: str, arguments: list[Any]) -> Iterator[tuple[Any, ...]]:
    with connection.cursor(name) as cursor:
        cursor.itersize = _AT_ONCE
        cursor.execute(query, arguments)
        yield from cursor


def _side_by_side(
    events: Iterable[tuple[str, Iterator[tuple[Any, ...]]]], totals: Iterator[tuple[Any, ...]]
) -> Iterator[tuple[str, Iterator[tuple[Any, ...]], tuple[str, str] | None]]:
    """Yield each session with its rows, and with its totals: both come in order of sessions, either may lack some."""
    session = next(totals, None)
    for session_id, rows in events:
        while session and session[0] < session_id:
            yield session[0], iter(()), session[1:]
            session = next(totals, None)
        known = session[1:] if session and session[0] == session_id else None
        yield session_id, rows, known
        if known:
            session = next(totals, None)
    while session:
        yield session[0], iter(()), session[1:]
        session = next(totals, None)


def _as_stored(expected: Row, found: Row) -> Row:
    """Return the columns that a message makes, as an earlier release makes them if it stored the row.

    Such a release leaves the completion out of `snapshot` and `record`, and nothing else (docs/decisions.md).
    """
    whole = {name: expected[name] for name in ("snapshot", "record") if expected[name]}
    earlier = {name: _without(columns, {"completion"}) for name, columns in whole.items()}
    return expected | earlier if earlier and earlier["snapshot"] == found.get("snapshot") else expected


def _difference(expected: Row, found: Row) -> str | None:
    """Return the name of the first column that differs; what is absent is null."""
    for name in expected | found:
        if not _is_same(expected.get(name), found.get(name)):
            return name
    return None


def _is_same(one: Any, other: Any) -> bool:
    if isinstance(one, str) and isinstance(other, str) and one != other:
        with contextlib.suppress(ValueError):  # instants are written in more than one way
            return datetime.fromisoformat(one) == datetime.fromisoformat(other)
    return bool(one == other)


def _without(row: Row, names: Set[str]) -> Row:
    return {name: value for name, value in row.items() if name not in names}

"""The verifier: reads the whole audit log again, and names the first row of each session that is not as committed.

It trusts nothing that is stored: columns and totals are made anew from the messages, messages are held against
their hashes, each hash against the next message, and patches against snapshots. Rows are streamed, a session at
a time, in one snapshot of the database.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha1
from itertools import groupby
from typing import Any

import orjson

from syncapp.db import Connection, connect
from syncapp.events import Entry, Event, Row
from syncapp.state import Session
from syncapp.totals import Totals

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
_CHANGED = "was changed: the row after it follows on another"
_OVER_ALL_EPOCHS = frozenset({"first_active_at", "last_active_at"})


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with a session: the first bad row, by epoch and version, and what is wrong with it."""

    session_id: str
    epoch: int
    version: int
    what: str

    def __str__(self) -> str:
        return f"session {self.session_id}, epoch {self.epoch}, version {self.version}: {self.what}"


@dataclass(slots=True)
class Checked:
    """What was read so far."""

    sessions: int = 0
    events: int = 0


class _Bad(Exception):
    """A row that is not as committed."""

    def __init__(self, epoch: int, version: int, what: str) -> None:
        super().__init__(what)
        self.place = (epoch, version)


def verify(database_url: str, checked: Checked, session_id: str | None = None) -> Iterator[Fault]:
    """Yield what is wrong with each session, or with one; counts what it reads. Raises what psycopg2 raises."""
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
            except _Bad as bad:
                yield Fault(each, *bad.place, str(bad))
                checked.events += sum(1 for _ in rows)


class _History:
    """One session's rows, read in order."""

    def __init__(self, connection: Connection, session_id: str, dropped: Iterable[tuple[int, int]]) -> None:
        self._connection = connection
        self._session_id = session_id
        self._dropped = list(dropped)
        self._totals = Totals()
        self._order = (0, 0)
        self._first_epoch: int | None = None
        self._chain = b""
        self._state: Session | None = None
        self._suspect: tuple[int, int] | None = None

    def read(self, row: tuple[Any, ...]) -> None:
        """Check the next row. Raises `_Bad`."""
        _, epoch, version, text, columns = row
        last_epoch, last_version = self._order
        if epoch != last_epoch:
            last_version = 0
        if version != last_version + 1:
            raise _Bad(epoch, last_version + 1, f"is missing; the next one there is version {version}")
        raw = text.encode()
        try:
            event = Event.parse(Entry(0, "", raw))
            message = orjson.loads(raw)
        except Exception as error:  # whatever is wrong with a message, it is not what was committed
            raise _Bad(epoch, version, f"its message cannot be read: {type(error).__name__}") from error
        if name := _difference(orjson.loads(orjson.dumps(event.row)), orjson.loads(columns)):
            raise _Bad(epoch, version, f"{name} is not what its message says")
        self._check_chain(epoch, version, message["previous"])
        try:
            self._check_state(epoch, version, message)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise _Bad(epoch, version, f"its patch does not fit the state before: {type(error).__name__}") from error
        self._totals.add(event)
        self._chain = sha1(raw, usedforsecurity=False).digest()
        self._order = (epoch, version)

    def compare(self, known: tuple[str, str] | None) -> None:
        """Check what is known of the session as a whole. Raises `_Bad`."""
        if known is None:
            raise _Bad(*self._order, "has no row in sync_sessions")
        session, people = orjson.loads(known[0]), orjson.loads(known[1])
        newest = (session["epoch"], session["version"])
        if newest > self._order:
            if not any(low <= newest[0] < high for low, high in self._dropped):
                raise _Bad(
                    *newest, f"is missing; the last one there is epoch {self._order[0]}, version {self._order[1]}"
                )
            return
        if self._suspect and session["content_hash"] == self._totals.sessions[self._session_id]["content_hash"]:
            raise _Bad(*self._suspect, _CHANGED)
        if name := _difference(self._totals.sessions[self._session_id], session):
            raise _Bad(*self._order, f"{name} in sync_sessions is not what its rows say")
        expected = {name: row for (_, name), row in self._totals.participants.items()}
        found = {person["participant_id"]: person for person in people}
        if self._is_cut():
            # Of epochs that are dropped nothing but this is left.
            found = {name: person for name, person in found.items() if name in expected}
            expected = {name: _without(row, _OVER_ALL_EPOCHS) for name, row in expected.items()}
            found = {name: _without(row, _OVER_ALL_EPOCHS) for name, row in found.items()}
        for name in sorted(expected.keys() | found.keys()):
            if bad := _difference(expected.get(name, {}), found.get(name, {})):
                raise _Bad(*self._order, f"{bad} of participant {name} is not what its rows say")

    def _check_chain(self, epoch: int, version: int, previous: str) -> None:
        named = bytes.fromhex(previous)
        if self._first_epoch is None:
            self._first_epoch = epoch
        if version > 1:
            if named != self._chain:
                # One of the two was changed; the row after them tells which.
                if self._suspect:
                    raise _Bad(*self._order, _CHANGED)
                self._suspect = self._order
            elif self._suspect:
                raise _Bad(*self._suspect, _CHANGED)
        elif self._suspect:
            raise _Bad(*self._suspect, _CHANGED)
        elif named and named != self._chain and not (self._is_cut() or self._is_named(epoch, named)):
            raise _Bad(epoch, version, "follows on a row of an earlier epoch that is not there, or was changed")

    def _check_state(self, epoch: int, version: int, message: Mapping[str, Any]) -> None:
        if version == 1:
            self._state = None
            if "snapshot" not in message:
                raise _Bad(epoch, version, "the first row has no snapshot")
        if message["status"] == "deleted":
            return
        state = self._state.fold(message["patch"]) if self._state else None
        if "snapshot" in message:
            whole = Session.from_snapshot(self._session_id, message["snapshot"])
            if state not in (None, whole):
                raise _Bad(epoch, version, "its snapshot is not what the patches up to it make")
            state = whole
        self._state = state

    def _is_cut(self) -> bool:
        """Tell whether retention may have dropped earlier epochs of this session."""
        return any(low < (self._first_epoch or 0) for low, _ in self._dropped)

    def _is_named(self, epoch: int, named: bytes) -> bool:
        """Tell whether it is a row in the middle of an earlier epoch, which a restore did not know the rest of."""
        with self._connection.cursor() as cursor:
            cursor.execute(_IS_NAMED, [self._session_id, epoch, named])
            return cursor.fetchone() == (True,)


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


def _without(row: Row, names: frozenset[str]) -> Row:
    return {name: value for name, value in row.items() if name not in names}

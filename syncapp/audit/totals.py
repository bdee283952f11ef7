"""What is known of sessions and participants as a whole: folded from events, merged into their tables.

Merging is the same whatever order events come in, and however they are split over drains: each column
has a rule that needs nothing but the old value and the new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson

from syncapp.audit.event import GRANTED, NEWEST, SETTLED, AuditEvent, Granted, Row, Settled, hex_of
from syncapp.domain.instants import iso
from syncapp.postgres.database import Cursor

# Of the newest commit: every commit tells it.
_NEWEST = "CASE WHEN (excluded.epoch, excluded.version) > (old.epoch, old.version) THEN excluded.{0} ELSE old.{0} END"
# Of the newest epoch, and within it the same from whichever commit tells it.
_TOLD = (
    "CASE WHEN excluded.epoch > old.epoch THEN excluded.{0} WHEN excluded.epoch < old.epoch THEN old.{0}"
    " ELSE coalesce(old.{0}, excluded.{0}) END"
)
_METADATA = (
    "CASE WHEN (excluded.epoch, coalesce(excluded.metadata_version, 0))"
    " > (old.epoch, coalesce(old.metadata_version, 0)) THEN excluded.{0} ELSE old.{0} END"
)
# Over all epochs; null counts as not known.
_FIRST = "least(old.{0}, excluded.{0})"
_LAST = "greatest(old.{0}, excluded.{0})"

_SESSION_RULES = {
    "epoch": _NEWEST,
    "version": _NEWEST,
    "sync_mode": _NEWEST,
    "status": _NEWEST,
    "cycle_count": _NEWEST,
    "updated_at": _NEWEST,
    "content_hash": _NEWEST,
    "participant_count": _TOLD,
    "total_time_ms": _TOLD,
    "created_at": _TOLD,
    "started_at": _TOLD,
    "completed_at": _TOLD,
    "deleted_at": _TOLD,
    "metadata": _METADATA,
    "metadata_version": _METADATA,
}
_PARTICIPANT_RULES = {
    "epoch": _NEWEST,
    "version": _NEWEST,
    "time_used_ms": _NEWEST,
    "time_remaining_ms": _NEWEST,
    "cycle_count": _NEWEST,
    "has_expired": _NEWEST,
    "participant_index": _TOLD,
    "total_time_ms": _TOLD,
    "first_active_at": _FIRST,
    "last_active_at": _LAST,
}


def _upsert(table: str, key: tuple[str, ...], rules: Mapping[str, str]) -> str:
    columns, order = ", ".join((*key, *rules)), ", ".join(key)
    merged = ", ".join(f"{name} = {rule.format(name)}" for name, rule in rules.items())
    # Rows in one order for all transactions: two that meet wait for each other, and do not deadlock.
    return (
        f"INSERT INTO {table} AS old ({columns})"  # noqa: S608 made of the constants above
        f" SELECT {columns} FROM jsonb_populate_recordset(NULL::{table}, %s) ORDER BY {order}"
        f" ON CONFLICT ({order}) DO UPDATE SET {merged}"
    )


_UPSERT_SESSIONS = _upsert("sync_sessions", ("session_id",), _SESSION_RULES)
_UPSERT_PARTICIPANTS = _upsert("sync_participants", ("session_id", "participant_id"), _PARTICIPANT_RULES)


@dataclass(slots=True)
class _Participant:
    """What is known of a participant: of its newest epoch, and over all of them when it was active."""

    key: tuple[str, int, int]
    settled: Settled
    granted: Granted | None
    first_active_ms: int | None = None
    last_active_ms: int | None = None

    def row(self, participant_id: str) -> Row:
        session_id, epoch, version = self.key
        row: Row = {"session_id": session_id, "epoch": epoch, "version": version, "participant_id": participant_id}
        row |= zip(SETTLED, self.settled, strict=False)
        if self.granted:
            row |= zip(GRANTED, self.granted, strict=True)
        if self.first_active_ms is not None:
            row |= {"first_active_at": iso(self.first_active_ms), "last_active_at": iso(self.last_active_ms)}
        return row


@dataclass(slots=True)
class _Session:
    """What is known of a session: its newest event, what only some events of that epoch told, and its participants."""

    event: AuditEvent
    told: Row
    people: dict[str, _Participant]

    def row(self) -> Row:
        session_id, epoch, version = self.event.key
        event = self.event
        key = {"session_id": session_id, "epoch": epoch, "version": version, "updated_at": iso(event.at_ms)}
        newest = dict(zip(NEWEST, event.newest, strict=True)) | {"content_hash": hex_of(event.content_hash)}
        return key | newest | self.told


class Totals:
    """Rows of sessions and of participants; what no event told is absent."""

    def __init__(self, events: Iterable[AuditEvent] = ()) -> None:
        """Fold events that come in order of (epoch, version)."""
        self._sessions: dict[str, _Session] = {}
        for event in events:
            self.add(event)

    @property
    def sessions(self) -> dict[str, Row]:
        """Rows of `sync_sessions` by session id."""
        return {session_id: session.row() for session_id, session in self._sessions.items()}

    @property
    def participants(self) -> dict[tuple[str, str], Row]:
        """Rows of `sync_participants` by session id and participant id."""
        return {
            (session_id, name): person.row(name)
            for session_id, session in self._sessions.items()
            for name, person in session.people.items()
        }

    def add(self, event: AuditEvent) -> None:
        """Fold one more event, later in its session than those before."""
        _, key, _, _, at_ms, _, told, people = event
        session_id, epoch, _ = key
        session = self._sessions.get(session_id)
        if session is None:
            session = self._sessions[session_id] = _Session(event, told, {})
        else:
            if session.event.key[1] != epoch:  # what an earlier epoch told does not count any more
                session.told = told
            elif told:
                session.told = {**session.told, **told}
            session.event = event
        for name, settled, granted in people:
            person = session.people.get(name)
            if person is None:
                person = session.people[name] = _Participant(key, settled, granted)
            else:
                if granted or person.key[1] != epoch:
                    person.granted = granted
                person.key, person.settled = key, settled
            if settled[-1]:
                if person.first_active_ms is None or at_ms < person.first_active_ms:
                    person.first_active_ms = at_ms
                if person.last_active_ms is None or at_ms > person.last_active_ms:
                    person.last_active_ms = at_ms

    def write(self, cursor: Cursor) -> None:
        """Merge the rows into `sync_sessions` and `sync_participants`."""
        cursor.execute(_UPSERT_SESSIONS, [orjson.dumps(list(self.sessions.values())).decode()])
        if people := list(self.participants.values()):
            cursor.execute(_UPSERT_PARTICIPANTS, [orjson.dumps(people).decode()])

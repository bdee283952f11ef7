"""What is known of sessions and participants as a whole: folded from events, merged into their tables.

Merging is the same whatever order events come in, and however they are split over drains: each column
has a rule that needs nothing but the old value and the new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson

from syncapp.db import Cursor
from syncapp.events import GRANTED, NEWEST, SETTLED, Event, Granted, Row, Settled

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
class _Session:
    """What is known of a session: its newest event, and what only some events of that epoch told."""

    event: Event
    told: Row

    def row(self) -> Row:
        session_id, epoch, version = self.event.key
        newest = dict(zip(NEWEST, self.event.newest, strict=True))
        key = {"session_id": session_id, "epoch": epoch, "version": version, "updated_at": self.event.at}
        return key | newest | self.told


@dataclass(slots=True)
class _Participant:
    """What is known of a participant: of its newest epoch, and over all of them when it was active."""

    key: tuple[str, int, int]
    settled: Settled
    granted: Granted | None
    first_active_at: str | None = None
    last_active_at: str | None = None

    def row(self, participant_id: str) -> Row:
        session_id, epoch, version = self.key
        row: Row = {"session_id": session_id, "epoch": epoch, "version": version, "participant_id": participant_id}
        row |= zip(SETTLED, self.settled, strict=False)
        if self.granted:
            row |= zip(GRANTED, self.granted, strict=True)
        if self.first_active_at:
            row |= {"first_active_at": self.first_active_at, "last_active_at": self.last_active_at}
        return row


class Totals:
    """Rows of sessions and of participants; what no event told is absent."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        """Fold events that come in order of (epoch, version)."""
        self._sessions: dict[str, _Session] = {}
        self._participants: dict[tuple[str, str], _Participant] = {}
        for event in events:
            self.add(event)

    @property
    def sessions(self) -> dict[str, Row]:
        """Rows of `sync_sessions` by session id."""
        return {session_id: session.row() for session_id, session in self._sessions.items()}

    @property
    def participants(self) -> dict[tuple[str, str], Row]:
        """Rows of `sync_participants` by session id and participant id."""
        return {key: participant.row(key[1]) for key, participant in self._participants.items()}

    def add(self, event: Event) -> None:
        """Fold one more event, later in its session than those before."""
        session_id, epoch, _ = event.key
        session = self._sessions.get(session_id)
        if session is None:
            self._sessions[session_id] = _Session(event, event.told)
        else:
            if session.event.key[1] != epoch:  # what an earlier epoch told does not count any more
                session.told = event.told
            elif event.told:
                session.told = {**session.told, **event.told}
            session.event = event
        for name, settled, granted in event.people:
            person = self._participants.get((session_id, name))
            if person is None:
                person = self._participants[session_id, name] = _Participant(event.key, settled, granted)
            else:
                if granted or person.key[1] != epoch:
                    person.granted = granted
                person.key, person.settled = event.key, settled
            if settled[-1]:
                # Of one form and length, so that text compares as time does.
                person.first_active_at = min(person.first_active_at or event.at, event.at)
                person.last_active_at = max(person.last_active_at or event.at, event.at)

    def write(self, cursor: Cursor) -> None:
        """Merge the rows into `sync_sessions` and `sync_participants`."""
        cursor.execute(_UPSERT_SESSIONS, [orjson.dumps(list(self.sessions.values())).decode()])
        if self._participants:
            cursor.execute(_UPSERT_PARTICIPANTS, [orjson.dumps(list(self.participants.values())).decode()])

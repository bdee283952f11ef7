"""Totals of sessions and participants: folded from events, then merged into `sync_sessions` and `sync_participants`.

The result does not depend on the order of the events, or on how they are split over drains: each column has a merge
rule that needs only the old value and the new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import orjson

from syncapp.audit.event import GRANT, NEWEST, USAGE, AuditEvent, Grant, Row, Usage, hex_of
from syncapp.domain.instants import iso
from syncapp.postgres.database import Cursor

# The value of the newest commit; every commit sets it.
_NEWEST = "CASE WHEN (excluded.epoch, excluded.version) > (old.epoch, old.version) THEN excluded.{0} ELSE old.{0} END"
# The value of the newest epoch. Only some commits set it, and all that do within an epoch set the same value.
_EPOCH = (
    "CASE WHEN excluded.epoch > old.epoch THEN excluded.{0} WHEN excluded.epoch < old.epoch THEN old.{0}"
    " ELSE coalesce(old.{0}, excluded.{0}) END"
)
# The same for an instant that a later commit of an epoch may set again: a session that was reopened ends again.
_LATEST = (
    "CASE WHEN excluded.epoch > old.epoch THEN excluded.{0} WHEN excluded.epoch < old.epoch THEN old.{0}"
    " ELSE greatest(old.{0}, excluded.{0}) END"
)
_METADATA = (
    "CASE WHEN (excluded.epoch, coalesce(excluded.metadata_version, 0))"
    " > (old.epoch, coalesce(old.metadata_version, 0)) THEN excluded.{0} ELSE old.{0} END"
)
# The minimum or maximum of all epochs; null means unknown.
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
    "tenant": _NEWEST,
    "tenant_session_id": _NEWEST,
    "principal": _EPOCH,
    "participant_count": _EPOCH,
    "total_time_ms": _EPOCH,
    "created_at": _EPOCH,
    "started_at": _EPOCH,
    "completed_at": _LATEST,
    "deleted_at": _EPOCH,
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
    "participant_index": _EPOCH,
    "total_time_ms": _EPOCH,
    "first_active_at": _FIRST,
    "last_active_at": _LAST,
}


def _upsert(table: str, key: tuple[str, ...], rules: Mapping[str, str]) -> str:
    columns, order = ", ".join((*key, *rules)), ", ".join(key)
    merged = ", ".join(f"{name} = {rule.format(name)}" for name, rule in rules.items())
    # All transactions lock rows in the same order, so that concurrent ones wait for each other and do not deadlock.
    return (
        f"INSERT INTO {table} AS old ({columns})"  # noqa: S608 made of the constants above
        f" SELECT {columns} FROM jsonb_populate_recordset(NULL::{table}, %s) ORDER BY {order}"
        f" ON CONFLICT ({order}) DO UPDATE SET {merged}"
    )


_UPSERT_SESSIONS = _upsert("sync_sessions", ("session_id",), _SESSION_RULES)
_UPSERT_PARTICIPANTS = _upsert("sync_participants", ("session_id", "participant_id"), _PARTICIPANT_RULES)


@dataclass(slots=True)
class _Participant:
    """A participant's totals: of the newest epoch, except for when it was active first and last."""

    key: tuple[str, int, int]
    usage: Usage
    grant: Grant | None
    first_active_ms: int | None = None
    last_active_ms: int | None = None

    def row(self, participant_id: str) -> Row:
        session_id, epoch, version = self.key
        row: Row = {"session_id": session_id, "epoch": epoch, "version": version, "participant_id": participant_id}
        row |= zip(USAGE, self.usage, strict=False)
        if self.grant:
            row |= zip(GRANT, self.grant, strict=True)
        if self.first_active_ms is not None:
            row |= {"first_active_at": iso(self.first_active_ms), "last_active_at": iso(self.last_active_ms)}
        return row


@dataclass(slots=True)
class _Session:
    """A session's newest event, the columns that only some events of its epoch set, and its participants."""

    event: AuditEvent
    columns: Row
    participants: dict[str, _Participant]

    def row(self) -> Row:
        session_id, epoch, version = self.event.key
        event = self.event
        key = {"session_id": session_id, "epoch": epoch, "version": version, "updated_at": iso(event.at_ms)}
        newest = dict(zip(NEWEST, event.newest, strict=True)) | {"content_hash": hex_of(event.content_hash)}
        return key | newest | self.columns


class Totals:
    """Rows of sessions and participants; a column that no event set is absent."""

    def __init__(self, events: Iterable[AuditEvent] = ()) -> None:
        """Fold events; those of a session are in the order of (epoch, version)."""
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
            (session_id, name): participant.row(name)
            for session_id, session in self._sessions.items()
            for name, participant in session.participants.items()
        }

    def add(self, event: AuditEvent) -> None:
        """Fold one more event; it is later than the earlier ones of its session."""
        key, at_ms, columns, changed = event.key, event.at_ms, event.session_columns, event.participants
        session_id, epoch, _ = key
        session = self._sessions.get(session_id)
        if session is None:
            session = self._sessions[session_id] = _Session(event, columns, {})
        else:
            if session.event.key[1] != epoch:  # columns of an earlier epoch no longer count
                session.columns = columns
            elif columns:
                session.columns = {**session.columns, **columns}
            session.event = event
        for name, usage, grant in changed:
            participant = session.participants.get(name)
            if participant is None:
                participant = session.participants[name] = _Participant(key, usage, grant)
            else:
                if grant or participant.key[1] != epoch:
                    participant.grant = grant
                participant.key, participant.usage = key, usage
            if usage[-1]:
                if participant.first_active_ms is None or at_ms < participant.first_active_ms:
                    participant.first_active_ms = at_ms
                if participant.last_active_ms is None or at_ms > participant.last_active_ms:
                    participant.last_active_ms = at_ms

    def write(self, cursor: Cursor) -> None:
        """Merge the rows into `sync_sessions` and `sync_participants`."""
        cursor.execute(_UPSERT_SESSIONS, [orjson.dumps(list(self.sessions.values())).decode()])
        if participants := list(self.participants.values()):
            cursor.execute(_UPSERT_PARTICIPANTS, [orjson.dumps(participants).decode()])

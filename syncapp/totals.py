"""What is known of sessions and participants as a whole: folded from events, merged into their tables.

Merging is the same whatever order events come in, and however they are split over drains: each column
has a rule that needs nothing but the old value and the new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import orjson

from syncapp.db import Cursor
from syncapp.events import Event, Row

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


class Totals:
    """Rows of sessions and of participants, by key; what no event told is absent."""

    def __init__(self, events: Iterable[Event] = ()) -> None:
        """Fold events that come in order of (epoch, version)."""
        self.sessions: dict[str, Row] = {}
        self.participants: dict[tuple[str, str], Row] = {}
        for event in events:
            self.add(event)

    def add(self, event: Event) -> None:
        """Fold one more event, later in its session than those before."""
        session_id = event.key[0]
        self.sessions[session_id] = _after(self.sessions.get(session_id), event.session)
        for row in event.participants:
            key = (session_id, row["participant_id"])
            known = self.participants.get(key)
            self.participants[key] = _after(known, row) | _active(known, row)

    def write(self, cursor: Cursor) -> None:
        """Merge the rows into `sync_sessions` and `sync_participants`."""
        cursor.execute(_UPSERT_SESSIONS, [orjson.dumps(list(self.sessions.values())).decode()])
        if self.participants:
            cursor.execute(_UPSERT_PARTICIPANTS, [orjson.dumps(list(self.participants.values())).decode()])


def _after(known: Row | None, row: Row) -> Row:
    """Return a row after a later event: what an earlier epoch told does not count any more."""
    return known | row if known and known["epoch"] == row["epoch"] else row


def _active(known: Row | None, row: Row) -> Row:
    """Return the first and last instant a participant was active, over all epochs."""
    instants = [
        other[name]
        for other in (known, row)
        if other
        for name in ("first_active_at", "last_active_at")
        if name in other
    ]
    return {"first_active_at": min(instants), "last_active_at": max(instants)} if instants else {}

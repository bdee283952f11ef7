"""What remains of a session in the log: its last known state, and what its scripts knew beside it.

Snapshots hold all of it. Messages do not tell of four things, which are worked out from what happened since: how many
cycles went by without a client, which warnings have fired in this cycle, whether a budget of its own has run out
already, and whose turn was last in each group. Idle time begins anew with a restore (docs/audit.md).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha1
from typing import Any

import orjson

from syncapp import statements
from syncapp.db import Cursor
from syncapp.layout import RECORD_WIDTH
from syncapp.moments import commits_of
from syncapp.past import Commit
from syncapp.state import Session, iso

_TIMEOUTS = frozenset({"cycle_timed_out", "session_expired"})
_RECORD = "%12d%12d%9d%1d"


@dataclass(slots=True)
class Inner:
    """What only scripts know, by the names of lua/_session.lua; members: by group, the place of who was last in it."""

    unattended: int
    warned: int
    crossed: int
    members: list[int]

    @classmethod
    def of(cls, record: Mapping[str, str], session: Session) -> Inner:
        """Read it from the record of a whole state."""
        text = record["participants"][len(session.participants) * RECORD_WIDTH :]
        places = [int(text[at + 24 : at + 33]) for at in range(0, len(text), RECORD_WIDTH)]
        # An earlier release may have known fewer.
        unattended, warned, crossed = (int(record.get(name) or 0) for name in ("unattended", "warned", "crossed"))
        return cls(unattended, warned, crossed, places)

    def enter(self, commit: Commit, before: Session, after: Session) -> None:
        """Take note of one commit (docs/clock.md)."""
        event, definition = commit.event, after.definition
        if commit.actor == "client":
            self.unattended = 0
        elif after.cycle_count > before.cycle_count:
            self.unattended += 1
        if event["type"] == "time_warning":
            self.warned |= 1 << definition.warn_at_ms.index(event["threshold_ms"])
        begins = event["type"] == "session_started" or after.cycle_count > before.cycle_count
        if begins and after.status == "running":
            left_ms = after.budget_ms()
            passed = [left_ms is not None and ms >= left_ms for ms in definition.warn_at_ms]
            self.warned = sum(1 << place for place, is_passed in enumerate(passed) if is_passed)
            self.crossed = 0 if after.sync_mode == "per_cycle" else self.crossed
        elif event["type"] in _TIMEOUTS:
            self.crossed = 1
        elif event["type"] == "time_adjusted":
            self._adjust(event, after)
        name = commit.patch.get("active_participant_id")
        if name is not None and definition.group_of:
            index = definition.index[name]
            group = definition.group_of[index]
            self.members[group] = definition.group_of[: index + 1].count(group)

    def _adjust(self, event: Mapping[str, Any], after: Session) -> None:
        left_ms, definition = event["remaining_ms"], after.definition
        if left_ms > 0:
            self.crossed = 0
        turn, own, team = after.turn or 0, event.get("participant_id"), event.get("group_id")
        if own not in (None, *definition.participant_ids[turn : turn + 1]):
            return
        if team is not None and definition.group_index[team] != definition.group_of[turn]:
            return
        for place, threshold_ms in enumerate(definition.warn_at_ms):
            if left_ms > threshold_ms:
                self.warned &= ~(1 << place)


@dataclass(frozen=True, slots=True)
class Remains:
    """What the log knows last of a session.

    epoch, version: of its newest event. chain: the hash of that event's message, as the store keeps it. status: after
    it, also `deleted`. session: the last state. inner: what only scripts knew then.
    """

    epoch: int
    version: int
    chain: str
    status: str
    session: Session
    inner: Inner

    @property
    def order(self) -> tuple[int, int]:
        """(epoch, version) of the newest event."""
        return (self.epoch, self.version)

    def arguments(self) -> list[str | bytes | int]:
        """Return what lua/restore_session.lua wants from the metadata on."""
        session, definition = self.session, self.session.definition
        fields: dict[str, str | bytes | int | None] = {
            name: getattr(session, name)
            for name in (
                "status", "sync_mode", "increment_ms", "idle_timeout_ms", "turn", "cycle_count", "time_used_ms",
                "time_remaining_ms", "cycle_started_ms", "session_started_ms", "session_completed_ms", "created_ms",
                "updated_ms",
            )
        }  # fmt: skip
        fields |= {
            "on_timeout": definition.action_on_timeout["type"],
            "time_per_cycle_ms": definition.time_per_cycle_ms,
            "max_cycles": definition.max_cycles,
            "warned": self.inner.warned,
            "crossed": self.inner.crossed,
            "unattended": self.inner.unattended,
            "metadata_version": 1,
        }
        if session.completion:
            fields["completion"] = orjson.dumps(session.completion)
        args: list[str | bytes | int] = [
            orjson.dumps(session.metadata),
            orjson.dumps(definition.action_on_timeout),
            definition.to_json(),
            " ".join(map(str, definition.warn_at_ms)),
            self._records(),
            len(definition.participant_ids),
            len(fields),
        ]
        for name, value in fields.items():
            args += [name, "" if value is None else value]
        for place, name in enumerate(definition.participant_ids):
            args += [name, 0, definition.group_of[place] if definition.group_of else ""]
        for name in definition.group_ids:
            args += [name, 0]
        return args

    def _records(self) -> str:
        people = (
            (each.time_used_ms, each.time_remaining_ms, each.cycle_count, each.has_expired)
            for each in self.session.participants
        )
        groups = (
            (each.time_used_ms, each.time_remaining_ms, place, each.has_expired)
            for each, place in zip(self.session.groups, self.inner.members, strict=True)
        )
        return "".join(_RECORD % record for record in (*people, *groups))


def of(cursor: Cursor, session_id: str) -> Remains | None:
    """Return what remains of a session; None when the log knows nothing of it. Raises `AuditIncomplete`."""
    cursor.execute(statements.LAST, [session_id])
    row = cursor.fetchone()
    if row is None:
        return None
    epoch, version, message = row
    commits = commits_of(cursor, session_id, epoch, version)
    status = commits[-1].status
    if status == "deleted":
        commits.pop()
    record, session = commits[0].record, commits[0].whole(session_id)
    if record is None or session is None:
        raise LookupError("commits to fold begin with a whole state")
    inner = Inner.of(record, session)
    for commit in commits[1:]:
        before, session = session, commit.after(session)
        inner.enter(commit, before, session)
    return Remains(epoch, version, _hash(message), status, session, inner)


def forks(cursor: Cursor) -> set[tuple[str, int]]:
    """Return each (session id, epoch) of which another event than the stored one is kept."""
    cursor.execute(statements.FORKS)
    return set(cursor.fetchall())


def ids(cursor: Cursor, changed_ms: int) -> list[str]:
    """Return the ids of sessions that are live, or changed since and not deleted."""
    cursor.execute(statements.RECENT_IDS, [iso(changed_ms)])
    return [session_id for (session_id,) in cursor.fetchall()]


def _hash(message: str) -> str:
    # The chain's own; nothing here depends on it being hard to forge.
    return sha1(message.encode(), usedforsecurity=False).hexdigest()

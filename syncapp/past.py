"""A session's past as values: rows of the log folded to the session they tell of, and what its clocks showed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from syncapp.definitions import Definition
from syncapp.errors import AuditIncomplete
from syncapp.layout import SCALARS, with_completion
from syncapp.state import Session, add_completion, participants_of

SNAPSHOT_EVERY = 100
"""A whole state comes with every so many versions: that of lua/_commit.lua."""
_BEGINNING = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Commit:
    """A row of the log, as far as the state after it is told by it.

    patch, idle_ms, completion: as the store committed them. record: of the whole state, where there is a snapshot,
    else None; without the completion, if an earlier release stored it.
    """

    epoch: int
    version: int
    at_ms: int
    status: str
    cycle_count: int
    actor: str
    event: Mapping[str, Any]
    patch: Mapping[str, Any]
    idle_ms: int | None
    completion: Mapping[str, Any] | None
    record: Mapping[str, Any] | None

    @property
    def order(self) -> tuple[int, int]:
        """(epoch, version)."""
        return (self.epoch, self.version)

    def whole(self, session_id: str) -> Session | None:
        """Return the session after it, as its record tells; None if it has none."""
        if self.record is None:
            return None
        session = session_of(session_id, self.record)
        return replace(session, completion=self.completion) if self.completion else session

    def after(self, session: Session) -> Session:
        """Return the session after it, from the one before."""
        return session.fold(add_completion(self.patch, self.completion), self.idle_ms)


@dataclass(frozen=True, slots=True)
class Moment:
    """A session as it was after a commit, to be shown as of an instant (ms)."""

    session: Session
    commit: Commit
    at_ms: int

    def document(self) -> dict[str, Any]:
        """Return the state document of that instant, with the event before it and what every clock showed."""
        return self.session.state(self.at_ms) | {
            "event": self.commit.event,
            "clocks": clocks(self.session, self.at_ms),
        }


def ms_of(instant: str | None) -> int | None:
    """Return an ISO 8601 instant as ms since the Unix epoch, what is below a millisecond cut off."""
    if instant is None:
        return None
    return (datetime.fromisoformat(instant) - _BEGINNING) // timedelta(milliseconds=1)


def session_of(session_id: str, record: Mapping[str, Any]) -> Session:
    """Read the `record` of a row."""
    values = [str(record.get(name, "")) for name in SCALARS]
    definition = Definition.from_json(record["definition"])
    values += [record["metadata"], record["definition"], with_completion("", record.get("completion", ""))]
    return Session.from_reply(session_id, values, definition, participants_of(record["participants"]))


def fold(session_id: str, commits: Iterable[Commit]) -> Session:
    """Return the session after commits of one epoch, the first of which has a snapshot.

    Raises `AuditIncomplete` when one is missing.
    """
    session: Session | None = None
    for commit in commits:
        if session is None:
            session = commit.whole(session_id)
            if session is None:
                raise missing(commit.epoch, 1)
        elif commit.version != session.version + 1:
            raise missing(commit.epoch, session.version + 1)
        else:
            session = commit.after(session)
    if session is None:
        raise LookupError("nothing was given to fold")
    return session


def missing(epoch: int, version: int) -> AuditIncomplete:
    """Return the error of an event that is not in the log."""
    return AuditIncomplete(
        f"event {version} of epoch {epoch} is not in the log, or not yet",
        {"epoch": epoch, "version": version, "retry_after_s": 1},
    )


def clocks(session: Session, at_ms: int) -> dict[str, Any]:
    """Return what the clock of each participant, and of each group, showed at an instant, settled to it.

    remaining_ms is null where there is no budget of its own, and negative in overtime only.
    """
    started_ms = session.cycle_started_ms if session.status == "running" else None
    ran_ms = 0 if started_ms is None else max(0, at_ms - started_ms)
    definition, running = session.definition, None if started_ms is None else session.turn
    overtime = definition.action_on_timeout["type"] == "notify"

    def shown(used_ms: int, left_ms: int | None, runs: bool) -> dict[str, Any]:
        if left_ms is not None and runs:
            left_ms = left_ms - ran_ms if overtime else max(0, left_ms - ran_ms)
        return {"running": runs, "used_ms": used_ms + ran_ms if runs else used_ms, "remaining_ms": left_ms}

    own = session.sync_mode == "per_participant"
    found: dict[str, Any] = {
        "participants": [
            {"participant_id": name}
            | shown(person.time_used_ms, person.time_remaining_ms if own else None, place == running)
            for place, (name, person) in enumerate(zip(definition.participant_ids, session.participants, strict=True))
        ]
    }
    if session.groups:
        group = None if running is None else definition.group_of[running]
        found["groups"] = [
            {"group_id": name} | shown(each.time_used_ms, each.time_remaining_ms, place == group)
            for place, (name, each) in enumerate(zip(definition.group_ids, session.groups, strict=True))
        ]
    return found

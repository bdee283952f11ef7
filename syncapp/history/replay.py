"""Replay: folds rows of the log to a session's earlier state, and shows its clocks at that time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from msgspec.structs import replace

from syncapp.domain.control_clock import read_clocks
from syncapp.domain.definition import Definition
from syncapp.domain.owner_clocks import clocks
from syncapp.domain.patches import add_completion
from syncapp.domain.private_parts import json_text, revealed, values_of
from syncapp.domain.records import participants_of
from syncapp.domain.session import Session
from syncapp.domain.session_layout import SCALARS, with_completion
from syncapp.errors import AuditIncomplete

SNAPSHOT_EVERY = 100
"""A message has a snapshot at every 100th version; the same number as in lua/_commit.lua."""


@dataclass(frozen=True, slots=True)
class Commit:
    """The parts of a row of the log that the state after it is made of.

    event, patch, idle_ms, completion: as the store published them, without what was erased. record: the column of that
    name, with the metadata; None without a snapshot. It has no completion if an earlier release stored the row.
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

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> Self:
        """Return the commit in a row of `sql.COMMITS`, with those of its private parts that are not erased."""
        *start, event, patch, idle_ms, completion, private, record = row
        values = values_of(private)
        event, patch, completion = revealed(event, patch, completion, values)
        if record and "metadata" in values:
            record = {**record, "metadata": json_text(values["metadata"])}
        names = ("epoch", "version", "at_ms", "status", "cycle_count", "actor")
        parts = {"event": event, "patch": patch, "idle_ms": idle_ms, "completion": completion, "record": record}
        return cls(**dict(zip(names, start, strict=True)), **parts)

    @property
    def order(self) -> tuple[int, int]:
        """(epoch, version)."""
        return (self.epoch, self.version)

    def snapshot_session(self, session_id: str) -> Session | None:
        """Return the session after this commit from its record; None without a snapshot."""
        if self.record is None:
            return None
        session = session_of(session_id, self.record)
        return replace(session, completion=self.completion) if self.completion else session

    def after(self, session: Session) -> Session:
        """Return the session after this commit, given the one before it."""
        return session.fold(add_completion(self.patch, self.completion), self.idle_ms)


@dataclass(frozen=True, slots=True)
class PastState:
    """A session as it was after a commit, shown as of an instant (ms)."""

    session: Session
    commit: Commit
    at_ms: int

    def document(self) -> dict[str, Any]:
        """Return the state document at that instant, with the event before it and what every clock showed."""
        return self.session.state(self.at_ms) | {
            "event": self.commit.event,
            "clocks": clocks(self.session, self.at_ms),
        }


def session_of(session_id: str, record: Mapping[str, Any]) -> Session:
    """Return the session in the column `record` of a row."""
    values = [str(record.get(name, "")) for name in SCALARS]
    definition = Definition.from_json(record["definition"])
    values += [record["metadata"], record["definition"], with_completion("", record.get("completion", ""))]
    records, clocks = participants_of(record["participants"]), read_clocks(record.get("clocks", ""))
    return Session.from_reply(session_id, values, definition, records, clocks)


def fold(session_id: str, commits: Iterable[Commit]) -> Session:
    """Return the session after commits of one epoch, the first of which has a snapshot.

    Raises `AuditIncomplete` if one is missing.
    """
    session: Session | None = None
    for commit in commits:
        if session is None:
            session = commit.snapshot_session(session_id)
            if session is None:
                raise missing(commit.epoch, 1)
        elif commit.version != session.version + 1:
            raise missing(commit.epoch, session.version + 1)
        else:
            session = commit.after(session)
    if session is None:
        raise LookupError("there are no commits to fold")
    return session


def missing(epoch: int, version: int) -> AuditIncomplete:
    """Return the error for an event that is not in the log."""
    return AuditIncomplete(
        f"event {version} of epoch {epoch} is not in the log, or not yet",
        {"epoch": epoch, "version": version, "retry_after_s": 1},
    )

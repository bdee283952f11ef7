"""The table of commands, shared by REST, WebSockets and batches: the body of each command, and how it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from syncapp.domain.command_bodies import Adjust, Cancel, CommandBody, Complete, Reopen, Start, Switch, Takeback, Update
from syncapp.domain.results import Claim, Result
from syncapp.domain.schemas import CreateSession
from syncapp.domain.validation import Request


class Commands(Protocol):
    """The commands that a store offers (`syncapp.store.sessions.SessionStore`)."""

    def create(self, new: CreateSession, claim: Claim) -> Result:
        """Create a session."""

    def start(self, session_id: str, claim: Claim, *, participant_id: str | None) -> Result:
        """Start the clock."""

    def switch(
        self,
        session_id: str,
        claim: Claim,
        *,
        participant_id: str | None,
        next_participant_id: str | None,
        spent_ms: int | None,
        acted_at_ms: int | None,
    ) -> Result:
        """End the active participant's cycle."""

    def pause(self, session_id: str, claim: Claim) -> Result:
        """Stop the clock."""

    def resume(self, session_id: str, claim: Claim) -> Result:
        """Continue the paused cycle."""

    def adjust(self, session_id: str, claim: Claim, **changes: Any) -> Result:
        """Change budgets, and clocks with a time control."""

    def takeback(self, session_id: str, claim: Claim, *, cycles: int, reason: str | None) -> Result:
        """Take back the last cycles."""

    def reopen(self, session_id: str, claim: Claim, *, reason: str | None) -> Result:
        """Reopen a session that ended by mistake."""

    def complete(self, session_id: str, claim: Claim, *, reason: str | None, result: Any) -> Result:
        """End a session as completed."""

    def cancel(self, session_id: str, claim: Claim, *, reason: str | None) -> Result:
        """End a session as cancelled."""

    def update(self, session_id: str, metadata: Mapping[str, Any], claim: Claim) -> Result:
        """Merge a patch into the metadata."""

    def delete(self, session_id: str, claim: Claim, *, erases: bool) -> Result:
        """Remove a session, and its private parts from the audit log if `erases`."""


Body = TypeVar("Body", bound=Request)


@dataclass(frozen=True, slots=True)
class SessionCommand(Generic[Body]):
    """A command: its name, the model of its body, and the function that runs it on a session of a store."""

    name: str
    body: type[Body]
    run: Callable[[Commands, str, Body, Claim], Result]


def _switch(store: Commands, session_id: str, body: Switch, claim: Claim) -> Result:
    return store.switch(
        session_id,
        claim=claim,
        participant_id=body.participant_id,
        next_participant_id=body.next_participant_id,
        spent_ms=body.spent_ms,
        acted_at_ms=body.acted_at_ms,
    )


def _start(store: Commands, session_id: str, body: Start, claim: Claim) -> Result:
    return store.start(session_id, claim=claim, participant_id=body.participant_id)


def _complete(store: Commands, session_id: str, body: Complete, claim: Claim) -> Result:
    return store.complete(session_id, claim=claim, reason=body.reason, result=body.result)


CREATE = SessionCommand("create", CreateSession, lambda store, _, body, claim: store.create(body, claim=claim))
START = SessionCommand("start", Start, _start)
SWITCH = SessionCommand("switch", Switch, _switch)
PAUSE = SessionCommand("pause", CommandBody, lambda store, session, _, claim: store.pause(session, claim=claim))
RESUME = SessionCommand("resume", CommandBody, lambda store, session, _, claim: store.resume(session, claim=claim))
ADJUST = SessionCommand(
    "adjust", Adjust, lambda store, session, body, claim: store.adjust(session, claim, **body.changes())
)
TAKEBACK = SessionCommand(
    "takeback",
    Takeback,
    lambda store, session, body, claim: store.takeback(session, claim, cycles=body.cycles, reason=body.reason),
)
REOPEN = SessionCommand(
    "reopen", Reopen, lambda store, session, body, claim: store.reopen(session, claim, reason=body.reason)
)
COMPLETE = SessionCommand("complete", Complete, _complete)
CANCEL = SessionCommand(
    "cancel", Cancel, lambda store, session, body, claim: store.cancel(session, claim=claim, reason=body.reason)
)
UPDATE = SessionCommand(
    "update", Update, lambda store, session, body, claim: store.update(session, body.metadata, claim=claim)
)
DELETE = SessionCommand(
    "delete", CommandBody, lambda store, session, _, claim: store.delete(session, claim=claim, erases=False)
)
ERASE = SessionCommand(
    "erase", CommandBody, lambda store, session, _, claim: store.delete(session, claim=claim, erases=True)
)
"""A delete that also erases; over REST only."""

COMMANDS: Mapping[str, SessionCommand[Any]] = {
    command.name: command
    for command in (
        *(CREATE, START, SWITCH, PAUSE, RESUME, ADJUST, TAKEBACK),
        *(COMPLETE, CANCEL, REOPEN, UPDATE, DELETE),
    )
}
"""All commands by name, but `ERASE`."""

"""The table of commands, shared by REST, WebSockets and batches: the body of each command, and how it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from syncapp.domain.results import Claim, Result
from syncapp.domain.schemas import Adjust, Cancel, CommandBody, Complete, CreateSession, Start, Switch, Update
from syncapp.domain.validation import Request


class Commands(Protocol):
    """The commands that a store offers (`syncapp.store.sessions.SessionStore`)."""

    def create(self, new: CreateSession, claim: Claim) -> Result:
        """Create a session."""

    def start(self, session_id: str, claim: Claim, *, participant_id: str | None) -> Result:
        """Start the clock."""

    def switch(
        self, session_id: str, claim: Claim, *, participant_id: str | None, next_participant_id: str | None
    ) -> Result:
        """End the active participant's cycle."""

    def pause(self, session_id: str, claim: Claim) -> Result:
        """Stop the clock."""

    def resume(self, session_id: str, claim: Claim) -> Result:
        """Continue the paused cycle."""

    def adjust(
        self,
        session_id: str,
        claim: Claim,
        *,
        op: str,
        ms: int,
        participant_id: str | None,
        group_id: str | None,
        not_after_ms: int | None,
        reason: str | None,
    ) -> Result:
        """Change the remaining time of one budget."""

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


def _adjust(store: Commands, session_id: str, body: Adjust, claim: Claim) -> Result:
    return store.adjust(
        session_id,
        claim=claim,
        op=body.op,
        ms=body.ms,
        participant_id=body.participant_id,
        group_id=body.group_id,
        not_after_ms=body.not_after_ms,
        reason=body.reason,
    )


def _switch(store: Commands, session_id: str, body: Switch, claim: Claim) -> Result:
    return store.switch(
        session_id, claim=claim, participant_id=body.participant_id, next_participant_id=body.next_participant_id
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
ADJUST = SessionCommand("adjust", Adjust, _adjust)
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
    for command in (CREATE, START, SWITCH, PAUSE, RESUME, ADJUST, COMPLETE, CANCEL, UPDATE, DELETE)
}
"""All commands by name, but `ERASE`."""

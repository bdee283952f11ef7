"""Refusals: from the word a script answers with to the error that a client sees."""

from __future__ import annotations

from typing import Any

from syncapp.commands import Claim
from syncapp.errors import BY_WORD, InvalidTransition, StoreUnavailable, SyncError, ValidationFailed
from syncapp.state import Session


def unavailable(error: Exception) -> StoreUnavailable:
    """Return the error of a server that did not answer."""
    return StoreUnavailable(
        "the store does not answer; whether a command took effect is unknown: "
        "send it again with the same idempotency key",
        {"retry_after_s": 1, "reason": type(error).__name__},
    )


def refusal(
    word: str, command: str, claim: Claim, session: Session | None, now_ms: int, expired_id: str | None
) -> SyncError:
    """Return the error of a refusing word, with what the caller needs to go on: the current state, mostly."""
    kind = BY_WORD[word]
    current = session.state(now_ms) if session else None
    if word == "not_found":
        return kind("there is no session of this id; it may have been deleted or have ended long ago")
    if word == "idempotency_mismatch":
        return kind("this idempotency key was used for another command; use a new key for a new command")
    if word == "session_exists":
        return kind("a session of this id exists already", {"current": current})
    if kind is ValidationFailed:
        field = "next_participant_id" if word == "unknown_next_participant" else "participant_id"
        return ValidationFailed.of(field, "is not a participant of this session", "unknown_participant")
    if session is None:
        raise LookupError(f"the word {word} came without a state")
    if word == "not_active_participant":
        message = f"it is not this participant's turn, but {session.active_participant_id}'s"
        return kind(message, {"active_participant_id": session.active_participant_id, "current": current})
    if kind is InvalidTransition:
        message = f"cannot {command} a session that is {session.status}"
        details = {"status": session.status, "command": command, "current": current}
        if expired_id:
            details["expired_participant_id"] = expired_id
        return kind(message, details)
    found = f"version {session.version}" if claim.expected_epoch is None else f"{session.epoch}-{session.version}"
    expected: dict[str, Any] = {"expected_version": claim.expected_version, "actual_version": session.version}
    if claim.expected_epoch is not None:
        expected |= {"expected_epoch": claim.expected_epoch, "actual_epoch": session.epoch}
    return kind(f"the session is at {found}, not the expected one", expected | {"current": current})

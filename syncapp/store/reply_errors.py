"""Errors for clients, from the reply words of scripts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from syncapp.domain.modes import GROUP_MODES, MODES
from syncapp.domain.results import Claim
from syncapp.domain.session import Session
from syncapp.errors import (
    BY_WORD,
    Conflict,
    InvalidTransition,
    NotActiveParticipant,
    NotReplicated,
    SessionExists,
    StoreUnavailable,
    SyncError,
    ValidationFailed,
)

_UNKNOWN = ("is not a participant of this session", "unknown_participant")
_FIELDS = {
    "unknown_participant": ("participant_id", *_UNKNOWN),
    "unknown_next_participant": ("next_participant_id", *_UNKNOWN),
    "expired_next_participant": ("next_participant_id", "has run out of time", "expired_participant"),
    "unknown_target": ("targets", "must be ids of participants, or of groups in per_group", "unknown_target"),
    "no_time_control": ("stage", "can be adjusted only in a session with time controls", "no_time_control"),
    "no_such_stage": ("stage", "is greater than the number of stages", "no_such_stage"),
    "no_moves": ("moves_to_next_stage", "must be at most the stage's moves; this stage may have none", "no_moves"),
    "no_periods": ("periods_left", "must be at most the stage's periods; this stage may have none", "no_periods"),
    "no_period": ("period_remaining_ms", "needs an owner whose period or block runs", "no_period"),
    "no_block": ("block_moves_left", "must be at most period_moves, and a block must be running", "no_block"),
    "no_takebacks": ("cycles", "cannot be taken back: the session was created without takeback_cycles", "no_takebacks"),
    "too_few_turns": (
        "cycles",
        "is more than takeback_cycles, or than the cycles since the last adjustment or restore",
        "too_few_turns",
    ),
    "unknown_group": ("group_id", "is not a group of this session", "unknown_group"),
    "no_participant_budget": (
        "participant_id",
        "participants have no budgets in this mode; omit participant_id to adjust the session's budget",
        "no_budget",
    ),
    "no_group_budget": (
        "group_id",
        f"is allowed in {GROUP_MODES} only",
        "no_budget",
    ),
    "no_budget": ("op", "a stopwatch without max_time_ms has no budget to adjust", "no_budget"),
    "adjustment_too_large": ("ms", "would leave more than 99999999999 ms, or 9999999999 ms of overtime", "too_large"),
}
"""Field, message and code for each word that concerns one field."""
_SENTENCES = {
    "not_found": "there is no session with this id; it may have been deleted, or have ended long ago",
    "session_gone": "the command took effect when it was first sent with this key, but its session is gone: it was "
    "deleted, ended long ago, or was replaced by another with the same id",
    "idempotency_mismatch": "this idempotency key was used for another command; use a new key for a new command",
    "audit_backlog": "the audit log is too far behind for new sessions; existing sessions are not affected",
    "store_full": "the store is too full for this; nothing was changed. complete, cancel and delete still work",
    "busy": "more time has passed than could be settled at once; try again",
}
"""Messages for the words that need no state."""
_DETAILS: dict[str, dict[str, Any]] = {
    "busy": {"retry_after_s": 1},
    "audit_backlog": {"retry_after_s": 30},
    "store_full": {"retry_after_s": 30},
    "session_gone": {"replayed": True},
}


class NoReply(StoreUnavailable):
    """The store did not reply, so it is unknown whether a command took effect."""


def not_accepting(error: BaseException) -> StoreUnavailable:
    """Return the error for a server that refuses commands, for example because it is full, loading or a replica."""
    reason = type(error).__name__ if type(error).__name__ != "ResponseError" else str(error).split(" ", 1)[0]
    return StoreUnavailable(
        "the store does not accept commands now; nothing was changed", {"retry_after_s": 1, "reason": reason}
    )


def no_reply(error: BaseException) -> NoReply:
    """Return the error for a server that did not reply."""
    return NoReply(
        "the store does not answer; whether a command took effect is unknown: "
        "send it again with the same idempotency key",
        {"retry_after_s": 1, "reason": type(error).__name__},
    )


def not_replicated(replicas: int, required: int) -> NotReplicated:
    """Return the error for a change that too few replicas have."""
    return NotReplicated(
        f"the change is on {replicas} of {required} required replicas, so a failover may lose it: "
        "send the command again with the same idempotency key",
        {"retry_after_s": 1, "replicas": replicas, "required_replicas": required},
    )


@contextmanager
def naming_fields(code: str, fields: list[str]) -> Iterator[None]:
    """Have an error of this code name these fields.

    A script knows that a request needs something, but not which of its fields need it.
    """
    try:
        yield
    except ValidationFailed as error:
        (fault,) = error.details
        if fault["code"] != code:
            raise
        faults = [fault | {"field": field} for field in fields]
        raise ValidationFailed("; ".join(f"{each['field']}: {each['message']}" for each in faults), faults) from None


def refusal(
    word: str, command: str, claim: Claim, session: Session | None, now_ms: int, expired_id: str | None
) -> SyncError:
    """Return the error for a word other than `ok`; its details usually contain the current state.

    A caller that may only create or delete sessions does not see their state.
    """
    if word in _FIELDS:
        return ValidationFailed.of(*_FIELDS[word])
    if word in _SENTENCES:
        return BY_WORD[word](_SENTENCES[word], _DETAILS.get(word))
    if session is None:
        raise LookupError(f"the reply {word} has no state")
    current = {"current": session.state(now_ms)} if "session:watch" in claim.principal.scopes else {}
    if word == "session_exists":
        return SessionExists("a session with this id already exists", current or None)
    if word == "not_active_participant":
        active_id = session.active_participant_id
        message = "it is not this participant's turn" + (f", but {active_id}'s" if active_id else "")
        return NotActiveParticipant(message, {"active_participant_id": active_id} | current)
    if word in ("invalid_transition", "no_cycles_left"):
        details = {"status": session.status, "command": command} | current
        expired_id = expired_id or _expired_by_turn(session)
        expired = {"expired_participant_id": expired_id} if expired_id else {}
        doing = "take cycles back in" if command == "takeback" else command
        message = f"cannot {doing} a session that is {session.status}"
        if word == "no_cycles_left":
            message += f", because its {session.definition.max_cycles} cycles (max_cycles) are used up"
        return InvalidTransition(message, details | expired)
    if claim.expected_epoch == 0:  # `If-Match` had a tag that is not ours
        actual = {"actual_epoch": session.epoch, "actual_version": session.version} | current
        return Conflict(f"If-Match does not name a version of this session, which is at {session.etag}", actual)
    current_version = f"version {session.version}" if claim.expected_epoch is None else session.etag.strip('"')
    expected: dict[str, Any] = {"expected_version": claim.expected_version, "actual_version": session.version}
    if claim.expected_epoch is not None:
        expected |= {"expected_epoch": claim.expected_epoch, "actual_epoch": session.epoch}
    return Conflict(f"the session is at {current_version}, not the expected one", expected | current)


def _expired_by_turn(session: Session) -> str | None:
    """Return the participant that was active when the session expired, if it has expired, in modes with turns."""
    if session.status != "expired" or session.turn is None or not MODES[session.sync_mode].has_turns:
        return None
    return session.definition.participant_ids[session.turn]

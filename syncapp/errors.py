"""Errors: what a client can be told, and the one table from script words to them.

Every error has an HTTP status and a code; REST and WebSockets send the same code,
message and details.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


class SyncError(Exception):
    """An error that a client sees: status, code, message (a sentence), details (JSON or None)."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "INTERNAL_ERROR"
    retry_after_s: ClassVar[int | None] = None
    """Seconds to wait before the next try, unless `details` has its own; None when a retry does not help."""

    def __init__(self, message: str, details: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def document(self) -> dict[str, Any]:
        """Return what a client is told: code, message, and details if there are any."""
        told = {"code": self.code, "message": self.message}
        return told if self.details is None else told | {"details": self.details}

    @property
    def headers(self) -> Mapping[str, str]:
        """The HTTP headers that belong to the error: `Retry-After`, where a retry may help."""
        details = self.details if isinstance(self.details, dict) else {}
        wait_s = details.get("retry_after_s", self.retry_after_s)
        return {} if wait_s is None else {"Retry-After": str(wait_s)}


class ValidationFailed(SyncError):
    """Input that does not fit; details: a list of {field, message, code}, every fault at once."""

    status, code = 400, "VALIDATION_ERROR"

    @classmethod
    def of(cls, field: str, message: str, code: str) -> ValidationFailed:
        """Make the error of one field."""
        return cls(f"{field}: {message}", [{"field": field, "message": message, "code": code}])


class InvalidJson(SyncError):
    """A body that is not JSON."""

    status, code = 400, "INVALID_JSON"


class BadRequest(SyncError):
    """What is no request: not HTTP, or not whole."""

    status, code = 400, "BAD_REQUEST"


class InvalidTransition(SyncError):
    """A command out of place; the message names the current status."""

    status, code = 400, "INVALID_STATE_TRANSITION"


class OriginRefused(SyncError):
    """A page of an origin that may not change anything, or watch."""

    status, code = 403, "ORIGIN_NOT_ALLOWED"


class SessionNotFound(SyncError):
    """No such session."""

    status, code = 404, "SESSION_NOT_FOUND"


class NotFound(SyncError):
    """No such route."""

    status, code = 404, "NOT_FOUND"


class MethodNotAllowed(SyncError):
    """A route that does not know the method."""

    status, code = 405, "METHOD_NOT_ALLOWED"


class RequestTimeout(SyncError):
    """A request that took too long to arrive."""

    status, code = 408, "REQUEST_TIMEOUT"


class Conflict(SyncError):
    """Another version than the expected one; details: expected_version, actual_version, current."""

    status, code = 409, "CONFLICT"


class SessionExists(SyncError):
    """A session of this id is there already."""

    status, code = 409, "SESSION_EXISTS"


class NotActiveParticipant(SyncError):
    """A switch named as its mover somebody whose turn it is not."""

    status, code = 409, "NOT_ACTIVE_PARTICIPANT"


class PreconditionFailed(SyncError):
    """`If-Match` names another version; details as of `Conflict`."""

    status, code = 412, "PRECONDITION_FAILED"


class PayloadTooLarge(SyncError):
    """A body over the limit."""

    status, code = 413, "PAYLOAD_TOO_LARGE"


class UriTooLong(SyncError):
    """A path and query over the limit."""

    status, code = 414, "URI_TOO_LONG"


class UnsupportedMediaType(SyncError):
    """A body that is not `application/json`, or encoded."""

    status, code = 415, "UNSUPPORTED_MEDIA_TYPE"


class ExpectationFailed(SyncError):
    """An `Expect` header that asks for something else than `100-continue`."""

    status, code = 417, "EXPECTATION_FAILED"


class IdempotencyMismatch(SyncError):
    """An idempotency key that was used for another command."""

    status, code = 422, "IDEMPOTENCY_MISMATCH"


class RateLimited(SyncError):
    """Too many requests; details: reason (the name of the limit), limit, retry_after_s."""

    status, code = 429, "RATE_LIMIT_EXCEEDED"
    retry_after_s = 1


class TooManySubscriptions(SyncError):
    """A WebSocket that watches as many sessions as it may; details: limit."""

    status, code = 429, "TOO_MANY_SUBSCRIPTIONS"


class HeadersTooLarge(SyncError):
    """More or larger headers than allowed."""

    status, code = 431, "REQUEST_HEADER_FIELDS_TOO_LARGE"


class TooManyConnections(SyncError):
    """No room for another connection; details: limit, retry_after_s."""

    status, code = 503, "TOO_MANY_CONNECTIONS"


class InternalError(SyncError):
    """Our fault; details: request_id, under which it is logged."""


class StoreUnavailable(SyncError):
    """Redis does not answer; details: retry_after_s."""

    status, code = 503, "STORE_UNAVAILABLE"
    retry_after_s = 1


class AuditBacklog(StoreUnavailable):
    """No new sessions while the audit trail is too far behind; details: retry_after_s."""

    code = "AUDIT_BACKLOG"


class StoreFull(StoreUnavailable):
    """The store is too full for the command, and accepts only those that free memory; details: retry_after_s."""

    code = "STORE_FULL"


class ServerStopping(SyncError):
    """This process is about to end, and begins nothing new; details: retry_after_s."""

    status, code = 503, "SERVER_STOPPING"
    retry_after_s = 1


class AuditUnavailable(StoreUnavailable):
    """PostgreSQL does not answer, or is asked too much; details: retry_after_s."""

    code = "AUDIT_UNAVAILABLE"


class AuditIncomplete(StoreUnavailable):
    """An event that the answer needs is not in the log, or not yet; details: epoch, version, retry_after_s."""

    code = "AUDIT_INCOMPLETE"


BY_WORD: dict[str, type[SyncError]] = {
    "not_found": SessionNotFound,
    "session_gone": SessionNotFound,
    "session_exists": SessionExists,
    "version_conflict": Conflict,
    "invalid_transition": InvalidTransition,
    "unknown_participant": ValidationFailed,
    "unknown_next_participant": ValidationFailed,
    "expired_next_participant": ValidationFailed,
    "unknown_group": ValidationFailed,
    "no_participant_budget": ValidationFailed,
    "no_group_budget": ValidationFailed,
    "no_budget": ValidationFailed,
    "adjustment_too_large": ValidationFailed,
    "not_active_participant": NotActiveParticipant,
    "idempotency_mismatch": IdempotencyMismatch,
    "metadata_changed": Conflict,
    "busy": StoreUnavailable,
    "audit_backlog": AuditBacklog,
    "store_full": StoreFull,
}
"""What each refusing word of a script becomes; `ok` is the only other word."""


def one_line(error: BaseException) -> str:
    """Return an error's text as one line."""
    return " ".join(str(error).split()) or type(error).__name__

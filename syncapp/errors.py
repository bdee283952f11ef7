"""Errors that clients see, and the one table from the reply words of scripts to them.

Every error has an HTTP status and a code; REST and WebSockets send the same code, message and details.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar


def retry_after(wait_s: int | None) -> Mapping[str, str]:
    """Return the `Retry-After` header of an answer, in whole seconds; none for None."""
    return {} if wait_s is None else {"Retry-After": str(wait_s)}


class SyncError(Exception):
    """An error that a client sees: status, code, message (a sentence), details (JSON or None)."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "INTERNAL_ERROR"
    retry_after_s: ClassVar[int | None] = None
    """Seconds to wait before a retry, unless `details` has its own value; None if a retry does not help."""

    def __init__(self, message: str, details: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = details

    def document(self) -> dict[str, Any]:
        """Return the error as clients see it: code, message, and details if there are any."""
        document = {"code": self.code, "message": self.message}
        return document if self.details is None else document | {"details": self.details}

    @property
    def headers(self) -> Mapping[str, str]:
        """The HTTP headers that belong to the error: `Retry-After`, if a retry may help."""
        details = self.details if isinstance(self.details, dict) else {}
        return retry_after(details.get("retry_after_s", self.retry_after_s))


class ValidationFailed(SyncError):
    """Invalid input; details: a list of {field, message, code} with all faults."""

    status, code = 400, "VALIDATION_ERROR"

    @classmethod
    def of(cls, field: str, message: str, code: str) -> ValidationFailed:
        """Return the error for one field."""
        return cls(f"{field}: {message}", [{"field": field, "message": message, "code": code}])


class InvalidJson(SyncError):
    """A body that is not JSON."""

    status, code = 400, "INVALID_JSON"


class BadRequest(SyncError):
    """A request that is not valid HTTP, or incomplete."""

    status, code = 400, "BAD_REQUEST"


class InvalidTransition(SyncError):
    """The command is not allowed in the session's current status, which the message names."""

    status, code = 400, "INVALID_STATE_TRANSITION"


class Unauthorized(SyncError):
    """There is no valid token; details: reason, a word of RFC 6750, section 3.1, or `missing_token`."""

    status, code = 401, "UNAUTHORIZED"

    @property
    def headers(self) -> Mapping[str, str]:
        """`WWW-Authenticate`, as RFC 6750 defines it; without an error if the request had no token."""
        reason = self.details["reason"]
        if reason == "missing_token":
            return {"WWW-Authenticate": 'Bearer realm="SyncApp"'}
        return {
            "WWW-Authenticate": f'Bearer realm="SyncApp", error="{reason}", error_description="{self.message}"',
        }


class Forbidden(SyncError):
    """The token does not allow this; details: missing_scope if a scope is missing, otherwise reason."""

    status, code = 403, "FORBIDDEN"

    @property
    def headers(self) -> Mapping[str, str]:
        """`WWW-Authenticate` with the missing scope, as RFC 6750 defines it."""
        scope = (self.details or {}).get("missing_scope")
        named = f', scope="{scope}"' if scope else ""
        return {"WWW-Authenticate": f'Bearer realm="SyncApp", error="insufficient_scope"{named}'}


class OriginRefused(SyncError):
    """A page of this origin may not change or watch sessions."""

    status, code = 403, "ORIGIN_NOT_ALLOWED"


class SessionNotFound(SyncError):
    """No such session."""

    status, code = 404, "SESSION_NOT_FOUND"


class NotFound(SyncError):
    """No such route."""

    status, code = 404, "NOT_FOUND"


class MethodNotAllowed(SyncError):
    """The path does not support the method."""

    status, code = 405, "METHOD_NOT_ALLOWED"


class RequestTimeout(SyncError):
    """The request took too long to arrive."""

    status, code = 408, "REQUEST_TIMEOUT"


class Conflict(SyncError):
    """The session's version is not the expected one; details: expected_version, actual_version, current."""

    status, code = 409, "CONFLICT"


class TooManyLinks(SyncError):
    """The session has the maximum number of links that have not expired; details: limit."""

    status, code = 409, "TOO_MANY_LINKS"


class SessionExists(SyncError):
    """A session with this id exists already."""

    status, code = 409, "SESSION_EXISTS"


class NotActiveParticipant(SyncError):
    """A switch named a participant whose turn it is not."""

    status, code = 409, "NOT_ACTIVE_PARTICIPANT"


class PreconditionFailed(SyncError):
    """`If-Match` names another version than the session's; details as for `Conflict`."""

    status, code = 412, "PRECONDITION_FAILED"


class PayloadTooLarge(SyncError):
    """The body is larger than the limit."""

    status, code = 413, "PAYLOAD_TOO_LARGE"


class UriTooLong(SyncError):
    """The path and query are longer than the limit."""

    status, code = 414, "URI_TOO_LONG"


class UnsupportedMediaType(SyncError):
    """The body is not `application/json`, or it is encoded."""

    status, code = 415, "UNSUPPORTED_MEDIA_TYPE"


class ExpectationFailed(SyncError):
    """The `Expect` header asks for anything but `100-continue`."""

    status, code = 417, "EXPECTATION_FAILED"


class IdempotencyMismatch(SyncError):
    """The idempotency key was used for another command."""

    status, code = 422, "IDEMPOTENCY_MISMATCH"


class RateLimited(SyncError):
    """Too many requests; details: reason (the name of the limit), limit, retry_after_s."""

    status, code = 429, "RATE_LIMITED"
    retry_after_s = 1


class TooManySubscriptions(SyncError):
    """The WebSocket already watches the maximum number of sessions; details: limit."""

    status, code = 429, "TOO_MANY_SUBSCRIPTIONS"


class HeadersTooLarge(SyncError):
    """The headers are more or larger than the limit."""

    status, code = 431, "REQUEST_HEADER_FIELDS_TOO_LARGE"


class TokensNotConfigured(SyncError):
    """This server signs no tokens."""

    status, code = 501, "TOKENS_NOT_CONFIGURED"


class TooManyConnections(SyncError):
    """The maximum number of connections is open; details: limit, retry_after_s."""

    status, code = 503, "TOO_MANY_CONNECTIONS"


class InternalError(SyncError):
    """A fault of the server; details: request_id, under which it is logged."""


class StoreUnavailable(SyncError):
    """The store does not answer; details: retry_after_s."""

    status, code = 503, "STORE_UNAVAILABLE"
    retry_after_s = 1


class AuditBacklog(StoreUnavailable):
    """The audit log is too far behind to accept new sessions; details: retry_after_s."""

    code = "AUDIT_BACKLOG"


class StoreFull(StoreUnavailable):
    """The store is nearly full and accepts only commands that free memory; details: retry_after_s."""

    code = "STORE_FULL"


class NotReplicated(StoreUnavailable):
    """A change was made, but too few replicas have it; details: replicas, required_replicas, retry_after_s."""

    code = "NOT_REPLICATED"


class ServerStopping(SyncError):
    """This process is shutting down and accepts nothing new; details: retry_after_s."""

    status, code = 503, "SERVER_STOPPING"
    retry_after_s = 1


class AuditUnavailable(StoreUnavailable):
    """PostgreSQL does not answer, or all connections for the history are busy; details: retry_after_s."""

    code = "AUDIT_UNAVAILABLE"


class AuditIncomplete(StoreUnavailable):
    """The audit log lacks an event that the answer needs, or does not have it yet.

    Details: epoch, version, retry_after_s.
    """

    code = "AUDIT_INCOMPLETE"


_INVALID = (
    *("unknown_participant", "unknown_next_participant", "expired_next_participant", "unknown_group", "unknown_target"),
    *("no_participant_budget", "no_group_budget", "no_budget", "adjustment_too_large"),
    *("no_time_control", "no_such_stage", "no_moves", "no_periods", "no_period", "no_block"),
    *("no_takebacks", "too_few_turns"),
)
"""The reply words that concern one field of the request."""
BY_WORD: dict[str, type[SyncError]] = {
    "not_found": SessionNotFound,
    "session_gone": SessionNotFound,
    "session_exists": SessionExists,
    "version_conflict": Conflict,
    "invalid_transition": InvalidTransition,
    "no_cycles_left": InvalidTransition,
    **dict.fromkeys(_INVALID, ValidationFailed),
    "not_active_participant": NotActiveParticipant,
    "idempotency_mismatch": IdempotencyMismatch,
    "metadata_changed": Conflict,
    "busy": StoreUnavailable,
    "audit_backlog": AuditBacklog,
    "store_full": StoreFull,
    "rate_limited": RateLimited,
}
"""The error for each reply word of a script; `ok` is the only other word."""


def one_line(error: BaseException) -> str:
    """Return an error's text as one line."""
    return " ".join(str(error).split()) or type(error).__name__

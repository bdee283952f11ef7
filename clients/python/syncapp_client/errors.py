"""The one exception that the client raises for what a server, a network or a deadline refuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OFFLINE = "OFFLINE"
TIMEOUT = "TIMEOUT"
UNEXPECTED = "UNEXPECTED_RESPONSE"
"""A response that is not the service's, such as a redirect."""
_TRANSIENT = frozenset(
    {
        *(OFFLINE, "RATE_LIMITED", "REQUEST_TIMEOUT", "SERVER_STOPPING", "TOO_MANY_CONNECTIONS"),
        *(
            "STORE_UNAVAILABLE",
            "NOT_REPLICATED",
            "STORE_FULL",
            "AUDIT_BACKLOG",
            "AUDIT_UNAVAILABLE",
            "AUDIT_INCOMPLETE",
        ),
    }
)
_UNKNOWN = frozenset({OFFLINE, "STORE_UNAVAILABLE", "NOT_REPLICATED", "INTERNAL_ERROR"})


class SyncAppError(Exception):
    """A request or command failed.

    code: as in docs/protocol.md, or `TIMEOUT`, `OFFLINE`, `CLOSED`,
    `UNEXPECTED_RESPONSE`. details: the server's, if there are any. status:
    the HTTP status, if there is one. retry_after_s: how long the server asks to wait. outcome_unknown: a command may
    have taken effect; it is safe to send it again with the same idempotency key.
    """

    def __init__(
        self,
        code: str,
        message: str,
        details: Any = None,
        *,
        status: int | None = None,
        retry_after_s: float | None = None,
        outcome_unknown: bool = False,
    ) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message
        self.details = details
        self.status = status
        self.retry_after_s = retry_after_s
        self.outcome_unknown = outcome_unknown

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"

    @property
    def current(self) -> Any:
        """The session's state that made the server refuse a command; None if the error has none."""
        return self.details.get("current") if isinstance(self.details, dict) else None

    @property
    def is_transient(self) -> bool:
        """Whether the same request may succeed later."""
        return self.code in _TRANSIENT

    @classmethod
    def of_document(
        cls, error: Mapping[str, Any], status: int | None = None, retry_after_s: float | None = None
    ) -> SyncAppError:
        """Return the exception for an error document of REST, or an `ERROR` message."""
        code, details = str(error.get("code")), error.get("details")
        if retry_after_s is None and isinstance(details, dict):
            given = details.get("retry_after_s")
            retry_after_s = float(given) if isinstance(given, int | float) else None
        return cls(
            code,
            str(error.get("message")),
            details,
            status=status,
            retry_after_s=retry_after_s,
            outcome_unknown=code in _UNKNOWN,
        )

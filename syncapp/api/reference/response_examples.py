"""Examples of responses for the OpenAPI document, by operation and status; each is valid for its model."""

from __future__ import annotations

from typing import Any

from syncapp import __version__
from syncapp.api.reference.examples import (
    EPOCH,
    EVENT,
    GO_STATE,
    LINK_ID,
    MINIMAL,
    NOON,
    NOON_MS,
    PATCH,
    REQUEST_BODIES,
    REQUEST_ID,
    SESSION_ID,
    STATE,
    named,
)

_LOGGED = {
    "epoch": EPOCH,
    "version": 2,
    "type": "session_started",
    "at": NOON,
    "at_ms": NOON_MS,
    "status": "running",
    "cycle_count": 0,
    "participant_id": "white",
    "next_participant_id": None,
    "group_id": None,
    "remaining_ms": 300_000,
    "elapsed_ms": 0,
    "actor": "client",
    "request_id": REQUEST_ID,
    "event": EVENT,
    "patch": PATCH,
}
_SHOWN = {"running": True, "used_ms": 12_345, "remaining_ms": 287_655, "participant_id": "white"}
_STOOD = {"running": False, "used_ms": 0, "remaining_ms": 300_000, "participant_id": "black"}
_CYCLES = {"cycles": 4, "total_ms": 48_000, "mean_ms": 12_000, "longest_ms": 20_500, "open_ms": 3000}
_LISTED = {
    "session_id": SESSION_ID,
    "sync_mode": "per_participant",
    "status": "running",
    "epoch": EPOCH,
    "version": 2,
    "cycle_count": 0,
    "participant_count": 2,
    "total_time_ms": 600_000,
    "created_at": "2026-01-01T11:58:00.000Z",
    "started_at": NOON,
    "completed_at": None,
    "deleted_at": None,
    "updated_at": NOON,
    "metadata": {},
}
_HELD = {
    name: STATE[name]
    for name in (
        "session_id",
        "sync_mode",
        "status",
        "epoch",
        "version",
        "active_participant_id",
        "cycle_count",
        "session_started_at",
        "session_completed_at",
        "created_at",
        "updated_at",
        "metadata",
        "clock",
    )
} | {"participant_count": 2}
_STREAM = f"""retry: 3127

data: {{"type": "CONNECTED", "sessionId": "{SESSION_ID}", "timestamp": {NOON_MS}, "epoch": {EPOCH}, "version": 2}}

"""
_CSV = (
    "epoch,version,type,at,at_ms,status,cycle_count,participant_id,next_participant_id,group_id,remaining_ms,"
    "elapsed_ms,actor,request_id,reason,event,patch\r\n"
)


def _data(summary: str, value: Any) -> dict[str, Any]:
    return named(example=(summary, {"data": value}))


_COMMANDED = named(
    state=("The state after the command", {"data": STATE}),
    minimal=("With `Prefer: return=minimal`", {"data": MINIMAL}),
)
_LINK = {
    "jti": LINK_ID,
    "scope": "session:watch",
    "participant_id": None,
    "label": "spectators",
    "created_at": NOON,
    "expires_at": "2026-01-02T12:00:00.000Z",
    "created_by": "back-end",
}
_TOKEN = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiJsaW5rOi…"  # noqa: S105 the beginning of an example
_RESPONSES: dict[tuple[str, str], dict[str, Any]] = {
    ("read", "application/json"): named(
        example=("A running game", {"data": STATE}),
        byo_yomi=("A game of Go in byo-yomi", {"data": GO_STATE}),
    ),
    ("batch", "application/json"): _data(
        "One command succeeded, one failed",
        {
            "results": [
                {"session_id": SESSION_ID, "status": 200, "data": MINIMAL},
                {
                    "session_id": "7165bb25-3a78-48c0-9517-8e27740d0194",
                    "status": 404,
                    "error": {"code": "SESSION_NOT_FOUND", "message": "there is no session with this id"},
                },
            ],
            "succeeded": 1,
            "failed": 1,
        },
    ),
    ("create_link", "application/json"): _data(
        "A link for spectators",
        _LINK | {"token": _TOKEN, "url": f"https://play.example/watch#token={_TOKEN}"},
    ),
    ("list_links", "application/json"): _data("One link", {"links": [_LINK]}),
    ("text", "text/plain"): named(text=("Four minutes and forty-eight seconds", "04:48")),
    ("text", "application/json"): named(array=("The same as a list", ["04:48"])),
    ("stream", "text/event-stream"): named(begin=("The beginning of a stream", _STREAM)),
    ("events", "application/json"): _data("The last page", {"events": [_LOGGED], "next_cursor": None}),
    ("at", "application/json"): _data(
        "A game as of a past instant", STATE | {"event": EVENT, "clocks": {"participants": [_SHOWN, _STOOD]}}
    ),
    ("sessions", "application/json"): _data("The last page", {"sessions": [_LISTED], "next_cursor": None}),
    ("statistics", "application/json"): _data(
        "Two players",
        {
            "session_id": SESSION_ID,
            "epoch": EPOCH,
            **_CYCLES,
            "participants": [{"participant_id": "white", **_CYCLES}, {"participant_id": "black", **_CYCLES}],
        },
    ),
    ("export", "application/json"): _data(
        "All events", {"session_id": SESSION_ID, "events": [_LOGGED | {"snapshot": None}], "count": 1}
    ),
    ("export", "application/x-ndjson"): named(
        lines=("A line for each event", '{"epoch": 1767268680000, "version": 2}\n')
    ),
    ("export", "text/csv"): named(table=("The header line", _CSV)),
    ("list_sessions", "application/json"): _data(
        "A lobby with one game",
        {"sessions": [_HELD], "next_cursor": None, "complete": True, "server_time_ms": NOON_MS + 12_345},
    ),
    ("health", "application/json"): named(well=("Alive", {"status": "ok"})),
    ("ready", "application/json"): named(ready=("Ready", {"status": "ready", "redis": "ok", "postgresql": "ok"})),
    ("audit_queue", "application/json"): _data(
        "Nothing waits",
        {
            "waiting": 0,
            "active": 0,
            "completed": 5120,
            "failed": 0,
            "delayed": 0,
            "oldest_age_ms": None,
            "rate_per_s": 12.5,
        },
    ),
    ("audit_verification", "application/json"): _data(
        "Everything is as committed",
        {
            "last": {
                "outcome": "as_committed",
                "started_at": "2026-01-01T11:59:59.000Z",
                "finished_at": NOON,
                "sessions": 214,
                "events": 5120,
                "faulty_sessions": 0,
                "forks": 0,
                "erased_parts": 0,
            }
        },
    ),
    ("time", "application/json"): named(
        noon=("Noon", {"timestamp_ms": NOON_MS, "server_version": __version__, "drift_tolerance_ms": 50})
    ),
}


_UNREADY = named(
    stopping=("During a shutdown", {"status": "unavailable", "problems": ["this process is shutting down"]})
)


def for_response(operation: str, status: int, content_type: str) -> dict[str, Any]:
    """Return the examples of a response; commands return a state, or what changed."""
    if operation in REQUEST_BODIES and operation not in ("batch", "create_link"):
        return _COMMANDED
    if status >= 400:
        return _UNREADY
    return _RESPONSES.get((operation, content_type), {})  # a test fails if an example is missing


def _failure(code: str, message: str, details: Any = None) -> dict[str, Any]:
    members = {} if details is None else {"details": details}
    return named(**{code.lower(): (message, {"error": {"code": code, "message": message, **members}})})


_CURRENT = {"expected_version": 1, "actual_version": 2, "current": STATE}
FAILURES: dict[int, dict[str, Any]] = {
    400: _failure(
        "VALIDATION_ERROR",
        "sync_mode: is required",
        [{"field": "sync_mode", "message": "is required", "code": "missing"}],
    ),
    401: _failure(
        "UNAUTHORIZED",
        "this needs a token: send the header Authorization: Bearer <token>",
        {"reason": "missing_token"},
    ),
    403: _failure("FORBIDDEN", "this needs the scope session:control", {"missing_scope": "session:control"})
    | _failure(
        "ORIGIN_NOT_ALLOWED",
        "pages of this origin may not send commands; ALLOWED_ORIGINS lists the allowed origins",
    ),
    404: _failure(
        "SESSION_NOT_FOUND", "there is no session with this id; it may have been deleted, or have ended long ago"
    ),
    409: _failure("CONFLICT", "the session is at version 2, not the expected one", _CURRENT),
    412: _failure("PRECONDITION_FAILED", f"the session is at {EPOCH}-2, not the expected one", _CURRENT),
    413: _failure("PAYLOAD_TOO_LARGE", "the body is larger than this server accepts"),
    414: _failure("URI_TOO_LONG", "the path and query are longer than this server accepts"),
    415: _failure("UNSUPPORTED_MEDIA_TYPE", "send application/json, not text/plain"),
    422: _failure(
        "IDEMPOTENCY_MISMATCH",
        "this idempotency key was used for another command; use a new key for a new command",
    ),
    429: _failure(
        "RATE_LIMITED",
        "this address may make 50 requests a second",
        {"reason": "rate_limit_per_s", "limit": 50, "retry_after_s": 1},
    ),
    501: _failure("TOKENS_NOT_CONFIGURED", "this server signs no tokens: AUTH_SECRETS is not set"),
    500: _failure("INTERNAL_ERROR", "something went wrong on our side", {"request_id": REQUEST_ID}),
    503: _failure(
        "STORE_UNAVAILABLE",
        "the store does not accept commands now; nothing was changed",
        {"retry_after_s": 1, "reason": "BusyLoadingError"},
    ),
}

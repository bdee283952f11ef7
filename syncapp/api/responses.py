"""Responses: `{"data": …}` or `{"error": …}`, and bare objects for probes and time clients."""

from __future__ import annotations

from typing import Any

import orjson
import structlog
from flask import Flask, Response, g, request
from werkzeug.datastructures import Headers
from werkzeug.exceptions import HTTPException

from syncapp.api import rate_limit_headers, requests
from syncapp.domain.patches import public_patch
from syncapp.domain.results import Result
from syncapp.domain.session_ids import public_id
from syncapp.errors import (
    Forbidden,
    InternalError,
    MethodNotAllowed,
    NotFound,
    PayloadTooLarge,
    SyncError,
    Unauthorized,
)
from syncapp.store.command_limits import CommandLimited

log = structlog.get_logger(__name__)


def data(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return a successful response."""
    return _json({"data": value}, status, headers)


def bare(document: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return an object without `data` around it, for probes and time clients."""
    return _json(document, status, headers)


def state(found: Result) -> Response:
    """Return the state of a session that was read, with its ETag."""
    return data(found.found.state(found.now_ms), headers={"ETag": found.found.etag})


def result(found: Result, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Return the result of a command."""
    document, own_headers = shown(found)
    return data(document, status, own_headers | (headers or {}) | rate_limit_headers.of(found.allowances))


def shown(found: Result) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the state after a command, or only its event and patch if the caller prefers that; and the headers.

    The patch may have been too large to keep with the idempotency key. A replay then returns the state, as RFC 7240
    allows.
    """
    session = found.found
    headers = {"ETag": session.etag}
    if found.replayed:
        headers["Idempotency-Replayed"] = "true"
    minimal = requests.wants_minimal() and bool(found.patch_json or not found.replayed)
    # A replayed create must not show what has happened since to a caller that may only create.
    hidden = found.replayed and "session:watch" not in requests.principal().scopes
    if minimal or hidden:
        # Epoch and version are the patch's: a timeout that the command made due may have been committed after it.
        patch = found.patch or {}
        epoch, version = found.first or (session.epoch, session.version)
        version = patch.get("version", version)
        headers["ETag"] = f'"{epoch}-{version}"'
        if minimal:
            headers["Preference-Applied"] = "return=minimal"
        document: dict[str, Any] = {
            "session_id": public_id(session.session_id),
            "epoch": epoch,
            "version": version,
            "event": found.event,
            "patch": public_patch(patch),
        }
    else:
        document = session.state(found.now_ms)
    if found.expired_participant_id:
        document["expired_participant_id"] = found.expired_participant_id
    return document, headers


def empty(headers: dict[str, str], status: int = 204) -> Response:
    """Return a response without a body."""
    answer = Response(status=status, headers=headers)
    del answer.headers["Content-Type"]
    return answer


def error(fault: SyncError) -> Response:
    """Return an error as clients see it."""
    document = {"error": fault.document()}
    if fault.status >= 500:  # for the log
        reason = fault.details.get("reason") if isinstance(fault.details, dict) else None
        g.fault = f"{fault.code}: {fault.message}" + (f" ({reason})" if reason else "")
    elif isinstance(fault, Unauthorized | Forbidden):
        g.refusal = fault.details.get("missing_scope") or fault.details["reason"]  # for the log
    limited = rate_limit_headers.of(fault.allowances) if isinstance(fault, CommandLimited) else {}
    return _json(document, fault.status, {**fault.headers, **limited})


def register(app: Flask) -> None:
    """Make every error of the application a response of this form; none shows a traceback."""
    app.register_error_handler(SyncError, error)
    app.register_error_handler(HTTPException, _http_error)
    app.register_error_handler(Exception, _unexpected)


def _http_error(fault: HTTPException) -> Response:
    """Return the response to what Flask itself refuses: unknown paths, wrong methods, invalid requests."""
    if fault.code == 404:
        return error(NotFound("there is nothing at this path; /api-docs lists all paths"))
    if fault.code == 405:
        answer = error(MethodNotAllowed(f"{request.method} is not allowed here; see the Allow header"))
        answer.headers.update(dict(fault.get_headers()))
        answer.mimetype = "application/json"
        return answer
    if fault.code == 413:
        return error(PayloadTooLarge("the body is larger than this server accepts"))
    if fault.response is not None:
        return fault.response  # type: ignore[return-value]  # flask responses only, here
    code = fault.name.upper().replace(" ", "_").replace("-", "_")
    document = {"error": {"code": code, "message": fault.description or fault.name}}
    return _json(document, fault.code or 500)


def _unexpected(fault: Exception) -> Response:
    log.error("unexpected failure", request_id=requests.request_id(), exc_info=fault)
    return error(InternalError("something went wrong on our side", {"request_id": requests.request_id()}))


def _json(document: Any, status: int, headers: dict[str, str] | None = None) -> Response:
    listed = Headers()
    put(listed, *(headers or {}).items(), ("Content-Type", "application/json"))
    return Response([orjson.dumps(document)], status, listed)


def put(headers: Headers, *fields: tuple[str, str]) -> None:
    """Add header fields of our own without werkzeug's checks of each; the web server checks all of them again."""
    headers._list.extend(fields)

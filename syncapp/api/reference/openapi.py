"""The OpenAPI document: made from the routes, the models that validate, and models of what is answered.

Holds only what models cannot express: tags, headers of answers, statuses, and which example belongs where.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import orjson
from flask import Flask
from pydantic import BaseModel

from syncapp.api.reference import components, examples, response_examples
from syncapp.api.reference.schemas import (
    DOCUMENTED,
    VERSION,
    Body,
    CommandAnswer,
    Documented,
    ErrorAnswer,
    StateAnswer,
)
from syncapp.domain.field_types import UUID_PATTERN

DESCRIPTION = """Authoritative shared clocks for many clients.

Instants and durations whose names end in `_ms` are whole milliseconds, instants since 1970; those in `_at` are ISO 8601
in UTC; those in `_s` are seconds. A whole number is written without a fraction (`1`, not `1.0`).

Every error has the same form, `{"error": {"code", "message", "details"}}`.

Before an operation is looked at, a request can also be refused with 405 `METHOD_NOT_ALLOWED`, 408 `REQUEST_TIMEOUT`,
414 `URI_TOO_LONG`, 417 `EXPECTATION_FAILED` and 431 `REQUEST_HEADER_FIELDS_TOO_LARGE`.

`/asyncapi.json` describes `/ws`. docs/protocol.md explains both in prose."""
INFO: dict[str, Any] = {
    "title": "SyncApp",
    "version": VERSION,
    "license": {"name": "MIT License", "identifier": "MIT"},
}
TAGS = {
    "sessions": "Make, read, follow and remove sessions.",
    "commands": "Act on a session. Each either takes effect as a whole, in one commit, or changes nothing.",
    "history": "What the audit log tells, also of sessions that are gone. It follows within about half a second.",
    "system": "The server itself: its clock, its health, its audit queue.",
}
PATH = {
    "session_id": {
        "description": "The session's id, a UUID; lower and upper case are the same. Create a session first.",
        "schema": {"type": "string", "format": "uuid", "pattern": UUID_PATTERN},
        "example": examples.SESSION_ID,
    },
}
HEADERS: dict[str, dict[str, Any]] = {
    "ETag": {
        "description": 'The version that the answer is of: `"<epoch>-<version>"`.',
        "schema": {"type": "string", "pattern": '^"[0-9]+-[0-9]+"$'},
    },
    "Location": {"description": "Path of the new session.", "schema": {"type": "string", "format": "uri-reference"}},
    "Idempotency-Replayed": {
        "description": "Only there when the command was already executed under the same key.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Preference-Applied": {
        "description": "Only there when the answer leaves the state out.",
        "schema": {"type": "string", "enum": ["return=minimal"]},
    },
    "Content-Disposition": {"description": "A name for the file.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait before the next try.", "schema": {"type": "integer", "minimum": 0}},
    "X-Request-Id": {
        "description": "The id that the request is logged under.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    },
}
ALWAYS = {"X-Request-Id", "ETag", "Location", "Retry-After", "Content-Disposition"}
"""Headers that are there whenever they are named."""
OF_MODEL: dict[Any, tuple[str, ...]] = {
    StateAnswer: ("ETag",),
    CommandAnswer: ("ETag", "Idempotency-Replayed", "Preference-Applied"),
}
OF_TYPE = {"text/csv": ("Content-Disposition",)}
OF_STATUS: dict[int, tuple[str, ...]] = {
    201: ("Location",),
    204: ("Idempotency-Replayed",),
    304: ("ETag",),
    429: ("Retry-After",),
    503: ("Retry-After",),
}
LINKS = {
    name: {
        "operationId": name,
        "description": "With the new session's id.",
        "parameters": {"session_id": "$response.body#/data/session_id"},
    }
    for name in ("read", "start", "switch", "pause", "resume", "adjust", "complete", "cancel", "update", "delete")
}
_PLACE = re.compile(r"<(\w+)>")
MEANING: dict[int, str] = {
    200: "Done.",
    201: "Created.",
    204: "Removed, or not there.",
    304: "Nothing has changed; no body.",
    400: "The request is invalid, or not allowed in this status. `VALIDATION_ERROR` names every fault.",
    403: "A page of this origin may not do this.",
    404: "No such session.",
    409: "The session is not as expected; `details.current` is how it is.",
    412: "`If-Match` names another version; `details.current` is the session.",
    413: "The body is too large.",
    414: "The URL is too long.",
    415: "The body is not plain JSON.",
    422: "The idempotency key was used for another command.",
    429: "This address does too much; nothing was changed.",
    500: "A fault of the server, logged under the request's id.",
    503: "Temporarily unavailable. Try again with the same idempotency key.",
}


@lru_cache(maxsize=1)
def encoded(app: Flask) -> bytes:
    """Return the document of an application as JSON; it is made once."""
    return orjson.dumps(document(app))


def document(app: Flask) -> dict[str, Any]:
    """Return the OpenAPI document of an application's routes, by tags, and in the order in which they were declared."""
    found = {route: (path, method) for path, method, route in _routes(app)}
    paths: dict[str, dict[str, Any]] = {}
    order = list(TAGS)
    for route, about in sorted(DOCUMENTED.items(), key=lambda each: order.index(each[1].tags[0])):
        if route in found:
            path, method = found[route]
            paths.setdefault(path, {})[method] = _operation(path, route, about)
    used = [about for route, about in DOCUMENTED.items() if route in found]
    schemas = components.schemas(_asked(used)) | components.schemas(_answered(used), "serialization")
    tagged = {tag for about in used for tag in about.tags}
    return {
        "openapi": "3.1.0",
        "info": INFO | {"description": DESCRIPTION},
        "servers": [{"url": "/", "description": "The server that this document came from."}],
        "security": [],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items() if name in tagged],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "headers": HEADERS_IN_DOCUMENT,
            "responses": {f"Error{status}": _failure(status) for status in sorted(_failures(used))},
        },
    }


def _routes(app: Flask) -> list[tuple[str, str, Callable[..., Any]]]:
    return [
        (_PLACE.sub(r"{\1_id}", rule.rule), method.lower(), app.view_functions[rule.endpoint])
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    ]


def _operation(path: str, route: Callable[..., Any], about: Documented) -> dict[str, Any]:
    name = route.__name__
    summary, _, description = (inspect.getdoc(route) or "").partition("\n\n")
    told: list[dict[str, Any]] = [
        {"name": part, "in": "path", "required": True, **PATH[part]} for part in re.findall(r"{(\w+)}", path)
    ]
    told += components.parameters(about.query, "query") if about.query else []
    told += components.parameters(about.headers, "header") if about.headers else []
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": summary.replace("\n", " ").removesuffix("."),
        "description": description.replace("\n", " ") or summary.replace("\n", " "),
        "tags": about.tags,
        "parameters": told,
    }
    if about.json:
        content: dict[str, Any] = {"schema": _ref(about.json), "examples": examples.ASKED[name]}
        operation["requestBody"] = {
            "description": inspect.getdoc(about.json) or "",
            "required": any(field.is_required() for field in about.json.model_fields.values()),
            "content": {"application/json": content},
        }
    operation["responses"] = {str(status): _answer(status, body, name) for status, body in sorted(about.resp.items())}
    return operation


def _answer(status: int, body: Body, name: str) -> dict[str, Any]:
    if body is ErrorAnswer:
        return {"$ref": f"#/components/responses/Error{status}"}
    answer: dict[str, Any] = {"description": MEANING[status], "headers": _headers(status, body)}
    by_type = {"application/json": body} if isinstance(body, type) else dict(body or {})
    if status == 201:
        answer["links"] = LINKS
    if by_type:
        answer["content"] = {
            kind: {
                "schema": {"type": "string"} if model is str else _ref(model),
                "examples": response_examples.answered(name, status, kind),
            }
            for kind, model in by_type.items()
        }
    return answer


def _failure(status: int) -> dict[str, Any]:
    content = {"schema": _ref(ErrorAnswer), "examples": response_examples.FAILURES[status]}
    return {
        "description": MEANING[status],
        "headers": _headers(status, ErrorAnswer),
        "content": {"application/json": content},
    }


def _headers(status: int, body: Any) -> dict[str, Any]:
    by_type = [header for kind in body if kind in OF_TYPE for header in OF_TYPE[kind]] if isinstance(body, dict) else []
    names = ["X-Request-Id"] if status not in (413, 414) else []  # said before the request has an id
    names += [*by_type, *OF_STATUS.get(status, ())]
    if isinstance(body, type):
        names += OF_MODEL.get(body, ())
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _failures(used: list[Documented]) -> set[int]:
    return {status for about in used for status, body in about.resp.items() if body is ErrorAnswer}


def _asked(used: list[Documented]) -> list[type[BaseModel]]:
    return list(dict.fromkeys(about.json for about in used if about.json))


def _answered(used: list[Documented]) -> list[type[BaseModel]]:
    bodies: list[Any] = []
    for about in used:
        for body in about.resp.values():
            bodies += [body] if isinstance(body, type) else (body or {}).values()
    return list(dict.fromkeys(body for body in bodies if body is not str))


def _ref(model: Any) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


HEADERS_IN_DOCUMENT = {name: header | {"required": name in ALWAYS} for name, header in HEADERS.items()}

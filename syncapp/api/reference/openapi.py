"""The OpenAPI document, generated from the routes, the models of requests and the models of responses.

This module has only what models cannot express: tags, response headers, statuses, and the places of the examples.
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

from syncapp.api.reference import components, examples, response_examples, security
from syncapp.api.reference.schemas import (
    DOCUMENTED,
    VERSION,
    Body,
    CommandAnswer,
    Documented,
    ErrorAnswer,
    StateAnswer,
)
from syncapp.domain.commands import COMMANDS
from syncapp.domain.field_types import UUID_PATTERN
from syncapp.domain.validation import Request
from syncapp.errors import ValidationFailed

DESCRIPTION = """Authoritative shared clocks for many clients.

Names that end in `_ms` are whole milliseconds, instants are ms since 1970; names that end in `_at` are ISO 8601 in UTC;
names that end in `_s` are seconds. Whole numbers must not have a fraction (`1`, not `1.0`).

All errors have the same form: `{"error": {"code", "message", "details"}}`.

A server with `AUTH=required` needs a token (JWT): `Authorization: Bearer <token>`. Each operation says which scope.

Besides the responses of each operation, a request can be refused with 405 `METHOD_NOT_ALLOWED`, 408 `REQUEST_TIMEOUT`,
414 `URI_TOO_LONG`, 417 `EXPECTATION_FAILED` and 431 `REQUEST_HEADER_FIELDS_TOO_LARGE`.

`/asyncapi.json` describes `/ws`. docs/protocol.md explains both."""
INFO: dict[str, Any] = {
    "title": "SyncApp",
    "version": VERSION,
    "license": {"name": "MIT License", "identifier": "MIT"},
}
TAGS = {
    "sessions": "Create, read, follow and delete sessions.",
    "commands": "Commands on a session. Each takes effect completely, in one commit, or changes nothing.",
    "links": "Links let people into one session without an account; they need `AUTH=required`.",
    "history": "Queries of the audit log, including deleted and expired sessions. Events arrive after about 0.5 s.",
    "system": "The server's clock, health and audit queue.",
}
PATH = {
    "session_id": {
        "description": "The session's id, a UUID in lower or upper case. Create a session first.",
        "schema": {"type": "string", "format": "uuid", "pattern": UUID_PATTERN},
        "example": examples.SESSION_ID,
    },
    "jti": {
        "description": "The id of the link, 24 characters.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9_-]{24}$"},
        "example": examples.LINK_ID,
    },
}
HEADERS: dict[str, dict[str, Any]] = {
    "ETag": {
        "description": 'The version of the session in the response: `"<epoch>-<version>"`.',
        "schema": {"type": "string", "pattern": '^"[0-9]+-[0-9]+"$'},
    },
    "Location": {"description": "Path of what was created.", "schema": {"type": "string", "format": "uri-reference"}},
    "Idempotency-Replayed": {
        "description": "Present if the command was already executed with the same idempotency key.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "Preference-Applied": {
        "description": "Present if the response leaves out the state.",
        "schema": {"type": "string", "enum": ["return=minimal"]},
    },
    "Content-Disposition": {"description": "A name for the file.", "schema": {"type": "string"}},
    "Retry-After": {"description": "Seconds to wait before a retry.", "schema": {"type": "integer", "minimum": 0}},
    "WWW-Authenticate": {
        "description": "`Bearer`, and what is wrong with the token (RFC 6750, section 3).",
        "schema": {"type": "string"},
    },
    "RateLimit-Policy": {
        "description": "With `AUTH=required`, the limits of session and principal: `q` commands in `w` seconds.",
        "schema": {"type": "string"},
        "example": '"session";q=40;w=2, "principal";q=200;w=2',
    },
    "RateLimit": {
        "description": "How many commands each of them allows now (`r`), and in how many seconds it allows more (`t`).",
        "schema": {"type": "string"},
        "example": '"session";r=39;t=1, "principal";r=199;t=1',
    },
    "X-Request-Id": {
        "description": "The id that the request is logged under.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"},
    },
}
ALWAYS = {"X-Request-Id", "ETag", "Location", "Retry-After", "Content-Disposition", "WWW-Authenticate"}
"""Headers that a response always has if they are documented for it."""
OF_MODEL: dict[Any, tuple[str, ...]] = {
    StateAnswer: ("ETag",),
    CommandAnswer: ("ETag", "Idempotency-Replayed", "Preference-Applied", "RateLimit-Policy", "RateLimit"),
}
OF_TYPE = {"text/csv": ("Content-Disposition",)}
OF_STATUS: dict[int, tuple[str, ...]] = {
    201: ("Location",),
    204: ("Idempotency-Replayed", "RateLimit-Policy", "RateLimit"),
    304: ("ETag",),
    401: ("WWW-Authenticate",),
    429: ("Retry-After", "RateLimit-Policy", "RateLimit"),
    503: ("Retry-After",),
}
LINKS = {
    name: {
        "operationId": name,
        "description": "Uses the new session's id.",
        "parameters": {"session_id": "$response.body#/data/session_id"},
    }
    for name in ("read", *(name for name in COMMANDS if name != "create"))
}
_PLACE = re.compile(r"<(\w+)>")
MEANING: dict[int, str] = {
    200: "Success.",
    201: "Created.",
    204: "Deleted, or did not exist.",
    304: "No other version within the waiting time; no body.",
    400: "The request is invalid, or not allowed in the session's status. `VALIDATION_ERROR` lists all faults.",
    401: "There is no token, or it is not valid; `WWW-Authenticate` says which.",
    403: "The token does not allow this, or pages of this origin may not do this.",
    404: "No such session.",
    409: "The session is not in the expected version or state; `details.current` is the current state.",
    412: "`If-Match` names another version; `details.current` is the current state.",
    413: "The body is too large.",
    414: "The URL is too long.",
    415: "The body is not JSON, or it is encoded.",
    422: "The idempotency key was used for another command.",
    429: "A limit of the address, the session, the principal or the tenant is exceeded; nothing was changed.",
    500: "A fault of the server, logged under the request's id.",
    501: "This server signs no tokens: `AUTH_SECRETS` is not set, or `AUTH` is `off`.",
    503: "Temporarily unavailable. Retry with the same idempotency key.",
}


@lru_cache(maxsize=1)
def encoded(app: Flask) -> bytes:
    """Return an application's document as JSON; it is generated once."""
    return orjson.dumps(document(app))


def document(app: Flask) -> dict[str, Any]:
    """Return the OpenAPI document of an application's routes, ordered by tag, then by declaration."""
    found = {route: (path, method, endpoint) for path, method, route, endpoint in _routes(app)}
    needs_tokens = app.extensions["syncapp"].authenticator.required
    paths: dict[str, dict[str, Any]] = {}
    order = list(TAGS)
    for route, doc in sorted(DOCUMENTED.items(), key=lambda each: order.index(each[1].tags[0])):
        if route in found:
            path, method, endpoint = found[route]
            operation = _operation(path, route, doc)
            operation["description"] += security.sentence(endpoint)
            if needs_tokens:
                operation["security"] = security.requirement(endpoint)
            paths.setdefault(path, {})[method] = operation
    used = [doc for route, doc in DOCUMENTED.items() if route in found]
    schemas = components.schemas(_request_models(used)) | components.schemas(_response_models(used), "serialization")
    tagged = {tag for doc in used for tag in doc.tags}
    return {
        "openapi": "3.1.0",
        "info": INFO | {"description": DESCRIPTION},
        "servers": [{"url": "/", "description": "The server of this document."}],
        "security": [],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items() if name in tagged],
        "paths": paths,
        "components": {
            "schemas": dict(sorted(schemas.items())),
            "headers": HEADERS_IN_DOCUMENT,
            "responses": {f"Error{status}": _failure(status) for status in sorted(_failures(used))},
            **({"securitySchemes": security.SCHEMES} if needs_tokens else {}),
        },
    }


def _routes(app: Flask) -> list[tuple[str, str, Callable[..., Any], str]]:
    return [
        (
            _PLACE.sub(r"{\1}", rule.rule.replace("<session>", "<session_id>")),
            method.lower(),
            app.view_functions[rule.endpoint],
            rule.endpoint,
        )
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    ]


def _operation(path: str, route: Callable[..., Any], doc: Documented) -> dict[str, Any]:
    name = route.__name__
    summary, _, description = (inspect.getdoc(route) or "").partition("\n\n")
    parameters: list[dict[str, Any]] = [
        {"name": part, "in": "path", "required": True, **PATH[part]} for part in re.findall(r"{(\w+)}", path)
    ]
    parameters += components.parameters(doc.query, "query") if doc.query else []
    parameters += components.parameters(doc.headers, "header") if doc.headers else []
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": summary.replace("\n", " ").removesuffix("."),
        "description": description.replace("\n", " ") or summary.replace("\n", " "),
        "tags": doc.tags,
        "parameters": parameters,
    }
    if doc.json:
        content: dict[str, Any] = {"schema": _ref(doc.json), "examples": examples.REQUEST_BODIES[name]}
        operation["requestBody"] = {
            "description": inspect.getdoc(doc.json) or "",
            "required": not _may_be_empty(doc.json),
            "content": {"application/json": content},
        }
    operation["responses"] = {str(status): _response(status, body, name) for status, body in sorted(doc.resp.items())}
    return operation


def _may_be_empty(body: type[Request]) -> bool:
    try:
        body.parse({})
    except ValidationFailed:
        return False
    return True


def _response(status: int, body: Body, name: str) -> dict[str, Any]:
    if body is ErrorAnswer:
        return {"$ref": f"#/components/responses/Error{status}"}
    answer: dict[str, Any] = {"description": MEANING[status], "headers": _headers(status, body)}
    by_type = {"application/json": body} if isinstance(body, type) else dict(body or {})
    if status == 201 and name == "create":
        answer["links"] = LINKS
    if by_type:
        answer["content"] = {
            kind: {
                "schema": {"type": "string"} if model is str else _ref(model),
                "examples": response_examples.for_response(name, status, kind),
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
    names = ["X-Request-Id"] if status not in (413, 414) else []  # these may be sent before the request has an id
    names += [*by_type, *OF_STATUS.get(status, ())]
    if isinstance(body, type):
        names += OF_MODEL.get(body, ())
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def _failures(used: list[Documented]) -> set[int]:
    return {status for doc in used for status, body in doc.resp.items() if body is ErrorAnswer}


def _request_models(used: list[Documented]) -> list[type[BaseModel]]:
    return list(dict.fromkeys(doc.json for doc in used if doc.json))


def _response_models(used: list[Documented]) -> list[type[BaseModel]]:
    bodies: list[Any] = []
    for doc in used:
        for body in doc.resp.values():
            bodies += [body] if isinstance(body, type) else (body or {}).values()
    return list(dict.fromkeys(body for body in bodies if body is not str))


def _ref(model: Any) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{model.__name__}"}


HEADERS_IN_DOCUMENT = {name: header | {"required": name in ALWAYS} for name, header in HEADERS.items()}

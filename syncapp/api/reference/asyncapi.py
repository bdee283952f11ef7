"""The AsyncAPI document, generated from the models of the WebSocket messages and the tables that the code uses."""

from __future__ import annotations

import inspect
from typing import Any

from flask import Blueprint, Response, request
from orjson import dumps
from pydantic import BaseModel

from syncapp.api.reference import components
from syncapp.api.reference.message_examples import EXAMPLES
from syncapp.api.reference.messages import RECEIVED, SENT
from syncapp.api.reference.openapi import INFO, TAGS
from syncapp.api.reference.parameters import StreamQuery
from syncapp.errors import ValidationFailed
from syncapp.realtime.protocol import Close, Outgoing

blueprint = Blueprint("asyncapi", __name__)

VERSIONS = ("3.1.0", "3.0.0")
"""Newest first. Modelina 5.10 silently generates nothing from 3.1."""
_OF_CONNECTION = components.parameters(StreamQuery, "query")
_ANSWERS = (Outgoing.ACK, Outgoing.AUTHENTICATED, Outgoing.PONG, Outgoing.SUBSCRIBED, Outgoing.UNSUBSCRIBED)
_STREAMED = [each for each in Outgoing if each not in _ANSWERS]
_OVER_SOCKETS = [each for each in Outgoing if each is not Outgoing.HEARTBEAT]


SECURITY: dict[str, dict[str, str]] = {
    "header": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "With AUTH=required: a token in the header Authorization of the request.",
    },
    "query": {
        "type": "httpApiKey",
        "name": "token",
        "in": "query",
        "description": "With AUTH=required: a token in the query. A WebSocket may send it in AUTH instead.",
    },
}
"""How a client authenticates. With `AUTH=off`, it does not have to."""


def document(version: str = VERSIONS[0]) -> dict[str, Any]:
    """Return the AsyncAPI document; its content is the same in both versions."""
    models: dict[str, type[BaseModel]] = {str(name): model for name, model in [*SENT.items(), *RECEIVED.items()]}
    schemas = components.schemas(models.values())
    return {
        "asyncapi": version,
        "info": {
            **{name: value for name, value in INFO.items() if name != "license"},
            "license": {"name": INFO["license"]["name"]},
            "description": "The messages that clients of a session receive and may send; docs/protocol.md explains "
            "them. Times in ms are whole milliseconds; instants are ms since 1970.",
            "tags": [{"name": "sessions", "description": TAGS["sessions"]}],
        },
        "servers": {name: _server(protocol) for name, protocol in (("encrypted", "wss"), ("plain", "ws"))},
        "defaultContentType": "application/json",
        "channels": {
            "session": {
                "address": "/ws",
                "title": "WebSocket",
                "description": "A WebSocket for one or more sessions. Each text frame holds one JSON object.",
                "messages": {name: _ref("components/messages", name) for name in map(str, [*_OVER_SOCKETS, *RECEIVED])},
                "bindings": {"ws": {"method": "GET", "query": _query()}},
                "x-close-codes": {str(int(code)): code.name for code in Close},
            },
            "stream": {
                "address": "/v1/sessions/{sessionId}/stream",
                "title": "Server-sent events",
                "description": "The same messages as server-sent events over HTTP; each event's `data` is one message.",
                "parameters": {"sessionId": {"description": "The session, a UUID."}},
                "messages": {name: _ref("components/messages", name) for name in map(str, _STREAMED)},
            },
        },
        "operations": {
            **{f"session{name}": _operation("send", "session", name, models) for name in map(str, _OVER_SOCKETS)},
            **{f"session{name}": _operation("receive", "session", name, models) for name in map(str, RECEIVED)},
            **{f"stream{name}": _operation("send", "stream", name, models) for name in map(str, _STREAMED)},
        },
        "components": {
            "messages": {name: _message(name, model) for name, model in models.items()},
            "schemas": dict(sorted(schemas.items())),
            "securitySchemes": SECURITY,
        },
    }


@blueprint.get("/asyncapi.json")
def asyncapi() -> Response:
    """Return the AsyncAPI document in version 3.1.0, or in the one that `version` names. Raises `ValidationFailed`."""
    version = request.args.get("version", VERSIONS[0])
    if version not in VERSIONS:
        raise ValidationFailed.of("version", f"must be one of {', '.join(VERSIONS)}", "version")
    return Response(dumps(document(version)), headers={"Cache-Control": "no-cache"}, content_type="application/json")


def _server(protocol: str) -> dict[str, Any]:
    here = {"default": "localhost:8000", "description": "The server of this document: host, and port if there is one."}
    return {
        "host": "{host}",
        "protocol": protocol,
        "description": f"The server of this document, over {protocol}.",
        "variables": {"host": here},
        "security": [_ref("components/securitySchemes", name) for name in SECURITY],
    }


def _query() -> dict[str, Any]:
    session = {"type": "string", "format": "uuid", "description": "The first session to watch, a UUID."}
    fields = {part["name"]: part["schema"] | {"description": part["description"]} for part in _OF_CONNECTION}
    token = {"type": "string", "description": "A token, where a client cannot set headers; needed with AUTH=required."}
    return {"type": "object", "properties": {"sessionId": session, **fields, "token": token}}


def _message(name: str, model: type[BaseModel]) -> dict[str, Any]:
    text = inspect.getdoc(model) or ""
    return {
        "name": name,
        "title": name,
        "summary": text.split("\n\n", maxsplit=1)[0],
        "description": text,
        "contentType": "application/json",
        "payload": _ref("components/schemas", model.__name__),
        "examples": [
            {"name": f"{name}{number}", "summary": summary, "payload": payload}
            for number, (summary, payload) in enumerate(EXAMPLES[name], 1)
        ],
    }


def _operation(action: str, channel: str, name: str, models: dict[str, type[BaseModel]]) -> dict[str, Any]:
    senders = {"send": "The server sends", "receive": "A client sends"}
    text = (inspect.getdoc(models[name]) or "").split("\n\n", maxsplit=1)[0]
    return {
        "action": action,
        "title": f"{senders[action]} {name}",
        "summary": f"{senders[action]} `{name}`.",
        "description": text,
        "channel": _ref("channels", channel),
        "messages": [_ref(f"channels/{channel}/messages", name)],
    }


def _ref(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/{kind}/{name}"}

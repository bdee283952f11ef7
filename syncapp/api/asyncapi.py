"""The AsyncAPI document: made from the models of what goes over a WebSocket and the tables that the code goes by."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Literal

from flask import Blueprint, Response, request
from orjson import dumps
from pydantic import BaseModel, Field

from syncapp.admission import TooManyConnections
from syncapp.api import components
from syncapp.api.message_examples import EXAMPLES
from syncapp.api.openapi import INFO, TAGS
from syncapp.api.parameters import StreamQuery
from syncapp.api.schema import (
    Answer,
    Clock,
    Completion,
    Epoch,
    Event,
    Instant,
    State,
    Status,
    Uuid,
    Version,
    absent,
)
from syncapp.errors import (
    BY_WORD,
    InternalError,
    InvalidJson,
    RateLimited,
    SessionNotFound,
    StoreUnavailable,
    SyncError,
    TooManySubscriptions,
    ValidationFailed,
)
from syncapp.protocol import Asked, Close, Command, Echo, Number, Ping, Reconnect, Subscribe, Told, Unsubscribe

blueprint = Blueprint("asyncapi", __name__)

VERSIONS = ("3.1.0", "3.0.0")
"""The newest first; Modelina 5.10 makes nothing of 3.1, and does not say so."""
_ERRORS: list[type[SyncError]] = [
    *BY_WORD.values(),
    *(InternalError, InvalidJson, RateLimited, SessionNotFound, StoreUnavailable, ValidationFailed),
    *(TooManyConnections, TooManySubscriptions),
]
ERROR_CODES = sorted({error.code for error in _ERRORS})
"""What an `ERROR` may carry."""
SessionOrNone = Annotated[
    Uuid | None, Field(description="The session that it is about; null when it is about none, or only the connection.")
]


class ServerMessage(Answer):
    """What every message of the server has."""

    type: Told = Field(description="What kind of message this is.")
    sessionId: Uuid = Field(description="The session that it is about.")  # noqa: N815 - the protocol's name
    timestamp: int = Field(ge=0, description="The server's time when the message was made, in ms since 1970.")


class Connected(ServerMessage):
    """Where a session is now: on connect, after `SUBSCRIBED`, and in answer to `RECONNECT`.

    `epoch` and `version` are null while there is no session; all are on a connection that was opened for none.
    """

    type: Literal[Told.CONNECTED] = Field(description="What kind of message this is.")
    sessionId: SessionOrNone  # type: ignore[assignment]  # noqa: N815 - null: the connection has none of its own
    epoch: Epoch | None = Field(description="The session's epoch; null while there is no session.")
    version: Version | None = Field(description="The session's version; null while there is no session.")


class StateSync(ServerMessage):
    """A whole state: after `CONNECTED`, and whenever versions were left out."""

    type: Literal[Told.STATE_SYNC] = Field(description="What kind of message this is.")
    state: State = Field(description="The state; its clock is true for `timestamp`.")


class StateUpdate(ServerMessage):
    """A commit, and the state after it."""

    type: Literal[Told.STATE_UPDATE] = Field(description="What kind of message this is.")
    epoch: Epoch
    version: Version
    event: Event = Field(description="What the commit was.")
    state: State = Field(description="The state after it; its clock is true for `timestamp`.")


class ParticipantPatch(Answer):
    """What is merged into a participant."""

    time_used_ms: int = Field(ge=0, description="Time charged so far, in ms.")
    time_remaining_ms: int | None = Field(description="What is left of the budget, in ms; null without one.")
    cycle_count: int = Field(ge=0, description="Cycles that this participant has ended.")
    is_active: bool = Field(description="Whether it is this participant's turn.")
    has_expired: bool = Field(description="Whether the budget has run out.")


class GroupPatch(Answer):
    """What is merged into a group."""

    time_used_ms: int = Field(ge=0, description="Time charged so far, in ms.")
    time_remaining_ms: int = Field(description="What is left of the budget, in ms; negative in overtime.")
    has_expired: bool = Field(description="Whether the budget has run out.")


class Patch(Answer):
    """What a commit changed; docs/protocol.md says how to fold it. What did not change is absent."""

    version: Version
    updated_at: Instant = Field(description="When the commit took effect.")
    idle_at: Instant | None = Field(default=None, description="When the session would be cancelled as idle.")
    status: Status | None = absent("The new status.")
    active_participant_id: str | None = Field(default=None, description="Whose turn it is now; null for nobody's.")
    cycle_count: int | None = absent("Cycles that have ended.", ge=0)
    time_used_ms: int | None = absent("Settled running time, in ms.", ge=0)
    time_remaining_ms: int | None = Field(default=None, description="What is left of the session's budget, in ms.")
    cycle_started_at: Instant | None = Field(default=None, description="When this run began; null while nothing runs.")
    session_started_at: Instant | None = Field(default=None, description="When the session was started.")
    session_completed_at: Instant | None = Field(default=None, description="When the session ended.")
    metadata: dict[str, Any] | None = absent("The caller's own document, as a whole.")
    completion: Completion | None = absent("What a `complete` told, if it told anything.")
    participants: dict[str, ParticipantPatch] | None = absent("What is merged into participants, by id.")
    groups: dict[str, GroupPatch] | None = absent("What is merged into groups, by id.")


class StatePatch(ServerMessage):
    """A commit, and what it changed; instead of `STATE_UPDATE` with `format=patch`."""

    type: Literal[Told.STATE_PATCH] = Field(description="What kind of message this is.")
    epoch: Epoch
    version: Version
    event: Event = Field(description="What the commit was.")
    patch: Patch = Field(description="What it changed; always follows on the version before.")
    clock: Clock = Field(description="The clock after it, true for `timestamp`.")


class SessionDeleted(ServerMessage):
    """The session was deleted; the server closes with 1000."""

    type: Literal[Told.SESSION_DELETED] = Field(description="What kind of message this is.")
    epoch: Epoch
    version: Version
    event: Event = Field(description="What the commit was.")


class Ack(ServerMessage):
    """A `COMMAND` has taken effect; a delete's has no epoch and version."""

    type: Literal[Told.ACK] = Field(description="What kind of message this is.")
    id: Echo = Field(description="The `id` of the `COMMAND`.")
    epoch: int | None = absent("The epoch after the command.", ge=1)
    version: int | None = absent("The version after the command.", ge=1)
    replayed: Literal[True] | None = absent("The command was already executed under the same idempotency key.")
    expired_participant_id: str | None = absent("Who was found to have run out of time.")


class Subscribed(ServerMessage):
    """Answer to `SUBSCRIBE`; `CONNECTED` and the state follow."""

    type: Literal[Told.SUBSCRIBED] = Field(description="What kind of message this is.")
    id: Echo = Field(default=None, description="The `id` of the `SUBSCRIBE`, if it had one.")


class Unsubscribed(ServerMessage):
    """Answer to `UNSUBSCRIBE`: nothing more is told of the session."""

    type: Literal[Told.UNSUBSCRIBED] = Field(description="What kind of message this is.")
    id: Echo = Field(default=None, description="The `id` of the `UNSUBSCRIBE`, if it had one.")


class Pong(ServerMessage):
    """Answer to `PING`, before anything else that waits."""

    type: Literal[Told.PONG] = Field(description="What kind of message this is.")
    sessionId: SessionOrNone  # type: ignore[assignment]  # noqa: N815 - null: the connection has none of its own
    t0: Number = Field(default=None, description="The `t0` of the `PING`, as it was, if it had one.")
    client_timestamp: Number = Field(default=None, description="The `timestamp` of the `PING`, if it had one.")


class Heartbeat(ServerMessage):
    """The server is there: on a stream only, every `STREAM_HEARTBEAT_S`, as an event named `heartbeat`."""

    type: Literal[Told.HEARTBEAT] = Field(description="What kind of message this is.")


class ErrorMessage(ServerMessage):
    """Something was refused, or there is no state to show; with the `id` of the `COMMAND` that it answers."""

    type: Literal[Told.ERROR] = Field(description="What kind of message this is.")
    sessionId: SessionOrNone  # type: ignore[assignment]  # noqa: N815 - null: the connection has none of its own
    id: Echo = Field(default=None, description="The `id` of the message that it answers, if that had one.")
    code: str = Field(
        description="The kind of failure, for programs.", json_schema_extra={"enum": list[Any](ERROR_CODES)}
    )
    message: str = Field(description="What is wrong, in an English sentence.")
    details: Any = Field(default=None, description="More for programs, as over REST; absent when there is none.")


SENT: dict[Told, type[ServerMessage]] = {
    Told.CONNECTED: Connected,
    Told.STATE_SYNC: StateSync,
    Told.STATE_UPDATE: StateUpdate,
    Told.STATE_PATCH: StatePatch,
    Told.SESSION_DELETED: SessionDeleted,
    Told.ACK: Ack,
    Told.SUBSCRIBED: Subscribed,
    Told.UNSUBSCRIBED: Unsubscribed,
    Told.PONG: Pong,
    Told.HEARTBEAT: Heartbeat,
    Told.ERROR: ErrorMessage,
}
RECEIVED: dict[Asked, type[BaseModel]] = {
    Asked.PING: Ping,
    Asked.RECONNECT: Reconnect,
    Asked.COMMAND: Command,
    Asked.SUBSCRIBE: Subscribe,
    Asked.UNSUBSCRIBE: Unsubscribe,
}
_OF_CONNECTION = components.parameters(StreamQuery, "query")
_STREAMED = [each for each in Told if each not in (Told.ACK, Told.PONG, Told.SUBSCRIBED, Told.UNSUBSCRIBED)]
_OVER_SOCKETS = [each for each in Told if each is not Told.HEARTBEAT]


def document(version: str = VERSIONS[0]) -> dict[str, Any]:
    """Return the AsyncAPI document; nothing in it is new in 3.1."""
    models: dict[str, type[BaseModel]] = {str(name): model for name, model in [*SENT.items(), *RECEIVED.items()]}
    schemas = components.schemas(models.values())
    return {
        "asyncapi": version,
        "info": {
            **{name: value for name, value in INFO.items() if name != "license"},
            "license": {"name": INFO["license"]["name"]},
            "description": "What a client of a session is told, and may ask. docs/protocol.md says it in sentences. "
            "Times in ms are whole milliseconds, instants since 1970.",
            "tags": [{"name": "sessions", "description": TAGS["sessions"]}],
        },
        "servers": {name: _server(protocol) for name, protocol in (("encrypted", "wss"), ("plain", "ws"))},
        "defaultContentType": "application/json",
        "channels": {
            "session": {
                "address": "/ws",
                "title": "WebSocket",
                "description": "A WebSocket for one session or many; text frames, one JSON object each.",
                "messages": {name: _ref("components/messages", name) for name in map(str, [*_OVER_SOCKETS, *RECEIVED])},
                "bindings": {"ws": {"method": "GET", "query": _query()}},
                "x-close-codes": {str(int(code)): code.name for code in Close},
            },
            "stream": {
                "address": "/v1/sessions/{sessionId}/stream",
                "title": "Server-sent events",
                "description": "The same messages as server-sent events, each as the `data` of one, over HTTP.",
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
        },
    }


@blueprint.get("/asyncapi.json")
def asyncapi() -> Response:
    """Return the AsyncAPI document, of the version that the tool of the caller knows. Raises `ValidationFailed`."""
    version = request.args.get("version", VERSIONS[0])
    if version not in VERSIONS:
        raise ValidationFailed.of("version", f"must be one of {', '.join(VERSIONS)}", "version")
    return Response(dumps(document(version)), headers={"Cache-Control": "no-cache"}, content_type="application/json")


def _server(protocol: str) -> dict[str, Any]:
    here = {"default": "localhost:8000", "description": "Where this document came from: host, and port if any."}
    return {
        "host": "{host}",
        "protocol": protocol,
        "description": f"The server that this document came from, by {protocol}.",
        "variables": {"host": here},
    }


def _query() -> dict[str, Any]:
    session = {"type": "string", "format": "uuid", "description": "The first session to watch, a UUID."}
    fields = {part["name"]: part["schema"] | {"description": part["description"]} for part in _OF_CONNECTION}
    return {"type": "object", "properties": {"sessionId": session, **fields}}


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
    ways = {"send": "The server sends", "receive": "A client sends"}
    text = (inspect.getdoc(models[name]) or "").split("\n\n", maxsplit=1)[0]
    return {
        "action": action,
        "title": f"{ways[action]} {name}",
        "summary": f"{ways[action]} `{name}`.",
        "description": text,
        "channel": _ref("channels", channel),
        "messages": [_ref(f"channels/{channel}/messages", name)],
    }


def _ref(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/{kind}/{name}"}

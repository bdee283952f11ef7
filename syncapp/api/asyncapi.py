"""The AsyncAPI document: made from the models of what goes over a WebSocket and the tables that the code goes by."""

from __future__ import annotations

from typing import Any, Literal

from flask import Blueprint, Response
from orjson import dumps
from pydantic import BaseModel, Field
from pydantic.json_schema import models_json_schema

from syncapp.api.parameters import StreamQuery
from syncapp.api.schema import (
    VERSION,
    Answer,
    Clock,
    Completion,
    Event,
    Instant,
    State,
)
from syncapp.errors import (
    BY_WORD,
    InternalError,
    InvalidJson,
    RateLimited,
    SessionNotFound,
    StoreUnavailable,
    SyncError,
    ValidationFailed,
)
from syncapp.protocol import Asked, Close, Command, Echo, Number, Ping, Reconnect, Told

blueprint = Blueprint("asyncapi", __name__)

_ERRORS: list[type[SyncError]] = [
    *BY_WORD.values(),
    *(InternalError, InvalidJson, RateLimited, SessionNotFound, StoreUnavailable, ValidationFailed),
]
ERROR_CODES = sorted({error.code for error in _ERRORS})
"""What an `ERROR` may carry."""


class ServerMessage(Answer):
    """What every message of the server has; `timestamp` is the server's time in ms when it was made."""

    type: Told
    sessionId: str  # noqa: N815 - the protocol's name
    timestamp: int


class Connected(ServerMessage):
    """Where the session is now: on connect, and in answer to `RECONNECT`. Both are null while there is no session."""

    type: Literal[Told.CONNECTED]
    epoch: int | None
    version: int | None


class StateSync(ServerMessage):
    """A whole state: after `CONNECTED`, and whenever versions were left out."""

    type: Literal[Told.STATE_SYNC]
    state: State


class StateUpdate(ServerMessage):
    """A commit, and the state after it."""

    type: Literal[Told.STATE_UPDATE]
    epoch: int
    version: int
    event: Event
    state: State


class ParticipantPatch(Answer):
    """What is merged into a participant."""

    time_used_ms: int
    time_remaining_ms: int | None
    cycle_count: int
    is_active: bool
    has_expired: bool


class GroupPatch(Answer):
    """What is merged into a group."""

    time_used_ms: int
    time_remaining_ms: int
    has_expired: bool


class Patch(Answer):
    """What a commit changed; docs/protocol.md says how to fold it."""

    version: int
    updated_at: Instant
    idle_at: Instant | None = None
    status: Literal["pending", "running", "paused", "completed", "expired", "cancelled"] = "pending"
    active_participant_id: str | None = None
    cycle_count: int = 0
    time_used_ms: int = 0
    time_remaining_ms: int | None = None
    cycle_started_at: Instant | None = None
    session_started_at: Instant | None = None
    session_completed_at: Instant | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    completion: Completion = Field(default_factory=Completion)
    participants: dict[str, ParticipantPatch] = Field(default_factory=dict, description="By id.")
    groups: dict[str, GroupPatch] = Field(default_factory=dict, description="By id.")


class StatePatch(ServerMessage):
    """A commit, and what it changed; instead of `STATE_UPDATE` with `format=patch`."""

    type: Literal[Told.STATE_PATCH]
    epoch: int
    version: int
    event: Event
    patch: Patch
    clock: Clock


class SessionDeleted(ServerMessage):
    """The session was deleted; the server closes with 1000."""

    type: Literal[Told.SESSION_DELETED]
    epoch: int
    version: int
    event: Event


class Ack(ServerMessage):
    """A `COMMAND` has taken effect; a delete's has no epoch and version."""

    type: Literal[Told.ACK]
    id: Echo
    epoch: int = 0
    version: int = 0
    replayed: Literal[True] | None = Field(
        default=None, description="The command was already executed under the same idempotency key."
    )
    expired_participant_id: str | None = Field(default=None, description="Who was found to have run out of time.")


class Pong(ServerMessage):
    """Answer to `PING`, before anything else that waits."""

    type: Literal[Told.PONG]
    t0: Number = None
    client_timestamp: Number = None


class ErrorMessage(ServerMessage):
    """Something was refused, or there is no state to show; with the `id` of the `COMMAND` that it answers."""

    type: Literal[Told.ERROR]
    id: Echo = None
    code: str = Field(json_schema_extra={"enum": list[Any](ERROR_CODES)})
    message: str
    details: Any = None


SENT: dict[Told, type[ServerMessage]] = {
    Told.CONNECTED: Connected,
    Told.STATE_SYNC: StateSync,
    Told.STATE_UPDATE: StateUpdate,
    Told.STATE_PATCH: StatePatch,
    Told.SESSION_DELETED: SessionDeleted,
    Told.ACK: Ack,
    Told.PONG: Pong,
    Told.ERROR: ErrorMessage,
}
RECEIVED: dict[Asked, type[BaseModel]] = {Asked.PING: Ping, Asked.RECONNECT: Reconnect, Asked.COMMAND: Command}
_STREAMED = (Told.CONNECTED, Told.STATE_SYNC, Told.STATE_UPDATE, Told.STATE_PATCH, Told.SESSION_DELETED, Told.ERROR)


def document() -> dict[str, Any]:
    """Return the AsyncAPI 3.0 document."""
    models: dict[str, type[BaseModel]] = {str(name): model for name, model in [*SENT.items(), *RECEIVED.items()]}
    described: list[type[BaseModel]] = [*models.values(), StreamQuery]
    _, found = models_json_schema(
        [(model, "validation") for model in described],
        ref_template="#/components/schemas/{model}",
    )
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "SyncApp",
            "version": VERSION,
            "description": "What a client of a session is told, and may ask. docs/protocol.md says it in sentences.",
        },
        "defaultContentType": "application/json",
        "channels": {
            "session": {
                "address": "/ws",
                "description": "A WebSocket for one session; text frames, one JSON object each.",
                "messages": {name: _ref("messages", name) for name in models},
                "bindings": {"ws": {"method": "GET", "query": _query(found["$defs"]["StreamQuery"])}},
                "x-close-codes": {str(int(code)): code.name for code in Close},
            },
            "stream": {
                "address": "/v1/sessions/{sessionId}/stream",
                "description": "The same messages as server-sent events, each as the `data` of one.",
                "parameters": {"sessionId": {"description": "The session, a UUID."}},
                "messages": {name: _ref("messages", name) for name in map(str, _STREAMED)},
            },
        },
        "operations": {
            **{f"session{name}": _operation("send", "session", name) for name in map(str, SENT)},
            **{f"session{name}": _operation("receive", "session", name) for name in map(str, RECEIVED)},
            **{f"stream{name}": _operation("send", "stream", name) for name in map(str, _STREAMED)},
        },
        "components": {
            "messages": {
                name: {"name": name, "summary": model.__doc__, "payload": _ref("schemas", model.__name__)}
                for name, model in models.items()
            },
            "schemas": found["$defs"],
        },
    }


@blueprint.get("/asyncapi.json")
def asyncapi() -> Response:
    """Return the AsyncAPI document."""
    return Response(dumps(document()), headers={"Cache-Control": "no-cache"}, content_type="application/json")


def _query(schema: dict[str, Any]) -> dict[str, Any]:
    session = {"sessionId": {"type": "string", "format": "uuid"}}
    return {"type": "object", "required": ["sessionId"], "properties": session | schema["properties"]}


def _operation(action: str, channel: str, name: str) -> dict[str, Any]:
    ref = {"$ref": f"#/channels/{channel}"}
    return {"action": action, "channel": ref, "messages": [{"$ref": f"#/channels/{channel}/messages/{name}"}]}


def _ref(kind: str, name: str) -> dict[str, str]:
    return {"$ref": f"#/components/{kind}/{name}"}

"""What goes over a WebSocket: message types, close codes, frames. `docs/protocol.md` describes it to clients."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from syncapp.domain.commands import COMMANDS, CREATE
from syncapp.domain.field_types import IDEMPOTENCY_KEY_PATTERN, SessionId
from syncapp.domain.results import Claim, Result
from syncapp.domain.schemas import CommandBody
from syncapp.domain.strict_json import decode
from syncapp.domain.validation import Request
from syncapp.errors import SyncError, ValidationFailed

_MOST_DETAILS = 20
_LONGEST_ECHO = 128


class Outgoing(StrEnum):
    """What the server sends."""

    CONNECTED = "CONNECTED"
    STATE_SYNC = "STATE_SYNC"
    STATE_UPDATE = "STATE_UPDATE"
    STATE_PATCH = "STATE_PATCH"
    SESSION_DELETED = "SESSION_DELETED"
    ACK = "ACK"
    SUBSCRIBED = "SUBSCRIBED"
    UNSUBSCRIBED = "UNSUBSCRIBED"
    PONG = "PONG"
    HEARTBEAT = "HEARTBEAT"
    ERROR = "ERROR"


class Incoming(StrEnum):
    """What a client may send."""

    PING = "PING"
    RECONNECT = "RECONNECT"
    COMMAND = "COMMAND"
    SUBSCRIBE = "SUBSCRIBE"
    UNSUBSCRIBE = "UNSUBSCRIBE"


class Close(IntEnum):
    """Why the server closes a connection."""

    DONE = 1000
    PROTOCOL_ERROR = 1002
    NOT_TEXT = 1003
    BAD_TEXT = 1007
    ABUSE = 1008
    TOO_BIG = 1009
    FAULT = 1011
    RESTART = 1012
    TOO_SLOW = 1013
    SILENT = 4408


def _number(value: Any) -> int | float:
    if type(value) not in (int, float):
        raise PydanticCustomError("number", "must be a number")
    number: int | float = value
    return number


def _id(value: Any) -> str | int:
    if not (type(value) is int or (isinstance(value, str) and 1 <= len(value) <= _LONGEST_ECHO)):
        raise PydanticCustomError("id", f"must be a whole number, or 1 to {_LONGEST_ECHO} characters")
    found: str | int = value
    return found


def _command(name: str) -> str:
    if name not in COMMANDS:
        raise PydanticCustomError("unknown_command", f"must be one of {', '.join(COMMANDS)}")
    return name


Number = Annotated[Any, AfterValidator(_number), WithJsonSchema({"type": "number"})]
Echo = Annotated[
    Any,
    AfterValidator(_id),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string", "minLength": 1, "maxLength": _LONGEST_ECHO}]}),
]
Ordinal = Annotated[int, Field(ge=0, le=2**53)]
CommandName = Annotated[str, AfterValidator(_command), Field(json_schema_extra={"enum": list(COMMANDS)})]


class Ping(Request):
    """Heartbeat, and measure of the clock's offset; `t0` is the client's own time and comes back as it was.

    `timestamp` is the same for clients that stamp every message; it comes back as `client_timestamp`.
    """

    type: Literal[Incoming.PING] = Field(description="What kind of message this is.")
    t0: Number = Field(default=None, description="The client's own time, in ms of any clock.")
    timestamp: Number = Field(default=None, description="The client's own time, in ms of any clock.")


class Reconnect(Request):
    """Ask for the state, unless it is the one that the client names; `session_id` is the connection's unless given."""

    type: Literal[Incoming.RECONNECT] = Field(description="What kind of message this is.")
    session_id: SessionId | None = Field(default=None, description="The session; the connection's own unless given.")
    epoch: Ordinal | None = Field(default=None, description="The epoch that the client knows, with `version`.")
    version: Ordinal | None = Field(default=None, description="The version that the client knows, with `epoch`.")

    def known(self) -> tuple[int, int]:
        """Return the order that the client says it knows. Raises `ValidationFailed` for half of one."""
        if (self.epoch is None) != (self.version is None):
            name = "epoch" if self.epoch is None else "version"
            raise ValidationFailed.of(name, "is required: give both epoch and version, or neither", "missing")
        return (self.epoch or 0, self.version or 0)


class Subscribe(Reconnect):
    """Watch another session on this connection; `id` comes back with the answer."""

    type: Literal[Incoming.SUBSCRIBE] = Field(  # type: ignore[assignment]  # another one
        description="What kind of message this is."
    )
    session_id: SessionId = Field(description="The session, a UUID.")
    id: Echo = Field(default=None, description="Comes back with the answer; a whole number or 1 to 128 characters.")


class Unsubscribe(Request):
    """Watch a session no more; `id` comes back with the answer."""

    type: Literal[Incoming.UNSUBSCRIBE] = Field(description="What kind of message this is.")
    session_id: SessionId = Field(description="The session, a UUID.")
    id: Echo = Field(default=None, description="Comes back with the answer; a whole number or 1 to 128 characters.")


class Command(Request):
    """Act on a session, as over REST; `id` comes back with the answer. `session_id` is the connection's unless given.

    `args` is what REST takes as the body, without what the caller expects: that stands beside it.
    """

    type: Literal[Incoming.COMMAND] = Field(description="What kind of message this is.")
    id: Echo = Field(description="Comes back with the answer; a whole number or 1 to 128 characters.")
    command: CommandName = Field(description="What to do.")
    session_id: SessionId | None = Field(default=None, description="The session; the connection's own unless given.")
    args: dict[str, Any] = Field(default_factory=dict, description="What REST takes as the body of the command.")
    expected_version: Annotated[int, Field(ge=1, le=2**53)] | None = Field(
        default=None, description="Version that the session must have; with another one nothing is changed."
    )
    expected_epoch: Annotated[int, Field(ge=1, le=2**53)] | None = Field(
        default=None, description="Epoch that the session must have; with another one nothing is changed."
    )
    idempotency_key: Annotated[str, Field(pattern=IDEMPOTENCY_KEY_PATTERN)] | None = Field(
        default=None, description="1 to 128 visible ASCII characters; the same key again changes nothing."
    )

    def body(self, session_id: str) -> Request:
        """Return the command's arguments by its own model. Raises `ValidationFailed` as REST does."""
        if misplaced := self.args.keys() & CommandBody.model_fields.keys():
            raise ValidationFailed.of(f"args.{min(misplaced)}", "stands beside args, not in it", "misplaced")
        if self.command == "create":
            if self.args.get("session_id", session_id) != session_id:
                raise ValidationFailed.of("session_id", "must be that of the message or connection", "contradiction")
            return CREATE.body.parse(self.args | {"session_id": session_id})
        body: Request = COMMANDS[self.command].body.parse(self.args)
        return body

    def claim(self, request_id: str) -> Claim:
        """Return what the caller claims."""
        return Claim(self.expected_epoch, self.expected_version, self.idempotency_key, request_id)


Message = Ping | Reconnect | Command | Subscribe | Unsubscribe
_MODELS: dict[str, type[Message]] = {
    Incoming.PING: Ping,
    Incoming.RECONNECT: Reconnect,
    Incoming.COMMAND: Command,
    Incoming.SUBSCRIBE: Subscribe,
    Incoming.UNSUBSCRIBE: Unsubscribe,
}


def parse(text: str) -> Message:
    """Read a client's message. Raises `InvalidJson`, `ValidationFailed`."""
    raw = decode(text, "the message")
    if not isinstance(raw, dict):
        raise ValidationFailed.of("message", "must be a JSON object", "model_type")
    kind = raw.get("type")
    if isinstance(kind, str) and kind in _MODELS:
        return _MODELS[kind].parse(raw)
    code = "missing" if kind is None else "unknown_type"
    raise ValidationFailed.of("type", f"must be one of {', '.join(Incoming)}", code)


def echo_of(text: str) -> str | int | None:
    """Return the `id` of a message that could not be taken, if it has one."""
    try:
        raw = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return _echo(raw) if isinstance(raw, dict) else None


def message(kind: Outgoing, session_id: str | None, timestamp: int, fields: Mapping[str, Any]) -> bytes:
    """Return a server's message as JSON; timestamp: server time in ms."""
    head: dict[str, Any] = {"type": kind, "sessionId": session_id, "timestamp": timestamp}
    return orjson.dumps({**head, **fields})


def ack(session_id: str, timestamp: int, echo: str | int, result: Result) -> bytes:
    """Return the `ACK` of a command, with the version after it; that of a delete has none."""
    fields: dict[str, Any] = {"id": echo}
    if result.order:
        fields["epoch"], fields["version"] = result.order
    if result.expired_participant_id:
        fields["expired_participant_id"] = result.expired_participant_id
    if result.replayed:
        fields["replayed"] = True
    return message(Outgoing.ACK, session_id, timestamp, fields)


def error(session_id: str | None, timestamp: int, fault: SyncError, echo: str | int | None = None) -> bytes:
    """Return an `ERROR`; of very many details only the first ones."""
    fields: dict[str, Any] = {} if echo is None else {"id": echo}
    fields |= {"code": fault.code, "message": fault.message[:1000]}
    if fault.details is not None:
        fields["details"] = fault.details[:_MOST_DETAILS] if isinstance(fault.details, list) else fault.details
    return message(Outgoing.ERROR, session_id, timestamp, fields)


PING_FRAME = b"\x89\x00"


def text_frame(payload: bytes) -> bytes:
    """Return an unmasked, final text frame: the same bytes for every client (RFC 6455, 5.2)."""
    size = len(payload)
    if size < 126:
        return bytes((0x81, size)) + payload
    if size < 1 << 16:
        return b"\x81\x7e" + size.to_bytes(2) + payload
    return b"\x81\x7f" + size.to_bytes(8) + payload


def close_frame(code: int, reason: str) -> bytes:
    """Return a close frame; the reason is cut to what fits into one."""
    payload = code.to_bytes(2) + reason.encode()[:123].decode(errors="ignore").encode()
    return bytes((0x88, len(payload))) + payload


def _echo(raw: dict[str, Any]) -> str | int | None:
    value = raw.get("id")
    if isinstance(value, str) and 1 <= len(value) <= _LONGEST_ECHO:
        return value
    return value if type(value) is int else None

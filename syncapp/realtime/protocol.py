"""The WebSocket protocol: message types and close codes. `docs/protocol.md` describes it to clients."""

from __future__ import annotations

from collections.abc import Mapping
from enum import IntEnum, StrEnum
from functools import cache
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from syncapp.domain.command_bodies import CommandBody
from syncapp.domain.commands import COMMANDS, CREATE
from syncapp.domain.field_types import IDEMPOTENCY_KEY_PATTERN, SessionId
from syncapp.domain.principal import Principal
from syncapp.domain.results import Claim, Result
from syncapp.domain.session_ids import public_id
from syncapp.domain.strict_json import decode
from syncapp.domain.validation import Request
from syncapp.domain.version_order import NEVER, Order
from syncapp.errors import SyncError, ValidationFailed

_MAX_DETAILS = 20
_MAX_ECHO = 128


class Outgoing(StrEnum):
    """Types of messages that the server sends."""

    CONNECTED = "CONNECTED"
    STATE_SYNC = "STATE_SYNC"
    STATE_UPDATE = "STATE_UPDATE"
    STATE_PATCH = "STATE_PATCH"
    SESSION_DELETED = "SESSION_DELETED"
    ACK = "ACK"
    SUBSCRIBED = "SUBSCRIBED"
    UNSUBSCRIBED = "UNSUBSCRIBED"
    AUTHENTICATED = "AUTHENTICATED"
    PONG = "PONG"
    HEARTBEAT = "HEARTBEAT"
    ERROR = "ERROR"


class Incoming(StrEnum):
    """Types of messages that a client may send."""

    PING = "PING"
    RECONNECT = "RECONNECT"
    COMMAND = "COMMAND"
    SUBSCRIBE = "SUBSCRIBE"
    UNSUBSCRIBE = "UNSUBSCRIBE"
    AUTH = "AUTH"


class Close(IntEnum):
    """Close codes that the server uses."""

    DONE = 1000
    PROTOCOL_ERROR = 1002
    NOT_TEXT = 1003
    BAD_TEXT = 1007
    ABUSE = 1008
    TOO_BIG = 1009
    FAULT = 1011
    RESTART = 1012
    TOO_SLOW = 1013
    UNAUTHORIZED = 4401
    FORBIDDEN = 4403
    SILENT = 4408


def _number(value: Any) -> int | float:
    if type(value) not in (int, float):
        raise PydanticCustomError("number", "must be a number")
    number: int | float = value
    return number


def _id(value: Any) -> str | int:
    if not (type(value) is int or (isinstance(value, str) and 1 <= len(value) <= _MAX_ECHO)):
        raise PydanticCustomError("id", f"must be a whole number, or 1 to {_MAX_ECHO} characters")
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
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string", "minLength": 1, "maxLength": _MAX_ECHO}]}),
]
Ordinal = Annotated[int, Field(ge=0, le=2**53)]
CommandName = Annotated[str, AfterValidator(_command), Field(json_schema_extra={"enum": list(COMMANDS)})]


def known_order(epoch: int | None, version: int | None) -> Order | None:
    """Return the order that a client says it has: `epoch` and `version` are given both or not at all.

    Raises `ValidationFailed` if only one of them is given.
    """
    if epoch is not None and version is not None:
        return (epoch, version)
    if epoch is None and version is None:
        return None
    missing = "epoch" if epoch is None else "version"
    raise ValidationFailed.of(missing, "is required: give both epoch and version, or neither", "missing")


class Ping(Request):
    """Checks the connection and measures the offset of the client's clock.

    `t0` is the client's own time and is returned unchanged. `timestamp` is for clients that put their time into every
    message; it is returned as `client_timestamp`.
    """

    type: Literal[Incoming.PING] = Field(description="The type of the message.")
    t0: Number = Field(default=None, description="The client's time, in ms of any clock.")
    timestamp: Number = Field(default=None, description="The client's time, in ms of any clock.")


class Reconnect(Request):
    """Asks for the current state, which is not sent if the client already has it.

    `session_id` defaults to the session that the connection was opened for.
    """

    type: Literal[Incoming.RECONNECT] = Field(description="The type of the message.")
    session_id: SessionId | None = Field(
        default=None, description="The session, a UUID; by default the one that the connection was opened for."
    )
    epoch: Ordinal | None = Field(default=None, description="The epoch that the client has; requires `version`.")
    version: Ordinal | None = Field(default=None, description="The version that the client has; requires `epoch`.")

    def known(self) -> Order:
        """Return the order that the client says it has. Raises `ValidationFailed` if only half of it is given."""
        return known_order(self.epoch, self.version) or NEVER


class Subscribe(Reconnect):
    """Watches another session on this connection; the answer returns `id`."""

    type: Literal[Incoming.SUBSCRIBE] = Field(  # type: ignore[assignment]  # not the parent's type
        description="The type of the message."
    )
    session_id: SessionId = Field(description="The session, a UUID.")
    id: Echo = Field(default=None, description="Returned with the answer; a whole number or 1 to 128 characters.")


class Unsubscribe(Request):
    """Stops watching a session; the answer returns `id`."""

    type: Literal[Incoming.UNSUBSCRIBE] = Field(description="The type of the message.")
    session_id: SessionId = Field(description="The session, a UUID.")
    id: Echo = Field(default=None, description="Returned with the answer; a whole number or 1 to 128 characters.")


class Auth(Request):
    """Sends a token, on a connection without one or before the token expires; the answer returns `id`.

    A token that renews must have the same `sub` and tenant. Its rights apply from then on.
    """

    type: Literal[Incoming.AUTH] = Field(description="The type of the message.")
    token: str = Field(description="The token, a JWT.")
    id: Echo = Field(default=None, description="Returned with the answer; a whole number or 1 to 128 characters.")


class Command(Request):
    """Runs a command on a session, by the same rules as REST; the answer returns `id`.

    `args` is the body that REST takes, without `expected_version` and `expected_epoch`: they are members of the
    message. `session_id` defaults to the session that the connection was opened for.
    """

    type: Literal[Incoming.COMMAND] = Field(description="The type of the message.")
    id: Echo = Field(description="Returned with the answer; a whole number or 1 to 128 characters.")
    command: CommandName = Field(description="The command to run.")
    session_id: SessionId | None = Field(
        default=None, description="The session, a UUID; by default the one that the connection was opened for."
    )
    args: dict[str, Any] = Field(
        default_factory=dict,
        description="The command's body as REST takes it, without `expected_version` and `expected_epoch`.",
    )
    expected_version: Annotated[int, Field(ge=1, le=2**53)] | None = Field(
        default=None, description="The version that the session must have; if it has another one, nothing changes."
    )
    expected_epoch: Annotated[int, Field(ge=1, le=2**53)] | None = Field(
        default=None, description="The epoch that the session must have; if it has another one, nothing changes."
    )
    idempotency_key: Annotated[str, Field(pattern=IDEMPOTENCY_KEY_PATTERN)] | None = Field(
        default=None,
        description="1 to 128 visible ASCII characters. A repeated command with the same key changes nothing.",
    )

    def body(self, session_id: str) -> Request:
        """Return the command's body as its own model; session_id: qualified. Raises `ValidationFailed` as REST does."""
        if not self.args and self.command != "create":
            return _body_without_args(self.command)
        if misplaced := self.args.keys() & CommandBody.model_fields.keys():
            raise ValidationFailed.of(f"args.{min(misplaced)}", "belongs next to args, not in it", "misplaced")
        if self.command == "create":
            own = public_id(session_id)
            if self.args.get("session_id", own) != own:
                raise ValidationFailed.of(
                    "session_id", "must be the session of the message or connection", "contradiction"
                )
            return CREATE.body.parse(self.args | {"session_id": own})
        body: Request = COMMANDS[self.command].body.parse(self.args)
        return body

    def claim(self, request_id: str, principal: Principal, lag_limit_ms: int | None) -> Claim:
        """Return the expected version and epoch, the idempotency key, the request id and who sends the command.

        lag_limit_ms: the most lag of the connection that may be compensated, in ms; None if it is not measured.
        """
        epoch, version, key = self.expected_epoch, self.expected_version, self.idempotency_key
        return Claim(epoch, version, key, request_id, principal, lag_limit_ms=lag_limit_ms)


@cache
def _body_without_args(command: str) -> Request:
    """Return the body of most commands, which is read once. Raises `ValidationFailed` if the command needs more."""
    body: Request = COMMANDS[command].body.parse({})
    return body


Message = Ping | Reconnect | Command | Subscribe | Unsubscribe | Auth
_MODELS: dict[str, type[Message]] = {
    Incoming.PING: Ping,
    Incoming.RECONNECT: Reconnect,
    Incoming.COMMAND: Command,
    Incoming.SUBSCRIBE: Subscribe,
    Incoming.UNSUBSCRIBE: Unsubscribe,
    Incoming.AUTH: Auth,
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
    """Return the `id` of a message that was refused, if it has a valid one."""
    try:
        raw = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return _echo(raw) if isinstance(raw, dict) else None


def message(kind: Outgoing, session_id: str | None, timestamp: int, fields: Mapping[str, Any]) -> bytes:
    """Return a message of the server as JSON; session_id: qualified; timestamp: the server's time in ms."""
    shown = public_id(session_id) if session_id else None
    head: dict[str, Any] = {"type": kind, "sessionId": shown, "timestamp": timestamp}
    return orjson.dumps({**head, **fields})


def ack(session_id: str, timestamp: int, echo: str | int, result: Result) -> bytes:
    """Return the `ACK` of a command, with the epoch and version after it; a delete has neither."""
    fields: dict[str, Any] = {"id": echo}
    if result.order:
        fields["epoch"], fields["version"] = result.order
    if result.expired_participant_id:
        fields["expired_participant_id"] = result.expired_participant_id
    if result.replayed:
        fields["replayed"] = True
    return message(Outgoing.ACK, session_id, timestamp, fields)


def error(session_id: str | None, timestamp: int, fault: SyncError, echo: str | int | None = None) -> bytes:
    """Return an `ERROR`, with at most 20 of a list of details."""
    fields: dict[str, Any] = {} if echo is None else {"id": echo}
    fields |= {"code": fault.code, "message": fault.message[:1000]}
    if fault.details is not None:
        fields["details"] = fault.details[:_MAX_DETAILS] if isinstance(fault.details, list) else fault.details
    return message(Outgoing.ERROR, session_id, timestamp, fields)


def _echo(raw: dict[str, Any]) -> str | int | None:
    value = raw.get("id")
    if isinstance(value, str) and 1 <= len(value) <= _MAX_ECHO:
        return value
    return value if type(value) is int else None

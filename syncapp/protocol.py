"""What goes over a WebSocket: message types, close codes, frames. `docs/protocol.md` describes it to clients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from syncapp.errors import InvalidJson, SyncError, ValidationFailed
from syncapp.models import Request

_MOST_DETAILS = 20
_LONGEST_ECHO = 128


class Told(StrEnum):
    """What the server sends."""

    CONNECTED = "CONNECTED"
    STATE_SYNC = "STATE_SYNC"
    STATE_UPDATE = "STATE_UPDATE"
    SESSION_DELETED = "SESSION_DELETED"
    PONG = "PONG"
    ERROR = "ERROR"


class Asked(StrEnum):
    """What a client may send."""

    PING = "PING"
    RECONNECT = "RECONNECT"
    COMMAND = "COMMAND"


class Close(IntEnum):
    """Why the server closes a connection."""

    DONE = 1000
    PROTOCOL_ERROR = 1002
    NOT_TEXT = 1003
    BAD_TEXT = 1007
    ABUSE = 1008
    TOO_BIG = 1009
    FAULT = 1011
    TOO_SLOW = 1013
    SILENT = 4408


class CommandUnavailable(SyncError):
    """A command over the socket, which is not taken yet."""

    status, code = 501, "NOT_IMPLEMENTED"


def _number(value: Any) -> int | float:
    if type(value) not in (int, float):
        raise PydanticCustomError("number", "must be a number")
    number: int | float = value
    return number


Ordinal = Annotated[int, Field(ge=0, le=2**53)]


class Ping(Request):
    """Heartbeat, and measure of the clock's offset; `t0` is the client's own time and comes back as it was."""

    type: Literal[Asked.PING]
    t0: Annotated[Any, AfterValidator(_number)] = None


class Reconnect(Request):
    """Ask for the state, unless it is the one that the client names."""

    type: Literal[Asked.RECONNECT]
    epoch: Ordinal | None = None
    version: Ordinal | None = None


@dataclass(frozen=True, slots=True)
class Command:
    """A command; `id` comes back with its answer."""

    id: str | int | None


def parse(text: str) -> Ping | Reconnect | Command:
    """Read a client's message. Raises `InvalidJson`, `ValidationFailed`."""
    try:
        raw = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise InvalidJson(f"the message is not valid JSON: {error}") from None
    if not isinstance(raw, dict):
        raise ValidationFailed.of("message", "must be a JSON object", "model_type")
    kind = raw.get("type")
    if kind == Asked.PING:
        return Ping.parse(raw)
    if kind == Asked.RECONNECT:
        return Reconnect.parse(raw)
    if kind == Asked.COMMAND:
        return Command(_echo(raw))
    code = "missing" if kind is None else "unknown_type"
    raise ValidationFailed.of("type", f"must be one of {', '.join(Asked)}", code)


def echo_of(text: str) -> str | int | None:
    """Return the `id` of a message that could not be taken, if it has one."""
    try:
        raw = orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
    return _echo(raw) if isinstance(raw, dict) else None


def message(kind: Told, session_id: str, timestamp: int, fields: Mapping[str, Any]) -> bytes:
    """Return a text frame with a server's message; timestamp: server time in ms."""
    head: dict[str, Any] = {"type": kind, "sessionId": session_id, "timestamp": timestamp}
    return text_frame(orjson.dumps({**head, **fields}))


def error(session_id: str, timestamp: int, fault: SyncError, echo: str | int | None = None) -> bytes:
    """Return a text frame with an `ERROR`; of very many details only the first ones."""
    fields: dict[str, Any] = {} if echo is None else {"id": echo}
    fields |= {"code": fault.code, "message": fault.message[:1000]}
    if fault.details is not None:
        fields["details"] = fault.details[:_MOST_DETAILS] if isinstance(fault.details, list) else fault.details
    return message(Told.ERROR, session_id, timestamp, fields)


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
    if isinstance(value, str) and len(value) <= _LONGEST_ECHO:
        return value
    return value if type(value) is int else None

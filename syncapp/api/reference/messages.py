"""Models of the messages of WebSockets and streams; the AsyncAPI document (`asyncapi.py`) is generated from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from syncapp.api.reference.answer_types import Answer, Epoch, Instant, Status, Uuid, Version, absent
from syncapp.api.reference.control_schemas import ControlledClock
from syncapp.api.reference.event_schemas import Event
from syncapp.api.reference.schemas import Clock, Completion, State
from syncapp.errors import (
    BY_WORD,
    Forbidden,
    InternalError,
    InvalidJson,
    NotReplicated,
    RateLimited,
    SessionNotFound,
    StoreUnavailable,
    SyncError,
    TooManyConnections,
    TooManySubscriptions,
    Unauthorized,
    ValidationFailed,
)
from syncapp.realtime.protocol import (
    Auth,
    Command,
    Echo,
    Incoming,
    Number,
    Outgoing,
    Ping,
    Reconnect,
    Subscribe,
    Unsubscribe,
)

_ERRORS: list[type[SyncError]] = [
    *BY_WORD.values(),
    *(InternalError, InvalidJson, RateLimited, SessionNotFound, StoreUnavailable, ValidationFailed),
    *(Forbidden, NotReplicated, TooManyConnections, TooManySubscriptions, Unauthorized),
]
ERROR_CODES = sorted({error.code for error in _ERRORS})
"""The codes that an `ERROR` may have."""
SessionOrNone = Annotated[
    Uuid | None, Field(description="The session that the message is about; null if it is only about the connection.")
]


class ServerMessage(Answer):
    """The fields of all messages that the server sends."""

    type: Outgoing = Field(description="The type of the message.")
    sessionId: Uuid = Field(description="The session that the message is about.")  # noqa: N815 - the protocol's name
    timestamp: int = Field(ge=0, description="The server's time when the message was created, in ms since 1970.")


class Connected(ServerMessage):
    """A session's current version: sent on connect, after `SUBSCRIBED`, and in answer to `RECONNECT`.

    `epoch` and `version` are null if the session does not exist. On a connection without a session, all three are null.
    """

    type: Literal[Outgoing.CONNECTED] = Field(description="The type of the message.")
    sessionId: SessionOrNone  # type: ignore[assignment]  # it may be null here  # noqa: N815 - the protocol's name
    epoch: Epoch | None = Field(description="The session's epoch; null while there is no session.")
    version: Version | None = Field(description="The session's version; null while there is no session.")


class StateSync(ServerMessage):
    """The whole state: sent after `CONNECTED`, and whenever versions were skipped."""

    type: Literal[Outgoing.STATE_SYNC] = Field(description="The type of the message.")
    state: State = Field(description="The state, with its clock as of `timestamp`.")


class StateUpdate(ServerMessage):
    """A commit, and the state after it."""

    type: Literal[Outgoing.STATE_UPDATE] = Field(description="The type of the message.")
    epoch: Epoch
    version: Version
    event: Event = Field(description="The event of the commit.")
    state: State = Field(description="The state after the commit, with its clock as of `timestamp`.")


class ParticipantPatch(ControlledClock):
    """The members to merge into a participant."""

    time_used_ms: int = Field(ge=0, description="Time charged so far, in ms.")
    time_remaining_ms: int | None = Field(description="Remaining budget, in ms; null without a budget.")
    cycle_count: int = Field(ge=0, description="Cycles that this participant has completed.")
    is_active: bool = Field(description="Whether it is this participant's turn.")
    has_expired: bool = Field(description="Whether the budget has run out.")


class GroupPatch(ControlledClock):
    """The members to merge into a group."""

    time_used_ms: int = Field(ge=0, description="Time charged so far, in ms.")
    time_remaining_ms: int = Field(description="Remaining budget, in ms; negative in overtime.")
    has_expired: bool = Field(description="Whether the budget has run out.")


class Patch(Answer):
    """What a commit changed; unchanged members are absent. docs/protocol.md explains how to apply it.

    A `status` other than `completed` also removes the state's `completion`.
    """

    version: Version
    updated_at: Instant = Field(description="When the commit took effect.")
    idle_at: Instant | None = Field(default=None, description="When the session is cancelled as idle.")
    status: Status | None = absent("The new status.")
    active_participant_id: str | None = Field(
        default=None, description="The participant whose turn it is; null if there is none."
    )
    cycle_count: int | None = absent("Number of completed cycles.", ge=0)
    time_used_ms: int | None = absent("Settled running time, in ms.", ge=0)
    time_remaining_ms: int | None = Field(default=None, description="Remaining budget of the session, in ms.")
    cycle_started_at: Instant | None = Field(
        default=None, description="When the current run of the clock began; null while it is stopped."
    )
    session_started_at: Instant | None = Field(default=None, description="When the session was started.")
    session_completed_at: Instant | None = Field(
        default=None, description="When the session ended; null if it was reopened."
    )
    metadata: dict[str, Any] | None = absent("The application's own document, as a whole.")
    completion: Completion | None = absent("The reason and result that a `complete` command gave.")
    participants: dict[str, ParticipantPatch] | None = absent("The members to merge into participants, by id.")
    groups: dict[str, GroupPatch] | None = absent("The members to merge into groups, by id.")


class StatePatch(ServerMessage):
    """A commit, and what it changed; sent instead of `STATE_UPDATE` with `format=patch`."""

    type: Literal[Outgoing.STATE_PATCH] = Field(description="The type of the message.")
    epoch: Epoch
    version: Version
    event: Event = Field(description="The event of the commit.")
    patch: Patch = Field(description="What the commit changed, relative to the previous version.")
    clock: Clock = Field(description="The clock after the commit, as of `timestamp`.")


class SessionDeleted(ServerMessage):
    """The session was deleted; the server closes with 1000, unless the connection watches other sessions."""

    type: Literal[Outgoing.SESSION_DELETED] = Field(description="The type of the message.")
    epoch: Epoch
    version: Version
    event: Event = Field(description="The event of the commit.")


class Ack(ServerMessage):
    """A `COMMAND` has taken effect. The answer to a delete has no `epoch` and `version`."""

    type: Literal[Outgoing.ACK] = Field(description="The type of the message.")
    id: Echo = Field(description="The `id` of the `COMMAND`.")
    epoch: int | None = absent("The epoch after the command.", ge=1)
    version: int | None = absent("The version after the command.", ge=1)
    replayed: Literal[True] | None = absent("The command was already executed with the same idempotency key.")
    expired_participant_id: str | None = absent("The participant that ran out of time, if one did.")


class Subscribed(ServerMessage):
    """The answer to `SUBSCRIBE`; `CONNECTED` and the state follow."""

    type: Literal[Outgoing.SUBSCRIBED] = Field(description="The type of the message.")
    id: Echo = Field(default=None, description="The `id` of the `SUBSCRIBE`, if it had one.")


class Unsubscribed(ServerMessage):
    """The answer to `UNSUBSCRIBE`: no more messages about the session follow."""

    type: Literal[Outgoing.UNSUBSCRIBED] = Field(description="The type of the message.")
    id: Echo = Field(default=None, description="The `id` of the `UNSUBSCRIBE`, if it had one.")


class Authenticated(ServerMessage):
    """The token of `AUTH` is accepted. If the connection's URL names a session, its messages follow."""

    type: Literal[Outgoing.AUTHENTICATED] = Field(description="The type of the message.")
    sessionId: SessionOrNone  # type: ignore[assignment]  # it may be null here  # noqa: N815 - the protocol's name
    id: Echo = Field(default=None, description="The `id` of the `AUTH`, if it had one.")
    expires_at_ms: int = Field(ge=0, description="When the token expires, in ms since 1970; send a new one before.")
    sub: str = Field(description="Who the token is for.")


class Pong(ServerMessage):
    """The answer to `PING`; it is sent before all other queued messages."""

    type: Literal[Outgoing.PONG] = Field(description="The type of the message.")
    sessionId: SessionOrNone  # type: ignore[assignment]  # it may be null here  # noqa: N815 - the protocol's name
    t0: Number = Field(default=None, description="The `t0` of the `PING`, unchanged, if it had one.")
    client_timestamp: Number = Field(default=None, description="The `timestamp` of the `PING`, if it had one.")


class Heartbeat(ServerMessage):
    """A sign of life: sent every `STREAM_HEARTBEAT_S`, on streams only, as an event named `heartbeat`."""

    type: Literal[Outgoing.HEARTBEAT] = Field(description="The type of the message.")


class ErrorMessage(ServerMessage):
    """A message was refused, or the state is not available; `id` is that of the message that it answers."""

    type: Literal[Outgoing.ERROR] = Field(description="The type of the message.")
    sessionId: SessionOrNone  # type: ignore[assignment]  # it may be null here  # noqa: N815 - the protocol's name
    id: Echo = Field(default=None, description="The `id` of the message that it answers, if that had one.")
    code: str = Field(
        description="The kind of error, for programs.", json_schema_extra={"enum": list[Any](ERROR_CODES)}
    )
    message: str = Field(description="What is wrong, in an English sentence.")
    details: Any = Field(default=None, description="Details for programs, as over REST; absent if there are none.")


SENT: dict[Outgoing, type[ServerMessage]] = {
    Outgoing.CONNECTED: Connected,
    Outgoing.STATE_SYNC: StateSync,
    Outgoing.STATE_UPDATE: StateUpdate,
    Outgoing.STATE_PATCH: StatePatch,
    Outgoing.SESSION_DELETED: SessionDeleted,
    Outgoing.ACK: Ack,
    Outgoing.SUBSCRIBED: Subscribed,
    Outgoing.UNSUBSCRIBED: Unsubscribed,
    Outgoing.AUTHENTICATED: Authenticated,
    Outgoing.PONG: Pong,
    Outgoing.HEARTBEAT: Heartbeat,
    Outgoing.ERROR: ErrorMessage,
}
RECEIVED: dict[Incoming, type[BaseModel]] = {
    Incoming.PING: Ping,
    Incoming.RECONNECT: Reconnect,
    Incoming.COMMAND: Command,
    Incoming.SUBSCRIBE: Subscribe,
    Incoming.UNSUBSCRIBE: Unsubscribe,
    Incoming.AUTH: Auth,
}

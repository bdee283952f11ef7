"""What goes over a WebSocket or a stream, as models; the AsyncAPI document (`asyncapi.py`) is made from them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from syncapp.api.reference.schemas import (
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
    TooManyConnections,
    TooManySubscriptions,
    ValidationFailed,
)
from syncapp.realtime.protocol import (
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
    *(TooManyConnections, TooManySubscriptions),
]
ERROR_CODES = sorted({error.code for error in _ERRORS})
"""What an `ERROR` may carry."""
SessionOrNone = Annotated[
    Uuid | None, Field(description="The session that it is about; null when it is about none, or only the connection.")
]


class ServerMessage(Answer):
    """What every message of the server has."""

    type: Outgoing = Field(description="What kind of message this is.")
    sessionId: Uuid = Field(description="The session that it is about.")  # noqa: N815 - the protocol's name
    timestamp: int = Field(ge=0, description="The server's time when the message was made, in ms since 1970.")


class Connected(ServerMessage):
    """Where a session is now: on connect, after `SUBSCRIBED`, and in answer to `RECONNECT`.

    `epoch` and `version` are null while there is no session; all are on a connection that was opened for none.
    """

    type: Literal[Outgoing.CONNECTED] = Field(description="What kind of message this is.")
    sessionId: SessionOrNone  # type: ignore[assignment]  # noqa: N815 - null: the connection has none of its own
    epoch: Epoch | None = Field(description="The session's epoch; null while there is no session.")
    version: Version | None = Field(description="The session's version; null while there is no session.")


class StateSync(ServerMessage):
    """A whole state: after `CONNECTED`, and whenever versions were left out."""

    type: Literal[Outgoing.STATE_SYNC] = Field(description="What kind of message this is.")
    state: State = Field(description="The state; its clock is true for `timestamp`.")


class StateUpdate(ServerMessage):
    """A commit, and the state after it."""

    type: Literal[Outgoing.STATE_UPDATE] = Field(description="What kind of message this is.")
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
    active_participant_id: str | None = Field(
        default=None, description="Whose turn it is now; null when it is nobody's."
    )
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

    type: Literal[Outgoing.STATE_PATCH] = Field(description="What kind of message this is.")
    epoch: Epoch
    version: Version
    event: Event = Field(description="What the commit was.")
    patch: Patch = Field(description="What it changed; always follows on the version before.")
    clock: Clock = Field(description="The clock after it, true for `timestamp`.")


class SessionDeleted(ServerMessage):
    """The session was deleted; the server closes with 1000."""

    type: Literal[Outgoing.SESSION_DELETED] = Field(description="What kind of message this is.")
    epoch: Epoch
    version: Version
    event: Event = Field(description="What the commit was.")


class Ack(ServerMessage):
    """A `COMMAND` has taken effect; a delete's has no epoch and version."""

    type: Literal[Outgoing.ACK] = Field(description="What kind of message this is.")
    id: Echo = Field(description="The `id` of the `COMMAND`.")
    epoch: int | None = absent("The epoch after the command.", ge=1)
    version: int | None = absent("The version after the command.", ge=1)
    replayed: Literal[True] | None = absent("The command was already executed under the same idempotency key.")
    expired_participant_id: str | None = absent("Who was found to have run out of time.")


class Subscribed(ServerMessage):
    """Answer to `SUBSCRIBE`; `CONNECTED` and the state follow."""

    type: Literal[Outgoing.SUBSCRIBED] = Field(description="What kind of message this is.")
    id: Echo = Field(default=None, description="The `id` of the `SUBSCRIBE`, if it had one.")


class Unsubscribed(ServerMessage):
    """Answer to `UNSUBSCRIBE`: nothing more is told of the session."""

    type: Literal[Outgoing.UNSUBSCRIBED] = Field(description="What kind of message this is.")
    id: Echo = Field(default=None, description="The `id` of the `UNSUBSCRIBE`, if it had one.")


class Pong(ServerMessage):
    """Answer to `PING`, before anything else that waits."""

    type: Literal[Outgoing.PONG] = Field(description="What kind of message this is.")
    sessionId: SessionOrNone  # type: ignore[assignment]  # noqa: N815 - null: the connection has none of its own
    t0: Number = Field(default=None, description="The `t0` of the `PING`, as it was, if it had one.")
    client_timestamp: Number = Field(default=None, description="The `timestamp` of the `PING`, if it had one.")


class Heartbeat(ServerMessage):
    """The server is there: on a stream only, every `STREAM_HEARTBEAT_S`, as an event named `heartbeat`."""

    type: Literal[Outgoing.HEARTBEAT] = Field(description="What kind of message this is.")


class ErrorMessage(ServerMessage):
    """Something was refused, or there is no state to show; with the `id` of the `COMMAND` that it answers."""

    type: Literal[Outgoing.ERROR] = Field(description="What kind of message this is.")
    sessionId: SessionOrNone  # type: ignore[assignment]  # noqa: N815 - null: the connection has none of its own
    id: Echo = Field(default=None, description="The `id` of the message that it answers, if that had one.")
    code: str = Field(
        description="The kind of failure, for programs.", json_schema_extra={"enum": list[Any](ERROR_CODES)}
    )
    message: str = Field(description="What is wrong, in an English sentence.")
    details: Any = Field(default=None, description="More for programs, as over REST; absent when there is none.")


SENT: dict[Outgoing, type[ServerMessage]] = {
    Outgoing.CONNECTED: Connected,
    Outgoing.STATE_SYNC: StateSync,
    Outgoing.STATE_UPDATE: StateUpdate,
    Outgoing.STATE_PATCH: StatePatch,
    Outgoing.SESSION_DELETED: SessionDeleted,
    Outgoing.ACK: Ack,
    Outgoing.SUBSCRIBED: Subscribed,
    Outgoing.UNSUBSCRIBED: Unsubscribed,
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
}

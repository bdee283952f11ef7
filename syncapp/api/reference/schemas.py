"""What REST answers, as models; every field says what it is, in which unit, and between which limits.

The OpenAPI document (`openapi.py`) and the AsyncAPI document (`asyncapi.py`) are made from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from syncapp import __version__, errors
from syncapp.domain.modes import Mode
from syncapp.server import admission

Payload = TypeVar("Payload")
Route = TypeVar("Route", bound=Callable[..., Any])
Body = type[BaseModel] | Mapping[str, type[BaseModel] | type[str]] | None
"""An answer's body: a model as JSON, or a model or plain text by content type, or none."""

VERSION = __version__
ERROR_CODES = sorted(
    {
        each.code
        for each in [*vars(errors).values(), *vars(admission).values()]
        if isinstance(each, type) and issubclass(each, errors.SyncError)
    }
)
"""Every code that REST answers with."""


def _never_null(schema: dict[str, Any]) -> None:
    """Say that a field is absent where there is nothing to tell, not null."""
    schema.pop("default", None)
    branches = [branch for branch in schema.pop("anyOf", []) if branch != {"type": "null"}]
    schema.update(branches[0] if len(branches) == 1 else {"anyOf": branches} if branches else {})


def absent(description: str, **limits: Any) -> Any:
    """Return a field that an answer has only where there is something to tell."""
    return Field(default=None, description=description, json_schema_extra=_never_null, **limits)


Instant = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-01-01T12:00:00.000Z"])]
Uuid = Annotated[str, Field(json_schema_extra={"format": "uuid"})]
Status = Literal["pending", "running", "paused", "completed", "expired", "cancelled"]
Epoch = Annotated[
    int,
    Field(ge=1, description="Life of the session: ms since 1970 at which it began; a later life has a larger number."),
]
Version = Annotated[int, Field(ge=1, description="Counts the commits of this epoch, from 1, without gaps.")]


class Answer(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Clock(Answer):
    """The clock that runs, or would run, as it shows at `server_time_ms`."""

    scope: Literal["participant", "cycle", "group", "session"] = Field(description="Whose time it is, by the mode.")
    direction: Literal["down", "up"] = Field(description="`up` in `count_up`, else `down`.")
    running: bool = Field(description="Whether time passes now.")
    remaining_ms: int | None = Field(
        description="What is left, in ms; null for an uncapped stopwatch, negative in overtime."
    )
    elapsed_ms: int = Field(
        ge=0,
        description="How long this run of the clock has lasted, in ms; 0 when it stands. In `count_up` all of it.",
    )
    deadline_ms: int | None = Field(
        description="Server instant at which it reaches 0, in ms since 1970; null when nothing runs out."
    )


class ParticipantState(Answer):
    """A participant; times are settled, true as of `cycle_started_at`."""

    participant_id: str = Field(description="The participant's id, 1 to 64 characters.")
    participant_index: int = Field(ge=0, description="Place in the rotation, from 0.")
    total_time_ms: int | None = Field(description="Budget that was granted, in ms; null without one.")
    time_used_ms: int = Field(ge=0, description="Time charged so far, in ms.")
    time_remaining_ms: int | None = Field(
        description="What is left of the budget, in ms; null in modes whose participants have no budget of their own."
    )
    cycle_count: int = Field(ge=0, description="Cycles that this participant has ended.")
    is_active: bool = Field(description="Whether it is this participant's turn.")
    has_expired: bool = Field(description="Whether the budget has run out.")
    group_id: str | None = absent("The participant's group; only in `per_group`.")


class GroupState(Answer):
    """A group, in `per_group`; times are settled like a participant's."""

    group_id: str = Field(description="The group's id, 1 to 64 characters.")
    total_time_ms: int = Field(ge=0, description="Budget that was granted, in ms.")
    time_used_ms: int = Field(ge=0, description="Time charged so far, in ms.")
    time_remaining_ms: int = Field(description="What is left of the budget, in ms; negative in overtime.")
    has_expired: bool = Field(description="Whether the budget has run out.")


class Completion(Answer):
    """What a `complete` told of a session's end."""

    reason: str | None = absent("Why, 1 to 500 characters; absent if none was given.")
    result: Any = absent("Any JSON of at most 1,024 bytes; absent if none was given.")


class State(Answer):
    """A session."""

    session_id: Uuid = Field(description="The session's id, a UUID in lower case.")
    sync_mode: Mode = Field(description="What the session's time is counted for.")
    status: Status = Field(description="`completed`, `expired` and `cancelled` are final.")
    epoch: Epoch
    version: Version
    participants: list[ParticipantState] = Field(description="All participants, in rotation order; 1,000 at most.")
    active_participant_id: str | None = Field(
        description="Whose turn it is; null before the start, after the end, or without participants."
    )
    cycle_count: int = Field(ge=0, description="Cycles that have ended.")
    total_time_ms: int | None = Field(description="All time that was granted, in ms; null in modes without a total.")
    time_per_cycle_ms: int | None = Field(description="Budget of each cycle, in ms; null outside of `per_cycle`.")
    increment_ms: int = Field(ge=0, description="Credited to the mover at each switch, in ms; 0 to 60,000.")
    cycle_started_at: Instant | None = Field(description="When this run of the cycle began; null while nothing runs.")
    session_started_at: Instant | None = Field(description="When the session was started; null before.")
    session_completed_at: Instant | None = Field(description="When the session ended; null before.")
    created_at: Instant = Field(description="When the session was created.")
    updated_at: Instant = Field(description="When the last commit took effect.")
    idle_timeout_s: int = Field(ge=1, description="How long an abandoned session lives, in s; 30 days at most.")
    idle_at: Instant | None = Field(
        description="When it would be cancelled as idle; null while idle time does not count. Watchers postpone it "
        "without a new version."
    )
    action_on_timeout: dict[str, Any] = Field(
        description="What happens at zero: `type`, and whatever the caller of create added."
    )
    metadata: dict[str, Any] = Field(description="The caller's own document, at most 16,384 bytes as JSON.")
    server_time_ms: int = Field(ge=0, description="Server instant that `clock` is true for, in ms since 1970.")
    clock: Clock = Field(description="The only live part of a state; all other times are settled.")
    groups: list[GroupState] | None = absent("All groups, in the order of their turns; only in `per_group`.")
    time_used_ms: int | None = absent(
        "Settled running time, in ms; only in `per_cycle`, `global` and `count_up`.", ge=0
    )
    time_remaining_ms: int | None = Field(
        default=None,
        description="What is left of the session's own budget, in ms; null without one. Only in `per_cycle`, `global` "
        "and `count_up`.",
    )
    max_time_ms: int | None = absent("Cap of the stopwatch, in ms; only in `count_up`, if it has one.", ge=1)
    max_cycles: int | None = absent("Number of cycles after which the session is completed, if there is one.", ge=1)
    warn_at_ms: list[int] | None = absent("Thresholds at which the clock warns, in ms, if there are any.")
    completion: Completion | None = absent("Only of a session that a `complete` ended and gave a reason or a result.")
    expired_participant_id: str | None = absent("Only after a command that found someone out of time, or made it so.")


class Event(BaseModel):
    """What a commit was: its type, the instant it took effect, and what it concerns.

    A field is absent where there is nothing to tell. docs/protocol.md says which type has which.
    """

    model_config = ConfigDict(extra="allow", strict=True)

    type: str = Field(description="What happened, such as `cycle_switched`.", examples=["cycle_switched"])
    at_ms: int = Field(ge=0, description="When it took effect, in ms since 1970: for a timeout the deadline.")
    participant_id: str | None = absent("The participant concerned; of a switch, who moved.")
    next_participant_id: str | None = absent("Whose turn it became.")
    group_id: str | None = absent("The group concerned; only in `per_group`.")
    remaining_ms: int | None = Field(
        default=None, description="Left of the budget concerned, in ms; negative in overtime, null without a budget."
    )
    adjusted_ms: int | None = absent("By how much an adjustment changed the budget, in ms.")
    threshold_ms: int | None = absent("The threshold that a warning is about, in ms.", ge=1)
    reason: str | None = absent("Why, if a reason was given, or the session did it by itself; 500 characters at most.")
    result: Any = absent("What came of it, if a `complete` told: any JSON of at most 1,024 bytes.")
    action_on_timeout: dict[str, Any] | None = absent("What happens at zero, with the caller's own keys; of timeouts.")


class Minimal(Answer):
    """The answer to `Prefer: return=minimal`."""

    session_id: Uuid = Field(description="The session's id.")
    epoch: Epoch
    version: Version
    event: Event | None = Field(description="What the command was; null when it changed nothing.")
    patch: dict[str, Any] = Field(description="What changed, under the names of the state (docs/protocol.md).")
    expired_participant_id: str | None = absent("Who was found to be out of time, if anybody was.")


class Fault(Answer):
    """One fault of a request."""

    field: str = Field(description="Name of the field, header or parameter; parts of a path are joined by dots.")
    message: str = Field(description="What is wrong with it, in English.")
    code: str = Field(description="The kind of fault, for programs.")


class Error(Answer):
    """Why a request failed."""

    code: str = Field(
        description="The kind of failure, for programs; docs/protocol.md says what to do about each.",
        json_schema_extra={"enum": list[Any](ERROR_CODES)},
    )
    message: str = Field(description="What is wrong, in an English sentence.")
    details: Any = Field(
        default=None,
        description="More for programs: of `VALIDATION_ERROR` a list of {field, message, code}, of other codes an "
        "object, such as {current} or {retry_after_s}; absent when there is none.",
    )


class ErrorAnswer(Answer):
    """A failure."""

    error: Error = Field(description="Why the request failed.")


class Data(Answer, Generic[Payload]):
    """A success."""

    data: Payload = Field(description="What was asked for.")


class StateAnswer(Data[State]):
    """A session."""


class CommandAnswer(Data[State | Minimal]):
    """A session after a command, or just what changed."""


@dataclass(frozen=True)
class Documented:
    """What the OpenAPI document says of a route, beside its docstring."""

    tags: list[str]
    resp: Mapping[int, Body]
    json: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    headers: type[BaseModel] | None = None


DOCUMENTED: dict[Callable[..., Any], Documented] = {}
"""By the function of a route, whose name is the operation's id."""


def answers(**by_status: Body) -> dict[int, Body]:
    """Return the documented answers of a route; every route may also answer 400, 429, 500 and 503."""
    common: dict[int, Body] = dict.fromkeys((400, 429, 500, 503), ErrorAnswer)
    return common | {int(name.removeprefix("HTTP_")): body for name, body in by_status.items()}


def documented(**options: Any) -> Callable[[Route], Route]:
    """Return a decorator that adds a route to the document; the route stays as it is."""
    if options.get("query"):
        options["resp"] = options["resp"] | {414: ErrorAnswer}

    def decorate(route: Route) -> Route:
        DOCUMENTED[route] = Documented(**options)
        return route

    return decorate

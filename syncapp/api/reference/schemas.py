"""Models of REST's responses; each field's description has its meaning, unit and limits.

The OpenAPI document (`openapi.py`) and the AsyncAPI document (`asyncapi.py`) are generated from them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, Field

from syncapp import __version__, errors
from syncapp.api.reference.answer_types import Answer, Data, Epoch, Instant, Status, Uuid, Version, absent
from syncapp.api.reference.control_schemas import CanonicalTimeControl, CompensatedLag, OwnControl
from syncapp.api.reference.event_schemas import Event
from syncapp.domain.modes import Mode
from syncapp.domain.validation import Request
from syncapp.server import admission

Route = TypeVar("Route", bound=Callable[..., Any])
Body = type[BaseModel] | Mapping[str, type[BaseModel] | type[str]] | None
"""A response body: a model as JSON, or models and plain text by content type, or None."""

VERSION = __version__
ERROR_CODES = sorted(
    {
        each.code
        for each in [*vars(errors).values(), *vars(admission).values()]
        if isinstance(each, type) and issubclass(each, errors.SyncError)
    }
)
"""All error codes of REST."""


class Clock(Answer):
    """The clock that runs, or would run, as of `server_time_ms`."""

    scope: Literal["participant", "cycle", "group", "session"] = Field(
        description="What the clock belongs to; the mode determines it."
    )
    direction: Literal["down", "up"] = Field(description="`up` in `count_up`, otherwise `down`.")
    running: bool = Field(description="Whether the clock runs.")
    remaining_ms: int | None = Field(
        description="Remaining time, in ms; null for an uncapped stopwatch, negative in overtime and within a margin. "
        "With a time control, the main time."
    )
    elapsed_ms: int = Field(
        ge=0,
        description="Time since `cycle_started_at`, in ms; 0 while the clock is stopped. In `count_up`, the total "
        "elapsed time.",
    )
    deadline_ms: int | None = Field(
        description="When the clock reaches 0, in ms since 1970 by the server's clock; null if it will not. With a "
        "time control, when the flag falls: nothing is left, neither delay nor periods nor margin."
    )
    phase: Literal["main", "delay", "period", "block"] | None = absent(
        "What runs or would run: main time, a delay, a byo-yomi period or a Canadian block; with a time control."
    )
    phase_remaining_ms: int | None = absent("What is left of the phase, in ms; with a time control.")
    next_at_ms: int | None = Field(
        default=None,
        description="When the phase ends, in ms since 1970 by the server's clock; null if the clock is stopped or has "
        "run out. Only with a time control.",
    )


class ParticipantState(OwnControl):
    """A participant. Its times are settled: as of `cycle_started_at`, without the current run of the clock."""

    participant_id: str = Field(description="The participant's id, 1 to 64 characters.")
    participant_index: int = Field(ge=0, description="Position in the rotation, from 0.")
    total_time_ms: int | None = Field(description="Budget granted, in ms; null without a budget.")
    time_used_ms: int = Field(ge=0, description="Time charged so far, in ms.")
    time_remaining_ms: int | None = Field(
        description="Remaining budget, in ms; null in modes without a budget per participant."
    )
    cycle_count: int = Field(ge=0, description="Cycles that this participant has completed.")
    is_active: bool = Field(description="Whether it is this participant's turn.")
    has_expired: bool = Field(description="Whether the budget has run out.")
    group_id: str | None = absent("The participant's group; only in `per_group`.")


class GroupState(OwnControl):
    """A group, in `per_group`. Its times are settled, like a participant's."""

    group_id: str = Field(description="The group's id, 1 to 64 characters.")
    total_time_ms: int = Field(ge=0, description="Budget granted, in ms.")
    time_used_ms: int = Field(ge=0, description="Time charged so far, in ms.")
    time_remaining_ms: int = Field(description="Remaining budget, in ms; negative in overtime.")
    has_expired: bool = Field(description="Whether the budget has run out.")


class Completion(Answer):
    """The reason and result that a `complete` command gave."""

    reason: str | None = absent("The reason, 1 to 500 characters; absent if none was given.")
    result: Any = absent("The result, any JSON of at most 1,024 bytes; absent if none was given.")


class State(Answer):
    """A session."""

    session_id: Uuid = Field(description="The session's id, a UUID in lower case.")
    sync_mode: Mode = Field(description="The mode, which determines what the budgets belong to.")
    status: Status = Field(description="`completed`, `expired` and `cancelled` are final, unless reopened.")
    epoch: Epoch
    version: Version
    participants: list[ParticipantState] = Field(description="All participants, in rotation order; 1,000 at most.")
    active_participant_id: str | None = Field(
        description="The participant whose turn it is; null before the start, after the end, or without participants."
    )
    cycle_count: int = Field(ge=0, description="Number of completed cycles.")
    total_time_ms: int | None = Field(description="Total time granted, in ms; null in modes without a total.")
    time_per_cycle_ms: int | None = Field(description="Budget of each cycle, in ms; null except in `per_cycle`.")
    increment_ms: int = Field(
        ge=0, description="Credited at each switch to the participant that moved, in ms; 0 to 60,000."
    )
    cycle_started_at: Instant | None = Field(
        description="When the current run of the clock began: by a start, switch or resume; with a time control also "
        "at the beginning of a period or block, and by an adjustment. Null while it is stopped."
    )
    session_started_at: Instant | None = Field(description="When the session was started; null before that.")
    session_completed_at: Instant | None = Field(description="When the session ended; null before that.")
    created_at: Instant = Field(description="When the session was created.")
    updated_at: Instant = Field(description="When the last commit took effect.")
    idle_timeout_s: int = Field(
        ge=1, description="Idle time after which the session is cancelled, in s; at most 30 days."
    )
    idle_at: Instant | None = Field(
        description="When the session is cancelled as idle; null while idle time does not count. Open connections "
        "postpone it without a new version."
    )
    action_on_timeout: dict[str, Any] = Field(
        description="What happens when the clock reaches zero: `type`, and the members that the create added."
    )
    metadata: dict[str, Any] = Field(description="The application's own document, at most 16,384 bytes as JSON.")
    server_time_ms: int = Field(ge=0, description="The server's time that `clock` is as of, in ms since 1970.")
    clock: Clock = Field(description="The only live part of a state; all other times are settled.")
    groups: list[GroupState] | None = absent("All groups, in the order of their turns; only in `per_group`.")
    time_used_ms: int | None = absent(
        "Settled running time, in ms; only in `per_cycle`, `global` and `count_up`.", ge=0
    )
    time_remaining_ms: int | None = Field(
        default=None,
        description="Remaining budget of the session, in ms; null without one. Only in `per_cycle`, `global` and "
        "`count_up`.",
    )
    max_time_ms: int | None = absent("Cap of the stopwatch, in ms; only in `count_up` with a cap.", ge=1)
    max_cycles: int | None = absent("Number of cycles after which the session is completed; absent if unlimited.", ge=1)
    warn_at_ms: list[int] | None = absent("Remaining times at which the clock warns, in ms; absent if there are none.")
    completion: Completion | None = absent(
        "Present if a `complete` command ended the session and gave a reason or a result."
    )
    time_control: CanonicalTimeControl | None = absent("The time control of all owners that have none of their own.")
    time_control_notation: str | None = absent("The same as a notation, with its dialect (docs/time-controls.md).")
    warn_scope: Literal["main", "period"] | None = absent("Which clocks warn; only with time controls.")
    lag_compensation: CompensatedLag | None = absent("Absent if lag is not compensated.")
    takeback_cycles: int | None = absent(
        "How many of the last cycles a `takeback` can take back; absent if none.", ge=1
    )
    expired_participant_id: str | None = absent(
        "Present after a command during which a participant ran out of time, before or because of it."
    )


class Minimal(Answer):
    """The result of a command with `Prefer: return=minimal`."""

    session_id: Uuid = Field(description="The session's id.")
    epoch: Epoch
    version: Version
    event: Event | None = Field(description="The event of the command; null if it changed nothing.")
    patch: dict[str, Any] = Field(description="What changed, with the names of the state (docs/protocol.md).")
    expired_participant_id: str | None = absent("The participant that ran out of time, if one did.")


class Fault(Answer):
    """One fault of a request."""

    field: str = Field(description="The field, header or parameter; the parts of a path are joined by dots.")
    message: str = Field(description="What is wrong with it, in English.")
    code: str = Field(description="The kind of fault, for programs.")


class Error(Answer):
    """Why a request failed."""

    code: str = Field(
        description="The kind of error, for programs; docs/protocol.md says what to do about each.",
        json_schema_extra={"enum": list[Any](ERROR_CODES)},
    )
    message: str = Field(description="What is wrong, in an English sentence.")
    details: Any = Field(
        default=None,
        description="Details for programs. For `VALIDATION_ERROR`, a list of {field, message, code}; for other codes "
        "an object, such as {current} or {retry_after_s}. Absent if there are none.",
    )


class ErrorAnswer(Answer):
    """An error response."""

    error: Error = Field(description="Why the request failed.")


class StateAnswer(Data[State]):
    """A session."""


class CommandAnswer(Data[State | Minimal]):
    """A session after a command, or only what changed."""


@dataclass(frozen=True)
class Documented:
    """What the OpenAPI document needs to know about a route, besides its docstring."""

    tags: list[str]
    resp: Mapping[int, Body]
    json: type[Request] | None = None
    query: type[BaseModel] | None = None
    headers: type[BaseModel] | None = None
    needs_token: bool = True


DOCUMENTED: dict[Callable[..., Any], Documented] = {}
"""By the function of a route. Its name is the operation's id."""


def answers(**by_status: Body) -> dict[int, Body]:
    """Return the documented responses of a route; every route may also return 400, 429, 500 and 503."""
    common: dict[int, Body] = dict.fromkeys((400, 429, 500, 503), ErrorAnswer)
    return common | {int(name.removeprefix("HTTP_")): body for name, body in by_status.items()}


def documented(**options: Any) -> Callable[[Route], Route]:
    """Return a decorator that adds a route to the document, and leaves the route unchanged.

    needs_token: whether the route may also return 401 and 403 (`syncapp.api.route_actions`).
    """
    if options.get("query"):
        options["resp"] = options["resp"] | {414: ErrorAnswer}
    if options.get("needs_token", True):
        options["resp"] = options["resp"] | {401: ErrorAnswer, 403: ErrorAnswer}

    def decorate(route: Route) -> Route:
        DOCUMENTED[route] = Documented(**options)
        return route

    return decorate

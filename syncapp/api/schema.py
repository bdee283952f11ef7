"""The OpenAPI document: made from the models that validate, and from models of what is answered.

spectree only documents here; validation is `Request.parse`, which names every fault at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field
from spectree import Response, SpecTree

from syncapp.fields import Mode

Payload = TypeVar("Payload")
Route = TypeVar("Route", bound=Callable[..., Any])
Instant = Annotated[str, Field(json_schema_extra={"format": "date-time"}, examples=["2026-01-01T12:00:00.000Z"])]
VERSION = "0.1.0"


class Answer(BaseModel):
    """A part of an answer."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Clock(Answer):
    """The clock that runs, or would run, as it shows at `server_time_ms`."""

    scope: Literal["participant", "cycle", "group", "session"]
    direction: Literal["down", "up"]
    running: bool
    remaining_ms: int | None = Field(description="Null for an uncapped stopwatch; negative in overtime.")
    elapsed_ms: int = Field(description="How long this run of the clock has lasted; 0 when it stands.")
    deadline_ms: int | None = Field(description="Server instant at which it reaches 0; null when nothing runs.")


class ParticipantState(Answer):
    """A participant; times are settled, true as of `cycle_started_at`."""

    participant_id: str
    participant_index: int
    total_time_ms: int | None
    time_used_ms: int
    time_remaining_ms: int | None = Field(description="Null in modes whose participants have no budget of their own.")
    cycle_count: int
    is_active: bool
    has_expired: bool
    group_id: str | None = Field(default=None, description="Only in per_group.")


class GroupState(Answer):
    """A group, in per_group; times are settled like a participant's."""

    group_id: str
    total_time_ms: int
    time_used_ms: int
    time_remaining_ms: int
    has_expired: bool


class Completion(Answer):
    """What a `complete` told of a session's end."""

    reason: str | None = Field(default=None, description="Absent if none was given.")
    result: Any = Field(default=None, description="Any JSON of at most 1,024 bytes; absent if none was given.")


class State(Answer):
    """A session."""

    session_id: str
    sync_mode: Mode
    status: Literal["pending", "running", "paused", "completed", "expired", "cancelled"]
    epoch: int
    version: int
    participants: list[ParticipantState]
    active_participant_id: str | None
    cycle_count: int
    total_time_ms: int | None
    time_per_cycle_ms: int | None
    increment_ms: int
    cycle_started_at: Instant | None
    session_started_at: Instant | None
    session_completed_at: Instant | None
    created_at: Instant
    updated_at: Instant
    idle_timeout_s: int = Field(description="How long an abandoned session lives.")
    idle_at: Instant | None = Field(
        description="When it would be cancelled as idle; null while idle time does not count. Watchers postpone it "
        "without a new version."
    )
    action_on_timeout: dict[str, Any]
    metadata: dict[str, Any]
    server_time_ms: int
    clock: Clock
    groups: list[GroupState] | None = Field(default=None, description="Only in per_group.")
    time_used_ms: int | None = Field(
        default=None, description="Only in per_cycle, global and count_up: settled running time."
    )
    time_remaining_ms: int | None = Field(
        default=None, description="Only in these, too: what is left of the session's own budget."
    )
    max_time_ms: int | None = None
    max_cycles: int | None = None
    warn_at_ms: list[int] | None = None
    completion: Completion | None = Field(
        default=None, description="Only of a session that a `complete` ended and gave a reason or a result."
    )
    expired_participant_id: str | None = Field(
        default=None, description="Only after a command that found someone out of time, or made it so."
    )


class Event(BaseModel):
    """What a commit was: its type, the instant it took effect, and what it concerns."""

    model_config = ConfigDict(extra="allow", strict=True)

    type: str
    at_ms: int


class Minimal(Answer):
    """The answer to `Prefer: return=minimal`."""

    session_id: str
    epoch: int
    version: int
    event: Event | None
    patch: dict[str, Any]
    expired_participant_id: str | None = None


class Time(Answer):
    """The server's clock, which every session runs by."""

    timestamp_ms: int
    server_version: str
    drift_tolerance_ms: int


class Health(Answer):
    """A process that answers."""

    status: Literal["ok"]


class AuditQueue(Answer):
    """Events on their way into PostgreSQL."""

    waiting: int = Field(description="Events that nobody has read yet.")
    active: int = Field(description="Events that are being stored.")
    completed: int = Field(description="Events that were stored.")
    failed: int = Field(description="Dead letters: events that could not be stored.")
    delayed: int = Field(description="Retries that are scheduled.")
    oldest_age_ms: int | None = Field(
        description="Age of the oldest event that is not stored; null when there is none."
    )
    rate_per_s: float = Field(description="Events stored a second, over the last minute.")


class Readiness(Answer):
    """The servers a process needs: each is `ok`, or says briefly what is wrong with it."""

    status: Literal["ready"]
    redis: Literal["ok"]
    postgresql: str = Field(description="While it is not `ok`, audit events wait in Redis; commands go on.")
    worries: list[str] | None = Field(
        default=None, description="Problems that do not stop commands; absent if there are none."
    )


class Unreadiness(Answer):
    """Why a process takes no commands."""

    status: Literal["unavailable"]
    problems: list[str] = Field(description="What is wrong, in words.")
    redis: str | None = Field(default=None, description="Like `postgresql`, absent while the process is shutting down.")
    postgresql: str | None = None
    worries: list[str] | None = None


class Fault(Answer):
    """One fault of a request."""

    field: str
    message: str
    code: str


class Error(Answer):
    """Why a request failed."""

    code: str
    message: str
    details: Any = Field(default=None, description="Absent if there are none.")


class ErrorAnswer(Answer):
    """A failure."""

    error: Error


class Data(Answer, Generic[Payload]):
    """A success."""

    data: Payload


class StateAnswer(Data[State]):
    """A session."""


class CommandAnswer(Data[State | Minimal]):
    """A session after a command, or just what changed."""


class TimeAnswer(Time):
    """The server's clock."""


class HealthAnswer(Health):
    """Liveness."""


class AuditQueueAnswer(Data[AuditQueue]):
    """The audit queue."""


class ReadyAnswer(Readiness):
    """Readiness."""


class UnreadyAnswer(Unreadiness):
    """A process that takes no commands."""


spec = SpecTree(
    "flask",
    title="SyncApp",
    description="Authoritative shared clocks for many clients.",
    version=VERSION,
    mode="strict",
    annotations=False,
    validation_error_status=400,
    validation_error_model=ErrorAnswer,
    naming_strategy=lambda model: model.__name__,
    nested_naming_strategy=lambda parent, child: child,
)


def document() -> dict[str, Any]:
    """Return the OpenAPI document. spectree calls every body required; one is, if its model has a required field."""
    found: dict[str, Any] = spec.spec
    schemas = found["components"]["schemas"]
    for operations in found["paths"].values():
        for operation in operations.values():
            if "requestBody" in operation:
                name = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
                operation["requestBody"]["required"] = bool(schemas[name].get("required"))
    return found


def answers(**by_status: type[BaseModel] | None) -> Response:
    """Return the documented answers of a route; every route may also answer 429, 500 and 503."""
    common: dict[str, Any] = {f"HTTP_{status}": ErrorAnswer for status in (400, 429, 500, 503)}
    return Response(**(common | by_status))


def documented(**options: Any) -> Callable[[Route], Route]:
    """Return a decorator that adds a route to the document, under the function's name.

    The route stays as it is: spectree's own wrapper would read a whole answer, and a stream has no end.
    """

    def decorate(route: Route) -> Route:
        named = spec.validate(skip_validation=True, operation_id=route.__name__, **options)(route)
        # The route itself is registered, not spectree's wrapper, which would cost each request and do nothing.
        spec._function_metadata[route] = spec._function_metadata[named]
        return route

    return decorate

"""Models of the responses about the server itself."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from syncapp.api.reference.answer_types import Answer, Data, Instant, absent


class Time(Answer):
    """The time of the server's clock, which all sessions use."""

    timestamp_ms: int = Field(ge=0, description="The server's time, in ms since 1970.")
    server_version: str = Field(description="Version of SyncApp.")
    drift_tolerance_ms: int = Field(
        ge=0, description="How far a client's clock may differ without visible effect, in ms."
    )


class Health(Answer):
    """Liveness of the process."""

    status: Literal["ok"] = Field(description="Always `ok`: a process that is not alive does not respond.")


class AuditQueue(Answer):
    """Audit events that are waiting for PostgreSQL."""

    waiting: int = Field(ge=0, description="Events that no worker has read yet.")
    active: int = Field(ge=0, description="Events that a worker is storing.")
    completed: int = Field(ge=0, description="Events that are stored.")
    failed: int = Field(ge=0, description="Dead letters: events that could not be stored.")
    delayed: int | None = Field(
        ge=0, description="Scheduled retries; null if the server of the task queue (`TASKS_REDIS_URL`) does not answer."
    )
    oldest_age_ms: int | None = Field(
        description="Age of the oldest event that is not stored, in ms; null if there is none."
    )
    rate_per_s: float = Field(ge=0, description="Events stored per second, over the last minute.")


class VerificationOutcome(Answer):
    """The outcome of a run of `flask audit verify` over the whole log."""

    outcome: Literal["as_committed", "faults", "incomplete"] = Field(
        description="`as_committed`: everything is as it was committed. `faults`: some sessions are not. `incomplete`: "
        "the run could not read everything, so the counts are those of a part."
    )
    started_at: Instant = Field(description="When the run began, by the clock of its machine.")
    finished_at: Instant = Field(description="When it ended.")
    sessions: int = Field(ge=0, description="Number of sessions read.")
    events: int = Field(ge=0, description="Number of events read.")
    faulty_sessions: int = Field(ge=0, description="Sessions that are not as committed; the command names them.")
    forks: int = Field(ge=0, description="Forks that dead letters explain, which are no faults.")
    erased_parts: int = Field(ge=0, description="Private parts that were erased, which is no fault.")


class VerificationReport(Answer):
    """The last verification of the audit log."""

    last: VerificationOutcome | None = Field(description="The outcome; null if no run has left one in this store.")


class Readiness(Answer):
    """The servers that the process needs, each with `ok` or a short description of the problem.

    Without the right to read them, all members but `status` are absent.
    """

    status: Literal["ready"] = Field(description="Always `ready`; a process that is not ready returns 503.")
    redis: Literal["ok"] | None = absent("The store; if it is not `ok`, the status is 503.")
    postgresql: str | None = absent(
        "The audit log. While it is not `ok`, audit events wait in the store, and commands go on."
    )
    redis_nodes: dict[str, str] | None = absent("Of a cluster: each master by its address, `ok` or the problem.")
    worries: list[str] | None = absent("Problems that do not stop commands; absent if there are none.")


class Unreadiness(Answer):
    """Why the process cannot take commands. Without the right to read it, all members but `status` are absent."""

    status: Literal["unavailable"] = Field(description="Always `unavailable`.")
    problems: list[str] | None = absent("What is wrong, in English.")
    redis: str | None = absent("The store: `ok`, or the problem; absent while the process is shutting down.")
    postgresql: str | None = absent("The audit log: `ok`, or the problem; absent while the process is shutting down.")
    redis_nodes: dict[str, str] | None = absent("Of a cluster: each master by its address, `ok` or the problem.")
    worries: list[str] | None = absent("Problems that do not stop commands; absent if there are none.")


class TimeAnswer(Time):
    """The server's clock."""


class HealthAnswer(Health):
    """Liveness."""


class AuditQueueAnswer(Data[AuditQueue]):
    """The audit queue."""


class VerificationAnswer(Data[VerificationReport]):
    """The last verification of the audit log."""


class ReadyAnswer(Readiness):
    """Readiness."""


class UnreadyAnswer(Unreadiness):
    """Unreadiness."""

"""What the server answers about itself, as models."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from syncapp.api.reference.schemas import Answer, Data, absent


class Time(Answer):
    """The server's clock, which every session runs by."""

    timestamp_ms: int = Field(ge=0, description="The server's time, in ms since 1970.")
    server_version: str = Field(description="Version of SyncApp.")
    drift_tolerance_ms: int = Field(ge=0, description="By how much a client's clock may be off without harm, in ms.")


class Health(Answer):
    """A process that answers."""

    status: Literal["ok"] = Field(description="Always `ok`; a process that is not ok does not answer.")


class AuditQueue(Answer):
    """Events on their way into PostgreSQL."""

    waiting: int = Field(ge=0, description="Events that nobody has read yet.")
    active: int = Field(ge=0, description="Events that are being stored.")
    completed: int = Field(ge=0, description="Events that were stored.")
    failed: int = Field(ge=0, description="Dead letters: events that could not be stored.")
    delayed: int = Field(ge=0, description="Retries that are scheduled.")
    oldest_age_ms: int | None = Field(
        description="Age of the oldest event that is not stored, in ms; null when there is none."
    )
    rate_per_s: float = Field(ge=0, description="Events stored a second, over the last minute.")


class Readiness(Answer):
    """The servers a process needs: each is `ok`, or says briefly what is wrong with it."""

    status: Literal["ready"] = Field(description="Always `ready`; a process that is not answers 503.")
    redis: Literal["ok"] = Field(description="The store; when it is not `ok`, the answer is 503.")
    postgresql: str = Field(
        description="The audit trail. While it is not `ok`, audit events wait in Redis; commands go on."
    )
    worries: list[str] | None = absent("Problems that do not stop commands; absent if there are none.")


class Unreadiness(Answer):
    """Why a process takes no commands."""

    status: Literal["unavailable"] = Field(description="Always `unavailable`.")
    problems: list[str] = Field(description="What is wrong, in words.")
    redis: str | None = absent("The store: `ok`, or what is wrong; absent while the process is shutting down.")
    postgresql: str | None = absent(
        "The audit trail: `ok`, or what is wrong; absent while the process is shutting down."
    )
    worries: list[str] | None = absent("Problems that do not stop commands; absent if there are none.")


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

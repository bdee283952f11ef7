"""What the history answers, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from syncapp.api.schema import Answer, Data, Event, Instant, State
from syncapp.fields import Mode
from syncapp.questions import Status


class LoggedEvent(Answer):
    """A commit."""

    epoch: int
    version: int
    type: str
    at: Instant = Field(description="When it took effect: for a timeout the deadline.")
    at_ms: int
    status: Status
    cycle_count: int
    participant_id: str | None
    next_participant_id: str | None
    group_id: str | None
    remaining_ms: int | None = Field(description="Left of the budget concerned.")
    elapsed_ms: int | None = Field(description="Charged by this commit.")
    actor: str = Field(description="`client`, or `system` for what a session does by itself.")
    request_id: str | None
    event: Event
    patch: dict[str, Any] = Field(description="What changed, under the names of the state.")


class Events(Answer):
    """A page of events."""

    events: list[LoggedEvent]
    next_cursor: str | None


class ShownClock(Answer):
    """What a clock showed."""

    running: bool
    used_ms: int
    remaining_ms: int | None = Field(description="Null without a budget of its own; negative in overtime.")


class ParticipantClock(ShownClock):
    """What a participant's clock showed."""

    participant_id: str


class GroupClock(ShownClock):
    """What a group's clock showed."""

    group_id: str


class Clocks(Answer):
    """What every clock showed, settled to that instant."""

    participants: list[ParticipantClock]
    groups: list[GroupClock] | None = Field(default=None, description="Only in per_group.")


class Past(State):
    """A session as it was; `server_time_ms` is the instant."""

    event: Event = Field(description="The last event before that instant, or at it.")
    clocks: Clocks


class LoggedSession(Answer):
    """A session as the log knows it; null is what no event has told."""

    session_id: str
    sync_mode: Mode
    status: Status
    epoch: int
    version: int
    cycle_count: int
    participant_count: int | None
    total_time_ms: int | None
    created_at: Instant | None
    started_at: Instant | None
    completed_at: Instant | None
    deleted_at: Instant | None
    updated_at: Instant
    metadata: dict[str, Any] | None


class Sessions(Answer):
    """A page of sessions."""

    sessions: list[LoggedSession]
    next_cursor: str | None


class CycleTotals(Answer):
    """Cycles and their lengths."""

    cycles: int = Field(description="How many have ended.")
    total_ms: int = Field(description="All time charged, pauses not counted.")
    mean_ms: int | None = Field(description="Of cycles that have ended; null when none has.")
    longest_ms: int | None
    open_ms: int = Field(description="Charged to a cycle that has not ended.")


class ParticipantCycles(CycleTotals):
    """A participant's cycles."""

    participant_id: str


class SessionStatistics(CycleTotals):
    """A session's cycles since it was created last."""

    session_id: str
    epoch: int
    participants: list[ParticipantCycles]


class EventsAnswer(Data[Events]):
    """Events of a session."""


class PastAnswer(Data[Past]):
    """A session as it was."""


class HistoryAnswer(Data[Sessions]):
    """Sessions of the log."""


class StatisticsAnswer(Data[SessionStatistics]):
    """Cycles of a session."""

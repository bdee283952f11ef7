"""What the history answers, for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, RootModel

from syncapp.api.reference.schemas import (
    Answer,
    Clock,
    Completion,
    Data,
    Epoch,
    Error,
    Event,
    Instant,
    Minimal,
    State,
    Uuid,
    Version,
    absent,
)
from syncapp.domain.modes import Mode
from syncapp.domain.query import Status


class LoggedEvent(Answer):
    """A commit."""

    epoch: Epoch
    version: Version
    type: str = Field(description="What happened, such as `cycle_switched`.")
    at: Instant = Field(description="When it took effect: for a timeout the deadline.")
    at_ms: int = Field(ge=0, description="The same instant, in ms since 1970.")
    status: Status = Field(description="The session's status after it.")
    cycle_count: int = Field(ge=0, description="Cycles that had ended then.")
    participant_id: str | None = Field(description="The participant concerned; null when nobody is.")
    next_participant_id: str | None = Field(description="Whose turn it became; null when it became nobody's.")
    group_id: str | None = Field(description="The group concerned; null outside of `per_group`.")
    remaining_ms: int | None = Field(description="Left of the budget concerned, in ms; null without one.")
    elapsed_ms: int | None = Field(description="Charged by this commit, in ms; null when nothing ran.")
    actor: str = Field(description="`client`, or `system` for what a session does by itself.")
    request_id: str | None = Field(description="`X-Request-Id` of the request; null for what had none.")
    event: Event = Field(description="The event as it was told.")
    patch: dict[str, Any] = Field(description="What changed, under the names of the state.")


class EventsPage(Answer):
    """A page of events."""

    events: list[LoggedEvent] = Field(description="Oldest first; `limit` at most.")
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last one.")


class ExportedEvent(LoggedEvent):
    """A commit, with the whole state where the log holds one."""

    snapshot: dict[str, Any] | None = Field(
        description="The state after it, as the store keeps it (docs/audit.md); null for most events."
    )


class Export(Answer):
    """All of a session's events."""

    session_id: Uuid = Field(description="The session's id.")
    events: list[ExportedEvent] = Field(description="All events, oldest first.")
    count: int = Field(ge=0, description="How many events there are: a file without it was cut off.")


class ShownClock(Answer):
    """What a clock showed."""

    running: bool = Field(description="Whether it ran.")
    used_ms: int = Field(ge=0, description="Time used until then, in ms.")
    remaining_ms: int | None = Field(
        description="What was left, in ms; null without a budget of its own, negative in overtime."
    )


class ParticipantClock(ShownClock):
    """What a participant's clock showed."""

    participant_id: str = Field(description="Whose clock it is.")


class GroupClock(ShownClock):
    """What a group's clock showed."""

    group_id: str = Field(description="Which group's clock it is.")


class Clocks(Answer):
    """What every clock showed, settled to that instant."""

    participants: list[ParticipantClock] = Field(description="Of every participant, in rotation order.")
    groups: list[GroupClock] | None = absent("Of every group; only in `per_group`.")


class Past(State):
    """A session as it was; `server_time_ms` is the instant."""

    event: Event = Field(description="The last event before that instant, or at it.")
    clocks: Clocks = Field(description="What every clock showed at that instant.")


class LoggedSession(Answer):
    """A session as the log knows it; null is what no event has told."""

    session_id: Uuid = Field(description="The session's id.")
    sync_mode: Mode = Field(description="What its time is counted for.")
    status: Status = Field(description="Its last status; `deleted` is one that was removed.")
    epoch: Epoch
    version: Version
    cycle_count: int = Field(ge=0, description="Cycles that have ended.")
    participant_count: int | None = Field(description="How many participants it has.")
    total_time_ms: int | None = Field(description="All time that was granted, in ms; null in modes without a total.")
    created_at: Instant | None = Field(description="When it was created.")
    started_at: Instant | None = Field(description="When it was started; null before.")
    completed_at: Instant | None = Field(description="When it ended; null before.")
    deleted_at: Instant | None = Field(description="When it was deleted; null if it was not.")
    updated_at: Instant = Field(description="When its last commit took effect.")
    metadata: dict[str, Any] | None = Field(description="The caller's own document.")


class SessionsPage(Answer):
    """A page of sessions."""

    sessions: list[LoggedSession] = Field(description="The last changed first; `limit` at most.")
    next_cursor: str | None = Field(description="`cursor` of the next page; null on the last one.")


class ListedSession(Answer):
    """A session that the store holds, without its participants."""

    session_id: Uuid = Field(description="The session's id.")
    sync_mode: Mode = Field(description="What its time is counted for.")
    status: Literal["pending", "running", "paused", "completed", "expired", "cancelled"] = Field(
        description="Its status; the last three are final."
    )
    epoch: Epoch
    version: Version
    participant_count: int = Field(ge=0, description="How many participants it has.")
    active_participant_id: str | None = Field(description="Whose turn it is; null when it is nobody's.")
    cycle_count: int = Field(ge=0, description="Cycles that have ended.")
    session_started_at: Instant | None = Field(description="When it was started; null before.")
    session_completed_at: Instant | None = Field(description="When it ended; null before.")
    created_at: Instant = Field(description="When it was created.")
    updated_at: Instant = Field(description="When its last commit took effect.")
    metadata: dict[str, Any] = Field(description="The caller's own document.")
    clock: Clock = Field(description="As it shows at `server_time_ms` of the page.")
    completion: Completion | None = absent("Only of a session that a `complete` ended and gave a reason or a result.")


class ListedSessions(Answer):
    """A page of sessions that the store holds."""

    sessions: list[ListedSession] = Field(
        description="Newest first, at most `limit`; fewer if many sessions do not match."
    )
    next_cursor: str | None = Field(description="`cursor` of the next page; null when nothing is left.")
    complete: bool = Field(
        description="False while the list is being filled, for some seconds after a first start or an upgrade: "
        "sessions may be missing."
    )
    server_time_ms: int = Field(ge=0, description="Server instant that the clocks are true for, in ms since 1970.")


class BatchItem(Answer):
    """What came of a command on one session."""

    session_id: Uuid = Field(description="The session's id.")
    status: int = Field(ge=200, le=599, description="HTTP status that the command alone would have been answered with.")
    data: State | Minimal | None = absent("As the command alone would have answered, if it took effect.")
    error: Error | None = absent("Why it was refused, if it was.")
    replayed: Literal[True] | None = absent("It was carried out before under the same idempotency key.")


class BatchResults(Answer):
    """What came of a command on each session, in the order of the request."""

    results: list[BatchItem] = Field(description="One for each session, in the order of the request.")
    succeeded: int = Field(ge=0, description="On how many sessions the command took effect.")
    failed: int = Field(ge=0, description="On how many sessions it was refused.")


class CycleTotals(Answer):
    """Cycles and their lengths."""

    cycles: int = Field(ge=0, description="How many have ended.")
    total_ms: int = Field(ge=0, description="All time charged, in ms; pauses not counted.")
    mean_ms: int | None = Field(description="Mean length of cycles that have ended, in ms; null when none has.")
    longest_ms: int | None = Field(description="Length of the longest that has ended, in ms; null when none has.")
    open_ms: int = Field(ge=0, description="Charged to a cycle that has not ended, in ms.")


class ParticipantCycles(CycleTotals):
    """A participant's cycles."""

    participant_id: str = Field(description="Whose cycles they are.")


class SessionStatistics(CycleTotals):
    """A session's cycles since it was created last."""

    session_id: Uuid = Field(description="The session's id.")
    epoch: Epoch
    participants: list[ParticipantCycles] = Field(description="Of every participant, in rotation order.")


class EventsAnswer(Data[EventsPage]):
    """Events of a session."""


class PastAnswer(Data[Past]):
    """A session as it was."""


class HistoryAnswer(Data[SessionsPage]):
    """Sessions of the log."""


class ListAnswer(Data[ListedSessions]):
    """Sessions that the store holds."""


class BatchAnswer(Data[BatchResults]):
    """Results of a batch."""


class OneText(RootModel[Annotated[list[str], Field(min_length=1, max_length=1)]]):
    """What a clock shows, as a list of one text."""


class StatisticsAnswer(Data[SessionStatistics]):
    """Cycles of a session."""


class ExportAnswer(Data[Export]):
    """All events of a session."""

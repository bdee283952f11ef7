"""Models of the responses of the history, the session list and batches, for the OpenAPI document."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, RootModel

from syncapp.api.reference.answer_types import Answer, Data, Epoch, Instant, Uuid, Version, absent
from syncapp.api.reference.event_schemas import Event
from syncapp.api.reference.schemas import Clock, Completion, Error, Minimal, State
from syncapp.domain.modes import Mode
from syncapp.domain.query import Status


class LoggedEvent(Answer):
    """A commit, as the audit log has it."""

    epoch: Epoch
    version: Version
    type: str = Field(description="The type of the event, such as `cycle_switched`.")
    at: Instant = Field(description="When it took effect; for a timeout, the deadline.")
    at_ms: int = Field(ge=0, description="The same instant, in ms since 1970.")
    status: Status = Field(description="The session's status after the commit.")
    cycle_count: int = Field(ge=0, description="Number of completed cycles after the commit.")
    participant_id: str | None = Field(description="The participant concerned; null if there is none.")
    next_participant_id: str | None = Field(
        description="The participant whose turn it is afterwards; null if there is none."
    )
    group_id: str | None = Field(description="The group concerned; null except in `per_group`.")
    remaining_ms: int | None = Field(description="Remaining budget, in ms; null without a budget.")
    elapsed_ms: int | None = Field(description="Time charged by this commit, in ms; null if the clock did not run.")
    actor: str = Field(description="`client`, or `system` if the session made the commit by itself.")
    request_id: str | None = Field(description="`X-Request-Id` of the request; null if there was none.")
    principal: str | None = absent("Who sent the command; only with authentication.")
    jti: str | None = absent("The id of the token; only if it has one.")
    event: Event = Field(description="The event as it was published.")
    patch: dict[str, Any] = Field(description="What changed, with the names of the state.")
    erased: list[str] | None = absent(
        "Private parts that were erased: `metadata`, `reason`, `completion`, `principal`; only if any were."
    )


class EventsPage(Answer):
    """A page of events."""

    events: list[LoggedEvent] = Field(description="In the order of `order`; at most `limit`.")
    next_cursor: str | None = Field(description="The `cursor` of the next page; null on the last page.")


class ExportedEvent(LoggedEvent):
    """A commit, with the whole state if the audit log has it."""

    snapshot: dict[str, Any] | None = Field(
        description="The state after the commit, in the store's form (docs/audit.md); null for most events."
    )


class Export(Answer):
    """All of a session's events."""

    session_id: Uuid = Field(description="The session's id.")
    events: list[ExportedEvent] = Field(description="All events, oldest first.")
    count: int = Field(ge=0, description="Number of events; a file without it is incomplete.")


class ShownClock(Answer):
    """A clock as of the instant."""

    running: bool = Field(description="Whether the clock ran.")
    used_ms: int = Field(ge=0, description="Time used until the instant, in ms.")
    remaining_ms: int | None = Field(
        description="Remaining budget, in ms; null without an own budget, negative in overtime and within a margin. "
        "With a time control, the main time."
    )
    period_remaining_ms: int | None = Field(
        default=None,
        description="What was left of the running period or block, in ms; null without one. Only with a time control.",
    )


class ParticipantClock(ShownClock):
    """A participant's clock as of the instant."""

    participant_id: str = Field(description="The participant.")


class GroupClock(ShownClock):
    """A group's clock as of the instant."""

    group_id: str = Field(description="The group.")


class Clocks(Answer):
    """All clocks as of the instant, including the time that was running."""

    participants: list[ParticipantClock] = Field(description="The clocks of all participants, in rotation order.")
    groups: list[GroupClock] | None = absent("The clocks of all groups; only in `per_group`.")


class Past(State):
    """A session as of a past instant, which is `server_time_ms`."""

    event: Event = Field(description="The last event at or before the instant.")
    clocks: Clocks = Field(description="All clocks as of the instant.")


class LoggedSession(Answer):
    """A session as the audit log knows it; a value that no event contains is null."""

    session_id: Uuid = Field(description="The session's id.")
    sync_mode: Mode = Field(description="The mode, which determines what the budgets belong to.")
    status: Status = Field(description="The last status; `deleted` if the session was deleted.")
    epoch: Epoch
    version: Version
    cycle_count: int = Field(ge=0, description="Number of completed cycles.")
    participant_count: int | None = Field(description="Number of participants.")
    total_time_ms: int | None = Field(description="Total time granted, in ms; null in modes without a total.")
    created_at: Instant | None = Field(description="When the session was created.")
    started_at: Instant | None = Field(description="When the session was started; null before that.")
    completed_at: Instant | None = Field(description="When the session ended; null before that.")
    deleted_at: Instant | None = Field(description="When the session was deleted; null if it was not.")
    updated_at: Instant = Field(description="When the last commit took effect.")
    metadata: dict[str, Any] | None = Field(description="The application's own document; null if it was erased.")
    principal: str | None = absent("Who created the session; only with authentication.")


class SessionsPage(Answer):
    """A page of sessions."""

    sessions: list[LoggedSession] = Field(description="The most recently changed first; at most `limit`.")
    next_cursor: str | None = Field(description="The `cursor` of the next page; null on the last page.")


class ListedSession(Answer):
    """A session that the store holds, without its participants."""

    session_id: Uuid = Field(description="The session's id.")
    sync_mode: Mode = Field(description="The mode, which determines what the budgets belong to.")
    status: Literal["pending", "running", "paused", "completed", "expired", "cancelled"] = Field(
        description="The status; `completed`, `expired` and `cancelled` are final, unless reopened."
    )
    epoch: Epoch
    version: Version
    participant_count: int = Field(ge=0, description="Number of participants.")
    active_participant_id: str | None = Field(description="The participant whose turn it is; null if there is none.")
    cycle_count: int = Field(ge=0, description="Number of completed cycles.")
    session_started_at: Instant | None = Field(description="When the session was started; null before that.")
    session_completed_at: Instant | None = Field(description="When the session ended; null before that.")
    created_at: Instant = Field(description="When the session was created.")
    updated_at: Instant = Field(description="When the last commit took effect.")
    metadata: dict[str, Any] = Field(description="The application's own document.")
    clock: Clock = Field(description="The clock as of the page's `server_time_ms`.")
    completion: Completion | None = absent(
        "Present if a `complete` command ended the session and gave a reason or a result."
    )


class ListedSessions(Answer):
    """A page of sessions that the store holds."""

    sessions: list[ListedSession] = Field(
        description="Newest first; at most `limit`, fewer if many sessions do not match."
    )
    next_cursor: str | None = Field(description="The `cursor` of the next page; null on the last page.")
    complete: bool = Field(
        description="False while the list is being built, for some seconds after the first start or an upgrade: "
        "sessions may be missing."
    )
    server_time_ms: int = Field(ge=0, description="The server's time that the clocks are as of, in ms since 1970.")


class BatchItem(Answer):
    """The result of a command on one session."""

    session_id: Uuid = Field(description="The session's id.")
    status: int = Field(ge=200, le=599, description="The HTTP status that the command alone would have returned.")
    data: State | Minimal | None = absent("What the command alone would have returned, if it succeeded.")
    error: Error | None = absent("Why the command failed, if it did.")
    replayed: Literal[True] | None = absent("The command was already executed with the same idempotency key.")


class BatchResults(Answer):
    """The results of a command on several sessions."""

    results: list[BatchItem] = Field(description="One result for each session, in the order of the request.")
    succeeded: int = Field(ge=0, description="Number of sessions on which the command succeeded.")
    failed: int = Field(ge=0, description="Number of sessions on which the command failed.")


class CycleTotals(Answer):
    """Cycles and their lengths."""

    cycles: int = Field(ge=0, description="Number of completed cycles.")
    total_ms: int = Field(ge=0, description="Total time charged, in ms; without pauses.")
    mean_ms: int | None = Field(description="Mean length of completed cycles, in ms; null if there are none.")
    longest_ms: int | None = Field(description="Length of the longest completed cycle, in ms; null if there are none.")
    open_ms: int = Field(ge=0, description="Time charged to a cycle that is not completed, in ms.")


class ParticipantCycles(CycleTotals):
    """A participant's cycles."""

    participant_id: str = Field(description="The participant.")


class SessionStatistics(CycleTotals):
    """A session's cycles since it was last created."""

    session_id: Uuid = Field(description="The session's id.")
    epoch: Epoch
    participants: list[ParticipantCycles] = Field(description="The cycles of all participants, in rotation order.")


class EventsAnswer(Data[EventsPage]):
    """Events of a session."""


class PastAnswer(Data[Past]):
    """A session as of a past instant."""


class HistoryAnswer(Data[SessionsPage]):
    """Sessions of the audit log."""


class ListAnswer(Data[ListedSessions]):
    """Sessions that the store holds."""


class BatchAnswer(Data[BatchResults]):
    """Results of a batch."""


class OneText(RootModel[Annotated[list[str], Field(min_length=1, max_length=1)]]):
    """A clock as text, in a list of one string."""


class StatisticsAnswer(Data[SessionStatistics]):
    """Cycles of a session."""


class ExportAnswer(Data[Export]):
    """All events of a session."""

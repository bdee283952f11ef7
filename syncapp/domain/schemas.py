"""Schemas of requests: the models that validate them and from which the OpenAPI document is generated.

All errors of a request are reported at once, at most 50, each as {field, message, code}. An unknown field is an error
that names it. Durations are in ms.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
)
from pydantic_core import InitErrorDetails

from syncapp.domain.control_field import ControlField, control_field
from syncapp.domain.create_rules import create_faults
from syncapp.domain.field_types import (
    MESSAGES,
    UUID_PATTERN,
    DurationMs,
    Metadata,
    ParticipantId,
    SessionId,
    WarningMs,
    at_most,
    without_nul,
)
from syncapp.domain.limits import MAX_ACTION_BYTES, MAX_IDLE_TIMEOUT_S, MAX_PARTICIPANTS, MAX_TAKEBACK_CYCLES
from syncapp.domain.modes import MODES, Mode
from syncapp.domain.validation import Request, custom
from syncapp.errors import ValidationFailed

MAX_WARNINGS = 8
MAX_LAG_MS = 10_000


class NewParticipant(Request):
    """A participant of a new session; the order of the list is the rotation."""

    participant_id: ParticipantId = Field(description="Id that the client chooses, unique in the session.")
    total_time_ms: DurationMs | None = Field(
        default=None,
        description="Budget in ms, 1 s to 24 h. Required in `per_participant`; in `per_group` if the group has none.",
    )
    participant_index: Annotated[int, Field(ge=0, lt=MAX_PARTICIPANTS)] | None = Field(
        default=None,
        description="Index in the rotation, from 0, instead of the order of the list; for all participants or none.",
    )
    group_id: ParticipantId | None = Field(
        default=None, description="The participant's group; required in `per_group` only."
    )
    time_control: ControlField | None = control_field(
        "A time control of this participant's own, instead of `total_time_ms` and the session's; in `per_participant`."
    )


class NewGroup(Request):
    """A group of a new session; without a budget of its own, it has the sum of its members' budgets."""

    group_id: ParticipantId = Field(description="Id that the client chooses, unique among the groups.")
    total_time_ms: DurationMs | None = Field(
        default=None, description="Budget in ms, 1 s to 24 h; by default, the sum of its members' budgets."
    )
    time_control: ControlField | None = control_field(
        "A time control of this group's own, instead of `total_time_ms` and the session's."
    )


class LagCompensation(Request):
    """How much of the network's delay a move is not charged."""

    per_move_ms: Annotated[int, Field(ge=0, le=MAX_LAG_MS)] = Field(
        description="What an owner's quota gains with each move, in ms; at most 10 s."
    )
    quota_ms: Annotated[int, Field(ge=1, le=MAX_LAG_MS)] = Field(
        description="The quota, in ms: full at the start, and never more than this; at most 10 s."
    )


class ActionOnTimeout(BaseModel):
    """What happens when a budget reaches zero. Other members are stored, and repeated in the timeout event."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    type: Literal["end_session", "skip_cycle", "notify"] = Field(
        description="End the session; pass the turn on; or send the event only, while the clock runs on below zero."
    )


class CreateSession(Request):
    """A new session.

    `total_time_ms` is the budget of `global`. `per_participant` and `per_group` only show it, by default as the sum of
    all budgets; `per_cycle` and `count_up` ignore it.
    """

    max_lengths: ClassVar[Mapping[str, int]] = {
        "participants": MAX_PARTICIPANTS,
        "groups": MAX_PARTICIPANTS,
        "warn_at_ms": MAX_WARNINGS,
    }

    session_id: SessionId | None = Field(
        default=None, description="Id of the new session; by default, the server generates one."
    )
    sync_mode: Mode = Field(description="The mode: what has a budget of time (docs/clock.md).")
    participants: Annotated[list[NewParticipant], Field(max_length=MAX_PARTICIPANTS)] = Field(
        default_factory=list,
        description="At most 1,000, in rotation order; at least one in `per_participant` and `per_group`.",
    )
    groups: Annotated[list[NewGroup], Field(max_length=MAX_PARTICIPANTS)] | None = Field(
        default=None, description="At most 1,000, in rotation order; only in `per_group`."
    )
    total_time_ms: Annotated[int, Field(ge=1000, le=86_400_000 * MAX_PARTICIPANTS)] | None = Field(
        default=None,
        description="Budget in `global`, in ms, 1 s to 24 h, required there. `per_participant` and `per_group` only "
        "show it (default: the sum of all budgets); `per_cycle` and `count_up` ignore it.",
    )
    time_per_cycle_ms: DurationMs | None = Field(
        default=None, description="Budget of each cycle in ms, 1 s to 24 h; required in `per_cycle` only."
    )
    max_time_ms: DurationMs | None = Field(
        default=None, description="Limit of the stopwatch in ms, 1 s to 24 h; only in `count_up`."
    )
    max_cycles: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Number of cycles after which the session is completed."
    )
    increment_ms: Annotated[int, Field(ge=0, le=60_000)] = Field(
        default=0,
        description="Credited at each switch to the participant or group whose cycle ends, in ms, 0 by default; in "
        "`per_participant` and `per_group`.",
    )
    time_control: ControlField | None = control_field(
        "The time control of every participant, in `per_group` of every group, that has none of its own; instead of "
        "`total_time_ms` and `increment_ms`. An object, or a notation with its dialect (docs/time-controls.md)."
    )
    warn_scope: Literal["main", "period"] = Field(
        default="main",
        description="Which clocks warn in a session with a time control: `main` time only, or also every `period` and "
        "block.",
    )
    lag_compensation: LagCompensation | None = Field(
        default=None,
        description="Do not charge the network's delay of moves over WebSockets, within a quota; off by default. In "
        "`per_participant` and `per_group`.",
    )
    takeback_cycles: Annotated[int, Field(ge=0, le=MAX_TAKEBACK_CYCLES)] = Field(
        default=0,
        description="How many of the last cycles a `takeback` can take back; at most 100. In `per_participant` and "
        "`per_group`.",
    )
    warn_at_ms: Annotated[list[WarningMs], Field(min_length=1, max_length=MAX_WARNINGS)] | None = Field(
        default=None,
        description="Up to 8 different thresholds in ms; a `time_warning` is sent when the clock reaches one.",
        json_schema_extra={"uniqueItems": True},
    )
    action_on_timeout: Annotated[ActionOnTimeout, AfterValidator(without_nul), at_most(MAX_ACTION_BYTES)] | None = (
        Field(
            default=None,
            description="What happens at zero; at most 4,096 bytes as JSON. By default `skip_cycle` in `per_cycle`, "
            "and `end_session` in all other modes.",
        )
    )
    idle_timeout_s: Annotated[int, Field(ge=1, le=MAX_IDLE_TIMEOUT_S)] | None = Field(
        default=None,
        description="Seconds after which an idle session is cancelled, at most 2,592,000 (30 days); by default the "
        "setting `IDLE_TIMEOUT_S` (24 h).",
    )
    metadata: Metadata = Field(
        default_factory=dict, description="A document of the client's, stored unchanged; at most 16,384 bytes as JSON."
    )

    @classmethod
    def faults_between(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        """Yield the errors between mode, participants, groups and times."""
        for field, message, code in create_faults(raw):
            location = tuple(int(part) if part.isdigit() else part for part in field.split("."))
            yield InitErrorDetails(type=custom(code, message), loc=location, input=None)

    def in_rotation(self) -> list[NewParticipant]:
        """Return the participants in rotation order."""
        return sorted(self.participants, key=lambda participant: participant.participant_index or 0)

    def in_groups(self) -> list[NewGroup]:
        """Return the groups in order: the given ones, or those that the participants name."""
        if not MODES[self.sync_mode].has_group_budgets:
            return []
        groups = self.groups or [NewGroup(group_id=each.group_id or "") for each in self.in_rotation()]
        return list({group.group_id: group for group in groups}.values())

    def budget_of(self, group: NewGroup) -> int:
        """Return a group's budget in ms, without a time control: its own, or the sum of its members' budgets."""
        if group.total_time_ms is not None:
            return group.total_time_ms
        return sum(each.total_time_ms or 0 for each in self.participants if each.group_id == group.group_id)


def session_id(text: str) -> str:
    """Return a session id in lower case. Raises `ValidationFailed` if it is not a UUID."""
    if not re.match(UUID_PATTERN, text) or text.endswith("\n"):
        raise ValidationFailed.of("session_id", MESSAGES["uuid"], "uuid")
    return text.lower()

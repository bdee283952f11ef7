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

from syncapp.domain.create_rules import create_faults
from syncapp.domain.field_types import (
    MESSAGES,
    UUID_PATTERN,
    DurationMs,
    Metadata,
    ParticipantId,
    Reason,
    SessionId,
    SmallJson,
    WarningMs,
    at_most,
    without_nul,
)
from syncapp.domain.limits import MAX_ACTION_BYTES, MAX_IDLE_TIMEOUT_S, MAX_PARTICIPANTS
from syncapp.domain.modes import MODES, Mode
from syncapp.domain.validation import Request, custom
from syncapp.errors import ValidationFailed

MAX_WARNINGS = 8


class CommandBody(Request):
    """The preconditions that any command may have; a session at another version or epoch is a conflict."""

    expected_version: Annotated[int, Field(ge=1, le=2**53)] | None = Field(
        default=None, description="Version that the session must have; at any other version, nothing is changed (409)."
    )
    expected_epoch: Annotated[int, Field(ge=1, le=2**53)] | None = Field(
        default=None, description="Epoch that the session must have; in any other epoch, nothing is changed (409)."
    )


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


class NewGroup(Request):
    """A group of a new session; without a budget of its own, it has the sum of its members' budgets."""

    group_id: ParticipantId = Field(description="Id that the client chooses, unique among the groups.")
    total_time_ms: DurationMs | None = Field(
        default=None, description="Budget in ms, 1 s to 24 h; by default, the sum of its members' budgets."
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
        """Return a group's budget in ms: its own, or the sum of its members' budgets."""
        if group.total_time_ms is not None:
            return group.total_time_ms
        return sum(each.total_time_ms or 0 for each in self.participants if each.group_id == group.group_id)


class Start(CommandBody):
    """Start the clock of a participant."""

    participant_id: ParticipantId | None = Field(
        default=None, description="The first active participant; else the first in rotation."
    )


class Switch(CommandBody):
    """End the active participant's cycle.

    If given, `participant_id` must be the active participant: then pressing a clock button twice switches only once.
    `next_participant_id` overrides the rotation.
    """

    participant_id: ParticipantId | None = Field(
        default=None,
        description="The participant whose cycle ends; if another is active, nothing is changed (409).",
    )
    next_participant_id: ParticipantId | None = Field(
        default=None, description="The next active participant; by default, the next in rotation."
    )


class Complete(CommandBody):
    """Complete a session; the state keeps the reason and the result."""

    reason: Reason | None = Field(default=None, description="Reason, for the event and the state; 1 to 500 characters.")
    result: SmallJson | None = Field(
        default=None, description="Result, for the event and the state: any JSON of at most 1,024 bytes."
    )


class Cancel(CommandBody):
    """Cancel a session."""

    reason: Reason | None = Field(default=None, description="Reason, for the event; 1 to 500 characters.")


class Adjust(CommandBody):
    """Change the remaining time of one budget: the named one, or the one that runs or would run."""

    op: Literal["add", "set", "at_least"] = Field(
        description="Add `ms` to the remaining time, set it to `ms`, or raise it to `ms` if it is less."
    )
    ms: Annotated[int, Field(ge=-86_400_000, le=86_400_000)] = Field(
        description="Amount in ms, at most 24 h; negative only with `add`."
    )
    participant_id: ParticipantId | None = Field(
        default=None,
        description="The owner of the budget; in `per_group`, its group. Not together with `group_id`.",
    )
    group_id: ParticipantId | None = Field(
        default=None, description="The group that owns the budget; only in `per_group`."
    )
    not_after_ms: Annotated[int, Field(ge=0, le=2**53)] | None = Field(
        default=None,
        description="Instant of the server's clock, in ms since 1970, beyond which time is not added.",
    )
    reason: Reason | None = Field(default=None, description="Reason, for the event; 1 to 500 characters.")

    @classmethod
    def faults_between(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        """Yield an error for a negative amount or two targets."""
        ms = raw.get("ms")
        if raw.get("op") in ("set", "at_least") and type(ms) is int and ms < 0:
            yield InitErrorDetails(
                type=custom("negative", f"must not be negative with {raw['op']}"), loc=("ms",), input=None
            )
        if raw.get("participant_id") is not None and raw.get("group_id") is not None:
            message = "cannot be given together with participant_id"
            yield InitErrorDetails(type=custom("contradiction", message), loc=("group_id",), input=None)


class Update(CommandBody):
    """Change the metadata by a merge patch (RFC 7396): null removes a member."""

    metadata: Metadata = Field(
        description="Members to set, or to remove (null); the result has at most 16,384 bytes as JSON."
    )


def merge_patch(target: Any, patch: Any) -> Any:
    """Return the result of applying a merge patch (RFC 7396) to a document; changes neither."""
    if not isinstance(patch, dict):
        return patch
    merged = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = merge_patch(merged.get(name), value)
    return merged


def session_id(text: str) -> str:
    """Return a session id in lower case. Raises `ValidationFailed` if it is not a UUID."""
    if not re.match(UUID_PATTERN, text) or text.endswith("\n"):
        raise ValidationFailed.of("session_id", MESSAGES["uuid"], "uuid")
    return text.lower()

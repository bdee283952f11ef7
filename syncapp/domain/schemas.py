"""What clients may send: the models that validate it and from which the OpenAPI document is made.

Every fault of a request is reported at once, 50 at most, each as {field, message, code}; unknown fields are
refused by name. Durations are milliseconds.
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

from syncapp.domain.create_rules import faults_of_session
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

MOST_WARNINGS = 8


class CommandBody(Request):
    """What any command may claim about the session it acts on; another version is a conflict."""

    expected_version: Annotated[int, Field(ge=1, le=2**53)] | None = Field(
        default=None, description="Version that the session must have; with another one nothing is changed (409)."
    )
    expected_epoch: Annotated[int, Field(ge=1, le=2**53)] | None = Field(
        default=None, description="Epoch that the session must have; with another one nothing is changed (409)."
    )


class NewParticipant(Request):
    """A participant of a new session; the list's order is the rotation."""

    participant_id: ParticipantId = Field(description="Id of the caller's choice, unique in the session.")
    total_time_ms: DurationMs | None = Field(
        default=None,
        description="Budget in ms, 1 s to 24 h. Required in `per_participant`; in `per_group` if the group has none.",
    )
    participant_index: Annotated[int, Field(ge=0, lt=MAX_PARTICIPANTS)] | None = Field(
        default=None,
        description="Place in the rotation, from 0, instead of the list's order; for all participants or none.",
    )
    group_id: ParticipantId | None = Field(
        default=None, description="The participant's group; required in `per_group` only."
    )


class NewGroup(Request):
    """A group of a new session; without a budget of its own it has the sum of its members'."""

    group_id: ParticipantId = Field(description="Id of the caller's choice, unique among the groups.")
    total_time_ms: DurationMs | None = Field(
        default=None, description="Budget in ms, 1 s to 24 h; else its members' sum."
    )


class ActionOnTimeout(BaseModel):
    """What happens at zero; further keys are the caller's, stored and echoed in the timeout event."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    type: Literal["end_session", "skip_cycle", "notify"] = Field(
        description="End the session, pass the turn on, or only tell and let the clock run on below zero."
    )


class CreateSession(Request):
    """A new session.

    `total_time_ms` is the budget of `global`. In `per_participant` and `per_group` it is only shown, by default as the
    sum of all budgets; `per_cycle` and `count_up` ignore it.
    """

    most: ClassVar[Mapping[str, int]] = {
        "participants": MAX_PARTICIPANTS,
        "groups": MAX_PARTICIPANTS,
        "warn_at_ms": MOST_WARNINGS,
    }

    session_id: SessionId | None = Field(
        default=None, description="Id of the new session; without one the server makes one."
    )
    sync_mode: Mode = Field(description="What time is counted for (docs/clock.md).")
    participants: Annotated[list[NewParticipant], Field(max_length=MAX_PARTICIPANTS)] = Field(
        default_factory=list,
        description="At most 1,000, in rotation order; at least one in `per_participant` and `per_group`.",
    )
    groups: Annotated[list[NewGroup], Field(max_length=MAX_PARTICIPANTS)] | None = Field(
        default=None, description="At most 1,000, in the order of their turns; only in `per_group`."
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
        default=None, description="Cap of the stopwatch in ms, 1 s to 24 h; only in `count_up`."
    )
    max_cycles: Annotated[int, Field(ge=1, le=1_000_000)] | None = Field(
        default=None, description="Number of cycles after which the session is completed."
    )
    increment_ms: Annotated[int, Field(ge=0, le=60_000)] = Field(
        default=0,
        description="Credited to the mover at each switch, in ms, 0 by default; in `per_participant` and `per_group`.",
    )
    warn_at_ms: Annotated[list[WarningMs], Field(min_length=1, max_length=MOST_WARNINGS)] | None = Field(
        default=None,
        description="Up to 8 different thresholds in ms: a `time_warning` is told when the clock comes down to one.",
        json_schema_extra={"uniqueItems": True},
    )
    action_on_timeout: Annotated[ActionOnTimeout, AfterValidator(without_nul), at_most(MAX_ACTION_BYTES)] | None = (
        Field(default=None, description="What happens at zero, `end_session` by default; at most 4,096 bytes as JSON.")
    )
    idle_timeout_s: Annotated[int, Field(ge=1, le=MAX_IDLE_TIMEOUT_S)] | None = Field(
        default=None,
        description="How long the session lives when it is abandoned, in s, 30 days at most; a day by default.",
    )
    metadata: Metadata = Field(
        default_factory=dict, description="The caller's own document, kept as it is; at most 16,384 bytes as JSON."
    )

    @classmethod
    def faults_between(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        """Yield what does not fit between mode, participants, groups and times."""
        for field, message, code in faults_of_session(raw):
            location = tuple(int(part) if part.isdigit() else part for part in field.split("."))
            yield InitErrorDetails(type=custom(code, message), loc=location, input=None)

    def in_rotation(self) -> list[NewParticipant]:
        """Return the participants in rotation order."""
        return sorted(self.participants, key=lambda person: person.participant_index or 0)

    def in_groups(self) -> list[NewGroup]:
        """Return the groups in order: those given, or those the participants name."""
        if not MODES[self.sync_mode].has_group_budgets:
            return []
        named = self.groups or [NewGroup(group_id=person.group_id or "") for person in self.in_rotation()]
        return list({group.group_id: group for group in named}.values())

    def budget_of(self, group: NewGroup) -> int:
        """Return a group's budget in ms: its own, or the sum of its members'."""
        if group.total_time_ms is not None:
            return group.total_time_ms
        return sum(person.total_time_ms or 0 for person in self.participants if person.group_id == group.group_id)


class Start(CommandBody):
    """Start the clock; who begins, or the first in rotation."""

    participant_id: ParticipantId | None = Field(default=None, description="Who begins; else the first in rotation.")


class Switch(CommandBody):
    """End the active participant's cycle.

    `participant_id`, when given, must be the active participant: a double press of a clock button is
    then harmless. `next_participant_id` overrides the rotation.
    """

    participant_id: ParticipantId | None = Field(
        default=None, description="Who moves; when it is somebody else's turn, nothing is changed (409)."
    )
    next_participant_id: ParticipantId | None = Field(
        default=None, description="Whose turn it becomes, out of rotation."
    )


class Complete(CommandBody):
    """End a session as intended; the state keeps why, and what came of it: any JSON of at most 1,024 bytes."""

    reason: Reason | None = Field(default=None, description="Why, for the event and the state; 1 to 500 characters.")
    result: SmallJson | None = Field(
        default=None, description="What came of it, for the event and the state: any JSON of at most 1,024 bytes."
    )


class Cancel(CommandBody):
    """Cancel a session."""

    reason: Reason | None = Field(default=None, description="Why, for the event; 1 to 500 characters.")


class Adjust(CommandBody):
    """Change what is left of one budget: the named one, or the one that runs or would run."""

    op: Literal["add", "set", "at_least"] = Field(
        description="Add `ms` to what is left, set it to `ms`, or raise it to `ms` if it is less."
    )
    ms: Annotated[int, Field(ge=-86_400_000, le=86_400_000)] = Field(
        description="Amount in ms, 24 h at most; negative only to `add`."
    )
    participant_id: ParticipantId | None = Field(
        default=None, description="Whose budget it is (in `per_group` the group's); not together with `group_id`."
    )
    group_id: ParticipantId | None = Field(default=None, description="Which group's budget it is; only in `per_group`.")
    not_after_ms: Annotated[int, Field(ge=0, le=2**53)] | None = Field(
        default=None, description="Server instant, in ms since 1970, beyond which the budget is not raised."
    )
    reason: Reason | None = Field(default=None, description="Why, for the event; 1 to 500 characters.")

    @classmethod
    def faults_between(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        """Yield an amount or a target that makes no sense."""
        ms = raw.get("ms")
        if raw.get("op") in ("set", "at_least") and type(ms) is int and ms < 0:
            yield InitErrorDetails(
                type=custom("negative", f"must not be negative to {raw['op']}"), loc=("ms",), input=None
            )
        if raw.get("participant_id") is not None and raw.get("group_id") is not None:
            message = "cannot be given together with participant_id"
            yield InitErrorDetails(type=custom("contradiction", message), loc=("group_id",), input=None)


class Update(CommandBody):
    """Change metadata by a merge-patch (RFC 7396): null removes a member."""

    metadata: Metadata = Field(
        description="Members to set, or to remove (null); the result has at most 16,384 bytes as JSON."
    )


def merge_patch(target: Any, patch: Any) -> Any:
    """Return the document that RFC 7396 makes of a target and a patch; both stay as they are."""
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
    """Return a session id in lower case; raises `ValidationFailed` when it is not a UUID."""
    if not re.match(UUID_PATTERN, text) or text.endswith("\n"):
        raise ValidationFailed.of("session_id", MESSAGES["uuid"], "uuid")
    return text.lower()

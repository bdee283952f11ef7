"""Bodies of the commands on a session; `schemas` has that of a create. Durations are in ms."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidatorFunctionWrapHandler, WrapValidator
from pydantic_core import InitErrorDetails

from syncapp.domain.field_types import MESSAGES, Metadata, ParticipantId, Reason, SmallJson
from syncapp.domain.limits import MAX_PARTICIPANTS, MAX_TAKEBACK_CYCLES
from syncapp.domain.time_control import MAX_PERIODS, MAX_STAGE_MOVES, MAX_STAGES, MAX_TIME_MS
from syncapp.domain.validation import Request, custom

CLOCK_CHANGES = ("stage", "moves_to_next_stage", "periods_left", "period_remaining_ms", "block_moves_left")
"""Fields of `Adjust` that change a clock with a time control, in the order of lua/adjust_session.lua."""


def _all_or_list(value: Any, read_list: ValidatorFunctionWrapHandler) -> Any:
    return value if value == "all" else read_list(value)


def _or_all(schema: dict[str, Any]) -> None:
    """Change the field's schema: it may also be `all`."""
    schema["anyOf"] = [schema["anyOf"][0], {"const": "all", "type": "string"}, *schema["anyOf"][1:]]


Targets = Annotated[list[ParticipantId], Field(min_length=1, max_length=MAX_PARTICIPANTS), WrapValidator(_all_or_list)]
"""A list of ids, or `all`."""


class CommandBody(Request):
    """The preconditions that any command may have; a session at another version or epoch is a conflict."""

    expected_version: Annotated[int, Field(ge=1, le=2**53)] | None = Field(
        default=None, description="Version that the session must have; at any other version, nothing is changed (409)."
    )
    expected_epoch: Annotated[int, Field(ge=1, le=2**53)] | None = Field(
        default=None, description="Epoch that the session must have; in any other epoch, nothing is changed (409)."
    )


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
    spent_ms: Annotated[int, Field(ge=0, le=MAX_TIME_MS)] | None = Field(
        default=None,
        description="How long the client says that the participant needed, in ms, since its turn was shown. With "
        "`lag_compensation`, over a WebSocket, the rest is lag, which is not charged within limits.",
    )
    acted_at_ms: Annotated[int, Field(ge=0, le=2**53)] | None = Field(
        default=None,
        description="When the participant acted, by the server's clock, in ms since 1970: instead of `spent_ms`, with "
        "the scope `session:time`. Within the quota of `lag_compensation`.",
    )

    @classmethod
    def faults_between(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        """Yield an error if the time of the act is given twice."""
        if raw.get("spent_ms") is not None and raw.get("acted_at_ms") is not None:
            message = "cannot be given together with spent_ms"
            yield InitErrorDetails(type=custom("contradiction", message), loc=("acted_at_ms",), input=None)


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
    """Change the remaining time of budgets: of the named ones, or of the one that runs or would run.

    With a time control, also the stage, the periods or the block of their owners.
    """

    max_lengths: ClassVar[Mapping[str, int]] = {"targets": MAX_PARTICIPANTS}

    op: Literal["add", "set", "at_least"] | None = Field(
        default=None,
        description="Add `ms` to the remaining time, set it to `ms`, or raise it to `ms` if it is less. Required, "
        "unless something else is changed.",
    )
    ms: Annotated[int, Field(ge=-MAX_TIME_MS, le=MAX_TIME_MS)] | None = Field(
        default=None, description="Amount in ms, at most 30 days; negative only with `add`. Required with `op`."
    )
    participant_id: ParticipantId | None = Field(
        default=None,
        description="The owner of the budget; in `per_group`, its group. Not together with `group_id` or `targets`.",
    )
    group_id: ParticipantId | None = Field(
        default=None, description="The group that owns the budget; only in `per_group`."
    )
    targets: Targets | None = Field(
        default=None,
        description="Several owners of budgets, in one commit: ids of participants (in `per_group`, groups), or `all`.",
        json_schema_extra=_or_all,
    )
    not_after_ms: Annotated[int, Field(ge=0, le=2**53)] | None = Field(
        default=None,
        description="Instant of the server's clock, in ms since 1970, beyond which time is not added.",
    )
    stage: Annotated[int, Field(ge=1, le=MAX_STAGES)] | None = Field(
        default=None,
        description="Put the owner into this stage, from 1, with its moves and periods, but without its time.",
    )
    moves_to_next_stage: Annotated[int, Field(ge=1, le=MAX_STAGE_MOVES)] | None = Field(
        default=None, description="Moves that the owner has to make until the next stage."
    )
    periods_left: Annotated[int, Field(ge=1, le=MAX_PERIODS)] | None = Field(
        default=None, description="Periods left, counting the running one; in a stage with byo-yomi."
    )
    period_remaining_ms: Annotated[int, Field(ge=0, le=MAX_TIME_MS)] | None = Field(
        default=None, description="What is left of the running period or block, in ms."
    )
    block_moves_left: Annotated[int, Field(ge=1, le=MAX_STAGE_MOVES)] | None = Field(
        default=None, description="Moves left in the running block."
    )
    reason: Reason | None = Field(default=None, description="Reason, for the event; 1 to 500 characters.")

    @classmethod
    def faults_between(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        """Yield an error for a negative amount, for two kinds of targets, and if nothing would change."""
        ms, op = raw.get("ms"), raw.get("op")
        given = {name for name in raw if raw[name] is not None}
        changes_clock = given.intersection(CLOCK_CHANGES)
        if "op" not in given and ("ms" in given or not changes_clock):
            yield _fault("op", MESSAGES["missing"], "missing")
        if "ms" not in given and ("op" in given or not changes_clock):
            yield _fault("ms", MESSAGES["missing"], "missing")
        if op in ("set", "at_least") and type(ms) is int and ms < 0:
            yield _fault("ms", f"must not be negative with {op}", "negative")
        named = [name for name in ("participant_id", "group_id", "targets") if name in given]
        for name in named[1:]:
            yield _fault(name, f"cannot be given together with {named[0]}", "contradiction")

    def changes(self) -> dict[str, Any]:
        """Return everything but the preconditions, by name."""
        return {name: getattr(self, name) for name in type(self).model_fields if name not in CommandBody.model_fields}


def _fault(field: str, message: str, code: str) -> InitErrorDetails:
    return InitErrorDetails(type=custom(code, message), loc=(field,), input=None)


class Takeback(CommandBody):
    """Take back the last cycles: turn, clocks, increments and stages become as they were when the first one began."""

    cycles: Annotated[int, Field(ge=1, le=MAX_TAKEBACK_CYCLES)] = Field(
        default=1, description="How many cycles; at most `takeback_cycles` of the session."
    )
    reason: Reason | None = Field(default=None, description="Reason, for the event; 1 to 500 characters.")


class Reopen(CommandBody):
    """Reopen a session that ended by mistake: it is paused, with the clocks as they were at its end."""

    reason: Reason | None = Field(default=None, description="Reason, for the event; 1 to 500 characters.")


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

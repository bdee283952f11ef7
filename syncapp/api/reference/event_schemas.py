"""Model of a commit's event."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from syncapp.api.reference.answer_types import Answer, absent


class AdjustedBudget(Answer):
    """What an adjustment of several budgets did to one of them."""

    remaining_ms: int = Field(description="What is left afterwards, in ms.")
    adjusted_ms: int = Field(description="By how much the adjustment changed the budget, in ms.")


class Event(BaseModel):
    """A commit's event: its type, the instant at which it took effect, and what it concerns.

    Fields without a value are absent. docs/protocol.md lists the fields of each type.
    """

    model_config = ConfigDict(extra="allow", strict=True)

    type: str = Field(description="The type of the event, such as `cycle_switched`.", examples=["cycle_switched"])
    at_ms: int = Field(ge=0, description="When it took effect, in ms since 1970; for a timeout, the deadline.")
    participant_id: str | None = absent("The participant concerned; for a switch, the one that moved.")
    next_participant_id: str | None = absent("The participant whose turn it is afterwards.")
    group_id: str | None = absent("The group concerned; only in `per_group`.")
    remaining_ms: int | None = Field(
        default=None,
        description="Remaining budget, in ms; negative in overtime and within a margin, null without a budget.",
    )
    adjusted_ms: int | None = absent("By how much an adjustment changed the budget, in ms.")
    adjusted: dict[str, AdjustedBudget] | None = absent(
        "What an adjustment with `targets` did, by the id of the budget's owner."
    )
    threshold_ms: int | None = absent("The threshold of a warning, in ms.", ge=1)
    cycles: int | None = absent("How many cycles were taken back.", ge=1)
    reason: str | None = absent("The reason that was given, or why the session did it by itself; up to 500 characters.")
    result: Any = absent("The result that a `complete` command gave: any JSON of at most 1,024 bytes.")
    action_on_timeout: dict[str, Any] | None = absent(
        "What happens when the clock reaches zero, with the members that the create added; only for timeouts."
    )
    stage: int | None = absent("The stage that begins, or that an adjustment set, from 1.", ge=1, le=9)
    moves_to_next_stage: int | None = Field(
        default=None,
        ge=1,
        description="Moves to make in the stage that begins, or as an adjustment set them; null if none follows.",
    )
    periods_left: int | None = absent("Periods left, counting the one that begins, or as an adjustment set them.", ge=1)
    period_remaining_ms: int | None = absent(
        "What is left of the period or block that begins, in ms, or what an adjustment set."
    )
    block_moves_left: int | None = absent("Moves to make in the block that begins, or that an adjustment set.", ge=1)
    spent_ms: int | None = absent(
        "How long the turn took that the switch ended, in ms, without pauses and compensated lag; with a time control.",
        ge=0,
    )
    bonus_ms: int | None = absent(
        "What the move gained, in ms: delay, increment, the time of a new stage; negative if it was charged more than "
        "it took."
    )
    lag_ms: int | None = absent("Lag that was not charged, in ms; with `lag_compensation`.", ge=0)

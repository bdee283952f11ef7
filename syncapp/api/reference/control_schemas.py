"""Models of time controls in responses, and of clocks that have one (docs/time-controls.md)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from syncapp.api.reference.answer_types import Answer, absent


class CanonicalStage(Answer):
    """A stage of a time control; it has only the fields that it uses."""

    time_ms: int | None = absent("Granted when the stage begins, in ms; absent with `per_move_ms`.", ge=0)
    moves: int | None = absent("The owner's moves after which the next stage begins.", ge=1)
    increment_ms: int | None = absent("Fischer: added after each completed move, in ms.", ge=1)
    cap_ms: int | None = absent("An increment does not raise the clock above this, in ms.", ge=1)
    delay_ms: int | None = absent("Delay of each move, in ms.", ge=1)
    delay: Literal["simple", "bronstein"] | None = absent("The kind of delay.")
    periods: int | None = absent("Byo-yomi: the number of periods after the main time.", ge=1)
    period_moves: int | None = absent("Canadian: the moves to make in each block after the main time.", ge=1)
    period_ms: int | None = absent("Length of a period or a block, in ms.", ge=1)
    per_move_ms: int | None = absent("Time for each move, in ms; what a move does not use is lost.", ge=1)
    hourglass: Literal[True] | None = absent("What one owner uses, the others gain.")
    repeat: Literal[True] | None = absent("The stage begins again after `moves`, with its time.")


class CanonicalTimeControl(Answer):
    """A time control in its canonical form, whatever form it was given in."""

    stages: list[CanonicalStage] = Field(description="One to nine stages, in order.")
    first_bonus: Literal["after_move", "before_move"] = Field(
        description="Whether the increment, or the Bronstein delay, of a move is granted after it or before it."
    )
    margin_ms: int = Field(ge=0, description="How far below zero a move is still accepted, in ms.")
    charge_unit_ms: int = Field(ge=1, description="Moves are charged in whole units of so many ms, rounded down.")
    min_charge_ms: int = Field(ge=0, description="Least charge for a move, in ms.")


class CompensatedLag(Answer):
    """How much network delay is not charged to a move."""

    per_move_ms: int = Field(ge=0, description="What an owner's quota gains with each move, in ms.")
    quota_ms: int = Field(ge=1, description="The quota, full at the start, in ms.")


class ControlledClock(Answer):
    """The members that an owner of a clock with a time control has; as of `cycle_started_at`, as its other times."""

    stage: int | None = absent("The stage, from 1; with a time control.", ge=1, le=9)
    moves_to_next_stage: int | None = Field(
        default=None,
        description="Moves until the next stage; null in a stage without `moves`. Only with a time control.",
    )
    periods_left: int | None = Field(
        default=None,
        description="Byo-yomi periods left, counting the running one; null in other stages. Only with a time control.",
    )
    period_remaining_ms: int | None = Field(
        default=None,
        description="What is left of the running period or block, in ms; null while there is main time. Only with a "
        "time control.",
    )
    block_moves_left: int | None = Field(
        default=None, description="Moves left in the running block; null without one. Only with a time control."
    )
    turn_ms: int | None = absent(
        "Time used in the owner's present turn, in ms, without pauses; 0 between its turns. With a time control.", ge=0
    )
    lag_left_ms: int | None = absent(
        "How much lag may still be compensated, in ms; only with `lag_compensation`.", ge=0
    )


class OwnControl(ControlledClock):
    """An owner of a clock, with its time control if it is not the session's."""

    time_control: CanonicalTimeControl | None = absent("The owner's own time control; absent if it has the session's.")
    time_control_notation: str | None = absent("The owner's own time control as a notation, with its dialect.")

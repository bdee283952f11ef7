"""Controls from what a notation says, and the parts of a control that notations ask for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from syncapp.domain.notation.durations import NotationError
from syncapp.domain.time_control import Stage, TimeControl
from syncapp.errors import ValidationFailed

Kind = Literal["absolute", "fischer", "simple", "bronstein", "byo-yomi", "canadian", "per move", "hourglass"]


def control_of(*stages: dict[str, Any], **rules: Any) -> TimeControl:
    """Return the normalized control with these stages and rules, without those that are None.

    Raises `NotationError` if it is beyond the limits or contradicts itself.
    """
    raw = {
        "stages": [{name: value for name, value in stage.items() if value is not None} for stage in stages],
        **{name: value for name, value in rules.items() if value is not None},
    }
    try:
        return TimeControl.parse(raw).normalized()
    except ValidationFailed as failed:
        fault = failed.details[0]
        raise NotationError(f"is not possible: {fault['field']} {fault['message']}") from None


def kind_of(stage: Stage) -> Kind:
    """Return the kind of a normalized stage; byo-yomi may have an increment too."""
    kinds: tuple[tuple[Any, Kind], ...] = (
        (stage.hourglass, "hourglass"),
        (stage.per_move_ms, "per move"),
        (stage.periods, "byo-yomi"),
        (stage.period_moves, "canadian"),
        (stage.increment_ms, "fischer"),
        (stage.delay, stage.delay or "absolute"),
    )
    return next((kind for value, kind in kinds if value is not None), "absolute")


@dataclass(frozen=True)
class Times:
    """The numbers of a stage, 0 for those that it does not have."""

    main_ms: int
    increment_ms: int
    period_ms: int


def only_stage(control: TimeControl, *kinds: Kind) -> tuple[Stage, Times]:
    """Return the only stage and its times. Raises `NotationError` for several stages or a kind that is not in kinds."""
    if len(control.stages) > 1:
        raise NotationError("has several stages")
    stage = control.stages[0]
    if kind_of(stage) not in kinds:
        raise NotationError(f"is {kind_of(stage)}")
    return stage, Times(stage.time_ms or 0, stage.increment_ms or 0, stage.period_ms or 0)


def main_time(stage: Stage) -> int:
    """Return what a stage grants on entry in ms, 0 if it is per move."""
    return stage.time_ms or 0

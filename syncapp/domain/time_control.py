"""Time controls: all rules of one clock (docs/time-controls.md), as clients send them and as states show them.

Durations are in ms. `TimeControl.normalized` drops what has no effect, such as an increment of 0, so that two controls
are equal if they are written alike.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field
from pydantic_core import InitErrorDetails

from syncapp.domain.validation import Request, custom

MAX_STAGES = 9
MAX_PERIODS = 100
MAX_SESSION_PERIODS = 10_000
"""Of all clocks of a session: when all are overdue, one read has to apply them."""
MAX_STAGE_MOVES = 1000
MAX_TIME_MS = 2_592_000_000
"""30 days."""
MAX_CHARGE_MS = 3_600_000

TimeMs = Annotated[int, Field(ge=0, le=MAX_TIME_MS)]
PositiveMs = Annotated[int, Field(ge=1, le=MAX_TIME_MS)]
Delay = Literal["simple", "bronstein"]
FirstBonus = Literal["after_move", "before_move"]

_KINDS = {
    "increment_ms": "increment_ms",
    "cap_ms": "increment_ms",
    "delay_ms": "delay_ms",
    "delay": "delay_ms",
    "periods": "periods",
    "period_moves": "period_moves",
    "per_move_ms": "per_move_ms",
    "hourglass": "hourglass",
}
"""The fields of each kind of stage, with the field that stands for the kind."""
_COMPANIONS = (
    ("cap_ms", ("increment_ms",)),
    ("delay_ms", ("delay",)),
    ("delay", ("delay_ms",)),
    ("periods", ("period_ms",)),
    ("period_moves", ("period_ms",)),
    ("period_ms", ("periods", "period_moves")),
)
"""Fields that need one of others."""


class Stage(Request):
    """A stage: the time that is granted on entry, and at most one kind of bonus or overtime."""

    time_ms: TimeMs | None = Field(
        default=None,
        description="Granted when the stage begins, added to what is left, in ms; 0 to 30 days. Required, except with "
        "`per_move_ms`.",
    )
    moves: Annotated[int, Field(ge=1, le=MAX_STAGE_MOVES)] | None = Field(
        default=None,
        description="The owner's moves after which the next stage begins; required, except in the last stage.",
    )
    increment_ms: TimeMs | None = Field(default=None, description="Fischer: added after each completed move, in ms.")
    cap_ms: PositiveMs | None = Field(
        default=None, description="An increment does not raise the clock above this, in ms; with `increment_ms` only."
    )
    delay_ms: TimeMs | None = Field(default=None, description="Delay of each move, in ms; needs `delay`.")
    delay: Delay | None = Field(
        default=None,
        description="`simple`: the clock waits `delay_ms` before it falls. `bronstein`: it falls at once, and what the "
        "move used, at most `delay_ms`, is given back after it.",
    )
    periods: Annotated[int, Field(ge=1, le=MAX_PERIODS)] | None = Field(
        default=None, description="Byo-yomi: the number of periods of `period_ms` after the main time."
    )
    period_moves: Annotated[int, Field(ge=1, le=MAX_STAGE_MOVES)] | None = Field(
        default=None, description="Canadian: the moves to make in each block of `period_ms` after the main time."
    )
    period_ms: PositiveMs | None = Field(default=None, description="Length of a period or a block, in ms.")
    per_move_ms: PositiveMs | None = Field(
        default=None, description="Time for each move, in ms; what a move does not use is lost."
    )
    hourglass: bool | None = Field(
        default=None, description="What one owner uses, the others gain. Must be the only stage, and for everybody."
    )
    repeat: bool | None = Field(default=None, description="The last stage begins again after `moves`, with its time.")

    @classmethod
    def faults_between(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        """Yield the errors between the fields of one stage."""
        given = {name for name in raw if raw[name] is not None and raw[name] is not False}
        kinds = list(dict.fromkeys(_KINDS[name] for name in _KINDS if name in given))
        if kinds == ["increment_ms", "periods"] and "cap_ms" not in given:
            kinds = ["periods"]  # CSA combines these two
        for kind in kinds[1:]:
            yield _fault(kind, f"cannot be given together with {kinds[0]}", "contradiction")
        for name, needed in _COMPANIONS:
            if name in given and not given.intersection(needed):
                yield _fault(name, f"needs {' or '.join(needed)}", "missing")
        if "per_move_ms" in given:
            if raw.get("time_ms"):
                yield _fault("time_ms", "cannot be given together with per_move_ms", "contradiction")
        elif "time_ms" not in given:
            yield _fault("time_ms", "is required", "missing")
        if "repeat" in given and "moves" not in given:
            yield _fault("moves", "is required with repeat", "missing")

    def normalized(self) -> Self:
        """Return this stage without the fields that have no effect."""
        dropped: dict[str, None] = {name: None for name in ("hourglass", "repeat") if getattr(self, name) is False}
        if self.increment_ms == 0:
            dropped |= {"increment_ms": None, "cap_ms": None}
        if self.delay_ms == 0:
            dropped |= {"delay_ms": None, "delay": None}
        if self.per_move_ms is not None:
            dropped["time_ms"] = None
        return self.model_copy(update=dropped)


class TimeControl(Request):
    """All rules of one clock: one to nine stages, and what holds in all of them."""

    max_lengths: ClassVar[Mapping[str, int]] = {"stages": MAX_STAGES}

    stages: Annotated[list[Stage], Field(min_length=1, max_length=MAX_STAGES)] = Field(
        description="One to nine stages, in order."
    )
    first_bonus: FirstBonus = Field(
        default="after_move",
        description="`before_move` grants the increment, or the Bronstein delay, of a move before that move: the first "
        "one at the start. `after_move` grants it when the move is completed.",
    )
    margin_ms: TimeMs = Field(
        default=0, description="How far below zero a move is still accepted, in ms. The clock stays negative."
    )
    charge_unit_ms: Annotated[int, Field(ge=1, le=MAX_CHARGE_MS)] = Field(
        default=1, description="Moves are charged in whole units, rounded down; 1 ms to 1 h."
    )
    min_charge_ms: Annotated[int, Field(ge=0, le=MAX_CHARGE_MS)] = Field(
        default=0, description="Least charge for a move, in ms; at most 1 h."
    )

    @classmethod
    def faults_between(cls, raw: dict[str, Any]) -> Iterator[InitErrorDetails]:
        """Yield the errors between the stages."""
        stages = raw.get("stages")
        if not isinstance(stages, list):
            return
        for index, stage in enumerate(stages[:MAX_STAGES]):
            if isinstance(stage, dict):
                faults = list(_faults_of(stage, index + 1 == len(stages), len(stages), raw))
                starts_at_zero = index == 0 or _drops_its_rest(stages[index - 1])
                if starts_at_zero and stage.get("time_ms") == 0 and (message := _without_time(stage, raw)):
                    faults.append(("time_ms", message, "no_time"))
                for field, message, code in faults:
                    yield InitErrorDetails(type=custom(code, message), loc=("stages", index, field), input=None)

    def normalized(self) -> Self:
        """Return this control without the fields that have no effect."""
        stages = [stage.normalized() for stage in self.stages]
        has_bonus = any(stage.increment_ms or stage.delay == "bronstein" for stage in stages)
        return self.model_copy(
            update={"stages": stages, "first_bonus": self.first_bonus if has_bonus else "after_move"}
        )

    def document(self) -> dict[str, Any]:
        """Return this control as JSON: its canonical form if it is normalized. Stages have only the fields they use."""
        return {
            "stages": [stage.model_dump(exclude_none=True) for stage in self.stages],
            "first_bonus": self.first_bonus,
            "margin_ms": self.margin_ms,
            "charge_unit_ms": self.charge_unit_ms,
            "min_charge_ms": self.min_charge_ms,
        }

    @property
    def is_hourglass(self) -> bool:
        """Whether what one owner uses, the others gain."""
        return self.stages[0].hourglass is True


def _faults_of(stage: dict[str, Any], is_last: bool, count: int, raw: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    """Yield field, message and code of each error of a stage that concerns other stages or the whole control."""
    has_moves, repeats = stage.get("moves") is not None, bool(stage.get("repeat"))
    if not is_last and not has_moves and not repeats:
        yield "moves", "is required, because another stage follows", "missing"
    if not is_last and repeats:
        yield "repeat", "is allowed in the last stage only", "contradiction"
    if is_last and has_moves and not repeats:
        yield "moves", "must not be given in the last stage, unless repeat is true", "contradiction"
    if stage.get("hourglass"):
        if count > 1 or has_moves:
            yield "hourglass", "must be the only stage, without moves", "contradiction"
        if raw.get("charge_unit_ms", 1) != 1 or raw.get("min_charge_ms", 0) != 0:
            yield "hourglass", "cannot be combined with charge_unit_ms or min_charge_ms", "contradiction"


def _drops_its_rest(stage: Any) -> bool:
    """Return whether no time of a stage is left in the next one."""
    return isinstance(stage, dict) and stage.get("per_move_ms") is not None


def _without_time(stage: dict[str, Any], raw: dict[str, Any]) -> str | None:
    """Return the error of a stage that begins without main time if its owner would be out of time at once."""
    if stage.get("hourglass"):
        return "must be more than 0 in an hourglass"
    has_delay = stage.get("delay") == "simple" and stage.get("delay_ms")
    if has_delay or any(stage.get(name) for name in ("periods", "period_moves", "per_move_ms")):
        return None
    if not stage.get("increment_ms") and not stage.get("delay_ms"):
        return "must be more than 0, because nothing else gives time"
    if raw.get("first_bonus") == "before_move":
        return None
    return "must be more than 0, unless first_bonus is before_move: the first move would have no time"


def _fault(field: str, message: str, code: str) -> InitErrorDetails:
    return InitErrorDetails(type=custom(code, message), loc=(field,), input=None)

"""Random time controls for property tests, and short ways to write the expected ones."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from syncapp.domain.time_control import (
    MAX_CHARGE_MS,
    MAX_PERIODS,
    MAX_STAGE_MOVES,
    MAX_STAGES,
    MAX_TIME_MS,
    TimeControl,
)
from syncapp.errors import ValidationFailed

RULES = {"first_bonus": "after_move", "margin_ms": 0, "charge_unit_ms": 1, "min_charge_ms": 0}
"""The rules of a control that names none."""


def document(*stages: dict[str, Any], **rules: Any) -> dict[str, Any]:
    """Return the canonical form of a control with these stages and rules."""
    return {"stages": list(stages), **RULES, **rules}


def _times(least: int) -> st.SearchStrategy[int]:
    """Round times and odd ones, from `least` ms to 30 days."""
    return st.one_of(
        st.integers(least, MAX_TIME_MS),
        st.integers(1, 300).map(lambda seconds: seconds * 1000),
        st.integers(1, 300).map(lambda minutes: minutes * 60_000),
        st.integers(1, 30).map(lambda days: days * 86_400_000),
        st.sampled_from([least, MAX_TIME_MS]),
    )


_MOVES = st.integers(1, MAX_STAGE_MOVES) | st.sampled_from([1, 20, 40])
_PERIODS = st.integers(1, MAX_PERIODS)
_POSITIVE = _times(1)
_ANY_TIME = _times(0)

_KINDS: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "absolute": st.just({}),
    "fischer": st.fixed_dictionaries({"increment_ms": _ANY_TIME}, optional={"cap_ms": _POSITIVE}),
    "simple": st.fixed_dictionaries({"delay_ms": _POSITIVE, "delay": st.just("simple")}),
    "bronstein": st.fixed_dictionaries({"delay_ms": _ANY_TIME, "delay": st.just("bronstein")}),
    "byo-yomi": st.fixed_dictionaries({"periods": _PERIODS, "period_ms": _POSITIVE}),
    "byo-yomi with increment": st.fixed_dictionaries(
        {"periods": _PERIODS, "period_ms": _POSITIVE, "increment_ms": _ANY_TIME}
    ),
    "canadian": st.fixed_dictionaries({"period_moves": _MOVES, "period_ms": _POSITIVE}),
    "per move": st.fixed_dictionaries({"per_move_ms": _POSITIVE}),
}
KINDS = (*_KINDS, "hourglass")
_RULES: dict[str, st.SearchStrategy[Any]] = {
    "first_bonus": st.sampled_from(["after_move", "before_move"]),
    "margin_ms": _ANY_TIME,
    "charge_unit_ms": st.sampled_from([1, 1000, MAX_CHARGE_MS]) | st.integers(1, MAX_CHARGE_MS),
    "min_charge_ms": st.sampled_from([0, 1000, MAX_CHARGE_MS]) | st.integers(0, MAX_CHARGE_MS),
}


@st.composite
def _stages(draw: st.DrawFn, kind: str | None) -> list[dict[str, Any]]:
    count = draw(st.one_of(st.just(1), st.integers(1, MAX_STAGES)))
    stages: list[dict[str, Any]] = []
    for index in range(count):
        chosen = kind or draw(st.sampled_from(sorted(_KINDS)))
        stage = dict(draw(_KINDS[chosen]))
        if chosen != "per move":
            stage["time_ms"] = draw(_POSITIVE if stages and "per_move_ms" in stages[-1] else _ANY_TIME)
        if index + 1 < count:
            stage["moves"] = draw(_MOVES)
        elif draw(st.booleans()):
            stage |= {"moves": draw(_MOVES), "repeat": True}
        stages.append(stage)
    return stages


@st.composite
def time_controls(draw: st.DrawFn, kind: str | None = None) -> TimeControl:
    """Valid normalized controls; kind: of all stages, one of KINDS, by default any."""
    rules = draw(st.one_of(st.just({}), st.fixed_dictionaries({}, optional=_RULES)))
    if kind == "hourglass" or (kind is None and draw(st.integers(0, 9)) == 0):
        rules = {name: value for name, value in rules.items() if "charge" not in name}
        stages = [{"time_ms": draw(_POSITIVE), "hourglass": True}]
    else:
        stages = draw(_stages(kind))
    try:
        return TimeControl.parse({"stages": stages, **rules}).normalized()
    except ValidationFailed:  # a first stage without time
        stages[0] |= {"time_ms": draw(_POSITIVE)}
        return TimeControl.parse({"stages": stages, **rules}).normalized()

"""Time controls as the scripts read them: compact texts (docs/keys.md)."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, NamedTuple

from syncapp.domain.time_control import Stage, TimeControl

# The same letters as in lua/_time_control.lua; a contract test compares the two.
CONTROL_LETTERS = {
    "m": "margin_ms",
    "u": "charge_unit_ms",
    "l": "min_charge_ms",
    "f": "before_move",
    "w": "warns_in_periods",
    "q": "lag_quota_ms",
    "g": "lag_per_move_ms",
}
STAGE_LETTERS = {
    "n": "moves",
    "t": "time_ms",
    "i": "increment_ms",
    "c": "cap_ms",
    "d": "delay_ms",
    "b": "bronstein_ms",
    "k": "periods",
    "a": "period_moves",
    "p": "period_ms",
    "e": "per_move_ms",
    "h": "hourglass",
    "r": "repeats",
}
_WORD = re.compile(r"([a-z])(\d+)")


class SessionRules(NamedTuple):
    """Rules that a session has for all its time controls.

    warns_in_periods: whether periods and blocks warn, too. lag_quota_ms, lag_per_move_ms: 0 without lag compensation.
    """

    warns_in_periods: bool = False
    lag_quota_ms: int = 0
    lag_per_move_ms: int = 0


def write_control(control: TimeControl, rules: SessionRules) -> str:
    """Return a normalized control as a text: what holds for all stages, then the stages, separated by semicolons."""
    whole: dict[str, int | bool | None] = {
        "margin_ms": control.margin_ms,
        "charge_unit_ms": control.charge_unit_ms if control.charge_unit_ms > 1 else 0,
        "min_charge_ms": control.min_charge_ms,
        "before_move": control.first_bonus == "before_move",
        **rules._asdict(),
    }
    return ";".join(
        [_words(CONTROL_LETTERS, whole), *(_words(STAGE_LETTERS, _values(stage)) for stage in control.stages)]
    )


@lru_cache(4096)
def read_control(text: str) -> TimeControl:
    """Return the control that `write_control` wrote."""
    head, *stages = (dict(_WORD.findall(part)) for part in text.split(";"))
    return TimeControl.model_construct(
        stages=[_stage(words) for words in stages],
        first_bonus="before_move" if "f" in head else "after_move",
        margin_ms=int(head.get("m", 0)),
        charge_unit_ms=int(head.get("u", 1)),
        min_charge_ms=int(head.get("l", 0)),
    )


@lru_cache(4096)
def read_rules(text: str) -> SessionRules:
    """Return the rules of a session that `write_control` wrote with a control."""
    head = dict(_WORD.findall(text.partition(";")[0]))
    return SessionRules("w" in head, int(head.get("q", 0)), int(head.get("g", 0)))


def _values(stage: Stage) -> dict[str, Any]:
    """Return a stage's values by the names of the scripts, which have a field for each kind of delay."""
    values = stage.model_dump(exclude_none=True)
    if stage.delay == "bronstein":
        values["bronstein_ms"] = values.pop("delay_ms")
    return values | {"repeats": stage.repeat, "time_ms": stage.time_ms}


def _words(letters: dict[str, str], values: dict[str, Any]) -> str:
    """Return a letter and a number for each value, but for those that are 0 or missing."""
    return "".join(f"{letter}{int(values[name])}" for letter, name in letters.items() if values.get(name))


def _stage(words: dict[str, str]) -> Stage:
    values: dict[str, Any] = {STAGE_LETTERS[letter]: int(digits) for letter, digits in words.items()}
    for name, flag in (("hourglass", "hourglass"), ("repeats", "repeat")):
        if values.pop(name, 0):
            values[flag] = True
    if "bronstein_ms" in values:
        values |= {"delay_ms": values.pop("bronstein_ms"), "delay": "bronstein"}
    elif "delay_ms" in values:
        values["delay"] = "simple"
    if "per_move_ms" not in values:
        values.setdefault("time_ms", 0)
    return Stage.model_construct(**values)

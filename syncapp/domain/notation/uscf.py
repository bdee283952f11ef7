"""The notation of US Chess: minutes for stages, seconds for delays and increments.

`G/90;d5` is a game in 90 minutes with a simple delay of 5 s, `40/120,SD/60;+30` 40 moves in 2 hours, then an hour, with
an increment of 30 s. What follows the last stage after a semicolon, or a comma, holds in all stages; `40/100 +30,SD/50
+30` has one for each. A last stage with moves is repeated.

The increment of the first move is granted before it: a TD tip in the rulebook (since 2020) says that each player in
G/3;inc2 gets 3:02 for the first move. Delays are simple ones. Older announcements count hours (`40/2, SD/1`), so fewer
than 10 minutes for a number of moves are refused.
"""

from __future__ import annotations

import re
from typing import Any

from syncapp.domain.notation.controls import control_of, kind_of, main_time
from syncapp.domain.notation.durations import MINUTE_MS, NotationError, number, shortened, to_ms
from syncapp.domain.time_control import Stage, TimeControl

_ITEM = re.compile(
    r"(?P<separator>(?: ?[,;])? ?)(?:(?:g|game|sd|all)/? ?(?P<rest>[0-9]+)|(?P<moves>[0-9]+)/(?P<time>[0-9]+)"
    r"|/?(?P<bonus>d|inc|\+) ?/? ?(?P<seconds>[0-9]+))",
    re.IGNORECASE,
)
_LEAST_MINUTES = 10
"""Of a stage with moves: fewer are hours in old announcements."""


def read(text: str) -> TimeControl:
    """Read a time control of US Chess."""
    stages: list[dict[str, Any]] = []
    bonuses: dict[int, dict[str, Any]] = {}
    separators: list[str] = []
    for item in _items(text):
        if item["bonus"] is None:
            stages.append(_stage(item))
            continue
        if not stages or len(stages) in bonuses:
            raise NotationError("has a delay or an increment without a stage before it")
        bonuses[len(stages)] = _bonus(item)
        separators.append(item["separator"].strip())
    if not stages:
        raise NotationError("has no stage")
    if len(stages) > 1 and list(bonuses) == [len(stages)]:
        if not separators[0]:
            raise NotationError(
                "does not say whether the delay or increment holds in all stages: write ; before it if so"
            )
        bonuses = dict.fromkeys(range(1, len(stages) + 1), bonuses[len(stages)])
    if "moves" in stages[-1]:
        stages[-1]["repeat"] = True
    for index, bonus in bonuses.items():
        stages[index - 1] |= bonus
    return control_of(*stages, first_bonus="before_move" if any(map(_has_increment, stages)) else None)


def _items(text: str) -> list[dict[str, Any]]:
    """Return the stages, delays and increments in order."""
    items, end = [], 0
    while end < len(text):
        match = _ITEM.match(text, end)
        if match is None:
            raise NotationError(
                f"has {shortened(text[end:])} where US Chess writes a part such as SD/60, 40/120, d5 or +30"
            )
        items.append(match.groupdict())
        end = match.end()
    return items


def _stage(item: dict[str, Any]) -> dict[str, Any]:
    if item["rest"] is not None:
        return {"time_ms": to_ms(item["rest"], MINUTE_MS)}
    if int(item["time"]) < _LEAST_MINUTES:
        raise NotationError(f"has {item['moves']}/{item['time']}, which may mean hours: write minutes, such as 40/120")
    return {"moves": int(item["moves"]), "time_ms": to_ms(item["time"], MINUTE_MS)}


def _bonus(item: dict[str, Any]) -> dict[str, Any]:
    ms = to_ms(item["seconds"])
    return {"delay_ms": ms, "delay": "simple"} if item["bonus"].lower() == "d" else {"increment_ms": ms}


def _has_increment(stage: dict[str, Any]) -> bool:
    return bool(stage.get("increment_ms"))


def write(control: TimeControl) -> str:
    """Write a time control of US Chess."""
    single = len(control.stages) == 1
    times = [_written_stage(stage, "G" if single else "SD") for stage in control.stages]
    bonuses = [_written_bonus(stage) for stage in control.stages]
    if len(set(bonuses)) == 1:
        return ",".join(times) + (f";{bonuses[0]}" if bonuses[0] else "")
    return ",".join(f"{time};{bonus or 'd0'}" for time, bonus in zip(times, bonuses, strict=True))


def _written_stage(stage: Stage, rest: str) -> str:
    if (kind := kind_of(stage)) not in {"absolute", "fischer", "simple"}:
        raise NotationError(f"has a {kind} stage")
    if main_time(stage) % MINUTE_MS:
        raise NotationError("has a stage that is not a whole number of minutes")
    return f"{stage.moves or rest}/{main_time(stage) // MINUTE_MS}"


def _written_bonus(stage: Stage) -> str:
    if stage.delay_ms:
        return f"d{number(stage.delay_ms)}"
    return f"+{number(stage.increment_ms)}" if stage.increment_ms else ""

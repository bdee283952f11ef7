"""The TimeControl tag of PGN (section 9.6.1 of the standard): fields separated by colons, all times in seconds.

| field       | meaning                                                                                       |
| ----------- | --------------------------------------------------------------------------------------------- |
| `40/9000`   | 40 moves in 9000 s. The last field is repeated, as the standard says.                         |
| `300`       | 300 s for the rest of the game                                                                |
| `4500+60`   | with 60 s after each move; also `40/5400+30`                                                  |
| `*180`      | hourglass                                                                                     |
| `1/86400`   | as the last field: 86400 s for each move, the rest is lost, as correspondence servers mean it |
| `300+5d`    | simple delay of 5 s, as python-chess reads it; not in the standard                            |
| `300+5b`    | Bronstein delay of 5 s; ours, because nobody has a notation for it                            |

An increment is granted after the move, as chess servers do, unless the first stage has no time (`0+1`): then the first
move would have none, so it is granted before. The texts of DGT clocks (`15 min/game + 10 sec/move`) are read too.
"""

from __future__ import annotations

import re
from typing import Any

from syncapp.domain.notation.controls import control_of, kind_of, main_time
from syncapp.domain.notation.durations import (
    MINUTE_MS,
    NUMBER,
    NotationError,
    number,
    shortened,
    to_ms,
)
from syncapp.domain.time_control import Stage, TimeControl

_FIELD = re.compile(rf"(?:([0-9]+)/)?({NUMBER})(?: ?\+ ?({NUMBER})([db])?)?")
_DGT = re.compile(
    rf"({NUMBER}) ?min(?:/([0-9]+) ?moves ?\+ ?({NUMBER}) ?min)?(?:/(?:game|rest|end))?"
    rf"(?: ?\+ ?({NUMBER}) ?sec(?:/move)?)?",
    re.IGNORECASE,
)
_REFUSED = tuple(
    (re.compile(pattern), reason)
    for pattern, reason in (
        (r"\?.*", "says with ? that the time control is not known"),
        (r"-", "says with - that there is no time control"),
        (r".*=.*", "has two time controls; give each owner its own"),
        (r"(?i)(g|sd|game)/?[0-9].*", "is not PGN but a notation of US Chess: try uscf:"),
        (r"(?i).*[0-9] ?(h|m|s|min|sec)\b.*", "has units, but PGN counts plain seconds"),
        (r".*:", "ends with a colon: a stage is missing after it"),
        (r".*[0-9],[0-9].*", "has a comma; PGN needs a decimal point"),
    )
)
_SUFFIXES = {"d": "simple", "b": "bronstein"}


def read(text: str) -> TimeControl:
    """Read the value of a TimeControl tag."""
    if match := _DGT.fullmatch(text):
        return _from_dgt(*match.groups())
    for pattern, reason in _REFUSED:
        if pattern.fullmatch(text):
            raise NotationError(reason)
    fields = text.split(":")
    stages = [_stage(field.strip(), is_last=index + 1 == len(fields)) for index, field in enumerate(fields)]
    first = stages[0]
    before = first.get("time_ms") == 0 and (first.get("increment_ms") or first.get("delay") == "bronstein")
    return control_of(*stages, first_bonus="before_move" if before else None)


def _stage(field: str, *, is_last: bool) -> dict[str, Any]:
    if field.startswith("*"):
        return {"time_ms": to_ms(field[1:]), "hourglass": True}
    match = _FIELD.fullmatch(field)
    if match is None:
        raise NotationError(
            f"has {shortened(field) or 'nothing'} where PGN expects a field such as 40/5400+30 or 300+2"
        )
    moves, time, bonus, suffix = match.groups()
    if is_last and moves == "1":
        if bonus is not None:
            raise NotationError("has a time for each move (1/…), which takes no increment and no delay")
        return {"per_move_ms": to_ms(time)}
    stage: dict[str, Any] = {"time_ms": to_ms(time)}
    if moves is not None:
        stage |= {"moves": int(moves), "repeat": True if is_last else None}
    if suffix is not None:
        stage |= {"delay_ms": to_ms(bonus), "delay": _SUFFIXES[suffix]}
    elif bonus is not None:
        stage["increment_ms"] = to_ms(bonus)
    return stage


def _from_dgt(first: str, moves: str | None, rest: str | None, bonus: str | None) -> TimeControl:
    increment = None if bonus is None else to_ms(bonus)
    stages = [{"time_ms": to_ms(first, MINUTE_MS), "increment_ms": increment}]
    if moves is not None and rest is not None:
        stages[0]["moves"] = int(moves)
        stages.append({"time_ms": to_ms(rest, MINUTE_MS), "increment_ms": increment})
    return control_of(*stages)


def write(control: TimeControl) -> str:
    """Write the value of a TimeControl tag."""
    return ":".join(_field(stage) for stage in control.stages)


def _field(stage: Stage) -> str:
    time = number(main_time(stage))
    match kind_of(stage):
        case "hourglass":
            return f"*{time}"
        case "per move":
            return f"1/{number(stage.per_move_ms or 0)}"
        case "byo-yomi" | "canadian" as kind:
            raise NotationError(f"has a {kind} stage")
    text = f"{stage.moves}/{time}" if stage.moves else time
    if stage.increment_ms:
        text += f"+{number(stage.increment_ms)}"
    if stage.delay_ms:
        text += f"+{number(stage.delay_ms)}{(stage.delay or '')[0].replace('s', 'd')}"
    return text

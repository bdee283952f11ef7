"""TM and OT of Go game records (SGF): main time in seconds, then the overtime as go servers and programs write it.

| text                                        | meaning                                                               |
| ------------------------------------------- | --------------------------------------------------------------------- |
| `1800`, `TM[1800]`, `1:00:00`               | main time only                                                        |
| `1800 5x30 byo-yomi`, `TM[1800]OT[5x30]`    | byo-yomi, 5 periods of 30 s; `30:00(5x1:00)` of collections is read   |
| `540 25/60 Canadian`, `540 25/60`           | Canadian, 25 moves in 60 s; GoGui writes `25 moves / 60 sec`          |
| `600 10 fischer`, `600 Fischer +10`         | 10 s after each move. OGS has a cap, which the file does not have     |
| `259200 simple`                             | so much for each move                                                 |

goban takes a missing cap for twice the main time when it reads such a file; here there is none.
"""

from __future__ import annotations

import re
from typing import Any

from syncapp.domain.notation.controls import control_of, kind_of, only_stage
from syncapp.domain.notation.durations import (
    CLOCK,
    MINUTE_MS,
    NUMBER,
    NotationError,
    clock_to_ms,
    number,
    shortened,
    to_ms,
)
from syncapp.domain.time_control import TimeControl

_TIME = rf"(?:{CLOCK}|{NUMBER})"
_PROPERTIES = re.compile(r"\(?;?\s*TM\s*\[(?P<main>[^\]]*)\]\s*(?:OT\s*\[(?P<overtime>[^\]]*)\])?")
_WORDS = re.compile(rf"(?P<main>{_TIME})(?:\s+(?P<overtime>\S.*))?")
_COLLECTION = re.compile(rf"({_TIME})\s*\(\s*([0-9]+x{_TIME})\s*\)")
_OVERTIMES = tuple(
    (re.compile(pattern, re.IGNORECASE), kind)
    for pattern, kind in (
        (rf"([0-9]+) ?[x×] ?({_TIME})(?: ?s)?(?: byo[- ]?yomi)?", "byo-yomi"),
        (rf"([0-9]+) ?/ ?({_TIME})(?: canadian)?", "canadian"),
        (rf"([0-9]+) moves? ?/ ?({NUMBER}) ?(min|sec)", "canadian"),
        (rf"({NUMBER}) fischer|fischer \+?({NUMBER})", "fischer"),
    )
)
_SIMPLE = re.compile(rf"(?:(?P<main>{NUMBER}) )?(?P<move>{NUMBER}) simple", re.IGNORECASE)
_NO_LIMIT = re.compile(r"-|none|no (?:time )?limit|unlimited", re.IGNORECASE)


def read(text: str) -> TimeControl:
    """Read main time and overtime, as `TM OT` or as properties."""
    if collection := _COLLECTION.fullmatch(text):
        text = " ".join(collection.groups())
    if simple := _SIMPLE.fullmatch(text):
        return _per_move(simple["main"] or "0", simple["move"])
    match = _PROPERTIES.fullmatch(text) or _WORDS.fullmatch(text)
    if match is None:
        raise NotationError(_why_not(text))
    main, overtime = match["main"].strip(), (match["overtime"] or "").strip()
    if "TM" in text and (overtime.lower().endswith("simple") or "(" in main):
        return read(f"{main} {overtime}".strip())
    stage: dict[str, Any] = {"time_ms": clock_to_ms(main)}
    return control_of(stage | (_overtime(overtime) if overtime else {}))


def _per_move(main: str, move: str) -> TimeControl:
    if to_ms(main) not in {0, to_ms(move)}:
        raise NotationError("has a main time and a time for each move, which go together nowhere")
    return control_of({"per_move_ms": to_ms(move)})


def _overtime(text: str) -> dict[str, Any]:
    for pattern, kind in _OVERTIMES:
        if match := pattern.fullmatch(" ".join(text.split())):
            first, second, *unit = match.groups()
            if kind == "fischer":
                return {"increment_ms": to_ms(first or second)}
            count = "periods" if kind == "byo-yomi" else "period_moves"
            period = to_ms(second, MINUTE_MS) if unit and unit[0].lower() == "min" else clock_to_ms(second)
            return {count: int(first), "period_ms": period}
    raise NotationError(f"has an overtime that is not known: {shortened(text)}")


def _why_not(text: str) -> str:
    if _NO_LIMIT.fullmatch(text):
        return "has no time limit"
    try:
        _overtime(text)
    except NotationError:
        return f"has {shortened(text)} where SGF expects a main time in seconds, such as 1800 5x30 byo-yomi"
    return f"has an overtime without a main time: write 0 {shortened(text)} if there is none"


def write(control: TimeControl) -> str:
    """Write main time and overtime, separated by a space."""
    stage, times = only_stage(control, "absolute", "fischer", "byo-yomi", "canadian", "per move")
    main = number(times.main_ms)
    match kind_of(stage):
        case "per move":
            return f"{number(stage.per_move_ms or 0)} simple"
        case "fischer":
            return f"{main} {number(times.increment_ms)} fischer"
        case "byo-yomi":
            return f"{main} {stage.periods}x{number(times.period_ms)} byo-yomi"
        case "canadian":
            return f"{main} {stage.period_moves}/{number(times.period_ms)} Canadian"
    return main

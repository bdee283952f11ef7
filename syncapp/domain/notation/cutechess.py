"""The tc option of cutechess-cli and fastchess: `[moves/]time[+increment]`, time in seconds or minutes:seconds.

`40/1:30+1` is 40 moves in 1 min 30 s with 1 s a move; in PGN the colon would begin another stage. Moves are repeated.
`hg60` is an hourglass, `st=5` a time for each move. Options may follow: `60+0.6 timemargin=200` (ms).

Both programs grant the increment before each move, the first one included (cutechess since June 2020, commit 7a4cf236).
"""

from __future__ import annotations

import re
from typing import Any

from syncapp.domain.notation.controls import control_of, kind_of, only_stage
from syncapp.domain.notation.durations import MINUTE_MS, NUMBER, NotationError, number, shortened, to_ms
from syncapp.domain.time_control import TimeControl

_CONTROL = re.compile(rf"(?:([0-9]+)/)?(?:([0-9]+):)?({NUMBER})(?:\+({NUMBER}))?")
_OPTION = re.compile(rf"(tc|st|timemargin)=(\S+)|(hg{NUMBER}|inf|inf\w*|[0-9.]\S*)")


def read(text: str) -> TimeControl:
    """Read a tc option, with or without `tc=`, and with options after it."""
    options: dict[str, str] = {}
    for word in text.split():
        match = _OPTION.fullmatch(word)
        name = (match[1] or "tc") if match else ""
        if match is None or name in options:
            raise NotationError(f"has {shortened(word)}, which is not an option of cutechess for times, or given twice")
        options[name] = match[2] or match[3]
    if ("tc" in options) == ("st" in options):
        raise NotationError("needs either a time control, such as 40/1:30+1, or st=, the seconds for each move")
    margin = int(_whole(options["timemargin"])) if "timemargin" in options else None
    if "st" in options:
        return control_of({"per_move_ms": to_ms(options["st"])}, margin_ms=margin)
    stage = _stage(options["tc"])
    return control_of(stage, margin_ms=margin, first_bonus="before_move" if stage.get("increment_ms") else None)


def _whole(text: str) -> str:
    if not re.fullmatch(r"[0-9]+", text):
        raise NotationError(f"has a timemargin that is not a whole number of ms: {shortened(text)}")
    return text


def _stage(text: str) -> dict[str, Any]:
    if text.startswith("inf"):
        raise NotationError("has no time limit (inf)")
    if text.startswith("hg"):
        return {"time_ms": to_ms(text[2:]), "hourglass": True}
    match = _CONTROL.fullmatch(text)
    if match is None:
        raise NotationError(
            f"has {shortened(text)} where cutechess expects [moves/]time[+increment], such as 40/1:30+1"
        )
    moves, minutes, seconds, increment = match.groups()
    repeats = {"moves": int(moves), "repeat": True} if moves and int(moves) else {}
    time = to_ms(minutes or "0", MINUTE_MS) + to_ms(seconds)
    return {"time_ms": time, "increment_ms": to_ms(increment or "0"), **repeats}


def write(control: TimeControl) -> str:
    """Write a tc option, and a timemargin if there is a margin."""
    stage, times = only_stage(control, "absolute", "fischer", "per move", "hourglass")
    margin = f" timemargin={control.margin_ms}" if control.margin_ms else ""
    if kind_of(stage) == "per move":
        return f"st={number(stage.per_move_ms or 0)}{margin}"
    if stage.hourglass:
        return f"hg{number(times.main_ms)}{margin}"
    moves = f"{stage.moves}/" if stage.moves else ""
    increment = f"+{number(times.increment_ms)}" if times.increment_ms else ""
    return f"{moves}{number(times.main_ms)}{increment}{margin}"

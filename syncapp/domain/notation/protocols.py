"""Commands by which programs tell a playing engine its time: UCI and USI (`go`), XBoard (`level`, `st`), GTP.

- UCI, USI: ms for each side. Both sides must have the same. `movestogo` is a stage that is repeated. Interfaces send a
  bonus before the first move as a part of the time, so an increment is granted after the move. USI adds `byoyomi`, one
  period. UCI has no way to say "no main time": Stockfish takes a clock of 0 for no clock at all.
- XBoard: `level MOVES BASE INCREMENT`, the base in minutes or minutes:seconds, 0 moves for all; the stage is repeated,
  and the increment is added after each move. `st SECONDS` is a time for each move.
- GTP: `time_settings MAIN PERIOD STONES` is Canadian; a period without stones means no time limit. KGS and KataGo have
  commands with a word for the system: `kgs-time_settings byoyomi MAIN PERIOD PERIODS`, `kata-time_settings fischer MAIN
  INCREMENT`, and `fischer-capped MAIN INCREMENT CAP MOST`, where -1 is no limit for a move.
"""

from __future__ import annotations

import re

from syncapp.domain.notation.controls import control_of, kind_of, only_stage
from syncapp.domain.notation.durations import (
    MINUTE_MS,
    NotationError,
    clock_to_ms,
    number,
    shortened,
    to_ms,
    whole_seconds,
)
from syncapp.domain.time_control import TimeControl

_SIDES = (("wtime", "btime"), ("winc", "binc"))
_GO = {"wtime", "btime", "winc", "binc", "movestogo", "movetime"}
_ENDLESS = {"infinite", "depth", "nodes", "mate", "ponder", "perft"}
_LEVEL = re.compile(r"level ([0-9]+) ([0-9]+(?::[0-5]?[0-9])?) ([0-9]+(?:\.[0-9]+)?)")
_GTP_SYSTEMS = {
    "absolute": ("time_ms",),
    "byoyomi": ("time_ms", "period_ms", "periods"),
    "canadian": ("time_ms", "period_ms", "period_moves"),
    "fischer": ("time_ms", "increment_ms"),
    "fischer-capped": ("time_ms", "increment_ms", "cap_ms", "most"),
}
"""The arguments of KGS's and KataGo's commands for each system."""


def read_uci(text: str) -> TimeControl:
    """Read a `go` command of UCI."""
    return _read_go(text, _GO)


def read_usi(text: str) -> TimeControl:
    """Read a `go` command of USI."""
    return _read_go(text, _GO | {"byoyomi"})


def _read_go(text: str, known: set[str]) -> TimeControl:
    words = text.removeprefix("go").split()
    if endless := _ENDLESS.intersection(words):
        raise NotationError(f"has {min(endless)}, which is not a time control")
    values = dict(zip(words[::2], words[1::2], strict=False))
    if not words or len(words) % 2 or len(values) * 2 != len(words) or not set(values) <= known:
        raise NotationError("is not a go command with times, such as go wtime 300000 btime 300000 winc 2000 binc 2000")
    ms = {name: to_ms(value, 1) for name, value in values.items()}
    if "movetime" in ms:
        if len(ms) > 1:
            raise NotationError("has a movetime and other times")
        return control_of({"per_move_ms": ms["movetime"]})
    for white, black in _SIDES:
        if ms.get(white) != ms.get(black):
            raise NotationError(f"differs between the sides ({white}, {black}); give each owner its own control")
    if "wtime" not in ms:
        raise NotationError("has neither wtime and btime nor movetime")
    repeats = {"moves": ms["movestogo"], "repeat": True} if "movestogo" in ms else {}
    period = {"periods": 1, "period_ms": ms["byoyomi"]} if ms.get("byoyomi") else {}
    return control_of({"time_ms": ms["wtime"], "increment_ms": ms.get("winc"), **repeats, **period})


def write_uci(control: TimeControl) -> str:
    """Write a `go` command of UCI at the start of a game."""
    stage, _ = only_stage(control, "absolute", "fischer", "per move")
    if stage.time_ms == 0:
        raise NotationError("has no main time, which UCI engines take for no clock at all")
    return write_usi(control)


def write_usi(control: TimeControl) -> str:
    """Write a `go` command of USI at the start of a game."""
    stage, times = only_stage(control, "absolute", "fischer", "byo-yomi", "per move")
    if stage.per_move_ms:
        return f"go movetime {stage.per_move_ms}"
    parts = [f"go wtime {times.main_ms} btime {times.main_ms}"]
    if times.increment_ms:
        parts.append(f"winc {times.increment_ms} binc {times.increment_ms}")
    if stage.moves:
        parts.append(f"movestogo {stage.moves}")
    if times.period_ms:
        parts.append(f"byoyomi {times.period_ms}")
    return " ".join(parts)


def read_xboard(text: str) -> TimeControl:
    """Read a `level` or `st` command."""
    plain = " ".join(text.split())
    if plain.startswith("st "):
        return control_of({"per_move_ms": to_ms(plain[3:])})
    match = _LEVEL.fullmatch(plain)
    if match is None:
        raise NotationError(f"has {shortened(plain)} where XBoard has a command such as level 40 5 0 or st 30")
    moves, base, increment = match.groups()
    time = clock_to_ms(base) if ":" in base else to_ms(base, MINUTE_MS)
    repeats = {"moves": int(moves), "repeat": True} if int(moves) else {}
    return control_of({"time_ms": time, "increment_ms": to_ms(increment), **repeats})


def write_xboard(control: TimeControl) -> str:
    """Write a `level` or `st` command."""
    stage, times = only_stage(control, "absolute", "fischer", "per move")
    if stage.per_move_ms:
        return f"st {number(stage.per_move_ms)}"
    minutes, seconds = divmod(int(whole_seconds(times.main_ms)), 60)
    base = f"{minutes}:{seconds:02}" if seconds else str(minutes)
    return f"level {stage.moves or 0} {base} {number(times.increment_ms)}"


def read_gtp(text: str) -> TimeControl:
    """Read `time_settings`, `kgs-time_settings` or `kata-time_settings`."""
    command, *words = text.split() or [""]
    if command == "time_settings" and len(words) == len(_GTP_SYSTEMS["canadian"]):
        return _canadian(*words)
    if command in {"kgs-time_settings", "kata-time_settings"} and words:
        system, *values = words
        if system == "none":
            raise NotationError("has no time limit")
        names = _GTP_SYSTEMS.get(system, ())
        if names and len(names) == len(values):
            return _gtp_system(dict(zip(names, values, strict=True)))
    raise NotationError(f"has {shortened(text)} where GTP has a command such as time_settings 1800 300 25")


def _canadian(main: str, period: str, stones: str) -> TimeControl:
    if not to_ms(period):
        return control_of({"time_ms": to_ms(main)})
    if not to_ms(stones):
        raise NotationError("has a period without stones, which GTP defines as no time limit")
    return _gtp_system({"time_ms": main, "period_ms": period, "period_moves": stones})


def _gtp_system(values: dict[str, str]) -> TimeControl:
    if values.pop("most", "-1") != "-1":
        raise NotationError("has a limit for each move besides the main time, which no control here has")
    return control_of({name: to_ms(value, 1000 if name.endswith("_ms") else 1) for name, value in values.items()})


def write_gtp(control: TimeControl) -> str:
    """Write `time_settings` if it can say it, else the command of KGS or KataGo."""
    stage, times = only_stage(control, "absolute", "fischer", "byo-yomi", "canadian")
    match kind_of(stage):
        case "fischer":
            main, increment = number(times.main_ms), number(times.increment_ms)
            if stage.cap_ms:
                return f"kata-time_settings fischer-capped {main} {increment} {number(stage.cap_ms)} -1"
            return f"kata-time_settings fischer {main} {increment}"
        case "byo-yomi":
            main, period = whole_seconds(times.main_ms), whole_seconds(times.period_ms)
            return f"kgs-time_settings byoyomi {main} {period} {stage.periods}"
    main, period = whole_seconds(times.main_ms), whole_seconds(times.period_ms)
    return f"time_settings {main} {period} {stage.period_moves or 0}"

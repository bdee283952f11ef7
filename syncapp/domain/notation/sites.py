"""Time controls as web sites have them: minutes and increment, and the JSON of the APIs of Lichess and OGS.

- minutes: `15+10`, `5|3`, `½+0`, `10 min`, `3 min + 2 sec`: minutes, and seconds after each move.
- lichess: `{"limit":300,"increment":3}` in seconds, also inside `clock` or as `clock.limit=300&clock.increment=3`;
  `{"daysPerTurn":2}` and `correspondence 2 days` for each move.
- ogs: the parameters of a game, in seconds: `{"system":"byoyomi","main_time":600,"period_time":30,"periods":5}`; the
  name of the system may be in `time_control` too. Pauses on weekends are refused: a clock here does not stop for them.
"""

from __future__ import annotations

import json
import re
from typing import Any

from syncapp.domain.notation.controls import control_of, kind_of, only_stage
from syncapp.domain.notation.durations import (
    DAY_MS,
    MINUTE_MS,
    NUMBER,
    SECOND_MS,
    NotationError,
    number,
    shortened,
    to_ms,
    whole_seconds,
)
from syncapp.domain.strict_json import decode
from syncapp.domain.time_control import TimeControl
from syncapp.errors import SyncError

_FRACTIONS = {"¼": ".25", "½": ".5", "¾": ".75", "1/4": ".25", "1/2": ".5", "3/4": ".75"}
_MINUTES = re.compile(
    rf"({NUMBER}) ?(?:[+|] ?({NUMBER})|min(?:utes?|\.)?(?: ?[+|] ?({NUMBER}) ?s(?:ec(?:onds?|\.)?)?)?)?", re.IGNORECASE
)
_FORM = re.compile(r"(?:clock\.)?(limit|increment)=([^&]*)")
_CORRESPONDENCE = re.compile(r"(?:correspondence:? ?)?([0-9]+) days?(?: per (?:turn|move))?", re.IGNORECASE)
_OGS = {
    "fischer": {"initial_time": "time_ms", "time_increment": "increment_ms", "max_time": "cap_ms"},
    "byoyomi": {"main_time": "time_ms", "period_time": "period_ms", "periods": "periods"},
    "canadian": {"main_time": "time_ms", "period_time": "period_ms", "stones_per_period": "period_moves"},
    "simple": {"per_move": "per_move_ms"},
    "absolute": {"total_time": "time_ms"},
}
"""OGS's parameters of each system, and the field of a stage that each is."""
_OGS_OPTIONAL = {"max_time"}
_OGS_KINDS = {
    "fischer": "fischer",
    "byo-yomi": "byoyomi",
    "canadian": "canadian",
    "per move": "simple",
    "absolute": "absolute",
}


def read_minutes(text: str) -> TimeControl:
    """Read minutes and an increment in seconds."""
    plain = text
    for fraction, decimal in _FRACTIONS.items():
        plain = re.sub(rf"(?<![0-9/]){fraction}(?![0-9/])" if "/" in fraction else fraction, decimal, plain)
    match = _MINUTES.fullmatch(plain)
    if match is None:
        raise NotationError(f"has {shortened(text)} where minutes and seconds are expected, such as 15+10")
    minutes, increment, seconds = match.groups()
    return control_of({"time_ms": to_ms(minutes, MINUTE_MS), "increment_ms": to_ms(increment or seconds or "0")})


def write_minutes(control: TimeControl) -> str:
    """Write minutes and the increment in seconds."""
    _, times = only_stage(control, "absolute", "fischer")
    return f"{number(times.main_ms, MINUTE_MS)}+{number(times.increment_ms)}"


def read_lichess(text: str) -> TimeControl:
    """Read a clock of Lichess's API, or its correspondence time."""
    if match := _CORRESPONDENCE.fullmatch(text):
        return control_of({"per_move_ms": to_ms(match[1], DAY_MS)})
    pairs = [_FORM.fullmatch(part) for part in text.split("&")]
    fields: dict[str, Any] = {pair[1]: pair[2] for pair in pairs if pair} if all(pairs) else _object(text)
    inner = fields.get("clock")
    fields = inner if isinstance(inner, dict) else fields
    days = fields.get("daysPerTurn", fields.get("days"))
    limit = fields.get("limit", fields.get("initial"))
    if days is not None and limit is None:
        return control_of({"per_move_ms": _ms("daysPerTurn", days, DAY_MS)})
    if limit is None or days is not None:
        raise NotationError("has neither a limit in seconds nor daysPerTurn, or both")
    increment = _ms("increment", fields.get("increment", 0))
    return control_of({"time_ms": _ms("limit", limit), "increment_ms": increment})


def write_lichess(control: TimeControl) -> str:
    """Write a clock of Lichess's API as JSON."""
    stage, times = only_stage(control, "absolute", "fischer", "per move")
    if stage.per_move_ms is not None:
        if stage.per_move_ms % DAY_MS:
            raise NotationError("has a time for each move that is no whole number of days")
        return _json({"daysPerTurn": stage.per_move_ms // DAY_MS})
    limit, increment = whole_seconds(times.main_ms), whole_seconds(times.increment_ms)
    return _json({"limit": int(limit), "increment": int(increment)})


def read_ogs(text: str) -> TimeControl:
    """Read the time control of a game on OGS."""
    fields = _object(text)
    inner = fields.get("time_control")
    if isinstance(inner, dict):
        fields = inner
    system = fields.get("system", fields.get("time_control"))
    if system == "none":
        raise NotationError("has no time limit")
    names = _OGS.get(system) if isinstance(system, str) else None
    if names is None:
        raise NotationError(f"has no system that is known: {', '.join(_OGS)}")
    if fields.get("pause_on_weekends"):
        raise NotationError("pauses on weekends, which no control here does")
    if missing := [name for name in names if name not in fields and name not in _OGS_OPTIONAL]:
        raise NotationError(f"lacks {missing[0]}")
    values = {
        field: _ms(name, fields[name], SECOND_MS if field.endswith("_ms") else 1)
        for name, field in names.items()
        if fields.get(name) is not None
    }
    return control_of(values)


def write_ogs(control: TimeControl) -> str:
    """Write the time control of a game on OGS as JSON."""
    stage, _ = only_stage(control, "absolute", "fischer", "byo-yomi", "canadian", "per move")
    system = _OGS_KINDS[kind_of(stage)]
    values: dict[str, Any] = {}
    for name, field in _OGS[system].items():
        value = getattr(stage, field)
        if value is not None:
            values[name] = int(whole_seconds(value)) if field.endswith("_ms") else value
    return _json({"system": system, **values})


def _object(text: str) -> dict[str, Any]:
    try:
        document = decode(text, "the time control")
    except SyncError:
        raise NotationError(f"has {shortened(text)} where an object in JSON is expected") from None
    if not isinstance(document, dict):
        raise NotationError("is JSON, but not an object")
    return document


def _ms(name: str, value: Any, unit_ms: int = SECOND_MS) -> int:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise NotationError(f"has {name} that is not a number")
    return to_ms(str(value), unit_ms)


def _json(document: dict[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))

"""Our own notation, which can say everything: `40 in 1h30m +30s; 30m +30s, margin 1s`.

    control = stage {"; " stage} {", " rule}
    stage   = [moves " in "] time [" per move" | " hourglass"] [bonus] [overtime] [" repeat"]
    bonus   = " +" time [" up to " time]      an increment, and its cap
            | " delay " time                  a simple delay
            | " bronstein " time              a Bronstein delay
    overtime = " then " periods "x" time      byo-yomi
             | " then " moves " in " time     Canadian
    rule    = "bonus before move"             the first bonus is granted at the start
            | "margin " time | "unit " time | "least " time      margin, charge unit, least charge of a move

A time has units in this order, each at most once: `1d2h30m15s500ms`, or is `0`. Whole words (`1 hour 30 min`) and
spaces within a time are read, too, and so is × for x; capitals and additional spaces do not matter. Examples:
`30m then 5x30s`, `9m then 25 in 10m`, `1d per move`, `3m hourglass`, `5m bronstein 3s`, `40 in 1h30m repeat`,
`25m then 1x10s, unit 1s, least 1s`.
"""

from __future__ import annotations

import re
from typing import Any

from syncapp.domain.notation.controls import control_of, main_time
from syncapp.domain.notation.durations import WITH_UNITS, NotationError, from_units, in_units, shortened
from syncapp.domain.time_control import Stage, TimeControl

_STAGE = re.compile(
    rf"(?:(?P<moves>[0-9]+) in )?(?P<time>{WITH_UNITS})(?P<per_move> per move)?(?P<hourglass> hourglass)?"
    rf"(?: ?\+ ?(?P<increment>{WITH_UNITS})(?: up to (?P<cap>{WITH_UNITS}))?)?"
    rf"(?: (?P<delay>delay|bronstein) (?P<delay_time>{WITH_UNITS}))?"
    rf"(?: then (?:(?P<periods>[0-9]+) ?x ?|(?P<period_moves>[0-9]+) in )(?P<period>{WITH_UNITS}))?"
    r"(?P<repeat> repeat)?"
)
_RULE = re.compile(rf"(?P<rule>margin|unit|least) (?P<time>{WITH_UNITS})|bonus before move")
_WORDS = tuple(
    (re.compile(pattern), unit)
    for pattern, unit in (
        (r"×", "x"),
        (r"(?<=[0-9]) ?(?:days?|d)\b", "d"),
        (r"(?<=[0-9]) ?(?:hours?|hrs?|h)\b", "h"),
        (r"(?<=[0-9]) ?(?:minutes?|mins?|m)\b", "m"),
        (r"(?<=[0-9]) ?(?:seconds?|secs?|s)\b", "s"),
        (r"(?<=[0-9]) ?ms\b", "ms"),
        (r"(?<![\w.])0(?![\w.])", "0s"),
        (r"(?<=[0-9][dhms]) (?=[0-9]+(?:h|m|s|ms)\b)", ""),
    )
)
"""Other ways to write a time."""
_EXAMPLES = (
    ("then", "30m then 5x30s or 9m then 25 in 10m"),
    ("hourglass", "3m hourglass"),
    ("move", "3d per move or 40 in 1h30m +30s"),
    ("del", "5m delay 5s"),
    ("bron", "5m bronstein 3s"),
    ("x", "30m then 5x30s"),
)
_RULES = {"margin": "margin_ms", "unit": "charge_unit_ms", "least": "min_charge_ms"}


def read(text: str) -> TimeControl:
    """Read our own notation."""
    plain = " ".join(text.lower().split())
    for pattern, unit in _WORDS:
        plain = pattern.sub(unit, plain)
    texts, *rules = (part.strip() for part in plain.split(","))
    given = _rules(rules)
    stages = [_stage(part.strip()) for part in texts.split(";")]
    if "moves" in stages[-1] and "repeat" not in stages[-1]:
        raise NotationError("has moves in its last stage: write repeat after it, or add the stage that follows")
    return control_of(*stages, **given)


def _stage(text: str) -> dict[str, Any]:
    match = _STAGE.fullmatch(text)
    if match is None:
        example = next((each for word, each in _EXAMPLES if word in text), "40 in 1h30m +30s")
        raise NotationError(f"has {shortened(text)} where a stage is expected, such as {example}")
    count = {name: int(match[name]) for name in ("moves", "periods", "period_moves") if match[name] is not None}
    flags = {name: True for name in ("hourglass", "repeat") if match[name]}
    fields = (
        ("per_move_ms" if match["per_move"] else "time_ms", "time"),
        ("increment_ms", "increment"),
        ("cap_ms", "cap"),
        ("delay_ms", "delay_time"),
        ("period_ms", "period"),
    )
    times = {field: from_units(match[name]) for field, name in fields if match[name] is not None}
    kind = match["delay"] and ("simple" if match["delay"] == "delay" else "bronstein")
    return {**times, **count, **flags, "delay": kind}


def _rules(texts: list[str]) -> dict[str, Any]:
    rules: dict[str, Any] = {}
    for text in texts:
        match = _RULE.fullmatch(text)
        if text == "repeat":
            raise NotationError("has repeat after a comma; write it after its stage, such as 40 in 5m repeat")
        if match is None:
            raise NotationError(
                f"has {shortened(text)} where a rule is expected, such as margin 1s or bonus before move"
            )
        name = _RULES[match["rule"]] if match["rule"] else "first_bonus"
        if name in rules:
            raise NotationError(f"has the rule {shortened(text)} twice")
        rules[name] = from_units(match["time"]) if match["rule"] else "before_move"
    return rules


def write(control: TimeControl) -> str:
    """Write any control."""
    rules = (
        ("bonus before move", control.first_bonus == "before_move"),
        (f"margin {in_units(control.margin_ms)}", control.margin_ms),
        (f"unit {in_units(control.charge_unit_ms)}", control.charge_unit_ms != 1),
        (f"least {in_units(control.min_charge_ms)}", control.min_charge_ms),
    )
    stages = "; ".join(_written(stage) for stage in control.stages)
    return ", ".join([stages, *(text for text, applies in rules if applies)])


def _written(stage: Stage) -> str:
    overtime = f"{stage.periods}x" if stage.periods else f"{stage.period_moves} in "
    parts = (
        (f"{stage.moves} in", stage.moves),
        (in_units(stage.per_move_ms or main_time(stage)), True),
        ("per move", stage.per_move_ms),
        ("hourglass", stage.hourglass),
        (f"+{in_units(stage.increment_ms or 0)}", stage.increment_ms),
        (f"up to {in_units(stage.cap_ms or 0)}", stage.cap_ms),
        (f"{'delay' if stage.delay == 'simple' else 'bronstein'} {in_units(stage.delay_ms or 0)}", stage.delay),
        (f"then {overtime}{in_units(stage.period_ms or 0)}", stage.period_ms),
        ("repeat", stage.repeat),
    )
    return " ".join(text for text, applies in parts if applies)

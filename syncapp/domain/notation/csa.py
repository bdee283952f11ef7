"""Times of computer shogi: CSA files of version 3, older ones, and the game names of floodgate.

| text                            | meaning                                                                         |
| ------------------------------- | ------------------------------------------------------------------------------- |
| `1500+30+0`, `$TIME:1500+30+0`  | main time, byo-yomi and increment in seconds; a move's time is rounded down     |
| `$TIME+:600+10+0`, `$TIME-:…`   | the time of one side, in games with odds                                        |
| `$TIME_LIMIT:00:25+00`          | version 2: `hh:mm+ss`, main time and byo-yomi; each move costs at least 1 s     |
| `floodgate-300-10F`             | main time 300 s, and 10 s before each move, the first one included              |
| `floodgate-600-10`              | main time 600 s, and byo-yomi of 10 s                                           |

Byo-yomi is one period. Moves are charged in whole seconds. The increment of a file is granted after the move, because
CSA's tournaments grant none for the first move; shogi-server, which runs floodgate, grants it before
(`TimeClock#process_time`, and `timeout?` of the first move).
"""

from __future__ import annotations

import re

from syncapp.domain.notation.controls import control_of, only_stage
from syncapp.domain.notation.durations import (
    HOUR_MS,
    MINUTE_MS,
    NUMBER,
    SECOND_MS,
    NotationError,
    number,
    shortened,
    to_ms,
    whole_seconds,
)
from syncapp.domain.time_control import FirstBonus, TimeControl

_TIME = re.compile(rf"(?:\$TIME[+-]?:)?({NUMBER})\+({NUMBER})\+({NUMBER})")
_TIME_LIMIT = re.compile(r"(?:\$TIME_LIMIT:)?([0-9]+):([0-5][0-9])\+([0-9]+)")
_GAME_NAME = re.compile(r"(?:[A-Za-z][A-Za-z0-9_]*-)?([0-9]+)-([0-9]+)(F?)")


def read(text: str) -> TimeControl:
    """Read main time, byo-yomi and increment."""
    if match := _TIME.fullmatch(text):
        return _control(*(to_ms(part) for part in match.groups()))
    if match := _TIME_LIMIT.fullmatch(text):
        hours, minutes, seconds = match.groups()
        return _control(to_ms(hours, HOUR_MS) + to_ms(minutes, MINUTE_MS), to_ms(seconds), 0, least=SECOND_MS)
    if match := _GAME_NAME.fullmatch(text):
        main, second, fischer = match.groups()
        if fischer:
            return _control(to_ms(main), 0, to_ms(second), first_bonus="before_move")
        return _control(to_ms(main), to_ms(second), 0)
    raise NotationError(
        f"has {shortened(text)} where CSA expects main time, byo-yomi and increment in seconds, such as 1500+30+0"
    )


def _control(
    main: int, byo_yomi: int, increment: int, *, least: int = 0, first_bonus: FirstBonus = "after_move"
) -> TimeControl:
    period = {"periods": 1, "period_ms": byo_yomi} if byo_yomi else {}
    stage = {"time_ms": main, "increment_ms": increment, **period}
    return control_of(stage, charge_unit_ms=SECOND_MS, min_charge_ms=least, first_bonus=first_bonus)


def write(control: TimeControl) -> str:
    """Write main time, byo-yomi and increment.

    In the older form if there is a least charge; as a game name of floodgate if the increment comes before the move.
    """
    _, times = only_stage(control, "absolute", "fischer", "byo-yomi")
    if control.min_charge_ms:
        if times.main_ms % MINUTE_MS or times.increment_ms:
            raise NotationError("has a least charge, and main time that is no whole number of minutes or an increment")
        hours, minutes = divmod(times.main_ms // MINUTE_MS, 60)
        return f"$TIME_LIMIT:{hours:02}:{minutes:02}+{int(whole_seconds(times.period_ms)):02}"
    if control.first_bonus == "before_move":
        return f"floodgate-{whole_seconds(times.main_ms)}-{whole_seconds(times.increment_ms)}F"
    return "+".join(number(ms) for ms in (times.main_ms, times.period_ms, times.increment_ms))

"""The time limit in the header of Japanese shogi records (KIF, KI2), such as `持ち時間:各5時間` or `10分+30秒`.

Full-width digits and signs are read like others. Main time is in hours, minutes and seconds (時間, 分, 秒). A time
after `+`, `秒読み` or `1手` is byo-yomi of one period, as the programs mean it that write such headers; `加算` is an
increment after each move, `切れ負け` the loss at the end of the main time. `05:00+5` is mm:ss and byo-yomi. Remarks on
days and on the use of a chess clock are skipped; other words are refused.
"""

from __future__ import annotations

import re
import unicodedata

from syncapp.domain.notation.controls import control_of, only_stage
from syncapp.domain.notation.durations import HOUR_MS, MINUTE_MS, NotationError, shortened, to_ms, whole_seconds
from syncapp.domain.time_control import TimeControl

_DURATION = "(?:([0-9]+)時間)?(?:([0-9]+)分)?(?:([0-9]+)秒)?"
_REMARKS = re.compile(r"\((?:[1-3一二]日制|[1-3]日目|チェスクロック(?:使用|方式)?)\)|\s+|、|。")
_HEADER = re.compile("(?:持ち?時間:)?各?(.*)")
_MAIN = re.compile(f"(?:時間無し|時間なし|なし|無し|{_DURATION})")
_BYO_YOMI = re.compile(
    rf"(?:\+|/|,|、|\(?切れたら|\(?以後|使い切ったら|初手から)?(?:秒読み:?)?(?:1手)?{_DURATION}(?:秒読み)?(?:未満|以内)?\)?"
)
_INCREMENT = re.compile(rf"(?:\+|フィッシャールール|フィッシャー)*(?:1手(?:ごとに|毎に)?)?{_DURATION}加算")
_NO_OVERTIME = ("", "切れ負け", "(切れ負け)")


def read(text: str) -> TimeControl:
    """Read the value of the header, or the header with its name."""
    plain = _REMARKS.sub("", unicodedata.normalize("NFKC", text))
    header = _HEADER.fullmatch(plain)
    body = header[1] if header else plain
    if clock := re.fullmatch(r"([0-9]+):([0-5][0-9])(?:\+([0-9]+))?", body):
        return _control(to_ms(clock[1], MINUTE_MS) + to_ms(clock[2]), byo_yomi=to_ms(clock[3] or "0"))
    alone = _BYO_YOMI.fullmatch(body)
    if alone and body.startswith(("秒読み", "1手", "初手から")):
        return _control(0, byo_yomi=_ms(alone))
    main = _MAIN.match(body)
    rest = body[main.end() :] if main else body
    if main is None or not main[0]:
        raise NotationError(f"has {shortened(body)} where KIF expects a time such as 10分+30秒")
    if rest in _NO_OVERTIME:
        return _control(_ms(main))
    if match := _INCREMENT.fullmatch(rest):
        return _control(_ms(main), increment=_ms(match))
    if match := _BYO_YOMI.fullmatch(rest):
        if not _ms(match) and "+" not in rest:
            raise NotationError(f"has byo-yomi of an unknown length: {shortened(body)}")
        return _control(_ms(main), byo_yomi=_ms(match))
    raise NotationError(f"has words that are not known after the main time: {shortened(rest)}")


def _ms(match: re.Match[str]) -> int:
    hours, minutes, seconds = (part or "0" for part in match.groups()[:3])
    return to_ms(hours, HOUR_MS) + to_ms(minutes, MINUTE_MS) + to_ms(seconds)


def _control(main: int, *, byo_yomi: int = 0, increment: int = 0) -> TimeControl:
    period = {"periods": 1, "period_ms": byo_yomi} if byo_yomi else {}
    return control_of({"time_ms": main, "increment_ms": increment, **period})


def write(control: TimeControl) -> str:
    """Write the value of the header, without its name."""
    _, times = only_stage(control, "absolute", "fischer", "byo-yomi")
    if times.increment_ms and times.period_ms:
        raise NotationError("has byo-yomi with an increment")
    main = _japanese(times.main_ms)
    if times.period_ms:
        return f"{main}+{_japanese(times.period_ms)}"
    return f"{main}+{_japanese(times.increment_ms)}加算" if times.increment_ms else f"{main}切れ負け"


def _japanese(ms: int) -> str:
    seconds = int(whole_seconds(ms))
    hours, minutes = divmod(seconds // 60, 60)
    parts = ((hours, "時間"), (minutes, "分"), (seconds % 60, "秒"))
    return "".join(f"{count}{unit}" for count, unit in parts if count) or "0秒"

"""SGF, CSA and KIF: real texts, and what they mean or why they are refused."""

from __future__ import annotations

from typing import Any

from tests.support.time_controls import document

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
CSA = {"charge_unit_ms": 1000}
FLOODGATE = {"charge_unit_ms": 1000, "first_bonus": "before_move"}
OLD_CSA = {"charge_unit_ms": 1000, "min_charge_ms": 1000}
COLON, OPEN, CLOSE = "\uff1a", "\uff08", "\uff09"
"""The full-width signs of Japanese files."""


def byo_yomi(time_ms: int, periods: int, period_ms: int, **others: Any) -> dict[str, Any]:
    """Return a stage with byo-yomi."""
    return {"time_ms": time_ms, "periods": periods, "period_ms": period_ms, **others}


def canadian(time_ms: int, moves: int, period_ms: int) -> dict[str, Any]:
    """Return a Canadian stage."""
    return {"time_ms": time_ms, "period_moves": moves, "period_ms": period_ms}


READ = {
    # SGF
    "sgf:1800": document({"time_ms": 30 * MINUTE}),
    "sgf:TM[1800]": document({"time_ms": 30 * MINUTE}),
    "sgf:1:00:00": document({"time_ms": HOUR}),
    "sgf:1800 5x30 byo-yomi": document(byo_yomi(30 * MINUTE, 5, 30_000)),
    "sgf:TM[1800]OT[5x30 byo-yomi]": document(byo_yomi(30 * MINUTE, 5, 30_000)),
    "sgf:TM[0]OT[5x15 byo-yomi]": document(byo_yomi(0, 5, 15_000)),
    "sgf:600 3x30 byoyomi": document(byo_yomi(10 * MINUTE, 3, 30_000)),
    "sgf:600 3x30 byo yomi": document(byo_yomi(10 * MINUTE, 3, 30_000)),
    "sgf:600 5 x 30 byoyomi": document(byo_yomi(10 * MINUTE, 5, 30_000)),
    "sgf:600 5x30": document(byo_yomi(10 * MINUTE, 5, 30_000)),
    "sgf:30:00(5x1:00)": document(byo_yomi(30 * MINUTE, 5, MINUTE)),
    "sgf:TM[30:00(5x1:00)]": document(byo_yomi(30 * MINUTE, 5, MINUTE)),
    "sgf:540 25/60 Canadian": document(canadian(9 * MINUTE, 25, MINUTE)),
    "sgf:540 25/60": document(canadian(9 * MINUTE, 25, MINUTE)),
    "sgf:240 10/30 CANADIAN": document(canadian(4 * MINUTE, 10, 30_000)),
    "sgf:0 25/180.5 Canadian": document(canadian(0, 25, 180_500)),
    "sgf:600 1 moves / 30 sec": document(canadian(10 * MINUTE, 1, 30_000)),
    "sgf:600 25 moves / 10 min": document(canadian(10 * MINUTE, 25, 10 * MINUTE)),
    "sgf:600 10 fischer": document({"time_ms": 10 * MINUTE, "increment_ms": 10_000}),
    "sgf:600 Fischer +10": document({"time_ms": 10 * MINUTE, "increment_ms": 10_000}),
    "sgf:TM[259200]OT[86400 fischer]": document({"time_ms": 3 * DAY, "increment_ms": DAY}),
    "sgf:259200 simple": document({"per_move_ms": 3 * DAY}),
    "sgf:TM[0]OT[259200 simple]": document({"per_move_ms": 3 * DAY}),
    "sgf:259200 259200 simple": document({"per_move_ms": 3 * DAY}),
    # CSA
    "csa:1500+10+0": document(byo_yomi(25 * MINUTE, 1, 10_000), **CSA),
    "csa:$TIME:1500+30+0": document(byo_yomi(25 * MINUTE, 1, 30_000), **CSA),
    "csa:$TIME:0+30+0": document(byo_yomi(0, 1, 30_000), **CSA),
    "csa:$TIME:900+0+5": document({"time_ms": 15 * MINUTE, "increment_ms": 5000}, **CSA),
    "csa:$TIME:600+10+5": document(byo_yomi(10 * MINUTE, 1, 10_000, increment_ms=5000), **CSA),
    "csa:$TIME+:600+10+0": document(byo_yomi(10 * MINUTE, 1, 10_000), **CSA),
    "csa:$TIME-:300+10+0": document(byo_yomi(5 * MINUTE, 1, 10_000), **CSA),
    "csa:$TIME_LIMIT:00:25+00": document({"time_ms": 25 * MINUTE}, **OLD_CSA),
    "csa:$TIME_LIMIT:00:15+60": document(byo_yomi(15 * MINUTE, 1, MINUTE), **OLD_CSA),
    "csa:floodgate-300-10F": document({"time_ms": 5 * MINUTE, "increment_ms": 10_000}, **FLOODGATE),
    "csa:300-10F": document({"time_ms": 5 * MINUTE, "increment_ms": 10_000}, **FLOODGATE),
    "csa:floodgate-600-10": document(byo_yomi(10 * MINUTE, 1, 10_000), **CSA),
    # KIF
    f"kif:持ち時間{COLON}各1時間": document({"time_ms": HOUR}),
    f"kif:持ち時間{COLON}各9時間": document({"time_ms": 9 * HOUR}),
    f"kif:持ち時間{COLON}各8時間{OPEN}2日制{CLOSE}": document({"time_ms": 8 * HOUR}),
    f"kif:各5時間{OPEN}チェスクロック使用{CLOSE}": document({"time_ms": 5 * HOUR}),
    f"kif:持ち時間{COLON}\uff11時間\uff12分": document({"time_ms": 62 * MINUTE}),
    "kif:持ち時間:1時間30分": document({"time_ms": 90 * MINUTE}),
    "kif:30分切れ負け": document({"time_ms": 30 * MINUTE}),
    f"kif:持ち時間{COLON}5分+30秒": document(byo_yomi(5 * MINUTE, 1, 30_000)),
    "kif:10分\uff0b30秒": document(byo_yomi(10 * MINUTE, 1, 30_000)),
    "kif:10分+0秒": document({"time_ms": 10 * MINUTE}),
    f"kif:持ち時間{COLON}05:00+5": document(byo_yomi(5 * MINUTE, 1, 5000)),
    "kif:15分 秒読み60秒": document(byo_yomi(15 * MINUTE, 1, MINUTE)),
    f"kif:持ち時間{COLON}10分 秒読み{COLON}30秒": document(byo_yomi(10 * MINUTE, 1, 30_000)),
    "kif:各25分、切れたら1手30秒": document(byo_yomi(25 * MINUTE, 1, 30_000)),
    "kif:各40分(切れたら1手1分未満)": document(byo_yomi(40 * MINUTE, 1, MINUTE)),
    "kif:時間無し 1手30秒": document(byo_yomi(0, 1, 30_000)),
    "kif:1手30秒": document(byo_yomi(0, 1, 30_000)),
    "kif:初手から1手30秒": document(byo_yomi(0, 1, 30_000)),
    "kif:10分 1手5秒加算": document({"time_ms": 10 * MINUTE, "increment_ms": 5000}),
    "kif:5分+10秒加算": document({"time_ms": 5 * MINUTE, "increment_ms": 10_000}),
    "kif:5分フィッシャールール1手ごとに5秒加算": document({"time_ms": 5 * MINUTE, "increment_ms": 5000}),
}
REFUSED = {
    "sgf:none": "has no time limit",
    "sgf:-": "has no time limit",
    "sgf:5x30 byo-yomi": "an overtime without a main time: write 0 5x30 byo-yomi",
    "sgf:10/30": "an overtime without a main time",
    "sgf:600 0x30": "stages.0.periods must be greater",
    "sgf:600 101x30": "stages.0.periods must be less",
    "sgf:600 foo": "an overtime that is not known: foo",
    "sgf:600 30 simple": "a main time and a time for each move",
    "sgf:1:70:00": "the minutes are not below 60",
    "sgf:1e3": "where SGF expects a main time",
    "sgf:-600": "where SGF expects a main time",
    "csa:1500+10": "where CSA expects main time, byo-yomi and increment",
    "csa:0+0+0": "must be more than 0, because nothing else gives time",
    "csa:$TIME_LIMIT:00:75+00": "where CSA expects",
    "kif:不明": "where KIF expects a time such as 10分+30秒",
    f"kif:各25分{OPEN}切れたら秒読み{CLOSE}": "byo-yomi of an unknown length",
    "kif:各5時間 昼食休憩1時間": "words that are not known after the main time",
    "kif:各5時間(ストップウォッチ)": "words that are not known after the main time",
}

"""Which dialect a control is written in, what a dialect cannot say, and the hints for a text without a dialect."""

from __future__ import annotations

import re

import pytest

from syncapp.domain.notation import DIALECTS, NotationError, format_control, parse, write

FORMATTED = {
    "minutes:15+10": "pgn:900+10",
    "minutes:½+0": "pgn:30",
    "uscf:G/90;d5": "uscf:G/90;d5",
    "pgn:300+5b": "syncapp:5m bronstein 5s",
    "uscf:G/60;+30": "uscf:G/60;+30",
    "uscf:40/90;+30,SD/30;+30": "uscf:40/90,SD/30;+30",
    "cutechess:40/1:30+1": "cutechess:40/90+1",
    "cutechess:5:00": "pgn:300",
    "cutechess:60+0.6 timemargin=1000": "cutechess:60+0.6 timemargin=1000",
    "sgf:TM[1800]OT[5x30]": "sgf:1800 5x30 byo-yomi",
    "sgf:540 25/60": "sgf:540 25/60 Canadian",
    "csa:$TIME:1500+30+0": "csa:1500+30+0",
    "csa:300-10F": "csa:floodgate-300-10F",
    "csa:$TIME_LIMIT:00:25+10": "csa:$TIME_LIMIT:00:25+10",
    "lichess:correspondence 3 days": "pgn:1/259200",
    "gtp:kata-time_settings fischer-capped 600 10 1200 -1": "syncapp:10m +10s up to 20m",
    "syncapp:300s +3s, margin 500ms": "syncapp:5m +3s, margin 500ms",
}
WRITTEN = {
    ("pgn:40/5400+30:1800+30", "pgn"): "40/5400+30:1800+30",
    ("pgn:40/5400+30:1800+30", "syncapp"): "40 in 1h30m +30s; 30m +30s",
    ("pgn:300+3", "minutes"): "5+3",
    ("pgn:90", "minutes"): "1.5+0",
    ("pgn:300+3", "sgf"): "300 3 fischer",
    ("pgn:300+3", "uci"): "go wtime 300000 btime 300000 winc 3000 binc 3000",
    ("pgn:300+3", "xboard"): "level 0 5 3",
    ("pgn:40/330", "xboard"): "level 40 5:30 0",
    ("pgn:300+3", "gtp"): "kata-time_settings fischer 300 3",
    ("pgn:300+3", "lichess"): '{"limit":300,"increment":3}',
    ("pgn:300+3", "kif"): "5分+3秒加算",
    ("pgn:1/86400", "lichess"): '{"daysPerTurn":1}',
    ("pgn:1/86400", "sgf"): "86400 simple",
    ("pgn:1/86400", "ogs"): '{"system":"simple","per_move":86400}',
    ("pgn:1/5", "cutechess"): "st=5",
    ("pgn:*180", "cutechess"): "hg180",
    ("sgf:1800 5x30", "gtp"): "kgs-time_settings byoyomi 1800 30 5",
    ("sgf:1800 5x30", "ogs"): '{"system":"byoyomi","main_time":1800,"period_time":30,"periods":5}',
    ("sgf:600 25/300", "gtp"): "time_settings 600 300 25",
    ("sgf:600 1x30", "kif"): "10分+30秒",
    ("sgf:0 1x30", "usi"): "go wtime 0 btime 0 byoyomi 30000",
    ("pgn:40/7200+5d:3600", "uscf"): "40/120;d5,SD/60;d0",
}
UNWRITTEN = {
    ("pgn:300+3", "cutechess"): "cannot be written as cutechess, which cannot express first_bonus",
    ("uscf:G/60;+30", "pgn"): "cannot be written as pgn, which cannot express first_bonus",
    ("cutechess:60 timemargin=9", "pgn"): "cannot be written as pgn, which cannot express margin_ms",
    ("csa:600+10+0", "sgf"): "cannot be written as sgf, which cannot express charge_unit_ms",
    ("sgf:1800 5x30", "pgn"): "cannot be written as pgn: it has a byo-yomi stage",
    ("sgf:1800 5x30", "kif"): "cannot be written as kif, which cannot express stages.0.periods",
    ("pgn:40/7200:3600", "sgf"): "cannot be written as sgf: it has several stages",
    ("pgn:*180", "uci"): "cannot be written as uci: it is hourglass",
    ("pgn:10", "minutes"): "which is no finite decimal number",
    ("pgn:90", "uscf"): "not a whole number of minutes",
    ("pgn:40/300", "uscf"): "may mean hours",
    ("pgn:0.5", "xboard"): "not a whole number of seconds",
    ("pgn:1/5", "lichess"): "no whole number of days",
    ("sgf:0 1x30", "uci"): "it is byo-yomi",
    ("pgn:0+1", "uci"): "no main time, which UCI engines take for no clock at all",
    ("syncapp:10m +1s up to 20m", "sgf"): "which cannot express stages.0.cap_ms",
    ("pgn:123.456", "lichess"): "not a whole number of seconds",
    ("pgn:300", "latin"): "cannot be written as latin; the dialects are pgn, minutes",
}
HINTS = {
    "10+0": "needs a dialect, such as pgn:10+0 (10 s) or minutes:10+0 (10 min)",
    "10+5": "needs a dialect, such as pgn:10+5 (10 s +5 s), minutes:10+5 (10 min +5 s) or "
    "cutechess:10+5 (10 s +5 s; the first bonus at the start)",
    "40/1:30": "needs a dialect, such as pgn:40/1:30 (40 moves in 1 s, then 30 s) or "
    "cutechess:40/1:30 (40 moves in 1 min 30 s, repeated)",
    "G/60;d5": "needs a dialect, such as uscf:G/60;d5 (1 h with 5 s simple delay)",
    "1800 5x30 byo-yomi": "needs a dialect, such as sgf:1800 5x30 byo-yomi (30 min and 5 periods of 30 s)",
    "": "needs a dialect, such as pgn:300+2 (5 min +2 s) or minutes:5+2; see the list of dialects",
    "whatever": "needs a dialect, such as pgn:300+2 (5 min +2 s) or minutes:5+2; see the list of dialects",
    "fen:10+0": "has an unknown dialect, fen; known are pgn, minutes,",
}


@pytest.mark.parametrize("text", FORMATTED)
def test_the_shortest_dialect_that_can_say_it_is_used(text: str) -> None:
    assert format_control(parse(text)) == FORMATTED[text]


@pytest.mark.parametrize(("text", "dialect"), WRITTEN)
def test_a_control_is_written_in_a_dialect(text: str, dialect: str) -> None:
    assert write(parse(text), dialect) == WRITTEN[text, dialect]


@pytest.mark.parametrize(("text", "dialect"), UNWRITTEN)
def test_what_a_dialect_cannot_say_is_refused_with_a_reason(text: str, dialect: str) -> None:
    with pytest.raises(NotationError) as refused:
        write(parse(text), dialect)
    assert UNWRITTEN[text, dialect] in str(refused.value)


@pytest.mark.parametrize("text", HINTS)
def test_a_text_without_a_dialect_is_refused_with_what_it_may_mean(text: str) -> None:
    with pytest.raises(NotationError) as refused:
        parse(text)
    assert str(refused.value).startswith(HINTS[text])


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_example_of_each_dialect_can_be_read(dialect: str) -> None:
    example = re.split(r": ", DIALECTS[dialect])[-1]
    assert parse(f"{dialect}:{example}").stages

"""PGN tags, minutes of web sites, US Chess, and cutechess: real texts, and what they mean or why they are refused."""

from __future__ import annotations

from typing import Any

from tests.support.time_controls import document

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
BEFORE = {"first_bonus": "before_move"}


def fischer(time_ms: int, increment_ms: int, **others: Any) -> dict[str, Any]:
    """Return a stage with an increment."""
    return {"time_ms": time_ms, "increment_ms": increment_ms, **others}


def simple(time_ms: int, delay_ms: int, **others: Any) -> dict[str, Any]:
    """Return a stage with a simple delay."""
    return {"time_ms": time_ms, "delay_ms": delay_ms, "delay": "simple", **others}


READ = {
    # PGN
    "pgn:300": document({"time_ms": 5 * MINUTE}),
    "pgn:39600": document({"time_ms": 11 * HOUR}),
    "pgn:180+2": document(fischer(3 * MINUTE, 2000)),
    "pgn:180 + 2": document(fischer(3 * MINUTE, 2000)),
    "PGN: 180+2 ": document(fischer(3 * MINUTE, 2000)),
    "pgn:300+0": document({"time_ms": 5 * MINUTE}),
    "pgn:300+0.5": document(fischer(5 * MINUTE, 500)),
    "pgn:300.5+2": document(fischer(300_500, 2000)),
    "pgn:1+0.1": document(fischer(1000, 100)),
    "pgn:1800+5.298": document(fischer(30 * MINUTE, 5298)),
    "pgn:3600+90": document(fischer(HOUR, 90_000)),
    "pgn:2592000": document({"time_ms": 30 * DAY}),
    "pgn:40/9000": document({"time_ms": 150 * MINUTE, "moves": 40, "repeat": True}),
    "pgn:40/7200:3600": document({"time_ms": 2 * HOUR, "moves": 40}, {"time_ms": HOUR}),
    "pgn:40/5400+30:1800+30": document(fischer(90 * MINUTE, 30_000, moves=40), fischer(30 * MINUTE, 30_000)),
    "pgn:40/7200:20/3600:900+30": document(
        {"time_ms": 2 * HOUR, "moves": 40}, {"time_ms": HOUR, "moves": 20}, fischer(15 * MINUTE, 30_000)
    ),
    "pgn:40/6000:20/3000:1200+10": document(
        {"time_ms": 100 * MINUTE, "moves": 40}, {"time_ms": 50 * MINUTE, "moves": 20}, fischer(20 * MINUTE, 10_000)
    ),
    "pgn:40/1:30+1": document({"time_ms": 1000, "moves": 40}, fischer(30_000, 1000)),
    "pgn:*180": document({"time_ms": 3 * MINUTE, "hourglass": True}),
    "pgn:1/86400": document({"per_move_ms": DAY}),
    "pgn:1/259200": document({"per_move_ms": 3 * DAY}),
    "pgn:300+5d": document(simple(5 * MINUTE, 5000)),
    "pgn:0+5d": document(simple(0, 5000)),
    "pgn:60+1d": document(simple(MINUTE, 1000)),
    "pgn:300+5b": document({"time_ms": 5 * MINUTE, "delay_ms": 5000, "delay": "bronstein"}),
    "pgn:0+1": document(fischer(0, 1000), **BEFORE),
    "pgn:0+5b": document({"time_ms": 0, "delay_ms": 5000, "delay": "bronstein"}, **BEFORE),
    "pgn:15 min/game + 10 sec/move": document(fischer(15 * MINUTE, 10_000)),
    "pgn:25 min + 10 sec/move": document(fischer(25 * MINUTE, 10_000)),
    "pgn:90 min/40 moves + 30 min/rest + 30 sec/move": document(
        fischer(90 * MINUTE, 30_000, moves=40), fischer(30 * MINUTE, 30_000)
    ),
    # Minutes
    "minutes:15+10": document(fischer(15 * MINUTE, 10_000)),
    "minutes:10+0": document({"time_ms": 10 * MINUTE}),
    "minutes:5|3": document(fischer(5 * MINUTE, 3000)),
    "minutes:3 | 2": document(fischer(3 * MINUTE, 2000)),
    "minutes:0.5+0": document({"time_ms": 30_000}),
    "minutes:½+0": document({"time_ms": 30_000}),
    "minutes:¼+1": document(fischer(15_000, 1000)),
    "minutes:1/4+0": document({"time_ms": 15_000}),
    "minutes:1½+0": document({"time_ms": 90_000}),
    "minutes:3 min + 2 sec": document(fischer(3 * MINUTE, 2000)),
    "minutes:10 min": document({"time_ms": 10 * MINUTE}),
    "minutes:10 minutes": document({"time_ms": 10 * MINUTE}),
    # US Chess
    "uscf:G/90;d5": document(simple(90 * MINUTE, 5000)),
    "uscf:G/60;+30": document(fischer(HOUR, 30_000), **BEFORE),
    "uscf:G/5;d0": document({"time_ms": 5 * MINUTE}),
    "uscf:G/3;inc2": document(fischer(3 * MINUTE, 2000), **BEFORE),
    "uscf:G45/D5": document(simple(45 * MINUTE, 5000)),
    "uscf:G/120d10": document(simple(2 * HOUR, 10_000)),
    "uscf:All/120 d5": document(simple(2 * HOUR, 5000)),
    "uscf:SD/60": document({"time_ms": HOUR}),
    "uscf:40/120;d5": document(simple(2 * HOUR, 5000, moves=40, repeat=True)),
    "uscf:40/120,SD/60;d5": document(simple(2 * HOUR, 5000, moves=40), simple(HOUR, 5000)),
    "uscf:40/120, SD/60; +30": document(fischer(2 * HOUR, 30_000, moves=40), fischer(HOUR, 30_000), **BEFORE),
    "uscf:40/90, SD/30, Inc/30": document(
        fischer(90 * MINUTE, 30_000, moves=40), fischer(30 * MINUTE, 30_000), **BEFORE
    ),
    "uscf:40/100;+30,SD/50;+30": document(
        fischer(100 * MINUTE, 30_000, moves=40), fischer(50 * MINUTE, 30_000), **BEFORE
    ),
    "uscf:40/120 d5,SD/60 d10": document(simple(2 * HOUR, 5000, moves=40), simple(HOUR, 10_000)),
    "uscf:30/90,20/60,SD/30": document(
        {"time_ms": 90 * MINUTE, "moves": 30}, {"time_ms": HOUR, "moves": 20}, {"time_ms": 30 * MINUTE}
    ),
    # cutechess and fastchess
    "cutechess:40/1:30+1": document(fischer(90_000, 1000, moves=40, repeat=True), **BEFORE),
    "cutechess:40/300": document({"time_ms": 5 * MINUTE, "moves": 40, "repeat": True}),
    "cutechess:60+0.6": document(fischer(MINUTE, 600), **BEFORE),
    "cutechess:1.001+0": document({"time_ms": 1001}),
    "cutechess:5:00": document({"time_ms": 5 * MINUTE}),
    "cutechess:tc=5:00+2": document(fischer(5 * MINUTE, 2000), **BEFORE),
    "cutechess:hg60": document({"time_ms": MINUTE, "hourglass": True}),
    "cutechess:st=5": document({"per_move_ms": 5000}),
    "cutechess:st=0.1 timemargin=50": document({"per_move_ms": 100}, margin_ms=50),
    "cutechess:60+0.6 timemargin=1000": document(fischer(MINUTE, 600), margin_ms=1000, **BEFORE),
}
REFUSED = {
    "pgn:": "has nothing after pgn:",
    "pgn:?": "time control is not known",
    "pgn:?x": "time control is not known",
    "pgn:-": "there is no time control",
    "pgn:-1": "has -1 where PGN expects a field",
    "pgn:3600+30:": "ends with a colon",
    "pgn:3600+30:900": "stages.0.moves is required, because another stage follows",
    "pgn:G/60": "notation of US Chess: try uscf:",
    "pgn:120m:60m": "has units, but PGN counts plain seconds",
    "pgn:90 min + 30 min + 30 sec": "has units",
    "pgn:300,5+1": "has a comma",
    "pgn:300=600": "give each owner its own",
    "pgn:300.0005": "more precise than 1 ms",
    "pgn:0": "must be more than 0, because nothing else gives time",
    "pgn:1/60+5": "takes no increment and no delay",
    "pgn:2592001": "stages.0.time_ms must be less than",
    "pgn:1001/60:30": "stages.0.moves must be less than",
    "pgn:1/60:*60": "must be the only stage",
    "pgn:*0": "must be more than 0 in an hourglass",
    "pgn:1/1:1/1:1/1:1/1:1/1:1/1:1/1:1/1:1/1:1": "stages must have at most 9 items, not 10",
    "pgn:٣٠٠": "where PGN expects a field",
    "minutes:15+": "where minutes and seconds are expected",
    "minutes:0+1": "unless first_bonus is before_move",
    "minutes:1:30+1": "where minutes and seconds are expected",
    "minutes:0.00001+0": "more precise than 1 ms",
    "uscf:40/120, SD/60 d5": "does not say whether the delay or increment holds in all stages",
    "uscf:40/2, SD/1": "may mean hours: write minutes",
    "uscf:G/24;t5": "where US Chess writes a part such as SD/60",
    "uscf:d5": "without a stage before it",
    "uscf:G/60;d5;+5": "without a stage before it",
    "uscf:G/60,SD/30": "stages.0.moves is required",
    "cutechess:inf": "has no time limit",
    "cutechess:tc=inf": "has no time limit",
    "cutechess:1:30:00": "where cutechess expects",
    "cutechess:40/60:30:10": "where cutechess expects",
    "cutechess:timemargin=5": "needs either a time control",
    "cutechess:60 st=5": "needs either a time control",
    "cutechess:60 60": "given twice",
    "cutechess:60 timemargin=x": "not a whole number of ms",
}

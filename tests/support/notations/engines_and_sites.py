"""Commands to engines, the JSON of sites, and our own notation: what they mean or why they are refused."""

from __future__ import annotations

from typing import Any

from tests.support.time_controls import document

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
FISCHER = {"time_ms": 5 * MINUTE, "increment_ms": 3000}
CAPPED = {"time_ms": DAY, "increment_ms": HOUR, "cap_ms": 2 * DAY}
CANADIAN = {"time_ms": 30 * MINUTE, "period_moves": 25, "period_ms": 5 * MINUTE}


def byo_yomi(time_ms: int, periods: int, period_ms: int) -> dict[str, Any]:
    """Return a stage with byo-yomi."""
    return {"time_ms": time_ms, "periods": periods, "period_ms": period_ms}


READ = {
    # UCI and USI
    "uci:go wtime 300000 btime 300000": document({"time_ms": 5 * MINUTE}),
    "uci:go btime 300000 wtime 300000 binc 3000 winc 3000": document(FISCHER),
    "uci:go wtime 300000 btime 300000 winc 3000 binc 3000 movestogo 40": document(
        FISCHER | {"moves": 40, "repeat": True}
    ),
    "uci:go movetime 5000": document({"per_move_ms": 5000}),
    "usi:go btime 60000 wtime 60000 byoyomi 10000": document(byo_yomi(MINUTE, 1, 10_000)),
    "usi:btime 0 wtime 0 byoyomi 10000": document(byo_yomi(0, 1, 10_000)),
    "usi:go btime 300000 wtime 300000 binc 3000 winc 3000": document(FISCHER),
    # XBoard
    "xboard:level 40 5 0": document({"time_ms": 5 * MINUTE, "moves": 40, "repeat": True}),
    "xboard:level 40 0:30 0": document({"time_ms": 30_000, "moves": 40, "repeat": True}),
    "xboard:level 0 2 12": document({"time_ms": 2 * MINUTE, "increment_ms": 12_000}),
    "xboard:st 30": document({"per_move_ms": 30_000}),
    # GTP
    "gtp:time_settings 1800 300 25": document(CANADIAN),
    "gtp:time_settings 1800 0 0": document({"time_ms": 30 * MINUTE}),
    "gtp:time_settings 0 10 1": document({"time_ms": 0, "period_moves": 1, "period_ms": 10_000}),
    "gtp:kgs-time_settings canadian 1800 300 25": document(CANADIAN),
    "gtp:kgs-time_settings byoyomi 1800 30 5": document(byo_yomi(30 * MINUTE, 5, 30_000)),
    "gtp:kgs-time_settings absolute 1800": document({"time_ms": 30 * MINUTE}),
    "gtp:kata-time_settings fischer 300 3": document(FISCHER),
    "gtp:kata-time_settings fischer-capped 86400 3600 172800 -1": document(CAPPED),
    "gtp:kata-time_settings byoyomi 0 0.01 2": document(byo_yomi(0, 2, 10)),
    # Lichess
    'lichess:{"limit":300,"increment":3}': document(FISCHER),
    'lichess:{"limit": 300}': document({"time_ms": 5 * MINUTE}),
    'lichess:{"type":"clock","limit":300,"increment":3,"show":"5+3"}': document(FISCHER),
    'lichess:{"clock":{"initial":300,"increment":3,"totalTime":420}}': document(FISCHER),
    "lichess:clock.limit=300&clock.increment=3": document(FISCHER),
    'lichess:{"daysPerTurn":2}': document({"per_move_ms": 2 * DAY}),
    "lichess:correspondence 3 days": document({"per_move_ms": 3 * DAY}),
    # OGS
    'ogs:{"time_control":"byoyomi","main_time":600,"period_time":30,"periods":5}': document(
        byo_yomi(10 * MINUTE, 5, 30_000)
    ),
    'ogs:{"system":"fischer","initial_time":86400,"time_increment":3600,"max_time":172800}': document(CAPPED),
    'ogs:{"system":"canadian","main_time":1800,"period_time":300,"stones_per_period":25,"speed":"live"}': document(
        CANADIAN
    ),
    'ogs:{"system":"simple","per_move":86400,"pause_on_weekends":false}': document({"per_move_ms": DAY}),
    'ogs:{"time_control":{"time_control":"absolute","total_time":900}}': document({"time_ms": 15 * MINUTE}),
    # Our own
    "syncapp:5m": document({"time_ms": 5 * MINUTE}),
    "syncapp:40 in 1h30m +30s; 30m +30s, margin 1s": document(
        {"time_ms": 90 * MINUTE, "increment_ms": 30_000, "moves": 40},
        {"time_ms": 30 * MINUTE, "increment_ms": 30_000},
        margin_ms=1000,
    ),
    "syncapp:1d +1h up to 2d": document(CAPPED),
    "syncapp:5min+3s": document(FISCHER),
    "SyncApp:  1D  +1H  Up To  2D ": document(CAPPED),
    "syncapp:0s +3s, bonus before move": document({"time_ms": 0, "increment_ms": 3000}, first_bonus="before_move"),
    "syncapp:5m delay 3s": document({"time_ms": 5 * MINUTE, "delay_ms": 3000, "delay": "simple"}),
    "syncapp:5m bronstein 3s": document({"time_ms": 5 * MINUTE, "delay_ms": 3000, "delay": "bronstein"}),
    "syncapp:30m then 5x30s": document(byo_yomi(30 * MINUTE, 5, 30_000)),
    "syncapp:30m then 25 in 5m": document(CANADIAN),
    "syncapp:1d per move": document({"per_move_ms": DAY}),
    "syncapp:3m hourglass": document({"time_ms": 3 * MINUTE, "hourglass": True}),
    "syncapp:40 in 1m500ms repeat": document({"time_ms": 60_500, "moves": 40, "repeat": True}),
    "syncapp:25m, unit 1s, least 1s": document({"time_ms": 25 * MINUTE}, charge_unit_ms=1000, min_charge_ms=1000),
}
REFUSED = {
    "uci:go infinite": "has infinite, which is not a time control",
    "uci:go depth 10": "has depth",
    "uci:go nodes 1000 wtime 5 btime 5": "has nodes",
    "uci:go wtime 300000 btime 200000": "differs between the sides (wtime, btime)",
    "uci:go wtime 300000": "differs between the sides",
    "uci:go wtime 300000 btime 300000 winc 1": "differs between the sides (winc, binc)",
    "uci:go wtime 300000 btime 300000 byoyomi 1": "is not a go command with times",
    "uci:go wtime 300000 wtime 300000": "is not a go command with times",
    "uci:go wtime 0 btime 0": "must be more than 0",
    "uci:go": "is not a go command with times",
    "uci:go movetime 5 wtime 5": "has a movetime and other times",
    "xboard:sd 5": "where XBoard has a command",
    "xboard:level 40 5": "where XBoard has a command",
    "xboard:level 40 1:75 0": "where XBoard has a command",
    "gtp:time_settings 1800 30 0": "a period without stones, which GTP defines as no time limit",
    "gtp:time_settings 0 1 0": "a period without stones",
    "gtp:kgs-time_settings none": "has no time limit",
    "gtp:kgs-time_settings byoyomi 1800 30": "where GTP has a command",
    "gtp:kata-time_settings fischer-capped 86400 3600 172800 60": "a limit for each move",
    "gtp:time_settings 1800 300 2.5": "more precise than 1 ms",
    'lichess:{"type":"unlimited"}': "neither a limit in seconds nor daysPerTurn",
    'lichess:{"limit":true}': "limit that is not a number",
    'lichess:{"limit":0,"increment":1}': "unless first_bonus is before_move",
    "lichess:[300,3]": "is JSON, but not an object",
    "lichess:5+3": "an object in JSON is expected",
    'ogs:{"system":"none"}': "has no time limit",
    'ogs:{"system":"sudden"}': "has no system that is known",
    'ogs:{"system":"byoyomi","main_time":600,"periods":5}': "lacks period_time",
    'ogs:{"system":"simple","per_move":86400,"pause_on_weekends":true}': "pauses on weekends",
    'ogs:{"system":["simple"]}': "has no system that is known",
    "syncapp:90": "where a stage is expected",
    "syncapp:30s1m": "where a stage is expected",
    "syncapp:5m +3s delay 3s": "cannot be given together with",
    "syncapp:40 in 5m": "has moves in its last stage: write repeat after it, or add the stage that follows",
    "syncapp:40 in 5m, repeat": "has repeat after a comma; write it after its stage, such as 40 in 5m repeat",
    "syncapp:9h then 60s byo-yomi": "such as 30m then 5x30s or 9m then 25 in 10m",
    "syncapp:hourglass 3m": "such as 3m hourglass",
    "syncapp:5m, margin 1s, margin 2s": "twice",
    "syncapp:5m, margin": "where a rule is expected",
    "syncapp:5m, margin ": "where a rule is expected",
    "syncapp:5m +": "has no time where one is expected",
    "syncapp:31d": "stages.0.time_ms must be less than",
}

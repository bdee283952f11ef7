"""Lateness of expiries: time from the deadline to the sweeper's commit."""

from __future__ import annotations

import time

import orjson

from bench.figures import Part, value
from bench.figures import figure as figure_of
from bench.rig import Rig

COUNT = 1000
SPREAD_MS = 10_000
AHEAD_MS = 5000


def run(rig: Rig) -> Part:
    """Measure 1,000 deadlines over 10 s, and 1,000 at one instant."""
    with rig.web(1):
        spread = expire(rig, [SPREAD_MS * place // COUNT for place in range(COUNT)])
        rig.forget_outbox()
        at_once = expire(rig, [0] * COUNT)
        rig.forget_outbox()
    return Part(
        "Expiry",
        [
            figure_of("lateness, 100 a second", "ms", [spread]),
            figure_of("lateness, 1,000 at once", "ms", [at_once]),
            value("all of 1,000 at once", "ms", max(at_once)),
        ],
        ["Lateness is the time of the commit, by the server's clock, minus the deadline. One web process sweeps."],
    )


def expire(rig: Rig, after_ms: list[int]) -> list[float]:
    """Start sessions with these deadlines after a common instant; return how late each expired, in ms."""
    ids = [rig.session() for _ in after_ms]
    deadlines_ms = [rig.store.get(each).found.clock(0)["deadline_ms"] for each in ids]
    common_ms = rig.store.time_ms() + AHEAD_MS
    for session_id, deadline_ms, after in zip(ids, deadlines_ms, after_ms, strict=True):
        rig.store.adjust(session_id, op="add", ms=common_ms + after - deadline_ms)
    if rig.store.time_ms() > common_ms:
        raise RuntimeError("the sessions were not started in time: this machine is too busy")
    time.sleep((common_ms - rig.store.time_ms() + max(after_ms)) / 1000 + 1.0)
    wanted = set(ids)
    late: list[float] = []
    for committed_ms, raw in rig.outbox():
        message = orjson.loads(raw)
        if message["session_id"] in wanted and message["event"]["type"] == "participant_expired":
            late.append(committed_ms - message["event"]["at_ms"])
    if len(late) != len(ids):
        raise RuntimeError(f"{len(late)} of {len(ids)} sessions have expired")
    return late

"""A connect storm: 1,000 clients open a WebSocket to one session at once."""

from __future__ import annotations

from bench.crowd import Crowd
from bench.figures import Part, Rounds, figure
from bench.load import Generator, request
from bench.rig import Rig

CLIENTS = 1000
ROUNDS = 4


def run(rig: Rig) -> Part:
    """Measure the time until each has its state, the calls to Redis, and GETs of as many clients for comparison."""
    states: Rounds = []
    gets: Rounds = []
    reads: Rounds = []
    with rig.web(1) as web, Generator() as generator:
        for _ in range(ROUNDS):
            session_id = rig.session()
            get = request("GET", f"/v1/sessions/{session_id}")
            gets.append([each / 1000 for each in generator.load(web.port, [get], CLIENTS, 0).latencies_us])
            rig.redis.config_resetstat()
            with Crowd() as crowd:
                states.append([each / 1e6 for each in crowd.connect(web.port, [session_id] * CLIENTS)])
            asked = rig.redis.info("commandstats").get("cmdstat_fcall", {"calls": 0})["calls"]
            reads.append([float(asked)])
    floor = ("GET, 1,000 connections", gets)
    return Part(
        "Connect storm",
        [
            figure("GET, 1,000 connections", "ms", gets),
            figure("connect to state, 1,000 WebSockets", "ms", states, floor),
            figure("script calls of the storm", "calls", reads),
        ],
        [
            "Time from the first connect to each client's STATE_SYNC; one web process.",
            "The floor is one GET on each of 1,000 open connections.",
        ],
    )

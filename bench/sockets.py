"""Commands over WebSockets: latency and rate, compared with REST on one process."""

from __future__ import annotations

import orjson

from bench.crowd import Crowd, masked
from bench.figures import Part, Rounds, figure
from bench.load import Generator, request
from bench.rig import Rig

CONNECTIONS = (1, 16)
ROUNDS = 5
SECONDS = 1.5


def run(rig: Rig) -> Part:
    """Measure switches over sockets and over REST in turns, each client on its own session."""
    title = "Commands over WebSockets"
    figures = []
    fast = {"WS_MESSAGES_PER_S": "100000", "WS_MESSAGES_BURST": "100000"}
    token = rig.token()
    with rig.web(1, **fast) as web, rig.secured(1, **fast) as secured, Generator() as generator:
        for count in CONNECTIONS:
            sessions = [rig.session() for _ in range(count)]
            frame = masked(orjson.dumps({"type": "COMMAND", "id": "1", "command": "switch", "args": {}}))
            rest = [request("POST", f"/v1/sessions/{each}/switch") for each in sessions]
            rates: dict[str, Rounds] = {"REST": [], "socket": [], "secured": []}
            waits: dict[str, Rounds] = {"REST": [], "socket": [], "secured": []}
            with Crowd() as crowd, Crowd() as with_tokens:
                crowd.connect(web.port, sessions)
                with_tokens.connect(secured.port, [f"{rig.session()}&token={token}" for _ in range(count)])
                for _ in range(ROUNDS):
                    load = generator.load(web.port, rest, count, SECONDS)
                    rates["REST"].append([load.rate])
                    waits["REST"].append(load.latencies_us)
                    try:
                        latencies, took_s = crowd.commands([frame] * count, SECONDS)
                    except RuntimeError as error:
                        return Part(title, [], [f"Not available: the server answers {error}"])
                    rates["socket"].append([len(latencies) / took_s])
                    waits["socket"].append(latencies)
                    latencies, took_s = with_tokens.commands([frame] * count, SECONDS)
                    rates["secured"].append([len(latencies) / took_s])
                    waits["secured"].append(latencies)
                    rig.forget_outbox()
            for unit, found in (("commands/s", rates), ("µs", waits)):
                figures += [
                    figure(f"REST switch, {count} clients", unit, found["REST"]),
                    figure(
                        f"socket switch, {count} clients",
                        unit,
                        found["socket"],
                        (f"REST, {count} clients", found["REST"]),
                    ),
                    figure(
                        f"socket switch with tokens, {count} clients",
                        unit,
                        found["secured"],
                        (f"socket switch, {count} clients", found["socket"]),
                    ),
                ]
    return Part(
        title, figures, ["One web process; each client waits for its ACK, and receives its own STATE_UPDATE too."]
    )

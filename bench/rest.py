"""REST `GET` and `switch`, compared with a bare Flask route with one EVALSHA under the same gunicorn settings.

Each is measured with `AUTH=off` and with `AUTH=required`, where each request has a token and every limit is counted.
"""

from __future__ import annotations

from collections.abc import Sequence

import psutil

from bench.figures import Figure, Part, Rounds, figure
from bench.load import Generator, Load, request
from bench.rig import Rig, cpu_s
from syncapp.dev.runner import Web

CONNECTIONS = (1, 16, 64)
PROCESSES = (1, 2)
ROUNDS = 4
SECONDS = 1.0
SESSIONS = 1000
HEADERS = "Accept: application/json\r\nUser-Agent: bench\r\n"
WITH_TOKEN = "{}, with tokens"


def run(rig: Rig) -> Part:
    """Measure requests a second, latency and CPU per request, in turns with the floor."""
    sessions = [rig.session() for _ in range(SESSIONS)]
    requests = {"bare route": [request("POST", f"/bare/{each}", HEADERS) for each in sessions]}
    bearer = f"{HEADERS}Authorization: Bearer {rig.token()}\r\n"
    for name, method, path in (("GET", "GET", ""), ("switch", "POST", "/switch")):
        requests[name] = [request(method, f"/v1/sessions/{each}{path}", HEADERS) for each in sessions]
        requests[WITH_TOKEN.format(name)] = [request(method, f"/v1/sessions/{each}{path}", bearer) for each in sessions]
    figures: list[Figure] = []
    with Generator() as generator:
        for processes in PROCESSES:
            with rig.floor(processes) as floor, rig.web(processes) as web, rig.secured(processes) as secured:
                servers = {
                    name: floor if name == "bare route" else secured if "token" in name else web for name in requests
                }
                for name, server in servers.items():  # processes warm, sessions known
                    generator.load(server.port, requests[name], 16, 1.0)
                for connections in CONNECTIONS:
                    label = f"{connections} × {processes}"
                    loads: dict[str, list[Load]] = {name: [] for name in servers}
                    busy: dict[str, Rounds] = {name: [] for name in servers}
                    for number in range(ROUNDS):
                        for name in servers if number % 2 == 0 else reversed(servers):
                            load, cpu_us = burst(rig, generator, servers[name], requests[name], connections)
                            loads[name].append(load)
                            busy[name].append([cpu_us])
                        rig.forget_outbox()
                    figures += compared(label, loads, busy)
    return Part(
        "REST",
        figures,
        [
            f"{SESSIONS:,} live sessions, each request to the next one; validation, metrics and logging on, no worker.",
            "`64 × 2` means 64 connections to 2 web processes. CPU µs is the CPU time of the web processes per answer.",
            "Client and servers share the machine's cores.",
        ],
    )


def burst(rig: Rig, generator: Generator, web: Web, requests: Sequence[bytes], connections: int) -> tuple[Load, float]:
    """Load a server for a moment; return the result, and µs of CPU per answer."""
    tree = psutil.Process(web.pid).children(recursive=True)
    before = cpu_s(tree)
    load = generator.load(web.port, requests, connections, SECONDS)
    if load.failures:
        raise RuntimeError(f"{load.failures} answers were no success")
    return load, (cpu_s(tree) - before) / len(load.latencies_us) * 1e6


def compared(label: str, loads: dict[str, list[Load]], busy: dict[str, Rounds]) -> list[Figure]:
    """Return the figures of one number of connections and processes."""
    rates = {name: [[load.rate] for load in each] for name, each in loads.items()}
    waits = {name: [load.latencies_us for load in each] for name, each in loads.items()}
    figures: list[Figure] = []
    for unit, found in (("requests/s", rates), ("µs", waits), ("CPU µs", busy)):
        floor = (f"bare route, {label}", found["bare route"])
        figures.append(figure(f"bare route, {label}", unit, found["bare route"]))
        for name in ("GET", "switch"):
            figures.append(figure(f"{name}, {label}", unit, found[name], floor))
            secured, without = WITH_TOKEN.format(name), (f"{name}, {label}", found[name])
            figures.append(figure(f"{secured}, {label}", unit, found[secured], without))
    return figures

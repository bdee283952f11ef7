"""What `against` measures over WebSockets; `bench.measures` has the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import orjson

from bench import evening
from bench.build import Build, resident, workers
from bench.crowd import UPDATE, Crowd, masked
from bench.figures import quantile
from bench.load import Generator, request
from bench.players import Players
from bench.rig import cpu_s
from bench.scale import Found, Scale, Turn
from bench.wire import Wire
from syncapp.dev.runner import Web

_NO_PINGS = {"WS_PING_INTERVAL_S": "3600"}  # a crowd does not answer them
PARTS = (("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999), ("worst", 1))


@contextmanager
def sockets(build: Build, scale: Scale) -> Iterator[Turn]:
    """Commands over WebSockets on one process, each client on its own session."""
    frame = masked(orjson.dumps({"type": "COMMAND", "id": "1", "command": "switch", "args": {}}))
    sessions = build.sessions(scale.commanders)
    with build.web(1, **_NO_PINGS) as web, Crowd() as crowd:
        crowd.connect(web.port, sessions)
        crowd.commands([frame] * len(sessions), scale.seconds)

        def turn() -> Found:
            before = cpu_s(workers(web))
            latencies, took_s = crowd.commands([frame] * len(sessions), scale.seconds)
            label = f"socket switch, {len(sessions)} clients"
            build.forget_outbox()
            return {
                (label, "commands/s"): len(latencies) / took_s,
                (f"{label}, p99", "µs"): quantile(sorted(latencies), 0.99),
                (label, "CPU µs"): (cpu_s(workers(web)) - before) / len(latencies) * 1e6,
            }

        yield turn


@contextmanager
def connect(build: Build, scale: Scale) -> Iterator[Turn]:
    """Time to open sockets, and memory of idle ones: two for each session, and all for one."""
    shape = scale.evening
    pairs = build.sessions(shape.sockets // 2)
    one = pairs[0]

    def opened(label: str, begin: Callable[[list[Players], Web], float]) -> Found:
        with ExitStack() as stack:
            web = stack.enter_context(build.web(shape.processes))
            _warm(web, one, scale)
            before, spent = resident(workers(web)), cpu_s(workers(web))
            players = [stack.enter_context(Players(Wire())) for _ in range(evening.CLIENTS)]
            took_s = begin(players, web)
            spent = cpu_s(workers(web)) - spent
            time.sleep(shape.settle_s)
            return {
                (f"connect, {label}", "s"): took_s,
                (f"connect, {label}", "CPU µs"): spent / shape.sockets * 1e6,
                (f"idle connection, {label}", "kB"): (resident(workers(web)) - before) / shape.sockets / 1000,
            }

    def turn() -> Found:
        count = shape.sockets // evening.CLIENTS
        return opened("2 a session", lambda players, web: evening.connect(players, [web.port], pairs, 2)) | opened(
            "one session", lambda players, web: evening.connect(players, [web.port], [one] * len(players), count)
        )

    yield turn


@contextmanager
def played(build: Build, scale: Scale) -> Iterator[Turn]:
    """An evening of games."""

    def turn() -> Found:
        found = evening.play(build, scale.evening)
        waits, name = found.waits_ms, found.shape.name
        result = {(f"delivered, {name}, {label}", "ms"): quantile(waits, part) for label, part in PARTS}
        result[f"delivered, {name}, p99, tainted too", "ms"] = quantile(sorted(waits + found.tainted_ms), 0.99)
        result[f"longest collection, {name}", "ms"] = evening.longest_ms(found)
        for process, spent in found.cpu_us.items():
            result[f"{process}, {name}", "CPU µs/switch"] = spent
        result[f"refused or lost, {name}", ""] = len(found.played.refused) + found.played.lost
        return result

    yield turn


@contextmanager
def fanout(build: Build, scale: Scale) -> Iterator[Turn]:
    """From a switch to the first and the last of many clients of one session."""
    (session,) = build.sessions(1)
    with build.web(1, **_NO_PINGS) as web, Crowd() as crowd:
        crowd.connect(web.port, [session] * scale.watchers)
        build.ask("switch", [session], 1, False)
        crowd.heard(UPDATE)

        def turn() -> Found:
            crowd.arm()
            time.sleep(0.02)
            began = time.monotonic_ns()
            build.ask("switch", [session], 1, False)
            times = crowd.heard(UPDATE)
            name = f"of {scale.watchers:,} clients"
            return {
                (f"first {name}", "µs"): (min(times) - began) / 1000,
                (f"last {name}", "µs"): (max(times) - began) / 1000,
            }

        yield turn


def _warm(web: Web, session: str, scale: Scale) -> None:
    with Generator() as generator:
        generator.load(web.port, [request("GET", f"/v1/sessions/{session}")], 16, scale.seconds)

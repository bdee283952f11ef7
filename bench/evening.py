"""An evening of games: thousands of players on open sockets, each pressing its clock when it is its turn.

    python -m bench evening --sockets 10000 --rate 1000
    python -m bench evening --sockets 1000,10000 --rate 300,1000      a table of all combinations

Measures the time from sending a switch to the opponent's complete STATE_UPDATE, the time to open all sockets, the
memory of a connection, the CPU time of each process per switch, and the pauses of Python's garbage collector.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import psutil

from bench import evening_plot, report
from bench.build import Build, resident, workers
from bench.figures import Figure, Part, figure, quantile, value
from bench.hall import LATE_NS, Played
from bench.load import Generator, request
from bench.players import Players
from bench.rig import cpu_s
from bench.wire import Wire

CLIENTS = 2
_COLUMNS = (
    *("p50", "p99", "p99.9", "worst", "tainted", "open all", "kB each"),
    *("CPU µs/switch: web, store, worker", "full collections, longest"),
)
_PROBE = Path(__file__).parent / "probe"


@dataclass(frozen=True, slots=True)
class Shape:
    """How many sockets and switches a second there are, on how many web processes.

    settle_s: how long the servers rest before their memory is measured; then as long are switches that do not count.
    """

    sockets: int = 10_000
    rate: float = 1000
    seconds: float = 30
    processes: int = 2
    per_session: int = 2
    settle_s: float = 2.0

    @property
    def name(self) -> str:
        """The load, for people."""
        return f"{self.sockets:,} sockets, {self.rate:,g} switches/s"


@dataclass(frozen=True, slots=True)
class Pause:
    """A garbage collection of a web process: its start (monotonic ns), its length, and how many objects it freed."""

    process: int
    began_ns: int
    took_ns: int
    generation: int
    freed: int


@dataclass(frozen=True, slots=True)
class Evening:
    """What an evening was like; the µs are CPU time per switch, by process."""

    shape: Shape
    connect_s: float
    kb: float
    cpu_us: dict[str, float]
    played: Played
    pauses: list[Pause]

    @property
    def waits_ms(self) -> list[float]:
        """How long opponents waited, while the clients were in time, in order; all if they never were."""
        return sorted(took / 1e6 for _, took, tainted in self.played.deliveries if not tainted) or self.tainted_ms

    @property
    def tainted_ms(self) -> list[float]:
        """The same, of deliveries during which a client was late itself."""
        return sorted(took / 1e6 for _, took, tainted in self.played.deliveries if tainted)


@dataclass(frozen=True, slots=True)
class Service:
    """A service that runs: its protocol, its ports, the ids of its sessions, and its processes by what they do.

    The processes of `web` hold the sockets.
    """

    wire: Wire
    ports: Sequence[int]
    sessions: Sequence[str]
    processes: dict[str, list[psutil.Process]]


def play(build: Build, shape: Shape) -> Evening:
    """Let an evening take place on a build: its web processes and a worker."""
    build.flush()
    sessions = build.sessions(shape.sockets // shape.per_session)
    folder = build.directory / f"pauses-{time.monotonic_ns()}"
    folder.mkdir()
    with build.worker() as worker, build.web(shape.processes, PYTHONPATH=str(_PROBE), BENCH_PAUSES=str(folder)) as web:
        with Generator() as generator:
            reads = [request("GET", f"/v1/sessions/{each}") for each in sessions[:64]]
            generator.load(web.port, reads, 16, shape.settle_s)
        processes = {"web": workers(web), "store": [build.valkey], "worker": worker.tree()}
        evening = attend(Service(Wire(), [web.port], sessions, processes), shape)
    build.forget_outbox()
    began_ns = min(sent_ns for sent_ns, _, _ in evening.played.deliveries)
    return replace(evening, pauses=[each for each in _pauses(folder) if each.began_ns >= began_ns])


def attend(service: Service, shape: Shape) -> Evening:
    """Open the sockets of a service, and play."""
    web = service.processes["web"]
    before = resident(web)
    with ExitStack() as stack:
        players = [stack.enter_context(Players(service.wire)) for _ in range(CLIENTS)]
        connect_s = connect(players, service.ports, service.sessions, shape.per_session)
        time.sleep(shape.settle_s)
        kb = (resident(web) - before) / shape.sockets / 1000
        together(players, shape.rate, shape.settle_s)
        spent = {name: cpu_s(tree) for name, tree in service.processes.items()}
        played = together(players, shape.rate, shape.seconds)
        count = len(played.deliveries)
        cpu_us = {name: (cpu_s(tree) - spent[name]) / count * 1e6 for name, tree in service.processes.items()}
    return Evening(shape, connect_s, kb, cpu_us, played, [])


def connect(players: Sequence[Players], ports: Sequence[int], sessions: Sequence[str], per_session: int) -> float:
    """Open the sockets of all sessions from several processes; return how long (s) it takes."""
    began_s, first = time.monotonic(), 0
    for number, each in enumerate(players):
        own = sessions[number :: len(players)]
        each.connect(ports, own, per_session, first)
        first += len(own) * per_session
    for each in players:
        each.result()
    return time.monotonic() - began_s


def together(players: Sequence[Players], rate: float, seconds: float) -> Played:
    """Switch from several processes, so many times a second in all."""
    start_ns = time.monotonic_ns() + 20_000_000
    shift_ns = 1e9 / rate
    for number, each in enumerate(players):
        each.play(rate / len(players), seconds, start_ns + int(number * shift_ns), number)
    played = Played()
    for each in players:
        played.add(each.result())
    if not played.deliveries:
        raise RuntimeError(f"nothing was delivered: {(played.refused or ['no answer'])[0]}")
    return played


def part(evenings: Sequence[Evening]) -> Part:
    """Return the figures of evenings."""
    figures: list[Figure] = []
    for each in evenings:
        name, waits = each.shape.name, each.waits_ms
        figures.append(figure(f"delivered, {name}", "ms", [waits]))
        figures.append(value(f"p99.9, {name}", "ms", quantile(waits, 0.999)))
        figures.append(value(f"worst, {name}", "ms", waits[-1]))
        figures.append(value(f"tainted deliveries, {name}", "%", share(each)))
        if each.tainted_ms:
            figures.append(figure(f"tainted, {name}", "ms", [each.tainted_ms]))
        figures.append(value(f"refused or lost, {name}", "", len(each.played.refused) + each.played.lost))
        figures.append(value(f"open all, {name}", "s", each.connect_s))
        figures.append(value(f"memory of a connection, {name}", "kB", each.kb))
        figures += [value(f"{process}, {name}", "CPU µs/switch", spent) for process, spent in each.cpu_us.items()]
        full = [pause for pause in each.pauses if pause.generation == 2]
        figures.append(value(f"full collections, {name}", "", len(full)))
        figures.append(value(f"longest collection, {name}", "ms", longest_ms(each)))
    return Part(
        "An evening of games",
        figures,
        [
            "From sending a switch to the opponent's complete message; servers and clients share the machine's cores.",
            f"Tainted: a client was more than {LATE_NS / 1e6:.0f} ms late itself; the other figures are without these.",
        ],
    )


def share(evening: Evening) -> float:
    """Return how many of 100 deliveries were tainted."""
    return 100 * len(evening.tainted_ms) / max(1, len(evening.played.deliveries))


def longest_ms(evening: Evening) -> float:
    """Return the length of the longest garbage collection."""
    return max((pause.took_ns / 1e6 for pause in evening.pauses), default=0.0)


def table(evenings: Sequence[Evening]) -> str:
    """Return a table for people."""
    lines = [
        f"| load | {' | '.join(_COLUMNS)} |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for each in evenings:
        waits = each.waits_ms
        columns = [f"{report.number(quantile(waits, part))} ms" for part in (0.5, 0.99, 0.999, 1)]
        columns += [f"{share(each):.1f} %", f"{each.connect_s:.1f} s", f"{each.kb:.1f}"]
        columns.append(", ".join(f"{spent:.0f}" for spent in each.cpu_us.values()))
        columns.append(f"{sum(p.generation == 2 for p in each.pauses)}, {longest_ms(each):.0f} ms")
        lines.append(f"| {each.shape.name} | {' | '.join(columns)} |")
    for each in evenings:
        found, late = each.played, each.played.late_ns
        counts = {"deferred": found.deferred, "refused": len(found.refused), "lost": found.lost}
        lines.append(
            f"{each.shape.name}: {len(found.deliveries):,} deliveries, "
            + ", ".join(f"{count} {what}" for what, count in counts.items())
            + f"; clients late {len(late)} times, at most {max(late, default=0) / 1e6:.0f} ms"
        )
        lines += [f"    refused: {text}" for text in found.refused[:1]]
    return "\n".join(lines)


def _pauses(folder: Path) -> list[Pause]:
    found = [
        Pause(int(path.name), *map(int, line.split()))
        for path in folder.iterdir()
        for line in path.read_text().splitlines()
    ]
    return sorted(found, key=lambda pause: pause.began_ns)


def main(words: Sequence[str]) -> int:
    """Play the evenings of the command line; print a table, and write results and plots."""
    parser = argparse.ArgumentParser(
        prog="python -m bench evening", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = Shape()
    parser.add_argument("--sockets", type=numbers, default=[usual.sockets], help="one number, or several with commas")
    parser.add_argument("--rate", type=numbers, default=[usual.rate], help="switches a second; one or several")
    parser.add_argument("--seconds", type=float, default=usual.seconds)
    parser.add_argument("--processes", type=int, default=usual.processes, help="web processes")
    parser.add_argument("--per-session", type=int, default=usual.per_session, help="sockets of a session, 2 or more")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="where results go")
    asked = parser.parse_args(words)
    began_s, before = time.monotonic(), psutil.getloadavg()
    evenings: list[Evening] = []
    with Build() as build:
        for sockets in asked.sockets:
            for rate in asked.rate:
                shape = Shape(sockets, rate, asked.seconds, asked.processes, asked.per_session)
                print(f"{shape.name} ...", flush=True)
                evenings.append(play(build, shape))
    paths = report.write({"evening": part(evenings)}, asked.out, load_before=before, took_s=time.monotonic() - began_s)
    paths += [evening_plot.draw(each, paths[0].with_suffix("")) for each in evenings]
    print(table(evenings))
    print("Written:", ", ".join(map(str, paths)))
    return 0


def numbers(text: str) -> list[int]:
    """Return the numbers of a list with commas."""
    return [int(each) for each in text.split(",")]

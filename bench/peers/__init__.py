"""SyncApp beside what one would pick instead: a clock with socket.io, and nginx with nchan for fan-out alone.

    python -m bench peers                       fan-out to 1 to 1,000 clients, and an evening of 1,000 sockets
    python -m bench peers syncapp nchan         some services

The clients are the same processes for all, messages are equally long, each service has two processes, and they have
their turns in rounds. The peers do less. The clock with socket.io (`server.mjs`) reads and writes a text in Redis
without a transaction: two presses at once may both count, no timeout takes effect by itself, nothing is recorded, and a
command that is sent again counts twice. nchan only passes on what is published.

What is not there is skipped. Debian: apt-get install nodejs npm nginx libnginx-mod-nchan. The packages of socket.io are
installed into ~/.cache/syncapp-bench, in the versions of package-lock.json.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import evening, report
from bench.build import Build, workers
from bench.evening import CLIENTS, Evening, Service, Shape
from bench.figures import Figure, Part, figure, quantile
from bench.peers.services import BYTES, PROCESSES, Missing, nchan, socket_io
from bench.players import Players
from bench.rig import cpu_s
from bench.wire import Wire

Start = Callable[[int], AbstractContextManager[tuple[str, Service]]]
_PLAYS = ("syncapp", "socket.io")
_IDLE_S = 1.0  # what the processes use while nothing happens does not count


@dataclass(slots=True)
class Results:
    """What a service did: µs to the first and the last client, CPU µs of all its processes, by clients; evenings."""

    name: str = ""
    first: dict[int, list[list[float]]] = field(default_factory=dict)
    last: dict[int, list[list[float]]] = field(default_factory=dict)
    cpu: dict[int, list[list[float]]] = field(default_factory=dict)
    evenings: list[Evening] = field(default_factory=list)
    skipped: str = ""


@contextmanager
def syncapp(sessions: int) -> Iterator[tuple[str, Service]]:
    """Start two web processes and a worker of this tree; yield what they are, and the service."""
    with Build() as build:
        ids = build.sessions(sessions)
        with build.worker() as worker, build.web(PROCESSES) as web:
            processes = {"web": workers(web), "store": [build.valkey], "worker": worker.tree()}
            yield "SyncApp, this tree", Service(Wire(), [web.port], ids, processes)


SERVICES: dict[str, Start] = {"syncapp": syncapp, "socket.io": socket_io, "nchan": nchan}


def fan_out(service: Service, clients: int, times: int, found: Results) -> None:
    """Switch the service's first session, with so many clients; add how long the news takes to them."""
    with ExitStack() as stack:
        count = min(CLIENTS, clients)
        players = [stack.enter_context(Players(service.wire)) for _ in range(count)]
        for number, each in enumerate(players):
            share = clients // count + (number < clients % count)
            each.connect(service.ports, service.sessions[:1], share, number * clients)
        for each in players:
            each.result()
        time.sleep(_IDLE_S)  # what the connects caused is over
        idle = _cpu(service)
        time.sleep(_IDLE_S)
        idle = (_cpu(service) - idle) / _IDLE_S
        began_s, spent = time.monotonic(), _cpu(service)
        for number, each in reversed(list(enumerate(players))):  # who switches begins last
            each.fan(times, 0 if number else service.ports[0])
        heard: list[dict[int, tuple[int, int, int]]] = [each.result() for each in players]
        spent = max(0.0, _cpu(service) - spent - idle * (time.monotonic() - began_s))
    rounds = [[each[version] for each in heard] for version in heard[0]]
    firsts = [(min(first for _, first, _ in each) - each[0][0]) / 1000 for each in rounds]
    lasts = [(max(last for _, _, last in each) - each[0][0]) / 1000 for each in rounds]
    found.first.setdefault(clients, []).append(firsts)
    found.last.setdefault(clients, []).append(lasts)
    found.cpu.setdefault(clients, []).append([spent / times * 1e6])


def measure(name: str, asked: argparse.Namespace, found: Results) -> None:
    """Give a service its turn."""
    with SERVICES[name](max(1, asked.sockets // 2) + len(asked.clients)) as (found.name, service):
        if name in _PLAYS and asked.sockets:  # first, while the processes hold no memory of closed sockets
            shape = Shape(asked.sockets, asked.rate, asked.seconds, PROCESSES, settle_s=asked.settle)
            pairs = replace(service, sessions=service.sessions[len(asked.clients) :])
            found.evenings.append(evening.attend(pairs, shape))
        for number, clients in enumerate(asked.clients):
            fan_out(replace(service, sessions=service.sessions[number:]), clients, asked.times, found)


def part(results: Sequence[Results], skipped: Sequence[str] = ()) -> Part:
    """Return the figures of all services; SyncApp, if it was measured, is the floor of the others."""
    figures: list[Figure] = []
    ours = results[0]
    for each in results:
        for clients in each.last:
            label = f"{clients:,} clients, {each.name}"
            floor = (ours.name, ours.last[clients]) if each is not ours else None
            figures.append(figure(f"first of {label}", "µs", each.first[clients]))
            figures.append(figure(f"last of {label}", "µs", each.last[clients], floor))
            figures.append(figure(f"switch to {label}", "CPU µs", each.cpu[clients]))
        if each.evenings:
            name = f"{each.evenings[0].shape.name}, {each.name}"
            figures.append(figure(f"delivered, {name}", "ms", [attended.waits_ms for attended in each.evenings]))
            figures.append(figure(f"worst, {name}", "ms", [attended.waits_ms[-1:] for attended in each.evenings]))
            figures.append(figure(f"memory of a connection, {name}", "kB", [[one.kb] for one in each.evenings]))
    notes = [f"{PROCESSES} processes each, messages of {BYTES:,} bytes; clients, servers and store share the cores."]
    return Part("Beside other services", figures, [*notes, *skipped])


def table(results: Sequence[Results], sizes: Sequence[int]) -> str:
    """Return tables for people: medians of the rounds."""
    lines = ["| to the last client of (µs; CPU µs per switch) |" + "".join(f" {size:,} |" for size in sizes)]
    lines.append("| --- |" + " ---: |" * len(sizes))
    for each in results:
        cells = [
            f" {_median(each.last[size])} (first {_median(each.first[size])}; CPU {_median(each.cpu[size])}) |"
            for size in sizes
        ]
        lines.append(f"| {each.name} |{''.join(cells)}")
    if not any(each.evenings for each in results):
        return "\n".join(lines)
    lines += ["", "| an evening | p50 | p99 | worst | open all | kB each | CPU µs/switch | refused or lost |"]
    lines.append("| --- |" + " ---: |" * 7)
    for each in results:
        if each.evenings:
            lines.append(f"| {each.name} | {' | '.join(_row(each.evenings))} |")
    return "\n".join(lines)


def main(words: Sequence[str]) -> int:
    """Measure the services of the command line by turns; print tables, and write the results."""
    parser = argparse.ArgumentParser(
        prog="python -m bench peers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="service", help=f"of {', '.join(SERVICES)}; all by default")
    parser.add_argument("--clients", type=evening.numbers, default=[1, 10, 100, 1000], help="sizes of the fan-out")
    parser.add_argument("--times", type=int, default=40, help="switches of each size and round")
    parser.add_argument("--sockets", type=int, default=1000, help="of the evening; 0 for none")
    parser.add_argument("--rate", type=float, default=300, help="switches a second of the evening")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--settle", type=float, default=2.0, help="seconds before memory is measured")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent.parent / "results", help="where results go")
    asked = parser.parse_args(words)
    if unknown := set(asked.names) - set(SERVICES):
        parser.error(f"no such service: {', '.join(sorted(unknown))}")
    began_s, before = time.monotonic(), os.getloadavg()
    results = {name: Results(name) for name in asked.names or SERVICES}
    for number in range(asked.rounds):
        for name in results if number % 2 == 0 else reversed(results):
            if results[name].skipped:
                continue
            try:
                measure(name, asked, results[name])
            except Missing as error:
                results[name].skipped = f"skipped: {name}: {error}"
                print(results[name].skipped, flush=True)
    there = [each for each in results.values() if not each.skipped]
    if not there:
        return 1
    print(table(there, asked.clients))
    took_s = time.monotonic() - began_s
    skipped = [each.skipped for each in results.values() if each.skipped]
    paths = report.write({"peers": part(there, skipped)}, asked.out, load_before=before, took_s=took_s)
    print(f"\n{took_s:.0f} s; load average {before[0]:.1f} before, {os.getloadavg()[0]:.1f} after. Written:", *paths)
    return 0


def _row(evenings: Sequence[Evening]) -> list[str]:
    """Return the columns of an evening: medians of the rounds, but the worst of all."""

    def middle(numbers: Iterable[float]) -> float:
        return statistics.median(numbers)

    waits = [each.waits_ms for each in evenings]
    cpu = {name: middle(each.cpu_us[name] for each in evenings) for name in evenings[0].cpu_us}
    return [
        *(f"{report.number(middle(quantile(each, part) for each in waits))} ms" for part in (0.5, 0.99)),
        f"{report.number(max(each[-1] for each in waits))} ms",
        f"{middle(each.connect_s for each in evenings):.2f} s",
        f"{middle(each.kb for each in evenings):.1f}",
        ", ".join(f"{name} {spent:.0f}" for name, spent in cpu.items()),
        str(sum(len(each.played.refused) + each.played.lost for each in evenings)),
    ]


def _cpu(service: Service) -> float:
    return sum(cpu_s(tree) for tree in service.processes.values())


def _median(rounds: list[list[float]]) -> str:
    return report.number(statistics.median(statistics.median(each) for each in rounds))

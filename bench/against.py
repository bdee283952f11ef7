"""This build beside another one: the same measurements on both by turns, and their ratios.

    git worktree add ../old 3dcbd10
    python -m bench against ../old                  everything, about half an hour
    python -m bench against ../old rest scripts     some measurements
    python -m bench against ../old --quick          only shows that everything runs

Clients, Valkey and PostgreSQL are the same for both; web, worker, migrations and scripts come from each build's tree,
with the packages of this Python. What only the other build needs goes into a folder of its own:

    python -m pip install --target ../old-packages --no-deps spectree==3.0.0
    python -m bench against ../old --packages ../old-packages

A ratio is this build's number divided by the other's in the same round: the table has the median over the rounds, the
lowest and the highest. Noise of the machine affects both, so it makes the range wide.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from operator import ge, le
from pathlib import Path

from bench import report
from bench.build import Build
from bench.figures import Figure, Part, figure
from bench.measures import MEASURES
from bench.scale import QUICK, Found, Scale

Rounds = list[tuple[Found, Found]]
"""What this build and the other one did, by round."""
BOUNDS: dict[tuple[str, str], float] = {
    ("delivered, 10,000 sockets, 1,000 switches/s, p99", "ms"): 0.1,
    ("delivered, 10,000 sockets, 1,000 switches/s, worst", "ms"): 0.2,
    ("idle connection, 2 a session", "kB"): 0.6,
    ("idle connection, one session", "kB"): 0.6,
    ("connect, 2 a session", "s"): 0.7,
    ("connect, one session", "s"): 0.7,
    ("GET, 64 connections", "requests/s"): 2.2,
    ("switch, 64 connections", "requests/s"): 2.0,
    ("GET, 1 connections", "requests/s"): 1.5,
    ("switch, 1 connections", "requests/s"): 1.5,
    ("GET, 64 connections, p99", "µs"): 1.0,
    ("switch, 64 connections, p99", "µs"): 1.0,
    ("socket switch, 64 clients", "commands/s"): 1.8,
    ("server time of a switch, 2 participants", "µs"): 0.75,
    ("server time of a switch with a key, 1,000", "µs"): 0.65,
    ("switches, saturated", "1/CPU s"): 1.3,
    ("last of 3,000 clients", "µs"): 1.02,
    ("drain", "events/s"): 1 / 1.02,
    ("lateness, spread, p99", "begun ms"): 1.02,
    ("memory of a session", "bytes"): 1.02,
}
"""Bounds of ratios to build 3dcbd10: the least for what is counted by the second, the most for everything else."""


def compare(name: str, builds: tuple[Build, Build], scale: Scale, rounds: int, found: Rounds) -> None:
    """Measure both builds by turns, beginning with the other one in every second round; add each round to `found`."""
    measure, _ = MEASURES[name]
    with ExitStack() as stack:
        for build in builds:
            build.flush()
        turns = [stack.enter_context(measure(build, scale)) for build in builds]
        for number in range(rounds):
            if number % 2 == 0:
                ours = turns[0]()
                theirs = turns[1]()
            else:
                theirs = turns[1]()
                ours = turns[0]()
            found.append((ours, theirs))


def ratios(rounds: Rounds, key: tuple[str, str]) -> list[float]:
    """Return the ratios of a number, round by round, in order; without rounds in which the other build had none."""
    return sorted(ours[key] / theirs[key] for ours, theirs in rounds if theirs[key])


def rows(rounds: Rounds) -> list[str]:
    """Return the rows of a table for people."""
    found = []
    for key in rounds[0][0]:
        name, unit = key
        ours, theirs = (statistics.median(each[side][key] for each in rounds) for side in (0, 1))
        columns = [f"{report.number(each)} {unit}".strip() for each in (ours, theirs)]
        all_of_them = ratios(rounds, key)
        middle = statistics.median(all_of_them) if all_of_them else None
        spread = f"{all_of_them[0]:.2f}–{all_of_them[-1]:.2f}" if all_of_them else ""
        columns += [f"{middle:.2f}" if middle is not None else "—", spread, target(key, middle)]
        found.append(f"| {name} | {' | '.join(columns)} |")
    return found


def target(key: tuple[str, str], ratio: float | None) -> str:
    """Return the bound of a ratio, and whether it is met; empty if there is none."""
    bound = BOUNDS.get(key)
    if bound is None or ratio is None:
        return ""
    sign, within = ("≥", ge) if key[1].endswith("/s") or key[1].startswith("1/") else ("≤", le)
    return f"{sign} {bound:.2f} {'met' if within(ratio, bound) else 'missed'}"


def part(name: str, found: dict[str, Rounds]) -> Part:
    """Return the figures of all measurements; the floor is the other build."""
    figures: list[Figure] = []
    for rounds in found.values():
        for key in rounds[0][0]:
            ours, theirs = ([[each[side][key]] for each in rounds] for side in (0, 1))
            floor = (name, theirs) if all(each[0] for each in theirs) else None
            figures.append(figure(key[0], key[1], ours, floor))
    return Part("Against another build", figures, [f"The floor is {name}, measured in the same rounds."])


def main(words: Sequence[str]) -> int:
    """Measure what the command line names; print a table, and write the results."""
    parser = argparse.ArgumentParser(
        prog="python -m bench against", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path, help="a worktree of the other build")
    parser.add_argument("names", nargs="*", metavar="measurement", help=f"of {', '.join(MEASURES)}; all by default")
    parser.add_argument("--packages", type=Path, help="a folder with packages that only the other build needs")
    parser.add_argument("--quick", action="store_true", help="small numbers and one round, to see that everything runs")
    parser.add_argument("--sockets", type=int, help="of connects and evening, instead of 10,000")
    parser.add_argument("--rate", type=float, help="switches a second of the evening, instead of 1,000")
    parser.add_argument("--rounds", type=int, help="rounds of each measurement, instead of 3 to 20")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results", help="where results go")
    asked = parser.parse_args(words)
    if unknown := set(asked.names) - set(MEASURES):
        parser.error(f"no such measurement: {', '.join(sorted(unknown))}")
    scale = QUICK if asked.quick else Scale()
    changed = {name: given for name in ("sockets", "rate") if (given := getattr(asked, name))}
    scale = replace(scale, evening=replace(scale.evening, **changed))
    began_s, before = time.monotonic(), os.getloadavg()
    other = asked.path.resolve().name
    found: dict[str, Rounds] = {}
    failed: list[str] = []
    print(
        "| | this build | " + other + " | ratio | range | target |\n| --- | ---: | ---: | ---: | --- | --- |",
        flush=True,
    )
    with Build() as ours, Build(asked.path, other, asked.packages) as theirs:
        for name in asked.names or MEASURES:
            rounds = asked.rounds or (1 if asked.quick else MEASURES[name][1])
            done: Rounds = []
            try:
                compare(name, (ours, theirs), scale, rounds, done)
            except (OSError, RuntimeError) as error:  # the other measurements are as good without this one
                failed.append(name)
                print(f"{name} failed: {error}", file=sys.stderr, flush=True)
            if done:
                found[name] = done
                print("\n".join(rows(done)), flush=True)
            print(f"{name}: {len(done)} rounds, load {os.getloadavg()[0]:.1f}", file=sys.stderr, flush=True)
    took_s = time.monotonic() - began_s
    paths = report.write({"against": part(other, found)}, asked.out, load_before=before, took_s=took_s)
    print(f"\n{took_s:.0f} s; load average {before[0]:.1f} before, {os.getloadavg()[0]:.1f} after. Written:", *paths)
    return 1 if failed else 0

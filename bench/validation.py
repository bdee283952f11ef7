"""`make validate` writes docs/evidence/validation.md: newest results, a run of two processes, coverage, tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import orjson

from bench import evidence, publish, relay, report
from bench.acceptance import ROWS, Row
from bench.figures import Part
from bench.targets import verdicts

ROOT = evidence.ROOT
RESULTS = ROOT / "bench" / "results"
COMPONENTS = (
    (
        "State manager (RedisStateManager)",
        (
            "store/sessions",
            "store/script_runner",
            "store/scripts",
            "store/connection_pool",
            "domain/results",
            "domain/session",
        ),
        90,
    ),
    (
        "Audit writes (DBWriteQueue)",
        ("audit/outbox", "audit/drain", "audit/log", "audit/totals", "tasks", "task_queue"),
        85,
    ),
    ("PostgreSQL (database config)", ("postgres/database",), 70),
    ("Redis (Redis config)", ("store/client", "realtime/pubsub"), 70),
    ("Overall", ("*",), 80),
)
SEED = (
    ("getSession() avg", "get", "mean", 3.0),
    ("getSession() p95", "get", "p95", 5.0),
    ("updateSession() avg: a switch with a key", "switch, idempotency key", "mean", 5.0),
    ("updateSession() p95: a switch with a key", "switch, idempotency key", "p95", 10.0),
    ("updateSession() avg: of metadata", "update", "mean", 5.0),
    ("updateSession() p95: of metadata", "update", "p95", 10.0),
    ("Redis Pub/Sub: from the switch to a subscriber", "switch to receive", "mean", 2.0),
)
"""Metric, figure of the part `store` in µs, which property of it, and its bound in ms."""
MARKS = {True: "✅", False: "❌"}
_LOCAL_STATE = """\
`make validate` searches all modules of `syncapp/` for `global` statements and for module-level values that any code
changes: state that a process would keep between requests. {found}

What a process holds in objects is rebuilt from Redis on demand: connections, the latest copy of watched sessions, and
parts of states that it received before. Rate limits and counters are per process by design. The run below, and every
test that starts two processes, show that no answer depends on which process gives it."""
_RELAY = """\
Two web processes took turns to switch {sessions} sessions, {acknowledged} times in all. {kills} times the process whose
turn it was got killed (SIGKILL): the other continued in its place until it was back. At the end, every session was
read from both processes and compared with its rows in PostgreSQL.

{mark} {acknowledged} acknowledged switches, {rows} rows: {outcome}."""


def main() -> int:
    """Write the report; return the exit code: 1 if a row of the acceptance list is not met."""
    source, parts = newest_results()
    done = evidence.two_processes()
    covered = evidence.covered(
        [
            (name, [f"syncapp/{each}.py" if each != "*" else "syncapp/*" for each in modules])
            for name, modules, _ in COMPONENTS
        ]
    )
    held = evidence.local_state()
    passed = evidence.run_tests(ROWS)
    bars = {name: covered[name] > bar for name, _, bar in COMPONENTS}
    measured = {
        "types": evidence.goes_through("mypy"),
        "lint": evidence.goes_through("ruff", "check", ".") and evidence.goes_through("ruff", "format", "--check", "."),
        "no local state": not held,
        "relay": not done.faults,
        "store coverage": bars[COMPONENTS[0][0]],
        "audit coverage": bars[COMPONENTS[1][0]],
        "overall coverage": bars["Overall"],
        "seed targets": all(_seed(parts, figure, of) < bound_ms for _, figure, of, bound_ms in SEED),
    }
    rows = [(row, _met(row, passed, measured)) for row in ROWS]
    found = "None was found." if not held else "Found: " + "; ".join(f"`{each}`" for each in held)
    sections = (
        "# Validation",
        "`make validate` writes this page: what the seed document asked for, what SyncApp has, and what was measured.",
        f"The figures come from `{source.name}`. {report.about(orjson.loads(source.read_bytes()))}",
        "## No state in a process",
        _LOCAL_STATE.format(found=found),
        "## Two processes on the same sessions",
        _relay(done),
        "## The seed's targets",
        _seed_table(parts),
        "## Coverage",
        _coverage_table(covered),
        "## The acceptance list",
        "A row is met if the tests that it names passed when this page was written, and the sections above agree.",
        _acceptance_table(rows),
        report.targets_table(verdicts(parts)).replace("## Targets", "## Benchmark targets"),
    )
    (ROOT / "docs" / "evidence" / "validation.md").write_text("\n\n".join(sections) + "\n")
    published = publish.newest(RESULTS)
    missed = [row.asked for row, met in rows if not met]
    print(
        "Written: docs/evidence/validation.md",
        "and docs/evidence/figures.md." if published else "only: there is no complete benchmark run yet.",
        "Not met: " + "; ".join(missed) if missed else "Every row is met.",
    )
    return 1 if missed else 0


def newest_results() -> tuple[Path, dict[str, Part]]:
    """Return the newest results that have what is needed; run the benchmarks if there are none."""
    for path in sorted(RESULTS.glob("*.json"), reverse=True):
        parts = report.read(path)
        if {"store", "audit"} <= parts.keys():
            return path, parts
    subprocess.run([sys.executable, "-m", "bench", "store", "audit"], cwd=ROOT, check=True)
    return newest_results()


def _met(row: Row, passed: dict[str, bool], measured: dict[str, bool]) -> bool:
    return all(passed[name] for name in row.tests) and (not row.measured or measured[row.measured])


def _seed(parts: dict[str, Part], name: str, of: str) -> float:
    """Return a property of a figure of the store, in ms."""
    (found,) = (each for each in parts["store"].figures if each.name == name)
    return float(getattr(found, of)) / 1000


def _relay(done: relay.Relay) -> str:
    return _RELAY.format(
        sessions=relay.SESSIONS,
        acknowledged=done.acknowledged,
        kills=done.kills,
        rows=done.rows,
        mark=MARKS[not done.faults],
        outcome="; ".join(done.faults) or "nothing was lost, duplicated or different",
    )


def _seed_table(parts: dict[str, Part]) -> str:
    lines = ["| metric | target | measured | |", "| --- | ---: | ---: | --- |"]
    for metric, figure, of, bound_ms in SEED:
        found_ms = _seed(parts, figure, of)
        lines.append(f"| {metric} | < {bound_ms:g} ms | {found_ms:.2f} ms | {MARKS[found_ms < bound_ms]} |")
    drain = next(each for each in parts["audit"].figures if each.name.startswith("drain"))
    return "\n".join([*lines, f"| DB Queue Processing: the drain | N/A | {drain.median:,.0f} events/s | |"])


def _coverage_table(covered: dict[str, float]) -> str:
    lines = ["| component | modules | bar | covered | |", "| --- | --- | ---: | ---: | --- |"]
    for name, modules, bar in COMPONENTS:
        named = ", ".join(f"`{each}`" for each in modules)
        lines.append(f"| {name} | {named} | > {bar} % | {covered[name]:.1f} % | {MARKS[covered[name] > bar]} |")
    return "\n".join(lines)


def _acceptance_table(rows: Iterable[tuple[Row, bool]]) -> str:
    lines = ["| asked | here | shown by | |", "| --- | --- | --- | --- |"]
    for row, met in rows:
        shown = [f"`{name}`" for name in row.tests] + [row.measured] * bool(row.measured)
        lines.append(f"| {row.asked} | {row.here} | {'<br>'.join(shown)} | {MARKS[met]} |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())

"""Targets: a table of bounds that the runner and the reports compare figures with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import ge, le

from bench.figures import Figure, Part


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on one property of a figure; `least` marks a lower bound."""

    part: str
    figure: str
    unit: str
    of: str
    bound: float
    text: str
    least: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """A target and the measured value; measured is None if it could not be measured."""

    target: Target
    measured: float | None

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None when it was not measured."""
        if self.measured is None:
            return None
        within = ge if self.target.least else le
        return bool(within(self.measured, self.target.bound))


_RATE = "≥ 85 % of the bare route's requests a second"
_TAIL = "p99 ≤ 1.3 × the bare route's"

TARGETS = (
    Target("store", "get", "µs", "ratio", 1.3, "`get` ≤ 1.3 × a bare EVALSHA round trip"),
    Target(
        "store", "switch, idempotency key", "µs", "ratio", 1.8, "`switch` with a key ≤ 1.8 × a bare EVALSHA round trip"
    ),
    Target("store", "switch", "µs", "ratio", 1.8, "`switch` without a key ≤ 1.8 × a bare EVALSHA round trip"),
    Target("scripts", "switch, 2 participants", "µs", "median", 25, "server time of a `switch` ≤ 25 µs"),
    Target(
        "scripts",
        "switch, 1000 to 2 participants",
        "×",
        "median",
        1.5,
        "`switch` at 1,000 participants ≤ 1.5 × that at 2",
    ),
    Target("cluster", "switch, three masters", "µs", "ratio", 1.1, "`switch` over a cluster ≤ 1.1 × over one server"),
    Target(
        "cluster",
        "server time of a switch, three masters",
        "µs",
        "ratio",
        1.1,
        "server time of a `switch` in a cluster ≤ 1.1 × on one server",
    ),
    Target(
        "cluster",
        "switches per server CPU second, three masters",
        "1/s",
        "ratio",
        0.95,
        "switches per CPU second of the servers: three masters ≥ 95 % of one server",
        least=True,
    ),
    Target(
        "cluster",
        "sessions on the master furthest from a third",
        "%",
        "median",
        15,
        "sessions on each master within 15 % of a third",
    ),
    Target("limits", "switch, limited", "µs", "ratio", 1.03, "limits take ≤ 3 % of a `switch`'s server time"),
    *(
        Target(
            "limits", f"refusal for the {whose}", "µs", "ratio", 0.1, f"a refusal for the {whose} ≤ 0.1 × a `switch`"
        )
        for whose in ("session", "principal")
    ),
    Target("scripts", "memory of a session, 2 participants", "bytes", "median", 1000, "a session of 2 ≤ 1,000 bytes"),
    *(
        Target("rest", f"{name}, {load}", "requests/s", "ratio", 0.85, f"REST `{name}`, {load}: {_RATE}", least=True)
        for name in ("GET", "switch")
        for load in ("1 × 1", "16 × 1", "64 × 1", "1 × 2", "16 × 2", "64 × 2")
    ),
    *(
        Target("rest", f"{name}, {load}", "µs", "p99_ratio", 1.3, f"REST `{name}`, {load}: {_TAIL}")
        for name in ("GET", "switch")
        for load in ("64 × 1", "64 × 2")
    ),
    *(
        Target(
            "rest",
            f"{name}, with tokens, {load}",
            "requests/s",
            "ratio",
            0.95,
            f"REST `{name}` with tokens, {load}: ≥ 95 % of the rate without",
            least=True,
        )
        for name in ("GET", "switch")
        for load in ("1 × 1", "16 × 1", "64 × 1", "1 × 2", "16 × 2", "64 × 2")
    ),
    *(
        Target(
            "sockets",
            f"socket switch with tokens, {count} clients",
            "commands/s",
            "ratio",
            0.95,
            f"socket commands with tokens, {count} clients: ≥ 95 % of the rate without",
            least=True,
        )
        for count in (1, 16)
    ),
    Target(
        "sockets",
        "socket switch, 16 clients",
        "commands/s",
        "ratio",
        2,
        "socket commands ≥ 2 × REST's rate",
        least=True,
    ),
    Target("fanout", "last of 1,000 clients", "µs", "ratio", 1.3, "last of 1,000 clients ≤ 1.3 × the bare loop"),
    Target("fanout", "memory of a connection", "kB", "median", 45, "an idle connection ≤ 45 kB"),
    Target(
        "audit", "drain, 4 × 1, to inserts", "events/s", "ratio", 20, "drain ≥ 20 × one row a transaction", least=True
    ),
    Target("audit", "drain, 4 × 1, to COPY", "events/s", "ratio", 0.6, "drain ≥ 60 % of bare COPY", least=True),
    Target("audit", "commit to row, idle", "ms", "p95", 1000, "commit to row, idle: p95 ≤ 1 s"),
    Target("audit", "commit to row, under load", "ms", "p95", 3000, "commit to row, under load: p95 ≤ 3 s"),
    Target("expiry", "lateness, 100 a second", "ms", "p99", 20, "expiry lateness at 100 a second: p99 ≤ 20 ms"),
    Target("expiry", "all of 1,000 at once", "ms", "median", 500, "1,000 expiries at once within 500 ms"),
    Target(
        "growth", "switch, 100,000 to 1,000 sessions", "×", "median", 1.2, "`switch` at 100 k sessions ≤ 1.2 × at 1 k"
    ),
    Target(
        "growth", "sweep, 100,000 to 1,000 sessions", "×", "median", 1.2, "a sweep at 100 k sessions ≤ 1.2 × at 1 k"
    ),
)


def verdicts(parts: Mapping[str, Part]) -> list[Verdict]:
    """Return every target of the parts that were run, with the measured value."""
    return [
        Verdict(target, _measured(parts[target.part].figures, target)) for target in TARGETS if target.part in parts
    ]


def _measured(figures: Iterable[Figure], target: Target) -> float | None:
    for each in figures:
        if each.name == target.figure and each.unit == target.unit:
            found: float | None = getattr(each, target.of)
            return found
    return None

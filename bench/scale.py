"""How much a comparison measures, and what a measurement yields."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from bench.evening import Shape

Found = dict[tuple[str, str], float]
"""Numbers by name and unit."""
Turn = Callable[[], Found]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much is measured."""

    seconds: float = 1.5
    connections: tuple[int, ...] = (64, 1)
    commanders: int = 64
    evening: Shape = field(default_factory=Shape)
    participants: int = 1000
    calls: int = 60
    watchers: int = 3000
    events: int = 50_000
    expiries: int = 1000
    spread_ms: int = 10_000
    ahead_ms: int = 5000
    sessions: int = 500


QUICK = Scale(
    seconds=0.2,
    connections=(4, 1),
    commanders=4,
    evening=Shape(40, 40, 1, 1, settle_s=0.2),
    participants=20,
    calls=10,
    watchers=20,
    events=300,
    expiries=20,
    spread_ms=500,
    ahead_ms=500,
    sessions=20,
)
"""Only shows that everything runs."""

"""Figures: measured values, each with its floor from the same run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter_ns

Rounds = list[list[float]]
"""Samples of one thing, by round."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured figure; ratio compares it with its floor round by round, so that noise affects both.

    low, high: the ratios of the middle half of the rounds. p99_ratio: of all samples together.
    """

    name: str
    unit: str
    median: float
    mean: float
    p95: float
    p99: float
    count: int
    floor: str = ""
    ratio: float | None = None
    low: float | None = None
    high: float | None = None
    p99_ratio: float | None = None


@dataclass(frozen=True, slots=True)
class Part:
    """The results of one part of the benchmark; notes are sentences for the report."""

    title: str
    figures: list[Figure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def figure(name: str, unit: str, rounds: Rounds, floor: tuple[str, Rounds] | None = None) -> Figure:
    """Return the figure of samples; with a floor, its name and its samples in the same number of rounds."""
    every = sorted(sample for each in rounds for sample in each)
    spread = (
        statistics.median(every),
        statistics.fmean(every),
        quantile(every, 0.95),
        quantile(every, 0.99),
        len(every),
    )
    if floor is None:
        return Figure(name, unit, *spread)
    ratios = sorted(
        statistics.median(own) / statistics.median(theirs) for own, theirs in zip(rounds, floor[1], strict=True)
    )
    floors = sorted(sample for each in floor[1] for sample in each)
    return Figure(
        name,
        unit,
        *spread,
        floor=floor[0],
        ratio=statistics.median(ratios),
        low=quantile(ratios, 0.25),
        high=quantile(ratios, 0.75),
        p99_ratio=spread[3] / quantile(floors, 0.99),
    )


def value(name: str, unit: str, number: float, floor: tuple[str, float] | None = None) -> Figure:
    """Return the figure of one number."""
    return figure(name, unit, [[number]], (floor[0], [[floor[1]]]) if floor else None)


def quantile(ordered: Sequence[float], share: float) -> float:
    """Return a percentile: the smallest sample that at least this share of all samples does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def interleave(subjects: Mapping[str, Callable[[], Iterable[float]]], rounds: int) -> dict[str, Rounds]:
    """Return samples by name; each round measures every subject once, in alternating order."""
    found: dict[str, Rounds] = {name: [] for name in subjects}
    names = list(subjects)
    for number in range(rounds):
        for name in names if number % 2 == 0 else reversed(names):
            found[name].append(list(subjects[name]()))
    return found


def timed(call: Callable[[], object], count: int) -> list[float]:
    """Return how long each of `count` calls took, in µs."""
    took: list[float] = []
    for _ in range(count):
        began = perf_counter_ns()
        call()
        took.append((perf_counter_ns() - began) / 1000)
    return took

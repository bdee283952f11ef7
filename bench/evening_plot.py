"""The plot of an evening: delivery over time, in which pauses are seen, and how many deliveries took longer than what.

It is written as SVG by hand, so that every run has one without matplotlib.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from bench.figures import quantile

if TYPE_CHECKING:
    from bench.evening import Evening

_BIN_MS = 50
_TOP, _HEIGHT, _TIME, _TAIL = 40, 300, (70, 660), (810, 300)  # left edge and width of both panels
_WORST, _P99, _MEDIAN, _PAUSE, _TAINTED = "#c0392b", "#2471a3", "#7dcea0", "#f5b7b1", "#999999"
Point = tuple[float, float]


def draw(evening: Evening, stem: Path) -> Path:
    """Write the plot of an evening; return the file."""
    shape = evening.shape
    path = stem.with_name(f"{stem.name}-evening-{shape.sockets}-{shape.rate:g}.svg")
    path.write_text(svg(evening))
    return path


def bins(deliveries: Iterable[tuple[int, int, bool]], began_ns: int) -> dict[float, tuple[list[float], bool]]:
    """Return median, p99 and longest wait (ms), and whether one is tainted, by the second at which each 50 ms begin."""
    found: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for sent_ns, took_ns, tainted in deliveries:
        found[(sent_ns - began_ns) // (_BIN_MS * 1_000_000)].append((took_ns / 1e6, tainted))
    return {
        number * _BIN_MS / 1000: (
            [quantile(sorted(wait for wait, _ in waits), part) for part in (0.5, 0.99, 1)],
            any(tainted for _, tainted in waits),
        )
        for number, waits in sorted(found.items())
    }


def exceeded(ordered: Sequence[float]) -> list[Point]:
    """Return waits, and the share of deliveries that took at least as long: at most 40 for each power of ten."""
    total = len(ordered)
    places = {max(0, total - math.ceil(total * 10 ** (-step / 40))) for step in range(40 * 7)}
    return [(ordered[min(place, total - 1)], (total - place) / total) for place in sorted(places)]


def svg(evening: Evening) -> str:
    """Return the plot as SVG."""
    deliveries, waits = evening.played.deliveries, evening.waits_ms
    began_ns = min(sent for sent, _, _ in deliveries)
    points = bins(deliveries, began_ns)
    low, high = _decades([each[-1] for each, _ in points.values()] + waits[:1])
    end_s = max(max(points) + _BIN_MS / 1000, 1)
    fewest = 10 ** math.floor(math.log10(1 / len(waits)))
    across = _scale(0, end_s, _TIME[0], _TIME[1])
    up = _scale(math.log10(low), math.log10(high), _TOP + _HEIGHT, -_HEIGHT)
    wait_x = _scale(math.log10(low), math.log10(high), *_TAIL)
    share_y = _scale(math.log10(fewest), 0, _TOP + _HEIGHT, -_HEIGHT)
    drawn = []
    for pause in evening.pauses:
        at_s = (pause.began_ns - began_ns) / 1e9
        if 0 <= at_s <= end_s:
            width = max(0.5, across(pause.took_ns / 1e9) - across(0))
            drawn.append(
                f'<rect x="{across(at_s):.1f}" y="{_TOP}" width="{width:.1f}" height="{_HEIGHT}" fill="{_PAUSE}"/>'
            )
    drawn += _axes(
        _TIME, "s", "wait, ms", [(across(each), f"{each:g}") for each in _steps(end_s)], _powers(low, high, up)
    )
    drawn += _axes(
        _TAIL, "wait, ms", "share that waits as long", _powers(low, high, wait_x), _powers(fewest, 1, share_y)
    )
    for at_s, (spread, tainted) in points.items():
        for wait, colour in zip(spread[::-1], (_WORST, _P99, _MEDIAN), strict=True):
            drawn.append(_dot(across(at_s), up(math.log10(wait)), _TAINTED if tainted else colour))
    line = " ".join(f"{wait_x(math.log10(ms)):.1f},{share_y(math.log10(part)):.1f}" for ms, part in exceeded(waits))
    drawn.append(f'<polyline points="{line}" fill="none" stroke="{_P99}" stroke-width="1.5"/>')
    figures = ", ".join(
        f"{name} {quantile(waits, part):.1f} ms" for name, part in (("p50", 0.5), ("p99", 0.99), ("worst", 1))
    )
    drawn.append(_text(_TIME[0], 16, f"Switch to opponent: {evening.shape.name}; {figures}", size=14))
    key = [
        ("longest in 50 ms", _WORST),
        ("p99", _P99),
        ("median", _MEDIAN),
        ("client late", _TAINTED),
        ("garbage collection ≥ 1 ms", _PAUSE),
    ]
    for number, (name, colour) in enumerate(key):
        drawn.append(_dot(_TIME[0] + 6 + 130 * number, 30, colour, 4))
        drawn.append(_text(_TIME[0] + 14 + 130 * number, 34, name))
    width, height = _TAIL[0] + _TAIL[1] + 20, _TOP + _HEIGHT + 45
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return "\n".join(
        [f'{head} font-family="sans-serif">', '<rect width="100%" height="100%" fill="white"/>', *drawn, "</svg>\n"]
    )


def _scale(low: float, high: float, start: float, length: float) -> Callable[[float], float]:
    return lambda each: start + (each - low) / (high - low) * length


def _decades(values: Sequence[float]) -> tuple[float, float]:
    low, high = (10**each for each in (math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))))
    return low, max(high, low * 10)


def _steps(end: float) -> list[float]:
    step = next(each for each in (0.5, 1, 2, 5, 10, 20, 60, 300, 3600) if end / each <= 12)
    return [step * number for number in range(int(end / step) + 1)]


def _powers(low: float, high: float, scale: Callable[[float], float]) -> list[tuple[float, str]]:
    exponents = range(round(math.log10(low)), round(math.log10(high)) + 1)
    return [(scale(each), f"{10.0**each:g}") for each in exponents]


def _axes(
    panel: tuple[int, int], x: str, y: str, across: Iterable[tuple[float, str]], up: Iterable[tuple[float, str]]
) -> list[str]:
    left, width = panel
    foot = _TOP + _HEIGHT
    found = [f'<rect x="{left}" y="{_TOP}" width="{width}" height="{_HEIGHT}" fill="none" stroke="#333333"/>']
    for at, name in across:
        found.append(
            f'<path d="M{at:.1f} {_TOP}V{foot}" stroke="#dddddd"/>' + _text(at, foot + 16, name, anchor="middle")
        )
    for at, name in up:
        found.append(
            f'<path d="M{left} {at:.1f}H{left + width}" stroke="#dddddd"/>'
            + _text(left - 6, at + 4, name, anchor="end")
        )
    found.append(_text(left + width / 2, foot + 34, x, anchor="middle"))
    middle = _TOP + _HEIGHT / 2
    return [
        *found,
        f'<g transform="rotate(-90 {left - 48} {middle})">{_text(left - 48, middle, y, anchor="middle")}</g>',
    ]


def _dot(x: float, y: float, colour: str, size: float = 1.8) -> str:
    return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{size}" fill="{colour}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 11) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}">{escape(text)}</text>'

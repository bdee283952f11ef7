"""Plots of a result, one PNG each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.figures import Figure, Part

_WIDTH, _HEIGHT, _DPI = 7.0, 4.0, 110
Curve = tuple[str, Sequence[float], Sequence[float]]
"""A name, and the x and y of its points."""


def draw(parts: Mapping[str, Part], stem: Path) -> list[Path]:
    """Draw the plots of the parts that were run; return the files. Without matplotlib there are none."""
    try:
        import matplotlib as mpl
    except ImportError:
        return []
    mpl.use("Agg")
    drawn: list[Path] = []
    if "scripts" in parts:
        sizes = (2, 10, 100, 1000)
        curves = [
            _curve(parts["scripts"], name, f"{name}, {{}} participants", sizes, "µs") for name in ("get", "switch")
        ]
        drawn.append(_lines(stem, "scripts", "Server time of a script", "participants", "µs", curves))
    if "rest" in parts:
        loads = ("1 × 1", "16 × 1", "64 × 1", "1 × 2", "16 × 2", "64 × 2")
        bars = {
            name: [_value(parts["rest"], f"{name}, {load}", "requests/s") for load in loads]
            for name in ("bare route", "GET", "switch")
        }
        drawn.append(_bars(stem, "rest", "REST: connections × web processes", "requests/s", loads, bars))
    if "fanout" in parts:
        clients = (1, 100, 1000, 3000)
        curves = [
            _curve(parts["fanout"], "bare loop, last", "bare loop, last of {:,}", clients, "µs"),
            _curve(parts["fanout"], "last client", "last of {:,} clients", clients, "µs"),
            _curve(parts["fanout"], "first client", "first of {:,} clients", clients, "µs"),
        ]
        drawn.append(_lines(stem, "fanout", "From a switch to the clients", "clients", "µs", curves))
    if "growth" in parts:
        sessions = (1000, 10_000, 100_000)
        curves = [
            _curve(parts["growth"], name, f"{name}, {{:,}} sessions", sessions, "µs")
            for name in ("get", "switch", "sweep")
        ]
        drawn.append(_lines(stem, "growth", "Round trip by live sessions", "sessions", "µs", curves))
    return drawn


def _value(part: Part, name: str, unit: str) -> float:
    found: Figure | None = next((each for each in part.figures if each.name == name and each.unit == unit), None)
    return found.median if found else float("nan")


def _curve(part: Part, name: str, pattern: str, xs: Sequence[int], unit: str) -> Curve:
    return name, xs, [_value(part, pattern.format(x), unit) for x in xs]


def _lines(stem: Path, name: str, title: str, across: str, up: str, curves: Sequence[Curve]) -> Path:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(_WIDTH, _HEIGHT), dpi=_DPI)
    for label, xs, ys in curves:
        axes.plot(xs, ys, marker="o", label=label)
    axes.set(title=title, xlabel=across, ylabel=f"{up}, median", xscale="log", yscale="log")
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    return _saved(figure, stem, name)


def _bars(
    stem: Path, name: str, title: str, up: str, labels: Sequence[str], bars: Mapping[str, Sequence[float]]
) -> Path:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(_WIDTH, _HEIGHT), dpi=_DPI)
    width = 0.8 / len(bars)
    for number, (label, heights) in enumerate(bars.items()):
        axes.bar([place + number * width for place in range(len(labels))], heights, width, label=label)
    axes.set(title=title, ylabel=f"{up}, median")
    axes.set_xticks([place + width for place in range(len(labels))], labels)
    axes.grid(visible=True, axis="y", alpha=0.3)
    axes.legend()
    return _saved(figure, stem, name)


def _saved(figure: Any, stem: Path, name: str) -> Path:
    from matplotlib import pyplot as plt

    path = stem.with_name(f"{stem.name}-{name}.png")
    figure.savefig(path, bbox_inches="tight")
    plt.close(figure)
    return path

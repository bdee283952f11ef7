"""Copies the newest complete run into docs/evidence/figures.md, between its markers."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

import orjson

from bench import report
from bench.figures import Part

DOCUMENT = Path(__file__).resolve().parent.parent / "docs" / "evidence" / "figures.md"
PICTURES = ("scripts", "rest", "fanout", "growth")
PARTS = frozenset({"store", "scripts", "limits", "rest", "sockets", "fanout", "audit", "expiry", "growth", "storm"})
_BEGIN, _END = "<!-- begin: made by make bench -->\n", "<!-- end: made by make bench -->\n"


def newest(folder: Path) -> bool:
    """Publish the newest results that have every part; return whether there were any."""
    for path in sorted(folder.glob("*.json"), reverse=True):
        parts = report.read(path)
        if parts.keys() >= PARTS:
            text = DOCUMENT.read_text()
            before, _, rest = text.partition(_BEGIN)
            DOCUMENT.write_text(before + _BEGIN + _generated(path, parts) + _END + rest.partition(_END)[2])
            return True
    return False


def _generated(path: Path, parts: Mapping[str, Part]) -> str:
    pictures = []
    for name in PICTURES:
        drawn = path.with_name(f"{path.stem}-{name}.png")
        if drawn.exists():
            shutil.copy(drawn, DOCUMENT.parent.parent / "images" / f"performance-{name}.png")
            pictures.append(f"![{name}](../images/performance-{name}.png)")
    about = report.about(orjson.loads(path.read_bytes()))
    sections = [about, holds(parts), report.tables(parts), "\n".join(pictures)]
    return "\n" + "\n\n".join(section for section in sections if section) + "\n\n"


def holds(parts: Mapping[str, Part]) -> str:
    """Return a table of what one machine can hold, from what was measured."""

    def of(part: str, name: str, unit: str) -> float:
        return next(
            (each.median for each in parts[part].figures if (each.name, each.unit) == (name, unit)), float("nan")
        )

    memory = of("growth", "memory, 100,000 sessions", "bytes/session")
    switches = of("scripts", "switch, saturated", "calls/CPU s")
    requests, reads = (1e6 / of("rest", f"{name}, 64 × 1", "CPU µs") for name in ("switch", "GET"))
    rows = (
        ("live sessions of two participants, per GB of the store", 1e9 / memory, "including all of the store's memory"),
        ("switches a second, one core of the store", switches, "saturated"),
        ("reads a second, one core of the store", of("scripts", "get, saturated", "calls/CPU s"), "saturated"),
        ("REST switches a second, one web process", requests, "with a core of its own"),
        ("REST reads a second, one web process", reads, "with a core of its own"),
        ("web processes whose REST switches saturate the store's core", switches / requests, ""),
        ("socket switches a second, one web process", of("sockets", "socket switch, 16 clients", "commands/s"), ""),
        ("idle WebSockets, per GB of a web process", 1e6 / of("fanout", "memory of a connection", "kB"), ""),
        ("messages a second to clients, one web process", 3e9 / of("fanout", "last of 3,000 clients", "µs"), "fan-out"),
        ("events a second into PostgreSQL, one worker", of("audit", "drain, 1 × 4, to COPY", "events/s"), "fsync on"),
    )
    lines = ["## What one machine holds\n", "| | | |", "| --- | ---: | --- |"]
    return "\n".join([*lines, *(f"| {name} | {report.number(found)} | {note} |" for name, found, note in rows)])

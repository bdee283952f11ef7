"""Results: JSON for machines, Markdown for people, and plots."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
import psutil

from bench.figures import Figure, Part
from bench.plots import draw
from bench.targets import Verdict, verdicts


def write(parts: Mapping[str, Part], folder: Path, *, load_before: tuple[float, ...], took_s: float) -> list[Path]:
    """Write results to files named by the time; return the files."""
    folder.mkdir(parents=True, exist_ok=True)
    now = datetime.now(UTC)
    stem = f"{now:%Y-%m-%d-%H%M%S}"
    document = {
        "at": now.isoformat(timespec="seconds"),
        "took_s": round(took_s, 1),
        "machine": machine() | {"load_before": [round(each, 2) for each in load_before]},
        "parts": {name: asdict(part) for name, part in parts.items()},
    }
    json = folder / f"{stem}.json"
    json.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2))
    markdown = folder / f"{stem}.md"
    plots = draw(parts, folder / stem)
    pictures = "".join(f"\n![{path.stem}]({path.name})\n" for path in plots)
    markdown.write_text(f"# Benchmark of {stem}\n\n{about(document)}\n\n{tables(parts)}\n{pictures}")
    return [json, markdown, *plots]


def read(path: Path) -> dict[str, Part]:
    """Return the parts of a result."""
    return {
        name: Part(part["title"], [Figure(**each) for each in part["figures"]], part["notes"])
        for name, part in orjson.loads(path.read_bytes())["parts"].items()
    }


def machine() -> dict[str, object]:
    """Return a description of the machine."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def about(document: Mapping[str, Any]) -> str:
    """Return a sentence about machine and run."""
    on = document["machine"]
    return (
        f"Measured at {document['at']} in {document['took_s']} s on {on['cpu']}, {on['cores']} cores, "
        f"{on['memory_gb']} GB, Python {on['python']}; load average before the run: {on['load_before']}."
    )


def tables(parts: Mapping[str, Part]) -> str:
    """Return targets and figures in Markdown."""
    return "\n\n".join([targets_table(verdicts(parts)), *(_part(part) for part in parts.values())])


def targets_table(found: Iterable[Verdict]) -> str:
    """Return each target beside what was measured."""
    rows = [f"| {each.target.text} | {number(each.measured)} | {word(each)} |" for each in found]
    return "\n".join(["## Targets\n", "| target | measured | |", "| --- | ---: | --- |", *rows])


def summary(parts: Mapping[str, Part], found: Iterable[Verdict]) -> str:
    """Return the summary for a terminal."""
    lines: list[str] = []
    for part in parts.values():
        lines += ["", part.title, *map(_line, part.figures)]
    lines += ["", "Targets"]
    lines += [f"  {word(each):12} {number(each.measured):>10}  {each.target.text}" for each in found]
    return "\n".join(lines)


def word(verdict: Verdict) -> str:
    """Return met, missed or not measured."""
    return {True: "met", False: "missed", None: "not measured"}[verdict.met]


def number(measured: float | None) -> str:
    """Return a number in three or four digits."""
    if measured is None:
        return "—"
    if measured >= 100:
        return f"{measured:,.0f}"
    return f"{measured:.1f}" if measured >= 10 else f"{measured:.2f}"


def _part(part: Part) -> str:
    head = [
        "| | median | p95 | p99 | × floor (middle half of rounds) | floor |",
        "| --- | ---: | ---: | ---: | ---: | --- |",
    ]
    rows = []
    for each in part.figures:
        spread = [number(each.p95), number(each.p99)] if each.count > 1 else ["", ""]
        ratio = f"{each.ratio:.2f} ({each.low:.2f}–{each.high:.2f})" if each.ratio is not None else ""
        rows.append(
            f"| {each.name} | {number(each.median)} {each.unit} | {' | '.join(spread)} | {ratio} | {each.floor} |"
        )
    notes = ["", *part.notes] if part.notes else []
    return "\n".join([f"## {part.title}\n", *head, *rows, *notes])


def _line(each: Figure) -> str:
    ratio = f"  {each.ratio:5.2f} × floor ({each.low:.2f}–{each.high:.2f})" if each.ratio is not None else ""
    tail = f"p95 {number(each.p95):>9} p99 {number(each.p99):>9}"
    return f"  {each.name:44} {number(each.median):>9} {each.unit:12} {tail}{ratio}"


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else ():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()

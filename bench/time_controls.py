"""`python -m bench.time_controls`: writes the examples of docs/time-controls.md, numbers and pictures, by playing them.

An example is a table of moves below a line that begins with its time control, and maybe a picture below the table.
Everything is computed by the scripts, on a private server whose clock is set.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import groupby
from pathlib import Path
from typing import Any

import orjson
import redis

from syncapp.cli.time_control import SIDES, PlayedGame, private_store
from syncapp.dev.set_clock import ManualClock
from syncapp.domain.notation import parse
from syncapp.domain.owner_clocks import clocks
from syncapp.domain.private_parts import split_entry
from syncapp.domain.time_control import TimeControl
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore

DOCS = Path(__file__).parents[1] / "docs"
DOCUMENT = DOCS / "time-controls.md"
HEADER = "| move of | takes | clock after it |"
_EXAMPLE = re.compile(
    rf"^`(?P<control>\w+:[^`]+)`.*\n\n{re.escape(HEADER)}\n\| --- \| --- \| --- \|\n(?P<rows>(?:\|.*\n)+)"
    r"(?:\n!\[(?P<title>[^\]]*)\]\((?P<picture>images/time-controls/[\w-]+\.svg)\))?",
    re.MULTILINE,
)
_STEP_MS = 100
_EVENTS = {
    "period_started": "period",
    "period_lost": "period lost",
    "block_started": "block",
    "stage_entered": "stage",
    "participant_expired": "expired",
}


@dataclass
class Timeline:
    """What the clocks showed during a game, for a picture.

    points: by side, (ms since the start, ms shown, whether of a period or block). turns: side, start and end (ms).
    events: (ms, type).
    """

    points: dict[str, list[tuple[int, int, bool]]] = field(default_factory=lambda: {side: [] for side in SIDES})
    turns: list[tuple[str, int, int]] = field(default_factory=list)
    events: list[tuple[int, str]] = field(default_factory=list)


def written(text: str, store: SessionStore, clock: ManualClock) -> tuple[str, dict[str, str]]:
    """Return the document with the clocks of all examples, and the pictures by their paths in docs/."""
    pictures: dict[str, str] = {}

    def replayed(match: re.Match[str]) -> str:
        moves = [_ms(row.split("|")[2]) for row in match["rows"].splitlines()]
        shown, timeline = played(store, clock, parse(match["control"]), moves)
        rows = "".join(
            f"| {move['owner']} | {_seconds(spent_ms) if spent_ms is not None else 'book'} | {clock_text(move)} |\n"
            for spent_ms, move in zip(moves, shown, strict=True)
        )
        if match["picture"]:
            pictures[match["picture"]] = drawn(match["title"], timeline)
        return match[0].replace(match["rows"], rows)

    return _EXAMPLE.sub(replayed, text), pictures


def played(
    store: SessionStore, clock: ManualClock, control: TimeControl, moves: Sequence[int | None]
) -> tuple[list[dict[str, Any]], Timeline]:
    """Play moves, white first; return the clocks after them, and what the clocks showed in between."""
    game = PlayedGame(store, clock, dict.fromkeys(SIDES, control), "white")
    began_ms, timeline, shown = clock.now_ms, Timeline(), []
    for place, spent_ms in enumerate(moves):
        start_ms, left_ms = clock.now_ms, spent_ms or 0
        while left_ms > 0:
            _look(store, game, clock.now_ms, began_ms, timeline)
            clock.advance_ms(min(_STEP_MS, left_ms))
            left_ms -= _STEP_MS
        _look(store, game, clock.now_ms, began_ms, timeline)
        shown.append(game.play(None if spent_ms is None else 0))
        _look(store, game, clock.now_ms, began_ms, timeline)
        timeline.turns.append((SIDES[place % 2], start_ms - began_ms, clock.now_ms - began_ms))
    timeline.events = [(at_ms - began_ms, name) for at_ms, name in _events(clock.client, game.session_id)]
    return shown, timeline


def _look(store: SessionStore, game: PlayedGame, now_ms: int, began_ms: int, timeline: Timeline) -> None:
    """Add what both clocks show now."""
    for side in clocks(store.get(game.session_id).found, now_ms)["participants"]:
        period_ms = side["period_remaining_ms"]
        shown_ms = side["remaining_ms"] if period_ms is None else period_ms
        timeline.points[side["participant_id"]].append((now_ms - began_ms, shown_ms, period_ms is not None))


def _events(client: redis.Redis, session_id: str) -> Iterator[tuple[int, str]]:
    """Yield instant and type of the events of a session that a picture shows."""
    keyspace = Keyspace()
    entries: Any = client.xrange(keyspace.outbox(keyspace.bucket(session_id)))
    for _, fields in entries:
        message = orjson.loads(split_entry(fields[b"message"])[0])
        if message["session_id"] == session_id and message["event"]["type"] in _EVENTS:
            yield message["event"]["at_ms"], message["event"]["type"]


def clock_text(move: dict[str, Any]) -> str:
    """Return a clock as the tables show it."""
    text = f"main {_seconds(move['remaining_ms'])}"
    if move["block_moves_left"] is not None:
        text = f"block {_seconds(move['period_remaining_ms'])}, {_counted(move['block_moves_left'], 'move')} left"
    elif move["period_remaining_ms"] is not None:
        text = f"period {_seconds(move['period_remaining_ms'])}, {_counted(move['periods_left'], 'period')} left"
    if move["moves_to_next_stage"] is not None:
        text += f", stage {move['stage']}, {_counted(move['moves_to_next_stage'], 'move')} to the next"
    elif move["stage"] > 1:
        text += f", stage {move['stage']}"
    return text + (": expired" if move["flagged"] else "")


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def _seconds(ms: int) -> str:
    return f"{ms / 1000:.3f}".rstrip("0").rstrip(".") + " s"


def _ms(cell: str) -> int | None:
    """Return a cell such as `8.5 s` in ms; None for `book`."""
    text = cell.strip()
    return None if text == "book" else int(Fraction(text.removesuffix(" s")) * 1000)


_WIDTH, _HEIGHT = 720, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 704, 66, 196
_LETTER = 6.5
"""Width of a letter, about."""
_STYLE = """
    .panel { fill: #ffffff; stroke: #d0d7de }
    .grid { stroke: #d0d7de; stroke-width: 1 }
    .event { stroke: #8c959f; stroke-width: 1; stroke-dasharray: 2 3 }
    .text { font-size: 12px; fill: #59636e }
    .title { font-size: 13px; font-weight: 600; fill: #1f2328 }
    .line { fill: none; stroke-width: 2.5; stroke-linejoin: round }
    .period { stroke-dasharray: 5 3 }
    .white { stroke: #0969da; fill: #0969da }
    .black { stroke: #bc4c00; fill: #bc4c00 }
    @media (prefers-color-scheme: dark) {
      .panel { fill: #0d1117; stroke: #3d444d }
      .grid { stroke: #3d444d }
      .event { stroke: #9198a1 }
      .text { fill: #9198a1 }
      .title { fill: #f0f6fc }
      .white { stroke: #4493f8; fill: #4493f8 }
      .black { stroke: #f0883e; fill: #f0883e }
    }
    .line { fill: none }
"""


def drawn(title: str, timeline: Timeline) -> str:
    """Return a picture of a game, as SVG: what each clock showed, whose turn it was, and the events."""
    end_ms = max(end for _, _, end in timeline.turns)
    shown = [each for points in timeline.points.values() for _, each, _ in points]
    most_ms, least_ms = max(shown), min(0, *shown)
    scale = (_BOTTOM - _TOP) / (most_ms - least_ms)

    def x(at_ms: int) -> str:
        return f"{_LEFT + (_RIGHT - _LEFT) * at_ms / end_ms:.1f}"

    def y(left_ms: int) -> str:
        return f"{_BOTTOM - (left_ms - least_ms) * scale:.1f}"

    has_periods = any(period for points in timeline.points.values() for _, _, period in points)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-labelledby="title"',
        "     font-family=\"-apple-system, 'Segoe UI', 'Noto Sans', Helvetica, Arial, sans-serif\">",
        f'  <title id="title">{title}</title>',
        f"  <style>{_STYLE}  </style>",
        f'  <rect class="panel" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{_HEIGHT - 1}" rx="8"/>',
        f'  <text class="title" x="16" y="22">{title}</text>',
        *_legend(has_periods=has_periods),
    ]
    for at_ms in _ticks(least_ms, most_ms, 4):
        parts.append(f'  <path class="grid" d="M{_LEFT} {y(at_ms)}H{_RIGHT}"/>')
        parts.append(_text(_LEFT - 8, f"{float(y(at_ms)) + 4:.1f}", f"{at_ms // 1000} s", "end"))
    parts += (_text(x(at_ms), _HEIGHT - 14, f"{at_ms // 1000} s", "middle") for at_ms in _ticks(0, end_ms, 9))
    parts += _event_marks(timeline, x)
    for side in SIDES:
        for period, run in groupby(timeline.points[side], key=lambda point: point[2]):
            path = "L".join(f"{x(at_ms)} {y(left_ms)}" for at_ms, left_ms, _ in _corners(list(run)))
            parts.append(f'  <path class="line {side}{" period" if period else ""}" d="M{path}"/>')
    for side, start_ms, stop_ms in timeline.turns:
        width = float(x(stop_ms)) - float(x(start_ms)) - 1
        if width > 0:
            parts.append(
                f'  <rect class="{side}" x="{x(start_ms)}" y="206" width="{width:.1f}" height="8" stroke="none"/>'
            )
    return "\n".join([*parts, "</svg>", ""])


def _legend(*, has_periods: bool) -> Iterator[str]:
    entries = [("white", "white", ""), ("black", "black", "")]
    entries += [("white", "period or block", " period")] if has_periods else []
    place = _RIGHT - (260 if has_periods else 130)
    for side, text, dashes in entries:
        yield f'  <path class="line {side}{dashes}" d="M{place} 18h22"/>'
        yield _text(place + 28, 22, text)
        place += 68


def _event_marks(timeline: Timeline, x: Callable[[int], str]) -> Iterator[str]:
    """Yield lines and names of the events; a name that has no room is on a second level."""
    taken = [0.0, 0.0]
    for at_ms, name in timeline.events:
        place, text = float(x(at_ms)), _EVENTS[name]
        width = _LETTER * len(text)
        anchor, start = ("end", place - 4 - width) if place + 4 + width > _RIGHT else ("start", place + 4)
        level = 0 if start >= taken[0] else 1
        taken[level] = start + width + 6
        yield f'  <path class="event" d="M{x(at_ms)} {28 + 14 * level}V{_BOTTOM}"/>'
        yield _text(f"{place + (-4 if anchor == 'end' else 4):.1f}", 40 + 14 * level, text, anchor)


def _text(x: float | str, y: float | str, text: str, anchor: str = "start") -> str:
    return f'  <text class="text" x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>'


def _ticks(least_ms: int, most_ms: int, count: int) -> Iterator[int]:
    """Yield round values from least to most, at most so many."""
    step = next(each for each in (1, 2, 5, 10, 20, 50, 100) if (most_ms - least_ms) / (each * 1000) < count)
    for second in range(-(-least_ms // 1000), most_ms // 1000 + 1):
        if second % step == 0:
            yield second * 1000


def _corners(points: list[tuple[int, int, bool]]) -> list[tuple[int, int, bool]]:
    """Return points without those on a straight line between their neighbours."""
    kept = points[:1]
    for point, after in zip(points[1:], [*points[2:], None], strict=True):
        before = kept[-1]
        if after is None or (point[1] - before[1]) * (after[0] - point[0]) != (after[1] - point[1]) * (
            point[0] - before[0]
        ):
            kept.append(point)
    return kept


def main() -> int:
    """Write the document and its pictures; return the exit code."""
    with private_store() as (store, clock):
        text, pictures = written(DOCUMENT.read_text(), store, clock)
    DOCUMENT.write_text(text)
    for path, picture in pictures.items():
        (DOCS / path).parent.mkdir(exist_ok=True)
        (DOCS / path).write_text(picture)
    print(f"{DOCUMENT.name} and {len(pictures)} pictures are written.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Clocks of real games, from the folder of vectors beside the project, as controls and moves for any engine.

The folder's README.md says what its files hold. What they leave open is settled here: a time known as a range is
chosen from it, and a clock noted before a bonus is given that bonus.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal, get_args

FOLDER = Path(__file__).parents[3] / "shared" / "vectors"
FILES = (
    "cgos_absolute",
    "chess_clock_npm",
    "csa",
    "kgs_byoyomi",
    "kgs_canadian",
    "tcec_fischer",
    "tcec_stages",
)
OPERATORS_TIME_MS = 80_000
"""The operator adds more than this; no other difference occurs."""
ROUNDING_S = range(-1, 3)
"""What rounding can make of a move's time, when the time and the clock are noted in whole s."""

Choice = Literal["least", "middle", "most"]
RANGES = ("csa", "kgs_byoyomi", "kgs_canadian")
"""The files that know some times only as ranges."""
CASES = [(name, choice) for name in FILES for choice in (get_args(Choice) if name in RANGES else ("least",))]
Control = dict[str, Any]


@dataclass(frozen=True)
class Move:
    """A move, and what its owner's clock shows after it.

    spent_ms: None for a move of the opening book, which is not charged. added_ms: given by the operator before the
    move. expected: `remaining_ms`, `periods_left`, `period_remaining_ms`, `block_moves_left`, `stage`, `flagged`, as
    far as they are known. other_ms: the main time of the other side, if it is known.
    """

    spent_ms: int | None
    expected: dict[str, int | bool | None]
    added_ms: int = 0
    other_ms: int | None = None


@dataclass(frozen=True)
class Game:
    """A game of two sides that alternate; controls: of the side that moves first, and of the other one."""

    name: str
    controls: tuple[Control, Control]
    moves: tuple[Move, ...]

    @property
    def has_one_control(self) -> bool:
        """Whether both sides have the same control, and nobody adds time."""
        return self.controls[0] == self.controls[1] and not any(move.added_ms for move in self.moves)


def games(name: str, choice: Choice = "least") -> Iterator[Game]:
    """Yield the games of a file; `choice` says which time is taken where the file knows a range."""
    document = json.loads((FOLDER / f"{name}.json").read_bytes())
    read = {
        "cgos_absolute": _absolute,
        "chess_clock_npm": _npm,
        "csa": _csa,
        "kgs_byoyomi": _byoyomi,
        "kgs_canadian": _canadian,
        "tcec_fischer": _fischer,
        "tcec_stages": _stages,
    }[name]
    for place, game in enumerate(document["games"]):
        if "Tournament_5" in game.get("src", ""):
            continue  # its tag says 40 moves, its clocks 60 moves after the book
        controls, moves = read(game, choice)
        moves = [replace(move, expected={"flagged": False} | move.expected) for move in moves]
        yield Game(f"{name} {place}", controls, tuple(moves))


Found = tuple[tuple[Control, Control], list[Move]]


def _both(*stages: dict[str, Any], **more: Any) -> tuple[Control, Control]:
    control = {"stages": list(stages), **more}
    return control, control


def _chosen(start: int, end: int, choice: Choice) -> int:
    """Return a time from [start, end), or the only one."""
    if start == end:
        return start
    return {"least": start, "middle": (start + end) // 2, "most": end - 1}[choice]


def _absolute(game: dict[str, Any], _: Choice) -> Found:
    moves = [Move(spent, {"remaining_ms": clock}) for spent, clock in game["moves"]]
    return _both({"time_ms": game["tc"]["main_ms"]}), moves


def _npm(game: dict[str, Any], _: Choice) -> Found:
    """Read the clocks of a package; it sets the loser's to 0, and the press that starts it earns an increment."""
    kind = {
        "delay": {"delay": "simple", "delay_ms": game["increment_ms"]},
        "bronstein": {"delay": "bronstein", "delay_ms": game["increment_ms"]},
        "hourglass": {"hourglass": True},
        "fischer": {"increment_ms": game["increment_ms"]},
    }[game["mode"]]
    first, second = ({"stages": [kind | {"time_ms": start}]} for start in game["start_clocks"])
    moves = []
    before = game["start_clocks"]
    for place, (spent, *clocks) in enumerate(game["moves"]):
        own, other = clocks[place % 2], clocks[1 - place % 2]
        flagged = game["end"] == "done" and place + 1 == len(game["moves"])
        if flagged and game["mode"] == "hourglass":
            other -= spent - before[place % 2]  # the package leaves the overshoot with the other side
        moves.append(Move(spent, {"remaining_ms": own, "flagged": flagged}, other_ms=other))
        before = clocks
    return (first, second), moves


def _csa(game: dict[str, Any], choice: Choice) -> Found:
    least, increment = (1000, 0) if "least 1 s" in game["tc"] else (0, 5000)
    time_ms = 1000 * (1500 if least else 300)
    moves = []
    for seconds, clock in game["moves"]:
        start = 0 if seconds * 1000 <= least else seconds * 1000
        moves.append(Move(_chosen(start, seconds * 1000 + 1000, choice), {"remaining_ms": clock * 1000}))
    stage = {"time_ms": time_ms, "increment_ms": increment}
    return _both(stage, charge_unit_ms=1000, min_charge_ms=least), moves


def _byoyomi(game: dict[str, Any], choice: Choice) -> Found:
    tc = game["tc"]
    moves = []
    for start, end, clock, periods in game["moves"]:
        main = {"remaining_ms": clock, "period_remaining_ms": None}
        overtime = {"remaining_ms": 0, "period_remaining_ms": clock, "periods_left": periods}
        moves.append(Move(_chosen(start, end, choice), main if periods is None else overtime))
    return _both({"time_ms": tc["main_ms"], "periods": tc["periods"], "period_ms": tc["period_ms"]}), moves


def _canadian(game: dict[str, Any], choice: Choice) -> Found:
    tc = game["tc"]
    moves = []
    for start, end, clock, stones in game["moves"]:
        main = {"remaining_ms": clock, "period_remaining_ms": None, "block_moves_left": None}
        overtime = {"remaining_ms": 0, "period_remaining_ms": clock, "block_moves_left": stones}
        moves.append(Move(_chosen(start, end, choice), main if stones is None else overtime))
    return _both({"time_ms": tc["main_ms"], "period_moves": tc["stones"], "period_ms": tc["block_ms"]}), moves


def _fischer(game: dict[str, Any], _: Choice) -> Found:
    main, _, bonus = game["tc"].partition("+")
    time_ms, increment_ms = int(main) * 1000, round(float(bonus or 0) * 1000)
    before = [time_ms, time_ms]
    moves = []
    for place, record in enumerate(game["moves"]):
        side = place % 2
        if record is None:
            moves.append(Move(None, {"remaining_ms": before[side]}))
            continue
        spent, clock = record
        added = clock - (before[side] - spent + increment_ms)
        assert added == 0 or added > OPERATORS_TIME_MS, (place, record)
        moves.append(Move(spent, {"remaining_ms": clock}, added))
        before[side] = clock
    return _both({"time_ms": time_ms, "increment_ms": increment_ms}, margin_ms=1000), moves


def _stages(game: dict[str, Any], _: Choice) -> Found:
    """Read clocks that were noted before the bonus of the move, in whole s.

    The time of a move is the difference of the clocks, which must be the noted time, but for rounding.
    """
    stages = _stages_of(game["tc"])
    start = game["moves"][0][1]
    is_granted_first = start * 1000 == stages[0]["time_ms"] + stages[0]["increment_ms"] > stages[0]["time_ms"]
    before, noted_before, played, in_book = [start, start], [start, start], [0, 0], [True, True]
    moves = []
    for place, (noted, clock) in enumerate(game["moves"]):
        side = place % 2
        played[side] += 1
        in_book[side] = in_book[side] and (noted, clock) == (0, start)
        rounding = noted_before[side] - noted - clock
        assert in_book[side] or rounding in ROUNDING_S, (place, noted_before[side], noted, clock)
        stage, bonus = _bonus_s(stages, played[side], charged=not in_book[side])
        spent = max(0, before[side] - clock)  # a clock that seems to rise was rounded
        before[side] += bonus - spent
        noted_before[side] = clock + bonus
        expected: dict[str, int | bool | None] = {"remaining_ms": before[side] * 1000, "stage": stage}
        moves.append(Move(None if in_book[side] else spent * 1000, expected))
    return _both(*stages, first_bonus="before_move" if is_granted_first else "after_move"), moves


def _bonus_s(stages: list[dict[str, Any]], move: int, *, charged: bool) -> tuple[int, int]:
    """Return the stage after the owner's move with this number, and what the move adds, in s."""
    ends = list(accumulate(stage["moves"] for stage in stages[:-1]))
    place = sum(end < move for end in ends)
    bonus = stages[place]["increment_ms"] if charged else 0
    if move in ends:
        place += 1
        bonus += stages[place]["time_ms"]
    return place + 1, bonus // 1000


def _stages_of(tag: str) -> list[dict[str, Any]]:
    """Read a PGN tag, such as 40/6000:20/3000:1200+10."""
    stages = []
    for part in tag.split(":"):
        moves, _, times = part.rpartition("/")
        main, _, bonus = times.partition("+")
        stage: dict[str, Any] = {"time_ms": int(main) * 1000, "increment_ms": int(bonus or 0) * 1000}
        stages.append({"moves": int(moves)} | stage if moves else stage)
    return stages

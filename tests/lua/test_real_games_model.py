"""The model of time controls shows what real clocks showed, in games played elsewhere (tests/support/real_games.py)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.control_model import ControlModel
from tests.support.real_games import CASES, FOLDER, Choice, Game, games
from tests.support.store import NOON_MS

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="the games are not part of the project")


class ReplayedGame:
    """A game in the model, played move by move."""

    def __init__(self, game: Game) -> None:
        sides = [
            {"participant_id": name, "time_control": control}
            for name, control in zip(("mover", "other"), game.controls, strict=True)
        ]
        self.now_ms = NOON_MS
        self.model = ControlModel({"sync_mode": "per_participant", "participants": sides}, self.now_ms)
        self.model.start(self.now_ms)

    def play(self, spent_ms: int | None, added_ms: int = 0) -> dict[str, Any]:
        """Play a move; return what its owner's clock shows after it, and the other's main time."""
        owner = self.model.owner() or ""
        if added_ms:
            self.model.adjust(self.now_ms, "add", added_ms)
        self.now_ms += spent_ms or 0
        self.model.settle(self.now_ms)
        flagged = self.model.status != "running"
        if not flagged:
            self.model.switch(self.now_ms, is_free=spent_ms is None)
        clock = self.model.clock(owner)
        other = next(name for name in self.model.budgets if name != owner)
        return {
            "remaining_ms": clock.remaining,
            "flagged": flagged,
            "other_ms": self.model.clock(other).remaining,
        } | clock.values()


@pytest.mark.parametrize(("name", "choice"), CASES)
def test_each_move_leaves_what_the_real_clock_showed(name: str, choice: Choice) -> None:
    compared = 0
    for game in games(name, choice):
        replayed = ReplayedGame(game)
        for place, move in enumerate(game.moves):
            shown = replayed.play(move.spent_ms, move.added_ms)
            expected = move.expected if move.other_ms is None else move.expected | {"other_ms": move.other_ms}
            assert {field: shown[field] for field in expected} == expected, (game.name, place, move)
            compared += 1
    print(f"{name}, {choice}: {compared} moves")
    assert compared > 0

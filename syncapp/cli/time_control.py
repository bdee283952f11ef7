"""`flask time-control`: explains time controls, and plays moves with them. It needs neither Redis nor PostgreSQL."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import click
import redis

from syncapp.config import Settings
from syncapp.dev.set_clock import PARTIALS, ManualClock
from syncapp.domain.modes import MODES
from syncapp.domain.notation import NotationError, explain, format_control, parse
from syncapp.domain.schemas import CreateSession
from syncapp.domain.session import Session
from syncapp.domain.strict_json import decode
from syncapp.domain.time_control import TimeControl
from syncapp.errors import InvalidTransition, SyncError, ValidationFailed
from syncapp.store.client import connect
from syncapp.store.sessions import SessionStore

SIDES = ("white", "black")
MAX_MOVES = 100_000
MAX_MOVE_MS = 1_000_000_000_000
"""More than any clock can hold: 31 years."""
_IN_MEMORY = ("--appendonly", "no")
_MODE = next(name for name, traits in MODES.items() if traits.has_participant_budgets)


class ControlText(click.ParamType[TimeControl]):
    """A time control on the command line: a notation with its dialect, or an object in JSON."""

    name = "control"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> TimeControl:
        """Return the normalized control."""
        try:
            if value.lstrip().startswith("{"):
                return TimeControl.parse(decode(value, "the time control")).normalized()
            return parse(value)
        except NotationError as error:
            self.fail(f"time_control {error}", param, ctx)
        except SyncError as error:
            self.fail(_reason(error), param, ctx)


@dataclass(frozen=True)
class PlayedMoves:
    """The moves of a game: who moves first, and how long each took in ms; None for a move of the opening book."""

    first: str
    spent_ms: tuple[int | None, ...]

    @classmethod
    def from_json(cls, text: bytes) -> PlayedMoves:
        """Read `{"first", "moves"}`. Raises `ValueError` with what is wrong."""
        try:
            document = decode(text, "the file of moves")
        except SyncError as error:
            raise ValueError(_reason(error)) from None
        if not isinstance(document, dict):
            raise ValueError('must be an object with "first" and "moves"')  # noqa: TRY004 the caller expects one type
        if unknown := [name for name in document if name not in ("first", "moves")]:
            raise ValueError(f"{json.dumps(unknown[0])} is unknown; known are first and moves")
        first, moves = document.get("first"), document.get("moves")
        if first not in SIDES:
            raise ValueError(f'first must be "white" or "black", not {json.dumps(first)}')
        if not isinstance(moves, list):
            raise ValueError("moves must be a list")  # noqa: TRY004 as above
        if len(moves) > MAX_MOVES:
            raise ValueError(f"moves has {len(moves):,} moves; at most {MAX_MOVES:,} are played")
        for number, spent_ms in enumerate(moves):
            if spent_ms is not None and (type(spent_ms) is not int or not 0 <= spent_ms <= MAX_MOVE_MS):
                shown = json.dumps(spent_ms)[:60]
                raise ValueError(f"moves.{number} must be whole ms from 0 to {MAX_MOVE_MS:,}, or null, not {shown}")
        return cls(first, tuple(moves))


class PlayedGame:
    """A game of two sides in a store whose clock is set, played move by move."""

    def __init__(
        self, store: SessionStore, clock: ManualClock, controls: Mapping[str, TimeControl], first: str
    ) -> None:
        """Create and start the session; controls: of white and black."""
        self._store = store
        self._clock = clock
        self._turn = SIDES.index(first)
        documents = [controls[side].document() for side in SIDES]
        shared = documents[0] == documents[1]
        people = [
            {"participant_id": side} | ({} if shared else {"time_control": document})
            for side, document in zip(SIDES, documents, strict=True)
        ]
        body = {
            "sync_mode": _MODE,
            "participants": people,
            "action_on_timeout": {"type": "end_session"},
            "time_control": documents[0] if shared else None,
        }
        self.session_id = store.create(CreateSession.parse(body)).found.session_id
        store.start(self.session_id, participant_id=first)

    def play(self, spent_ms: int | None) -> dict[str, Any]:
        """Play a move, which took this long; return the mover's clock after it, all bonuses included.

        None: the move is neither charged nor rewarded, as one of an opening book. `flagged`: it came too late, and the
        game has ended.
        """
        self._clock.advance_ms(spent_ms or 0)
        index, flagged = self._turn, False
        try:
            session = self._store.switch(self.session_id, is_free=spent_ms is None).found
        except InvalidTransition:
            session, flagged = self._store.get(self.session_id).found, True
        self._turn = 1 - index
        return {
            "owner": SIDES[index],
            "spent_ms": spent_ms or 0,
            "remaining_ms": session.participants[index].time_remaining_ms,
            **_clock(session, index),
            "flagged": flagged,
        }


def _clock(session: Session, index: int) -> dict[str, int | None]:
    """Return stage, periods and block of an owner; what concerns periods and blocks is None in main time."""
    clock = session.clocks[index]
    stage = session.definition.controls[index].stages[clock.stage - 1]
    document = clock.document(stage, has_lag=False)
    return {
        "stage": document["stage"],
        "moves_to_next_stage": document["moves_to_next_stage"],
        "periods_left": document["periods_left"] if clock.overtime else None,
        "period_remaining_ms": document["period_remaining_ms"],
        "block_moves_left": document["block_moves_left"],
    }


def simulate(store: SessionStore, clock: ManualClock, control: TimeControl, played: PlayedMoves) -> dict[str, Any]:
    """Play a game with one control for both sides; return `moves`, the clocks after them, up to the first flag."""
    game = PlayedGame(store, clock, dict.fromkeys(SIDES, control), played.first)
    moves = []
    for spent_ms in played.spent_ms:
        moves.append(game.play(spent_ms))
        if moves[-1]["flagged"]:
            break
    return {"moves": moves}


@contextmanager
def _orderly_end() -> Iterator[None]:
    """Let SIGTERM raise `SystemExit`, so that what was started is stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def private_store() -> Iterator[tuple[SessionStore, ManualClock]]:
    """Yield a store on a private server in a temporary directory, and its clock.

    Raises `click.ClickException` if the server does not start, or if the packages for development are not installed.
    """
    try:
        from syncapp.dev.processes import StartError
        from syncapp.dev.servers import Valkey
    except ImportError as error:
        raise click.ClickException(f"{error.name} is not installed; it is in requirements-dev.txt") from error
    with _orderly_end(), tempfile.TemporaryDirectory(prefix="syncapp-simulate-") as name:
        try:
            server = Valkey(Path(name), Path(name) / "valkey", options=_IN_MEMORY)
        except StartError as error:
            raise click.ClickException(f"there is no private server: {error}") from error
        try:
            server.start()
            settings = Settings(redis_url=server.url, audit_backlog_limit=0)
            with connect(settings) as scripts, redis.Redis.from_url(server.url) as client:
                yield SessionStore(scripts, settings, partials=PARTIALS), ManualClock(client)
        except StartError as error:
            raise click.ClickException(f"the private server did not start: {error}") from error
        finally:
            server.stop()


def commands() -> click.Group:
    """Return the group of commands."""
    group = click.Group("time-control", help="Explain time controls, and play moves with them.")
    group.add_command(_explain())
    group.add_command(_simulate())
    return group


def _explain() -> click.Command:
    @click.command("explain")
    @click.argument("control", type=ControlText())
    def explain_control(control: TimeControl) -> None:
        """Print the rules of a time control in words, then its canonical notation and JSON.

        CONTROL is a notation with its dialect, such as pgn:40/5400+30:1800+30, or an object in JSON.
        """
        click.echo(explain(control))
        click.echo(f"\n{format_control(control)}\n{json.dumps(control.document())}")

    return explain_control


def _simulate() -> click.Command:
    @click.command("simulate")
    @click.argument("control", type=ControlText())
    @click.option("--moves", "file", type=click.File("rb"), required=True, help="File of moves; - is standard input.")
    def simulate_game(control: TimeControl, file: IO[bytes]) -> None:
        """Play moves with a time control, and print the mover's clock after each as JSON.

        The file of moves is {"first": "white", "moves": [1500, 2300, null]}: how long each move took in ms, the sides
        alternating; null is a move of the opening book, which is not charged. The scripts run on a private server.
        """
        try:
            played = PlayedMoves.from_json(file.read())
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--moves") from None
        try:
            with private_store() as (store, clock):
                result = simulate(store, clock, control, played)
        except SyncError as error:
            raise click.ClickException(f"the moves could not be played: {error}") from error
        click.echo(json.dumps(result))

    return simulate_game


def _reason(error: SyncError) -> str:
    """Return an error in one line, with the fields of a failed validation."""
    if isinstance(error, ValidationFailed):
        return "; ".join(f"{fault['field']} {fault['message']}" for fault in error.details)
    return error.message

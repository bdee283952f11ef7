"""Examples for the OpenAPI and AsyncAPI documents: request bodies that work unchanged, and a game for the responses.

tests/api/test_reference.py sends each body to a real server.
"""

from __future__ import annotations

from typing import Any

SESSION_ID = "7c1f6b0e-2d54-4b7a-9a35-5d0c1e7f4a21"
NOON_MS = 1_767_268_800_000
NOON = "2026-01-01T12:00:00.000Z"
EPOCH = NOON_MS - 120_000
LINK_ID = "AZt5wz5Aw0vZ8m2TqJ4hYk1x"
REQUEST_ID = "5f0c1b6d2f8e4a53a1d0c9e6b7f81234"


def named(**values: tuple[str, Any]) -> dict[str, Any]:
    """Return examples by name, each of a summary and a value."""
    return {name: {"summary": summary, "value": value} for name, (summary, value) in values.items()}


REQUEST_BODIES: dict[str, dict[str, Any]] = {
    "create": named(
        chess=(
            "A chess game: five minutes each, three seconds per move",
            {
                "sync_mode": "per_participant",
                "participants": [
                    {"participant_id": "white", "total_time_ms": 300_000},
                    {"participant_id": "black", "total_time_ms": 300_000},
                ],
                "increment_ms": 3000,
                "takeback_cycles": 2,
            },
        ),
        tournament=(
            "A tournament game: 40 moves in 90 minutes, then 30 minutes, with 30 seconds a move",
            {
                "sync_mode": "per_participant",
                "participants": [{"participant_id": "white"}, {"participant_id": "black"}],
                "time_control": {
                    "stages": [
                        {"moves": 40, "time_ms": 5_400_000, "increment_ms": 30_000},
                        {"time_ms": 1_800_000, "increment_ms": 30_000},
                    ],
                    "first_bonus": "before_move",
                },
                "lag_compensation": {"per_move_ms": 100, "quota_ms": 1000},
            },
        ),
        go=(
            "A game of Go with byo-yomi: 30 minutes, then five periods of 30 seconds; white has ten minutes more",
            {
                "sync_mode": "per_participant",
                "participants": [
                    {"participant_id": "black"},
                    {"participant_id": "white", "time_control": "sgf:2400 5x30 byo-yomi"},
                ],
                "time_control": "sgf:1800 5x30 byo-yomi",
                "warn_at_ms": [10_000],
                "warn_scope": "period",
            },
        ),
        rounds=(
            "Turns of thirty seconds that pass automatically",
            {
                "sync_mode": "per_cycle",
                "participants": [{"participant_id": "anna"}, {"participant_id": "ben"}],
                "time_per_cycle_ms": 30_000,
                "max_cycles": 20,
                "action_on_timeout": {"type": "skip_cycle"},
            },
        ),
        debate=(
            "A debate of two teams, each with its own time",
            {
                "sync_mode": "per_group",
                "groups": [
                    {"group_id": "pro", "total_time_ms": 600_000},
                    {"group_id": "contra", "total_time_ms": 600_000},
                ],
                "participants": [
                    {"participant_id": "anna", "group_id": "pro"},
                    {"participant_id": "ben", "group_id": "contra"},
                ],
                "warn_at_ms": [60_000],
            },
        ),
        exam=(
            "An exam of ninety minutes",
            {"sync_mode": "global", "total_time_ms": 5_400_000, "metadata": {"room": "B 12"}},
        ),
        stopwatch=("A stopwatch that counts up to an hour", {"sync_mode": "count_up", "max_time_ms": 3_600_000}),
    ),
    "start": named(
        first=("The first participant in rotation begins", {}),
        named=("A named participant begins", {"participant_id": "white"}),
    ),
    "switch": named(
        next=("Pass the turn on", {}),
        once=("Pass the turn on only once", {"participant_id": "white", "expected_version": 2}),
    ),
    "pause": named(now=("Stop the clock", {})),
    "resume": named(now=("Continue", {})),
    "adjust": named(
        add=("Add ten seconds", {"op": "add", "ms": 10_000, "participant_id": "white", "reason": "interrupted"}),
        set=("Set the running budget to one minute", {"op": "set", "ms": 60_000}),
        all=("Give everybody a minute", {"op": "add", "ms": 60_000, "targets": "all", "reason": "fire alarm"}),
    ),
    "takeback": named(
        one=("Take back the last move", {}),
        agreed=("Take back the last move, with a reason", {"cycles": 1, "reason": "agreed"}),
    ),
    "reopen": named(reason=("The game was ended by mistake", {"reason": "the wrong game was completed"})),
    "complete": named(
        result=("White has won", {"reason": "checkmate", "result": {"winner": "white"}}),
        now=("Without reason and result", {}),
    ),
    "cancel": named(reason=("Cancel with a reason", {"reason": "the players have left"})),
    "update": named(merge=("Set one member, remove another", {"metadata": {"table": 4, "room": None}})),
    "delete": named(now=("Delete the session", {})),
    "create_link": named(
        watch=("Anyone with the link may watch", {"scope": "session:watch", "label": "spectators"}),
        board=("A game clock on a screen", {"scope": "session:watch", "page": "play", "label": "screen in the hall"}),
        act=("White's phone", {"scope": "session:act", "participant_id": "white", "expires_in_s": 7200}),
    ),
    "batch": named(pause=("Pause the exam in every room", {"command": "pause", "session_ids": [SESSION_ID]})),
}
"""Request bodies by operation. They work unchanged on the first example of `create`, a chess game."""

_WHITE = {
    "participant_id": "white",
    "participant_index": 0,
    "total_time_ms": 300_000,
    "time_used_ms": 0,
    "time_remaining_ms": 300_000,
    "cycle_count": 0,
    "is_active": True,
    "has_expired": False,
}
CLOCK: dict[str, Any] = {
    "scope": "participant",
    "direction": "down",
    "running": True,
    "remaining_ms": 287_655,
    "elapsed_ms": 12_345,
    "deadline_ms": NOON_MS + 300_000,
}
STATE: dict[str, Any] = {
    "session_id": SESSION_ID,
    "sync_mode": "per_participant",
    "status": "running",
    "epoch": EPOCH,
    "version": 2,
    "participants": [_WHITE, _WHITE | {"participant_id": "black", "participant_index": 1, "is_active": False}],
    "active_participant_id": "white",
    "cycle_count": 0,
    "total_time_ms": 600_000,
    "time_per_cycle_ms": None,
    "increment_ms": 3000,
    "cycle_started_at": NOON,
    "session_started_at": NOON,
    "session_completed_at": None,
    "created_at": "2026-01-01T11:58:00.000Z",
    "updated_at": NOON,
    "idle_timeout_s": 86_400,
    "idle_at": None,
    "action_on_timeout": {"type": "end_session"},
    "metadata": {},
    "server_time_ms": NOON_MS + 12_345,
    "clock": CLOCK,
    "takeback_cycles": 2,
}
EVENT = {"type": "session_started", "at_ms": NOON_MS, "participant_id": "white", "remaining_ms": 300_000}
_PERIOD = {
    "stage": 1,
    "moves_to_next_stage": None,
    "periods_left": 5,
    "period_remaining_ms": 30_000,
    "block_moves_left": None,
    "turn_ms": 600_000,
}
_MAIN_TIME = {**_PERIOD, "period_remaining_ms": None, "turn_ms": 0}
_EMPTY = {"time_used_ms": 1_800_000, "time_remaining_ms": 0, "total_time_ms": 1_800_000}
_FULL = {"time_remaining_ms": 1_800_000, "total_time_ms": 1_800_000, "is_active": False, "participant_index": 1}
GO_STATE: dict[str, Any] = {
    **STATE,
    "version": 9,
    "participants": [
        {**_WHITE, **_EMPTY, **_PERIOD, "participant_id": "black"},
        {**_WHITE, **_FULL, **_MAIN_TIME},
    ],
    "active_participant_id": "black",
    "total_time_ms": 3_600_000,
    "increment_ms": 0,
    "clock": {
        **CLOCK,
        "remaining_ms": 0,
        "deadline_ms": NOON_MS + 150_000,
        "phase": "period",
        "phase_remaining_ms": 17_655,
        "next_at_ms": NOON_MS + 30_000,
    },
    "time_control": {
        "stages": [{"time_ms": 1_800_000, "periods": 5, "period_ms": 30_000}],
        "first_bonus": "after_move",
        "margin_ms": 0,
        "charge_unit_ms": 1,
        "min_charge_ms": 0,
    },
    "time_control_notation": "sgf:1800 5x30 byo-yomi",
    "warn_scope": "main",
}
"""A game of Go in which black's first byo-yomi period runs."""
PERIOD_EVENT = {
    "type": "period_started",
    "at_ms": NOON_MS,
    "participant_id": "black",
    "remaining_ms": 0,
    "periods_left": 5,
    "period_remaining_ms": 30_000,
}
PATCH = {
    "version": 2,
    "updated_at": NOON,
    "status": "running",
    "active_participant_id": "white",
    "cycle_started_at": NOON,
    "session_started_at": NOON,
    "idle_at": None,
}
MINIMAL = {"session_id": SESSION_ID, "epoch": EPOCH, "version": 2, "event": EVENT, "patch": PATCH}

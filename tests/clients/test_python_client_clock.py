"""The Python client shows what the server shows: clocks and patches, compared in random games in the real scripts."""

from __future__ import annotations

import os
from typing import Any, cast

import orjson
import pytest
import redis as redis_py
from hypothesis.stateful import run_state_machine_as_test

from syncapp.domain.clock_text import displayed_time
from syncapp.domain.owner_clocks import clocks
from syncapp.domain.session import Session
from syncapp_client import State, elapsed_ms, reading
from syncapp_client.patches import apply_patch
from tests.support import clock_machine
from tests.support.clock_machine import MAX_UNATTENDED, ClockMachine, machine_settings
from tests.support.control_machine import ControlMachine
from tests.support.store import make_store

LATER_MS = (0, 7, 499, 2001)
AROUND_MS = (-1, 0, 3)
"""Around the instants at which a clock, a period or a delay ends; margins are at most 5 ms."""
EXAMPLES, STEPS = int(os.environ.get("CLIENT_EXAMPLES", "3")), 30


def state_of(session: Session, at_ms: int) -> State:
    return cast("State", orjson.loads(orjson.dumps(session.state(at_ms))))


def expect_the_servers_clocks(session: Session, settled_ms: int) -> None:
    """Compare every clock of a state, at instants after it, with what the server computes for them."""
    state = state_of(session, settled_ms)
    ends = (state["clock"]["deadline_ms"], state["clock"].get("next_at_ms"))
    instants = {end_ms + around_ms for end_ms in ends if end_ms is not None for around_ms in AROUND_MS}
    instants |= {settled_ms + later_ms for later_ms in LATER_MS}
    for at_ms in sorted(each for each in instants if each >= settled_ms):
        told, shown = clocks(session, at_ms), session.clock(at_ms)
        for kind, key in (("participants", "participant_id"), ("groups", "group_id")):
            for owner in told.get(kind, ()):
                expect_owner(session, state, at_ms, owner, is_running=runs(session, told, owner[key]))
        found = reading(state, at_ms)
        in_period = shown.get("phase") in ("period", "block")
        expected = shown["phase_remaining_ms"] if in_period else shown["remaining_ms"]
        assert (found.ms, found.running) == (expected, shown["running"])
        assert found.phase == shown.get("phase", "main")
        assert found.delay_ms == (shown["phase_remaining_ms"] if shown.get("phase") == "delay" else 0)
        assert elapsed_ms(state, at_ms) == shown["elapsed_ms"]


def expect_owner(session: Session, state: State, at_ms: int, told: dict[str, Any], *, is_running: bool) -> None:
    name = told.get("participant_id") or told["group_id"]
    found = reading(state, at_ms, name)
    is_group = "group_id" in told
    shown_ms, down = displayed_time(session, at_ms, None if is_group else name, name if is_group else None)
    assert found.ms == (shown_ms if down else None)
    assert (found.used_ms, found.running) == (told["used_ms"], is_running)


def runs(session: Session, told: dict[str, Any], name: str) -> bool:
    """Return whether the clock runs that an owner is shown: a participant of a group is shown the group's."""
    definition = session.definition
    if session.groups and name in definition.index:
        name = definition.group_ids[definition.group_of[definition.index[name]]]
    found = [each["running"] for each in told.get("groups", told["participants"]) if name in each.values()]
    return bool(found[0])


class Shown:
    """Compares the clocks after each step."""

    folded: Session | None
    clock: Any

    def _check(self) -> None:
        super()._check()  # type: ignore[misc]  # a machine's
        assert self.folded
        expect_the_servers_clocks(self.folded, max(self.clock.now_ms, self.folded.updated_ms))


class ShownClocks(Shown, ClockMachine):
    """Plain budgets."""


class ShownControls(Shown, ControlMachine):
    """Time controls."""


@pytest.mark.parametrize(
    ("machine", "mode"),
    [(ShownClocks, mode) for mode in clock_machine.MODES]
    + [(ShownControls, "per_participant"), (ShownControls, "per_group")],
)
def test_every_clock_reads_as_on_the_server(
    machine: type[ClockMachine], mode: str, redis: redis_py.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The machine folds each commit as a client does, and compares the result with the server's state.
    monkeypatch.setattr(clock_machine, "apply_patch", apply_patch)
    stores = [make_store(redis_url, max_unattended_cycles=MAX_UNATTENDED) for _ in range(2)]
    run_state_machine_as_test(
        lambda: machine(redis, stores, redis_url, mode),  # type: ignore[arg-type]  # anything that makes one
        settings=machine_settings(EXAMPLES, STEPS),
    )


def test_a_margin_is_shown_after_the_last_period_only() -> None:
    def left_ms(periods_left: int, action: str = "end_session") -> int | None:
        owner = {
            "participant_id": "a",
            "is_active": True,
            "time_used_ms": 0,
            "time_remaining_ms": 0,
            "stage": 1,
            "periods_left": periods_left,
            "period_remaining_ms": 10,
            "block_moves_left": None,
            "turn_ms": 0,
        }
        stage = {"time_ms": 1, "periods": 2, "period_ms": 10}
        state = {
            "status": "running",
            "cycle_started_at": "1970-01-01T00:00:00.000Z",
            "active_participant_id": "a",
            "participants": [owner],
            "action_on_timeout": {"type": action},
            "time_control": {"stages": [stage], "margin_ms": 5, "charge_unit_ms": 1},
        }
        return reading(cast("State", state), 1000, "a").ms

    assert (left_ms(2), left_ms(1), left_ms(1, "notify")) == (0, -5, -990)

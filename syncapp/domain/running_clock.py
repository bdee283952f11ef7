"""The current clock of a session, computed for an instant. Unless the session is running, the clock that would run."""

from __future__ import annotations

from typing import Any, Protocol

from syncapp.domain.control_clock import RunningControl
from syncapp.domain.modes import MODES


class ClockInputs(Protocol):
    """The values, besides the budget, that a clock is computed from."""

    @property
    def sync_mode(self) -> str:
        """The mode."""

    @property
    def status(self) -> str:
        """The status: the clock runs while it is `running`."""

    @property
    def cycle_started_ms(self) -> int | None:
        """The instant at which the clock last started to run; None while it is stopped."""

    @property
    def time_used_ms(self) -> int | None:
        """The session's settled running time; None in modes that do not count it."""


def clock_of(
    session: ClockInputs, budget_ms: int | None, *, overtime: bool, now_ms: int, control: RunningControl | None = None
) -> dict[str, Any]:
    """Return the clock of a settled budget at `now_ms` (docs/protocol.md).

    budget_ms: None if nothing runs out. control: if the budget's owner has a time control.
    """
    traits = MODES[session.sync_mode]
    started_ms = session.cycle_started_ms if session.status == "running" else None
    elapsed_ms = 0 if started_ms is None else max(0, now_ms - started_ms)
    remaining_ms = None if budget_ms is None else budget_ms - elapsed_ms
    if remaining_ms is not None and not overtime:
        # Negative between the deadline and the commit that applies the timeout.
        remaining_ms = max(0, remaining_ms)
    clock = {
        "scope": traits.scope,
        "direction": "up" if traits.counts_up else "down",
        "running": started_ms is not None,
        "remaining_ms": remaining_ms,
        "elapsed_ms": elapsed_ms + (session.time_used_ms or 0) if traits.counts_up else elapsed_ms,
        "deadline_ms": None if started_ms is None or budget_ms is None else started_ms + budget_ms,
    }
    return clock | control.shown(now_ms) if control else clock

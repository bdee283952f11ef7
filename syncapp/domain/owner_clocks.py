"""The clock of every participant and group of a session, computed for an instant."""

from __future__ import annotations

from typing import Any

from syncapp.domain.modes import MODES
from syncapp.domain.session import Session


def clocks(session: Session, at_ms: int) -> dict[str, Any]:
    """Return what the clock of each participant, and of each group, showed at an instant, settled to it.

    remaining_ms is null where there is no budget of its own, and negative in overtime only.
    """
    started_ms = session.cycle_started_ms if session.status == "running" else None
    ran_ms = 0 if started_ms is None else max(0, at_ms - started_ms)
    definition, running = session.definition, None if started_ms is None else session.turn
    overtime = definition.action_on_timeout["type"] == "notify"

    def shown(used_ms: int, left_ms: int | None, runs: bool) -> dict[str, Any]:
        if left_ms is not None and runs:
            left_ms = left_ms - ran_ms if overtime else max(0, left_ms - ran_ms)
        return {"running": runs, "used_ms": used_ms + ran_ms if runs else used_ms, "remaining_ms": left_ms}

    own = MODES[session.sync_mode].has_participant_budgets
    found: dict[str, Any] = {
        "participants": [
            {"participant_id": name}
            | shown(person.time_used_ms, person.time_remaining_ms if own else None, place == running)
            for place, (name, person) in enumerate(zip(definition.participant_ids, session.participants, strict=True))
        ]
    }
    if session.groups:
        group = None if running is None else definition.group_of[running]
        found["groups"] = [
            {"group_id": name} | shown(each.time_used_ms, each.time_remaining_ms, place == group)
            for place, (name, each) in enumerate(zip(definition.group_ids, session.groups, strict=True))
        ]
    return found

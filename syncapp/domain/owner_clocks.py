"""The clocks of all participants and groups of a session, computed for an instant."""

from __future__ import annotations

from typing import Any

from syncapp.domain.modes import MODES
from syncapp.domain.session import Session


def clocks(session: Session, at_ms: int) -> dict[str, Any]:
    """Return the clocks of all participants and groups at an instant up to which the session is settled.

    remaining_ms is None for an owner without a budget, and negative only in overtime.
    """
    started_ms = session.cycle_started_ms if session.status == "running" else None
    ran_ms = 0 if started_ms is None else max(0, at_ms - started_ms)
    definition, running = session.definition, None if started_ms is None else session.turn
    overtime = definition.action_on_timeout["type"] == "notify"

    def clock(used_ms: int, remaining_ms: int | None, is_running: bool) -> dict[str, Any]:
        if remaining_ms is not None and is_running:
            remaining_ms = remaining_ms - ran_ms if overtime else max(0, remaining_ms - ran_ms)
        used_ms += ran_ms if is_running else 0
        return {"running": is_running, "used_ms": used_ms, "remaining_ms": remaining_ms}

    has_budgets = MODES[session.sync_mode].has_participant_budgets
    result: dict[str, Any] = {
        "participants": [
            {"participant_id": name}
            | clock(each.time_used_ms, each.time_remaining_ms if has_budgets else None, index == running)
            for index, (name, each) in enumerate(zip(definition.participant_ids, session.participants, strict=True))
        ]
    }
    if session.groups:
        group = None if running is None else definition.group_of[running]
        result["groups"] = [
            {"group_id": name} | clock(each.time_used_ms, each.time_remaining_ms, index == group)
            for index, (name, each) in enumerate(zip(definition.group_ids, session.groups, strict=True))
        ]
    return result

"""The clocks of all participants and groups of a session, computed for an instant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from syncapp.domain.modes import MODES
from syncapp.domain.records import Group, Participant
from syncapp.domain.session import Session


def clocks(session: Session, at_ms: int) -> dict[str, Any]:
    """Return the clocks of all participants and groups at an instant up to which the session is settled.

    remaining_ms is None for an owner without a budget, and negative only in overtime and within a margin. With time
    controls, a clock also has `period_remaining_ms`, None unless a period or block runs or would run.
    """
    started_ms = session.cycle_started_ms if session.status == "running" else None
    ran_ms = 0 if started_ms is None else max(0, at_ms - started_ms)
    definition, running = session.definition, None if started_ms is None else session.turn
    overtime = definition.action_on_timeout["type"] == "notify"
    live = _live_clocks(session, at_ms)

    def clock(owner: Participant | Group, index: int, *, is_running: bool, has_budget: bool) -> dict[str, Any]:
        remaining_ms = owner.time_remaining_ms if has_budget else None
        if remaining_ms is not None and is_running:
            remaining_ms = remaining_ms - ran_ms if overtime else max(0, remaining_ms - ran_ms)
        used_ms = owner.time_used_ms + (ran_ms if is_running else 0)
        document = {"running": is_running, "used_ms": used_ms, "remaining_ms": remaining_ms}
        return document | live[index] if live and has_budget else document

    has_budgets = MODES[session.sync_mode].has_participant_budgets
    result: dict[str, Any] = {
        "participants": [
            {"participant_id": name} | clock(each, index, is_running=index == running, has_budget=has_budgets)
            for index, (name, each) in enumerate(zip(definition.participant_ids, session.participants, strict=True))
        ]
    }
    if session.groups:
        group = None if running is None else definition.group_of[running]
        result["groups"] = [
            {"group_id": name} | clock(each, index, is_running=index == group, has_budget=True)
            for index, (name, each) in enumerate(zip(definition.group_ids, session.groups, strict=True))
        ]
    return result


def _live_clocks(session: Session, at_ms: int) -> list[dict[str, Any]]:
    """Return the remaining main time and period of each owner with a time control at an instant."""
    control = session.running_control()
    if control is None:
        return []
    owners: Sequence[Group | Participant] = session.groups or session.participants
    live = [
        {
            "remaining_ms": owner.time_remaining_ms,
            "period_remaining_ms": clock.period_ms if clock.overtime else None,
        }
        for owner, clock in zip(owners, session.clocks, strict=True)
    ]
    if control.started_ms is None:
        return live
    index = session.definition.group_of[session.turn or 0] if session.groups else session.turn or 0
    shown = control.shown(at_ms)
    left_ms = control.left_at(at_ms)
    gained_ms = owners[index].time_remaining_ms - left_ms if control.stage.hourglass else 0
    live[index] = {
        "remaining_ms": shown["remaining_ms"],
        "period_remaining_ms": left_ms if control.clock.overtime else None,
    }
    others = [each for number, each in enumerate(live) if number != index]
    for place, each in enumerate(others):
        each["remaining_ms"] = (each["remaining_ms"] or 0) + (gained_ms + place) // len(others)
    return live

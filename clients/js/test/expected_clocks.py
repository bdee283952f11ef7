"""What the server says that clocks show, with the members of the client's `Reading`."""  # noqa: INP001  # a folder of the JavaScript package

from __future__ import annotations

from typing import Any

from syncapp.domain.owner_clocks import clocks
from syncapp.domain.session import LIVE, Session

Document = dict[str, Any]
Step = tuple[Document, Session]
"""An event, and the session after it."""
FOREVER_MS = 10**15
BOUNDARIES = ("period_started", "period_lost", "block_started")
TIMEOUTS = ("participant_expired", "group_expired", "cycle_timed_out", "session_expired")


def owners_of(session: Session) -> list[str]:
    """Return '' and the ids of participants and groups, of many only some, and one that is unknown."""
    definition = session.definition
    return ["", *definition.participant_ids[:4], *definition.group_ids[:3], "nobody"]


def end_of(session: Session) -> int:
    """Return the instant (ms) at which the running clock stands, because the time is used up."""
    deadline_ms = session.clock(session.updated_ms)["deadline_ms"]
    notifies = session.definition.action_on_timeout["type"] == "notify"
    return FOREVER_MS if notifies or deadline_ms is None else deadline_ms


def boundary_of(session: Session) -> int:
    """Return the instant (ms) of the next boundary of a period or block."""
    control = session.running_control()
    if control is None or control.started_ms is None or control.has_expired:
        return FOREVER_MS
    stage, clock = control.stage, control.clock
    if not stage.period_ms or (clock.overtime and not (stage.periods and clock.count > 1)):
        return FOREVER_MS
    return int(control.shown(control.started_ms)["next_at_ms"])


def holder_of(session: Session, owner: str) -> tuple[str, int] | None:
    """Return whose budget an owner has: the list and the place in it; the list is '' if all share one budget."""
    definition = session.definition
    mover = session.turn or 0
    if owner in definition.group_index:
        return "groups", definition.group_index[owner]
    if owner and owner not in definition.index:
        return None
    place = definition.index[owner] if owner else mover
    if session.groups:
        return "groups", definition.group_of[place]
    return ("participants", place) if session.sync_mode == "per_participant" else ("", 0)


def reading(session: Session, at_ms: int, owner: str, *, is_over: bool = False) -> Document | None:
    """Return what an owner's clock shows at an instant, with the members of the client's `Reading`.

    is_over: the time was used up at that instant. Before a commit that waits for lag, clocks stand at what is due.
    """
    holder = holder_of(session, owner)
    if holder is None:
        return None
    kind, place = holder
    until_ms = min(at_ms, end_of(session))
    shown_ms = min(until_ms, boundary_of(session))
    clock, live = session.clock(shown_ms), clocks(session, shown_ms)
    mover = holder_of(session, "")
    hourglass = bool(session.clocks and session.definition.controls[0].stages[0].hourglass)
    changes = session.status == "running" and (holder == mover or hourglass)
    found = {
        "ms": live[kind][place]["remaining_ms"] if kind else clock["remaining_ms"],
        "running": changes and not is_over and at_ms < end_of(session),
        "usedMs": used_ms(session, until_ms, owner),
    }
    found |= {"phase": "main", "delayMs": 0, "periodsLeft": None, "blockMovesLeft": None}
    if not session.clocks:
        return found
    own, shown = session.clocks[place], session.state(shown_ms)[kind][place]
    stage = session.definition.controls[place].stages[own.stage - 1]
    found |= {"periodsLeft": shown["periods_left"], "blockMovesLeft": shown["block_moves_left"]}
    if own.overtime:
        return found | {"ms": live[kind][place]["period_remaining_ms"], "phase": "period" if stage.periods else "block"}
    delay_ms = max(0, (stage.delay_ms or 0) - own.turn_ms) if stage.delay == "simple" else 0
    if holder == mover:
        delay_ms = clock["phase_remaining_ms"] if clock["phase"] == "delay" else 0
    return found | {"phase": "delay" if delay_ms else "main", "delayMs": delay_ms}


def used_ms(session: Session, at_ms: int, owner: str) -> int:
    """Return the time that an owner, or for '' the session, has used until an instant."""
    live = clocks(session, at_ms)
    for kind, name in (("participants", "participant_id"), ("groups", "group_id")):
        for each in live.get(kind, []):
            if each[name] == owner:
                return int(each["used_ms"])
    if session.time_used_ms is None:
        return sum(each["used_ms"] for each in live["participants"])
    ran_ms = at_ms - session.cycle_started_ms if session.status == "running" and session.cycle_started_ms else 0
    return session.time_used_ms + max(0, ran_ms)


def case(session: Session, at_ms: int, told_ms: int | None, *, is_over: bool = False) -> Document:
    """Return a case: what the client shall say at told_ms, which is what the server says at at_ms."""
    readings = {owner: reading(session, at_ms, owner, is_over=is_over) for owner in owners_of(session)}
    if session.status not in LIVE and not is_over and not any(each.turn_ms for each in session.clocks):
        # The state does not say whose clock the finished session's is.
        readings[""] = {
            name: value for name, value in (readings[""] or {}).items() if name in ("ms", "running", "usedMs")
        }
    elapsed_ms = session.clock(min(at_ms, end_of(session)))["elapsed_ms"]
    if told_ms is None and session.status == "running":
        readings = {owner: found if found and not found["running"] else None for owner, found in readings.items()}
        elapsed_ms = None
        if session.sync_mode not in ("per_participant", "per_group"):
            readings = dict.fromkeys(readings)
    return {"at_ms": told_ms, "readings": readings, "elapsed_ms": elapsed_ms}


def later(session: Session, steps: list[Step], at_ms: int) -> tuple[str, Document | None]:
    """Return what a client shall say at at_ms that has a session before these steps; None if it cannot know.

    Before it, what has happened: 'boundary', 'end', 'wait' (for a move that may be on its way) or ''.
    """
    happened = ""
    for event, after in steps:
        control = session.running_control()
        lag_ms = control.clock.lag_left_ms if control and event["type"] in (*BOUNDARIES, *TIMEOUTS) else 0
        if event["at_ms"] + lag_ms > at_ms:
            return "", None  # a command has ended the wait
        if event["type"] in TIMEOUTS and after.definition.action_on_timeout["type"] != "notify":
            flag = case(session, event["at_ms"], at_ms, is_over=True)
            if after.status != "expired":
                return "end", flag
            said = case(after, at_ms, at_ms, is_over=True)
            return "end", said if after.sync_mode == "count_up" else said | {"elapsed_ms": flag["elapsed_ms"]}
        if event["type"] not in (*BOUNDARIES, *TIMEOUTS, "time_warning"):
            return "", None
        happened = "boundary" if event["type"] in BOUNDARIES else happened
        session = after
    waits = session.status == "running" and at_ms >= min(boundary_of(session), end_of(session))
    return "wait" if waits else happened, case(session, at_ms, at_ms)

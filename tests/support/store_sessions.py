"""Create sessions in a store, and read their states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from syncapp.domain.results import Result
from syncapp.domain.schemas import CreateSession
from syncapp.store.sessions import SessionStore
from tests.support.store import NOON_MS, outbox_messages
from tests.support.types import Redis

NOTIFY, SKIP, END = ({"type": kind} for kind in ("notify", "skip_cycle", "end_session"))
BUDGETS = {"per_cycle": "time_per_cycle_ms", "global": "total_time_ms", "count_up": "max_time_ms"}
MODES = ("per_participant", "per_cycle", "per_group", "global", "count_up")
TIMEOUTS = {
    "per_participant": "participant_expired",
    "per_cycle": "cycle_timed_out",
    "per_group": "group_expired",
    "global": "session_expired",
    "count_up": "session_expired",
}


def session_body(
    mode: str = "per_participant", budget_ms: int = 10_000, people: str = "ab", **more: Any
) -> dict[str, Any]:
    """Return the body of a session of participants named by letters; in per_group each is its own group by default."""
    found: list[dict[str, Any]] = [{"participant_id": name} for name in people]
    if mode == "per_participant":
        found = [person | {"total_time_ms": budget_ms} for person in found]
    if mode == "per_group":
        found = [
            person | {"total_time_ms": budget_ms, "group_id": person["participant_id"].upper()} for person in found
        ]
    own = {BUDGETS[mode]: budget_ms} if mode in BUDGETS else {}
    return {"sync_mode": mode, "participants": found} | own | more


def team_body(groups: dict[str, str], budget_ms: int = 10_000, **more: Any) -> dict[str, Any]:
    """Return the body of a session of groups; members are named by letters, and rotate alphabetically."""
    owner = {member: group for group, members in groups.items() for member in members}
    return {
        "sync_mode": "per_group",
        "participants": [{"participant_id": name, "group_id": owner[name]} for name in sorted(owner)],
        "groups": [{"group_id": group, "total_time_ms": budget_ms} for group in groups],
    } | more


def controlled_body(control: str | dict[str, Any], people: Sequence[str] = "ab", **more: Any) -> dict[str, Any]:
    """Return the body of a session of these participants with one time control, a notation or a document."""
    participants = [{"participant_id": name} for name in people]
    return {"sync_mode": "per_participant", "participants": participants, "time_control": control} | more


def create_pending(store: SessionStore, *args: Any, **more: Any) -> str:
    document = args[0] if args and isinstance(args[0], dict) else session_body(*args, **more)
    return store.create(CreateSession.parse(document)).found.session_id


def create_running(store: SessionStore, *args: Any, **more: Any) -> str:
    session_id = create_pending(store, *args, **more)
    store.start(session_id)
    return session_id


def state_of(found: Result) -> dict[str, Any]:
    return found.found.state(found.now_ms)


def current_state(store: SessionStore, session_id: str) -> dict[str, Any]:
    return state_of(store.get(session_id))


def remaining_ms(shown: dict[str, Any]) -> list[int]:
    """Return the remaining time of each group, or of each participant."""
    holders = shown.get("groups") or shown["participants"]
    return [holder["time_remaining_ms"] for holder in holders]


def expired_ids(shown: dict[str, Any]) -> list[str]:
    return [person["participant_id"] for person in shown["participants"] if person["has_expired"]]


def events_since_start(client: Redis, session_id: str) -> list[dict[str, Any]]:
    """Return the events after the start; instants count from NOON_MS, and echoed fields are left out."""
    found = [message["event"] for message in outbox_messages(client, session_id)]
    kept = found[1 + [event["type"] for event in found].index("session_started") :]
    return [
        {name: value for name, value in event.items() if name not in ("at_ms", "action_on_timeout")}
        | {"at": event["at_ms"] - NOON_MS}
        for event in kept
    ]


def event_instants(client: Redis, session_id: str) -> list[tuple[str, int]]:
    """Return types and instants of the events after the start."""
    return [(event["type"], event["at"]) for event in events_since_start(client, session_id)]

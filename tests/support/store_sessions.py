"""Sessions in a store: bodies to make them of, and what they show."""

from __future__ import annotations

from typing import Any

from syncapp.domain.results import Result
from syncapp.domain.schemas import CreateSession
from syncapp.store.sessions import SessionStore
from tests.support.store import NOON_MS, messages
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


def body(mode: str = "per_participant", budget_ms: int = 10_000, people: str = "ab", **more: Any) -> dict[str, Any]:
    """A session of participants named by letters; in per_group each is a group of its own, but for `more`."""
    found: list[dict[str, Any]] = [{"participant_id": name} for name in people]
    if mode == "per_participant":
        found = [person | {"total_time_ms": budget_ms} for person in found]
    if mode == "per_group":
        found = [
            person | {"total_time_ms": budget_ms, "group_id": person["participant_id"].upper()} for person in found
        ]
    own = {BUDGETS[mode]: budget_ms} if mode in BUDGETS else {}
    return {"sync_mode": mode, "participants": found} | own | more


def teams(groups: dict[str, str], budget_ms: int = 10_000, **more: Any) -> dict[str, Any]:
    """Groups with a budget each, and their members named by letters; the rotation is that of the alphabet."""
    owner = {member: group for group, members in groups.items() for member in members}
    return {
        "sync_mode": "per_group",
        "participants": [{"participant_id": name, "group_id": owner[name]} for name in sorted(owner)],
        "groups": [{"group_id": group, "total_time_ms": budget_ms} for group in groups],
    } | more


def pending(store: SessionStore, *args: Any, **more: Any) -> str:
    document = args[0] if args and isinstance(args[0], dict) else body(*args, **more)
    return store.create(CreateSession.parse(document)).found.session_id


def running(store: SessionStore, *args: Any, **more: Any) -> str:
    session_id = pending(store, *args, **more)
    store.start(session_id)
    return session_id


def state(found: Result) -> dict[str, Any]:
    return found.found.state(found.now_ms)


def now(store: SessionStore, session_id: str) -> dict[str, Any]:
    return state(store.get(session_id))


def left(shown: dict[str, Any]) -> list[int]:
    """What each participant, or each group, has left."""
    holders = shown.get("groups") or shown["participants"]
    return [holder["time_remaining_ms"] for holder in holders]


def expired(shown: dict[str, Any]) -> list[str]:
    return [person["participant_id"] for person in shown["participants"] if person["has_expired"]]


def events(client: Redis, session_id: str) -> list[dict[str, Any]]:
    """What happened after the start; instants count from noon, and what is echoed is left out."""
    found = [message["event"] for message in messages(client, session_id)]
    kept = found[1 + [event["type"] for event in found].index("session_started") :]
    return [
        {name: value for name, value in event.items() if name not in ("at_ms", "action_on_timeout")}
        | {"at": event["at_ms"] - NOON_MS}
        for event in kept
    ]


def told(client: Redis, session_id: str) -> list[tuple[str, int]]:
    """Types and instants of what happened after the start."""
    return [(event["type"], event["at"]) for event in events(client, session_id)]

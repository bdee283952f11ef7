"""Stores whose clock the test sets, and their contents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
import redis as redis_py

from syncapp.config import Settings
from syncapp.dev.set_clock import NOON_MS, PARTIALS, ManualClock
from syncapp.domain.private_parts import revealed_message, split_entry, values_of
from syncapp.domain.schemas import CreateSession
from syncapp.store.client import connect
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from tests.support.web_clients import wait_until

__all__ = [
    "NOON_MS",
    "PARTIALS",
    "ManualClock",
    "chess_request",
    "crowd_request",
    "dump_session",
    "make_settings",
    "make_store",
    "memory_used",
    "outbox_messages",
    "published",
]


def make_settings(redis_url: str, **changes: Any) -> Settings:
    return Settings(redis_url=redis_url, **changes)


def make_store(
    redis_url: str, *, set_clock: bool = True, on_nudge: Callable[[int], None] = lambda bucket: None, **changes: Any
) -> SessionStore:
    # No test of the rules fails because a machine stood still. Tests of faults have a clock that runs.
    chosen = make_settings(redis_url, **({"redis_timeout_s": 60.0} if set_clock else {}) | changes)
    return SessionStore(connect(chosen), chosen, on_nudge=on_nudge, partials=PARTIALS if set_clock else None)


def memory_used(client: redis_py.Redis) -> int:
    """Return the bytes that a server uses, after it has freed in the background what was flushed."""
    info: Any = {}

    def is_freed() -> bool:
        nonlocal info
        info = client.info("memory")
        return bool(info["lazyfree_pending_objects"] == 0)

    wait_until(is_freed)
    return int(info["used_memory"])


def chess_request(budget_ms: int = 300_000, **more: Any) -> CreateSession:
    """A create request for two participants, white and black."""
    people = [{"participant_id": name, "total_time_ms": budget_ms} for name in ("white", "black")]
    return CreateSession.parse({"sync_mode": "per_participant", "participants": people, **more})


def crowd_request(count: int, budget_ms: int = 300_000, **more: Any) -> CreateSession:
    """A create request for participants p0, p1, …"""
    people = [{"participant_id": f"p{i}", "total_time_ms": budget_ms} for i in range(count)]
    return CreateSession.parse({"sync_mode": "per_participant", "participants": people, **more})


def dump_session(client: redis_py.Redis, session_id: str) -> dict[bytes, object]:
    """Return all that Redis holds of a session: keys, deadline, position in the list, its bucket's outbox."""
    keyspace = Keyspace()
    bucket = keyspace.bucket(session_id)
    found: dict[bytes, object] = {}
    for key in sorted(client.scan_iter(match=f"*{session_id}*")):
        # DUMP returns a hash's fields in no fixed order, so compare the fields.
        held = client.hgetall(key) if client.type(key) == b"hash" else client.get(key)
        found[key] = (held, client.pexpiretime(key))
    found[b"deadline"] = client.zscore(keyspace.deadlines(bucket), session_id)
    found[b"listed"] = client.zscore(keyspace.listed(bucket), session_id)
    found[b"outbox"] = client.xrange(keyspace.outbox(bucket))
    return found


def published(entry: bytes) -> dict[str, Any]:
    """Return the message of an outbox entry, with its private parts."""
    message, parts = split_entry(entry)
    return dict(revealed_message(orjson.loads(message), values_of(orjson.loads(parts) if parts else None)))


def outbox_messages(client: redis_py.Redis, session_id: str) -> list[dict[str, Any]]:
    """Return the messages of one session in the outbox, in order, with their private parts."""
    entries: list[Any] = client.xrange(Keyspace().outbox(Keyspace().bucket(session_id)))  # type: ignore[assignment]  # its types cover every protocol
    decoded = [published(fields[b"message"]) for _, fields in entries]
    return [message for message in decoded if message["session_id"] == session_id]

"""Sweepers, and sessions for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis as redis_py
from prometheus_client import REGISTRY

from syncapp.domain.schemas import CreateSession
from syncapp.store.client import connect
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from syncapp.store.sweeper import Sweeper
from tests.support.store import PARTIALS, chess_request, make_settings, outbox_messages

KEYS = Keyspace()
ONE_SWEEPER = """
from syncapp.config import Settings
from syncapp.store.client import connect
from syncapp.store.sessions import SessionStore
from syncapp.store.sweeper import Sweeper

settings = Settings.from_env()
client = connect(settings)
Sweeper(client, SessionStore(client, settings), buckets=settings.sync_buckets).run()
"""


def make_sweeper(redis_url: str, *, set_clock: bool = True, buckets: int = KEYS.buckets, **store: Any) -> Sweeper:
    chosen = make_settings(redis_url, sync_buckets=buckets, redis_timeout_s=1.0)
    client = connect(chosen)
    partials = PARTIALS if set_clock else None
    return Sweeper(client, SessionStore(client, chosen, partials=partials, **store), buckets=buckets)


def endless_rounds(budget_ms: int = 1000, **more: Any) -> CreateSession:
    """A create request without participants, whose cycles follow each other without commands."""
    return CreateSession.parse({"sync_mode": "per_cycle", "participants": [], "time_per_cycle_ms": budget_ms, **more})


def start_session(store: SessionStore, new: CreateSession | None = None) -> str:
    session_id = store.create(new or chess_request()).found.session_id
    store.start(session_id)
    return session_id


def event_instants(client: redis_py.Redis, session_id: str) -> list[tuple[str, int]]:
    """Types and instants of a session's events after its start."""
    return [(found["event"]["type"], found["event"]["at_ms"]) for found in outbox_messages(client, session_id)[2:]]


def stored_deadline(client: redis_py.Redis, session_id: str) -> float | None:
    """Return a session's entry in the deadlines (ms)."""
    score: float | None = client.zscore(KEYS.deadlines(KEYS.bucket(session_id)), session_id)
    return score


def metric_sample(name: str) -> float:
    return REGISTRY.get_sample_value(name) or 0.0


@contextmanager
def running_sweepers(*sweepers: Sweeper) -> Iterator[None]:
    for each in sweepers:
        each.start()
    try:
        yield
    finally:
        for each in sweepers:
            each.stop()

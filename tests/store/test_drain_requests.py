"""Commits request a drain, at most about twice a second for each bucket."""

from __future__ import annotations

from syncapp.domain.schemas import CreateSession
from syncapp.store.keys import Keyspace
from tests.support.store import ManualClock, chess_request, make_store
from tests.support.types import Redis


def test_a_commit_asks_for_a_drain_at_most_once_a_second_and_bucket(redis_url: str, clock: ManualClock) -> None:
    nudged: list[int] = []
    store = make_store(redis_url)
    store._runner._on_nudge = nudged.append
    session_id = store.create(chess_request()).found.session_id
    store.start(session_id)
    for _ in range(20):
        store.switch(session_id)
    assert nudged == [Keyspace().bucket(session_id)]


def test_what_is_applied_in_many_calls_is_drained_too(redis_url: str, clock: ManualClock) -> None:
    nudged: list[int] = []
    store = make_store(redis_url, on_nudge=nudged.append)
    session_id = store.create(
        CreateSession.parse({"sync_mode": "per_cycle", "time_per_cycle_ms": 1000})
    ).found.session_id
    store.start(session_id)
    nudged.clear()
    clock.advance_ms(100_000)
    Redis.from_url(redis_url).delete(Keyspace().nudge(Keyspace().bucket(session_id)))
    store.get(session_id)
    assert nudged == [Keyspace().bucket(session_id)]

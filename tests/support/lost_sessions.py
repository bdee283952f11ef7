"""Sessions that Redis loses, or restores from an old copy."""

from __future__ import annotations

from typing import Any

import redis as redis_py

from syncapp.store.sessions import SessionStore
from tests.support.outboxes import KEYS
from tests.support.store import ManualClock, chess_request

ID = "3e1f8e1a-3f44-4c55-9d0b-0f6f2b8f5a10"


def lose_session(client: redis_py.Redis, session_id: str = ID) -> None:
    client.delete(KEYS.session(session_id))
    client.zrem(KEYS.deadlines(KEYS.bucket(session_id)), session_id)


def dump_hash(client: redis_py.Redis, session_id: str = ID) -> bytes:
    """Return a copy of a session's hash, to restore it later."""
    found: Any = client.dump(KEYS.session(session_id))
    return bytes(found)


def restore_hash(client: redis_py.Redis, file: bytes, session_id: str = ID) -> None:
    client.restore(KEYS.session(session_id), 0, file, replace=True)


def start_game(store: SessionStore, clock: ManualClock, **more: Any) -> None:
    """Start a game in which white has 50 s left and has been thinking for 2 s."""
    store.create(chess_request(60_000, session_id=ID, increment_ms=0, **more))
    store.start(ID)
    clock.advance_ms(10_000)
    store.switch(ID)
    clock.advance_ms(5_000)
    store.switch(ID)
    clock.advance_ms(2_000)
    store.update(ID, {"round": 1})

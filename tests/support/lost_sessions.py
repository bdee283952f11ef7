"""Sessions that Redis loses, or gets back from an old copy."""

from __future__ import annotations

from typing import Any

import redis as redis_py

from syncapp.store.sessions import SessionStore
from tests.support.outboxes import KEYS
from tests.support.store import SetClock, chess

ID = "3e1f8e1a-3f44-4c55-9d0b-0f6f2b8f5a10"


def lose(client: redis_py.Redis, session_id: str = ID) -> None:
    client.delete(KEYS.session(session_id))
    client.zrem(KEYS.deadlines(KEYS.bucket(session_id)), session_id)


def dumped(client: redis_py.Redis, session_id: str = ID) -> bytes:
    """A session's hash as it would be in a file: to be put back later."""
    found: Any = client.dump(KEYS.session(session_id))
    return bytes(found)


def roll_back(client: redis_py.Redis, file: bytes, session_id: str = ID) -> None:
    client.restore(KEYS.session(session_id), 0, file, replace=True)


def playing(store: SessionStore, clock: SetClock, **more: Any) -> None:
    """White has 50 s left and is at it for 2 s."""
    store.create(chess(60_000, session_id=ID, increment_ms=0, **more))
    store.start(ID)
    clock.pass_ms(10_000)
    store.switch(ID)
    clock.pass_ms(5_000)
    store.switch(ID)
    clock.pass_ms(2_000)
    store.update(ID, {"round": 1})

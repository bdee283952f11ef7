"""Make events, and count them in the outboxes and in the log."""

from __future__ import annotations

import redis as redis_py

from syncapp.store.keys import Keyspace
from tests.support.store import chess_request, make_store
from tests.support.types import Db

KEYS = Keyspace()


def count_rows(db: Db, query: str = "SELECT count(*) FROM sync_events") -> int:
    with db.cursor() as cursor:
        cursor.execute(query)
        ((count,),) = cursor.fetchall()
        return int(count)


def commit_events(redis_url: str, sessions: int, switches: int) -> int:
    """Create, start and switch sessions, one after another; return how many commits that makes."""
    store = make_store(redis_url, set_clock=False)
    for _ in range(sessions):
        session_id = store.create(chess_request(3_600_000)).found.session_id
        store.start(session_id)
        for _ in range(switches):
            store.switch(session_id)
    return sessions * (2 + switches)


def entries_left(client: redis_py.Redis) -> int:
    return sum(client.xlen(KEYS.outbox(bucket)) for bucket in range(KEYS.buckets))

"""Sessions in the list, and its upkeep."""

from __future__ import annotations

from typing import Any

from syncapp.store.keys import SENTINEL, Keyspace
from syncapp.store.list_query import SessionsQuery
from syncapp.store.list_upkeep import ListUpkeep
from syncapp.store.session_list import SessionList
from syncapp.store.sessions import SessionStore
from tests.support.store import ManualClock, chess_request
from tests.support.types import Redis

KEYS = Keyspace()
LISTS = [KEYS.listed(bucket) for bucket in range(KEYS.buckets)]


def finish_upkeep(upkeep: ListUpkeep, *, held: bool = True) -> None:
    """Run the upkeep until nothing is left to do."""
    for _ in range(10_000):
        upkeep.step(held=held)
        if upkeep._work is None:
            upkeep.step(held=held)
            if upkeep._work is None:
                return
    raise AssertionError("the upkeep never ends")


def listed_ids(live: SessionList, **asked: Any) -> list[str]:
    """Read all pages; return the ids in order."""
    found: list[str] = []
    cursor = None
    for _ in range(10_000):
        given = asked | ({"cursor": [cursor]} if cursor else {})
        page = live.page(SessionsQuery.from_args(given))
        assert len(page.sessions) <= int(asked.get("limit", ["50"])[0])
        found += [each.session_id for each in page.sessions]
        cursor = page.next_cursor
        if cursor is None:
            return found
    raise AssertionError("the pages never end")


def ids_in_redis(client: Redis) -> set[str]:
    found: set[str] = set()
    for key in LISTS:
        members: Any = client.zrange(key, 0, -1)
        found |= {name.decode() for name in members} - {SENTINEL}
    return found


def create_listed(store: SessionStore, clock: ManualClock, count: int, every: int = 1, **more: Any) -> list[str]:
    """Create sessions, `every` of them per instant; return their ids in the order of the list."""
    found = []
    for number in range(count):
        clock.advance_ms(1 if number % every == 0 else 0)
        found.append((clock.now_ms, store.create(chess_request(**more)).found.session_id))
    return [session_id for _, session_id in sorted(found, reverse=True)]

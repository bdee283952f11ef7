"""Lists the sessions that the store holds, the newest first.

Each bucket has a sorted set of its sessions by the instant they were created at. A page merges these sets, reads what a
filter needs of each session, and then summaries of those that fit. One request looks at `MOST_LOOKED_AT` sessions at
most: a page may be shorter than asked for, or empty, and its cursor goes on from there. No step takes more than one
round trip, and none of its commands more than a moment of the server's time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import orjson
import redis

from syncapp.domain.summary import Summary, status_of
from syncapp.store.client import TRANSLATION
from syncapp.store.connection_pool import packed, pool_of
from syncapp.store.keys import COMPLETE, SENTINEL, Keyspace
from syncapp.store.list_query import SessionsQuery
from syncapp.store.sessions import SessionStore

MOST_LOOKED_AT = 1000
"""Sessions that one request looks at."""
_AT_ONCE = 250  # sessions that one round trip reads for a filter
_OF_A_BUCKET = 8  # ids that one round trip reads of each bucket, at least

Place = tuple[int, str]
"""(created, in ms; session id): a later place comes first."""


@dataclass(frozen=True, slots=True)
class ListPage:
    """A page; now_ms: the server's time its clocks are shown at. next_cursor: None when nothing is left.

    complete: whether the lists were known to have every session.
    """

    sessions: list[Summary]
    next_cursor: str | None
    now_ms: int
    complete: bool


@dataclass(slots=True)
class _Shelf:
    """What is read of one bucket's set, and where to go on: before a place, and how many ids at a time.

    complete: whether the set's sentinel says that it has every session; None before that was read.
    """

    key: str
    before: Place | None
    at_once: int
    ready: deque[Place] = field(default_factory=deque)
    more: bool = True
    complete: bool | None = None

    def take(self, flat: Sequence[str]) -> None:
        """Take a reply to `command`: ids of one instant may be more than were asked for."""
        places = [(int(float(at)), name) for name, at in zip(flat[::2], flat[1::2], strict=True) if name != SENTINEL]
        fresh = [place for place in places if self.before is None or place < self.before]
        self.more = len(flat) // 2 == self.at_once
        self.ready.extend(fresh)
        if fresh:
            self.before = fresh[-1]
        else:
            self.at_once *= 2

    def command(self) -> bytes:
        """Return the command that reads on."""
        start = "(+inf" if self.before is None else self.before[0]
        return packed("ZRANGE", self.key, start, "-inf", "BYSCORE", "REV", "LIMIT", 0, self.at_once, "WITHSCORES")


class SessionList:
    """Answers from the store; every method raises `StoreUnavailable` when it does not answer."""

    def __init__(self, client: redis.Redis, keys: Keyspace, store: SessionStore) -> None:
        self._pool = pool_of(client)
        self._keys = keys
        self._store = store

    def page(self, asked: SessionsQuery) -> ListPage:
        """Return the sessions that fit, newest first."""
        found: list[Summary] = []
        looked_at, last, now_ms = 0, asked.before, 0
        at_once = _AT_ONCE if asked.filters else asked.limit
        shelves = self._shelves(asked.before, at_once)
        places = self._places(shelves)

        def listed(next_cursor: str | None) -> ListPage:
            complete = all(shelf.complete for shelf in shelves)
            return ListPage(found, next_cursor, now_ms or self._store.time_ms(), complete)

        while looked_at < MOST_LOOKED_AT:
            batch = list(islice(places, min(at_once, MOST_LOOKED_AT - looked_at)))
            if not batch:
                return listed(None)
            fitting = self._fitting(batch, asked) if asked.filters else batch
            for first in range(0, len(fitting), asked.limit):
                some = fitting[first : first + asked.limit]
                summaries, now_ms = self._store.summaries([name for _, name in some])
                for place, each in zip(some, summaries, strict=True):
                    if each is None or not asked.matches(each.status, each.sync_mode, each.metadata):
                        continue
                    found.append(each)
                    if len(found) == asked.limit:
                        more = place != batch[-1] or next(places, None) is not None
                        return listed(_cursor(place) if more else None)
            looked_at, last = looked_at + len(batch), batch[-1]
        more = next(places, None) is not None
        return listed(_cursor(last) if last and more else None)

    def _shelves(self, before: Place | None, about: int) -> list[_Shelf]:
        """Return all buckets' sets, of which nothing was read; about: how many places will be asked for."""
        at_once = max(_OF_A_BUCKET, 2 * about // self._keys.buckets)
        return [_Shelf(self._keys.listed(bucket), before, at_once) for bucket in range(self._keys.buckets)]

    def _places(self, shelves: Sequence[_Shelf]) -> Iterator[Place]:
        """Yield the places of all buckets in order; a round trip reads on in all buckets that are nearly read up.

        The first one reads the sentinels, too, before the places: a set that becomes complete in between is not yet
        called so.
        """
        while True:
            while any(shelf.more and not shelf.ready for shelf in shelves):
                low = [shelf for shelf in shelves if shelf.more and 2 * len(shelf.ready) <= shelf.at_once]
                unmarked = [shelf for shelf in shelves if shelf.complete is None]
                marks = [packed("ZSCORE", shelf.key, SENTINEL) for shelf in unmarked]
                replies = self._call([*marks, *(shelf.command() for shelf in low)])
                for shelf, score in zip(unmarked, replies, strict=False):
                    shelf.complete = score is not None and float(score) == float(COMPLETE)
                for shelf, reply in zip(low, replies[len(unmarked) :], strict=True):
                    shelf.take(reply)
            full = [shelf for shelf in shelves if shelf.ready]
            if not full:
                return
            yield max(full, key=lambda shelf: shelf.ready[0]).ready.popleft()

    def _fitting(self, batch: Sequence[Place], asked: SessionsQuery) -> list[Place]:
        """Return the sessions that fit; of one that is due to change, its status is not known yet."""
        names = ["scalars", "metadata" if asked.metadata else "", f"index:{asked.participant_id or ''}"]
        looks = [packed("HMGET", self._keys.session(session_id), *names) for _, session_id in batch]
        (seconds, _), *replies = self._call([packed("TIME"), *looks])
        now_ms = (int(seconds) + 1) * 1000
        fitting = []
        for place, (scalars, metadata, index) in zip(batch, replies, strict=True):
            if scalars is None or (asked.participant_id and index is None):
                continue
            status, mode, look_ms = status_of(scalars)
            due = look_ms is not None and look_ms <= now_ms
            if asked.matches(None if due else status, mode, orjson.loads(metadata) if metadata else {}):
                fitting.append(place)
        return fitting

    def _call(self, commands: Sequence[bytes]) -> list[Any]:
        """Return the replies to commands, all in one round trip. Raises the first error among them."""
        with TRANSLATION:
            replies = self._pool.call(b"".join(commands), len(commands))
            for reply in replies:
                if isinstance(reply, Exception):
                    raise reply
        return replies


def _cursor(place: Place) -> str:
    return f"{place[0]}_{place[1]}"

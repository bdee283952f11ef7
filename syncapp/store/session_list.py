"""Lists the sessions in the store, newest first.

Each bucket has a sorted set of each tenant's sessions by the instant of their creation. A page merges a tenant's sets,
reads the fields of each session that the filters need, and then the summaries of the sessions that match. One request
examines at most `MAX_EXAMINED` sessions: a page may be shorter than its limit, or empty, and the next page continues
from its cursor. No step takes more than one round trip, and none of its commands blocks the server for long.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import orjson
import redis

from syncapp.domain.principal import DEFAULT_TENANT
from syncapp.domain.session_ids import public_id, qualified
from syncapp.domain.summary import Summary, status_of
from syncapp.store.client import call_all
from syncapp.store.connection_pool import packed, pool_of
from syncapp.store.keys import COMPLETE, SENTINEL, Keyspace
from syncapp.store.list_query import SessionsQuery
from syncapp.store.sessions import SessionStore

MAX_EXAMINED = 1000
"""Maximum number of sessions that one request examines."""
_BATCH = 250  # sessions that one round trip reads for filters
_MIN_PER_BUCKET = 8  # minimum ids of each bucket per round trip

Position = tuple[int, str]
"""(created in ms, qualified session id): the greatest position comes first."""


@dataclass(frozen=True, slots=True)
class ListPage:
    """A page; now_ms: the server's time of its clocks. next_cursor: None on the last page.

    complete: whether the sentinels showed that the lists have all sessions.
    """

    sessions: list[Summary]
    next_cursor: str | None
    now_ms: int
    complete: bool


@dataclass(slots=True)
class _BucketReader:
    """Reads one bucket's set in order: `batch` ids at a time, from before the last position that was read.

    sentinel_key: the set with the sentinel, which counts for all tenants' sets of the bucket. ready: positions that
    were read but not yet used. more: the set may have more. complete: whether the sentinel shows that the set has all
    sessions; None until it is read.
    """

    key: str
    sentinel_key: str
    before: Position | None
    batch: int
    ready: deque[Position] = field(default_factory=deque)
    more: bool = True
    complete: bool | None = None

    def accept(self, flat: Sequence[str]) -> None:
        """Process a reply to `command`. If more ids share an instant than a batch holds, double the next batch."""
        positions = [(int(float(at)), name) for name, at in zip(flat[::2], flat[1::2], strict=True) if name != SENTINEL]
        new = [position for position in positions if self.before is None or position < self.before]
        self.more = len(flat) // 2 == self.batch
        self.ready.extend(new)
        if new:
            self.before = new[-1]
        else:
            self.batch *= 2

    def command(self) -> bytes:
        """Return the command that reads the next batch."""
        start = "(+inf" if self.before is None else self.before[0]
        return packed("ZRANGE", self.key, start, "-inf", "BYSCORE", "REV", "LIMIT", 0, self.batch, "WITHSCORES")


class SessionList:
    """Lists sessions; every method raises `StoreUnavailable` if the store does not reply."""

    def __init__(self, client: redis.Redis, keys: Keyspace, store: SessionStore) -> None:
        self._pool = pool_of(client)
        self._keys = keys
        self._store = store

    def page(self, query: SessionsQuery, tenant: str = DEFAULT_TENANT) -> ListPage:
        """Return a page of a tenant's sessions that match, newest first."""
        matching: list[Summary] = []
        examined, last, now_ms = 0, _position(query, tenant), 0
        batch_size = _BATCH if query.filters else query.limit
        readers = self._readers(tenant, last, batch_size)
        positions = self._positions(readers)

        def to_page(next_cursor: str | None) -> ListPage:
            complete = all(reader.complete for reader in readers)
            return ListPage(matching, next_cursor, now_ms or self._store.time_ms(), complete)

        while examined < MAX_EXAMINED:
            batch = list(islice(positions, min(batch_size, MAX_EXAMINED - examined)))
            if not batch:
                return to_page(None)
            candidates = self._candidates(batch, query) if query.filters else batch
            for first in range(0, len(candidates), query.limit):
                chunk = candidates[first : first + query.limit]
                summaries, now_ms = self._store.summaries([name for _, name in chunk])
                for position, each in zip(chunk, summaries, strict=True):
                    if each is None or not query.matches(each.status, each.sync_mode, each.metadata):
                        continue
                    matching.append(each)
                    if len(matching) == query.limit:
                        more = position != batch[-1] or next(positions, None) is not None
                        return to_page(_cursor(position) if more else None)
            examined, last = examined + len(batch), batch[-1]
        more = next(positions, None) is not None
        return to_page(_cursor(last) if last and more else None)

    def _readers(self, tenant: str, before: Position | None, count: int) -> list[_BucketReader]:
        """Return a reader for each bucket's set; count: about how many positions will be needed."""
        self._store.require_buckets()
        batch = max(_MIN_PER_BUCKET, 2 * count // self._keys.buckets)
        return [
            _BucketReader(self._keys.listed(bucket, tenant), self._keys.listed(bucket), before, batch)
            for bucket in range(self._keys.buckets)
        ]

    def _positions(self, readers: Sequence[_BucketReader]) -> Iterator[Position]:
        """Yield the positions of all buckets in order. One round trip reads on in all buckets with few positions left.

        The first round trip also reads the sentinels, before the positions, so that a set that becomes complete in
        between does not count as complete.
        """
        while True:
            while any(reader.more and not reader.ready for reader in readers):
                running_low = [reader for reader in readers if reader.more and 2 * len(reader.ready) <= reader.batch]
                unmarked = [reader for reader in readers if reader.complete is None]
                marks = [packed("ZSCORE", reader.sentinel_key, SENTINEL) for reader in unmarked]
                replies = self._call([*marks, *(reader.command() for reader in running_low)])
                for reader, score in zip(unmarked, replies, strict=False):
                    reader.complete = score is not None and float(score) == float(COMPLETE)
                for reader, reply in zip(running_low, replies[len(unmarked) :], strict=True):
                    reader.accept(reply)
            nonempty = [reader for reader in readers if reader.ready]
            if not nonempty:
                return
            yield max(nonempty, key=lambda reader: reader.ready[0]).ready.popleft()

    def _candidates(self, batch: Sequence[Position], query: SessionsQuery) -> list[Position]:
        """Return the sessions that match. If one is due to change, its status is unknown, and does not count."""
        if query.id_prefix:
            batch = [each for each in batch if public_id(each[1]).startswith(query.id_prefix)]
        names = ["scalars", "metadata" if query.metadata else "", f"index:{query.participant_id or ''}"]
        reads = [packed("HMGET", self._keys.session(session_id), *names) for _, session_id in batch]
        (seconds, _), *replies = self._call([packed("TIME"), *reads])
        now_ms = (int(seconds) + 1) * 1000
        candidates = []
        for position, (scalars, metadata, index) in zip(batch, replies, strict=True):
            if scalars is None or (query.participant_id and index is None):
                continue
            status, mode, look_ms = status_of(scalars)
            due = look_ms is not None and look_ms <= now_ms
            if query.matches(None if due else status, mode, orjson.loads(metadata) if metadata else {}):
                candidates.append(position)
        return candidates

    def _call(self, commands: Sequence[bytes]) -> list[Any]:
        return call_all(self._pool, commands)


def _cursor(position: Position) -> str:
    return f"{position[0]}_{public_id(position[1])}"


def _position(query: SessionsQuery, tenant: str) -> Position | None:
    """Return the position of a query's cursor; None without one."""
    return query.before and (query.before[0], qualified(tenant, query.before[1]))

"""Corrects the number of live sessions of each tenant, from which creates are refused (lua/_quotas.lua).

A create adds one; nothing else counts, because sessions also end by themselves, and in commands of processes without
limits. So the sweeper counts the deadlines, which have all live sessions, and adds the difference: what is created
while it counts is not lost, but may count twice until the next time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import redis

from syncapp.domain.session_ids import tenant_of
from syncapp.store.client import call_all
from syncapp.store.connection_pool import packed, pool_of
from syncapp.store.keys import Keyspace

LIVE = "live:"


class LiveSessions:
    """One count at a time: `begin`, `add` all live sessions, `correct`."""

    def __init__(self, client: redis.Redis, keys: Keyspace) -> None:
        self._pool = pool_of(client)
        self._key = keys.tenants()
        self._counted: Counter[str] = Counter()
        self._before: Mapping[str, int] = {}

    def begin(self) -> None:
        """Begin to count. Raises `StoreUnavailable`."""
        self._counted.clear()
        (flat,) = self._call(packed("ZRANGE", self._key, 0, -1, "WITHSCORES"))
        self._before = {
            name.removeprefix(LIVE): int(float(number))
            for name, number in zip(flat[::2], flat[1::2], strict=True)
            if name.startswith(LIVE)
        }

    def add(self, session_ids: Iterable[str]) -> None:
        """Count live sessions."""
        self._counted.update(map(tenant_of, session_ids))

    def correct(self) -> None:
        """Correct the numbers of the tenants that have one. Raises `StoreUnavailable`."""
        wrong = {
            tenant: self._counted[tenant] - number
            for tenant, number in self._before.items()
            if self._counted[tenant] != number
        }
        if wrong:
            self._call(*(packed("ZADD", self._key, "INCR", by, LIVE + tenant) for tenant, by in wrong.items()))

    def _call(self, *commands: bytes) -> list[Any]:
        return call_all(self._pool, commands)

"""Sessions of every status in some number of buckets, for tests that move them to another."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import redis as redis_py

from syncapp.cli.rebucket import Rebucket
from syncapp.config import Settings
from syncapp.dev.set_clock import PARTIALS, ManualClock
from syncapp.domain.principal import NOBODY, Principal
from syncapp.domain.results import Claim
from syncapp.errors import SessionNotFound
from syncapp.store.bucket_record import BucketCount, BucketGuard, BucketRecord
from syncapp.store.client import connect
from syncapp.store.keys import COMPLETE, SENTINEL, Keyspace
from syncapp.store.links import Link, LinkStore
from syncapp.store.sessions import SessionStore
from tests.support.store import NOON_MS, chess_request, make_settings

ADA = Principal("ada", "acme")
KINDS = ("pending", "running", "paused", "completed", "cancelled", "expired", "deleted")


class BucketService:
    """A store of sessions with a clock that stands still, of any number of buckets."""

    def __init__(self, redis: redis_py.Redis, redis_url: str, database_url: str) -> None:
        self.redis = redis
        self.settings = make_settings(redis_url, database_url=database_url, redis_timeout_s=60.0)
        self.clock = ManualClock(redis)
        self.record = BucketRecord(connect(self.settings))

    def with_buckets(self, buckets: int) -> Settings:
        return make_settings(
            self.settings.redis_url, database_url=self.settings.database_url, redis_timeout_s=60.0, sync_buckets=buckets
        )

    def store(self, buckets: int, guard: BucketGuard | None = None) -> SessionStore:
        chosen = self.with_buckets(buckets)
        return SessionStore(connect(chosen), chosen, partials=PARTIALS, guard=guard)

    def rebucket(
        self,
        target: int,
        *,
        say: Callable[[str], None] | None = None,
        step: Callable[[], None] = lambda: None,
        patience_s: float = 15.0,
    ) -> list[str]:
        """Run it, without the pause that lets processes notice; return what it prints."""
        lines: list[str] = []
        Rebucket(self.settings, target, say=say or lines.append, step=step, pause_s=0.0, patience_s=patience_s).run()
        return lines

    def fill(self, buckets: int, count: int = 3) -> dict[str, list[str]]:
        """Create sessions of every status in two tenants, with links and idempotency records; and record the number."""
        store = self.store(buckets)
        kinds = [(kind, principal) for kind in KINDS for principal in (NOBODY, ADA)]
        made: dict[str, list[str]] = {kind: [] for kind in KINDS}
        for number in range(count):
            for kind, principal in kinds:
                made[kind].append(self._add(store, kind, number, principal))
        self.clock.set(NOON_MS + 1000)
        keys = Keyspace(buckets)
        for session_id in made["expired"]:
            store.get(session_id)
        for session_id in itertools.chain(*made.values()):
            LinkStore(connect(self.settings), keys).add(session_id, Link("jti", "watch", 1.0, 4_000_000_000))
        for bucket in range(buckets):
            self.redis.zadd(keys.deadlines(bucket), {SENTINEL: COMPLETE})
            self.redis.zadd(keys.listed(bucket), {SENTINEL: COMPLETE})
        self.record.write(BucketCount(buckets))
        return made

    def _add(self, store: SessionStore, kind: str, number: int, principal: Principal) -> str:
        """Create a session with a status; each command has its own idempotency key."""
        request = chess_request(1000 if kind == "expired" else 300_000)
        session_id = store.create(request, Claim(principal=principal)).found.session_id
        if kind != "pending":
            store.start(session_id, Claim(idempotency_key=f"{kind}:{number}", principal=principal))
        ends = {"paused": store.pause, "completed": store.complete, "cancelled": store.cancel, "deleted": store.delete}
        if kind in ends:
            ends[kind](session_id, Claim(principal=principal))
        return session_id

    def dump(self) -> dict[bytes, Any]:
        """Return all keys of buckets, except streams, with their contents and expiry."""
        found: dict[bytes, Any] = {}
        for key in self.redis.scan_iter("sync:{b*", count=1000):
            kind = self.redis.type(key)
            if kind == b"hash":
                found[key] = self.redis.hgetall(key), self.redis.pexpiretime(key)
            elif kind == b"zset":
                found[key] = self.redis.zrange(key, 0, -1, withscores=True)
            elif kind == b"string" and not key.endswith(b"nudge"):
                found[key] = self.redis.get(key), self.redis.pexpiretime(key)
        return found


def states(store: SessionStore, ids: dict[str, list[str]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for each in (each for kind in KINDS for each in ids[kind]):
        try:
            result = store.get(each)
            found[each] = result.found.state(result.now_ms), result.found.etag
        except SessionNotFound:
            found[each] = None
    return found

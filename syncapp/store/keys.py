"""The keyspace: every Redis key and channel is formatted here and nowhere else.

All keys of a session carry the hash tag of its bucket, so that a script's keys live in one cluster
slot. `docs/keys.md` is the dictionary of what each key holds.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from functools import cache, lru_cache

AUDIT_GROUP = "audit"
"""Consumer group of every outbox stream."""
PROBE_SESSION = "00000000-0000-0000-0000-000000000000"
"""Not a session's id: its keys are used to try what a commit may write."""
SENTINEL = "complete"
"""Member of each bucket's deadlines and list that is not a session: it is missing from a set that was deleted."""
COMPLETE = "+inf"
"""Score of the sentinel in a set that has every session it should have."""


@dataclass(frozen=True, slots=True)
class Keyspace:
    """Formats keys for a fixed number of buckets (1 to 1024)."""

    buckets: int = 16

    def bucket(self, session_id: str) -> int:
        """Return the bucket of a session: CRC-32 of its id, modulo the number of buckets."""
        return zlib.crc32(session_id.encode()) % self.buckets

    def session(self, session_id: str) -> str:
        """Hash: the session."""
        return f"{self._tag(session_id)}session:{session_id}"

    def sessions(self) -> str:
        """Pattern of the keys of all sessions, for SCAN."""
        return "sync:{b*}:session:*"

    def session_of(self, key: str) -> str | None:
        """Return the id in a session's key; None when the key is not one of this keyspace."""
        session_id = key.partition(":session:")[2]
        return session_id if key == self.session(session_id) else None

    def idempotency(self, session_id: str, key: str) -> str:
        """String: the data that a replay of a command needs."""
        return f"{self._tag(session_id)}idem:{session_id}:{key}"

    def channel(self, session_id: str) -> str:
        """Pub/sub channel of one session."""
        return f"{self._tag(session_id)}channel:{session_id}"

    def deadlines(self, bucket: int) -> str:
        """Sorted set: session ids by the next instant (ms) they must be looked at, and the sentinel."""
        return f"{_bucket_tag(bucket)}deadlines"

    def listed(self, bucket: int) -> str:
        """Sorted set: ids of all sessions by the instant (ms) they were created at, and the sentinel."""
        return f"{_bucket_tag(bucket)}listed"

    def outbox(self, bucket: int) -> str:
        """Stream: audit events not yet in PostgreSQL."""
        return f"{_bucket_tag(bucket)}outbox"

    def nudge(self, bucket: int) -> str:
        """String with a lifetime of half a second: the bucket's drain was asked for."""
        return f"{_bucket_tag(bucket)}nudge"

    def tally(self) -> str:
        """Hash: how many audit events were stored, how many dead letters there are."""
        return "sync:audit"

    def drained(self, slot: int) -> str:
        """String with a lifetime of a minute: how many events were stored within ten seconds."""
        return f"sync:audit:{slot}"

    def probe(self, bucket: int) -> tuple[str, ...]:
        """Return keys as `commit` does, with an idempotency record's, of no session in a bucket."""
        tag = _bucket_tag(bucket)
        session, record, channel = (f"{tag}{kind}:{PROBE_SESSION}" for kind in ("session", "idem", "channel"))
        shared = (self.deadlines(bucket), self.outbox(bucket), self.nudge(bucket))
        return (session, *shared, channel, self.listed(bucket), f"{record}:ready")

    def processes(self) -> str:
        """Sorted set: names of web and worker processes by when they last reported (ms)."""
        return "sync:processes"

    def clock_steps(self) -> str:
        """Sorted set: clock steps that processes saw, as JSON, by the instant (ms) the clock was set to."""
        return "sync:clock"

    def sweeper(self) -> str:
        """String with a lifetime of a second, renewed: who sweeps the deadlines."""
        return "sync:sweeper"

    def commit(self, session_id: str) -> tuple[str, ...]:
        """Return the keys of every command script, in the order of their KEYS headers."""
        return _commit_keys(self.buckets, session_id)

    def _tag(self, session_id: str) -> str:
        return _bucket_tag(self.bucket(session_id))


@cache
def _bucket_tag(bucket: int) -> str:
    return f"sync:{{b{bucket:02d}}}:"


@lru_cache(maxsize=4096)
def _commit_keys(buckets: int, session_id: str) -> tuple[str, ...]:
    keys = Keyspace(buckets)
    bucket = keys.bucket(session_id)
    return (
        keys.session(session_id),
        keys.deadlines(bucket),
        keys.outbox(bucket),
        keys.nudge(bucket),
        keys.channel(session_id),
        keys.listed(bucket),
    )

"""The keyspace: the names of all Redis keys and channels are formatted here, and nowhere else.

All keys of a session have the hash tag of its bucket, and those of a principal have their own, so that the keys of a
script are in one cluster slot.
A session's id is the qualified one (`syncapp.domain.session_ids`). docs/keys.md describes the contents of each key.
"""

from __future__ import annotations

import re
import zlib
from dataclasses import dataclass
from functools import cache, lru_cache
from hashlib import sha256

from syncapp.domain.principal import ANYONE, DEFAULT_TENANT, Principal
from syncapp.domain.session_ids import tenant_of

AUDIT_GROUP = "audit"
"""Consumer group of every outbox stream."""
PROBE_SESSION = "00000000-0000-0000-0000-000000000000"
"""An id that no session has; the readiness check writes to its keys what a commit writes."""
_COPIES = 16
SENTINEL = "complete"
"""Member of each bucket's deadlines and list that is not a session. A deleted set loses it."""
COMPLETE = "+inf"
"""Score of the sentinel in a complete set."""
_KEY_OF_SESSION = re.compile(
    r"sync:\{b\d+\}:(?P<kind>session|links|idem):(?P<id>(?:[^/:@]+/)?[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"
    r"(?P<rest>(?:[@:].*)?)\Z",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Keyspace:
    """Formats keys for a fixed number of buckets (1 to 1024)."""

    buckets: int = 64

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
        """Return the id in a session's key; None if the key is not in this keyspace."""
        session_id = key.partition(":session:")[2]
        return session_id if key == self.session(session_id) else None

    def idempotency(self, session_id: str, key: str, principal: Principal = ANYONE) -> str:
        """String: the record from which a replay of a command is answered. It belongs to a principal."""
        owner = f"@{_short_hash(principal.sub)}" if principal.sub else ""
        return f"{self._tag(session_id)}idem:{session_id}{owner}:{key}"

    def channel(self, session_id: str) -> str:
        """Pub/sub channel of a session."""
        return f"{self._tag(session_id)}channel:{session_id}"

    def links(self, session_id: str) -> str:
        """Hash: the links of a session, by id."""
        return f"{self._tag(session_id)}links:{session_id}"

    def all_links(self) -> str:
        """Pattern of the keys of all links, for SCAN."""
        return "sync:{b*}:links:*"

    def links_session_of(self, key: str) -> str | None:
        """Return the session id in a key of links; None if the key is not in this keyspace."""
        session_id = key.partition(":links:")[2]
        return session_id if key == self.links(session_id) else None

    def deadlines(self, bucket: int) -> str:
        """Sorted set: ids of live sessions by the instant (ms) of their next change by themselves; the sentinel."""
        return f"{_bucket_tag(bucket)}deadlines"

    def listed(self, bucket: int, tenant: str = DEFAULT_TENANT) -> str:
        """Sorted set: ids of a tenant's sessions by the instant (ms) of their creation; and the sentinel.

        The sentinel in the set of tenant `default` counts for all tenants.
        """
        return f"{_bucket_tag(bucket)}listed" + ("" if tenant == DEFAULT_TENANT else f":{tenant}")

    def tenant_lists(self) -> str:
        """Pattern of the keys of all tenants' lists, except those of tenant `default`, for SCAN."""
        return "sync:{b*}:listed:*"

    def outbox(self, bucket: int) -> str:
        """Stream: audit events that are not yet in PostgreSQL."""
        return f"{_bucket_tag(bucket)}outbox"

    def nudge(self, bucket: int) -> str:
        """String with a lifetime of 0.5 s: a drain of the bucket was requested."""
        return f"{_bucket_tag(bucket)}nudge"

    def audit_counts(self) -> str:
        """Hash: the number of stored audit events, and of dead letters."""
        return "sync:audit"

    def stored_count(self, slot: int) -> str:
        """String with a lifetime of 60 s: the number of events that were stored within 10 s."""
        return f"sync:audit:{slot}"

    def probe(self, bucket: int) -> tuple[str, ...]:
        """Return the keys of `commit`, and that of an idempotency record, for `PROBE_SESSION` in a bucket."""
        tag = _bucket_tag(bucket)
        session, record, channel = (f"{tag}{kind}:{PROBE_SESSION}" for kind in ("session", "idem", "channel"))
        shared = (self.deadlines(bucket), self.outbox(bucket), self.nudge(bucket))
        return (session, *shared, channel, self.listed(bucket), f"{record}:ready")

    def limits(self, principal: Principal) -> str:
        """String: the token bucket of a principal's commands; one key, for the sessions of all buckets."""
        return f"sync:limits:{_principal_tag(principal)}"

    def creates(self, principal: Principal) -> str:
        """String: the bucket of a principal's creates."""
        return f"sync:creates:{_principal_tag(principal)}"

    def tenants(self) -> str:
        """Sorted set: of each tenant the number of live sessions, and the buckets of its other quotas, as scores."""
        return "sync:tenants"

    def processes(self) -> str:
        """Sorted set: names of web and worker processes by the instant (ms) of their last report."""
        return "sync:processes"

    def processes_away(self) -> str:
        """Sorted set: names of processes that leave moving sessions alone, by the instant (ms) of their last report."""
        return "sync:processes:away"

    def clock_steps(self) -> str:
        """Sorted set: clock steps that processes saw, as JSON, by the instant (ms) that the clock was set to."""
        return "sync:clock"

    def revoked(self) -> str:
        """Stream: ids of revoked tokens, for 30 days."""
        return "sync:revoked"

    def lease(self, bucket: int) -> str:
        """String with a lifetime of 1 s, renewed: the lease of the process that sweeps a bucket's deadlines."""
        return f"{_bucket_tag(bucket)}sweeper"

    def sweepers(self) -> str:
        """Sorted set: names of processes that sweep, by the instant (ms) of their last report."""
        return "sync:sweepers"

    def bucket_count(self) -> str:
        """String: the number of buckets that the sessions are spread over, or how they are being moved."""
        return "sync:buckets"

    def bucket_count_copies(self) -> list[str]:
        """Return the keys of the same in a cluster: copies in several slots, so that no master is needed to read it."""
        return [f"{_bucket_tag(number)}buckets" for number in range(_COPIES)]

    def rebucket_lease(self) -> str:
        """String with a lifetime of 10 s, renewed: the run of `flask sessions rebucket` that moves the sessions."""
        return "sync:buckets:run"

    def bucket_keys(self) -> str:
        """Pattern of the keys of all buckets, for SCAN."""
        return "sync:{b*}:*"

    def relocated(self, key: str) -> str | None:
        """Return the name that a key of a session has in this keyspace; None if it is not one of a session."""
        found = _KEY_OF_SESSION.match(key)
        if found is None or found["id"] == PROBE_SESSION:
            return None
        return f"{self._tag(found['id'])}{found['kind']}:{found['id']}{found['rest']}"

    def commit(self, session_id: str) -> tuple[str, ...]:
        """Return the keys of every command script, in the order of their KEYS headers."""
        return _commit_keys(self.buckets, session_id)

    def _tag(self, session_id: str) -> str:
        return _bucket_tag(self.bucket(session_id))


def slot_tag(key: str) -> str:
    """Return what determines the slot of a key or channel in a cluster: its hash tag, or all of it."""
    return key[key.find("{") + 1 : key.find("}")] if "{" in key else key


def old_set(key: str) -> str:
    """Return the key of a set of the bucket's deadlines or list, out of the way while sessions are moved."""
    return key.replace("}:", "}:old:", 1)


def new_set(key: str) -> str:
    """Return the key of the set that takes this one's place after sessions were moved."""
    return key.replace("}:", "}:new:", 1)


def old_sets() -> str:
    """Pattern of all keys of `old_set`, for SCAN."""
    return old_set("sync:{b*}:*")


def new_sets() -> str:
    """Pattern of all keys of `new_set`, for SCAN."""
    return new_set("sync:{b*}:*")


def final_set(key: str) -> str:
    """Return the key whose place a key of `new_set` takes."""
    return key.replace("}:new:", "}:", 1)


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
        keys.listed(bucket, tenant_of(session_id)),
    )


def _principal_tag(principal: Principal) -> str:
    return f"{{{_short_hash(f'{principal.tenant}/{principal.sub}')}}}"


@lru_cache(maxsize=4096)
def _short_hash(text: str) -> str:
    """Return a hash of what names a principal: it may be a name, and have any characters."""
    return sha256(text.encode()).hexdigest()[:32]

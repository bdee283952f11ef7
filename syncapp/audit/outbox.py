"""The outbox: one stream for each bucket, with the audit events that are not in PostgreSQL yet.

An entry stays in its stream until it is acknowledged, whatever happens to its reader.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis
from redis.exceptions import ResponseError

from syncapp.audit.event import OutboxEntry
from syncapp.config import Settings
from syncapp.domain.session_ids import log_id
from syncapp.store.client import TRANSLATION
from syncapp.store.connection_pool import packed, pool_of
from syncapp.store.keys import AUDIT_GROUP, Keyspace
from syncapp.store.replication import Replication

_LOOK_S = 10.0
READ_AT_ONCE = 100
"""A read of fewer entries than this and than asked for has emptied the stream."""
_READ_BYTES = 4_194_304
_SCANNED_AT_ONCE = 500
_MAX_SCANNED = 20_000
# allow-oom: a full server refuses XGROUP CREATE, and without the group no drain could free memory.
_MAKE_GROUP = """#!lua flags=allow-oom
return redis.call('XGROUP', 'CREATE', KEYS[1], ARGV[1], '0', 'MKSTREAM')
"""
# A script, because a full Redis 7.0 accepts no command in a transaction. Entries are deleted before they are
# acknowledged: an entry that is only deleted is read again as empty, but one that is only acknowledged would stay
# forever. Lua's unpack takes at most 8,000 values.
_REMOVE = """
for first = 2, #ARGV, 1000 do
  local last = math.min(first + 999, #ARGV)
  redis.call('XDEL', KEYS[1], unpack(ARGV, first, last))
  redis.call('XACK', KEYS[1], ARGV[1], unpack(ARGV, first, last))
end
"""


@dataclass(frozen=True, slots=True)
class OutboxBacklog:
    """The entries in a bucket's stream. waiting: not read yet. active: read and not acknowledged.

    oldest_age_ms: the time since the oldest of them was committed, by the server's clock; None if there is none.
    """

    waiting: int
    active: int
    oldest_age_ms: int | None


class Outbox:
    """Reads the streams as one reader of their consumer group. Only one thread at a time may read a bucket.

    claim_idle_s: an entry that another reader has not acknowledged for this long is taken over. Such entries are looked
    for every 10 s, or after a third of `claim_idle_s` if that is shorter. The first read of a bucket takes over all
    entries, because they may be this reader's own, from before it was killed. If another reader still works on them,
    both store the same entries, which does no harm. replication: entries are returned only when the required replicas
    have them, by default none: otherwise a failover might lose commits that are already stored.
    """

    def __init__(
        self,
        client: redis.Redis,
        keyspace: Keyspace,
        *,
        claim_idle_s: float = 30.0,
        reader: str | None = None,
        replication: Replication | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._pool = pool_of(client)
        self._keys = keyspace
        self._claim_idle_ms = int(claim_idle_s * 1000)
        self._reader = reader or f"{socket.gethostname()}-{os.getpid()}"
        self._replication = replication or Replication(client)
        self._clock = clock
        self._taken_over: set[int] = set()
        # By bucket: the entries that this reader has read and not acknowledged, unless that is unknown, and when those
        # of others were last looked for (monotonic, in seconds).
        self._unacknowledged: dict[int, set[str]] = {}
        self._looked_s: dict[int, float] = {}
        self._remove = client.register_script(_REMOVE)

    @classmethod
    def of(cls, client: redis.Redis, settings: Settings) -> Outbox:
        """Return the outbox that the settings describe, for a process that drains."""
        keyspace, idle_s = Keyspace(settings.sync_buckets), settings.audit_claim_idle_s
        return cls(client, keyspace, claim_idle_s=idle_s, replication=Replication.of(client, settings))

    @property
    def keyspace(self) -> Keyspace:
        """The keys of the streams."""
        return self._keys

    def use_buckets(self, buckets: int) -> None:
        """Read the streams of this number of buckets from now on."""
        self._keys = Keyspace(buckets)
        self._unacknowledged.clear()

    @property
    def buckets(self) -> range:
        """Every bucket."""
        return range(self._keys.buckets)

    @property
    def is_spread(self) -> bool:
        """Whether the streams are on several servers, of which one may fail alone."""
        return bool(getattr(self._client.connection_pool, "is_cluster", False))

    def read_pending(self, bucket: int, count: int) -> list[OutboxEntry]:
        """Return entries that were read and not acknowledged, by this reader or by one whose entries it takes over.

        At most `count`, and at most 100. Acknowledge them to get more. Raises what redis
        raises, and `TooFewReplicas`.
        """
        if not self._may_have_pending(bucket):
            return []
        key, count = self._keys.outbox(bucket), min(count, READ_AT_ONCE)
        idle_ms = self._claim_idle_ms if bucket in self._taken_over else 0
        began_s = self._clock()
        self._with_group(
            bucket,
            lambda: self._client.xautoclaim(key, AUDIT_GROUP, self._reader, idle_ms, count=count, justid=True),
        )
        entries = self._read(bucket, "0", count)
        if len(entries) < count:  # these are all
            self._taken_over.add(bucket)
            self._unacknowledged[bucket], self._looked_s[bucket] = {each.stream_id for each in entries}, began_s
        else:
            self._unacknowledged.pop(bucket, None)
        return entries

    def read_new(self, bucket: int, count: int) -> list[OutboxEntry]:
        """Return entries that were not read yet, oldest first: at most `count`, and not much more than 4 MiB.

        Raises what redis raises, and `TooFewReplicas`.
        """
        entries: list[OutboxEntry] = []
        size = 0
        while len(entries) < count and size < _READ_BYTES:
            asked = min(count - len(entries), READ_AT_ONCE)
            more = self._read(bucket, ">", asked)
            entries += more
            if len(more) < asked:
                break
            size += sum(len(entry.raw or b"") for entry in more)
        return entries

    def acknowledge(self, bucket: int, entries: Sequence[OutboxEntry]) -> None:
        """Remove entries that are stored in PostgreSQL. Raises what redis raises."""
        key, ids = self._keys.outbox(bucket), [entry.stream_id for entry in entries]
        if ids:
            self._remove(keys=[key], args=[AUDIT_GROUP, *ids])
            if unacknowledged := self._unacknowledged.get(bucket):
                unacknowledged.difference_update(ids)

    def backlogs(self) -> dict[int, OutboxBacklog]:
        """Return the backlog of each bucket. Raises what redis raises."""
        with self._client.pipeline(transaction=False) as pipe:
            pipe.time()
            for bucket in self.buckets:
                key = self._keys.outbox(bucket)
                pipe.xlen(key)
                pipe.xpending(key, AUDIT_GROUP)
                pipe.xrange(key, count=1)
            now, *answers = pipe.execute(raise_on_error=False)
        if isinstance(now, Exception):
            raise now
        now_ms = now[0] * 1000 + now[1] // 1000
        return {bucket: _backlog(now_ms, *answers[3 * bucket : 3 * bucket + 3]) for bucket in self.buckets}

    def with_events(self) -> Sequence[int]:
        """Return the buckets that have events; all if that cannot be read. Never raises."""
        try:
            backlogs = self.backlogs()
        except Exception:  # noqa: BLE001 a drain of each bucket finds out, and reports it
            return self.buckets
        return [bucket for bucket, backlog in backlogs.items() if backlog.waiting or backlog.active]

    def with_entries(self, buckets: Sequence[int]) -> Sequence[int]:
        """Return those of the buckets whose streams have entries; all if that cannot be read. Never raises."""
        try:
            lengths = self._pool.call_each(*(packed("XLEN", self._keys.outbox(bucket)) for bucket in buckets))
        except Exception:  # noqa: BLE001 a drain of each bucket finds out, and reports it
            return buckets
        return [bucket for bucket, length in zip(buckets, lengths, strict=True) if length != 0]

    def has_undrained(self, session_id: str) -> bool:
        """Return whether a session has events that are not in the log yet; True also if its bucket has too many others.

        Scans at most 20,000 entries. Raises `StoreUnavailable`.
        """
        with TRANSLATION:
            return self._contains(session_id)

    def _contains(self, session_id: str) -> bool:
        key, start, text = self._keys.outbox(self._keys.bucket(session_id)), "-", log_id(session_id).encode()
        for _ in range(_MAX_SCANNED // _SCANNED_AT_ONCE):
            found: Any = self._client.xrange(key, min=start, count=_SCANNED_AT_ONCE)
            if any(text in (_entry(0, stream_id, fields).raw or b"") for stream_id, fields in found):
                return True
            if len(found) < _SCANNED_AT_ONCE:
                return False
            last = found[-1][0]
            start = f"({last.decode() if isinstance(last, bytes) else last}"
        return True

    def _read(self, bucket: int, start: str, count: int) -> list[OutboxEntry]:
        streams: Any = {self._keys.outbox(bucket): start}
        unacknowledged = self._unacknowledged.pop(bucket, None)  # unknown, if the reply is lost
        mark = self._keys.outbox(bucket)
        found, replicas = self._with_group(
            bucket,
            lambda: self._replication.read(
                self._client, lambda it: it.xreadgroup(AUDIT_GROUP, self._reader, streams, count=count), mark
            ),
        )
        read = [_entry(bucket, stream_id, fields) for _, entries in found or () for stream_id, fields in entries]
        if read:
            self._replication.check(replicas)
        if unacknowledged is not None:
            self._unacknowledged[bucket] = unacknowledged.union(each.stream_id for each in read)
        return read

    def _may_have_pending(self, bucket: int) -> bool:
        """Return whether entries may have been read and not acknowledged, by this reader or by one that has died."""
        if self._unacknowledged.get(bucket, True):
            return True
        return self._clock() - self._looked_s[bucket] >= min(_LOOK_S, self._claim_idle_ms / 3000)

    def _with_group(self, bucket: int, command: Callable[[], Any]) -> Any:
        """Run a command; if the consumer group is missing, as after a flush, create it at the start of the stream."""
        try:
            return command()
        except ResponseError as error:
            if not str(error).startswith("NOGROUP"):
                raise
        self._make_group(bucket)
        return command()

    def make_groups(self) -> None:
        """Create the missing consumer groups, at the start of their streams. Raises what redis raises."""
        with self._client.pipeline(transaction=False) as pipe:
            for bucket in self.buckets:
                pipe.eval(_MAKE_GROUP, 1, self._keys.outbox(bucket), AUDIT_GROUP)
            for reply in pipe.execute(raise_on_error=False):
                if isinstance(reply, Exception) and "BUSYGROUP" not in str(reply):  # the group exists
                    raise reply

    def _make_group(self, bucket: int) -> None:
        try:
            self._client.eval(_MAKE_GROUP, 1, self._keys.outbox(bucket), AUDIT_GROUP)
        except ResponseError as error:
            if "BUSYGROUP" not in str(error):  # the group exists
                raise


def _entry(bucket: int, stream_id: bytes | str, fields: dict[Any, Any] | None) -> OutboxEntry:
    """Return an entry, which has one field; it has none if it was deleted while it was pending."""
    raw = next(iter((fields or {}).values()), None)
    return OutboxEntry(
        bucket,
        stream_id.decode() if isinstance(stream_id, bytes) else stream_id,
        raw.encode() if isinstance(raw, str) else raw,
    )


def _backlog(now_ms: int, length: Any, pending: Any, oldest: Any) -> OutboxBacklog:
    for reply in (length, oldest, pending):
        if isinstance(reply, Exception) and not str(reply).startswith("NOGROUP"):
            raise reply
    active = 0 if isinstance(pending, Exception) else int(pending["pending"])  # without a group, nothing was read
    if not oldest:
        return OutboxBacklog(0, active, None)
    stream_id = oldest[0][0]
    since_ms = int((stream_id.decode() if isinstance(stream_id, bytes) else stream_id).split("-")[0])
    return OutboxBacklog(max(0, length - active), active, max(0, now_ms - since_ms))

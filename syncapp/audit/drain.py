"""Drains: move the events of a bucket from its outbox to the audit log."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import psycopg2
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from syncapp.audit.event import OutboxEntry
from syncapp.audit.log import AuditLog
from syncapp.audit.outbox import READ_AT_ONCE, Outbox
from syncapp.errors import one_line
from syncapp.store.replication import TooFewReplicas


def collect_rarely() -> None:
    """Make Python's cyclic garbage collector run rarely, in a process that only drains.

    A batch is many objects that live until it is stored, and has no reference cycles.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 50, 100)


@dataclass(frozen=True, slots=True)
class Drained:
    """The result of a drain: how many entries it moved, and whether its time was up, so that there may be more."""

    moved: int
    more: bool


class Drain:
    """Drains buckets, each by one thread at a time. Any number of processes may drain at once.

    count(completed, failed) is called after each batch: how many of its events are in the log, and how many are new
    dead letters. It must not raise, because the batch is done by then.
    """

    def __init__(
        self,
        outbox: Outbox,
        audit: AuditLog,
        *,
        batch: int,
        count: Callable[[int, int], None] = lambda completed, failed: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outbox = outbox
        self._audit = audit
        self._batch = batch
        self._count = count
        self._clock = clock
        self._lock = threading.Lock()
        self._busy: set[int] = set()
        self._again: set[int] = set()
        self._moved = 0

    def run(self, bucket: int, *, at_most_s: float = float("inf")) -> Drained:
        """Move batches until a read has emptied the bucket, or for `at_most_s`.

        Moves nothing if another thread is draining the bucket; that thread then looks again. Raises what redis and
        psycopg2 raise; entries that have not been acknowledged are read again.
        """
        moved, more, end = 0, False, self._clock() + at_most_s
        while not more and self._enter(bucket):
            try:
                for read in (self._outbox.read_pending, self._outbox.read_new):
                    while not more and (count := self._move(bucket, read)):
                        moved += count
                        more = self._clock() >= end
                        if count < min(self._batch, READ_AT_ONCE):
                            break
            finally:
                again = self._leave(bucket)
            if not again:
                break
        return Drained(moved, more)

    def run_all(self) -> tuple[int, dict[str, list[int]]]:
        """Drain every bucket; return how many entries were moved, and the failed buckets by reason.

        A failed bucket does not stop the others, unless Redis or its replicas cannot be reached. Entries that were not
        moved stay in the outbox.
        """
        before, failures = self._moved, dict[str, list[int]]()
        for bucket in self._outbox.buckets:
            try:
                self.run(bucket)
            except (RedisError, psycopg2.Error) as error:
                failures.setdefault(one_line(error), []).append(bucket)
                if isinstance(error, RedisConnectionError | RedisTimeoutError | TooFewReplicas):
                    break
        return self._moved - before, failures

    def _enter(self, bucket: int) -> bool:
        """Return whether this thread may drain; if not, the thread that drains looks again before it ends."""
        with self._lock:
            free = bucket not in self._busy
            (self._busy if free else self._again).add(bucket)
            return free

    def _leave(self, bucket: int) -> bool:
        """End this thread's drain; return whether another thread asked meanwhile, because of newer entries."""
        with self._lock:
            was_asked = bucket in self._again
            self._again.discard(bucket)
            self._busy.discard(bucket)
            return was_asked

    def _move(self, bucket: int, read: Callable[[int, int], list[OutboxEntry]]) -> int:
        """Move one batch: read it, store it, and only then acknowledge it; return its size."""
        entries = read(bucket, self._batch)
        if entries:
            stored = self._audit.store(entries)
            self._outbox.acknowledge(bucket, entries)
            with self._lock:
                self._moved += len(entries)
            self._count(stored.completed, len(stored.dead_letters))
        return len(entries)

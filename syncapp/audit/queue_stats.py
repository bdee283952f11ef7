"""Statistics of the audit queue: events that wait, that were stored, and that became dead letters.

Each process that drains keeps the counts in Redis, so that web processes can show them without PostgreSQL.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import redis
import structlog

from syncapp.audit.outbox import Outbox
from syncapp.errors import one_line
from syncapp.store.keys import Keyspace

log = structlog.get_logger(__name__)

_SLOT_S = 10
_SLOTS = 6


@dataclass(frozen=True, slots=True)
class QueueStats:
    """The audit queue at an instant.

    waiting: events not read yet. active: events read and not acknowledged. completed: events stored since the store
    was last empty. failed: dead letters that were not redriven. delayed: scheduled retries of drains; None if the
    queue's own server does not tell. oldest_age_ms: the age of the oldest event that is waiting or active; None if
    there is none. rate_per_s: events stored per second over the last minute.
    """

    waiting: int
    active: int
    completed: int
    failed: int
    delayed: int | None
    oldest_age_ms: int | None
    rate_per_s: float


class QueueCounts:
    """Writes and reads the counts. delayed() returns how many retries are scheduled, or None if that is unknown."""

    def __init__(self, client: redis.Redis, keyspace: Keyspace, delayed: Callable[[], int | None] = lambda: 0) -> None:
        self._client = client
        self._keys = keyspace
        self._outbox = Outbox(client, keyspace)
        self._delayed = delayed
        self._lock = threading.Lock()
        self._uncounted = {"completed": 0, "failed": 0}
        self._is_failing = False

    def add(self, completed: int, failed: int) -> None:
        """Count stored events and new dead letters; never raises.

        A count that a full Redis refuses is added with a later batch. A count that was being sent when a connection
        broke may be lost.
        """
        with self._lock:
            counts = {
                "completed": completed + self._uncounted["completed"],
                "failed": failed + self._uncounted["failed"],
            }
            self._uncounted = dict.fromkeys(counts, 0)
            try:
                refused = self._count(counts)
            except Exception as error:  # noqa: BLE001 the events are stored, so a failed count must not fail the drain
                refused = error
            if refused and not self._is_failing:
                with contextlib.suppress(Exception):
                    log.warning("tally_failed", error=one_line(refused))
            self._is_failing = refused is not None

    def _count(self, counts: dict[str, int]) -> Exception | None:
        """Add to the counts in Redis; keep refused counts for the next call, and return the reason."""
        slot = self._keys.stored_count(self._now_slot())
        names = [name for name, count in counts.items() if count]
        with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hincrby(self._keys.audit_counts(), name, counts[name])
            pipe.incrby(slot, counts["completed"])
            pipe.expire(slot, _SLOT_S * (_SLOTS + 2))
            replies = pipe.execute(raise_on_error=False)
        for name, reply in zip(names, replies, strict=False):
            if isinstance(reply, Exception):
                self._uncounted[name] = counts[name]
        return next((reply for reply in replies if isinstance(reply, Exception)), None)

    def set_failed(self, failed: int) -> None:
        """Set the count of dead letters to that of PostgreSQL. Raises what redis raises."""
        self._client.hset(self._keys.audit_counts(), "failed", str(failed))

    def read(self) -> QueueStats:
        """Return the current statistics. Raises what redis raises."""
        backlogs = self._outbox.backlogs().values()
        slot = self._now_slot()
        with self._client.pipeline(transaction=False) as pipe:
            pipe.hmget(self._keys.audit_counts(), ["completed", "failed"])
            for back in range(1, _SLOTS + 1):  # not by MGET: in a cluster they are in different slots
                pipe.get(self._keys.stored_count(slot - back))
            (completed, failed), *recent = pipe.execute()
        return QueueStats(
            waiting=sum(backlog.waiting for backlog in backlogs),
            active=sum(backlog.active for backlog in backlogs),
            completed=int(completed or 0),
            failed=int(failed or 0),
            delayed=self._delayed(),
            oldest_age_ms=max((b.oldest_age_ms for b in backlogs if b.oldest_age_ms is not None), default=None),
            rate_per_s=round(sum(int(count or 0) for count in recent) / (_SLOT_S * _SLOTS), 1),
        )

    def _now_slot(self) -> int:
        return int(time.time()) // _SLOT_S

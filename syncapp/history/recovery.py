"""Recovery: restores sessions that Redis has lost from the log, and decides which branch of a fork continues.

A restore is a script that requires that the session is missing, or is exactly the stale one that was compared. If two
processes recover a session at once, one succeeds and the other finds it done. docs/audit.md explains each outcome.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Iterator
from enum import StrEnum

import structlog

from syncapp.audit.outbox import Outbox
from syncapp.config import Settings
from syncapp.domain.results import NO_CLAIM, Claim, SessionPosition
from syncapp.domain.session import TERMINAL
from syncapp.domain.session_ids import log_id
from syncapp.errors import AuditIncomplete, AuditUnavailable, Conflict, SessionExists, SessionNotFound
from syncapp.history.queries import HistoryQueries
from syncapp.metrics import RECOVERIES
from syncapp.store.restore import RestorePoint
from syncapp.store.sessions import SessionStore
from syncapp.token_bucket import TokenBucket

log = structlog.get_logger(__name__)

_MAX_MISSES = 10_000
_MISS_KEPT_S = 10.0
_MISSES_PER_S = 20.0
_RETRY_LATER = {"retry_after_s": 1}


class Outcome(StrEnum):
    """The result of recovering a session."""

    RESTORED = "restored"  # Redis had lost it
    REPLACED = "replaced"  # Redis had an older state
    RENEWED = "renewed"  # Redis had another branch than the log; the session continues with that of Redis
    DELETED = "deleted"  # Redis still had it, and the log says that it was deleted
    CURRENT = "current"  # nothing to do
    AHEAD = "ahead"  # Redis has commits that are neither in the log nor in the outbox: the log has lost rows
    ENDED = "ended"  # it ended, and its time to live is over
    GONE = "gone"  # it was deleted
    UNKNOWN = "unknown"  # neither Redis nor the log has it


class Recovery:
    """Compares sessions in Redis with their last known state in the log, and repairs the differences.

    store: does not recover sessions on a miss. clock: how clocks count the outage, by default RECOVERY_CLOCK.
    """

    def __init__(
        self, store: SessionStore, history: HistoryQueries, outbox: Outbox, settings: Settings, clock: str | None = None
    ) -> None:
        self._store = store
        self._history = history
        self._outbox = outbox
        self._clock = clock or settings.recovery_clock
        self._kept_ms = settings.session_ttl_s * 1000
        self._misses = MissLimiter()

    def on_miss(self, session_id: str) -> bool:
        """Return whether a session that was not found exists now.

        Queries the log at most once in 10 s for an id that it does not have, and for at most 20 new ids per second.
        Raises `AuditUnavailable` above that limit, or if PostgreSQL does not answer.
        """
        if not self._misses.admit(session_id, time.monotonic()):
            return False
        outcome = self.recover(session_id, forks=set())
        found = outcome in (Outcome.RESTORED, Outcome.CURRENT)
        if not found:
            self._misses.note(session_id, time.monotonic())
        return found

    def recover(
        self, session_id: str, claim: Claim = NO_CLAIM, *, forks: set[tuple[str, int]] | None = None
    ) -> Outcome:
        """Repair a session if Redis and the log differ.

        forks: each (log id, epoch) that has a dead letter whose event differs from the stored one; queried if not
        given. Raises `AuditUnavailable`, `AuditIncomplete`, `StoreUnavailable`.
        """
        stored = self._store.position(session_id)
        if stored is None and self._outbox.has_undrained(session_id):
            stored = self._store.position(session_id)  # the event may be another process's restore
            if stored is None:
                raise AuditIncomplete("some events of this session are not in the log yet; try again", _RETRY_LATER)
        logged = self._history.restore_point(session_id)
        try:
            outcome = self._repair(session_id, stored, logged, claim, self._history.forks() if forks is None else forks)
        except (Conflict, SessionExists, SessionNotFound):
            outcome = Outcome.CURRENT  # another process was first, or a command changed it
        RECOVERIES.labels(outcome).inc()
        if outcome in (Outcome.RESTORED, Outcome.REPLACED, Outcome.RENEWED, Outcome.DELETED):
            log.warning("session_recovered", session_id=session_id, outcome=outcome, clock=self._clock)
        return outcome

    def all_session_ids(self) -> Iterator[str]:
        """Yield the id of every session that is live in the log or in Redis, or that ended within SESSION_TTL_S."""
        seen = set()
        for session_id in self._history.recent_ids(self._store.time_ms() - self._kept_ms):
            seen.add(session_id)
            yield session_id
        yield from (session_id for session_id in self._store.scheduled() if session_id not in seen)

    def _repair(
        self,
        session_id: str,
        stored: SessionPosition | None,
        logged: RestorePoint | None,
        claim: Claim,
        forks: set[tuple[str, int]],
    ) -> Outcome:
        if stored is None:
            return Outcome.UNKNOWN if logged is None else self._restore(logged, claim)
        if logged is None or stored.order > logged.order:
            return self._ahead(session_id, stored)
        if stored.order == logged.order:
            if stored.chain == logged.chain and (log_id(session_id), stored.epoch) not in forks:
                return Outcome.CURRENT
            self._store.renew(session_id, stored.order, logged.epoch, claim)
            return Outcome.RENEWED
        if logged.status == "deleted":
            renewed = self._store.renew(session_id, stored.order, logged.epoch, claim).found
            self._store.delete(session_id, Claim(renewed.epoch, renewed.version, request_id=claim.request_id))
            return Outcome.DELETED
        self._store.restore(logged, self._clock, claim, instead_of=stored.order)
        return Outcome.REPLACED

    def _ahead(self, session_id: str, stored: SessionPosition) -> Outcome:
        """Return whether the log only lacks undrained events, or has lost rows."""
        if self._outbox.has_undrained(session_id):
            return Outcome.CURRENT
        logged = self._history.restore_point(session_id)  # the events may have reached the log since
        return Outcome.CURRENT if logged and logged.order >= stored.order else Outcome.AHEAD

    def _restore(self, logged: RestorePoint, claim: Claim) -> Outcome:
        if logged.status == "deleted":
            return Outcome.GONE
        ended_ms = logged.session.session_completed_ms or 0
        if logged.status in TERMINAL and self._store.time_ms() >= ended_ms + self._kept_ms:
            return Outcome.ENDED
        self._store.restore(logged, self._clock, claim)
        return Outcome.RESTORED


class MissLimiter:
    """Limits queries of the log for missing sessions: remembers ids that it did not have, and limits new ids."""

    def __init__(self) -> None:
        self._until_s: OrderedDict[str, float] = OrderedDict()
        self._bucket = TokenBucket(_MISSES_PER_S, _MISSES_PER_S, float("-inf"))

    def admit(self, session_id: str, now_s: float) -> bool:
        """Return whether to query the log for an id. Raises `AuditUnavailable` above the limit."""
        if now_s < self._until_s.get(session_id, float("-inf")):
            return False
        if self._bucket.take(now_s):
            raise AuditUnavailable("too many missing sessions are queried in the log; try again", _RETRY_LATER)
        return True

    def note(self, session_id: str, now_s: float) -> None:
        """Record that the log has no session to restore for this id."""
        self._until_s[session_id] = now_s + _MISS_KEPT_S
        self._until_s.move_to_end(session_id)
        while len(self._until_s) > _MAX_MISSES:
            self._until_s.popitem(last=False)

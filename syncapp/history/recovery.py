"""Recovery: brings back from the log what Redis has lost, and settles which of two pasts goes on.

A restore is a script that finds no session, or exactly the stale one that was compared; so of two recoverers
one wins, and the other finds that it is done. What each outcome means is in docs/audit.md.
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
from syncapp.errors import AuditIncomplete, AuditUnavailable, Conflict, SessionExists, SessionNotFound
from syncapp.history.queries import HistoryQueries
from syncapp.metrics import RECOVERIES
from syncapp.store.restore import RestorePoint
from syncapp.store.sessions import SessionStore
from syncapp.token_bucket import TokenBucket

log = structlog.get_logger(__name__)

_MOST_MISSES = 10_000
_MISS_KEPT_S = 10.0
_MISSES_PER_S = 20.0
_LATER = {"retry_after_s": 1}


class Outcome(StrEnum):
    """What became of a session."""

    RESTORED = "restored"  # Redis had lost it
    REPLACED = "replaced"  # Redis had an older state
    RENEWED = "renewed"  # Redis had gone another way than the log; it goes on from what Redis has
    DELETED = "deleted"  # Redis still had what the log knows to be deleted
    CURRENT = "current"  # nothing was to be done
    AHEAD = "ahead"  # Redis has more than the log, though nothing is on its way: the log has lost rows
    ENDED = "ended"  # it ended, and was kept for its time
    GONE = "gone"  # it was deleted
    UNKNOWN = "unknown"  # neither knows it


class Recovery:
    """Compares sessions in Redis with what the log knows last of them, and puts right what differs.

    store: one that asks nobody about a miss. clock: what clocks did meanwhile, RECOVERY_CLOCK if not given.
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
        """Tell whether a session that was not found is there now.

        Asks the log about an id once in 10 s, and about 20 new ones in a second. Raises `AuditUnavailable` when it
        cannot be told: over that limit, or with PostgreSQL away.
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
        """Put a session right, if anything is wrong with it.

        forks: (session id, epoch) of which another event than the stored one is known; asked for, if not given.
        Raises `AuditUnavailable`, `AuditIncomplete`, `StoreUnavailable`.
        """
        there = self._store.peek(session_id)
        if there is None and self._is_on_its_way(session_id):
            there = self._store.peek(session_id)  # the event may be another process's restore
            if there is None:
                raise AuditIncomplete("events of this session are on their way into the log; try again", _LATER)
        known = self._history.remains(session_id)
        try:
            outcome = self._settle(session_id, there, known, claim, self._history.forks() if forks is None else forks)
        except (Conflict, SessionExists, SessionNotFound):
            outcome = Outcome.CURRENT  # somebody else was first, or it has gone on
        RECOVERIES.labels(outcome).inc()
        if outcome in (Outcome.RESTORED, Outcome.REPLACED, Outcome.RENEWED, Outcome.DELETED):
            log.warning("session_recovered", session_id=session_id, outcome=outcome, clock=self._clock)
        return outcome

    def everything(self) -> Iterator[str]:
        """Yield the id of every session that the log or Redis takes for live, or that ended a short while ago."""
        seen = set()
        for session_id in self._history.ids_since(self._store.time_ms() - self._kept_ms):
            seen.add(session_id)
            yield session_id
        yield from (session_id for session_id in self._store.scheduled() if session_id not in seen)

    def _settle(
        self,
        session_id: str,
        there: SessionPosition | None,
        known: RestorePoint | None,
        claim: Claim,
        forks: set[tuple[str, int]],
    ) -> Outcome:
        if there is None:
            return Outcome.UNKNOWN if known is None else self._bring_back(known, claim)
        if known is None or there.order > known.order:
            return self._ahead(session_id, there)
        if there.order == known.order:
            if there.chain == known.chain and (session_id, there.epoch) not in forks:
                return Outcome.CURRENT
            self._store.renew(session_id, there.order, known.epoch, claim)
            return Outcome.RENEWED
        if known.status == "deleted":
            renewed = self._store.renew(session_id, there.order, known.epoch, claim).found
            self._store.delete(session_id, Claim(renewed.epoch, renewed.version, request_id=claim.request_id))
            return Outcome.DELETED
        self._store.restore(known, self._clock, claim, instead_of=there.order)
        return Outcome.REPLACED

    def _ahead(self, session_id: str, there: SessionPosition) -> Outcome:
        """Tell whether the log does not know yet what Redis knows, or never will."""
        if self._is_on_its_way(session_id):
            return Outcome.CURRENT
        known = self._history.remains(session_id)  # it may have come in since
        return Outcome.CURRENT if known and known.order >= there.order else Outcome.AHEAD

    def _is_on_its_way(self, session_id: str) -> bool:
        return self._outbox.awaits(session_id)

    def _bring_back(self, known: RestorePoint, claim: Claim) -> Outcome:
        if known.status == "deleted":
            return Outcome.GONE
        ended_ms = known.session.session_completed_ms or 0
        if known.status in TERMINAL and self._store.time_ms() >= ended_ms + self._kept_ms:
            return Outcome.ENDED
        self._store.restore(known, self._clock, claim)
        return Outcome.RESTORED


class MissLimiter:
    """Which ids the log was asked about in vain a short while ago, and how many new ones it may be asked about."""

    def __init__(self) -> None:
        self._until_s: OrderedDict[str, float] = OrderedDict()
        self._bucket = TokenBucket(_MISSES_PER_S, _MISSES_PER_S, float("-inf"))

    def admit(self, session_id: str, now_s: float) -> bool:
        """Tell whether to ask; raises `AuditUnavailable` when too many were asked about."""
        if now_s < self._until_s.get(session_id, float("-inf")):
            return False
        if self._bucket.take(now_s):
            raise AuditUnavailable("too many sessions are looked for in the log; try again", _LATER)
        return True

    def note(self, session_id: str, now_s: float) -> None:
        """Note that there was nothing to bring back."""
        self._until_s[session_id] = now_s + _MISS_KEPT_S
        self._until_s.move_to_end(session_id)
        while len(self._until_s) > _MOST_MISSES:
            self._until_s.popitem(last=False)

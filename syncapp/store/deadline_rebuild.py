"""Rebuild: restores the deadlines of a bucket after their key was deleted.

Besides the sessions, each bucket's sorted set has a sentinel. Its score is +inf if the set has every live session.
A deleted set loses it, and later commands bring back their own sessions but not the sentinel. The holder of the
sweeper's lease checks all sentinels every `LOOK_S`. When one is missing it walks all sessions by SCAN, for a few
milliseconds between two passes of the sweep, and runs the expiry script on each session that has no deadline: the
script applies what is due and schedules the rest. During a walk the sentinel has a finite score: a set that is deleted
again meanwhile loses it, and is walked again.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import redis
import structlog
from redis.exceptions import ResponseError

from syncapp import metrics
from syncapp.store.client import TRANSLATION
from syncapp.store.connection_pool import packed, pool_of
from syncapp.store.keys import COMPLETE, SENTINEL, Keyspace
from syncapp.store.sessions import SessionStore

log = structlog.get_logger(__name__)

LOOK_S = 20.0
"""Time between two checks of the sentinels."""
WALKED = "9000000000000000"
"""Its score while the sessions are walked: an instant (ms) that never comes."""

_SLICE_S = 0.02  # how long a walk may keep the next pass of the sweep waiting
_SCANNED = 500  # keys one SCAN looks at
_AT_ONCE = 32  # sessions per round trip: each may commit 64 times


@dataclass(slots=True)
class _Walk:
    """A walk through all sessions for some buckets; todo: found sessions that may lack a deadline."""

    buckets: frozenset[int]
    begun_s: float
    cursor: int = 0
    scanned: bool = False
    todo: list[str] = field(default_factory=list)
    scheduled: int = 0
    failed: int = 0


class DeadlineRebuild:
    """Checks and walks in small steps, in the sweeper's thread and with its client."""

    def __init__(
        self, client: redis.Redis, store: SessionStore, keys: Keyspace, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pool = pool_of(client)
        self._store = store
        self._keys = keys
        self._clock = clock
        self._look_at_s = 0.0
        self._walk: _Walk | None = None

    def step(self, *, held: bool) -> None:
        """Check the sentinels if it is time, or continue a walk for a moment; never raises.

        held: whether this process has the sweeper's lease. Without it nothing is done, and a walk is given up: the next
        holder begins with a check.
        """
        if not held:
            self._walk, self._look_at_s = None, 0.0
            return
        try:
            if self._walk:
                self._go_on(self._walk)
            elif self._clock() >= self._look_at_s:
                self._look_at_s = self._clock() + LOOK_S
                self._look()
        except Exception as error:  # noqa: BLE001 the sweep must go on even if the rebuild fails
            self._walk, self._look_at_s = None, self._clock() + LOOK_S
            log.warning("deadlines_not_rebuilt", error=f"{type(error).__name__}: {error}", again_in_s=LOOK_S)

    def _look(self) -> None:
        """Begin a walk if a bucket's set is not known to be complete."""
        keys = list(map(self._keys.deadlines, range(self._keys.buckets)))
        scores = self._pool.call(b"".join(packed("ZSCORE", key, SENTINEL) for key in keys), len(keys))
        # A key of another type is told of by the sweeper.
        known = [(bucket, each) for bucket, each in enumerate(scores) if not isinstance(each, Exception)]
        lost = [bucket for bucket, score in known if score is None or float(score) != float(COMPLETE)]
        if lost:
            # A walk that an earlier holder gave up has set the same score.
            self._call([packed("ZADD", keys[bucket], "NX", WALKED, SENTINEL) for bucket in lost])
            self._walk = _Walk(frozenset(lost), self._clock())
            log.info("deadlines_incomplete", buckets=lost)

    def _go_on(self, walk: _Walk) -> None:
        """Continue a walk until its time slice is over; at least one round trip."""
        end_s = self._clock() + _SLICE_S
        while True:
            if walk.todo:
                batch, walk.todo = walk.todo[:_AT_ONCE], walk.todo[_AT_ONCE:]
                self._schedule(walk, batch)
            elif not walk.scanned:
                walk.todo = self._scan(walk)
            else:
                self._end(walk)
                return
            if self._clock() >= end_s:
                return

    def _scan(self, walk: _Walk) -> list[str]:
        """Return the next sessions of the walk's buckets that have no deadline, ended ones among them."""
        ((cursor, keys),) = self._call([packed("SCAN", walk.cursor, "MATCH", self._keys.sessions(), "COUNT", _SCANNED)])
        walk.cursor = int(cursor)
        walk.scanned = not walk.cursor
        found = filter(None, map(self._keys.session_of, keys))
        return self._unscheduled([each for each in found if self._keys.bucket(each) in walk.buckets])

    def _schedule(self, walk: _Walk, session_ids: Sequence[str]) -> None:
        """Run the expiry script on sessions: live ones have a deadline then. Raises `StoreUnavailable`."""
        for session_id, swept in zip(session_ids, self._store.expire(session_ids), strict=True):
            if isinstance(swept, ResponseError):
                _raise_if_unavailable(swept)
                walk.failed += 1
                log.error("session_not_scheduled", session_id=session_id, error=str(swept))
                continue
            for instant_ms in swept.instants_ms:
                metrics.EXPIRY_LATENESS.observe((swept.now_ms - instant_ms) / 1000)
        scheduled = len(session_ids) - len(self._unscheduled(session_ids))
        walk.scheduled += scheduled
        metrics.DEADLINES_REBUILT.inc(scheduled)

    def _end(self, walk: _Walk) -> None:
        """Mark the sets as complete, except those deleted during the walk: the next check finds them."""
        self._walk = None
        keys = map(self._keys.deadlines, sorted(walk.buckets))
        complete = self._call([packed("ZADD", key, "XX", "CH", COMPLETE, SENTINEL) for key in keys])
        tell = log.warning if walk.scheduled or walk.failed else log.info
        tell(
            "deadlines_rebuilt",
            buckets=sum(complete),
            sessions=walk.scheduled,
            failed=walk.failed,
            seconds=round(self._clock() - walk.begun_s, 3),
        )

    def _unscheduled(self, session_ids: Sequence[str]) -> list[str]:
        """Return those of the sessions that have no deadline."""
        by_key: dict[str, list[str]] = {}
        for each in session_ids:
            by_key.setdefault(self._keys.deadlines(self._keys.bucket(each)), []).append(each)
        scores = self._call([packed("ZMSCORE", key, *found) for key, found in by_key.items()])
        pairs = zip(chain(*by_key.values()), chain(*scores), strict=True)
        return [session_id for session_id, score in pairs if score is None]

    def _call(self, commands: Sequence[bytes]) -> list[Any]:
        """Return the replies to commands, all in one round trip. Raises the first error among them."""
        replies = self._pool.call(b"".join(commands), len(commands)) if commands else []
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies


def _raise_if_unavailable(error: ResponseError) -> None:
    """Raise `StoreUnavailable` if that is what an error reply means; any other error concerns only its session."""
    with contextlib.suppress(ResponseError), TRANSLATION:
        raise error

"""Rebuilds the deadlines of a bucket after their key was deleted.

Besides the sessions, each bucket's sorted set has a sentinel, with the score +inf if the set is complete. If the set is
deleted, later commands add their own sessions again, but not the sentinel. The sweeper that holds the first bucket's
lease checks all sentinels every `CHECK_S`. If one is missing, it scans all sessions, for at most 20 ms between two
passes of the sweep, and runs the expiry script on each session that has no deadline: the script applies what is due,
and schedules the rest. During a scan, the sentinel has a finite score. If the set is deleted again meanwhile, it loses
the sentinel, and a new scan follows.
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
from syncapp.store.key_scan import KeyScan
from syncapp.store.keys import COMPLETE, SENTINEL, Keyspace
from syncapp.store.sessions import SessionStore

log = structlog.get_logger(__name__)

CHECK_S = 20.0
"""Time between two checks of the sentinels."""
SCANNING = "9000000000000000"
"""Score of the sentinel during a scan: an instant (ms) in the far future."""

_SLICE_S = 0.02  # maximum delay of the next pass of the sweep
_SCAN_COUNT = 500  # keys that one SCAN examines
_BATCH = 32  # sessions per round trip; each may commit 64 times


@dataclass(slots=True)
class _Scan:
    """A scan of all sessions for some buckets; todo: sessions that may lack a deadline."""

    buckets: frozenset[int]
    started_s: float
    keys: KeyScan
    todo: list[str] = field(default_factory=list)
    scheduled: int = 0
    failed: int = 0


class DeadlineRebuild:
    """Checks and scans in short steps, in the sweeper's thread and with its client."""

    def __init__(
        self, client: redis.Redis, store: SessionStore, keys: Keyspace, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._pool = pool_of(client)
        self._store = store
        self._keys = keys
        self._clock = clock
        self._next_check_s = 0.0
        self._scan: _Scan | None = None

    def step(self, *, held: bool) -> None:
        """Check the sentinels if it is time, or continue a scan for one time slice; never raises.

        held: whether this process has the lease of the first bucket. Without it, nothing is done and a scan is
        abandoned: the next holder starts with a check.
        """
        if not held:
            self._scan, self._next_check_s = None, 0.0
            return
        try:
            if self._scan:
                self._continue(self._scan)
            elif self._clock() >= self._next_check_s:
                self._next_check_s = self._clock() + CHECK_S
                self._check()
        except Exception as error:  # noqa: BLE001 the sweep must go on even if the rebuild fails
            self._scan, self._next_check_s = None, self._clock() + CHECK_S
            log.warning("deadlines_not_rebuilt", error=f"{type(error).__name__}: {error}", again_in_s=CHECK_S)

    def _check(self) -> None:
        """Start a scan if the sentinel of a bucket does not show that its set is complete."""
        keys = list(map(self._keys.deadlines, range(self._keys.buckets)))
        scores = self._pool.call(*(packed("ZSCORE", key, SENTINEL) for key in keys))
        # The sweeper reports keys of another type.
        readable = [(bucket, each) for bucket, each in enumerate(scores) if not isinstance(each, Exception)]
        incomplete = [bucket for bucket, score in readable if score is None or float(score) != float(COMPLETE)]
        if incomplete:
            # An abandoned scan of an earlier holder has left the same score.
            self._call([packed("ZADD", keys[bucket], "NX", SCANNING, SENTINEL) for bucket in incomplete])
            scan = KeyScan(self._pool, self._keys.sessions(), _SCAN_COUNT)
            self._scan = _Scan(frozenset(incomplete), self._clock(), scan)
            log.info("deadlines_incomplete", buckets=incomplete)

    def _continue(self, scan: _Scan) -> None:
        """Continue a scan for one time slice; at least one round trip."""
        end_s = self._clock() + _SLICE_S
        while True:
            if scan.todo:
                batch, scan.todo = scan.todo[:_BATCH], scan.todo[_BATCH:]
                self._schedule(scan, batch)
            elif not scan.keys.is_complete:
                scan.todo = self._next_sessions(scan)
            else:
                self._end(scan)
                return
            if self._clock() >= end_s:
                return

    def _next_sessions(self, scan: _Scan) -> list[str]:
        """Return the next sessions of the scan's buckets that have no deadline, including finished sessions."""
        names = filter(None, map(self._keys.session_of, scan.keys.next()))
        return self._unscheduled([each for each in names if self._keys.bucket(each) in scan.buckets])

    def _schedule(self, scan: _Scan, session_ids: Sequence[str]) -> None:
        """Run the expiry script on sessions, which schedules the live ones. Raises `StoreUnavailable`."""
        for session_id, result in zip(session_ids, self._store.expire(session_ids), strict=True):
            if isinstance(result, ResponseError):
                _raise_if_unavailable(result)
                scan.failed += 1
                log.error("session_not_scheduled", session_id=session_id, error=str(result))
                continue
            for instant_ms in result.instants_ms:
                metrics.EXPIRY_LATENESS.observe((result.now_ms - instant_ms) / 1000)
        scheduled = len(session_ids) - len(self._unscheduled(session_ids))
        scan.scheduled += scheduled
        metrics.DEADLINES_REBUILT.inc(scheduled)

    def _end(self, scan: _Scan) -> None:
        """Mark the sets as complete, except any that were deleted during the scan; the next check finds those."""
        self._scan = None
        keys = map(self._keys.deadlines, sorted(scan.buckets))
        marked = self._call([packed("ZADD", key, "XX", "CH", COMPLETE, SENTINEL) for key in keys])
        write_log = log.warning if scan.scheduled or scan.failed else log.info
        write_log(
            "deadlines_rebuilt",
            buckets=sum(marked),
            sessions=scan.scheduled,
            failed=scan.failed,
            seconds=round(self._clock() - scan.started_s, 3),
        )

    def _unscheduled(self, session_ids: Sequence[str]) -> list[str]:
        """Return the sessions that have no deadline."""
        by_key: dict[str, list[str]] = {}
        for each in session_ids:
            by_key.setdefault(self._keys.deadlines(self._keys.bucket(each)), []).append(each)
        scores = self._call([packed("ZMSCORE", key, *names) for key, names in by_key.items()])
        pairs = zip(chain(*by_key.values()), chain(*scores), strict=True)
        return [session_id for session_id, score in pairs if score is None]

    def _call(self, commands: Sequence[bytes]) -> list[Any]:
        """Send commands in one round trip, and return the replies. Raises the first error among them."""
        replies = self._pool.call(*commands) if commands else []
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
        return replies


def _raise_if_unavailable(error: ResponseError) -> None:
    """Raise `StoreUnavailable` if an error reply means it; any other error concerns only its session."""
    with contextlib.suppress(ResponseError), TRANSLATION:
        raise error

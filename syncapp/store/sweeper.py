"""The sweeper: applies timeouts, warnings and idle ends when they are due (docs/clock.md).

Commands apply what is due first, so states are correct even without a sweeper; but then clients would learn of timeouts
and warnings only at the next command or read. Several processes may sweep at once, because the expiry script checks
again what is due. That would be a waste, so a lease lets one process sweep at a time.
"""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis
import structlog
from redis.exceptions import LockError, RedisError, ResponseError
from redis.lock import Lock

from syncapp import metrics
from syncapp.errors import StoreUnavailable
from syncapp.loops import Loops
from syncapp.store.connection_pool import packed, pool_of
from syncapp.store.deadline_rebuild import DeadlineRebuild
from syncapp.store.keys import Keyspace
from syncapp.store.list_upkeep import KEEPS_LISTS, ListUpkeep
from syncapp.store.sessions import SessionStore

log = structlog.get_logger(__name__)

LEASE_S = 1.0
"""Lifetime of the lease, unless its holder renews it."""
RENEW_S = LEASE_S / 4
"""Time between two attempts to take or renew the lease."""
MAX_WAIT_S = 0.02
"""Maximum wait between two passes, because a command may set an earlier deadline than the earliest known one."""

_MIN_WAIT_S = 0.001  # one pass applies deadlines closer together than this
_BATCH = 128  # sessions per round trip
_MIN_PER_BUCKET = 4
_MAX_BACKOFF_S = 0.5
_SKIP_S = 10.0


@dataclass(frozen=True, slots=True)
class Sweep:
    """The result of a pass.

    sessions: number of due sessions. instants: number of applied warnings, timeouts and idle ends. wait_s: time to the
    next pass; 0 if more is due already.
    """

    sessions: int
    instants: int
    wait_s: float


class Lease:
    """The lease to sweep, which one process holds at a time.

    A process that was suspended may sweep after its lease has ended, so nothing may depend on exclusive sweeping.
    """

    def __init__(self, client: redis.Redis, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._name = name
        self._lock = Lock(client, name, timeout=LEASE_S, thread_local=False)
        self._clock = clock
        self._next_attempt_s = 0.0
        self.held = False

    def hold(self) -> bool:
        """Take or renew the lease if it is time; return whether it is held. Raises redis-py's errors."""
        if self._clock() >= self._next_attempt_s:
            self._set_held((self.held and self._renew()) or self._take())
            if not self.held:
                self._remove_stale_key()
            self._next_attempt_s = self._clock() + RENEW_S
        return self.held

    def _remove_stale_key(self) -> None:
        """Delete a key that will not expire in time: written by something else, or before the clock was set back."""
        left_ms = int(self._client.pttl(self._name))
        if left_ms == -1 or left_ms > 2 * LEASE_S * 1000:
            log.error("sweeper_lease_removed", left_ms=left_ms)
            self._client.delete(self._name)

    def release(self) -> None:
        """Release the lease, so that another process can take it at once. Raises redis-py's errors."""
        if self.held:
            self._set_held(False)
            self._next_attempt_s = 0.0
            with contextlib.suppress(LockError):  # another process holds it now
                self._lock.release()

    def _take(self) -> bool:
        return bool(self._lock.acquire(blocking=False, token=f"{KEEPS_LISTS}{uuid.uuid4().hex}"))

    def _renew(self) -> bool:
        try:
            return self._lock.reacquire()
        except LockError:
            self._set_held(False)
            return False

    def _set_held(self, held: bool) -> None:
        if held != self.held:
            self.held = held
            metrics.SWEEPING.set(held)
            log.info("sweeper_lease_taken" if held else "sweeper_lease_ended")


class Sweeper:
    """Sweeps in its own thread while it holds the lease.

    client: one that requests do not use, so that neither waits for the other; store: preferably one on that client.
    """

    def __init__(
        self,
        client: redis.Redis,
        store: SessionStore,
        *,
        buckets: int = 16,
        clock: Callable[[], float] = time.monotonic,
        loops: Loops | None = None,
    ) -> None:
        keys = Keyspace(buckets)
        self._loops = loops or Loops()
        self._pool = pool_of(client)
        self._store = store
        self._clock = clock
        self._deadlines = [keys.deadlines(bucket) for bucket in range(buckets)]
        self._per_bucket = max(_MIN_PER_BUCKET, -(-_BATCH // buckets))
        self._upcoming: list[tuple[float, str]] = []
        self._offset_ms = 0.0
        self._skipped: dict[str, float] = {}
        self._lease = Lease(client, keys.sweeper(), clock)
        self._rebuild = DeadlineRebuild(client, store, keys, clock)
        self._list_upkeep = ListUpkeep(client, store, keys, clock)
        self._failures = 0
        self._unreadable: set[str] = set()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def sweeping(self) -> bool:
        """Whether this process held the lease at its last attempt."""
        return self._lease.held

    def start(self) -> None:
        """Start the thread, after the fork; does nothing if it runs."""
        if self._thread is None or not self._thread.is_alive():
            self._stopping.clear()
            self._thread = self._loops.start("sweeper", self._turn, self._stopping, at_end=self._release)

    def stop(self) -> None:
        """Stop the thread, so that another process can take over at once; waits at most 5 s for it."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(5.0)

    def run(self) -> None:
        """Sweep, or wait for the lease, until stopped; survives all failures."""
        self.start()
        if self._thread is not None:
            self._thread.join()

    def _release(self) -> None:
        try:
            self._lease.release()
        except RedisError as error:
            log.info("sweeper_lease_left", error=str(error))  # it expires by itself

    def run_once(self, now_ms: float | None = None) -> Sweep:
        """Apply what is due at `now_ms`, by default the server's time, to one or more batches of sessions.

        Raises `StoreUnavailable` and redis-py's errors: what was applied by then stays, and the rest is still due.
        """
        if upcoming := self._due(now_ms):
            # Known deadlines are not read again first, because the script checks them.
            return Sweep(len(upcoming), self._expire(upcoming)[0], 0.0)
        more = self._read_deadlines(now_ms)
        due = self._due(now_ms)
        instants, busy = self._expire(due)
        if instants and (more or busy):  # otherwise a pass that changes nothing would repeat at once
            return Sweep(len(due), instants, 0.0)
        next_ms = self._upcoming[0][0] if self._upcoming else float("inf")
        wait_s = (next_ms - (self._now_ms() if now_ms is None else now_ms)) / 1000
        return Sweep(len(due), instants, min(max(wait_s, _MIN_WAIT_S), MAX_WAIT_S))

    def _read_deadlines(self, now_ms: float | None) -> bool:
        """Read the first entries of each bucket, in one round trip; return whether more than these are due."""
        now_s = self._clock()
        self._skipped = {session_id: until_s for session_id, until_s in self._skipped.items() if until_s > now_s}
        limit = self._per_bucket + len(self._skipped)
        reads = (packed("ZRANGE", key, 0, limit - 1, "WITHSCORES") for key in self._deadlines)
        replies = self._pool.call(b"".join((packed("TIME"), *reads)), 1 + len(self._deadlines))
        now, *entries = replies
        if isinstance(now, Exception):
            raise now
        seconds, micros = now
        flat = self._readable(entries)
        # This clock is late by at most the reply's travel time, so nothing counts as due too early.
        self._offset_ms = int(seconds) * 1000 + int(micros) / 1000 - self._clock() * 1000
        now_ms = self._now_ms() if now_ms is None else now_ms
        heads = [list(zip(each[::2], map(float, each[1::2]), strict=True)) for each in flat]
        self._upcoming = sorted((at, each) for head in heads for each, at in head if each not in self._skipped)
        return any(len(head) == limit and head[-1][1] <= now_ms for head in heads)

    def _readable(self, entries: Sequence[Any]) -> list[Any]:
        """Return the entries of the buckets that can be read; an unreadable bucket must not delay the others.

        Raises the error if no bucket can be read.
        """
        errors = {key: each for key, each in zip(self._deadlines, entries, strict=True) if isinstance(each, Exception)}
        if len(errors) == len(entries):
            raise next(iter(errors.values()))
        if errors.keys() != self._unreadable:
            self._unreadable = set(errors)
            for key, error in errors.items():
                log.error("deadlines_not_read", key=key, error=str(error))
        if errors:
            metrics.LOOP_FAILURES.labels("sweeper").inc()
        return [each for each in entries if not isinstance(each, Exception)]

    def _due(self, now_ms: float | None) -> list[str]:
        """Remove the due sessions from the upcoming ones, and return them."""
        now_ms = self._now_ms() if now_ms is None else now_ms
        count = sum(at <= now_ms for at, _ in self._upcoming)
        due, self._upcoming = self._upcoming[:count], self._upcoming[count:]
        return [session_id for _, session_id in due]

    def _now_ms(self) -> float:
        """Return the server's time, extrapolated from the last read."""
        return self._clock() * 1000 + self._offset_ms

    def _expire(self, session_ids: Sequence[str]) -> tuple[int, bool]:
        """Apply what is due to sessions; return the number of instants, and whether more is due than a call applies."""
        instants, more = 0, False
        for first in range(0, len(session_ids), _BATCH):
            batch = session_ids[first : first + _BATCH]
            for session_id, result in zip(batch, self._store.expire(batch), strict=True):
                if isinstance(result, ResponseError):
                    self._skip(session_id, result)
                    continue
                for instant_ms in result.instants_ms:
                    metrics.EXPIRY_LATENESS.observe((result.now_ms - instant_ms) / 1000)
                instants += len(result.instants_ms)
                more = more or result.more
        return instants, more

    def _skip(self, session_id: str, error: ResponseError) -> None:
        """Skip a session for 10 s, because it would take the place of another one in each pass."""
        self._skipped[session_id] = self._clock() + _SKIP_S
        metrics.EXPIRY_FAILURES.inc()
        log.error("session_not_expired", session_id=session_id, error=str(error), again_in_s=_SKIP_S)

    def _turn(self) -> float:
        """Do one pass if this process holds the lease; return the time (s) until the next."""
        try:
            wait_s = self.run_once().wait_s if self._lease.hold() else RENEW_S
            self._rebuild.step(held=self._lease.held)
            self._list_upkeep.step(held=self._lease.held)
        except (RedisError, StoreUnavailable) as error:
            if not self._failures:
                log.warning("sweeper_without_store", error=f"{type(error).__name__}: {error}")
        except Exception:
            if not self._failures:
                log.exception("sweeper_failed")
        else:
            if self._failures:
                log.info("sweeper_recovered", failures=self._failures)
            self._failures = 0
            return wait_s
        self._failures += 1
        metrics.LOOP_FAILURES.labels("sweeper").inc()
        return float(min(0.01 * 2**self._failures, _MAX_BACKOFF_S))

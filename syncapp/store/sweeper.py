"""The sweeper: lets happen on time what sessions do by themselves (docs/clock.md).

Commands apply what is due before anything else, so nothing is ever wrong for want of a sweeper; without
one, timeouts and warnings would only show when somebody came. Any number may sweep at once: the script
that they call looks again. One of them at a time does so, by a lease, because more would be wasted.
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
"""How long after its holder was last heard of the lease is free again."""
RENEW_S = LEASE_S / 4
"""Between two looks at the lease, by its holder and by those who wait for it."""
MOST_WAIT_S = 0.02
"""Longest wait between two passes: a deadline may be set nearer than the nearest that was known."""

_LEAST_WAIT_S = 0.001  # deadlines closer together than this are one pass
_BATCH = 128  # sessions one round trip applies what is due to
_LEAST_OF_A_BUCKET = 4
_LONGEST_BACKOFF_S = 0.5
_ASIDE_S = 10.0


@dataclass(frozen=True, slots=True)
class Sweep:
    """What a pass did.

    sessions: how many were due. instants: how many warnings, timeouts and idle ends that came to. wait_s:
    until the next pass; 0 when more is due already.
    """

    sessions: int
    instants: int
    wait_s: float


class Lease:
    """The right to sweep, which one process has at a time.

    A holder that was stopped believes in it for a moment too long: nothing may depend on having it alone.
    """

    def __init__(self, client: redis.Redis, name: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._client = client
        self._name = name
        self._lock = Lock(client, name, timeout=LEASE_S, thread_local=False)
        self._clock = clock
        self._look_at_s = 0.0
        self.held = False

    def hold(self) -> bool:
        """Take the lease or renew it, if it is time to look; tell whether it is held. Raises what redis raises."""
        if self._clock() >= self._look_at_s:
            self._tell((self.held and self._renewed()) or self._taken())
            if not self.held:
                self._remove_if_no_lease()
            self._look_at_s = self._clock() + RENEW_S
        return self.held

    def _remove_if_no_lease(self) -> None:
        """Delete a key that will not end in time: one of another making, or of before the clock was set back."""
        left_ms = int(self._client.pttl(self._name))
        if left_ms == -1 or left_ms > 2 * LEASE_S * 1000:
            log.error("sweeper_lease_removed", left_ms=left_ms)
            self._client.delete(self._name)

    def release(self) -> None:
        """Let another process take it at once. Raises what redis raises."""
        if self.held:
            self._tell(False)
            self._look_at_s = 0.0
            with contextlib.suppress(LockError):  # another process has it by now
                self._lock.release()

    def _taken(self) -> bool:
        return bool(self._lock.acquire(blocking=False, token=f"{KEEPS_LISTS}{uuid.uuid4().hex}"))

    def _renewed(self) -> bool:
        try:
            return self._lock.reacquire()
        except LockError:
            self._tell(False)
            return False

    def _tell(self, held: bool) -> None:
        if held != self.held:
            self.held = held
            metrics.SWEEPING.set(held)
            log.info("sweeper_lease_taken" if held else "sweeper_lease_ended")


class Sweeper:
    """Sweeps in a thread of its own while it holds the lease.

    client: for a connection that no request waits for or makes wait; store: best one that uses it, too.
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
        self._of_a_bucket = max(_LEAST_OF_A_BUCKET, -(-_BATCH // buckets))
        self._coming: list[tuple[float, str]] = []
        self._ahead_ms = 0.0
        self._aside: dict[str, float] = {}
        self._lease = Lease(client, keys.sweeper(), clock)
        self._rebuild = DeadlineRebuild(client, store, keys, clock)
        self._listing = ListUpkeep(client, store, keys, clock)
        self._failures = 0
        self._unreadable: set[str] = set()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def sweeping(self) -> bool:
        """Whether this process held the lease when it last looked."""
        return self._lease.held

    def start(self) -> None:
        """Start the thread, in the process that has forked; does nothing when it runs."""
        if self._thread is None or not self._thread.is_alive():
            self._stopping.clear()
            self._thread = self._loops.start("sweeper", self._turn, self._stopping, at_end=self._release)

    def stop(self) -> None:
        """End the thread and let another process take over at once; waits for it at most 5 s."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(5.0)

    def run(self) -> None:
        """Sweep, or wait for the lease, until stopped; no failure ends it."""
        self.start()
        if self._thread is not None:
            self._thread.join()

    def _release(self) -> None:
        try:
            self._lease.release()
        except RedisError as error:
            log.info("sweeper_lease_left", error=str(error))  # it ends by itself

    def run_once(self, now_ms: float | None = None) -> Sweep:
        """Apply what is due at `now_ms`, by default the server's time, to a batch of sessions or a few.

        Raises `StoreUnavailable` and what redis raises: what had been applied by then stays, what had not is
        still due.
        """
        if seen := self._due(now_ms):
            # What was seen coming waits for no second look, because the script looks again.
            return Sweep(len(seen), self._expire(seen)[0], 0.0)
        more = self._look(now_ms)
        due = self._due(now_ms)
        instants, busy = self._expire(due)
        if instants and (more or busy):  # a pass that changed nothing must not be followed by another at once
            return Sweep(len(due), instants, 0.0)
        next_ms = self._coming[0][0] if self._coming else float("inf")
        wait_s = (next_ms - (self._now_ms() if now_ms is None else now_ms)) / 1000
        return Sweep(len(due), instants, min(max(wait_s, _LEAST_WAIT_S), MOST_WAIT_S))

    def _look(self, now_ms: float | None) -> bool:
        """Read each bucket's first entries, in one round trip; tell whether more than these are due."""
        now_s = self._clock()
        self._aside = {session_id: until_s for session_id, until_s in self._aside.items() if until_s > now_s}
        reach = self._of_a_bucket + len(self._aside)
        looks = (packed("ZRANGE", key, 0, reach - 1, "WITHSCORES") for key in self._deadlines)
        found = self._pool.call(b"".join((packed("TIME"), *looks)), 1 + len(self._deadlines))
        now, *heads_found = found
        if isinstance(now, Exception):
            raise now
        seconds, micros = now
        flat = self._readable(heads_found)
        # Behind the server's by at most the way back: nothing is taken for due too early.
        self._ahead_ms = int(seconds) * 1000 + int(micros) / 1000 - self._clock() * 1000
        now_ms = self._now_ms() if now_ms is None else now_ms
        heads = [list(zip(each[::2], map(float, each[1::2]), strict=True)) for each in flat]
        self._coming = sorted((at, each) for head in heads for each, at in head if each not in self._aside)
        return any(len(head) == reach and head[-1][1] <= now_ms for head in heads)

    def _readable(self, found: Sequence[Any]) -> list[Any]:
        """Return the heads of the buckets that can be read: one that can't must not hold up the others.

        Raises the error when none can.
        """
        bad = {key: each for key, each in zip(self._deadlines, found, strict=True) if isinstance(each, Exception)}
        if len(bad) == len(found):
            raise next(iter(bad.values()))
        if bad.keys() != self._unreadable:
            self._unreadable = set(bad)
            for key, error in bad.items():
                log.error("deadlines_not_read", key=key, error=str(error))
        if bad:
            metrics.LOOP_FAILURES.labels("sweeper").inc()
        return [each for each in found if not isinstance(each, Exception)]

    def _due(self, now_ms: float | None) -> list[str]:
        """Return those of the sessions seen coming whose time has come, and see them coming no more."""
        now_ms = self._now_ms() if now_ms is None else now_ms
        count = sum(at <= now_ms for at, _ in self._coming)
        due, self._coming = self._coming[:count], self._coming[count:]
        return [session_id for _, session_id in due]

    def _now_ms(self) -> float:
        """Return the server's time, as it was at the last look and has gone on since."""
        return self._clock() * 1000 + self._ahead_ms

    def _expire(self, session_ids: Sequence[str]) -> tuple[int, bool]:
        """Apply what is due to sessions; return how much that was, and whether more is due than one call applies."""
        instants, more = 0, False
        for first in range(0, len(session_ids), _BATCH):
            batch = session_ids[first : first + _BATCH]
            for session_id, swept in zip(batch, self._store.expire(batch), strict=True):
                if isinstance(swept, ResponseError):
                    self._set_aside(session_id, swept)
                    continue
                for instant_ms in swept.instants_ms:
                    metrics.EXPIRY_LATENESS.observe((swept.now_ms - instant_ms) / 1000)
                instants += len(swept.instants_ms)
                more = more or swept.more
        return instants, more

    def _set_aside(self, session_id: str, error: ResponseError) -> None:
        """Leave a session alone for a while: in each pass it would take the place of another."""
        self._aside[session_id] = self._clock() + _ASIDE_S
        metrics.EXPIRY_FAILURES.inc()
        log.error("session_not_expired", session_id=session_id, error=str(error), again_in_s=_ASIDE_S)

    def _turn(self) -> float:
        """Do one pass, if it is this process's turn; return how long to wait (s) before the next."""
        try:
            wait_s = self.run_once().wait_s if self._lease.hold() else RENEW_S
            self._rebuild.step(held=self._lease.held)
            self._listing.step(held=self._lease.held)
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
        return float(min(0.01 * 2**self._failures, _LONGEST_BACKOFF_S))

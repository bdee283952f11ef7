"""The sweeper: applies timeouts, warnings and idle ends when they are due (docs/clock.md).

Commands apply what is due first, so states are correct even without a sweeper; but then clients would learn of timeouts
and warnings only at the next command or read. Processes share the buckets by leases (`bucket_leases`). Several may
sweep the same bucket at once, because the expiry script checks again what is due.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import redis
import structlog
from redis.exceptions import RedisError, ResponseError

from syncapp import metrics
from syncapp.errors import StoreUnavailable
from syncapp.loops import Loops
from syncapp.store.bucket_leases import RENEW_S, BucketLeases
from syncapp.store.connection_pool import packed, pool_of
from syncapp.store.deadline_rebuild import DeadlineRebuild
from syncapp.store.keys import SENTINEL, Keyspace
from syncapp.store.list_upkeep import ListUpkeep
from syncapp.store.sessions import SessionStore

log = structlog.get_logger(__name__)

MAX_WAIT_S = 0.02
"""Maximum wait between two passes, because a command may set an earlier deadline than the earliest known one."""

_MIN_WAIT_S = 0.001  # one pass applies deadlines closer together than this
_BATCH = 128  # sessions per round trip
_IDLE = [SENTINEL, "inf"]  # the entries of a bucket without live sessions
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


class Sweeper:
    """Sweeps its share of the buckets in its own thread.

    client: one that requests do not use, so that neither waits for the other; store: preferably one on that client.
    leases: by default its own. choose: returns the buckets to sweep, before each pass, all on one server; by default
    `leases.hold`. With it, the leases, and what else their holder does, are the business of others.
    """

    def __init__(
        self,
        client: redis.Redis,
        store: SessionStore,
        *,
        buckets: int = 64,
        leases: BucketLeases | None = None,
        choose: Callable[[], Sequence[int]] | None = None,
        clock: Callable[[], float] = time.monotonic,
        loops: Loops | None = None,
        name: str = "sweeper",
    ) -> None:
        keys = Keyspace(buckets)
        self._name = name
        self._loops = loops or Loops()
        self._pool = pool_of(client)
        self._store = store
        self._clock = clock
        self._keys = keys
        self._buckets: Sequence[int] = range(buckets)
        self._prepared: tuple[tuple[int, ...], int, Sequence[str], Sequence[bytes]] = ((), 0, (), ())
        self._upcoming: list[tuple[float, str]] = []
        self._offset_ms = 0.0
        self._skipped: dict[str, float] = {}
        self._leases = leases or BucketLeases(client, keys, clock)
        self._choose = choose or self._leases.hold
        self._holds_leases = choose is None
        upkeep = (DeadlineRebuild(client, store, keys, clock), ListUpkeep(client, store, keys, clock))
        self._upkeep = upkeep if self._holds_leases else ()
        self._failures = 0
        self._unreadable: set[str] = set()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def sweeping(self) -> bool:
        """Whether this process held the lease of a bucket at its last attempt."""
        return bool(self._leases.held)

    def start(self) -> None:
        """Start the thread, after the fork; does nothing if it runs."""
        if self._thread is None or not self._thread.is_alive():
            self._stopping.clear()
            self._thread = self._loops.start(self._name, self._turn, self._stopping, at_end=self._release)

    def ask_to_stop(self) -> None:
        """Have the thread stop after its present turn."""
        self._stopping.set()

    def stop(self) -> None:
        """Stop the thread, so that other processes can take over at once; waits at most 5 s for it."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(5.0)

    def run(self) -> None:
        """Sweep, or wait for leases, until stopped; survives all failures."""
        self.start()
        if self._thread is not None:
            self._thread.join()

    def _release(self) -> None:
        try:
            if self._holds_leases:
                self._leases.release()
        except RedisError as error:
            log.info("sweeper_leases_left", error=str(error))  # they expire by themselves

    def run_once(self, now_ms: float | None = None, buckets: Sequence[int] | None = None) -> Sweep:
        """Apply what is due at `now_ms`, by default the server's time, to one or more batches of sessions.

        buckets: the buckets to sweep, at least one; by default all. Raises `StoreUnavailable` and redis-py's errors:
        what was applied by then stays, and the rest is still due.
        """
        buckets = range(self._keys.buckets) if buckets is None else buckets
        if buckets != self._buckets:
            self._buckets, self._upcoming = buckets, []
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
        limit = max(_MIN_PER_BUCKET, -(-_BATCH // len(self._buckets))) + len(self._skipped)
        keys, reads = self._reads(tuple(self._buckets), limit)
        entry, now, *entries = self._pool.call(*reads)
        if isinstance(now, Exception):
            raise now
        seconds, micros = now
        flat = self._readable(keys, [entry, *entries])
        # This clock is late by at most the reply's travel time, so nothing counts as due too early.
        self._offset_ms = int(seconds) * 1000 + int(micros) / 1000 - self._clock() * 1000
        now_ms = self._now_ms() if now_ms is None else now_ms
        heads = [list(zip(each[::2], map(float, each[1::2]), strict=True)) for each in flat if each != _IDLE]
        self._upcoming = sorted((at, each) for head in heads for each, at in head if each not in self._skipped)
        return any(len(head) == limit and head[-1][1] <= now_ms for head in heads)

    def _reads(self, buckets: tuple[int, ...], limit: int) -> tuple[Sequence[str], Sequence[bytes]]:
        """Return the keys to read, and the commands that read them and the time; the same ones as long as they fit.

        The second command reads the time: in a cluster, one without a key follows the one before it to its server.
        """
        if self._prepared[:2] != (buckets, limit):
            keys = [self._keys.deadlines(bucket) for bucket in buckets]
            first, *others = (packed("ZRANGE", key, 0, limit - 1, "WITHSCORES") for key in keys)
            self._prepared = buckets, limit, keys, (first, packed("TIME"), *others)
        return self._prepared[2:]

    def _readable(self, keys: Sequence[str], entries: Sequence[Any]) -> Sequence[Any]:
        """Return the entries of the buckets that can be read; an unreadable bucket must not delay the others.

        Raises an error that concerns more than its key if no bucket can be read.
        """
        errors = {key: each for key, each in zip(keys, entries, strict=True) if isinstance(each, Exception)}
        if not errors and not self._unreadable:
            return entries
        general = [each for each in errors.values() if not str(each).startswith("WRONGTYPE")]
        if general and len(errors) == len(entries):
            raise general[0]
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
        """Do one pass if there are buckets to sweep; return the time (s) until the next."""
        try:
            self._store.require_buckets()
            buckets = self._choose()
            wait_s = self.run_once(buckets=buckets).wait_s if buckets else RENEW_S
            for work in self._upkeep:
                work.step(held=0 in self._leases.held)
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

"""Drain requests (nudges): ask for a bucket to be drained, now or later, without waiting for the drain."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence

import structlog
from redis.exceptions import RedisError

from syncapp.errors import one_line
from syncapp.loops import Loops

log = structlog.get_logger(__name__)

_MAX_WAIT_S = 5.0
_RETRY_S = 1.0


class DrainRequests:
    """Requests drains without blocking the caller: a thread of its own calls `act(bucket)`.

    A request that fails is repeated every second, because after a restart of Redis every old connection fails once. No
    exception ends the thread. choose(buckets): returns those of the due buckets to act on, by default all; it must not
    raise.
    """

    def __init__(
        self,
        act: Callable[[int], None],
        *,
        choose: Callable[[Sequence[int]], Sequence[int]] = lambda buckets: buckets,
        name: str = "nudger",
        loops: Loops | None = None,
    ) -> None:
        self._act = act
        self._choose = choose
        self._name = name
        self._loops = loops or Loops()
        self._stopped = threading.Event()
        self._changed = threading.Condition()
        self._due: dict[int, float] = {}
        self._thread: threading.Thread | None = None
        self._is_failing = False

    def nudge(self, bucket: int, delay_s: float = 0.0) -> None:
        """Request a drain of a bucket after a delay; never blocks and never raises."""
        due = time.monotonic() + delay_s
        with self._changed:
            self._request(bucket, min(due, self._due.get(bucket, due)))

    def follow_up(self, bucket: int, delay_s: float) -> None:
        """Request a drain after a delay in which nobody else requests one: an earlier follow-up is dropped."""
        with self._changed:
            self._request(bucket, time.monotonic() + delay_s)

    def _request(self, bucket: int, due_s: float) -> None:
        """Note a request; the lock is held."""
        self._due[bucket] = due_s
        self._changed.notify()
        # The first request starts the thread, because a thread does not survive the fork of a process.
        if self._thread is None or not self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # no thread could be started; the next request tries again
                self._thread = self._loops.start(self._name, self.run_once, self._stopped)

    def run_once(self) -> None:
        """Wait until a request is due, for at most 5 s, and act on those that are due."""
        with self._changed:
            wait_s = min(self._due.values(), default=float("inf")) - time.monotonic()
            if wait_s > 0:
                self._changed.wait(min(wait_s, _MAX_WAIT_S))
            now = time.monotonic()
            due = [bucket for bucket, instant in self._due.items() if instant <= now]
            for bucket in due:
                del self._due[bucket]
        for bucket in self._choose(due) if due else ():
            self._loops.heartbeat(self._name)
            try:
                self._act(bucket)
            except Exception as error:  # noqa: BLE001 the request is repeated, whatever the error
                self.nudge(bucket, _RETRY_S)
                with contextlib.suppress(Exception):  # a log that cannot be written must not end the thread
                    self._log_failure(bucket, error)
                self._is_failing = True
            else:
                self._is_failing = False

    def _log_failure(self, bucket: int, error: Exception) -> None:
        """Log a failure: errors of Redis every time at DEBUG, any other error once until a request succeeds."""
        if isinstance(error, RedisError):
            log.debug("nudge_failed", bucket=bucket, error=one_line(error))
        elif not self._is_failing:
            log.error("nudge_failed", bucket=bucket, error=one_line(error), exc_info=error)

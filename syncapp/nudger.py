"""Nudges: a bucket is to be drained, now or in a while, and whoever says so does not wait for the queue."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable

import structlog
from redis.exceptions import RedisError

from syncapp.db import one_line

log = structlog.get_logger(__name__)

_AGAIN_S = 1.0  # after a nudge that failed


class Nudger:
    """Asks for drains without making its caller wait: a thread of its own talks to the queue.

    A nudge that fails is tried again each second: after a restart of Redis every old connection fails once.
    """

    def __init__(self, enqueue: Callable[[int], None]) -> None:
        self._enqueue = enqueue
        self._changed = threading.Condition()
        self._due: dict[int, float] = {}
        self._thread: threading.Thread | None = None

    def nudge(self, bucket: int, delay_s: float = 0.0) -> None:
        """Have a bucket drained, after a delay; never blocks, never raises."""
        due = time.monotonic() + delay_s
        with self._changed:
            self._due[bucket] = min(due, self._due.get(bucket, due))
            self._changed.notify()
            # Started by the first nudge, in the process that has forked.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="nudger", daemon=True)
                with contextlib.suppress(RuntimeError):  # no thread to be had: the next nudge tries again
                    self._thread.start()

    def run_once(self) -> None:
        """Wait until a nudge is due, or for a while, and enqueue those that are."""
        with self._changed:
            wait_s = min(self._due.values(), default=float("inf")) - time.monotonic()
            if wait_s > 0:
                self._changed.wait(min(wait_s, 60.0))
            now = time.monotonic()
            due = [bucket for bucket, instant in self._due.items() if instant <= now]
            for bucket in due:
                del self._due[bucket]
        for bucket in due:
            try:
                self._enqueue(bucket)
            except RedisError as error:
                log.debug("nudge_failed", bucket=bucket, error=one_line(error))
                self.nudge(bucket, _AGAIN_S)

    def _run(self) -> None:
        while True:
            self.run_once()

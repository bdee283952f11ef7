"""Loops: supervised background threads of a process.

A loop calls its `turn` repeatedly. An exception is counted, the first of consecutive ones is logged, and the next turn
follows a pause. So a loop ends only when it is stopped or with its process. `Loops.unwell` names the loops whose thread
has ended unexpectedly, or that have been in one turn for longer than STUCK_S.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog
from redis.exceptions import RedisError

from syncapp.errors import StoreUnavailable
from syncapp.metrics import LOOP_FAILURES, LOOP_TURNED

log = structlog.get_logger(__name__)

STUCK_S = 30.0
"""How long a turn may take before its loop counts as stuck."""
_EXPECTED = (RedisError, OSError, StoreUnavailable)
_FIRST_PAUSE_S = 0.05
_MAX_PAUSE_S = 2.0
_SHOWN_EVERY_S = 1.0


class Loop:
    """One loop. A long turn calls `heartbeat` to show that it is not stuck."""

    def __init__(self, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.label = name.partition("@")[0]
        """The label of its metrics: its name without the server that it is for, because servers come and go."""
        self.failures = 0
        """How many consecutive turns have failed."""
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._turned_s = clock()
        self._shown_s = float("-inf")

    def run(self, turn: Callable[[], float | None], stopped: threading.Event) -> None:
        """Call `turn` until `stopped` is set. It returns how long to wait before the next one (s), or None."""
        self._thread = threading.current_thread()
        self._turned_s = self._clock()
        wait_s: float | None = 0.0
        while not (stopped.wait(wait_s) if wait_s else stopped.is_set()):
            self.heartbeat()
            wait_s = self._turn(turn)

    def heartbeat(self) -> None:
        """Record that the loop is still running."""
        now_s = self._turned_s = self._clock()
        if now_s - self._shown_s >= _SHOWN_EVERY_S:  # the sweeper has 1,000 turns a second
            self._shown_s = now_s
            LOOP_TURNED.labels(self.label).set(time.time())

    def is_well(self, now_s: float) -> bool:
        """Return whether the loop runs and is not stuck."""
        return self._thread is not None and self._thread.is_alive() and now_s - self._turned_s < STUCK_S

    def _turn(self, turn: Callable[[], float | None]) -> float | None:
        try:
            wait_s = turn()
        except Exception as error:
            self.failures += 1
            LOOP_FAILURES.labels(self.label).inc()
            if self.failures == 1:
                text = f"{type(error).__name__}: {error}"
                # Without a traceback if the store cannot be reached.
                log.warning("loop_failed", exc_info=not isinstance(error, _EXPECTED), loop=self.name, error=text)
            return float(min(_FIRST_PAUSE_S * 2 ** min(self.failures, 10), _MAX_PAUSE_S))
        if self.failures:
            log.info("loop_recovered", loop=self.name, failures=self.failures)
            self.failures = 0
        return wait_s


class Loops:
    """The running loops of one process."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._running: dict[str, Loop] = {}

    def start(
        self,
        name: str,
        turn: Callable[[], float | None],
        stopped: threading.Event,
        *,
        at_end: Callable[[], None] = lambda: None,
    ) -> threading.Thread:
        """Start a loop in its own thread, and return the thread, which calls `at_end` after the loop has stopped."""
        loop = self._running[name] = Loop(name, clock=self._clock)

        def run() -> None:
            loop.run(turn, stopped)
            if self._running.get(name) is loop:
                del self._running[name]
            if not any(each.label == loop.label for each in list(self._running.values())):
                LOOP_TURNED.labels(loop.label).set(float("inf"))  # it cannot be removed, and must not look stuck
            at_end()

        thread = loop._thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread

    def heartbeat(self, name: str) -> None:
        """Show, during a long turn, that the loop is not stuck."""
        if loop := self._running.get(name):
            loop.heartbeat()

    def unwell(self) -> list[str]:
        """Return the names of loops that are stuck or have ended without being stopped."""
        now_s = self._clock()
        return sorted(name for name, loop in list(self._running.items()) if not loop.is_well(now_s))

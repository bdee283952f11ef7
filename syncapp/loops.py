"""Loops: background threads of a process, supervised.

A loop calls its `turn` again and again. An exception is counted, and logged once per row of failures; the next turn
comes after a pause. So a loop ends only when it is stopped, or with its process. `Loops.unwell` names the loops whose
thread has ended unexpectedly, or that have been stuck in one turn for too long.
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
_LONGEST_PAUSE_S = 2.0
_SHOWN_EVERY_S = 1.0


class Loop:
    """One loop; a long turn calls `beat` to show that it is not stuck."""

    def __init__(self, name: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.failures = 0
        """How many turns have failed in a row."""
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._turned_s = clock()
        self._shown_s = float("-inf")

    def run(self, turn: Callable[[], float | None], stopped: threading.Event) -> None:
        """Call `turn` until `stopped`; it returns how long to wait (s) before the next one, None for no wait."""
        self._thread = threading.current_thread()
        self._turned_s = self._clock()
        wait_s: float | None = 0.0
        while not (stopped.wait(wait_s) if wait_s else stopped.is_set()):
            self.beat()
            wait_s = self._turn(turn)

    def beat(self) -> None:
        """Record that the loop is still running."""
        now_s = self._turned_s = self._clock()
        if now_s - self._shown_s >= _SHOWN_EVERY_S:  # the sweeper turns a thousand times a second
            self._shown_s = now_s
            LOOP_TURNED.labels(self.name).set(time.time())

    def is_well(self, now_s: float) -> bool:
        """Tell whether the loop runs and is not stuck."""
        return self._thread is not None and self._thread.is_alive() and now_s - self._turned_s < STUCK_S

    def _turn(self, turn: Callable[[], float | None]) -> float | None:
        try:
            wait_s = turn()
        except Exception as error:
            self.failures += 1
            LOOP_FAILURES.labels(self.name).inc()
            if self.failures == 1:
                told = {"loop": self.name, "error": f"{type(error).__name__}: {error}"}
                # No traceback for a store that is away.
                log.warning("loop_failed", exc_info=not isinstance(error, _EXPECTED), **told)
            return float(min(_FIRST_PAUSE_S * 2 ** min(self.failures, 10), _LONGEST_PAUSE_S))
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
        """Start a loop in its own thread and return the thread; `at_end` is called in it when the loop was stopped."""
        loop = self._running[name] = Loop(name, clock=self._clock)

        def run() -> None:
            loop.run(turn, stopped)
            if self._running.get(name) is loop:
                del self._running[name]
            at_end()

        thread = loop._thread = threading.Thread(target=run, name=name, daemon=True)
        thread.start()
        return thread

    def beat(self, name: str) -> None:
        """Show, from within a long turn, that the loop is not stuck."""
        if loop := self._running.get(name):
            loop.beat()

    def unwell(self) -> list[str]:
        """Return the names of loops that are stuck or have ended without being stopped."""
        now_s = self._clock()
        return sorted(name for name, loop in list(self._running.items()) if not loop.is_well(now_s))

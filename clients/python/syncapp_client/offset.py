"""The server's clock, measured over round trips. The local clock is monotonic; wall time plays no part."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

KEPT = 8
FIRST_PINGS = 5
"""Measurements in the first second of a connection; later ones follow every `PING_EVERY_S`."""
BURST_S = 0.2
PING_EVERY_S = 30.0
_SLEPT_S = 0.1
_DRIFT_MS = 20.0
"""By how much more than their errors two measurements may differ: clocks drift."""


def monotonic_ms() -> float:
    """Return the local clock, in ms; its zero means nothing."""
    return time.monotonic() * 1000


def sleeping_s() -> float:
    """Return how long this computer has slept since it was started, in s, where the system tells (Linux); else 0."""
    boot = getattr(time, "CLOCK_BOOTTIME", None)
    return 0.0 if boot is None else time.clock_gettime(boot) - time.monotonic()


@dataclass(frozen=True)
class ClockStats:
    """How well the server's clock is known.

    offset_ms: add it to `time.monotonic() * 1000` to get the server's time; None until it is measured. error_ms: the
    offset is wrong by at most this, half of the best round trip. round_trip_ms: the best one of those kept. spread_ms:
    half of the difference between the longest and the shortest one. samples: how many are kept, at most 8.
    """

    offset_ms: float | None = None
    error_ms: float | None = None
    round_trip_ms: float | None = None
    spread_ms: float | None = None
    samples: int = 0


class ServerClock:
    """The offset of the best of the last 8 round trips of one connection. Threads may read it at any time."""

    def __init__(
        self, local_ms: Callable[[], float] = monotonic_ms, sleeping_s: Callable[[], float] = sleeping_s
    ) -> None:
        self.local_ms = local_ms
        self._sleeping_s = sleeping_s
        self._slept_s = sleeping_s()
        self._since_ms = local_ms()
        self._samples: deque[tuple[float, float]] = deque(maxlen=KEPT)
        self._stats = ClockStats()

    def now(self) -> float | None:
        """Return the server's time in ms since 1970; None while it is not known."""
        offset_ms = self._stats.offset_ms
        return None if offset_ms is None else self.local_ms() + offset_ms

    def stats(self) -> ClockStats:
        """Return how well the server's clock is known."""
        return self._stats

    @property
    def known(self) -> bool:
        """Whether the server's time is known."""
        return self._stats.samples > 0

    def add(self, t0_ms: float, server_ms: float) -> bool:
        """Enter an answer that has just come; t0_ms: the local time of its question. Return whether it was used.

        A question from before the last `discard` is not: the local clock may have stopped since.
        """
        t1_ms = self.local_ms()
        if not self._since_ms <= t0_ms <= t1_ms:
            return False
        sample = (t1_ms - t0_ms, server_ms - (t0_ms + t1_ms) / 2)
        if self._samples and not _agree(sample, min(self._samples)):
            self._samples.clear()  # one of the two clocks was set, or stood still
        self._samples.append(sample)
        best_ms, offset_ms = min(self._samples)
        longest_ms = max(self._samples)[0]
        self._stats = ClockStats(offset_ms, best_ms / 2, best_ms, (longest_ms - best_ms) / 2, len(self._samples))
        return True

    def discard(self) -> None:
        """Forget all measurements: they belong to one connection, and to one stretch without sleep."""
        self._samples.clear()
        self._stats = ClockStats()
        self._since_ms = self.local_ms()

    def has_slept(self) -> bool:
        """Return whether the computer has slept since the last call; then the measurements are discarded."""
        slept_s = self._sleeping_s()
        if abs(slept_s - self._slept_s) < _SLEPT_S:
            return False
        self._slept_s = slept_s
        self.discard()
        return True


def _agree(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return abs(one[1] - other[1]) <= (one[0] + other[0]) / 2 + _DRIFT_MS

"""A monotonic clock for code that takes one."""

from __future__ import annotations


class StepClock:
    """A monotonic clock that only the test moves. now_s: what it shows."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s

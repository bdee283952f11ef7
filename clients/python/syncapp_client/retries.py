"""When to try again: full jitter, the server's `Retry-After`, and a deadline."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from syncapp_client.errors import TIMEOUT, SyncAppError

Result = TypeVar("Result")
LONGEST_S = 30.0
FIRST_S = 0.5
_SYSTEM = random.Random()  # seeded by the system: clients must not wait alike


def jitter_s(tries: int, rng: random.Random = _SYSTEM) -> float:
    """Return a random pause in s, from 0 to `min(30, 0.5 × 2**tries)`: so clients that lost one server spread out."""
    return rng.uniform(0, min(LONGEST_S, FIRST_S * 2 ** min(tries, 10)))


@dataclass(frozen=True)
class Retries:
    """How long something is tried, and how pauses are made; tests give their own `sleep` and `rng`."""

    timeout_s: float
    rng: random.Random = _SYSTEM
    sleep: Callable[[float], object] = time.sleep
    now_s: Callable[[], float] = time.monotonic

    def run(self, attempt: Callable[[float], Result], *, repeatable: bool, changes: bool) -> Result:
        """Return what `attempt(seconds left)` returns, trying again after transient errors.

        repeatable: trying again cannot have a second effect. changes: an attempt without an answer leaves the outcome
        unknown. Raises the `SyncAppError` that is not transient, or asks to wait beyond the time; else `TIMEOUT`.
        """
        end_s, tries, unknown = self.now_s() + self.timeout_s, 0, False
        while True:
            left_s = end_s - self.now_s()
            try:
                return attempt(max(0.0, left_s))
            except SyncAppError as error:
                unknown = error.outcome_unknown = changes and (error.outcome_unknown or unknown)
                may_repeat = repeatable or error.code == "RATE_LIMITED"
                if not error.is_transient or not may_repeat:
                    if not error.is_transient and error.status not in (401, 403, 500):
                        error.outcome_unknown = False  # with the same key: so no earlier try has taken effect
                    raise
                left_s = end_s - self.now_s()
                if error.retry_after_s is not None and error.retry_after_s >= left_s:
                    raise
                if left_s <= 0:
                    message = f"there was no answer within {self.timeout_s:g} s; the last failure was {error}"
                    raise SyncAppError(TIMEOUT, message, error.details, outcome_unknown=changes) from error
                self.sleep(min(left_s, max(error.retry_after_s or 0.0, jitter_s(tries, self.rng))))
                tries += 1

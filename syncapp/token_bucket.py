"""Token buckets, used by all rate limits."""

from __future__ import annotations

import threading
from collections import OrderedDict

MAX_ADDRESSES = 10_000


class TokenBucket:
    """Holds up to `burst` tokens, starts full, and gains `per_s` tokens a second. Times are monotonic, in seconds."""

    __slots__ = ("_at_s", "_burst", "_per_s", "_tokens")

    def __init__(self, per_s: float, burst: float, now_s: float) -> None:
        self._per_s = per_s
        self._burst = float(burst)
        self._tokens = self._burst
        self._at_s = now_s

    def take(self, now_s: float, amount: float = 1.0) -> float:
        """Take tokens and return 0; if there are too few, take none and return the seconds until there are enough.

        A full bucket is enough for any amount.
        """
        tokens = self.level(now_s)
        missing = min(amount, self._burst) - tokens
        if missing <= 0:
            self._tokens = tokens - amount
            return 0.0
        return missing / self._per_s

    def add(self, now_s: float, amount: float) -> None:
        """Return tokens, or take them if the amount is negative; the debt is at most one full bucket."""
        self._tokens = max(-self._burst, min(self._burst, self.level(now_s) + amount))

    def wait_s(self, now_s: float) -> float:
        """Return the seconds until there is a token; 0 if there is one."""
        return max(0.0, min(1.0, self._burst) - self.level(now_s)) / self._per_s

    def level(self, now_s: float) -> float:
        """Return the number of tokens; a negative number is a debt."""
        self._tokens = min(self._burst, self._tokens + (now_s - self._at_s) * self._per_s)
        self._at_s = now_s
        return self._tokens


class TokenBuckets:
    """A token bucket for each address. Thread-safe.

    Keeps the 10,000 most recently used addresses. A discarded address starts again with a full bucket.
    """

    def __init__(self, per_s: float, burst: float) -> None:
        self._per_s = per_s
        self._burst = burst
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def take(self, address: str, now_s: float, amount: float = 1.0) -> float:
        """Take tokens of an address and return 0, or return the seconds until there are enough (`TokenBucket.take`)."""
        with self._lock:
            return self._bucket(address, now_s).take(now_s, amount)

    def add(self, address: str, now_s: float, amount: float) -> None:
        """Return tokens to an address, or take them if the amount is negative."""
        with self._lock:
            self._bucket(address, now_s).add(now_s, amount)

    def wait_s(self, address: str, now_s: float) -> float:
        """Return the seconds until an address has a token; 0 if it has one."""
        with self._lock:
            bucket = self._buckets.get(address)
            return bucket.wait_s(now_s) if bucket else 0.0

    def debt(self, address: str, now_s: float) -> float:
        """Return how many tokens an address owes; 0 if it owes none."""
        if address not in self._buckets:  # most addresses; needs no lock
            return 0.0
        with self._lock:
            bucket = self._buckets.get(address)
            return max(0.0, -bucket.level(now_s)) if bucket else 0.0

    def level(self, address: str, now_s: float) -> float:
        """Return the number of tokens of an address."""
        with self._lock:
            return self._bucket(address, now_s).level(now_s)

    def _bucket(self, address: str, now_s: float) -> TokenBucket:
        bucket = self._buckets.pop(address, None) or TokenBucket(self._per_s, self._burst, now_s)
        while len(self._buckets) >= MAX_ADDRESSES:
            self._buckets.popitem(last=False)
        self._buckets[address] = bucket
        return bucket

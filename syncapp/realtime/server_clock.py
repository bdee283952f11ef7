"""The server's clock, kept as an offset to the local monotonic clock and corrected by samples."""

from __future__ import annotations

import time
from collections import deque
from typing import NamedTuple

_SAMPLES = 8
_ROUNDING_MS = 1.0
"""Added to the error of each sample, in ms."""


class _OffsetSample(NamedTuple):
    offset_ms: float
    error_ms: float


class ServerClock:
    """Knows the server's time without a round trip; it is this machine's time until the first sample.

    The sample with the shortest round trip determines the offset. If a new sample contradicts an older one, the
    server's clock was set: then the older samples are dropped.
    """

    def __init__(self) -> None:
        self._samples: deque[_OffsetSample] = deque(maxlen=_SAMPLES)
        self._offset_ms = (time.time() - time.monotonic()) * 1000

    @property
    def is_known(self) -> bool:
        """Whether there has been a sample."""
        return bool(self._samples)

    @property
    def is_settled(self) -> bool:
        """Whether there are enough samples to expect a good one among them."""
        return len(self._samples) == _SAMPLES

    def observe(self, sent_s: float, received_s: float, server_ms: float) -> None:
        """Add a sample: the server's time in ms, asked for and received at these monotonic instants (s)."""
        half_s = (received_s - sent_s) / 2
        sample = _OffsetSample(server_ms - (sent_s + half_s) * 1000, half_s * 1000 + _ROUNDING_MS)
        if any(abs(sample.offset_ms - old.offset_ms) > sample.error_ms + old.error_ms for old in self._samples):
            self._samples.clear()
        self._samples.append(sample)
        self._offset_ms = min(self._samples, key=lambda each: each.error_ms).offset_ms

    def now_ms(self) -> int:
        """Return the server's time in ms."""
        return int(time.monotonic() * 1000 + self._offset_ms)

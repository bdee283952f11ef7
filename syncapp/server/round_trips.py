"""The round trip of a WebSocket, measured by the server's own ping frames.

A pong counts if it returns the payload of the ping, which a client cannot know before it has the ping. So a client can
make its round trip look longer, but never shorter.
"""

from __future__ import annotations

import math
import os
import random

from syncapp.metrics import ROUND_TRIPS
from syncapp.realtime import frames

REFRESH_S = 5.0
"""A client that sends commands is pinged this often."""
MAX_ROUND_TRIP_S = 5.0
"""A pong that comes later measures nothing: the client was suspended. lila-ws trusts no longer lag either."""
SAMPLES = 5
LAG_TOLERANCE_MS = 140
"""How far a move's lag may exceed the round trip, because of delays inside the client and variations of the network.

From lichess: scalachess lets a player's quota grow by the lag of its frames and 140 ms a move at most (`LagTracker`).
"""
_FIRST_PING = (0.2, 1.0)
"""Part of `REFRESH_S` after which the first ping is due: clients often connect at the same time."""
_PAYLOAD_BYTES = 8


class RoundTrips:
    """Measures one connection; at most one measurement runs.

    due_s: when to call `ping` next (monotonic), unless the connection pings before for other reasons.
    estimate_ms: the smallest of the last five round trips, None until the first pong. Delays only ever lengthen a round
    trip, so the smallest is the nearest to the network's. To raise it, a client has to delay all of its last five
    pongs, or every pong of a new connection. What it gains is limited by the session's quota.
    """

    __slots__ = ("_pinged_s", "_running", "_samples_ms", "due_s", "estimate_ms")

    def __init__(self, opened_s: float) -> None:
        self.due_s = opened_s + REFRESH_S * random.uniform(*_FIRST_PING)
        self.estimate_ms: int | None = None
        self._pinged_s = opened_s
        self._running: tuple[bytes, float] | None = None
        self._samples_ms: tuple[int, ...] = ()

    @property
    def lag_limit_ms(self) -> int | None:
        """The most that a move over this connection may be compensated for lag; None without an estimate."""
        return None if self.estimate_ms is None else self.estimate_ms + LAG_TOLERANCE_MS

    def refresh(self) -> None:
        """Have the client pinged at once, or 5 s after the last ping."""
        self.due_s = min(self.due_s, self._pinged_s + REFRESH_S)

    def ping(self, now_s: float) -> bytes:
        """Return the frame to send now. It repeats the last one if its pong may still come."""
        self._pinged_s, self.due_s = now_s, math.inf
        running = self._running
        if running is None or now_s - running[1] > MAX_ROUND_TRIP_S:
            running = self._running = (os.urandom(_PAYLOAD_BYTES), now_s)
        return frames.ping_frame(running[0])

    def take_pong(self, payload: bytes, received_s: float) -> None:
        """Take a pong of the client, on the reading thread; one that answers no ping changes nothing."""
        running = self._running
        if running is None or payload != running[0]:
            return
        self._running = None
        took_s = received_s - running[1]
        if took_s <= MAX_ROUND_TRIP_S:
            ROUND_TRIPS.observe(took_s)
            self._samples_ms = (*self._samples_ms[1 - SAMPLES :], round(took_s * 1000))
            self.estimate_ms = min(self._samples_ms)

"""A store's clock that is set instead of read, for tests and simulations."""

from __future__ import annotations

import redis

# In the year 2100: a key that lives by the set clock must not expire by the server's own.
NOON_MS = 4_102_488_000_000
_KEY = "set:now_ms"
_CLOCK = f"""
local function server_now_ms()
  return tonumber(redis.call('GET', '{_KEY}'))
end
"""
PARTIALS = {"_clock": _CLOCK}
"""The partial that `SessionStore` takes in place of lua/_clock.lua."""


class ManualClock:
    """The server's time as the scripts read it; it moves only when its owner moves it.

    client: a client of the store's server.
    """

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.now_ms = NOON_MS
        self.set(NOON_MS)

    def set(self, now_ms: int) -> None:
        """Set the time to this instant (ms)."""
        self.now_ms = now_ms
        self.client.set(_KEY, now_ms)

    def advance_ms(self, ms: int) -> None:
        """Let this time pass."""
        self.set(self.now_ms + ms)

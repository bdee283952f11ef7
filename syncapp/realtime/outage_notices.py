"""Outage notices: all watchers hear when the store is unavailable, and get the state when it is back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from syncapp.domain.version_order import NEVER
from syncapp.errors import StoreUnavailable
from syncapp.realtime.server_clock import ServerClock
from syncapp.realtime.topic import Topic

OUTAGE_S = 1.0
"""Shorter outages are not reported to clients."""


class OutageNotices:
    """Reports each outage once. The caller holds the hub's lock."""

    def __init__(self, clock: ServerClock) -> None:
        self._clock = clock
        self._due_s: dict[Topic, float] = {}

    def begin(self, topics: Iterable[Topic]) -> None:
        """Mark sessions as possibly outdated; report at once to watchers that wait for a state."""
        due_s = time.monotonic() + OUTAGE_S
        now_ms = self._clock.now_ms()
        for topic in topics:
            self._due_s[topic] = due_s
            topic.mark_lost()
            if topic.waiting:
                topic.offer(list(topic.waiting), topic.error_update(now_ms, unavailable()))

    def report(self, is_lost: Callable[[Topic], bool]) -> None:
        """Report an outage of more than `OUTAGE_S` to all its watchers, and let them wait for the state.

        is_lost: whether the outage of a session lasts.
        """
        if not self._due_s:
            return
        now_s, now_ms = time.monotonic(), self._clock.now_ms()
        for topic in [topic for topic, due_s in self._due_s.items() if due_s <= now_s]:
            del self._due_s[topic]
            if is_lost(topic):
                topic.waiting = dict.fromkeys(topic.watchers, NEVER) | topic.waiting
                topic.offer(list(topic.watchers), topic.error_update(now_ms, unavailable()))


def unavailable() -> StoreUnavailable:
    """Return the error that watchers get while the store is unavailable."""
    return StoreUnavailable("the store does not answer; the state follows when it does", {"retry_after_s": 1})

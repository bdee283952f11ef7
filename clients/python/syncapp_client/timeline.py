"""The versions of a session, each once and in order, whichever way they come."""

from __future__ import annotations

import threading
from typing import TypeAlias

from syncapp_client.feeds import Feed, Feeds, merged
from syncapp_client.values import Change, Event, State

Order: TypeAlias = tuple[int, int]


def order_of(state: State) -> Order:
    """Return (epoch, version); newer states compare as greater."""
    return (state["epoch"], state["version"])


class Timeline:
    """The newest state, and what was told about it. Threads may use it at any time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._feeds: Feeds[Change] = Feeds()
        self._state: State | None = None

    @property
    def state(self) -> State | None:
        """The newest state; None before the first."""
        return self._state

    def offer(self, state: State, event: Event | None, *, rolled_back: bool = False) -> None:
        """Enter a state, unless it is not newer than the last; rolled_back: the store has lost versions, so it is."""
        with self._lock:
            last = self._state
            if last is not None and order_of(state) <= order_of(last) and not rolled_back:
                return
            skipped = 0
            if last is not None and not rolled_back:
                is_same = last["epoch"] == state["epoch"]
                skipped = state["version"] - 1 - (last["version"] if is_same else 0)
            self._state = state
            self._feeds.put(Change(state, None if skipped else event, skipped))

    def watch(self, timeout: float | None) -> Feed[Change]:
        """Return a feed that begins with the present state, if there is one."""
        feed: Feed[Change] = Feed(timeout, merged)
        with self._lock:
            if self._state is not None:
                feed.put(Change(self._state, None))
            self._feeds.add(feed)
        return feed

    def leave(self, feed: Feed[Change]) -> None:
        """Give this feed nothing more."""
        self._feeds.remove(feed)

    def end(self) -> None:
        """End all feeds: nothing more comes."""
        self._feeds.end()

"""Queues that carry changes from the thread that reads to those that wait for them."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar
from weakref import WeakSet

from syncapp_client.values import Change

Item = TypeVar("Item")
MOST_WAITING = 1000


class Feed(Generic[Item], Iterator[Item]):
    """What one listener has not seen yet; an iterator that waits for the next.

    timeout: the longest wait for the next one in s, then the iteration raises `TimeoutError`, and may go on. merge:
    makes one of all that wait, when they become too many.
    """

    def __init__(
        self, timeout: float | None = None, merge: Callable[[list[Item]], Item] = lambda items: items[-1]
    ) -> None:
        self._timeout = timeout
        self._merge = merge
        self._waiting: deque[Item] = deque()
        self._changed = threading.Condition()
        self._ended = False

    def put(self, item: Item) -> None:
        """Add one, unless the feed has ended."""
        with self._changed:
            if self._ended:
                return
            self._waiting.append(item)
            if len(self._waiting) > MOST_WAITING:
                merged = self._merge(list(self._waiting))
                self._waiting.clear()
                self._waiting.append(merged)
            self._changed.notify_all()

    def end(self) -> None:
        """Let the iteration end after what waits."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def close(self) -> None:
        """Let the iteration end now: the caller does not want any more."""
        with self._changed:
            self._waiting.clear()
            self._ended = True
            self._changed.notify_all()

    def __next__(self) -> Item:
        end_s = None if self._timeout is None else time.monotonic() + self._timeout
        with self._changed:
            while not self._waiting:
                if self._ended:
                    raise StopIteration
                if not self._changed.wait(None if end_s is None else max(0.0, end_s - time.monotonic())):
                    raise TimeoutError(f"nothing has changed for {self._timeout} s")
            return self._waiting.popleft()


class Feeds(Generic[Item]):
    """All feeds of one kind; each gets every item."""

    def __init__(self) -> None:
        self._feeds: WeakSet[Feed[Item]] = WeakSet()  # one that nobody iterates over any more is forgotten
        self._lock = threading.Lock()
        self._ended = False

    def add(self, feed: Feed[Item]) -> None:
        """Give this feed all that comes from now on; it ends with the others."""
        with self._lock:
            self._feeds.add(feed)
            if self._ended:
                feed.end()

    def remove(self, feed: Feed[Item]) -> None:
        """Give this feed nothing more, and end it."""
        with self._lock:
            self._feeds.discard(feed)
        feed.close()

    def put(self, item: Item) -> None:
        """Give an item to each."""
        with self._lock:
            for feed in self._feeds:
                feed.put(item)

    def end(self) -> None:
        """End all, after what waits in them."""
        with self._lock:
            self._ended = True
            for feed in self._feeds:
                feed.end()


def merged(changes: list[Change]) -> Change:
    """Return the newest change, as if those before it had been skipped."""
    skipped = sum(change.skipped + 1 for change in changes) - 1
    return Change(changes[-1].state, None, skipped)

"""Callbacks, each in a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from syncapp_client.feeds import Feed

log = logging.getLogger(__name__)
Item = TypeVar("Item")


class Listeners:
    """The threads that call callbacks; each ends with its feed."""

    def __init__(self) -> None:
        self._threads: list[tuple[threading.Thread, Callable[[], None]]] = []
        self._lock = threading.Lock()

    def add(
        self, feed: Feed[Item], callback: Callable[[Item], object], leave: Callable[[], None]
    ) -> Callable[[], None]:
        """Call a function with each item of a feed; return a function that ends that. leave: ends the feed."""

        def run() -> None:
            for item in feed:
                try:
                    callback(item)
                except Exception:  # whatever the caller's function raises
                    log.exception("a callback failed")

        thread = threading.Thread(target=run, name="syncapp callback", daemon=True)
        with self._lock:
            self._threads = [each for each in self._threads if each[0].is_alive()]
            thread.start()
            self._threads.append((thread, leave))
        return leave

    def stop(self) -> None:
        """End all feeds, and wait for the callbacks that run, unless this is called from one."""
        with self._lock:
            threads, self._threads = self._threads, []
        for _, leave in threads:
            leave()
        for thread, _ in threads:
            if thread is not threading.current_thread():
                thread.join()

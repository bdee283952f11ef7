"""Shutdown of a process: its open connections are closed one after the other."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from syncapp.errors import ServerStopping

PAUSE_S = 0.02
"""Between two connections, or less if they are too many for the time that there is."""


class Shutdown:
    """Whether this process is shutting down. Clients reconnect elsewhere, and must not all do so at once.

    spread_s: time in which all connections are told to close.
    """

    def __init__(self, spread_s: float) -> None:
        self._spread_s = spread_s
        self._lock = threading.Lock()
        self._callbacks: dict[Callable[[], None], None] = {}
        self.is_on = False

    @property
    def open_connections(self) -> int:
        """Number of connections that are still open."""
        return len(self._callbacks)

    @contextmanager
    def notify(self, stop: Callable[[], None]) -> Iterator[None]:
        """Have `stop` called when this process shuts down, while the context lasts; it must not wait."""
        with self._lock:
            self._callbacks[stop] = None
        if self.is_on:
            stop()
        try:
            yield
        finally:
            with self._lock:
                self._callbacks.pop(stop, None)

    def check(self) -> None:
        """Raise `ServerStopping` if this process accepts no new connections."""
        if self.is_on:
            raise ServerStopping("this process is shutting down; try again", {"retry_after_s": 1})

    def run(self) -> None:
        """Call `stop` of all connections, in random order and spread over `spread_s`; return after the last one."""
        self.is_on = True
        with self._lock:
            callbacks = list(self._callbacks)
        random.shuffle(callbacks)
        pause_s = min(PAUSE_S, self._spread_s / (len(callbacks) or 1))
        for stop in callbacks:
            stop()
            time.sleep(pause_s)

"""The end of a process: whoever holds a connection open is told, one after the other."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from syncapp.errors import ServerStopping

PAUSE_S = 0.02
"""Between two that are told, unless they are too many for the time there is."""


class Shutdown:
    """Whether this process is about to end. Those told come back elsewhere, and must not all do so at once."""

    def __init__(self, spread_s: float) -> None:
        self._spread_s = spread_s
        self._lock = threading.Lock()
        self._held: dict[Callable[[], None], None] = {}
        self.is_on = False

    @property
    def held(self) -> int:
        """How many connections are held open."""
        return len(self._held)

    @contextmanager
    def told(self, leave: Callable[[], None]) -> Iterator[None]:
        """Have `leave` called when this process is about to end; it must not wait."""
        with self._lock:
            self._held[leave] = None
        if self.is_on:
            leave()
        try:
            yield
        finally:
            with self._lock:
                self._held.pop(leave, None)

    def check(self) -> None:
        """Raise `ServerStopping` when nothing new is to begin here."""
        if self.is_on:
            raise ServerStopping("this process is about to end; come back", {"retry_after_s": 1})

    def run(self) -> None:
        """Tell everybody, in any order, spread over some time; returns when the last one is told."""
        self.is_on = True
        with self._lock:
            held = list(self._held)
        random.shuffle(held)
        pause_s = min(PAUSE_S, self._spread_s / (len(held) or 1))
        for leave in held:
            leave()
            time.sleep(pause_s)

"""Shutdown of a process: its open connections are closed one after the other."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from syncapp.errors import ServerStopping

PAUSE_S = 0.02
"""Between two connections, or less if they are too many for the time that there is."""


class Stoppable(Protocol):
    """A connection, stream or long poll that is open."""

    def stop(self) -> None:
        """Close, because this process shuts down; must not wait."""


class Shutdown:
    """Whether this process is shutting down. Clients reconnect elsewhere, and must not all do so at once.

    spread_s: time in which all connections are told to close.
    """

    def __init__(self, spread_s: float) -> None:
        self._spread_s = spread_s
        self._open: dict[Stoppable, None] = {}
        self.is_on = False

    @property
    def open_connections(self) -> int:
        """Number of connections that are still open."""
        return len(self._open)

    def add(self, connection: Stoppable) -> None:
        """Have a connection stopped when this process shuts down, until `remove`."""
        self._open[connection] = None
        if self.is_on:
            connection.stop()

    def remove(self, connection: Stoppable) -> None:
        """Note that a connection has ended."""
        self._open.pop(connection, None)

    @contextmanager
    def notify(self, connection: Stoppable) -> Iterator[None]:
        """Have a connection stopped when this process shuts down, while the context lasts."""
        self.add(connection)
        try:
            yield
        finally:
            self.remove(connection)

    def check(self) -> None:
        """Raise `ServerStopping` if this process accepts no new connections."""
        if self.is_on:
            raise ServerStopping("this process is shutting down; try again", {"retry_after_s": 1})

    def run(self) -> None:
        """Call `stop` of all connections, in random order and spread over `spread_s`; return after the last one."""
        self.is_on = True
        connections = list(self._open)
        random.shuffle(connections)
        pause_s = min(PAUSE_S, self._spread_s / (len(connections) or 1))
        began_s, stopped = time.monotonic(), 0
        while stopped < len(connections):
            # A busy process wakes late from each pause, and then stops as many as should have been stopped by now.
            passed_s = time.monotonic() - began_s
            due = int(passed_s / pause_s) + 1 if pause_s else len(connections)
            for connection in connections[stopped:due]:
                if connection in self._open:
                    connection.stop()
            stopped = due
            time.sleep(pause_s)

"""Clients that disconnect while they wait for an answer: their requests end within half a second.

A WSGI handler that waits does not read, so it cannot see that the client has closed. The kernel can: a closed side of a
connection is an event of its own, whether or not there is something to read.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

_MAX_EVENTS = 1024


class DisconnectWatch:
    """Calls back when a client has closed. A client that has closed only its own side counts as disconnected, too.

    On systems without epoll a disconnect is noticed only by the next write.
    """

    def __init__(self) -> None:
        self._epoll: Any = None
        self._callbacks: dict[int, Callable[[], None]] = {}

    @contextmanager
    def notify(self, raw: socket.socket | None, stop: Callable[[], None]) -> Iterator[None]:
        """Have `stop` called when the client of a socket disconnects, while the context lasts; it must not wait."""
        epoll = self._get_epoll() if raw else None
        if raw is None or epoll is None:
            yield
            return
        fd = raw.fileno()
        self._callbacks[fd] = stop
        try:
            with suppress(OSError):  # closed already: the next write shows it
                epoll.register(fd, select.EPOLLRDHUP | select.EPOLLONESHOT)
            yield
        finally:
            self._callbacks.pop(fd, None)
            with suppress(OSError, ValueError):
                epoll.unregister(fd)

    def run_once(self) -> None:
        """Call `stop` for each client that has disconnected since the last call."""
        if self._epoll:
            for fd, _ in self._epoll.poll(0, _MAX_EVENTS):
                if stop := self._callbacks.get(fd):
                    stop()

    def _get_epoll(self) -> Any:
        """Return the epoll object, which is created at first use: one created before a fork would be shared."""
        if self._epoll is None:
            from gevent.monkey import get_original  # gevent has no types

            with suppress(AttributeError):
                self._epoll = get_original("select", "epoll")()
        return self._epoll

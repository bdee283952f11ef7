"""Clients that hang up while they wait for an answer: they are let go within half a second.

A WSGI handler that waits does not read, so it cannot see that the client has closed. The kernel can: a closed side of a
connection is an event of its own, whether or not there is something to read.
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

_MOST_AT_ONCE = 1024


class DisconnectWatch:
    """Calls whoever waits for a client that has closed. A client that has closed its side only is gone, too.

    On systems without epoll nothing is noticed, and the next write shows it.
    """

    def __init__(self) -> None:
        self._epoll: Any = None
        self._told: dict[int, Callable[[], None]] = {}

    @contextmanager
    def told(self, raw: socket.socket | None, leave: Callable[[], None]) -> Iterator[None]:
        """Have `leave` called when the client of a socket has hung up; it must not wait."""
        epoll = self._begun() if raw else None
        if raw is None or epoll is None:
            yield
            return
        fd = raw.fileno()
        self._told[fd] = leave
        try:
            with suppress(OSError):  # closed already: the next write shows it
                epoll.register(fd, select.EPOLLRDHUP | select.EPOLLONESHOT)
            yield
        finally:
            self._told.pop(fd, None)
            with suppress(OSError, ValueError):
                epoll.unregister(fd)

    def run_once(self) -> None:
        """Call `leave` of each client that has hung up since the last look."""
        if self._epoll:
            for fd, _ in self._epoll.poll(0, _MOST_AT_ONCE):
                if leave := self._told.get(fd):
                    leave()

    def _begun(self) -> Any:
        """Return the epoll, made at the first use: one made before a fork would be shared."""
        if self._epoll is None:
            from gevent.monkey import get_original  # type: ignore[import-untyped]  # gevent has none of its own

            with suppress(AttributeError):
                self._epoll = get_original("select", "epoll")()
        return self._epoll

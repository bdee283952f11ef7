"""Which sockets are ready, for `ConnectionLoop`: by epoll, or by gevent's watchers where there is no epoll (macOS).

Both report each change once, as the bits of epoll, from gevent's own greenlet, where nothing may wait.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

# Of epoll; the module `select` lacks them after gevent's patch.
IN, OUT, ERR, HUP, RDHUP, EDGE = 0x1, 0x4, 0x8, 0x10, 0x2000, 1 << 31
_READ, _WRITE = 1, 2  # of libev

OnEvents = Callable[[list[tuple[int, int]]], None]
"""Called with numbers of sockets and what is new of them."""


class SocketReadiness(Protocol):
    """Watches the sockets of a process."""

    def add(self, fd: int) -> None:
        """Watch a socket."""

    def remove(self, fd: int) -> None:
        """Watch a socket no longer; it is closed next."""

    def is_dealt_with(self, fd: int, events: int, is_blocked: bool) -> None:
        """Note, after a step, which events of a socket it has left, and whether it waits for room to write."""


def readiness(hub: Any, on_events: OnEvents) -> SocketReadiness:
    """Return what this system has; hub: gevent's."""
    from gevent.monkey import get_original  # gevent has no types; it hides epoll

    try:
        return _Epoll(get_original("select", "epoll")(), hub, on_events)
    except AttributeError:
        return Watchers(hub, on_events)


class _Epoll:
    """One watcher for all sockets. Edge-triggered: it need not be told what a connection waits for."""

    def __init__(self, epoll: Any, hub: Any, on_events: OnEvents) -> None:
        self._epoll = epoll
        self._on_events = on_events
        self._watcher = hub.loop.io(epoll.fileno(), _READ)
        self._watcher.start(self._poll)

    def add(self, fd: int) -> None:
        self._epoll.register(fd, IN | OUT | RDHUP | EDGE)

    def remove(self, fd: int) -> None:
        """Do nothing: closing the socket ends its registration."""

    def is_dealt_with(self, fd: int, events: int, is_blocked: bool) -> None:
        """Do nothing: the next change is reported in any case."""

    def _poll(self) -> None:
        self._on_events(self._epoll.poll(0))


class Watchers:
    """Two watchers for each socket, which stop when they have reported something, until a step has dealt with it."""

    def __init__(self, hub: Any, on_events: OnEvents) -> None:
        self._loop = hub.loop
        self._on_events = on_events
        self._watchers: dict[int, tuple[Any, Any]] = {}

    def add(self, fd: int) -> None:
        """Watch a socket."""
        pair = self._watchers[fd] = self._loop.io(fd, _READ), self._loop.io(fd, _WRITE)
        pair[0].start(self._report, fd, pair[0], IN)

    def remove(self, fd: int) -> None:
        """Watch a socket no longer."""
        for watcher in self._watchers.pop(fd, ()):
            watcher.stop()
            watcher.close()

    def is_dealt_with(self, fd: int, events: int, is_blocked: bool) -> None:
        """Watch for what is to come."""
        if pair := self._watchers.get(fd):
            for watcher, bit, is_awaited in zip(pair, (IN, OUT), (not events & IN, is_blocked), strict=True):
                if is_awaited and not watcher.active:
                    watcher.start(self._report, fd, watcher, bit)

    def _report(self, fd: int, watcher: Any, bit: int) -> None:
        watcher.stop()
        self._on_events([(fd, bit)])

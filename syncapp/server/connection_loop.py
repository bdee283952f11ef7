"""The loop that serves all WebSockets of a process: an idle one needs no greenlet, no watcher and no timer of its own.

When a socket becomes ready, a deadline comes or somebody wakes a connection, a greenlet out of a small pool runs its
`step`. A step may wait, for the store for example; another greenlet then goes on with the other connections.

The loop and all that it serves run on greenlets of one thread: code that does not wait needs no locks.
"""

from __future__ import annotations

import time
from collections import deque
from typing import Any, Protocol

import structlog

from syncapp.server.readiness import ERR, HUP, IN, RDHUP, SocketReadiness, readiness

log = structlog.get_logger(__name__)

TICK_S = 0.02
"""How late a planned step may be."""
MAX_IDLE_GREENLETS = 64
"""How many greenlets wait for something to do; making one costs as much as a tenth of a command."""
BROKEN = HUP | ERR
"""Bits of `Stepped.events`: nothing can be sent any more."""
ENDED = BROKEN | RDHUP
"""The client has ended its side, perhaps with something left to read."""
READABLE = ENDED | IN
_IDLE, _READY, _RUNNING, _RUNNING_AGAIN, _OUTSIDE = range(5)


class Turn(Protocol):
    """Something that the loop does on one of its greenlets."""

    def turn(self) -> bool:
        """Do it; return whether it has to be done again, after everything else that is ready."""


class Stepped:
    """A connection that the loop serves; one greenlet at a time runs its `step`.

    events: what is new of its socket, as bits of epoll. Each change is reported once: a step clears what it has dealt
    with.
    """

    __slots__ = ("_state", "_tick", "events", "fd")

    def __init__(self) -> None:
        self.fd = -1
        self.events = 0
        self._state = _OUTSIDE
        self._tick = 0  # the tick of the next planned step; 0 for none

    @property
    def is_blocked(self) -> bool:
        """Whether something waits for room to be sent."""
        raise NotImplementedError

    def step(self) -> bool:
        """Do what there is to do, but read a share of the input only; return whether there is more of it."""
        raise NotImplementedError

    def fail(self) -> None:
        """End at once, after a step that has raised an error; the loop serves the connection no longer."""
        raise NotImplementedError

    def turn(self) -> bool:
        """Run `step`, and again if somebody has woken the connection meanwhile."""
        if self._state != _READY:  # it was removed
            return False
        has_more, self._state = False, _RUNNING_AGAIN
        try:
            while self._state == _RUNNING_AGAIN:
                self._state = _RUNNING
                has_more = self.step()
        except Exception:  # in this state, no wake would have another step run
            log.exception("a turn of a connection failed")
            self.fail()
            return False
        if self._state != _RUNNING:
            return False
        self._state = _READY if has_more else _IDLE
        return has_more


class ConnectionLoop:
    """The loop of one process. It begins with the first connection: what it uses must not be shared by a fork."""

    def __init__(self) -> None:
        self._stepped: dict[int, Stepped] = {}
        self._ready: deque[Turn] = deque()
        self._later: list[Turn] = []
        # Numbers of sockets: a connection that has ended is not kept until its last deadline.
        self._ticks: dict[int, list[int]] = {}
        self._last_tick = 0
        self._idle: list[Any] = []
        self._is_dispatch_due = False
        self._readiness: SocketReadiness
        self._hub: Any = None
        self._timer: Any = None

    def add(self, stepped: Stepped, fd: int) -> None:
        """Serve a connection; its first step follows. Raises `OSError`, and then the connection is not served."""
        if self._hub is None:
            self._begin()
        self._readiness.add(fd)
        stepped.fd, stepped._state = fd, _IDLE
        self._stepped[fd] = stepped
        self.wake(stepped)

    def remove(self, stepped: Stepped) -> None:
        """Serve a connection no longer. The caller closes its socket next."""
        stepped._state = _OUTSIDE
        if self._stepped.pop(stepped.fd, None):
            self._readiness.remove(stepped.fd)

    def wake(self, stepped: Stepped) -> None:
        """Have a connection's `step` run, again if it is running."""
        if stepped._state == _IDLE:
            stepped._state = _READY
            self.run(stepped)
        elif stepped._state == _RUNNING:
            stepped._state = _RUNNING_AGAIN

    def run(self, turn: Turn) -> None:
        """Have something done soon."""
        self._ready.append(turn)
        self._request_dispatch()

    def plan(self, stepped: Stepped, due_s: float) -> None:
        """Have a connection's `step` run at this monotonic instant (s); an earlier plan stays."""
        tick = max(int(due_s / TICK_S), self._last_tick) + 1
        if stepped._state != _OUTSIDE and (not stepped._tick or tick < stepped._tick):
            stepped._tick = tick
            self._ticks.setdefault(tick, []).append(stepped.fd)

    def _begin(self) -> None:
        from gevent import get_hub  # gevent has no types

        hub = get_hub()
        self._readiness = readiness(hub, self._on_events)
        self._last_tick = int(time.monotonic() / TICK_S)
        self._timer = hub.loop.timer(TICK_S, TICK_S)
        self._timer.start(self._on_tick)
        self._hub = hub  # last: if there is no descriptor for epoll, the next connection tries again

    # In gevent's own greenlet, where nothing may wait.

    def _on_events(self, found: list[tuple[int, int]]) -> None:
        for fd, events in found:
            stepped = self._stepped.get(fd)
            if stepped is None:
                continue
            stepped.events |= events
            if stepped._state == _IDLE:
                stepped._state = _READY
                self._ready.append(stepped)
            elif stepped._state == _RUNNING:
                stepped._state = _RUNNING_AGAIN
        self._dispatch()

    def _on_tick(self) -> None:
        tick, self._last_tick = self._last_tick, int(time.monotonic() / TICK_S)
        for each in range(tick + 1, self._last_tick + 1):
            for fd in self._ticks.pop(each, ()):
                stepped = self._stepped.get(fd)
                if stepped and stepped._tick == each:  # otherwise it was planned for an earlier tick, or has ended
                    stepped._tick = 0
                    self.wake(stepped)

    def _request_dispatch(self) -> None:
        if not self._is_dispatch_due:
            self._is_dispatch_due = True
            self._hub.loop.run_callback(self._dispatch_due)

    def _dispatch_due(self) -> None:
        self._is_dispatch_due = False
        self._ready.extend(self._later)
        self._later.clear()
        self._dispatch()

    def _dispatch(self) -> None:
        """Have a greenlet go on with what is ready."""
        if not self._ready:
            return
        if self._idle:
            self._idle.pop().switch()
        else:
            from gevent import spawn

            spawn(self._work)

    # In the greenlets of the pool.

    def _work(self) -> None:
        from gevent import getcurrent

        own = getcurrent()
        turn: Turn | None
        while True:
            while self._ready:
                turn = self._ready.popleft()
                if self._ready:
                    self._request_dispatch()  # if this turn waits, another greenlet goes on
                try:
                    if turn.turn():
                        self._later.append(turn)
                        self._request_dispatch()
                    elif isinstance(turn, Stepped):
                        self._readiness.is_dealt_with(turn.fd, turn.events, turn.is_blocked)
                except Exception:
                    log.exception("a turn of a connection failed")
            turn = None  # it is not kept while this waits
            if len(self._idle) >= MAX_IDLE_GREENLETS:
                return
            self._idle.append(own)
            self._hub.switch()

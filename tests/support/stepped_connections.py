"""Connections that record their steps on a real loop, in a process of gevent's; prints what was seen as JSON."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable

from syncapp.server.connection_loop import MAX_IDLE_GREENLETS, READABLE, ConnectionLoop, Stepped

GRACE_S = 0.5
"""How long to wait for something that must not happen."""


class Recorded(Stepped):
    """Reads a byte in each step; records when it stepped, and whether two steps have ever overlapped.

    waits_for: an event that each step waits for.
    """

    def __init__(self, ours: socket.socket) -> None:
        super().__init__()
        ours.setblocking(False)
        self.socket = ours
        self.waits_for = threading.Event()
        self.waits_for.set()
        self.steps_s: list[float] = []
        self.is_stepping = self.has_overlapped = False
        self.read = b""

    @property
    def is_blocked(self) -> bool:
        return False

    def step(self) -> bool:
        self.has_overlapped |= self.is_stepping
        self.is_stepping = True
        self.steps_s.append(time.monotonic())
        self.waits_for.wait()
        time.sleep(0)
        if self.events & READABLE:
            try:
                self.read += self.socket.recv(1)
            except BlockingIOError:
                self.events &= ~READABLE
        self.is_stepping = False
        return bool(self.events & READABLE)


class Waiting:
    """A turn that waits for an event."""

    def __init__(self, waits_for: threading.Event) -> None:
        self._waits_for = waits_for
        self.has_begun = self.is_done = False

    def turn(self) -> bool:
        self.has_begun = True
        self._waits_for.wait()
        self.is_done = True
        return False


def comes_true(condition: Callable[[], bool]) -> bool:
    until_s = time.monotonic() + 60
    while not condition() and time.monotonic() < until_s:
        time.sleep(0.005)
    return condition()


def main() -> None:
    """Print as JSON what is true of the loop."""
    loop, found = ConnectionLoop(), dict[str, bool]()
    pairs = [socket.socketpair() for _ in range(3)]
    slow, quick, flooded = (Recorded(ours) for ours, _ in pairs)
    for connection in (slow, quick, flooded):
        loop.add(connection, connection.socket.fileno())

    slow.waits_for.clear()
    pairs[0][1].send(b"a")
    comes_true(lambda: slow.is_stepping)
    pairs[0][1].send(b"b")
    pairs[1][1].send(b"c")
    found["a step that waits delays no other connection"] = comes_true(lambda: quick.read == b"c") and not slow.read
    slow.waits_for.set()
    found["input during a step has another one follow"] = comes_true(lambda: slow.read == b"ab")

    pairs[2][1].send(b"x" * 5000)
    ready = threading.Event()
    ready.set()
    command = Waiting(ready)
    comes_true(lambda: bool(flooded.read))
    loop.run(command)
    comes_true(lambda: command.is_done)
    found["constant input delays no command"] = len(flooded.read) < 5000
    found["all input is read"] = comes_true(lambda: flooded.read == b"x" * 5000)

    time.sleep(GRACE_S)
    steps, planned_s = len(quick.steps_s), time.monotonic() + 0.3
    loop.plan(quick, planned_s)
    loop.plan(quick, planned_s + 100)
    loop.wake(quick)
    loop.wake(quick)
    comes_true(lambda: len(quick.steps_s) >= steps + 2)
    time.sleep(GRACE_S)
    found["two wakes at once and a plan are two steps"] = len(quick.steps_s) == steps + 2
    found["a planned step is not early"] = quick.steps_s[-1] >= planned_s

    loop.plan(quick, time.monotonic() + 0.1)
    loop.wake(quick)
    loop.remove(quick)
    steps = len(quick.steps_s)
    time.sleep(GRACE_S)
    found["a connection that was removed takes no step"] = len(quick.steps_s) == steps

    ready.clear()
    turns = [Waiting(ready) for _ in range(100)]
    for turn in turns:
        loop.run(turn)
    found["turns that wait do so at the same time"] = comes_true(lambda: all(turn.has_begun for turn in turns))
    ready.set()
    comes_true(lambda: all(turn.is_done for turn in turns))
    time.sleep(0)
    found["few greenlets are kept"] = comes_true(lambda: len(loop._idle) <= MAX_IDLE_GREENLETS)
    found["steps never overlap"] = not (slow.has_overlapped or quick.has_overlapped or flooded.has_overlapped)
    print(json.dumps(found))

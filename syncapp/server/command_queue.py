"""The commands that clients send: those of one connection one after the other, in the order they came.

They run on threads of their own, so that a store that is slow holds up no message to anybody.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from contextlib import suppress
from typing import NamedTuple, Protocol

from syncapp.errors import StoreUnavailable, SyncError
from syncapp.loops import Loops
from syncapp.realtime.protocol import Command

MOST_IN_FLIGHT = 32
_BEAT_S = 5.0
_NOT_SENT = "the store does not answer; the command was not sent to it"


class _Waiting(NamedTuple):
    command: Command
    came_s: float


class CommandPool:
    """The threads of a process that run commands, begun with the first one."""

    def __init__(self, size: int, loops: Loops | None = None) -> None:
        self._size = size
        self._loops = loops or Loops()
        self._stopped = threading.Event()
        self._ready: queue.SimpleQueue[CommandQueue | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def take(self, inbox: CommandQueue) -> None:
        """Run the next command of an inbox when its turn comes."""
        if not self._threads:
            self._start()
        self._ready.put(inbox)

    def stop(self) -> None:
        """Run what waits, and end the threads."""
        for _ in self._threads:
            self._ready.put(None)
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        self._threads = [self._loops.start(f"crew_{number}", self._work, self._stopped) for number in range(self._size)]

    def _work(self) -> None:
        """Run the command that has waited longest, if there is one."""
        with suppress(queue.Empty):
            while (inbox := self._ready.get(timeout=_BEAT_S)) is not None:
                inbox.run_next()
                self._loops.heartbeat(threading.current_thread().name)
            self._stopped.set()  # everything queued before the end has been taken


class QueueOwner(Protocol):
    """Whose commands they are; none of this raises."""

    @property
    def takes_answers(self) -> bool:
        """Whether the client takes answers; when it does not, nothing is run until `CommandQueue.proceed` is called."""

    def obey(self, command: Command) -> SyncError | None:
        """Run a command and answer it; returns why it was refused, if it was."""

    def refuse(self, command: Command, fault: SyncError) -> None:
        """Answer a command that is not run."""

    def obeyed(self) -> None:
        """Note that there is room for another command."""


class CommandQueue:
    """The commands of one connection."""

    __slots__ = ("_crew", "_lock", "_owner", "_patience_s", "_running", "_waiting")

    def __init__(self, crew: CommandPool, patience_s: float, owner: QueueOwner) -> None:
        self._crew = crew
        self._patience_s = patience_s
        self._owner = owner
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()
        self._running = False

    def __len__(self) -> int:
        return len(self._waiting) + self._running

    def put(self, command: Command) -> None:
        """Take a command."""
        self._waiting.append(_Waiting(command, time.monotonic()))
        self.proceed()

    def proceed(self) -> None:
        """Have the next command run, if there is one and nothing is in its way."""
        with self._lock:
            if self._running or not self._waiting or not self._owner.takes_answers:
                return
            self._running = True
        self._crew.take(self)

    def run_next(self) -> None:
        """Run the command that has waited longest.

        When the store does not answer, what was sent after it and waits is refused, too: it must not happen
        before, and would wait as long. So is what has waited for longer than the store may take to answer.
        """
        command, came_s = self._waiting.popleft()
        if time.monotonic() - came_s > self._patience_s:
            self._owner.refuse(command, StoreUnavailable(_NOT_SENT, {"retry_after_s": 1}))
        elif (fault := self._owner.obey(command)) and fault.code == StoreUnavailable.code:
            for _ in range(len(self._waiting)):
                self._owner.refuse(self._waiting.popleft().command, StoreUnavailable(_NOT_SENT, {"retry_after_s": 1}))
        with self._lock:
            self._running = False
        self._owner.obeyed()
        self.proceed()

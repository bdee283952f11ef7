"""The command queue of a connection: its commands run one at a time, in the order in which they arrived.

They run on the threads of a pool, so that a slow store delays no other messages.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from contextlib import suppress
from typing import NamedTuple, Protocol

from syncapp.domain.principal import ANYONE, Principal
from syncapp.errors import NotReplicated, StoreUnavailable, SyncError
from syncapp.loops import Loops
from syncapp.realtime.protocol import Command

MAX_IN_FLIGHT = 32
"""Maximum commands of one connection that wait or run; further messages are not read."""
_QUEUE_WAIT_S = 5.0
_NOT_SENT = "the store does not answer; the command was not sent to it"
_SLOW = (StoreUnavailable.code, NotReplicated.code)


class _Waiting(NamedTuple):
    command: Command
    principal: Principal
    arrived_s: float


class CommandPool:
    """The threads of a process that run commands; they start with the first command."""

    def __init__(self, size: int, loops: Loops | None = None) -> None:
        self._size = size
        self._loops = loops or Loops()
        self._stopped = threading.Event()
        self._ready: queue.SimpleQueue[CommandQueue | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def submit(self, commands: CommandQueue) -> None:
        """Have a thread run the next command of a queue."""
        if not self._threads:
            self._start()
        self._ready.put(commands)

    def stop(self) -> None:
        """Run the commands that wait, and end the threads."""
        for _ in self._threads:
            self._ready.put(None)
        for thread in self._threads:
            thread.join()

    def _start(self) -> None:
        self._threads = [
            self._loops.start(f"commands_{number}", self._work, self._stopped) for number in range(self._size)
        ]

    def _work(self) -> None:
        """Run commands in the order of `submit`; return when there is none for 5 s."""
        with suppress(queue.Empty):
            while (commands := self._ready.get(timeout=_QUEUE_WAIT_S)) is not None:
                commands.run_next()
                self._loops.heartbeat(threading.current_thread().name)
            self._stopped.set()  # everything submitted before the end has been taken


class QueueOwner(Protocol):
    """Runs and answers the commands of a queue; none of its methods raises."""

    @property
    def accepts_answers(self) -> bool:
        """Whether the client reads its answers. If not, no command runs until `CommandQueue.proceed` is called."""

    def run(self, command: Command, principal: Principal) -> SyncError | None:
        """Run a command of a principal and answer it; return why it was refused, if it was."""

    def refuse(self, command: Command, fault: SyncError) -> None:
        """Answer a command that is not run."""

    def command_finished(self) -> None:
        """Note that there is room for another command."""


class CommandQueue:
    """The commands of one connection.

    patience_s: how long a command may wait. One that has waited longer is refused.
    """

    __slots__ = ("_lock", "_owner", "_patience_s", "_pool", "_running", "_waiting")

    def __init__(self, pool: CommandPool, patience_s: float, owner: QueueOwner) -> None:
        self._pool = pool
        self._patience_s = patience_s
        self._owner = owner
        self._lock = threading.Lock()
        self._waiting: deque[_Waiting] = deque()
        self._running = False

    def __len__(self) -> int:
        return len(self._waiting) + self._running

    def put(self, command: Command, principal: Principal = ANYONE) -> None:
        """Add a command. It keeps the principal that it came from, even if the client sends another token meanwhile."""
        self._waiting.append(_Waiting(command, principal, time.monotonic()))
        self.proceed()

    def proceed(self) -> None:
        """Have the next command run, unless there is none, one is running, or the client does not read its answers."""
        with self._lock:
            if self._running or not self._waiting or not self._owner.accepts_answers:
                return
            self._running = True
        self._pool.submit(self)

    def run_next(self) -> None:
        """Run the command that has waited longest; the pool calls this.

        If the store or its replicas do not answer, all commands that were sent after it and wait are refused too: they
        must not take effect before it, and each would wait as long.
        """
        command, principal, arrived_s = self._waiting.popleft()
        if time.monotonic() - arrived_s > self._patience_s:
            self._owner.refuse(command, StoreUnavailable(_NOT_SENT, {"retry_after_s": 1}))
        elif (fault := self._owner.run(command, principal)) and fault.code in _SLOW:
            for _ in range(len(self._waiting)):
                self._owner.refuse(self._waiting.popleft().command, StoreUnavailable(_NOT_SENT, {"retry_after_s": 1}))
        with self._lock:
            self._running = False
        self._owner.command_finished()
        self.proceed()

"""The command queue of a connection: its commands run one at a time, in the order in which they arrived.

They run outside of the connection's step, so that a slow store delays no other messages.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import NamedTuple, Protocol

from syncapp.domain.principal import ANYONE, Principal
from syncapp.errors import NotReplicated, StoreUnavailable, SyncError
from syncapp.realtime.protocol import Command

MAX_IN_FLIGHT = 32
"""Maximum commands of one connection that wait or run; further messages are not read."""
_NOT_SENT = "the store does not answer; the command was not sent to it"
_SLOW = (StoreUnavailable.code, NotReplicated.code)


class _Waiting(NamedTuple):
    command: Command
    principal: Principal
    arrived_s: float


class CommandPool:
    """Limits how many commands of a process run at once: each of them uses a connection to the store.

    size: how many. start: has the turn of a queue run soon, on a greenlet.
    """

    def __init__(self, size: int, start: Callable[[CommandQueue], None]) -> None:
        self._size = size
        self._start = start
        self._running = 0
        self._ready: deque[CommandQueue] = deque()

    def submit(self, commands: CommandQueue) -> None:
        """Have the next command of a queue run, after those that were submitted before."""
        if self._running < self._size:
            self._running += 1
            self._start(commands)
        else:
            self._ready.append(commands)

    def finished(self) -> None:
        """Note that a command has ended."""
        if self._ready:
            self._start(self._ready.popleft())
        else:
            self._running -= 1


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

    __slots__ = ("_owner", "_patience_s", "_pool", "_running", "_waiting")

    def __init__(self, pool: CommandPool, patience_s: float, owner: QueueOwner) -> None:
        self._pool = pool
        self._patience_s = patience_s
        self._owner = owner
        self._waiting: list[_Waiting] = []  # an empty deque takes 0.7 kB
        self._running = False

    def __len__(self) -> int:
        return len(self._waiting) + self._running

    def put(self, command: Command, principal: Principal = ANYONE) -> None:
        """Add a command. It keeps the principal that it came from, even if the client sends another token meanwhile."""
        self._waiting.append(_Waiting(command, principal, time.monotonic()))
        self.proceed()

    def proceed(self) -> None:
        """Have the next command run, unless there is none, one is running, or the client does not read its answers."""
        if not self._running and self._waiting and self._owner.accepts_answers:
            self._running = True
            self._pool.submit(self)

    def turn(self) -> bool:
        """Run the command that has waited longest.

        If the store or its replicas do not answer, all commands that were sent after it and wait are refused too: they
        must not take effect before it, and each would wait as long.
        """
        command, principal, arrived_s = self._waiting.pop(0)
        try:
            if time.monotonic() - arrived_s > self._patience_s:
                self._owner.refuse(command, StoreUnavailable(_NOT_SENT, {"retry_after_s": 1}))
            elif (fault := self._owner.run(command, principal)) and fault.code in _SLOW:
                while self._waiting:
                    refused = self._waiting.pop(0).command
                    self._owner.refuse(refused, StoreUnavailable(_NOT_SENT, {"retry_after_s": 1}))
        finally:
            self._running = False
            self._pool.finished()
        self._owner.command_finished()
        self.proceed()
        return False

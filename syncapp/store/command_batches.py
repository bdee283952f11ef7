"""Commands of several greenlets in one write and one read: for each command alone, system calls are half of the cost.

A caller that comes while others are waiting for replies leads a batch. It lets those that are ready join, then sends
all commands over one connection, and hands out the replies. A batch is small, so that the store works on one while this
process works on the replies to another. The first caller does not wait for others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import gevent
from gevent.event import Event
from redis import exceptions

MAX_COMMANDS = 8


class _Batch:
    __slots__ = ("commands", "done", "error", "replies")

    def __init__(self, command: bytes) -> None:
        self.commands = [command]
        self.done: Event | None = None
        self.replies: list[Any] = []
        self.error: Exception | None = None


class CommandBatches:
    """Batches of commands; all callers are greenlets of one thread.

    send: sends commands and returns their replies, including errors. If it raises, so does each call of the batch: it
    is unknown which of the commands ran. To those that joined, anything but redis-py's errors is a `ConnectionError`.
    """

    def __init__(self, send: Callable[..., list[Any]]) -> None:
        self._send = send
        self._hub = gevent.get_hub()
        self._open: _Batch | None = None
        self._calls = 0

    def call(self, command: bytes) -> list[Any]:
        """Return a list with the reply to a command. Raises what `send` raises."""
        if gevent.get_hub() is not self._hub:  # a thread of its own
            return self._send(command)
        self._calls += 1
        try:
            if self._calls == 1:
                return self._send(command)
            batch = self._open
            if batch is None:
                return self._lead(command)
            return self._join(batch, command)
        finally:
            self._calls -= 1

    def _lead(self, command: bytes) -> list[Any]:
        batch = self._open = _Batch(command)
        try:
            gevent.sleep(0)
            if self._open is batch:
                self._open = None
            batch.replies = self._send(*batch.commands)
        except BaseException as error:
            batch.error = error if isinstance(error, exceptions.RedisError) else _failed(error)
            raise
        finally:
            if self._open is batch:
                self._open = None
            if batch.done:
                batch.done.set()
        return batch.replies[:1]

    def _join(self, batch: _Batch, command: bytes) -> list[Any]:
        place = len(batch.commands)
        batch.commands.append(command)
        if place + 1 == MAX_COMMANDS:
            self._open = None
        if batch.done is None:
            batch.done = Event()
        batch.done.wait()
        if batch.error:
            raise copy.copy(batch.error) from batch.error
        return batch.replies[place : place + 1]


def _failed(error: BaseException) -> Exception:
    """Return the error for those that joined: their commands may have run, whatever failed in their leader."""
    return exceptions.ConnectionError(f"the greenlet that sent the command failed: {type(error).__name__}")

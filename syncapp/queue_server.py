"""The server of the task queue, if it is another one than the store (`TASKS_REDIS_URL`): whether it can be used.

Commands and drains go on without it, so nobody waits for it in vain: after a failure calls are refused at once, until a
check has succeeded. A loop of the process checks the server every 5 s, and every second after a failure.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog
from huey import RedisHuey
from redis.exceptions import RedisError, ResponseError

from syncapp.config import Settings
from syncapp.errors import one_line
from syncapp.store.client import has_tasks_server
from syncapp.store.health import reason_of

log = structlog.get_logger(__name__)

_INTERVAL_S = 5.0
_AGAIN_S = 1.0


class QueueUnavailable(Exception):
    """The queue cannot be used now, but the store may work."""


class QueueServer:
    """Uses the queue, and remembers whether that worked."""

    def __init__(self, settings: Settings, huey: RedisHuey) -> None:
        self._is_apart = has_tasks_server(settings)
        self._storage = huey.storage
        self._lock = threading.Lock()
        self._reason: str | None = None

    @property
    def turn(self) -> Callable[[], float] | None:
        """The turn of the loop that checks the server; None if the queue is in the store."""
        return self._check if self._is_apart else None

    def enqueue(self, enqueue: Callable[[], None]) -> None:
        """Call a function that puts a task into the queue.

        Raises `QueueUnavailable` if the queue accepts no task, and what redis raises if the store does not answer.
        """
        if self._reason:
            raise QueueUnavailable(self._reason)
        try:
            enqueue()
        except RedisError as error:
            if self._is_apart:
                self._record(error)
            elif not isinstance(error, ResponseError):
                raise
            raise QueueUnavailable(one_line(error)) from error

    def scheduled_count(self) -> int | None:
        """Return how many retries are scheduled; None if the queue's own server does not tell.

        Raises what redis raises if the queue is in the store.
        """
        if self._reason:
            return None
        try:
            return int(self._storage.schedule_size())
        except RedisError as error:
            if not self._is_apart:
                raise
            self._record(error)
            return None

    def worries(self) -> list[str]:
        """Return what is wrong with the server, for `/ready`, without its address."""
        reason = self._reason
        return [f"the server of the task queue {reason}: audit events wait up to 5 s"] if reason else []

    def _check(self) -> float:
        try:
            self._storage.probe()
        except RedisError as error:
            self._record(error)
            return _AGAIN_S
        self._record(None)
        return _INTERVAL_S

    def _record(self, error: RedisError | None) -> None:
        """Remember the outcome of a call; log it if it is not that of the last one."""
        reason = reason_of(error) if error else None
        with self._lock:
            before, self._reason = self._reason, reason
        if reason and reason != before:
            log.warning("task_queue_unfit", reason=reason, error=one_line(error) if error else None)
        elif before and not reason:
            log.info("task_queue_fit")

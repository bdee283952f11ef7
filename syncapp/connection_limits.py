"""Maximum connections of each kind of process. During a deploy, processes of two releases run at once."""

from __future__ import annotations

from syncapp.config import Settings
from syncapp.store.client import has_tasks_server

_BESIDE_COMMANDS = 2  # the sweeper and pub/sub
_BESIDE_TASKS = 3  # the watch, drains outside the queue, the clock watch
_QUEUE_OF_WEB = 1  # the thread that requests drains
_QUEUE_BESIDE_TASKS = 2  # Huey's scheduler, drain requests
_BESIDE_DRAINS = 1  # drains outside the queue; the watch checks PostgreSQL only while none of them runs
POSTGRESQL_OF_A_RELEASE = 2
"""`flask db upgrade`: one connection holds the lock, one migrates."""
POSTGRESQL_OF_A_COMMAND = 3
"""The maximum of any other `flask` command: `audit verify`."""


def postgresql_of_web(settings: Settings) -> int:
    """Return the maximum connections to PostgreSQL of one web process: queries of the log, and one for `/ready`."""
    return settings.history_connections + 1


def postgresql_of_worker(settings: Settings) -> int:
    """Return the maximum connections to PostgreSQL of the worker process: one per thread, and one more."""
    return settings.worker_threads + _BESIDE_DRAINS


def redis_of_web(settings: Settings) -> int:
    """Return the maximum connections to the store of one web process."""
    queue = 0 if has_tasks_server(settings) else _QUEUE_OF_WEB
    return settings.redis_max_connections + _BESIDE_COMMANDS + queue


def redis_of_worker(settings: Settings) -> int:
    """Return the maximum connections to the store of the worker, which does not depend on `REDIS_MAX_CONNECTIONS`."""
    queue = 0 if has_tasks_server(settings) else _QUEUE_BESIDE_TASKS
    return settings.worker_threads + _BESIDE_TASKS + queue


def queue_of_web(settings: Settings) -> int:
    """Return the maximum connections to the queue's own server of one web process: one more checks it and counts."""
    return _QUEUE_OF_WEB + 1 if has_tasks_server(settings) else 0


def queue_of_worker(settings: Settings) -> int:
    """Return the maximum connections to the queue's own server of the worker: each thread reads; watch and check."""
    return settings.worker_threads + _QUEUE_BESIDE_TASKS + 2 if has_tasks_server(settings) else 0

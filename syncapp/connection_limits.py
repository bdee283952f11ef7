"""Maximum connections of each kind of process. During a deploy, processes of two releases run at once."""

from __future__ import annotations

from syncapp.config import Settings

_BESIDE_COMMANDS = 3  # the sweeper, pub/sub, and the thread that requests drains
_BESIDE_HUEY = 5  # the scheduler, the watch, drain requests, drains outside the queue, the clock watch
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
    """Return the maximum connections to Redis of one web process."""
    return settings.redis_max_connections + _BESIDE_COMMANDS


def redis_of_worker(settings: Settings) -> int:
    """Return the maximum connections to Redis of the worker: one per thread, and five more, whatever the setting."""
    return settings.worker_threads + _BESIDE_HUEY

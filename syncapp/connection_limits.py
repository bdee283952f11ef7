"""The most connections each kind of process may hold; a plan of the platform needs room for two releases."""

from __future__ import annotations

from syncapp.config import Settings

_BESIDE_COMMANDS = 3  # the sweeper, pub/sub, and the thread that asks for drains
_BESIDE_HUEY = 5  # the scheduler, the watch, nudges, drains outside the queue, the clock watch
_BESIDE_DRAINS = 1  # drains outside the queue; the watch tests PostgreSQL only while none of them runs
POSTGRESQL_OF_A_RELEASE = 2
"""`flask db upgrade`: one that holds the lock, one that migrates."""
POSTGRESQL_OF_A_COMMAND = 3
"""The most that any other command of `flask` takes: `audit verify`."""


def postgresql_of_web(settings: Settings) -> int:
    """Return the most connections to PostgreSQL of one web process: questions to the log, and one for `/ready`."""
    return settings.history_connections + 1


def postgresql_of_worker(settings: Settings) -> int:
    """Return the most connections to PostgreSQL of the worker process: one per thread and one more."""
    return settings.worker_threads + _BESIDE_DRAINS


def redis_of_web(settings: Settings) -> int:
    """Return the most connections to Redis of one web process."""
    return settings.redis_max_connections + _BESIDE_COMMANDS


def redis_of_worker(settings: Settings) -> int:
    """Return the most connections to Redis of the worker: five and one per thread, whatever the setting says."""
    return settings.worker_threads + _BESIDE_HUEY

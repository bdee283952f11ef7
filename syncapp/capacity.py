"""How many connections each kind of process may hold at once: what a plan of the platform must have room for, twice."""

from __future__ import annotations

from syncapp.config import Settings

_BESIDE_COMMANDS = 3  # the sweeper's, that of pub/sub, and one to ask for drains
_BESIDE_HUEY = 5  # the worker's scheduler, its watch, nudges, drains outside of the queue, the watch of the clock
_BESIDE_DRAINS = 1  # drains outside of the queue; the watch looks whether PostgreSQL is back only while none goes on
POSTGRESQL_OF_A_RELEASE = 2
"""`flask db upgrade`: one that holds the lock, one that migrates."""
POSTGRESQL_OF_A_COMMAND = 3
"""The most that any other command of `flask` takes: `audit verify`."""


def postgresql_of_web(settings: Settings) -> int:
    """Return the most connections to PostgreSQL of one web process: questions to the log, and the one of `/ready`."""
    return settings.history_connections + 1


def postgresql_of_worker(settings: Settings) -> int:
    """Return the most connections to PostgreSQL of the worker process: one a thread."""
    return settings.worker_threads + _BESIDE_DRAINS


def redis_of_web(settings: Settings) -> int:
    """Return the most connections to Redis of one web process."""
    return settings.redis_max_connections + _BESIDE_COMMANDS


def redis_of_worker(settings: Settings) -> int:
    """Return the most connections to Redis of the worker process: one a thread, whatever the setting says."""
    return settings.worker_threads + _BESIDE_HUEY

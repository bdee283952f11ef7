"""How many connections each kind of process may hold at once: what a plan of the platform must have room for, twice."""

from __future__ import annotations

from syncapp.config import Settings

POSTGRESQL_OF_A_RELEASE = 2
"""`flask db upgrade`: one that holds the lock, one that migrates."""
POSTGRESQL_OF_A_COMMAND = 3
"""The most that any other command of `flask` takes: `audit verify`."""


def postgresql_of_web(settings: Settings) -> int:
    """Return the most connections to PostgreSQL of one web process: questions to the log, and the one of `/ready`."""
    return settings.history_connections + 1


def postgresql_of_worker(settings: Settings) -> int:
    """Return the most connections to PostgreSQL of the worker process: one a thread, and one for its watch."""
    return settings.worker_threads + 1

"""Fixtures of the history and of recovery."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import redis as redis_py
from flask import Flask

from syncapp import create_app
from syncapp.audit.log import AuditLog
from syncapp.history.recovery import Recovery
from syncapp.postgres.database import Database
from syncapp.store.keys import Keyspace
from tests.support.audit_log import AuditServices, outbox_entries
from tests.support.store import PARTIALS, ManualClock, make_settings
from tests.support.types import Db


@pytest.fixture
def recovery(log: AuditServices) -> Recovery:
    return log.recoveries["run"]


@pytest.fixture
def app(redis_url: str, database_url: str, clock: ManualClock, db: Db) -> Iterator[Flask]:
    made = create_app(make_settings(redis_url, database_url=database_url), partials=PARTIALS)
    services = made.extensions["syncapp"]
    services.history.now_ms = lambda: clock.now_ms
    yield made
    services.history._pool.close()


@pytest.fixture
def logged(redis: redis_py.Redis, database_url: str, db: Db) -> Iterator[Callable[[], int]]:
    """Moves all events into the log."""
    database = Database(database_url)

    def log() -> int:
        new = AuditLog(database).store(outbox_entries(redis)).new
        redis.delete(*map(Keyspace().outbox, range(64)))
        return new

    yield log
    database.close()

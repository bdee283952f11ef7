"""An outbox, commands of `flask`, and a session whose log forks."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import pytest
import redis as redis_py

from syncapp.audit.outbox import Outbox
from syncapp.store.client import connect
from tests.support.audit_log import AuditServices
from tests.support.flask_commands import FlaskCommand, run_flask
from tests.support.forked_log import ForkingSession
from tests.support.outboxes import KEYS
from tests.support.store import ManualClock, make_settings, make_store
from tests.support.types import Db


@pytest.fixture
def outbox(redis: redis_py.Redis, redis_url: str) -> Outbox:
    return Outbox(connect(make_settings(redis_url), decode=False), KEYS)


@pytest.fixture
def flask(redis_url: str, database_url: str) -> FlaskCommand:
    return partial(run_flask, make_settings(redis_url, database_url=database_url))


@pytest.fixture
def play(redis: redis_py.Redis, redis_url: str, database_url: str, db: Db) -> Iterator[ForkingSession]:
    clock = ManualClock(redis)
    log = AuditServices(database_url, redis, redis_url)
    yield ForkingSession(make_store(redis_url), clock, log, redis, db)
    log.database.close()
    log.pool.close()

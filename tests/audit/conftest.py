"""The outbox."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis as redis_py

from syncapp.audit.outbox import Outbox
from syncapp.store.client import connect
from tests.support.audit_log import Log
from tests.support.forked_log import Play
from tests.support.outboxes import KEYS
from tests.support.store import SetClock, make_store, settings
from tests.support.types import Db


@pytest.fixture
def outbox(redis: redis_py.Redis, redis_url: str) -> Outbox:
    return Outbox(connect(settings(redis_url), decode=False), KEYS)


@pytest.fixture
def play(redis: redis_py.Redis, redis_url: str, database_url: str, db: Db) -> Iterator[Play]:
    clock = SetClock(redis)
    log = Log(database_url, redis, redis_url)
    yield Play(make_store(redis_url), clock, log, redis, db)
    log.database.close()
    log.pool.close()

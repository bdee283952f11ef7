"""The numbers of live sessions of each tenant, after the sessions themselves were counted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import redis as redis_py

from syncapp.errors import StoreUnavailable
from syncapp.store.client import connect
from syncapp.store.live_sessions import LIVE, LiveSessions
from tests.support.outboxes import KEYS
from tests.support.store import make_settings

ACME, OTHER = LIVE + "acme", LIVE + "other"


@pytest.fixture
def live(redis: redis_py.Redis, redis_url: str) -> Iterator[LiveSessions]:
    client = connect(make_settings(redis_url))
    yield LiveSessions(client, KEYS)
    client.close()


def test_a_wrong_number_becomes_that_of_the_sessions(live: LiveSessions, redis: redis_py.Redis) -> None:
    redis.zadd(KEYS.tenants(), {ACME: 5, OTHER: 1, "creates:acme": 7})
    live.begin()
    live.add(["acme/1", "acme/2", "other/1"])
    live.correct()
    assert [redis.zscore(KEYS.tenants(), each) for each in (ACME, OTHER, "creates:acme")] == [2, 1, 7]


def test_a_session_created_meanwhile_stays_counted(live: LiveSessions, redis: redis_py.Redis) -> None:
    redis.zadd(KEYS.tenants(), {ACME: 5})
    live.begin()
    redis.zincrby(KEYS.tenants(), 1, ACME)
    live.add(["acme/1", "acme/2"])
    live.correct()
    assert redis.zscore(KEYS.tenants(), ACME) == 3


def test_each_count_begins_at_zero(live: LiveSessions, redis: redis_py.Redis) -> None:
    redis.zadd(KEYS.tenants(), {ACME: 2})
    for _ in range(2):
        live.begin()
        live.add(["acme/1", "acme/2"])
        live.correct()
    assert redis.zscore(KEYS.tenants(), ACME) == 2


def test_an_unreadable_number_is_an_unavailable_store(live: LiveSessions, redis: redis_py.Redis) -> None:
    redis.set(KEYS.tenants(), "a string")
    with pytest.raises(StoreUnavailable):
        live.begin()

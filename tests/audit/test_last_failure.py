"""The reason of the last failed drain, as `/ready` shows it."""

from __future__ import annotations

import time

import psycopg2
import pytest
import redis as redis_py
from redis.backoff import NoBackoff
from redis.retry import Retry

from syncapp.audit.last_failure import LastFailure
from syncapp.dev.ports import free_port
from syncapp.postgres.failures import Failure
from tests.support.outboxes import KEYS

FAULT = psycopg2.OperationalError("connection to server failed: Connection refused")


@pytest.fixture
def last(redis: redis_py.Redis) -> LastFailure:
    return LastFailure(redis, KEYS)


def test_a_failure_of_postgresql_is_kept_until_a_drain_succeeds(last: LastFailure) -> None:
    assert last.read() is None
    last.failed(FAULT)
    assert last.read() == Failure.of("unreachable", ", as the last drain found")
    last.succeeded()
    assert last.read() is None


def test_each_failure_is_cleared_though_the_last_one_just_was(last: LastFailure) -> None:
    for _ in range(2):
        last.failed(FAULT)
        last.succeeded()
        assert last.read() is None


def test_other_failures_are_not_kept(last: LastFailure) -> None:
    last.failed(redis_py.ConnectionError("away"))
    assert last.read() is None


def test_a_failure_is_forgotten_after_ten_minutes(last: LastFailure, monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = time.time()
    monkeypatch.setattr(time, "time", lambda: now_s)
    last.failed(FAULT)
    monkeypatch.setattr(time, "time", lambda: now_s + 590)
    assert last.read()
    monkeypatch.setattr(time, "time", lambda: now_s + 602)
    assert last.read() is None


@pytest.mark.parametrize("value", ["", "unreachable", "unreachable soon", "unknown 9999999999"])
def test_what_another_release_has_written_is_no_failure(last: LastFailure, redis: redis_py.Redis, value: str) -> None:
    redis.hset(KEYS.audit_counts(), "trouble", value)
    assert last.read() is None


def test_without_redis_a_failure_is_neither_kept_nor_read() -> None:
    with redis_py.Redis(port=free_port(), retry=Retry(NoBackoff(), 0)) as nobody:
        last = LastFailure(nobody, KEYS)
        last.failed(FAULT)
        last.succeeded()
        assert last.read() is None

"""Quotas of principals and tenants: creates, live sessions, bytes in the store, commits that sessions make alone."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
import redis as redis_py

from syncapp.access.rate_limits import stored_bytes
from syncapp.domain.results import Claim
from syncapp.errors import RateLimited, SessionExists
from syncapp.store.client import connect
from syncapp.store.keys import Keyspace
from syncapp.store.list_upkeep import ListUpkeep
from tests.support.limited_service import ADA, BEN, EVE, ROUNDS, Service
from tests.support.store import ManualClock, chess_request, make_settings

pytestmark = pytest.mark.usefixtures("split_limits")


def refused(command: Callable[[], Any]) -> dict[str, Any]:
    with pytest.raises(RateLimited) as failed:
        command()
    details: dict[str, Any] = failed.value.details
    return details


def store_contents(redis: redis_py.Redis) -> dict[bytes, Any]:
    read = {
        b"hash": redis.hgetall,
        b"zset": lambda key: redis.zrange(key, 0, -1, withscores=True),
        b"string": redis.get,
    }
    # A nudge expires by itself.
    kinds = {key: redis.type(key) for key in redis.scan_iter() if not key.endswith(b":nudge")}
    return {key: read[kind](key) if kind in read else None for key, kind in kinds.items()}


def test_creates_of_a_principal_are_counted_over_all_processes_and_to_the_last_one(
    redis_url: str, redis: redis_py.Redis, clock: ManualClock
) -> None:
    one, other = (Service(redis_url, principal_creates_per_minute=6) for _ in range(2))
    for service in (one, other) * 3:
        service.create(chess_request())
    clock.advance_ms(9_999)
    before = store_contents(redis)
    details = refused(lambda: other.create(chess_request()))
    assert details == {"reason": "principal_creates_per_minute", "limit": 6, "retry_after_s": 1}
    assert store_contents(redis) == before
    assert redis.pexpiretime(Keyspace().creates(ADA)) == clock.now_ms + 60_000 - 9_999 + 1
    other.create(chess_request(), BEN)
    other.create(chess_request(), EVE)
    clock.advance_ms(1)
    one.create(chess_request())
    assert refused(lambda: other.create(chess_request()))["retry_after_s"] == 10


def test_live_sessions_of_a_tenant_are_counted_and_finished_ones_free_their_place(
    redis_url: str, redis: redis_py.Redis, clock: ManualClock
) -> None:
    one, other = (Service(redis_url, tenant_live_sessions=3) for _ in range(2))
    ids = [service.create(chess_request(), by) for service, by in ((one, ADA), (other, BEN), (one, ADA))]
    before = store_contents(redis)
    details = refused(lambda: other.create(chess_request()))
    assert details == {"reason": "tenant_live_sessions", "limit": 3, "retry_after_s": 20}
    assert store_contents(redis) == before
    other.create(chess_request(), EVE)
    one.run("complete", ids[0])
    assert refused(lambda: other.create(chess_request()))["reason"] == "tenant_live_sessions"
    now_s = 0.0
    upkeep = ListUpkeep(connect(make_settings(redis_url)), one.store, Keyspace(), lambda: now_s)

    def correct() -> None:
        nonlocal now_s
        now_s += 30
        for _ in range(100):
            upkeep.step(held=True)

    correct()
    with pytest.raises(SessionExists):  # it does not count
        other.create(chess_request(session_id=ids[1]))
    last = other.create(chess_request())
    assert refused(lambda: one.create(chess_request()))["reason"] == "tenant_live_sessions"
    for each in (*ids[1:], last):
        one.run("cancel", each)
    correct()
    assert redis.zscore(Keyspace().tenants(), "live:default") == 0
    assert redis.zscore(Keyspace().tenants(), "live:acme") == 1


def test_bytes_of_a_tenant_are_counted_for_keys_metadata_and_creates(
    redis_url: str, redis: redis_py.Redis, clock: ManualClock
) -> None:
    hour = 4 * 100_000
    one, other = (Service(redis_url, tenant_store_bytes_per_hour=hour, session_commands_per_s=0) for _ in range(2))
    session_id = one.create(chess_request())
    one.run("start", session_id)
    left = 100_000 - stored_bytes(chess_request(), Claim())
    sent = 0
    while left >= 1024 + 5:
        (one, other)[sent % 2].run("switch", session_id, (ADA, BEN)[sent % 2], f"k{sent:04}")
        left -= 1024 + 5
        sent += 1
    before = store_contents(redis)
    details = refused(lambda: other.run("switch", session_id, ADA, "k9999"))
    assert (details["reason"], details["limit"]) == ("tenant_store_bytes_per_hour", hour)
    assert store_contents(redis) == before
    assert refused(lambda: one.run("update", session_id, metadata={"a": "b" * 2000}))["limit"] == hour
    one.run("switch", session_id)  # without a key, it adds nothing
    other.create(chess_request(), EVE)
    clock.advance_ms(details["retry_after_s"] * 1000)
    assert not other.run("switch", session_id, ADA, "k9999").replayed


def test_commits_that_sessions_make_alone_are_charged_to_the_tenant_at_a_start_and_a_resume(
    redis_url: str, redis: redis_py.Redis, clock: ManualClock
) -> None:
    one, other = (Service(redis_url, tenant_self_commits_per_hour=2500, max_unattended_cycles=1000) for _ in range(2))
    ids = [one.create(ROUNDS) for _ in range(3)]
    plain = one.create(chess_request())
    one.run("start", ids[0])
    other.run("start", ids[1], BEN)
    before = store_contents(redis)
    details = refused(lambda: other.run("start", ids[2]))
    assert (details["reason"], details["limit"]) == ("tenant_self_commits_per_hour", 2500)
    assert store_contents(redis) == before
    one.run("start", plain)
    for _ in range(10):  # it is paid for the hour
        one.run("pause", ids[0])
        one.run("resume", ids[0])
    one.run("pause", ids[0])
    clock.advance_ms(details["retry_after_s"] * 1000)
    other.run("start", ids[2])
    assert refused(lambda: one.run("resume", ids[0]))["reason"] == "tenant_self_commits_per_hour"


def test_an_update_is_counted_once_though_it_calls_the_store_twice(
    redis_url: str, redis: redis_py.Redis, clock: ManualClock
) -> None:
    service = Service(redis_url, tenant_store_bytes_per_hour=3_600_000)
    session_id = service.store.create(chess_request()).found.session_id
    service.run("update", session_id, ADA, "k", metadata={"a": 1})
    size = 1024 + len("k") + len('{"a":1}')
    assert redis.zscore(Keyspace().tenants(), "bytes:default") == clock.now_ms * 1000 + size * 1000


def test_a_plain_switch_uses_the_principals_bucket_only(
    redis_url: str, redis: redis_py.Redis, clock: ManualClock
) -> None:
    service = Service(redis_url)
    session_id = service.create(chess_request())
    service.run("start", session_id)
    before = redis.zrange(Keyspace().tenants(), 0, -1, withscores=True)
    service.run("switch", session_id)
    assert redis.zrange(Keyspace().tenants(), 0, -1, withscores=True) == before


def test_a_quota_of_0_is_none_and_an_address_counts_only_without_a_principal(
    redis_url: str, redis: redis_py.Redis, clock: ManualClock
) -> None:
    names = (
        "principal_creates_per_minute",
        "tenant_live_sessions",
        "tenant_store_bytes_per_hour",
        "tenant_self_commits_per_hour",
    )
    none: dict[str, Any] = dict.fromkeys(names, 0)
    free = Service(redis_url, **none, creates_per_minute=1, address_store_bytes_per_hour=1)
    for _ in range(3):
        free.create(chess_request(), ADA, str(uuid.uuid4()))
    free.run("start", free.create(ROUNDS))
    assert redis.exists(Keyspace().tenants(), Keyspace().creates(ADA)) == 0


def test_only_the_holder_of_the_first_lease_corrects_the_number_of_live_sessions(
    redis_url: str, redis: redis_py.Redis, clock: ManualClock
) -> None:
    service = Service(redis_url)
    service.run("cancel", service.create(chess_request()))
    upkeep = ListUpkeep(connect(make_settings(redis_url)), service.store, Keyspace())
    for _ in range(100):
        upkeep.step(held=False)
    assert redis.zscore(Keyspace().tenants(), "live:default") == 1
    for _ in range(100):
        upkeep.step(held=True)
    assert redis.zscore(Keyspace().tenants(), "live:default") == 0

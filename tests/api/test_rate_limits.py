"""Rate limits per client address."""

from __future__ import annotations

import pytest

from syncapp import create_app
from syncapp.token_bucket import TokenBuckets
from tests.support.rest import UNKNOWN, expect_error
from tests.support.store import PARTIALS, ManualClock, make_settings


def test_a_rate_limit_is_per_address_and_spares_health_checks(
    redis_url: str, database_url: str, clock: ManualClock
) -> None:
    app = create_app(
        make_settings(redis_url, database_url=database_url, rate_limit_per_s=0.5, rate_limit_burst=3), partials=PARTIALS
    )
    client = app.test_client()
    statuses = [client.get(f"/v1/sessions/{UNKNOWN}").status_code for _ in range(5)]
    assert statuses == [404, 404, 404, 429, 429]
    refused = client.get(f"/v1/sessions/{UNKNOWN}")
    expect_error(refused, 429, "RATE_LIMITED")
    assert 1 <= int(refused.headers["Retry-After"]) <= 3
    assert client.get("/health").status_code == 200
    other = client.get(f"/v1/sessions/{UNKNOWN}", environ_base={"REMOTE_ADDR": "192.0.2.1"})
    assert other.status_code == 404


def test_a_bucket_of_tokens_fills_with_time_and_forgets_old_addresses() -> None:
    limit = TokenBuckets(2.0, 1)
    assert limit.take("a", 0.0) == 0
    assert limit.take("a", 0.1) == pytest.approx(0.4)
    assert limit.take("a", 0.6) == 0
    for i in range(20_000):
        limit.take(str(i), 1.0)
    assert len(limit._buckets) == 10_000


def test_the_trusted_proxys_word_is_the_address(redis_url: str, database_url: str, clock: ManualClock) -> None:
    app = create_app(
        make_settings(redis_url, database_url=database_url, rate_limit_per_s=0.001, rate_limit_burst=1, proxy_hops=1),
        partials=PARTIALS,
    )
    client = app.test_client()
    for number in range(3):
        headers = {"X-Forwarded-For": f"203.0.113.1, 192.0.2.{number}"}
        assert client.get(f"/v1/sessions/{UNKNOWN}", headers=headers).status_code == 404

"""Health, readiness and metrics."""

from __future__ import annotations

import uuid

import redis as redis_py
from flask import Flask
from flask.testing import FlaskClient

from syncapp import create_app
from syncapp.api.reference.system_schemas import HealthAnswer
from tests.support.store import make_settings


def test_health_needs_nobody_and_readiness_names_who_is_missing(
    app: Flask, client: FlaskClient, redis_url: str, database_url: str
) -> None:
    HealthAnswer.model_validate_json(client.get("/health").data)
    assert client.get("/ready").get_json() == {"status": "ready", "redis": "ok", "postgresql": "ok"}
    away = create_app(
        make_settings("redis://127.0.0.1:1/0", redis_timeout_s=0.2, database_url=database_url)
    ).test_client()
    assert away.get("/health").status_code == 200
    refused = away.get("/ready")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert refused.get_json() == {
        "status": "unavailable",
        "problems": ["redis does not answer"],
        "redis": "does not answer",
        "postgresql": "ok",
    }
    assert "127.0.0.1" not in away.get("/ready").text
    away = create_app(make_settings(redis_url, database_url="postgresql://127.0.0.1:1/nothing")).test_client()
    data = away.get("/ready").get_json()
    assert data["redis"] == "ok"
    assert data["postgresql"] != "ok"
    assert any("postgresql" in worry and "audit events wait" in worry for worry in data["worries"])


def test_readiness_tells_what_may_lose_data_later(client: FlaskClient, redis: redis_py.Redis) -> None:
    assert "worries" not in client.get("/ready").get_json()
    redis.config_set("maxmemory-policy", "volatile-lru")
    try:
        (worry,) = client.get("/ready").get_json()["worries"]
        assert "volatile-lru" in worry
        redis.config_set("maxmemory-policy", "allkeys-lru")
        refused = client.get("/ready")
        assert refused.status_code == 503
        assert "would evict live sessions" in refused.get_json()["problems"][0]
    finally:
        redis.config_set("maxmemory-policy", "noeviction")


def test_metrics_count_requests_and_times_by_route(client: FlaskClient, url: str) -> None:
    client.get(url)
    client.get("/x" + uuid.uuid4().hex)
    text = client.get("/metrics").get_data(as_text=True)
    assert 'syncapp_http_requests_total{method="GET",route="/v1/sessions/<session>",status="200"}' in text
    assert 'syncapp_http_request_seconds_count{method="POST",route="/v1/sessions"}' in text
    assert 'route="unmatched"' in text
    assert "syncapp_ws_connections" in text

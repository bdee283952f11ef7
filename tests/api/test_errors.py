"""Wrong paths, an unavailable store, our own faults, and random input: each answer has the form of an error."""

from __future__ import annotations

import re
from typing import Any

import orjson
import pytest
import redis as redis_py
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from syncapp import create_app
from syncapp.api.reference.schemas import ErrorAnswer
from tests.support.rest import CHESS, UNKNOWN, expect_error
from tests.support.store import make_settings


@pytest.mark.parametrize("path", ["/v1//sessions", "//v1/sessions", "/api-docs//x", "/v1/sessions//"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nothing_is_redirected(client: FlaskClient, method: str, path: str) -> None:
    answer = client.open(path, method=method, json=CHESS, headers={"Host": "elsewhere.example"})
    assert answer.status_code in (404, 405)
    assert answer.content_type == "application/json"
    assert b"elsewhere" not in answer.data + str(answer.headers).encode()


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", f"/v1/sessions/{UNKNOWN}", 404, "SESSION_NOT_FOUND"),
        ("POST", f"/v1/sessions/{UNKNOWN}/start", 404, "SESSION_NOT_FOUND"),
        ("PATCH", f"/v1/sessions/{UNKNOWN}", 400, "VALIDATION_ERROR"),
        ("GET", "/v1/sessions/17", 400, "VALIDATION_ERROR"),
        ("GET", f"/v1/sessions/{UNKNOWN}%0A", 400, "VALIDATION_ERROR"),
        ("GET", "/v1/sessions/%00%ff", 400, "VALIDATION_ERROR"),
        ("GET", "/v1/nothing", 404, "NOT_FOUND"),
        ("POST", f"/v1/sessions/{UNKNOWN}/adjourn", 404, "NOT_FOUND"),
        ("PUT", "/v1/sessions", 405, "METHOD_NOT_ALLOWED"),
        ("GET", f"/v1/sessions/{UNKNOWN}/start", 405, "METHOD_NOT_ALLOWED"),
    ],
)
def test_paths_that_lead_nowhere_say_so(client: FlaskClient, method: str, path: str, status: int, code: str) -> None:
    expect_error(client.open(path, method=method), status, code)


def test_a_store_that_is_away_is_a_503_that_says_when_to_come_back(redis_url: str, database_url: str) -> None:
    away = create_app(
        make_settings("redis://127.0.0.1:1/0", redis_timeout_s=0.2, database_url=database_url)
    ).test_client()
    for answer in (away.post("/v1/sessions", json=CHESS), away.get(f"/v1/sessions/{UNKNOWN}"), away.get("/v1/time")):
        expect_error(answer, 503, "STORE_UNAVAILABLE")
        assert answer.headers["Retry-After"] == "1"


def test_a_fault_of_ours_shows_no_traceback_and_an_id_to_ask_about(
    client: FlaskClient, redis: redis_py.Redis, url: str
) -> None:
    redis.hset(redis.keys("*session:*")[0], "scalars", "no numbers")
    answer = client.get(url, headers={"X-Request-Id": "abc-1"})
    assert expect_error(answer, 500, "INTERNAL_ERROR")["details"] == {"request_id": "abc-1"}
    assert answer.headers["X-Request-Id"] == "abc-1"
    assert b"lua" not in answer.data.lower()


def test_a_request_id_that_is_none_is_replaced(client: FlaskClient) -> None:
    for bad in ("x" * 65, "a b", '"', "é"):
        assert re.fullmatch(
            "[0-9a-f]{32}", client.get("/health", headers={"X-Request-Id": bad}).headers["X-Request-Id"]
        )


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
near_bodies = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys((
        "session_id", "sync_mode", "participants", "total_time_ms", "increment_ms", "metadata", "action_on_timeout",
        "participant_id", "next_participant_id", "expected_version", "expected_epoch", "reason", "idle_timeout_s",
        "groups", "group_id", "op", "ms", "warn_at_ms", "max_cycles", "time_per_cycle_ms", "max_time_ms",
        "not_after_ms",
    ), json_values),
)  # fmt: skip


@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    method=st.sampled_from(["POST", "PATCH", "DELETE", "GET", "PUT"]),
    path=st.sampled_from(["", "/start", "/switch", "/pause", "/resume", "/complete", "/cancel", "/adjust", "?create"])
    | st.text(max_size=5),
    body=st.one_of(near_bodies, json_values).map(
        lambda value: orjson.dumps(value, default=str) if _fits(value) else b"1e999"
    )
    | st.binary(max_size=40),
    header=st.sampled_from(
        ["If-Match", "If-None-Match", "Idempotency-Key", "Prefer", "X-Request-Id", "Accept", "Content-Type"]
    ),
    value=st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=20),
)
def test_nothing_a_client_sends_is_a_500(
    client: FlaskClient, url: str, method: str, path: str, body: bytes, header: str, value: str
) -> None:
    target = "/v1/sessions" if path == "?create" else f"{url}{path}"
    headers = {"Content-Type": "application/json"} | {header: value}
    answer = client.open(target, method=method, data=body, headers=headers)
    assert answer.status_code < 500
    assert b"Traceback" not in answer.data
    if answer.status_code >= 400:
        ErrorAnswer.model_validate_json(answer.data)


def _fits(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except (TypeError, orjson.JSONEncodeError):
        return False
    return True

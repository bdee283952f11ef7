"""Tokens in requests: where they are read, what is open without one, and what the answers and metrics say."""

from __future__ import annotations

import re
from urllib.parse import urlencode

import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from syncapp import create_app
from syncapp.api.reference.system_schemas import ReadyAnswer, UnreadyAnswer
from tests.support.permissions import REQUIRED
from tests.support.rest import CHESS, UNKNOWN, expect_error, expect_faults
from tests.support.store import PARTIALS, ManualClock, make_settings
from tests.support.tokens import bearer, token

METRICS_TOKEN = "a token of the metrics, 32 bytes or more"
OPERATOR = {"Authorization": f"Bearer {METRICS_TOKEN}"}


@pytest.fixture
def app(redis_url: str, database_url: str, clock: ManualClock) -> Flask:
    settings = make_settings(
        redis_url,
        database_url=database_url,
        metrics_token=METRICS_TOKEN,
        allowed_origins="https://play.example",
        **REQUIRED,
    )
    return create_app(settings, partials=PARTIALS)


def test_the_scheme_is_read_in_any_case_and_another_scheme_is_no_token(client: FlaskClient) -> None:
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert client.get("/v1/sessions", headers={"Authorization": f"{scheme} {token()}"}).status_code == 200
    for other in (f"Basic {token()}", token(), "", f"Token {token()}"):
        error = expect_error(client.get("/v1/sessions", headers={"Authorization": other}), 401, "UNAUTHORIZED")
        assert error["details"] == {"reason": "missing_token"}
        assert error["message"] == (
            "the header Authorization must be: Bearer <token>"
            if other
            else "this needs a token: send the header Authorization: Bearer <token>"
        )


def test_a_token_in_the_query_is_read_for_streams_and_exports_only(client: FlaskClient) -> None:
    made = client.post("/v1/sessions", json=CHESS, headers=bearer()).headers["Location"]
    with client.get(f"{made}/stream?token={token()}") as stream:
        assert stream.status_code == 200
    expect_error(client.get(f"{made}/export?token={token()}"), 404, "SESSION_NOT_FOUND")  # not in the log yet
    for path in (made, f"{made}/text", f"{made}/events", "/v1/sessions", "/v1/history", "/metrics"):
        expect_error(client.get(f"{path}?token={token()}"), 401, "UNAUTHORIZED")


def test_two_tokens_are_refused_without_saying_them(client: FlaskClient) -> None:
    path, first, second = f"/v1/sessions/{UNKNOWN}/stream", token("ada"), token("bob")
    for query, header in (
        (f"?token={first}", f"Bearer {second}"),
        (f"?token={first}&token={second}", ""),
        ("", f"Bearer {first}, Bearer {second}"),
        ("", f"Bearer {first},bearer  {second}"),
    ):
        answer = client.get(path + query, headers={"Authorization": header})
        assert expect_faults(answer) == {"token": "repeated"}
        assert first not in answer.text
        assert second not in answer.text


def test_what_needs_no_token_is_answered_without_one_and_with_a_bad_one(client: FlaskClient) -> None:
    for path in ("/health", "/ready", "/v1/time", "/api-docs", "/api-docs.json", "/asyncapi.json"):
        for headers in ({}, {"Authorization": "Bearer bad"}, bearer(expires_in_s=-100)):
            assert client.get(path, headers=headers).status_code == 200, path
    expect_error(client.get("/nothing/here"), 404, "NOT_FOUND")
    expect_error(client.get("/nothing/here", headers={"Authorization": "Bearer bad"}), 404, "NOT_FOUND")


def test_a_wrong_method_needs_a_token_first(client: FlaskClient) -> None:
    expect_error(client.put("/v1/sessions"), 401, "UNAUTHORIZED")
    expect_error(client.put("/v1/sessions", headers=bearer()), 405, "METHOD_NOT_ALLOWED")


def test_a_preflight_needs_no_token_and_pages_can_read_why_a_request_was_refused(client: FlaskClient) -> None:
    page = {"Origin": "https://play.example"}
    asked = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
    answer = client.options("/v1/sessions", headers=page | asked)
    assert answer.status_code == 204
    assert "Authorization" in answer.headers["Access-Control-Allow-Headers"]
    assert client.options("/v1/sessions").status_code == 200
    refused = client.post("/v1/sessions", json=CHESS, headers=page)
    assert refused.status_code == 401
    assert refused.headers["Access-Control-Allow-Origin"] == "https://play.example"
    exposed = refused.headers["Access-Control-Expose-Headers"]
    assert {"WWW-Authenticate", "RateLimit", "RateLimit-Policy"} <= set(exposed.split(", "))


def test_readiness_shows_details_to_operators_only(client: FlaskClient, redis_url: str) -> None:
    down = create_app(
        make_settings("redis://127.0.0.1:1/0", redis_timeout_s=0.2, metrics_token=METRICS_TOKEN, **REQUIRED)
    )
    for shown in (OPERATOR, bearer(scope="admin")):
        assert client.get("/ready", headers=shown).get_json() == {"status": "ready", "redis": "ok", "postgresql": "ok"}
        assert down.test_client().get("/ready", headers=shown).get_json()["problems"]
    bound = bearer(scope="admin", session_id=UNKNOWN)
    for hidden in ({}, bearer(scope="session:control"), bound, {"Authorization": "Bearer bad"}):
        answer = client.get("/ready", headers=hidden)
        assert (answer.status_code, answer.get_json()) == (200, {"status": "ready"})
        ReadyAnswer.model_validate_json(answer.data)
        answer = down.test_client().get("/ready", headers=hidden)
        assert (answer.status_code, answer.get_json()) == (503, {"status": "unavailable"})
        assert answer.headers["Retry-After"]
        UnreadyAnswer.model_validate_json(answer.data)


def test_the_metrics_token_opens_what_concerns_the_service_and_nothing_else(client: FlaskClient) -> None:
    for path in ("/metrics", "/v1/audit/queue", "/v1/audit/verification"):
        assert client.get(path, headers=OPERATOR).status_code == 200
        expect_error(client.get(path, headers={"Authorization": f"Bearer {METRICS_TOKEN}x"}), 401, "UNAUTHORIZED")
    for path in ("/v1/sessions", "/v1/history", f"/v1/sessions/{UNKNOWN}"):
        expect_error(client.get(path, headers=OPERATOR), 401, "UNAUTHORIZED")


def test_without_a_metrics_token_an_empty_one_opens_nothing(redis_url: str, database_url: str) -> None:
    client = create_app(make_settings(redis_url, database_url=database_url, **REQUIRED)).test_client()
    for header in ("Bearer", "Bearer ", "Bearer  "):
        expect_error(client.get("/metrics", headers={"Authorization": header}), 401, "UNAUTHORIZED")


def test_the_forms_of_the_challenge(client: FlaskClient) -> None:
    missing = client.get("/v1/sessions")
    assert missing.headers["WWW-Authenticate"] == 'Bearer realm="SyncApp"'
    invalid = client.get("/v1/sessions", headers={"Authorization": "Bearer bad"})
    form = r'Bearer realm="SyncApp", error="invalid_token", error_description="[^"\\]+"'
    assert re.fullmatch(form, invalid.headers["WWW-Authenticate"])
    scopeless = client.get("/v1/sessions", headers=bearer(scope="session:create"))
    expected = 'Bearer realm="SyncApp", error="insufficient_scope", scope="session:watch"'
    assert scopeless.headers["WWW-Authenticate"] == expected
    bound = client.get("/v1/sessions", headers=bearer(session_id=UNKNOWN))
    assert bound.headers["WWW-Authenticate"] == 'Bearer realm="SyncApp", error="insufficient_scope"'


def test_refusals_are_counted_by_reason_and_under_the_same_routes(client: FlaskClient) -> None:
    def count(reason: str) -> float:
        text = client.get("/metrics", headers=OPERATOR).text
        found = re.search(rf'^syncapp_auth_refused_total{{reason="{reason}"}} (\S+)', text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    path = f"/v1/sessions/{UNKNOWN}/switch"
    requests = {
        "missing_token": {},
        "invalid_token": {"Authorization": "Bearer bad"},
        "missing_scope": bearer(scope="session:watch"),
        "session_id": bearer(session_id="00000000-0000-4000-8000-000000000001"),
    }
    before = {reason: count(reason) for reason in requests}
    for headers in requests.values():
        client.post(path, headers=headers)
    assert {reason: count(reason) - before[reason] for reason in requests} == dict.fromkeys(requests, 1)
    text = client.get("/metrics", headers=OPERATOR).text
    assert 'syncapp_http_requests_total{method="POST",route="/v1/sessions/<session>/switch",status="401"}' in text


def test_without_authentication_a_token_is_ignored(redis_url: str, database_url: str, clock: ManualClock) -> None:
    app = create_app(make_settings(redis_url, database_url=database_url), partials=PARTIALS)
    client = app.test_client()
    bad = {"Authorization": "Bearer bad"}
    made = client.post("/v1/sessions", json=CHESS, headers=bad).headers["Location"]
    assert client.post(f"{made}/start", headers=bad).status_code == 200
    assert client.get("/ready", headers=bad).get_json()["redis"] == "ok"
    with client.get(f"{made}/stream?token=bad") as stream:
        assert stream.status_code == 200


def test_the_document_of_a_server_that_requires_tokens_says_which_scope(client: FlaskClient) -> None:
    document = client.get("/api-docs.json").get_json()
    assert document["components"]["securitySchemes"]["bearer"]["scheme"] == "bearer"
    operations = {
        operation["operationId"]: operation for methods in document["paths"].values() for operation in methods.values()
    }
    assert operations["ready"]["security"] == [{}, {"bearer": []}]
    assert "`session:act`" in operations["switch"]["description"]
    for name, operation in operations.items():
        is_open = name in ("health", "ready", "time")
        assert ({"401", "403"} <= operation["responses"].keys()) is not is_open
        assert ("scope" in operation["description"]) is (name not in ("health", "time"))
        assert is_open or operation["security"] == [{"bearer": []}]


@hypothesis_settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    header=st.text(st.characters(max_codepoint=255, exclude_categories=["Cc"])),
    scheme=st.sampled_from(["", "Bearer ", "bearer  ", "Bearer,", "Basic "]),
    query=st.lists(st.text(), max_size=2),
)
def test_no_header_and_no_query_is_an_error_of_the_server_or_lets_anybody_in(
    client: FlaskClient, header: str, scheme: str, query: list[str]
) -> None:
    path = f"/v1/sessions/{UNKNOWN}/export?{urlencode([('token', each) for each in query])}"
    answer = client.get(path, headers={"Authorization": scheme + header})
    assert answer.status_code in (400, 401)
    assert answer.get_json()["error"]["code"] in ("VALIDATION_ERROR", "UNAUTHORIZED")

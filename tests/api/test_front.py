"""The short way to the hot routes answers each request, byte by byte, as Flask does."""

from __future__ import annotations

import gc
import gzip
import weakref
from collections import Counter
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from flask import Flask, request
from flask.testing import FlaskClient
from werkzeug.test import EnvironBuilder

from syncapp import create_app
from syncapp.api.front import Front
from syncapp.domain.commands import COMMANDS
from syncapp.metrics import REQUESTS
from tests.support.permissions import REQUIRED
from tests.support.rest import CHESS, MODES, UNKNOWN
from tests.support.store import PARTIALS, ManualClock, make_settings
from tests.support.tokens import bearer

Answer = tuple[str, list[tuple[str, str]], bytes, Counter[tuple[str, ...]]]
ORIGIN = "https://play.example"
MAX_BODY_BYTES = 2000
CURRENT = "the tag of the last answer"
JSON = {"Content-Type": "application/json"}


@pytest.fixture
def make_app(redis_url: str, database_url: str, clock: ManualClock) -> Callable[..., Flask]:
    def made(*, front: bool, **changes: Any) -> Flask:
        values = {"allowed_origins": ORIGIN, "max_body_bytes": MAX_BODY_BYTES, "database_url": database_url} | changes
        app = create_app(make_settings(redis_url, **values), partials=PARTIALS)
        assert isinstance(app.wsgi_app, Front)
        if not front:
            app.wsgi_app = app.wsgi_app._next  # type: ignore[assignment, method-assign]  # Flask alone
        return app

    return made


class Pair:
    """Two applications, and a session for each: the same requests to both, and their answers, must be the same."""

    def __init__(self, make_app: Callable[..., Flask], **changes: Any) -> None:
        self.apps = [make_app(front=front, **changes) for front in (True, False)]
        self.auth = bearer() if "auth" in changes else {}
        self.sessions = [UNKNOWN, UNKNOWN]
        self.begin(CHESS)

    def begin(self, body: dict[str, Any]) -> None:
        made = [app.test_client().post("/v1/sessions", json=body, headers=self.auth) for app in self.apps]
        self.sessions = [each.get_json()["data"]["session_id"] for each in made]

    def same(self, method: str, path: str, **options: Any) -> Answer:
        """Send a request to both; `{id}` in the path is the session. Return the answer."""
        options["headers"] = self.auth | {"X-Request-Id": "the-same"} | options.pop("headers", {})
        found = [
            self._answer(app, id_, method, path, options) for app, id_ in zip(self.apps, self.sessions, strict=True)
        ]
        assert found[0] == found[1], (method, path, options)
        return found[0]

    def _answer(self, app: Flask, session: str, method: str, path: str, options: dict[str, Any]) -> Answer:
        before = counted()
        answer = app.test_client().open(path.replace("{id}", session), method=method, **options)
        data = answer.data
        headers = [(name, value.replace(session, UNKNOWN)) for name, value in answer.headers]
        if answer.headers.get("Content-Encoding") == "gzip":
            data = gzip.decompress(data)
            headers = [each for each in headers if each[0] != "Content-Length"]  # an id of other digits
        return answer.status, headers, data.replace(session.encode(), UNKNOWN.encode()), counted() - before


def counted() -> Counter[tuple[str, ...]]:
    """Return the counts of the metric of requests."""
    return Counter(
        {
            tuple(sample.labels.values()): int(sample.value)
            for metric in REQUESTS.collect()
            for sample in metric.samples
            if sample.name.endswith("_total")
        }
    )


@pytest.fixture
def pair(make_app: Callable[..., Flask]) -> Pair:
    return Pair(make_app)


HEADERS: list[dict[str, str]] = [
    {},
    {"Accept-Encoding": "gzip"},
    {"Origin": ORIGIN},
    {"Origin": "https://other.example"},
    {"Sec-Fetch-Site": "cross-site"},
    {"If-Match": "*"},
    {"If-Match": '"1-1"'},
    {"If-Match": "no tag"},
    {"If-Match": CURRENT},
    {"If-None-Match": "*"},
    {"Prefer": "return=minimal"},
    {"Idempotency-Key": "a key"},
    {"Idempotency-Key": "key"},
    {"Idempotency-Key": "key", "Prefer": "return=minimal"},
    {"Content-Encoding": "gzip", **JSON},
    {"Authorization": "Bearer no.token.here"},
]
BODIES: list[tuple[bytes, str | None]] = [
    (b"", None),
    (b"{}", "application/json"),
    (b"{}", "application/json; charset=utf-8"),
    (b"{}", "application/merge-patch+json"),
    (b"{}", "text/plain"),
    (b"{}", None),
    (b"[]", "application/json"),
    (b"no JSON", "application/json"),
    (b'{"a": NaN}', "application/json"),
    (b"[" * 1000, "application/json"),
    (b'{"unknown": 1}', "application/json"),
    (b'{"expected_version": 1}', "application/json"),
    (b'{"participant_id": "white"}', "application/json"),
    (b'{"metadata": {"a": "b"}, "reason": "c"}', "application/json"),
    (b'{"metadata": "' + b"a" * MAX_BODY_BYTES + b'"}', "application/json"),
]
PATHS = [
    "",
    "/",
    *(f"/{name}" for name in COMMANDS),
    "/unknown",
    "/text",
    "/links",
    "/switch/",
    "/switch/x",
    "//switch",
]
METHODS = ["GET", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "PUT", "TRACE"]


def test_every_method_and_path_is_answered_in_the_same_way(pair: Pair) -> None:
    seen: Counter[str] = Counter()
    for path, method in product(PATHS, METHODS):
        seen[pair.same(method, f"/v1/sessions/{{id}}{path}")[0][:3]] += 1
    assert {"200", "204", "404", "405"} <= seen.keys()


@pytest.mark.parametrize(
    "name", ["unknown", "batch", UNKNOWN, UNKNOWN.replace("0", "A"), UNKNOWN + "0", UNKNOWN[:-1], "%00"]
)
def test_every_id_is_answered_in_the_same_way(pair: Pair, name: str) -> None:
    for path, method in product(("", "/switch", "/start"), METHODS):
        pair.same(method, f"/v1/sessions/{name}{path}")
    pair.same("GET", f"/v1/sessions/{{id}}\n{name}")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("headers", HEADERS, ids=str)
def test_every_header_is_answered_in_the_same_way(pair: Pair, mode: str, headers: dict[str, str]) -> None:
    pair.begin(MODES[mode] | {"metadata": {"long": "a" * 1000}})
    tag = "*"
    for method, path in (
        *(("POST", "/start"), ("GET", ""), ("POST", "/switch"), ("POST", "/switch"), ("POST", "/pause"), ("GET", "")),
        *(("POST", "/resume"), ("PATCH", ""), ("POST", "/complete"), ("POST", "/reopen"), ("DELETE", ""), ("GET", "")),
    ):
        body = {"metadata": {"a": 1}} if method == "PATCH" else None
        given = headers | ({"If-Match": tag} if headers.get("If-Match") == CURRENT else {})
        answer = pair.same(method, f"/v1/sessions/{{id}}{path}", headers=given, json=body)
        tag = dict(answer[1]).get("ETag", tag)


@pytest.mark.parametrize(("body", "kind"), BODIES)
def test_every_body_is_answered_in_the_same_way(pair: Pair, body: bytes, kind: str | None) -> None:
    for method, path in (("GET", ""), ("POST", "/start"), ("POST", "/switch"), ("PATCH", ""), ("DELETE", "")):
        pair.same(method, f"/v1/sessions/{{id}}{path}", data=body, content_type=kind)


@pytest.mark.parametrize(
    "query",
    [
        "wait_ms=0",
        "wait_ms=x",
        "wait_ms=",
        "wait_ms=1&wait_ms=2",
        "a=b",
        "token=x",
        "erase=true",
        "erase=1",
        "%FF",
        "&&",
        "=",
    ],
)
def test_every_query_is_answered_in_the_same_way(pair: Pair, query: str) -> None:
    for headers in ({}, {"If-None-Match": '"1-1"'}, {"If-None-Match": "*"}, {"If-None-Match": '"x"'}):
        for method in ("GET", "POST", "DELETE"):
            path = "/switch" if method == "POST" else ""
            pair.same(method, f"/v1/sessions/{{id}}{path}?{query}", headers=headers)


@pytest.mark.parametrize("token", [None, "", "Bearer", "Bearer x", "Basic x", "Bearer x, Bearer y"])
def test_every_token_is_answered_in_the_same_way(make_app: Callable[..., Flask], token: str | None) -> None:
    pair = Pair(make_app, **REQUIRED, principal_commands_per_s=0)
    headers = {} if token is None else {"Authorization": token}
    for scopes in ("session:watch", "session:act", "admin", ""):
        with_scopes = bearer(scope=scopes) if token is None else {}
        for method, path in (("GET", ""), ("POST", "/start"), ("POST", "/switch"), ("DELETE", ""), ("GET", "")):
            pair.same(method, f"/v1/sessions/{{id}}{path}", headers=headers | with_scopes)


@pytest.mark.parametrize("limit", ["rate_limit", "session_commands"])
def test_limits_are_answered_in_the_same_way(make_app: Callable[..., Flask], limit: str) -> None:
    values = REQUIRED if limit == "session_commands" else {}
    pair = Pair(make_app, **values, principal_commands_per_s=0, **{f"{limit}_per_s": 0.01, f"{limit}_burst": 3})
    found = [pair.same("POST", f"/v1/sessions/{{id}}/{name}") for name in ("start", *["switch"] * 5)]
    assert {each[0][:3] for each in found} == {"200", "429"}


@pytest.mark.parametrize("where", ["view", "handler"])
def test_an_unexpected_failure_is_answered_in_the_same_way(
    pair: Pair, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a secret")

    for app in pair.apps:
        target = app.extensions["syncapp"].store if where == "view" else app.extensions["syncapp"].guards.origins
        monkeypatch.setattr(target, "get" if where == "view" else "headers", fail)
    answer = pair.same("GET", "/v1/sessions/{id}")
    assert answer[0] == "500 INTERNAL SERVER ERROR"
    assert b"secret" not in answer[2]


@pytest.fixture
def passed_on(app: Flask, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the requests that the front passes on to Flask."""
    front, paths = app.wsgi_app, list[str]()
    assert isinstance(front, Front)
    to_flask = front._next

    def recorded(environ: Any, start_response: Any) -> Any:
        paths.append(f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}")
        return to_flask(environ, start_response)

    monkeypatch.setattr(front, "_next", recorded)
    return paths


def test_the_hot_routes_take_the_short_way_and_others_do_not(
    client: FlaskClient, url: str, passed_on: list[str]
) -> None:
    passed_on.clear()
    client.get(url)
    for name in COMMANDS:
        client.post(f"{url}/{name}", json={})
    client.patch(url, json={"metadata": {}})
    client.delete(url)
    assert passed_on == [f"POST {url}/{name}" for name in ("create", "update", "delete")]  # there are no such paths
    for path in (url.upper(), f"{url}/", f"{url}/text", "/health"):
        passed_on.clear()
        client.get(path)
        assert passed_on == [f"GET {path}"]


def test_a_context_that_is_there_already_is_used(
    app: Flask, client: FlaskClient, url: str, passed_on: list[str]
) -> None:
    with app.app_context():
        client.get(url)
    assert passed_on[-1] == f"GET {url}"
    with client:
        client.get(url)
        assert request.path == url  # kept for the test
    assert passed_on[-2:] == [f"GET {url}"] * 2


class Environ(dict[str, Any]):
    """An environ that can be watched."""


@pytest.mark.parametrize("path", ["", "?wait_ms=x"])  # the second is an error
def test_a_request_leaves_no_cycle_to_the_collector(app: Flask, url: str, path: str) -> None:
    environ = Environ(EnvironBuilder(url + path).get_environ())
    watched = weakref.ref(environ)
    gc.disable()
    try:
        assert list(app.wsgi_app(environ, lambda *_: lambda _: None))
        del environ
        assert watched() is None
    finally:
        gc.enable()


def test_nothing_needs_what_the_front_leaves_out(app: Flask) -> None:
    assert not app.teardown_request_funcs
    assert not app.teardown_appcontext_funcs
    assert not app.url_value_preprocessors
    assert "sessions" not in app.before_request_funcs.keys() | app.after_request_funcs.keys()

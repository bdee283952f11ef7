"""Pages of other origins: what they may read and change, and the CORS headers, over real HTTP."""

from __future__ import annotations

import uuid
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from syncapp import create_app
from syncapp.config import Settings, SettingsError
from tests.support.cluster import Cluster, MakeCluster
from tests.support.nginx import nginx
from tests.support.store import make_settings
from tests.support.types import Redis
from tests.support.web_clients import RestClient

PLAY, ADMIN, EVIL = "https://play.example", "https://admin.example:8443", "https://evil.example"
EXPOSED = {"etag", "retry-after", "idempotency-replayed", "x-request-id", "location", "preference-applied"}
SENT = {"content-type", "authorization", "if-match", "if-none-match", "idempotency-key", "prefer", "x-request-id"} | {
    "last-event-id",
    "cache-control",
}


@pytest.fixture(scope="module")
def listed(make_cluster: MakeCluster, redis_url: str) -> RestClient:
    """One web process that two origins may use."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    limits = {"MAX_BODY_BYTES": "20000", "WS_MAX_CONNECTIONS_PER_SESSION": "2", "REQUEST_TIMEOUT_S": "1"}
    return api(make_cluster(web=1, worker=False, ALLOWED_ORIGINS=f"{PLAY}/, {ADMIN.upper()}", PROXY_HOPS="1", **limits))


@pytest.fixture(scope="module")
def closed(make_cluster: MakeCluster) -> RestClient:
    """One with default settings."""
    return api(make_cluster(web=1, worker=False))


@pytest.fixture(scope="module")
def opened(make_cluster: MakeCluster) -> RestClient:
    """One that all origins may use."""
    return api(make_cluster(web=1, worker=False, ALLOWED_ORIGINS="*"))


def api(cluster: Cluster) -> RestClient:
    return RestClient(cluster.urls[0])


def words(text: str) -> set[str]:
    return {part.strip().lower() for part in text.split(",")}


def readable(answer: requests.Response, origin: str = PLAY) -> requests.Response:
    """Check that a page of the origin may read an answer, and the headers that it needs."""
    headers = answer.headers
    assert headers["Access-Control-Allow-Origin"] == origin
    assert words(headers["Access-Control-Expose-Headers"]) >= EXPOSED
    assert "origin" in words(headers["Vary"])
    assert "Access-Control-Allow-Credentials" not in headers
    return answer


def ask(method: str, url: str, origin: str = PLAY, **more: Any) -> requests.Response:
    headers = {"Origin": origin} | more.pop("headers", {})
    return requests.request(method, url, headers=headers, timeout=60, **more)


def test_a_page_of_a_listed_origin_may_read_every_kind_of_answer(listed: RestClient) -> None:
    session = f"{listed.url}/v1/sessions/{listed.running()}"
    tag = readable(ask("GET", session)).headers["ETag"]
    for path in ("/health", "/ready", "/v1/time", "/v1/audit/queue", "/api-docs.json", "/asyncapi.json", "/v1/history"):
        assert readable(ask("GET", f"{listed.url}{path}")).status_code == 200, path
    for origin in (PLAY, ADMIN):
        assert readable(ask("POST", f"{session}/switch", origin), origin).status_code == 200
    assert readable(ask("HEAD", session)).status_code == 200
    held = ask("GET", f"{session}?wait_ms=1", headers={"If-None-Match": "*"})
    assert readable(held).status_code == 304
    with closing(ask("GET", f"{session}/stream", stream=True)) as stream:
        assert readable(stream).headers["Content-Type"] == "text/event-stream"
    assert readable(ask("POST", f"{session}/switch", headers={"If-Match": tag})).status_code == 412
    assert readable(ask("POST", f"{session}/resume")).status_code == 400
    assert readable(ask("GET", f"{listed.url}/v1/sessions/{uuid.uuid4()}")).status_code == 404
    assert readable(ask("GET", f"{listed.url}/nothing")).status_code == 404
    assert "POST" in readable(ask("GET", f"{session}/switch")).headers["Allow"]
    assert readable(ask("POST", f"{session}/switch", data="x", headers={"Content-Type": "a/b"})).status_code == 415
    assert readable(ask("POST", f"{session}/switch", data="x" * 20_001)).status_code == 413


def test_a_page_of_a_listed_origin_may_read_that_there_is_no_room_and_that_it_was_slow(listed: RestClient) -> None:
    session = f"{listed.url}/v1/sessions/{listed.running()}"
    with (
        closing(ask("GET", f"{session}/stream", stream=True)),
        closing(ask("GET", f"{session}/stream", stream=True)),
    ):
        full = readable(ask("GET", f"{session}/stream"))
    assert (full.status_code, full.headers["Retry-After"]) == (503, "5")
    late = ask("POST", f"{session}/switch", data=b"", headers={"Content-Length": "5"})
    assert readable(late).status_code == 408


def test_a_page_of_a_listed_origin_may_read_faults_of_the_store_limits_and_our_own(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = {"Origin": PLAY}
    away = create_app(make_settings("redis://127.0.0.1:1/0", redis_timeout_s=0.2, allowed_origins=PLAY)).test_client()
    answer = away.get("/v1/time", headers=headers)
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (503, PLAY)

    limited = make_settings(redis_url, rate_limit_per_s=0.001, rate_limit_burst=1, allowed_origins=PLAY)
    app = create_app(limited)
    client = app.test_client()
    answers = [client.get("/v1/time", headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 429]
    assert answers[1].headers["Access-Control-Allow-Origin"] == PLAY
    asked = client.options("/v1/time", headers=headers | {"Access-Control-Request-Method": "GET"})
    assert asked.status_code == 204  # else a page could not read the error

    app = create_app(make_settings(redis_url, allowed_origins=PLAY))
    monkeypatch.setattr(app.extensions["syncapp"].store, "time_ms", lambda: 1 / 0)
    answer = app.test_client().get("/v1/time", headers=headers)
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (500, PLAY)


def test_pages_of_other_origins_are_counted_by_the_rate_limit(redis_url: str) -> None:
    client = create_app(make_settings(redis_url, rate_limit_per_s=0.001, rate_limit_burst=1)).test_client()
    path = f"/v1/sessions/{uuid.uuid4()}/start"
    answers = [client.post(path, headers={"Origin": EVIL}).status_code for _ in range(2)]
    assert answers == [403, 429]


def test_a_page_of_another_site_is_refused_without_an_origin_too(closed: RestClient, opened: RestClient) -> None:
    for each, expected in ((closed, 403), (opened, 200)):
        url = f"{each.url}/v1/sessions/{each.running()}/switch"
        assert requests.post(url, headers={"Sec-Fetch-Site": "cross-site"}, timeout=60).status_code == expected
        assert requests.post(url, headers={"Sec-Fetch-Site": "none"}, timeout=60).status_code == 200


@pytest.mark.parametrize("path", ["", "/{}", "/{}/switch", "/{}/stream", "/{}/nothing"])
def test_a_browser_that_asks_first_is_told_what_pages_may_send(listed: RestClient, path: str) -> None:
    url = f"{listed.url}/v1/sessions" + path.format(uuid.uuid4())
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "idempotency-key,last-event-id"}
    told = readable(ask("OPTIONS", url, headers=asks))
    assert (told.status_code, told.content) == (204, b"")
    assert words(told.headers["Access-Control-Allow-Methods"]) >= {"get", "post", "patch", "delete"}
    assert words(told.headers["Access-Control-Allow-Headers"]) >= SENT
    assert int(told.headers["Access-Control-Max-Age"]) > 0
    refused = ask("OPTIONS", url, EVIL, headers=asks)
    assert not any(name.lower().startswith("access-control") for name in refused.headers)


def test_a_page_of_another_origin_changes_nothing(closed: RestClient, listed: RestClient) -> None:
    for here in (closed, listed):
        session_id = here.running()
        url = f"{here.url}/v1/sessions/{session_id}"
        before = here.state(session_id)["version"]
        for origin in (EVIL, "null", "", f"{PLAY}.evil.example", "http://play.example"):
            for method, path, more in (
                ("POST", "/switch", {}),
                ("POST", "/switch", {"data": "", "headers": {"Content-Type": "text/plain"}}),
                ("POST", "/pause", {"data": "a=b", "headers": {"Content-Type": "application/x-www-form-urlencoded"}}),
                ("POST", "/switch", {"json": {}}),
                ("POST", "/nothing", {}),
                ("PATCH", "", {"json": {"metadata": {"a": 1}}}),
                ("DELETE", "", {}),
                ("PUT", "", {}),
            ):
                refused = ask(method, url + path, origin, **more)
                assert refused.status_code == 403, (origin, method, path)
                assert refused.json()["error"]["code"] == "ORIGIN_NOT_ALLOWED"
                assert "Access-Control-Allow-Origin" not in refused.headers
        assert here.state(session_id)["version"] == before


def test_a_page_of_another_origin_may_neither_read_nor_watch(closed: RestClient, listed: RestClient) -> None:
    for here in (closed, listed):
        session = f"{here.url}/v1/sessions/{here.running()}"
        read = ask("GET", session, EVIL)
        assert (read.status_code, "Access-Control-Allow-Origin" in read.headers) == (200, False)
        assert ask("GET", f"{session}/stream", EVIL).status_code == 403
    assert "Vary" not in requests.get(f"{closed.url}/v1/time", timeout=60).headers
    assert requests.get(f"{listed.url}/v1/time", timeout=60).headers["Vary"] == "Origin"


def test_a_page_of_the_service_itself_needs_no_permission(closed: RestClient) -> None:
    session_id = closed.running()
    url = f"{closed.url}/v1/sessions/{session_id}/switch"
    host = urlsplit(closed.url).netloc
    for origin, more in (
        (f"http://{host}", {}),
        (f"HTTP://{host.upper()}", {}),
        ("http://clock.example", {"Host": "Clock.example:80"}),
        ("https://clock.example", {"Sec-Fetch-Site": "same-origin"}),  # through a proxy that changes both
    ):
        assert ask("POST", url, origin, headers=more).status_code == 200, origin
    for origin, more in (
        (f"https://{host}", {}),
        ("http://clock.example:81", {"Host": "clock.example"}),
        (f"http://{host}", {"Sec-Fetch-Site": "cross-site"}),
        (f"http://{host}", {"Sec-Fetch-Site": "same-site"}),
    ):
        assert ask("POST", url, origin, headers=more).status_code == 403, origin


def test_a_page_of_the_service_itself_is_known_behind_a_proxy_that_speaks_tls(listed: RestClient) -> None:
    session_id = listed.running()
    passed = "proxy_set_header Host clock.example; proxy_set_header X-Forwarded-Proto https;"
    with nginx(listed.url, location=passed) as proxy:
        url = f"{proxy.url}/v1/sessions/{session_id}/switch"
        assert ask("POST", url, "https://clock.example").status_code == 200
        assert ask("POST", url, "http://clock.example").status_code == 403


def test_every_origin_may_do_everything_but_send_credentials_where_all_are_allowed(opened: RestClient) -> None:
    session = f"{opened.url}/v1/sessions/{opened.running()}"
    for origin in (EVIL, "null", "capacitor://localhost"):
        assert readable(ask("POST", f"{session}/switch", origin), "*").status_code == 200
        with closing(ask("GET", f"{session}/stream", origin, stream=True)) as stream:
            assert readable(stream, "*").status_code == 200
    unread = ask("GET", f"{opened.url}/v1/time?x={'x' * 5000}", EVIL)
    assert readable(unread, "*").status_code == 414


NO_ORIGINS = ["play.example", "https://", "https://play.example/path", "null", "https://*.example", "https://a b"]
NO_ORIGINS += ["file://", "https://münchen.example", "https://u@play.example", "https://play.example:port"]


@pytest.mark.parametrize("origin", NO_ORIGINS)
def test_an_origin_that_is_none_ends_the_start(origin: str) -> None:
    for name in ("ALLOWED_ORIGINS", "WS_ALLOWED_ORIGINS"):
        with pytest.raises(
            SettingsError, match=r"^ALLOWED_ORIGINS must be \* or origins such as .*entry 2 is not one$"
        ):
            Settings.from_env({"AUTH": "off", name: f"{PLAY}, {origin}"})


def test_the_earlier_name_of_the_setting_is_read_where_the_new_one_is_not_given(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WS_ALLOWED_ORIGINS", PLAY)
    assert Settings.from_env().allowed_origins == PLAY
    create_app(make_settings(redis_url))
    assert "setting renamed" in (told := capsys.readouterr().err)
    assert "use=ALLOWED_ORIGINS" in told
    monkeypatch.setenv("ALLOWED_ORIGINS", ADMIN)
    assert Settings.from_env().allowed_origins == ADMIN
    create_app(make_settings(redis_url))
    assert "setting renamed" not in capsys.readouterr().err

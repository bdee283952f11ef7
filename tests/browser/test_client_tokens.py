"""The JavaScript client in a real browser with `AUTH=required`: renewal, expiry, revocation and refusal."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from playwright.sync_api import Page

from tests.browser import js_client
from tests.support.cluster import Cluster, MakeCluster
from tests.support.tokens import SECRET, bearer, token
from tests.support.types import Redis
from tests.support.web_clients import RestClient, wait_until


@pytest.fixture(scope="module")
def web(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    """One web process that requires tokens, and accepts none that has expired."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(web=1, worker=False, AUTH="required", AUTH_SECRETS=SECRET, AUTH_LEEWAY_S="0")


@pytest.fixture
def api(web: Cluster) -> RestClient:
    return RestClient(web.urls[0], bearer())


def open_with(page: Page, api: RestClient, **options: Any) -> str:
    session_id = api.running()
    js_client.open_session(page, api.url, session_id, **options)
    return session_id


def test_a_token_from_a_function_is_renewed_on_the_open_socket(page: Page, api: RestClient) -> None:
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    open_with(page, api, tokens=[token(expires_in_s=8), token()])
    wait_until(lambda: page.evaluate("asked.length") == 2)
    js_client.live(page)
    assert page.evaluate("asked") == [False, False]
    assert js_client.command(page, "switch")["version"] == 3
    assert len(sockets) == 1
    assert all("token" not in url for url in sockets)


def test_a_refused_token_is_replaced_and_the_session_goes_on(page: Page, api: RestClient) -> None:
    open_with(page, api, tokens=["no.such.token", token()])
    js_client.live(page)
    assert page.evaluate("asked") == [False, True]


def test_an_expired_token_without_a_function_ends_the_session_for_good(page: Page, api: RestClient) -> None:
    session_id = open_with(page, api, token=token(expires_in_s=5))
    js_client.live(page)
    reason = js_client.closed(page)
    assert (reason["code"], reason["final"]) == ("UNAUTHORIZED", True)
    assert api.state(session_id)["status"] == "running"


def test_a_revoked_link_ends_the_session_for_good(page: Page, api: RestClient) -> None:
    session_id = api.running()
    made = requests.post(
        f"{api.url}/v1/sessions/{session_id}/links", json={"scope": "session:watch"}, headers=bearer(), timeout=60
    )
    link = made.json()["data"]
    js_client.open_session(page, api.url, session_id, token=link["token"])
    js_client.live(page)
    requests.delete(f"{api.url}/v1/sessions/{session_id}/links/{link['jti']}", headers=bearer(), timeout=60)
    assert js_client.closed(page)["code"] == "UNAUTHORIZED"


@pytest.mark.parametrize("transport", ["websocket", "sse", "polling"])
def test_what_a_token_does_not_allow_is_refused_for_good(page: Page, api: RestClient, transport: str) -> None:
    other = api.create()
    open_with(page, api, token=token(scope="session:watch", session_id=other), transports=[transport])
    reason = js_client.closed(page)
    assert (reason["code"], reason["final"]) == ("FORBIDDEN", True)


@pytest.mark.parametrize("transport", ["websocket", "sse", "polling"])
def test_a_page_without_a_token_is_told_that_it_needs_one(page: Page, api: RestClient, transport: str) -> None:
    open_with(page, api, transports=[transport])
    reason = js_client.closed(page)
    assert (reason["code"], reason["final"]) == ("UNAUTHORIZED", True)


@pytest.mark.parametrize("transport", ["websocket", "sse", "polling"])
def test_each_transport_sends_the_token(page: Page, api: RestClient, transport: str) -> None:
    session_id = open_with(page, api, token=token(sub="eve", scope="session:watch session:act"), transports=[transport])
    js_client.live(page)
    assert js_client.command(page, "switch")["version"] == 3
    assert js_client.command(page, "pause")["code"] == "FORBIDDEN"
    assert api.state(session_id)["version"] == 3


def test_tabs_of_two_people_do_not_share_a_connection(page: Page, api: RestClient) -> None:
    session_id = open_with(page, api, token=token(sub="ada"))
    js_client.live(page)
    second = page.context.new_page()
    js_client.open_session(second, api.url, session_id, token=token(sub="bob", scope="session:watch"))
    js_client.live(second)
    assert page.evaluate("navigator.locks.query().then(({held}) => held.length)") == 2
    assert js_client.command(second, "switch")["code"] == "FORBIDDEN"


@pytest.mark.parametrize("kept", ["leader", "follower"])
def test_tabs_of_one_person_share_a_connection_although_their_tokens_differ(
    page: Page, api: RestClient, kept: str
) -> None:
    session_id = open_with(page, api, token=token(sub="ada", jti="1"))
    js_client.live(page)
    second = page.context.new_page()
    js_client.open_session(second, api.url, session_id, token=token(sub="ada", jti="2"))
    js_client.live(second)
    assert page.evaluate("navigator.locks.query().then(({held}) => held.length)") == 1
    stays, goes = (page, second) if kept == "leader" else (second, page)
    goes.close()
    assert js_client.command(stays, "switch")["version"] == 3

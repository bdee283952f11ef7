"""Pages with tokens, in a real browser: the documentation, and those of other origins."""

from __future__ import annotations

import time
from typing import Any

import pytest
import requests
from playwright.sync_api import Page

from tests.support.browser_policy import complaints_of
from tests.support.cluster import Cluster, MakeCluster
from tests.support.other_site import Site
from tests.support.tokens import SECRET, bearer, token
from tests.support.types import Redis
from tests.support.web_clients import CHESS

ASK = """async ([method, url, headers]) => {
  const answer = await fetch(url, {method, headers});
  return [answer.status, (await answer.json()).error?.code ?? null];
}"""


@pytest.fixture(scope="module")
def web(make_cluster: MakeCluster, redis_url: str, site: Site) -> Cluster:
    """One web process that requires tokens, and that the site's pages may use."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(
        web=1, worker=False, ALLOWED_ORIGINS=site.url, AUTH="required", AUTH_SECRETS=SECRET, AUTH_LEEWAY_S="0"
    )


@pytest.fixture
def url(web: Cluster) -> str:
    """URL of a new game of chess."""
    made = requests.post(f"{web.urls[0]}/v1/sessions", json=CHESS, headers=bearer(), timeout=60)
    assert made.status_code == 201, made.text
    return f"{web.urls[0]}{made.headers['Location']}"


def ask(page: Page, method: str, url: str, headers: dict[str, str] | None = None) -> Any:
    """Return status and error code of what the page's `fetch` gets."""
    return page.evaluate(ASK, [method, url, headers or {}])


def test_a_page_sends_its_token_in_a_header_and_reads_why_it_was_refused(foreign: Page, url: str) -> None:
    assert ask(foreign, "GET", url) == [401, "UNAUTHORIZED"]
    watcher = bearer("carl", "session:watch")
    assert ask(foreign, "GET", url, watcher) == [200, None]
    assert ask(foreign, "POST", f"{url}/start", watcher) == [403, "FORBIDDEN"]
    assert ask(foreign, "POST", f"{url}/start", bearer("host", "session:control")) == [200, None]


def test_an_event_source_with_an_expired_token_stops_trying(foreign: Page, url: str) -> None:
    given = token("carl", "session:watch", exp=int(time.time()) + 2)
    foreign.evaluate(
        """(url) => {
          window.seen = [];
          window.stream = new EventSource(url);
          stream.onmessage = ({data}) => seen.push(JSON.parse(data).type);
        }""",
        f"{url}/stream?token={given}",
    )
    foreign.wait_for_function("seen.includes('STATE_SYNC')", timeout=60_000)
    foreign.wait_for_function("stream.readyState === EventSource.CLOSED", timeout=60_000)


def test_a_socket_of_a_page_is_closed_with_a_code_that_says_what_to_do(foreign: Page, url: str) -> None:
    opened = """([url, token]) => new Promise((done) => {
      const socket = new WebSocket(url);
      socket.onopen = () => socket.send(JSON.stringify({type: "AUTH", token}));
      socket.onclose = ({code}) => done(code);
    })"""
    address, _, session_id = url.replace("http", "ws", 1).partition("/v1/sessions/")
    for given, code in (
        (token("carl", "session:watch", exp=int(time.time()) + 2), 4401),
        (token("carl", "history:read"), 4403),
    ):
        assert foreign.evaluate(opened, [f"{address}/ws?sessionId={session_id}", given]) == code


def test_the_documentation_sends_the_token_that_was_entered_under_authorize(page: Page, web: Cluster, url: str) -> None:
    complaints = complaints_of(page)
    page.goto(f"{web.urls[0]}/api-docs")
    page.get_by_role("button", name="Authorize").first.click(timeout=60_000)
    page.locator(".auth-container input").fill(token("ada", "session:watch"))
    page.get_by_role("button", name="Apply credentials").click()
    page.locator(".auth-container").get_by_role("button", name="Close").click()
    listing = page.locator("#operations-sessions-list_sessions")
    listing.locator(".opblock-summary-control").click(timeout=60_000)
    listing.get_by_role("button", name="Try it out").click(timeout=60_000)
    with page.expect_response("**/v1/sessions?*", timeout=60_000) as told:
        listing.get_by_role("button", name="Execute").click(timeout=60_000)
    assert told.value.status == 200
    assert url.rpartition("/")[2] in [each["session_id"] for each in told.value.json()["data"]["sessions"]]
    assert complaints == []

"""The element `<sync-clock>` in a real browser."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, WebSocket, expect

from tests.browser.accessibility import violations
from tests.support.browser_policy import complaints_of
from tests.support.cluster import Cluster, MakeCluster
from tests.support.other_site import Site
from tests.support.types import Redis
from tests.support.web_clients import RestClient, wait_until

LONG = 60_000


@pytest.fixture(scope="module")
def web(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    """One web process, which pages of every origin may use."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(web=1, worker=False, ALLOWED_ORIGINS="*")


@pytest.fixture
def api(web: Cluster) -> RestClient:
    return RestClient(web.urls[0])


def show(page: Page, site: Site, api: RestClient, *elements: str) -> list[str]:
    """Load a page of another origin with these elements, and return what goes wrong in it."""
    complaints = complaints_of(page)
    script = f"<script type='module' src='{api.url}/sdk/element.js'></script>"
    head = f"<title>Clocks</title><link rel='icon' href='data:,'>{script}"
    body = f"<main><h1>Clocks</h1>{''.join(elements)}</main>"
    site.pages["/clocks.html"] = f"<!doctype html><html lang='en'><head>{head}</head><body>{body}</body></html>"
    page.goto(f"{site.url}/clocks.html")
    return complaints


def test_elements_show_their_clocks_and_share_one_connection(page: Page, site: Site, api: RestClient) -> None:
    sockets: list[str] = []
    page.on("websocket", lambda socket: sockets.append(socket.url))
    session_id = api.create()
    names = ("white", "black")
    elements = [
        f"<sync-clock session-id='{session_id}' participant='{name}' label='{name}'></sync-clock>" for name in names
    ]
    complaints = show(page, site, api, *elements)
    for name in names:
        expect(page.get_by_role("timer", name=name)).to_have_text("1:00:00", timeout=LONG)
    api.command(session_id, "start")
    expect(page.get_by_role("timer", name="white")).to_have_text(re.compile(r"59:\d\d"), timeout=LONG)
    expect(page.get_by_role("timer", name="black")).to_have_text("1:00:00")
    white = page.locator("sync-clock").first
    expect(white).to_have_attribute("data-status", "live")
    expect(white).to_have_attribute("data-running", "")
    assert len(sockets) == 1
    assert violations(page) == []
    assert complaints == []


def test_an_element_that_is_removed_ends_its_connection(page: Page, site: Site, api: RestClient) -> None:
    sockets: list[WebSocket] = []
    page.on("websocket", lambda socket: sockets.append(socket))  # noqa: PLW0108 -- Playwright marks what it calls
    session_id = api.running()
    show(page, site, api, f"<sync-clock session-id='{session_id}'></sync-clock>")
    expect(page.get_by_role("timer")).to_have_text(re.compile(r"59:\d\d"), timeout=LONG)
    page.evaluate("document.querySelector('sync-clock').remove()")
    wait_until(lambda: page.evaluate("1") and sockets[0].is_closed())


def test_an_element_may_show_a_session_that_the_page_has_opened(page: Page, site: Site, api: RestClient) -> None:
    session_id = api.running(sync_mode="count_up", participants=[])
    show(page, site, api, "<sync-clock></sync-clock>")
    page.evaluate(
        """async ([base, id]) => {
          const {connect} = await import(`${base}/sdk/syncapp.js`);
          window.game = await connect(base, id);
          document.querySelector("sync-clock").session = game;
        }""",
        [api.url, session_id],
    )
    expect(page.get_by_role("timer")).to_have_text(re.compile(r"0:0[1-9]"), timeout=LONG)
    page.evaluate("document.querySelector('sync-clock').remove()")
    assert page.evaluate("game.status") == "live"

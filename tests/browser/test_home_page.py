"""The first page in a real browser: its demos create what they promise, with and without tokens."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from tests.browser.accessibility import violations
from tests.support.browser_policy import complaints_of
from tests.support.cluster import MakeCluster
from tests.support.tokens import SECRET, token
from tests.support.web_clients import RestClient

LONG = 60_000
DEMOS = {
    "Blitz chess, 3+2": ("play", "per_participant"),
    "Go with byo-yomi": ("play", "per_participant"),
    "Stage timer": ("stage", "global"),
    "Quiz": ("quiz", "per_cycle"),
    "Auction": ("auction", "global"),
    "Exam": ("exam", "global"),
}


@pytest.fixture(scope="module")
def guarded(make_cluster: MakeCluster) -> str:
    """The address of a web process that requires tokens."""
    return make_cluster(web=1, worker=False, ALLOWED_ORIGINS="", AUTH="required", AUTH_SECRETS=SECRET).urls[0]


@pytest.fixture
def complaints(page: Page) -> list[str]:
    return complaints_of(page)


@pytest.mark.parametrize("demo", DEMOS)
def test_a_demo_creates_its_session_and_opens_its_page(
    page: Page, complaints: list[str], api: RestClient, demo: str
) -> None:
    path, mode = DEMOS[demo]
    page.goto(f"{api.url}/")
    page.get_by_role("article").filter(has_text=demo).get_by_role("button", name="Start").click(timeout=LONG)
    page.wait_for_url(re.compile(f"/{path}/[0-9a-f-]{{36}}"), timeout=LONG)
    session_id = page.url.split("/")[-1].partition("?")[0]
    assert api.state(session_id)["sync_mode"] == mode
    expect(page.locator(".banner:visible")).to_have_count(0, timeout=LONG)
    assert complaints == []


def test_the_page_asks_no_other_host_and_leads_to_the_console_and_the_documentation(
    page: Page, complaints: list[str], api: RestClient
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{api.url}/")
    expect(page.get_by_role("button", name="Start")).to_have_count(len(DEMOS), timeout=LONG)
    expect(page.get_by_role("button", name="Start").first).to_be_enabled()
    expect(page.get_by_role("textbox", name="Token")).to_be_hidden()
    assert {url.split("/")[2] for url in asked if url.startswith("http")} == {api.url.split("/")[2]}
    for name in ("Console", "REST API", "WebSocket API"):
        path = page.get_by_role("link", name=name).get_attribute("href")
        assert page.request.get(f"{api.url}{path}").ok
    assert complaints == []


def test_with_tokens_a_demo_needs_one_and_works_with_it(page: Page, complaints: list[str], guarded: str) -> None:
    page.goto(f"{guarded}/")
    start = page.get_by_role("article").filter(has_text="Blitz").get_by_role("button", name="Start")
    expect(page.get_by_role("heading", name="This server needs a token")).to_be_visible(timeout=LONG)
    expect(start).to_be_disabled()
    page.get_by_role("textbox", name="Token").fill(token("ada", "session:create session:control session:watch"))
    page.get_by_role("button", name="Use this token").click()
    start.click(timeout=LONG)
    expect(page.locator("#headline")).to_have_text("Ready to start", timeout=LONG)
    page.get_by_role("button", name="Start", exact=True).click()
    expect(page.locator("#headline")).to_have_text("White to move", timeout=LONG)
    assert complaints == []


def test_a_token_that_is_refused_is_explained_and_can_be_replaced(page: Page, guarded: str) -> None:
    page.goto(f"{guarded}/")
    start = page.get_by_role("article").filter(has_text="Blitz").get_by_role("button", name="Start")
    page.get_by_role("textbox", name="Token").fill("nonsense")
    page.get_by_role("button", name="Use this token").click(timeout=LONG)
    start.click(timeout=LONG)
    expect(page.get_by_role("alert")).to_have_text(re.compile("did not accept the token"), timeout=LONG)
    page.get_by_role("button", name="Forget it").click()
    expect(start).to_be_disabled()
    assert violations(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_phone_and_shuts_nobody_out(page: Page, api: RestClient, scheme: str) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.goto(f"{api.url}/")
    expect(page.get_by_role("button", name="Start").first).to_be_enabled(timeout=LONG)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert violations(page) == []

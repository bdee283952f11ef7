"""The API's page in a real browser."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser_policy import complaints_of
from tests.support.cluster import Cluster


@pytest.fixture
def complaints(page: Page) -> list[str]:
    return complaints_of(page)


def test_the_page_of_the_api_shows_its_routes_and_asks_no_other_host(
    page: Page, complaints: list[str], one_web: Cluster
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(f"{one_web.urls[0]}/api-docs")
    expect(page.get_by_text("/v1/sessions", exact=True).first).to_be_visible(timeout=60_000)
    assert {url.split("/")[2] for url in asked if url.startswith("http")} == {one_web.urls[0].split("/")[2]}
    assert complaints == []


def test_the_page_blocks_code_that_was_put_into_it(page: Page, complaints: list[str], one_web: Cluster) -> None:
    page.goto(f"{one_web.urls[0]}/api-docs")
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<img src=nothing onerror=\"window.ran = 1\">')")
    page.evaluate("document.head.append(Object.assign(document.createElement('script'), {text: 'window.ran = 1'}))")
    page.wait_for_function("() => document.images[document.images.length - 1].complete", timeout=60_000)
    assert page.evaluate("window.ran") is None
    assert [text for text in complaints if text.startswith("violation: script-src")]


def test_try_it_out_creates_a_session_with_the_example_as_it_is_shown(
    page: Page, complaints: list[str], one_web: Cluster
) -> None:
    page.goto(f"{one_web.urls[0]}/api-docs")
    create = page.locator("#operations-sessions-create")
    create.locator(".opblock-summary-control").click(timeout=60_000)
    create.get_by_role("button", name="Try it out").click(timeout=60_000)
    with page.expect_response(lambda answer: answer.request.method == "POST", timeout=60_000) as told:
        create.get_by_role("button", name="Execute").click(timeout=60_000)
    assert told.value.status == 201, told.value.text()
    expect(create.locator(".responses-table.live-responses-table")).to_be_visible(timeout=60_000)
    assert complaints == []

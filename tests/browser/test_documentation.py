"""The API's page, and pages in the documentation, in a real browser."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser_policy import complaints_of
from tests.support.cluster import Cluster, MakeCluster
from tests.support.other_site import Site
from tests.support.web_clients import RestClient, wait_until

ROOT = Path(__file__).parents[2]
TWO = [{"participant_id": name} for name in ("white", "black")]


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


def snippet(document: str, language: str = "html") -> str:
    """Return the first block of code in a document that is in this language."""
    text = (ROOT / document).read_text()
    return text.partition(f"```{language}\n")[2].partition("```")[0]


def test_the_page_of_a_game_in_the_documentation_has_twelve_lines_and_plays_in_two_windows(
    page: Page, complaints: list[str], make_cluster: MakeCluster, site: Site
) -> None:
    server = make_cluster(web=1, worker=False, ALLOWED_ORIGINS="*").urls[0]
    source = snippet("docs/clients.md")
    assert len(source.splitlines()) <= 12
    site.pages["/chess.html"] = "<link rel='icon' href='data:,'>" + source.replace("http://127.0.0.1:8000", server)
    page.goto(f"{site.url}/chess.html")
    white, black = page.locator("#white"), page.locator("#black")
    expect(white).to_have_text("white 3:00", timeout=60_000)
    other = page.context.browser.new_page() if page.context.browser else page
    other.goto(page.url)
    expect(other.locator("#state")).to_have_text("live", timeout=60_000)
    white.click()  # starts the game
    counted_down = re.compile("white 2:..")
    expect(white).to_have_text(counted_down, timeout=60_000)  # before that, another press would start it again
    expect(other.locator("#white")).to_have_text(counted_down, timeout=60_000)
    white.click()
    expect(other.locator("#black")).to_have_text(re.compile("black 2:.."), timeout=60_000)
    other.locator("#black").click()
    state = RestClient(server).state
    wait_until(lambda: state(page.url.partition("#")[2])["cycle_count"] == 2)
    expect(black).to_have_text(re.compile("black 3:0[0-2]|black 2:.."), timeout=60_000)
    other.close()
    assert complaints == []


def test_the_page_in_the_clients_own_document_shows_a_game_and_moves(
    page: Page, complaints: list[str], make_cluster: MakeCluster, site: Site
) -> None:
    server = make_cluster(web=1, worker=False, ALLOWED_ORIGINS="*").urls[0]
    source = snippet("clients/js/README.md").replace("https://clock.example", server)
    session_id = RestClient(server).running(time_control="minutes:3+2", participants=TWO)
    site.pages[f"/game.html?game={session_id}"] = "<link rel='icon' href='data:,'>" + source
    page.goto(f"{site.url}/game.html?game={session_id}")
    expect(page.locator("#white")).to_have_text(re.compile("2:.."), timeout=60_000)
    page.locator("#white").click()
    wait_until(lambda: RestClient(server).state(session_id)["active_participant_id"] == "black")
    assert complaints == []


def test_the_lines_of_the_readme_show_a_game_and_end_a_turn(
    page: Page, complaints: list[str], make_cluster: MakeCluster, site: Site
) -> None:
    server = make_cluster(web=1, worker=False, ALLOWED_ORIGINS="*").urls[0]
    session_id = RestClient(server).running()
    RestClient(server).command(session_id, "switch")
    lines = snippet("README.md", "js").replace("http://127.0.0.1:8000", server)
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    site.pages["/readme.html"] = (
        f"<link rel='icon' href='data:,'><script type='module'>const id = '{session_id}'\n{lines}</script>"
    )
    page.goto(f"{site.url}/readme.html")
    wait_until(lambda: page.evaluate("1") and "cycle_switched running" in said)
    assert RestClient(server).state(session_id)["active_participant_id"] == "white"
    wait_until(lambda: page.evaluate("1") and any(re.fullmatch(r"3\d{6}", text) for text in said))
    assert complaints == []

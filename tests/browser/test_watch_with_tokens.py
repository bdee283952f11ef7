"""The page of a link in a real browser, with `AUTH=required`: what each token shows and allows."""

from __future__ import annotations

import re
import time
import uuid
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Page, expect

from tests.support.browser_policy import complaints_of
from tests.support.cluster import Cluster, MakeCluster
from tests.support.tokens import SECRET, bearer, token
from tests.support.types import Redis
from tests.support.web_clients import CHESS

LONG = 60_000


@pytest.fixture(scope="module")
def web(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    """Two web processes that require tokens."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(worker=False, ALLOWED_ORIGINS="", AUTH="required", AUTH_SECRETS=SECRET)


@pytest.fixture
def url(web: Cluster) -> str:
    return web.urls[0]


def ask(url: str, path: str, document: dict[str, Any] | None = None, method: str = "POST") -> requests.Response:
    """Send a request with every right."""
    answer = requests.request(method, f"{url}/v1/sessions{path}", json=document, headers=bearer(), timeout=60)
    assert answer.ok, answer.text
    return answer


@pytest.fixture
def session(url: str) -> str:
    """A running game of chess."""
    session_id: str = ask(url, "", CHESS).json()["data"]["session_id"]
    ask(url, f"/{session_id}/start")
    return session_id


def open_page(page: Page, url: str, given: str, said: str = "Connected.") -> None:
    page.goto(f"{url}/watch#token={given}")
    expect(page.get_by_role("status")).to_have_text(said, timeout=LONG)


def test_the_token_leaves_the_address_bar_and_is_sent_in_no_url(page: Page, url: str, session: str) -> None:
    complaints, asked = complaints_of(page), list[str]()
    page.on("request", lambda request: asked.append(request.url))
    page.on("websocket", lambda socket: asked.append(socket.url))
    given = token("carl", "session:watch", session_id=session)
    open_page(page, url, given)
    expect(page.locator("#status")).to_have_text("Running. It is white's turn.", timeout=LONG)
    assert page.url == f"{url}/watch"
    page.reload()  # the token is kept for this tab
    expect(page.get_by_role("status")).to_have_text("Connected.", timeout=LONG)
    assert any(each.startswith(url.replace("http", "ws", 1)) for each in asked)
    assert not [each for each in asked if given in each.partition("#")[0]]
    assert complaints == []


def test_who_only_watches_has_no_buttons(page: Page, url: str, session: str) -> None:
    open_page(page, url, token("carl", "session:watch", session_id=session))
    expect(page.get_by_role("timer")).to_have_count(2, timeout=LONG)
    expect(page.locator("#controls")).to_be_hidden()
    page.keyboard.press("Space")
    ask(url, f"/{session}/pause")
    expect(page.locator("#status")).to_have_text("Paused.", timeout=LONG)
    assert ask(url, f"/{session}", method="GET").json()["data"]["cycle_count"] == 0


def test_a_player_switches_only_in_their_own_turn(page: Page, url: str, session: str) -> None:
    open_page(page, url, token("anna", "session:act", session_id=session, participant_id="white"))
    expect(page.locator("#status")).to_have_text("Running. It is your turn.", timeout=LONG)
    expect(page.get_by_role("button", name="Pause")).to_be_hidden()
    page.keyboard.press("Space")
    expect(page.locator("#status")).to_have_text("Running. It is black's turn.", timeout=LONG)
    expect(page.get_by_role("button", name="Switch")).to_be_disabled()
    ask(url, f"/{session}/switch")
    expect(page.locator("#status")).to_have_text("Running. It is your turn.", timeout=LONG)
    expect(page.get_by_role("button", name="Switch")).to_be_enabled()


def test_who_controls_can_pause_and_resume(page: Page, url: str, session: str) -> None:
    open_page(page, url, token("host", "session:control", session_id=session))
    page.get_by_role("button", name="Pause").click(timeout=LONG)
    expect(page.locator("#status")).to_have_text("Paused.", timeout=LONG)
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#status")).to_have_text("Running. It is white's turn.", timeout=LONG)


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"expires_in_s": -60}, "Your link has expired"),
        ({"secret": "another secret, of 32 bytes or more"}, "Your link is not valid"),
        ({"scope": "history:read"}, "does not allow this session"),
    ],
    ids=["expired", "of another secret", "without the scope"],
)
def test_a_link_that_opens_nothing_is_explained(
    page: Page, url: str, session: str, claims: dict[str, Any], said: str
) -> None:
    open_page(page, url, token(**{"scope": "session:watch", "session_id": session} | claims), "Not connected.")
    expect(page.get_by_role("alert")).to_have_text(re.compile(said), timeout=LONG)
    expect(page.locator("#controls")).to_be_hidden()
    expect(page.locator("#until")).to_have_text("")
    expect(page.locator("#status")).to_have_text("")


def test_a_token_without_a_session_opens_nothing_and_is_not_called_valid(page: Page, url: str) -> None:
    open_page(page, url, token("carl", "session:watch"), "Not connected.")
    expect(page.get_by_role("alert")).to_have_text(re.compile("needs a link to a session"))
    expect(page.locator("#until")).to_have_text("")


def test_without_a_token_the_page_says_that_a_link_is_needed(page: Page, url: str, session: str) -> None:
    page.goto(f"{url}/watch?session={session}")
    expect(page.get_by_role("alert")).to_have_text(re.compile(r"needs a link\. Ask"), timeout=LONG)


def test_a_session_of_another_tenant_looks_like_one_that_does_not_exist(page: Page, url: str, session: str) -> None:
    for session_id in (session, str(uuid.uuid4())):
        open_page(page, url, token("eve", "session:control", tenant="other", session_id=session_id))
        expect(page.get_by_role("alert")).to_have_text(re.compile("There is no such session yet"), timeout=LONG)


def expect_the_last_state(page: Page, whose: str) -> None:
    """Check that the page shows a running session's last state as such, and that its clocks stand still."""
    expect(page.get_by_role("status")).to_have_text("Not connected.")
    expect(page.locator("#status")).to_have_text(f"Last known state: Running. It was {whose} turn.")
    expect(page.locator("#until")).to_have_text("")
    expect(page.locator("#controls")).to_be_hidden()
    expect(page.locator("#switch")).to_be_disabled()
    expect(page.locator(".turn")).to_have_count(0)
    shown = page.get_by_role("timer").all_inner_texts()
    # In the next frames, a clock that counts would show that an hour has passed.
    page.evaluate("""() => new Promise((done) => {
      const now = performance.now.bind(performance);
      performance.now = () => now() + 3_600_000;
      requestAnimationFrame(() => requestAnimationFrame(done));
    })""")
    assert page.get_by_role("timer").all_inner_texts() == shown


def test_a_link_that_expires_while_it_is_open_is_explained(page: Page, url: str, session: str) -> None:
    # Above the leeway of AUTH_LEEWAY_S.
    exp = int(time.time()) + 2
    open_page(page, url, token("anna", "session:act", session_id=session, participant_id="white", exp=exp))
    expect(page.get_by_role("alert")).to_have_text(re.compile("Your link has expired"), timeout=LONG)
    expect_the_last_state(page, "your")


def test_the_page_connects_again_with_its_token_and_keeps_the_clocks(page: Page, web: Cluster, session: str) -> None:
    open_page(page, web.urls[0], token("host", "session:control", session_id=session))
    expect(page.get_by_role("timer")).to_have_count(2, timeout=LONG)
    web.web[0].stop()
    expect(page.get_by_role("status")).to_have_text(re.compile("Trying again|Connecting"), timeout=LONG)
    expect(page.get_by_role("timer")).to_have_count(2)
    web.web[0].start()
    expect(page.get_by_role("status")).to_have_text("Connected.", timeout=LONG)
    expect(page.locator("#problem")).to_have_text("")
    expect(page.get_by_role("timer")).to_have_count(2)
    ask(web.urls[1], f"/{session}/switch")
    expect(page.locator("#status")).to_have_text("Running. It is black's turn.", timeout=LONG)


def test_another_link_that_is_opened_in_the_same_tab_takes_over(page: Page, url: str, session: str) -> None:
    open_page(page, url, token("carl", "session:watch", session_id=session))
    expect(page.locator("#controls")).to_be_hidden()
    other = token("host", "session:control", session_id=session)
    page.evaluate("(fragment) => { location.hash = fragment }", f"token={other}")
    expect(page.get_by_role("button", name="Pause")).to_be_enabled(timeout=LONG)
    assert page.url == f"{url}/watch"


def test_a_revoked_link_is_explained_whichever_process_revokes_it(page: Page, web: Cluster, session: str) -> None:
    first, second = web.urls
    link = ask(first, f"/{session}/links", {"scope": "session:watch", "expires_in_s": 3600}).json()["data"]
    open_page(page, first, link["token"])
    valid = r"This link is valid until \d+ \w+ \d{4} at \d\d:\d\d:\d\d [A-Z]\S+\."  # with the time zone
    expect(page.locator("#until")).to_have_text(re.compile(valid), timeout=LONG)
    ask(second, f"/{session}/links", method="DELETE")
    expect(page.get_by_role("alert")).to_have_text(re.compile("Your link was revoked"), timeout=LONG)
    expect_the_last_state(page, "white's")
    page.reload()
    expect(page.get_by_role("alert")).to_have_text(re.compile("Your link was revoked"), timeout=LONG)
    expect(page.locator("#until")).to_have_text("")


def test_touch_screens_are_told_nothing_about_the_space_bar(browser: Browser, url: str, session: str) -> None:
    for is_touch in (False, True):
        context = browser.new_context(has_touch=is_touch, is_mobile=is_touch)
        page = context.new_page()
        open_page(page, url, token("host", "session:control", session_id=session))
        expect(page.get_by_role("button", name="Switch")).to_be_enabled(timeout=LONG)
        expect(page.locator("#hint")).to_be_visible(visible=not is_touch)
        context.close()

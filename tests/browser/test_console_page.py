"""The operators' console, with `AUTH=required` and a token of scope `admin`."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest
import requests
from playwright.sync_api import Locator, Page, expect

from tests.browser.accessibility import violations
from tests.support.browser_policy import complaints_of
from tests.support.cluster import Cluster, MakeCluster
from tests.support.tokens import SECRET, bearer, token
from tests.support.types import Redis
from tests.support.web_clients import RestClient, wait_until

LONG = 60_000
AS_TEXTS = """async (all) => {
  const {timeText} = await import("/sdk/syncapp.js");
  return all.map((ms) => timeText(ms));
}"""
GAME: dict[str, Any] = {"increment_ms": 3000, "takeback_cycles": 3}


@pytest.fixture(scope="module")
def web(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    """A web process that requires tokens, and a worker that fills the audit log."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(web=1, ALLOWED_ORIGINS="", AUTH="required", AUTH_SECRETS=SECRET)


@pytest.fixture
def url(web: Cluster) -> str:
    return web.urls[0]


@pytest.fixture
def api(url: str) -> RestClient:
    return RestClient(url, bearer("boss"))


@pytest.fixture
def complaints(page: Page) -> list[str]:
    return complaints_of(page)


def get(url: str, path: str) -> Any:
    answer = requests.get(f"{url}{path}", headers=bearer(), timeout=60)
    assert answer.ok, answer.text
    return answer.json()["data"]


def logged(url: str, session_id: str, kind: str) -> dict[str, Any]:
    """Wait until the audit log has an event of this type; return the last one."""
    path = f"{url}/v1/sessions/{session_id}/events"
    found: list[dict[str, Any]] = []

    def is_logged() -> bool:
        answer = requests.get(path, params={"type": kind}, headers=bearer(), timeout=60)
        found[:] = answer.json()["data"]["events"] if answer.ok else []
        return bool(found)

    wait_until(is_logged)
    return found[-1]


def open_console(page: Page, url: str, fragment: str = "", **claims: Any) -> None:
    """Sign in by the address, as `ada`, and go to a view."""
    page.goto(f"{url}/console#token={token('ada', **claims)}")
    expect(page.locator("#list")).to_be_visible(timeout=LONG)
    if fragment:
        page.evaluate("(fragment) => { location.hash = fragment }", fragment)


def open_session(page: Page, url: str, session_id: str, **claims: Any) -> None:
    open_console(page, url, f"session={session_id}", **claims)
    expect(page.locator("#connection")).to_have_text("Live", timeout=LONG)


def row(page: Page, session_id: str) -> Locator:
    return page.locator(f"#rows tr[data-id='{session_id}']")


def confirm(page: Page, name: str, reason: str = "") -> None:
    """Answer the dialog that is open."""
    dialog = page.get_by_role("dialog")
    if reason:
        dialog.get_by_label("Reason").fill(reason)
    dialog.get_by_role("button", name=name, exact=True).click()
    expect(dialog).to_have_count(0, timeout=LONG)


def test_the_list_finds_sessions_by_id_metadata_participant_status_and_mode(
    page: Page, complaints: list[str], url: str, api: RestClient
) -> None:
    hall = uuid.uuid4().hex[:6]
    game = api.running(metadata={"hall": hall})
    exam = api.create(sync_mode="global", total_time_ms=60_000, participants=[], metadata={"hall": hall})
    over = api.running(metadata={"hall": hall})
    api.command(over, "complete")
    open_console(page, url)
    search = page.get_by_label("Search sessions")
    search.fill(f"hall={hall}")
    expect(page.locator("#rows tr")).to_have_count(2, timeout=LONG)
    expect(row(page, game)).to_contain_text("Running")
    expect(row(page, exam)).to_contain_text("Pending")
    page.get_by_label("Completed").check()
    expect(row(page, over)).to_contain_text("Completed", timeout=LONG)
    page.get_by_label("Mode", exact=True).select_option("global")
    expect(page.locator("#rows tr")).to_have_count(1, timeout=LONG)
    page.get_by_label("Mode", exact=True).select_option("")
    search.fill(f"hall={hall} participant:black")
    expect(page.locator("#rows tr")).to_have_count(2, timeout=LONG)
    search.fill(over[:11])  # in any status
    expect(page.locator("#rows tr")).to_have_count(1, timeout=LONG)
    expect(row(page, over)).to_be_visible()
    search.fill("what?")
    expect(page.get_by_role("alert").filter(has_text="what?")).to_be_visible(timeout=LONG)
    assert complaints == []


def test_a_row_changes_in_place_when_its_session_does(page: Page, url: str, api: RestClient) -> None:
    session_id = api.create()
    open_console(page, url)
    expect(row(page, session_id)).to_contain_text("Pending", timeout=LONG)
    row(page, session_id).evaluate("(element) => { element.isMarked = true }")
    api.command(session_id, "start")
    expect(row(page, session_id)).to_contain_text("Running", timeout=LONG)
    expect(row(page, session_id)).to_contain_text("white")
    assert row(page, session_id).evaluate("(element) => element.isMarked")


@pytest.mark.detail
def test_the_list_is_used_by_keys_alone(page: Page, url: str, api: RestClient) -> None:
    older, newer = api.create(), api.create()
    open_console(page, url)
    expect(row(page, newer)).to_be_visible(timeout=LONG)
    for key in ("j", "j", "k", "j"):
        page.keyboard.press(key)
    expect(row(page, older).get_by_role("link")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=older)).to_be_visible(timeout=LONG)
    page.keyboard.press("Escape")
    expect(row(page, older).get_by_role("link")).to_be_focused(timeout=LONG)
    page.keyboard.press("/")
    expect(page.get_by_label("Search sessions")).to_be_focused()
    page.keyboard.type("j")  # a letter, no command
    expect(page.get_by_label("Search sessions")).to_have_value("j")


def test_a_session_is_live_with_its_clocks_and_its_timeline(
    page: Page, complaints: list[str], url: str, api: RestClient
) -> None:
    session_id = api.create(**GAME, metadata={"board": 7})
    open_session(page, url, session_id)
    expect(page.locator("#clocks").get_by_role("timer")).to_have_text(["1:00:00", "1:00:00"])
    expect(page.locator("#metadata")).to_contain_text("board7")
    api.command(session_id, "start")
    expect(page.locator("#session-status")).to_have_text("Running", timeout=LONG)
    expect(page.locator("#clocks").get_by_role("timer").first).not_to_have_text("1:00:00", timeout=LONG)
    api.command(session_id, "switch")
    expect(page.locator("#now")).to_have_text("It is black\N{RIGHT SINGLE QUOTATION MARK}s turn.", timeout=LONG)
    newest = page.locator("#events tr").first
    expect(newest).to_contain_text("Switched: white → black")
    expect(newest.locator(".who")).to_have_text("boss", timeout=LONG)  # when the log has it
    expect(page.locator("#events tr")).to_have_count(3)
    expect(page.locator("#statistics svg")).to_be_visible(timeout=LONG)
    page.get_by_text("As a table").click()
    expect(page.get_by_role("row", name=re.compile(r"^white 1 "))).to_be_visible()
    assert complaints == []


def test_the_slider_shows_every_clock_as_the_service_computes_it(page: Page, url: str, api: RestClient) -> None:
    session_id = api.running(**GAME)
    api.command(session_id, "switch")
    api.command(session_id, "adjust", op="set", ms=754_000, participant_id="black")
    api.command(session_id, "pause")
    logged(url, session_id, "session_paused")
    open_session(page, url, session_id)
    expect(page.locator("#events tr")).to_have_count(5, timeout=LONG)
    slider, text = page.get_by_role("slider"), page.locator("#instant-text")
    expect(slider).to_be_enabled(timeout=LONG)
    slider.focus()
    for version, black in ((5, "12:34"), (4, "12:34"), (3, "1:00:00"), (2, "1:00:00")):
        page.keyboard.press("PageUp")
        expect(text).to_contain_text(f"version {version} ", timeout=LONG)
        assert slider.get_attribute("aria-valuetext") == text.inner_text()
        past = get(url, f"/v1/sessions/{session_id}/at?time={slider.input_value()}")
        assert past["version"] == version
        left = [each["remaining_ms"] for each in past["clocks"]["participants"]]
        shown = page.evaluate(AS_TEXTS, left)
        expect(page.locator("#past-clocks .time")).to_have_text(shown)
        assert shown[1] == black
    page.keyboard.press("End")
    expect(text).to_have_text("Now. Move the slider to see an earlier instant.")


def test_an_adjustment_with_a_reason_is_in_the_log_with_its_actor(
    page: Page, complaints: list[str], url: str, api: RestClient
) -> None:
    session_id = api.create()
    open_session(page, url, session_id)
    page.get_by_label("Whose clock").select_option("black")
    amount = page.get_by_label("Time", exact=True)
    amount.fill("soon")
    page.get_by_role("button", name="Adjust").click()
    expect(page.locator("#adjust-preview")).to_have_text("Write a time such as +0:30, -1:00, 45s or 2m.")
    amount.fill("-0:30")
    expect(page.locator("#adjust-preview")).to_have_text("black: \N{MINUS SIGN}0:30 (1:00:00 → 59:30)")
    page.get_by_role("button", name="Adjust").click()
    confirm(page, "Adjust", reason="late for the round")
    expect(page.locator("#clocks").get_by_role("timer")).to_have_text(["1:00:00", "59:30"], timeout=LONG)
    found = logged(url, session_id, "time_adjusted")
    assert (found["actor"], found["principal"]) == ("client", "ada")
    assert (found["event"]["reason"], found["event"]["adjusted_ms"]) == ("late for the round", -30_000)
    newest = page.locator("#events tr").first
    expect(newest).to_contain_text("Adjusted: black · “late for the round”")
    expect(newest).to_contain_text("\N{MINUS SIGN}0:30: 1:00:00 → 59:30")
    expect(newest.locator(".who")).to_have_text("ada", timeout=LONG)
    assert complaints == []


@pytest.mark.detail
def test_nothing_happens_if_the_question_is_not_confirmed(page: Page, url: str, api: RestClient) -> None:
    session_id = api.running()
    open_session(page, url, session_id)
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("dialog").get_by_label("Reason")).to_have_count(0)  # the API keeps none
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert api.state(session_id)["version"] == 2


def test_turns_are_taken_back_and_an_ended_session_is_reopened(page: Page, url: str, api: RestClient) -> None:
    session_id = api.running(**GAME)
    for _ in range(3):
        api.command(session_id, "switch")
    open_session(page, url, session_id)
    page.get_by_label("turns").fill("2")
    page.get_by_role("button", name="Take back").click()
    confirm(page, "Take back", reason="illegal move")
    expect(page.locator("#events tr").first).to_contain_text("Taken back: black · 2 turns", timeout=LONG)
    assert api.state(session_id)["cycle_count"] == 1
    assert logged(url, session_id, "cycles_taken_back")["event"]["reason"] == "illegal move"
    page.get_by_role("button", name="Complete").click()
    confirm(page, "Complete")
    expect(page.locator("#session-status")).to_have_text("Completed", timeout=LONG)
    expect(page.get_by_role("button", name="Complete")).to_be_hidden()
    page.get_by_role("button", name="Reopen").click()
    confirm(page, "Reopen", reason="wrong board")
    expect(page.locator("#session-status")).to_have_text("Paused", timeout=LONG)
    assert logged(url, session_id, "session_reopened")["event"]["reason"] == "wrong board"


@pytest.mark.detail
def test_a_delete_needs_the_beginning_of_the_id(page: Page, url: str, api: RestClient) -> None:
    session_id = api.create()
    open_session(page, url, session_id)
    page.get_by_role("button", name="Delete").click()
    dialog = page.get_by_role("dialog")
    go = dialog.get_by_role("button", name="Delete")
    dialog.get_by_role("textbox").fill("0000000x")
    expect(go).to_be_disabled()
    dialog.get_by_role("textbox").fill(session_id[:8])
    go.click()
    expect(page.locator("#session-problem")).to_contain_text("was deleted", timeout=LONG)
    expect(page.locator("#commands-card")).to_be_hidden()
    expect(page.locator("#events tr").first).to_contain_text("Deleted", timeout=LONG)
    assert requests.get(f"{url}/v1/sessions/{session_id}", headers=bearer(), timeout=60).status_code == 404


def test_a_link_is_made_with_its_code_listed_and_revoked(page: Page, url: str, api: RestClient) -> None:
    session_id = api.running()
    open_session(page, url, session_id)
    expect(page.locator("#links")).to_contain_text("There are no links.", timeout=LONG)
    page.get_by_role("combobox", name="Page").select_option("play")
    page.get_by_role("combobox", name="May").select_option("session:act")
    page.get_by_role("combobox", name="As", exact=True).select_option("white")
    page.get_by_label("Name (optional)").fill("the phone of Anna")
    page.get_by_role("button", name="Make a link …").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name=re.compile("link")).first.click()
    made = dialog.get_by_role("textbox")
    expect(made).to_have_value(re.compile(rf"/play/{session_id}#token="), timeout=LONG)
    expect(dialog.get_by_role("img", name=re.compile("the phone of Anna"))).to_be_visible()
    link = made.input_value().partition("#token=")[2]
    dialog.get_by_role("button", name="Close").click()
    page.get_by_role("button", name="Revoke the link the phone of Anna").click(timeout=LONG)
    confirm(page, "Revoke")
    expect(page.locator("#links")).to_contain_text("There are no links.", timeout=LONG)
    answer = requests.get(f"{url}/v1/sessions/{session_id}", headers={"Authorization": f"Bearer {link}"}, timeout=60)
    assert answer.status_code == 401


@pytest.mark.parametrize(
    ("claims", "said"),
    [
        ({"scope": "session:control"}, "it needs the scope admin, and has session:control"),
        ({"session_id": str(uuid.UUID(int=1))}, "for one session only"),
        ({"expires_in_s": -60}, "has expired"),
        ({"secret": "another secret, of 32 bytes or more"}, "does not accept this token"),
    ],
    ids=["without admin", "for one session", "expired", "of another secret"],
)
def test_a_token_that_does_not_allow_the_console_is_refused_in_words(
    page: Page, complaints: list[str], url: str, claims: dict[str, Any], said: str
) -> None:
    page.goto(f"{url}/console")
    page.get_by_label("Token").fill(token("carl", **claims))
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert").filter(has_text=said)).to_be_visible(timeout=LONG)
    expect(page.locator("#list")).to_be_hidden()
    assert page.evaluate("sessionStorage.length") == 0
    assert complaints == []


@pytest.mark.detail
def test_the_token_leaves_the_address_and_is_forgotten_at_sign_out(page: Page, url: str) -> None:
    open_console(page, url)
    assert "token" not in page.url
    expect(page.locator("#who")).to_contain_text("ada · tenant default · until ")
    page.reload()
    expect(page.locator("#list")).to_be_visible(timeout=LONG)
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_label("Token")).to_be_visible(timeout=LONG)
    assert page.evaluate("sessionStorage.length") == 0


def test_an_expired_token_is_asked_for_again_and_the_page_stays_where_it_is(
    page: Page, url: str, api: RestClient
) -> None:
    session_id = api.running(**GAME)
    logged(url, session_id, "session_started")
    open_session(page, url, session_id)
    expect(page.get_by_role("slider")).to_be_enabled(timeout=LONG)
    # As if the time of the first one had come: no token with a short life could outlast a slow machine.
    page.evaluate("(old) => sessionStorage.setItem('syncapp.token', old)", token("ada", expires_in_s=-60))
    page.get_by_role("button", name="Previous event").click()
    dialog = page.get_by_role("dialog", name="Sign in again")
    expect(dialog).to_be_visible(timeout=LONG)
    page.keyboard.press("Escape")
    expect(dialog).to_be_visible()
    dialog.get_by_label("Token").fill(token("ada"))
    dialog.get_by_role("button", name="Sign in").click()
    expect(dialog).to_have_count(0, timeout=LONG)
    expect(page.locator("#past-clocks .time")).to_have_count(2, timeout=LONG)  # what was asked for is answered now
    expect(page.get_by_role("heading", name=session_id)).to_be_visible()
    api.command(session_id, "switch")
    expect(page.locator("#now")).to_have_text("It is black\N{RIGHT SINGLE QUOTATION MARK}s turn.", timeout=LONG)


def test_health_shows_the_queue_and_the_last_check_of_the_log(
    page: Page, complaints: list[str], url: str, redis_url: str
) -> None:
    open_console(page, url, "health")
    expect(page.locator("#health-view")).to_contain_text("Ready: it takes commands.", timeout=LONG)
    expect(page.locator("#health-view")).to_contain_text("Open connections", timeout=LONG)
    verified = (
        '{"outcome":"faults","started_ms":1767268790000,"finished_ms":1767268800000,"sessions":214,"events":5120,'
        '"faulty_sessions":3,"forks":0,"erased_parts":0}'
    )
    with Redis.from_url(redis_url) as client:
        client.hset("sync:audit", "verified", verified)
    card = page.locator(".card", has_text="Last check of the whole log")
    expect(card).to_contain_text("Some sessions were not as committed.", timeout=LONG)
    expect(card.locator("div", has_text="Not as committed")).to_contain_text("3")
    assert violations(page) == []
    assert complaints == []


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_the_console_is_accessible_and_fits(page: Page, url: str, api: RestClient, scheme: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme=scheme)
    session_id = api.running(**GAME, metadata={"event": "City open"})
    api.command(session_id, "switch")
    logged(url, session_id, "cycle_switched")
    page.goto(f"{url}/console")
    expect(page.get_by_label("Token")).to_be_visible(timeout=LONG)
    assert violations(page) == []
    open_console(page, url)
    expect(row(page, session_id)).to_be_visible(timeout=LONG)
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("(id) => { location.hash = `session=${id}` }", session_id)
    expect(page.locator("#statistics svg")).to_be_visible(timeout=LONG)
    slider = page.get_by_role("slider")
    expect(slider).to_be_enabled(timeout=LONG)
    slider.press("PageUp")
    expect(page.locator("#past-clocks .time")).to_have_count(2, timeout=LONG)
    page.get_by_text("As a table").click()
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.detail
def test_without_tokens_everybody_is_an_operator(page: Page, web_url: str) -> None:
    complaints = complaints_of(page)
    session_id = RestClient(web_url).running()
    page.goto(f"{web_url}/console?session={session_id}")
    expect(page.locator("#connection")).to_have_text("Live", timeout=LONG)
    expect(page.locator("#who")).to_contain_text("AUTH=off")
    page.get_by_role("button", name="Pause").click()
    confirm(page, "Pause")
    expect(page.locator("#session-status")).to_have_text("Paused", timeout=LONG)
    assert [each for each in complaints if "404" not in each] == []  # the log is empty without a worker

"""The game clock of two players in a real browser: on one device, on several, and for whoever watches."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.accessibility import violations
from tests.browser.announcements import listen, wait_until_heard
from tests.support.browser_policy import complaints_of
from tests.support.cluster import Cluster, MakeCluster
from tests.support.tokens import SECRET, bearer, token
from tests.support.types import Redis
from tests.support.web_clients import CHESS, RestClient, wait_until

LONG = 60_000
PHONE = {"width": 390, "height": 844}
COUNT_TONES = """
  window.tones = 0;
  const create = AudioContext.prototype.createOscillator;
  AudioContext.prototype.createOscillator = function () { window.tones++; return create.call(this); };
"""
HOLD_LOCKS = """
  window.locks = 0;
  navigator.wakeLock.request = async () => {
    window.locks++;
    const lock = new EventTarget();
    lock.release = async () => { window.locks--; lock.dispatchEvent(new Event('release')); };
    return lock;
  };
"""
OpenTab = Callable[..., Page]


@pytest.fixture(scope="module")
def web(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    """One web process with default settings, except that the pages are its own."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(web=1, worker=False, ALLOWED_ORIGINS="")


@pytest.fixture(scope="module")
def guarded(make_cluster: MakeCluster) -> str:
    """The address of a web process that requires tokens."""
    return make_cluster(web=1, worker=False, ALLOWED_ORIGINS="", AUTH="required", AUTH_SECRETS=SECRET).urls[0]


@pytest.fixture
def api(web: Cluster) -> RestClient:
    return RestClient(web.urls[0])


@pytest.fixture
def complaints() -> list[str]:
    """What the tabs of `open_tab` complain about."""
    return []


@pytest.fixture
def open_tab(browser: Browser, complaints: list[str]) -> Iterator[OpenTab]:
    """Open an address on a device of its own; a phone has a touch screen."""
    contexts = []

    def open_tab(url: str, *, is_phone: bool = False, script: str = "", **options: Any) -> Page:
        if is_phone:
            options = {"viewport": PHONE, "has_touch": True, "is_mobile": True} | options
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        if script:
            page.add_init_script(script)
        heard = complaints_of(page)
        page.on("close", lambda _: complaints.extend(heard))
        page.goto(url)
        return page

    yield open_tab
    for context in contexts:
        context.close()


def expect_said(page: Page, text: str) -> None:
    expect(page.locator("#headline")).to_have_text(text, timeout=LONG)


def tap(page: Page, side: str) -> Locator:
    """Return the button that covers a side: `near` or `far`."""
    return page.locator(f".{side} .tap")


def press(button: Locator) -> None:
    """Put a finger down on a button, without lifting it."""
    button.dispatch_event("pointerdown", {"button": 0, "pointerType": "touch"})


def test_two_players_and_a_spectator_see_the_same_on_their_own_devices(
    open_tab: OpenTab, complaints: list[str], api: RestClient
) -> None:
    session_id = api.create()
    url = f"{api.url}/play/{session_id}"
    white, black = open_tab(f"{url}?as=white", is_phone=True), open_tab(f"{url}?as=black", is_phone=True)
    spectator = open_tab(f"{url}?view=1")
    expect_said(spectator, "Ready to start")
    white.get_by_role("button", name="Start", exact=True).click(timeout=LONG)
    expect_said(white, "Your move")
    for page in (black, spectator):
        expect_said(page, "White to move")
    expect(tap(black, "near")).to_be_hidden()
    press(tap(white, "near"))
    expect_said(black, "Your move")
    for page in (white, spectator):
        expect_said(page, "Black to move")
    expect(tap(white, "near")).to_be_hidden()
    expect(tap(white, "far")).to_be_hidden()  # black's half is black's alone
    press(tap(black, "near"))
    expect_said(white, "Your move")
    assert [each["cycle_count"] for each in api.state(session_id)["participants"]] == [1, 1]
    for page in (white, black, spectator):
        expect(page.locator(".side")).to_have_count(2)
        page.close()
    assert complaints == []


@pytest.mark.detail
def test_people_have_the_names_that_the_metadata_gives_them(open_tab: OpenTab, api: RestClient) -> None:
    session_id = api.running(metadata={"names": {"white": "Ada", "black": 7, "nobody": "Grace"}})
    page = open_tab(f"{api.url}/play/{session_id}?view=1")
    expect_said(page, "Ada to move")
    api.command(session_id, "switch")
    expect_said(page, "Black to move")


def test_a_spectator_can_change_nothing(open_tab: OpenTab, api: RestClient) -> None:
    session_id = api.running()
    page = open_tab(f"{api.url}/play/{session_id}?view=1")
    expect_said(page, "White to move")
    expect(page.locator(".tap:visible")).to_have_count(0)
    for name in ("Start", "Pause", "Resume", "Share"):
        expect(page.get_by_role("button", name=name, exact=True)).to_be_hidden()
    for key in ("Space", "p", "ArrowDown"):
        page.keyboard.press(key)
    page.get_by_role("button", name="More").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    expect(page.get_by_role("button", name=re.compile("New game|min|End"))).to_have_count(0)
    api.command(session_id, "pause")
    expect_said(page, "Paused – White to move")
    assert api.state(session_id)["version"] == 3


def test_a_turn_ends_when_the_finger_comes_down_and_only_once(open_tab: OpenTab, api: RestClient) -> None:
    session_id = api.running()
    page = open_tab(f"{api.url}/play/{session_id}", is_phone=True)
    expect(tap(page, "near")).to_be_enabled(timeout=LONG)
    press(tap(page, "near"))
    press(tap(page, "near"))
    expect_said(page, "Black to move")
    tap(page, "far").tap(timeout=LONG)
    expect_said(page, "White to move")
    assert api.state(session_id)["cycle_count"] == 2


def test_everything_can_be_done_by_keys(open_tab: OpenTab, complaints: list[str], api: RestClient) -> None:
    session_id = api.create()
    page = open_tab(f"{api.url}/play/{session_id}")
    expect(page.get_by_role("button", name="Start", exact=True)).to_be_enabled(timeout=LONG)
    page.keyboard.press("Space")
    expect_said(page, "White to move")
    page.keyboard.press("Enter")
    expect_said(page, "Black to move")
    page.keyboard.press("ArrowLeft")  # white's side, and it is not white's turn
    page.keyboard.press("ArrowRight")
    expect_said(page, "White to move")
    assert api.state(session_id)["cycle_count"] == 2
    page.keyboard.press("p")
    expect_said(page, "Paused – White to move")
    page.keyboard.press("p")
    expect_said(page, "White to move")
    sound = page.get_by_role("button", name="Sound")
    expect(sound).to_have_attribute("aria-pressed", "true")
    page.keyboard.press("m")
    expect(sound).to_have_attribute("aria-pressed", "false")
    page.keyboard.press("f")
    expect(page.locator(".far.flipped")).to_have_count(1)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Space")  # closes the dialog: its button has the focus
    expect(page.get_by_role("dialog")).to_have_count(0)
    assert api.state(session_id)["version"] == 6
    page.close()
    assert complaints == []


@pytest.mark.detail
def test_a_button_that_was_clicked_does_not_take_the_space_bar(open_tab: OpenTab, api: RestClient) -> None:
    session_id = api.running()
    page = open_tab(f"{api.url}/play/{session_id}")
    page.get_by_role("button", name="Pause").click(timeout=LONG)
    page.get_by_role("button", name="Resume").click(timeout=LONG)
    expect_said(page, "White to move")
    page.keyboard.press("Space")
    expect_said(page, "Black to move")


def test_periods_are_shown_and_announced(open_tab: OpenTab, api: RestClient) -> None:
    people = [{"participant_id": name} for name in ("black", "white")]
    session_id = api.create(participants=people, time_control="sgf:1 2x40 byo-yomi", warn_at_ms=[10_000])
    page = open_tab(f"{api.url}/play/{session_id}")
    expect(page.locator("#rules")).to_have_text("1 s, then 2 × 40 s", timeout=LONG)
    expect(page.locator(".near .facts")).to_contain_text("then 2 × 40 s")
    listen(page)
    api.command(session_id, "start")
    wait_until_heard(page, "Black: 2 periods left")
    expect(page.locator(".near .pip.full")).to_have_count(2)
    api.command(session_id, "adjust", participant_id="black", periods_left=1)
    expect(page.locator(".near .facts")).to_contain_text("last period of 40 s", timeout=LONG)
    expect(page.locator(".near .pip.full")).to_have_count(1)


@pytest.mark.parametrize(
    ("control", "rules", "fact"),
    [
        (
            "pgn:40/5400+30:1800+30",
            "40 moves in 1 h 30 min + 30 s per move, then 30 min + 30 s per move",
            "40 to the next",
        ),
        ("sgf:1 25/600 Canadian", "1 s, then 25 moves per 10 min", "25 moves left in this block"),
        ("uscf:G/5;d30", "5 min, 30 s delay", "delay"),
    ],
)
@pytest.mark.detail
def test_the_rules_are_told_in_words(open_tab: OpenTab, api: RestClient, control: str, rules: str, fact: str) -> None:
    people = [{"participant_id": name} for name in ("white", "black")]
    page = open_tab(f"{api.url}/play/{api.running(participants=people, time_control=control)}")
    expect(page.locator("#rules")).to_have_text(rules, timeout=LONG)
    expect(page.locator(".near .facts")).to_contain_text(fact, timeout=LONG)


@pytest.mark.detail
def test_a_clock_that_runs_low_says_so_in_words_too(open_tab: OpenTab, api: RestClient) -> None:
    people = [{"participant_id": name, "total_time_ms": 900_000} for name in ("white", "black")]
    session_id = api.running(participants=people, warn_at_ms=[700_000, 800_000])
    page = open_tab(f"{api.url}/play/{session_id}")
    expect(page.locator(".near .mark")).to_have_text(["To move"], timeout=LONG)
    listen(page)
    api.command(session_id, "adjust", participant_id="white", op="set", ms=790_000)
    expect(page.locator(".near .mark")).to_have_text(["To move", "Low on time"], timeout=LONG)
    wait_until_heard(page, "White: 13 min 20 s left")
    api.command(session_id, "adjust", participant_id="white", op="set", ms=690_000)
    expect(page.locator(".near .mark")).to_have_text(["To move", "Almost out of time"], timeout=LONG)


def test_the_flag_ends_the_game_and_all_devices_find_the_next_one(
    open_tab: OpenTab, complaints: list[str], api: RestClient
) -> None:
    people = [{"participant_id": name} for name in ("white", "black")]
    session_id = api.create(participants=people, time_control="syncapp:3s", metadata={"round": 7})
    url = f"{api.url}/play/{session_id}"
    white, black = open_tab(f"{url}?as=white", script=COUNT_TONES), open_tab(f"{url}?as=black")
    expect(white.get_by_role("button", name="Start", exact=True)).to_be_enabled(timeout=LONG)
    for page in (white, black):
        listen(page)
    white.get_by_role("button", name="Start", exact=True).click()
    for page in (white, black):
        expect_said(page, "Black wins on time")
        wait_until_heard(page, "Black wins on time")
    expect(white.locator(".near .mark")).to_have_text("⚑ Time is up")
    assert white.evaluate("tones") >= 2  # at least the flag; how many seconds it saw depends on the machine
    white.get_by_role("button", name="New game").click()
    expect_said(white, "Ready to start")
    black.get_by_role("button", name="To the new game").click(timeout=LONG)
    expect_said(black, "Ready to start")
    assert white.url == black.url.replace("as=black", "as=white")
    new = api.state(white.url.split("/")[-1].partition("?")[0])
    assert (new["time_control_notation"], new["metadata"]) == ("pgn:3", {"round": 7})
    for page in (white, black):
        page.close()
    assert complaints == []


@pytest.mark.detail
def test_nothing_is_heard_while_the_sound_is_off(open_tab: OpenTab, api: RestClient) -> None:
    people = [{"participant_id": name, "total_time_ms": 2_000} for name in ("white", "black")]
    session_id = api.create(participants=people)
    page = open_tab(f"{api.url}/play/{session_id}", script=COUNT_TONES)
    page.get_by_role("button", name="Sound").click(timeout=LONG)
    page.get_by_role("button", name="Start", exact=True).click(timeout=LONG)
    expect_said(page, "Black wins on time")
    assert page.evaluate("tones") == 0


@pytest.mark.detail
def test_the_screen_stays_on_while_the_clock_runs(open_tab: OpenTab, api: RestClient) -> None:
    session_id = api.create()
    page = open_tab(f"{api.url}/play/{session_id}", script=HOLD_LOCKS)
    expect_said(page, "Ready to start")
    assert page.evaluate("locks") == 0
    api.command(session_id, "start")
    page.wait_for_function("() => locks === 1", timeout=LONG)
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    api.command(session_id, "pause")
    page.wait_for_function("() => locks === 0", timeout=LONG)


def test_the_menu_corrects_clocks_takes_moves_back_and_ends_the_game(open_tab: OpenTab, api: RestClient) -> None:
    session_id = api.running(takeback_cycles=5)
    api.command(session_id, "switch")
    page = open_tab(f"{api.url}/play/{session_id}")
    expect_said(page, "Black to move")
    page.get_by_role("button", name="More").click()
    page.get_by_role("button", name="White: +1 min").click()
    page.get_by_role("button", name="White: +1 min").click()
    wait_until(lambda: api.state(session_id)["participants"][0]["time_remaining_ms"] > 3_700_000)
    page.get_by_role("button", name="Take the last move back").click()
    # An adjustment is a limit: what was before it cannot be taken back.
    expect(page.locator(".toast")).to_be_visible(timeout=LONG)
    page.get_by_role("button", name="More").click()
    page.get_by_role("button", name="End the game").click()
    page.get_by_label("Reason (optional)").fill("draw agreed")
    page.get_by_role("dialog").get_by_role("button", name="End the game").click()
    expect_said(page, "The game is over: draw agreed")
    page.get_by_role("button", name="More").click()
    page.get_by_role("button", name="Reopen this game").click()
    expect_said(page, "Paused – Black to move")


@pytest.mark.parametrize("size", [(320, 568), (390, 844), (844, 390)])
def test_both_halves_and_all_controls_fit_a_phone(open_tab: OpenTab, api: RestClient, size: tuple[int, int]) -> None:
    people = [{"participant_id": name} for name in ("white", "black")]
    width, height = size
    session_id = api.running(participants=people, time_control="pgn:40/72000+30:1800+30")
    page = open_tab(f"{api.url}/play/{session_id}", is_phone=True, viewport={"width": width, "height": height})
    expect_said(page, "White to move")
    assert page.evaluate("[document.documentElement.scrollWidth, document.documentElement.scrollHeight]") == [
        width,
        height,
    ]
    for part in page.locator(".side .time, #bar .button:visible").all():
        box = part.bounding_box()
        assert box
        assert min(box["x"], box["y"]) >= 0
        assert (box["x"] + box["width"] <= width, box["y"] + box["height"] <= height) == (True, True)
    for button in page.locator("#bar .button:visible").all():
        box = button.bounding_box()
        assert box
        assert min(box["width"], box["height"]) >= 44
    # Upright between the players, the far half is turned to the one who sits there.
    expect(page.locator(".far.flipped")).to_have_count(1 if height > width else 0)


@pytest.mark.parametrize(
    ("body", "clocks"),
    [
        ({"participants": [{"participant_id": n, "total_time_ms": 60_000} for n in "abc"]}, 3),
        (
            {
                "sync_mode": "per_group",
                "participants": [{"participant_id": n, "group_id": g} for n, g in (("a", "r"), ("b", "s"), ("c", "r"))],
                "groups": [{"group_id": g, "total_time_ms": 60_000} for g in "rs"],
            },
            2,
        ),
        ({"sync_mode": "global", "total_time_ms": 60_000, "participants": [{"participant_id": n} for n in "abc"]}, 1),
        ({"sync_mode": "per_cycle", "time_per_cycle_ms": 60_000, "participants": []}, 1),
        ({"sync_mode": "count_up", "participants": []}, 1),
    ],
    ids=["three", "groups", "global", "per_cycle", "count_up"],
)
def test_every_mode_has_its_clocks_and_a_tap_ends_the_turn(
    open_tab: OpenTab, complaints: list[str], api: RestClient, body: dict[str, Any], clocks: int
) -> None:
    session_id = api.running(**body)
    page = open_tab(f"{api.url}/play/{session_id}")
    expect(page.get_by_role("timer")).to_have_count(clocks, timeout=LONG)
    expect(page.get_by_role("timer").first).to_have_text(re.compile(r"\d:\d\d"), timeout=LONG)
    page.locator(".active .tap").click(timeout=LONG)
    wait_until(lambda: api.state(session_id)["cycle_count"] == 1)
    expect(page.locator(".pressed")).to_have_count(0, timeout=LONG)
    assert violations(page) == []
    page.close()
    assert complaints == []


def test_a_page_that_lost_the_server_says_so_and_takes_no_taps(
    open_tab: OpenTab, api: RestClient, web: Cluster
) -> None:
    session_id = api.running()
    page = open_tab(f"{api.url}/play/{session_id}")
    expect(tap(page, "near")).to_be_enabled(timeout=LONG)
    web.web[0].stop()
    expect(page.locator(".banner")).to_have_text(re.compile("connection is lost", re.IGNORECASE), timeout=LONG)
    expect(tap(page, "near")).to_be_hidden()
    web.web[0].start()
    expect(page.locator(".banner")).to_be_hidden(timeout=LONG)
    expect(tap(page, "near")).to_be_enabled(timeout=LONG)


@pytest.mark.detail
def test_an_address_without_a_session_is_explained(open_tab: OpenTab, complaints: list[str], api: RestClient) -> None:
    page = open_tab(f"{api.url}/play/no-uuid")
    expect(page.get_by_role("heading", name="No session here")).to_be_visible(timeout=LONG)
    assert violations(page) == []
    page.close()
    assert complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nobody_is_shut_out_of_any_view(open_tab: OpenTab, api: RestClient, scheme: str) -> None:
    session_id = api.create(takeback_cycles=5)
    page = open_tab(f"{api.url}/play/{session_id}", color_scheme=scheme)
    expect_said(page, "Ready to start")
    assert violations(page) == []
    page.keyboard.press("Space")
    expect_said(page, "White to move")
    assert violations(page) == []
    for name in ("More", "Share"):
        page.get_by_role("button", name=name, exact=True).click()
        expect(page.get_by_role("dialog")).to_be_visible()
        assert violations(page) == []
        page.keyboard.press("Escape")


# With tokens.


def ask(url: str, path: str, document: dict[str, Any] | None = None) -> Any:
    """Send a command with every right; return its data."""
    answer = requests.post(f"{url}/v1/sessions{path}", json=document or {}, headers=bearer(), timeout=60)
    assert answer.ok, answer.text
    return answer.json()["data"]


def test_a_link_of_a_player_ends_only_this_players_turns(
    open_tab: OpenTab, complaints: list[str], guarded: str
) -> None:
    session_id = ask(guarded, "", CHESS)["session_id"]
    wanted = {"scope": "session:act", "participant_id": "black", "page": "play"}
    page = open_tab(ask(guarded, f"/{session_id}/links", wanted)["url"], is_phone=True)
    expect_said(page, "Ready to start")
    assert page.url == f"{guarded}/play/{session_id}"  # the token has left the address bar
    ask(guarded, f"/{session_id}/start")
    expect_said(page, "White to move")
    expect(page.locator(".near h2")).to_have_text("Black")
    expect(page.locator(".tap:visible")).to_have_count(0)
    for name in ("Pause", "Share"):
        expect(page.get_by_role("button", name=name, exact=True)).to_be_hidden()
    ask(guarded, f"/{session_id}/switch")
    expect_said(page, "Your move")
    press(tap(page, "near"))
    expect_said(page, "White to move")
    page.close()
    assert complaints == []


def test_the_host_shares_a_link_that_only_shows(open_tab: OpenTab, complaints: list[str], guarded: str) -> None:
    session_id = ask(guarded, "", CHESS)["session_id"]
    host = open_tab(f"{guarded}/play/{session_id}#token={token('host', 'session:control')}")
    expect_said(host, "Ready to start")
    host.get_by_role("button", name="Share").click()
    entry = host.get_by_role("listitem").filter(has_text="Spectators")
    entry.get_by_role("button", name="Make a link").click(timeout=LONG)
    expect(entry.get_by_role("img", name="QR code: Spectators")).to_be_visible(timeout=LONG)
    link = entry.get_by_role("textbox", name="Link: Spectators").input_value()
    assert link.startswith(f"{guarded}/play/{session_id}#token=")
    spectator = open_tab(link)
    host.keyboard.press("Escape")
    host.get_by_role("button", name="Start", exact=True).click()
    expect_said(spectator, "White to move")
    expect(spectator.locator(".tap:visible")).to_have_count(0)
    expect(spectator.get_by_role("button", name="Pause")).to_be_hidden()
    for page in (host, spectator):
        page.close()
    assert complaints == []


def test_without_a_link_the_page_says_that_it_needs_one(open_tab: OpenTab, guarded: str) -> None:
    session_id = ask(guarded, "", CHESS)["session_id"]
    page = open_tab(f"{guarded}/play/{session_id}")
    expect(page.locator(".banner")).to_have_text(re.compile("needs a link"), timeout=LONG)

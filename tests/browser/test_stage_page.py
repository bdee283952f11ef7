"""The stage timer in a real browser: operators and screens, each in a browser context of its own."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, FloatRect, Locator, Page, WebSocketRoute, expect

from tests.browser.accessibility import violations
from tests.support.browser_policy import complaints_of
from tests.support.cluster import Cluster
from tests.support.web_clients import RestClient, wait_until

ITEMS = {
    "welcome": {"place": 1, "title": "Welcome", "speaker": "Ada", "ms": 3_000_000, "notes": "Thank the sponsors."},
    "keynote": {"place": 2, "title": "Keynote", "speaker": "Grace", "ms": 1_500_000},
    "questions": {"place": 3, "title": "Questions", "ms": 600_000},
}
STAGE = {"title": "Hall 1", "items": ITEMS, "warn": {"yellow_ms": 2_000_000, "red_ms": 1_000_000}}
SHOW: dict[str, Any] = {
    "sync_mode": "global",
    "participants": [],
    "total_time_ms": 3_000_000,
    "action_on_timeout": {"type": "notify"},
    "metadata": {"stage": STAGE},
}
GREEN, YELLOW, RED = "rgb(94, 224, 138)", "rgb(255, 210, 63)", "rgb(255, 123, 112)"
CLEAR = "rgba(0, 0, 0, 0)"

OpenTab = Callable[..., Page]


class SlowLine:
    """A page's WebSocket, whose messages from the server can be held back."""

    def __init__(self) -> None:
        self._held: list[tuple[WebSocketRoute, str | bytes]] | None = None

    def lay(self, page: Page) -> None:
        page.route_web_socket(re.compile("/ws"), self._connect)

    def _connect(self, socket: WebSocketRoute) -> None:
        server = socket.connect_to_server()
        socket.on_message(server.send)
        server.on_message(lambda message: self._pass_on(socket, message))

    def _pass_on(self, socket: WebSocketRoute, message: str | bytes) -> None:
        if self._held is None:
            socket.send(message)
        else:
            self._held.append((socket, message))

    def hold(self) -> None:
        self._held = []

    def release(self) -> None:
        held, self._held = self._held or [], None
        for socket, message in held:
            socket.send(message)


@pytest.fixture
def show(api: RestClient) -> str:
    return api.create(**SHOW)


@pytest.fixture
def open_tab(browser: Browser) -> Iterator[OpenTab]:
    """Open a page in a context of its own; at the end, no page may have complained."""
    contexts, complaints = [], list[list[str]]()

    def open_tab(url: str, before: Callable[[Page], None] | None = None, **options: Any) -> Page:
        contexts.append(browser.new_context(**options))
        page = contexts[-1].new_page()
        complaints.append(complaints_of(page))
        if before:
            before(page)
        page.goto(url)
        return page

    yield open_tab
    for context in contexts:
        context.close()
    assert [each for each in complaints if each] == []


@pytest.fixture
def operator(open_tab: OpenTab, api: RestClient, show: str) -> Page:
    return open_operator(open_tab, f"{api.url}/stage/{show}")


@pytest.fixture
def screen(open_tab: OpenTab, api: RestClient, show: str) -> Page:
    return open_screen(open_tab, f"{api.url}/stage/{show}?view=1")


def open_operator(open_tab: OpenTab, url: str, **options: Any) -> Page:
    page = open_tab(url, **options)
    expect(page.locator("#toggle")).to_be_enabled()
    return page


def open_screen(open_tab: OpenTab, url: str, **options: Any) -> Page:
    page = open_tab(url, **options)
    expect(page.get_by_role("timer")).to_have_text(re.compile(r"\d:\d\d"))
    return page


def update(api: RestClient, session_id: str, **stage: Any) -> None:
    """Merge members into `metadata.stage`."""
    body = {"metadata": {"stage": stage}}
    answer = requests.patch(f"{api.url}/v1/sessions/{session_id}", json=body, headers=api.headers, timeout=60)
    assert answer.status_code == 200, answer.text


def box_of(locator: Locator) -> FloatRect:
    box = locator.bounding_box()
    assert box is not None, "it is not visible"
    return box


def stage_of(api: RestClient, session_id: str) -> dict[str, Any]:
    stage: dict[str, Any] = api.state(session_id)["metadata"]["stage"]
    return stage


def test_a_screen_follows_the_operator(operator: Page, screen: Page, api: RestClient, show: str) -> None:
    expect(screen.get_by_role("timer")).to_have_text("50:00")
    expect(screen.locator("#wall")).to_contain_text("Ready")
    expect(screen.get_by_role("button", name="Start")).to_have_count(0)
    operator.keyboard.press("Space")
    expect(operator.locator("#toggle")).to_have_text("Pause")
    expect(screen.get_by_role("timer")).to_have_text(re.compile(r"4\d:\d\d"))
    expect(screen.get_by_role("timer")).to_have_css("color", GREEN)
    operator.keyboard.press("Space")
    expect(screen.locator("#wall")).to_contain_text("Paused")
    paused, shown = api.state(show), screen.get_by_role("timer").inner_text()
    assert paused["status"] == "paused"
    expect(operator.locator("#toggle")).to_have_text("Start")
    operator.get_by_role("button", name="Add one minute").click()
    expect(screen.get_by_role("timer")).not_to_have_text(shown)
    assert api.state(show)["clock"]["remaining_ms"] == paused["clock"]["remaining_ms"] + 60_000
    operator.keyboard.press("Space")  # starts again, and does not repeat the click
    expect(operator.locator("#toggle")).to_have_text("Pause")


def test_colours_and_words_change_at_the_thresholds_and_overtime_has_a_plus_sign(
    screen: Page, api: RestClient, show: str
) -> None:
    timer, sign = screen.get_by_role("timer"), screen.locator(".screen-sign")
    api.command(show, "start")
    api.command(show, "adjust", op="set", ms=2_001_000)  # then nothing is sent: the screen counts by itself
    expect(sign).to_have_text("Wrap up")
    expect(timer).to_have_css("color", YELLOW)
    api.command(show, "adjust", op="set", ms=1_001_000)
    expect(sign).to_have_text("Finish now")
    expect(timer).to_have_css("color", RED)
    api.command(show, "adjust", op="set", ms=1_000)
    expect(sign).to_have_text("Over time")
    expect(timer).to_have_text(re.compile(r"\+\d+:\d\d"))
    api.command(show, "adjust", op="add", ms=-60_000)
    expect(timer).to_have_text(re.compile(r"\+[1-9]\d*:\d\d"))
    update(api, show, show={"time": "clock"})
    expect(sign).to_have_text(re.compile(r"Over time \+\d+:\d\d"))


def test_a_message_is_on_screen_with_the_next_version_and_can_be_hidden(
    operator: Page, screen: Page, api: RestClient, show: str
) -> None:
    version = api.state(show)["version"]
    message = screen.locator(".screen-message")
    operator.get_by_role("radio", name="Red").check()
    operator.locator("#message").fill("Two <b>minutes</b>")
    operator.locator("#message").press("Enter")
    expect(message).to_have_text("Two <b>minutes</b>")
    expect(message).to_have_attribute("data-colour", "red")
    assert api.state(show)["version"] == version + 1
    expect(operator.locator("#message-hide")).to_be_enabled()
    operator.get_by_role("heading", name="Agenda").click()
    operator.keyboard.press("m")
    expect(message).to_be_hidden()
    operator.get_by_role("button", name="5 minutes").click()
    expect(message).to_have_text("5 minutes")


@pytest.mark.parametrize("motion", ["no-preference", "reduce"])
@pytest.mark.detail
def test_a_message_is_as_large_as_its_place_allows(open_tab: OpenTab, api: RestClient, show: str, motion: str) -> None:
    screen = open_screen(open_tab, f"{api.url}/stage/{show}?view=1", reduced_motion=motion)
    update(api, show, message={"text": "Speak louder", "shown": True})
    message = screen.locator(".screen-message")
    expect(message).to_have_text("Speak louder")
    assert box_of(message)["height"] > box_of(screen.locator("#wall"))["height"] / 10


def test_a_flash_flashes_once_and_not_again_after_a_reload(
    operator: Page, screen: Page, api: RestClient, show: str
) -> None:
    wall = screen.locator("#wall")
    operator.keyboard.press("f")
    expect(wall).to_have_attribute("data-flashes", "1")
    expect(wall).not_to_have_class(re.compile("flashing"))
    update(api, show, message={"text": "Hello", "shown": True})
    expect(wall).to_contain_text("Hello")
    expect(wall).to_have_attribute("data-flashes", "1")
    screen.reload()
    expect(wall).to_contain_text("Hello")
    assert wall.get_attribute("data-flashes") is None
    expect(operator.locator("#flash")).to_be_enabled()
    operator.keyboard.press("f")
    expect(wall).to_have_attribute("data-flashes", "1")


@pytest.mark.detail
def test_with_less_motion_a_flash_is_a_steady_frame(open_tab: OpenTab, api: RestClient, show: str) -> None:
    screen = open_screen(open_tab, f"{api.url}/stage/{show}?view=1", reduced_motion="reduce")
    flash = screen.locator(".screen-flash")
    screen.evaluate("document.getElementById('wall').classList.add('flashing')")
    expect(flash).to_be_visible()
    expect(flash).to_have_css("animation-name", "none")
    expect(flash).to_have_css("background-color", CLEAR)


def test_a_blackout_hides_everything_and_everything_comes_back(operator: Page, screen: Page) -> None:
    black = screen.locator(".screen-black")
    operator.keyboard.press("b")
    expect(black).to_be_visible()
    expect(black).to_have_css("background-color", "rgb(0, 0, 0)")
    assert black.bounding_box() == {"x": 0, "y": 0, "width": 1280, "height": 720}
    expect(operator.get_by_role("button", name="Blackout")).to_have_attribute("aria-pressed", "true")
    operator.keyboard.press("b")
    expect(black).to_be_hidden()


def test_the_next_item_comes_with_its_time_and_can_be_taken_back(
    operator: Page, screen: Page, api: RestClient, show: str
) -> None:
    api.command(show, "start")
    expect(operator.locator("#toggle")).to_have_text("Pause")
    operator.keyboard.press("n")
    expect(screen.get_by_role("timer")).to_have_text("25:00")
    expect(screen.locator(".screen-title")).to_have_text("Keynote")
    expect(screen.locator(".screen-next")).to_have_text("Next: Questions")
    expect(screen.locator(".screen-sign")).to_have_text("Ready")
    assert api.state(show)["status"] == "paused"
    operator.get_by_role("button", name="Undo").click()
    expect(screen.locator(".screen-title")).to_have_text("Welcome")
    expect(screen.get_by_role("timer")).to_have_text(re.compile(r"4\d:\d\d"))
    wait_until(lambda: api.state(show)["status"] == "running")


@pytest.mark.detail
def test_an_item_that_another_operator_has_loaded_already_is_not_skipped(
    open_tab: OpenTab, api: RestClient, show: str
) -> None:
    first, line = open_operator(open_tab, f"{api.url}/stage/{show}"), SlowLine()
    second = open_operator(open_tab, f"{api.url}/stage/{show}", before=line.lay)
    line.hold()
    first.get_by_role("button", name="Next").click()
    expect(first.locator(".item.current")).to_contain_text("Keynote")
    first.get_by_role("button", name="Start").click()
    wait_until(lambda: api.state(show)["status"] == "running")
    expect(second.locator(".item.current")).to_contain_text("Welcome")
    second.get_by_role("button", name="Next").click()
    line.release()
    expect(second.locator(".item.current")).to_contain_text("Keynote")
    second.get_by_role("button", name="Flash").click()  # commands take effect in their order

    def has_flashed() -> bool:
        second.wait_for_timeout(20)  # Playwright carries the messages of a SlowLine only while it is called
        return "flash_at" in stage_of(api, show)

    wait_until(has_flashed)
    assert stage_of(api, show)["current"]["item"] == "keynote"
    assert api.state(show)["status"] == "running"


def test_two_operators_lose_nothing_of_each_others_work(open_tab: OpenTab, api: RestClient, show: str) -> None:
    first, second = (open_operator(open_tab, f"{api.url}/stage/{show}") for _ in range(2))
    for page in (first, second):  # both dialogs show the same item
        page.get_by_role("button", name="Edit Keynote").click()
    first.get_by_role("textbox", name="Title").fill("Opening keynote")
    second.get_by_role("textbox", name="Duration").fill("30")
    for page in (first, second):
        page.evaluate("document.querySelector('dialog form').requestSubmit()")
    for page in (first, second):
        expect(page.get_by_role("dialog")).to_have_count(0)
    for page, button in ((first, "#blackout"), (second, "#presets button"), (first, "#flash"), (second, "[name=bar]")):
        page.evaluate("selector => document.querySelector(selector).click()", button)
    wait_until(lambda: {"blackout", "message", "flash_at", "show"} <= set(stage_of(api, show)))
    stage = stage_of(api, show)
    assert stage["items"]["keynote"] == ITEMS["keynote"] | {"title": "Opening keynote", "ms": 1_800_000}
    assert stage["items"]["welcome"] == ITEMS["welcome"]
    assert (stage["blackout"], stage["message"]["shown"], stage["show"]["bar"]) == (True, True, False)


@pytest.mark.detail
def test_the_agenda_can_be_edited(operator: Page, api: RestClient, show: str) -> None:
    operator.get_by_role("button", name="Add an item").click()
    operator.get_by_role("textbox", name="Title").fill("Farewell")
    operator.get_by_role("textbox", name="Duration").fill("nonsense")
    operator.get_by_role("button", name="Save").click()
    expect(operator.get_by_role("dialog")).to_be_visible()
    operator.get_by_role("textbox", name="Duration").fill("1:30")
    operator.get_by_role("dialog").get_by_role("button", name="Save").click()
    titles = operator.locator(".item-title")
    expect(titles).to_have_text(["Welcome", "Keynote", "Questions", "Farewell"])
    operator.get_by_role("button", name="Edit Farewell").click()
    operator.get_by_role("button", name="Move up").click()
    expect(titles).to_have_text(["Welcome", "Keynote", "Farewell", "Questions"])
    operator.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    operator.get_by_role("button", name="Edit Questions").click()
    operator.get_by_role("button", name="Delete").click()
    expect(titles).to_have_text(["Welcome", "Keynote", "Farewell"])
    # The item on stage was not started yet, so its new time is on the clock at once.
    operator.get_by_role("button", name="Edit Welcome").click()
    operator.get_by_role("textbox", name="Duration").fill("2")
    operator.get_by_role("dialog").get_by_role("button", name="Save").click()
    wait_until(lambda: api.state(show)["clock"]["remaining_ms"] == 120_000)


def test_an_overlay_has_a_clear_page_and_only_the_parts_that_are_asked_for(
    open_tab: OpenTab, api: RestClient, show: str
) -> None:
    update(api, show, message={"text": "For the speaker", "shown": True})
    page = open_screen(open_tab, f"{api.url}/stage/{show}?overlay=1", color_scheme="dark")
    for selector in ("html", "body", "#wall"):
        expect(page.locator(selector)).to_have_css("background-color", CLEAR)
    expect(page.locator(".screen-title")).to_be_visible()
    for hidden in (".screen-message", ".screen-next", ".screen-speaker", "#link"):
        expect(page.locator(hidden)).to_be_hidden()
    query = "background=%2300b140&show=time,message&align=left&size=40&color=%23ffff00&font=mono"
    page.goto(f"{api.url}/stage/{show}?overlay=1&{query}")
    expect(page.locator(".screen-message")).to_have_text("For the speaker")
    expect(page.locator(".screen-title")).to_be_hidden()
    expect(page.locator(".screen-bar")).to_be_hidden()
    expect(page.locator("html")).to_have_css("background-color", "rgb(0, 177, 64)")
    timer = page.get_by_role("timer")
    expect(timer).to_have_css("color", "rgb(255, 255, 0)")
    expect(timer).to_have_css("font-size", "288px")
    expect(timer).to_have_css("font-family", re.compile("mono", re.IGNORECASE))
    assert box_of(timer)["x"] < 100


@pytest.mark.detail
def test_values_of_an_overlay_that_are_not_valid_are_ignored(open_tab: OpenTab, api: RestClient, show: str) -> None:
    query = "background=url(x)&show=nothing&align=up&size=999&color=red&font=Comic&more=1"
    page = open_screen(open_tab, f"{api.url}/stage/{show}?overlay=1&{query}")
    expect(page.locator("html")).to_have_css("background-color", CLEAR)
    expect(page.get_by_role("timer")).to_have_css("color", GREEN)
    expect(page.get_by_role("timer")).to_have_css("font-size", "180px")
    expect(page.locator(".screen-title")).to_have_text("Welcome")


@pytest.mark.parametrize(("width", "height"), [(390, 844), (844, 390), (1920, 1080)])
@pytest.mark.detail
def test_hours_fit_every_display(open_tab: OpenTab, api: RestClient, show: str, width: int, height: int) -> None:
    api.command(show, "adjust", op="set", ms=5_025_000)
    update(api, show, message={"text": "Unpronounceable " * 12, "shown": True})
    page = open_screen(open_tab, f"{api.url}/stage/{show}?view=1", viewport={"width": width, "height": height})
    expect(page.get_by_role("timer")).to_have_text("1:23:45")
    time, message, following = (
        box_of(page.locator(each)) for each in (".screen-time:not(.screen-ruler)", ".screen-message", ".screen-next")
    )
    assert time["x"] >= 0
    assert time["x"] + time["width"] <= width
    assert time["width"] > width * 0.35
    assert time["height"] > height * 0.15
    assert time["y"] + time["height"] <= message["y"] + 1
    assert message["y"] + message["height"] <= following["y"] + 1


def test_a_lost_connection_is_a_small_sign_and_the_time_goes_on(
    page: Page, api: RestClient, show: str, web: Cluster
) -> None:
    page.goto(f"{api.url}/stage/{show}?view=1")
    api.command(show, "start")
    timer, sign = page.get_by_role("timer"), page.locator("#link")
    expect(timer).to_have_text(re.compile(r"4\d:\d\d"))
    expect(sign).to_be_hidden()
    web.web[0].stop()
    expect(sign).to_be_visible()
    shown = timer.inner_text()
    expect(timer).not_to_have_text(shown)
    corner, time = box_of(sign), box_of(timer)
    assert corner["y"] >= time["y"] + time["height"] or corner["x"] >= time["x"] + time["width"]
    web.web[0].start()
    expect(sign).to_be_hidden()


def test_the_pages_are_accessible_and_fit_a_phone(open_tab: OpenTab, api: RestClient, show: str) -> None:
    phone = {"width": 390, "height": 844}
    page = open_operator(open_tab, f"{api.url}/stage/{show}", viewport=phone)
    page.locator("summary").click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    small = [
        each.inner_text() or each.get_attribute("aria-label")
        for each in page.get_by_role("button").all()
        if (box := each.bounding_box()) and min(box["width"], box["height"]) < 44
    ]
    assert small == []
    assert violations(page) == []
    for opener in ("#help", "#change", "#add", ".item-edit"):
        page.locator(opener).first.click()
        assert violations(page) == []
        page.keyboard.press("Escape")
    dark = open_operator(open_tab, f"{api.url}/stage/{show}", color_scheme="dark")
    assert violations(dark) == []
    screen = open_screen(open_tab, f"{api.url}/stage/{show}?view=1")
    api.command(show, "start")
    for ms, level in ((2_500_000, "green"), (1_500_000, "yellow"), (500_000, "red"), (0, "over")):
        api.command(show, "adjust", op="set", ms=ms)
        expect(screen.locator("#wall")).to_have_attribute("data-level", level)
        assert violations(screen) == []


@pytest.mark.detail
def test_single_keys_can_be_switched_off(operator: Page, api: RestClient, show: str) -> None:
    operator.keyboard.press("?")
    operator.get_by_label("Use single keys").uncheck()
    operator.keyboard.press("Escape")
    operator.keyboard.press("b")
    operator.get_by_role("button", name="Start").click()
    wait_until(lambda: api.state(show)["status"] == "running")
    assert "blackout" not in stage_of(api, show)


@pytest.mark.detail
def test_a_clock_without_the_first_items_time_can_be_reset_to_it(
    open_tab: OpenTab, api: RestClient, operator: Page
) -> None:
    expect(operator.locator("#other-time")).to_be_hidden()
    session_id = api.create(**SHOW | {"total_time_ms": 300_000})
    page = open_operator(open_tab, f"{api.url}/stage/{session_id}", viewport={"width": 360, "height": 740})
    notice = page.locator("#other-time")
    expect(notice).to_have_text(re.compile(r"The clock does not have .+ 50:00\."))
    assert violations(page) == []
    notice.get_by_role("button", name="Reset").click()
    expect(notice).to_be_hidden()
    wait_until(lambda: api.state(session_id)["clock"]["remaining_ms"] == 3_000_000)
    assert api.state(session_id)["status"] == "pending"
    assert box_of(page.locator("#change"))["height"] == box_of(page.locator("#reset"))["height"]


@pytest.mark.parametrize("scope", ["session:watch", "session:control"])
def test_a_link_shows_what_it_allows(open_tab: OpenTab, guarded: RestClient, scope: str) -> None:
    session_id = guarded.create(**SHOW)
    made = requests.post(
        f"{guarded.url}/v1/sessions/{session_id}/links",
        json={"scope": scope, "page": "stage"},
        headers=guarded.headers,
        timeout=60,
    )
    assert made.status_code == 201, made.text
    page = open_screen(open_tab, made.json()["data"]["url"])
    is_operator = scope == "session:control"
    expect(page.locator("#operator")).to_be_visible(visible=is_operator)
    expect(page.locator("#viewer")).to_be_visible(visible=not is_operator)
    expect(page.locator("#share")).to_be_hidden()  # links make no links
    page.keyboard.press("Space")
    if is_operator:
        wait_until(lambda: guarded.state(session_id)["status"] == "running")
    else:
        update(guarded, session_id, message={"text": "Hello", "shown": True})
        expect(page.locator("#wall")).to_contain_text("Hello")
        assert guarded.state(session_id)["status"] == "pending"


def test_an_operator_shares_an_overlay_by_a_link(open_tab: OpenTab, operator: Page) -> None:
    operator.get_by_role("button", name="Share").click()
    links = operator.get_by_role("dialog").get_by_role("textbox")
    expect(links).to_have_count(3)
    expect(operator.get_by_role("img", name=re.compile("QR code"))).to_have_count(3)
    assert violations(operator) == []
    overlay = open_screen(open_tab, links.nth(2).input_value())
    expect(overlay.locator("html")).to_have_css("background-color", CLEAR)

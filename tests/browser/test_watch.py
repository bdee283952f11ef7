"""The page that shows one session live, in a real browser, with `AUTH=off`."""

from __future__ import annotations

import re
import uuid

import pytest
from playwright.sync_api import Page, expect

from tests.support.browser_policy import complaints_of
from tests.support.cluster import Cluster
from tests.support.web_clients import RestClient, wait_until

LONG = 60_000
HOURGLASS_MS = 3_000_000


@pytest.fixture
def complaints(page: Page) -> list[str]:
    return complaints_of(page)


def open_page(page: Page, api: RestClient, session_id: str) -> None:
    page.goto(f"{api.url}/watch?session={session_id}")
    expect(page.get_by_role("status")).to_have_text("Connected.", timeout=LONG)


def test_the_page_shows_the_clocks_and_the_turn_and_follows_each_change(
    page: Page, complaints: list[str], api: RestClient
) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    session_id = api.create()
    open_page(page, api, session_id)
    expect(page.locator("#status")).to_have_text("Not started yet.", timeout=LONG)
    expect(page.get_by_role("timer")).to_have_text(["1:00:00", "1:00:00"])
    api.command(session_id, "start")
    expect(page.locator("#status")).to_have_text("Running. It is white's turn.", timeout=LONG)
    expect(page.locator("li.active .name")).to_have_text("white")
    expect(page.get_by_role("timer").first).to_have_text(re.compile(r"59:5\d"), timeout=LONG)
    api.command(session_id, "switch")
    expect(page.locator("#status")).to_have_text("Running. It is black's turn.", timeout=LONG)
    api.command(session_id, "complete")
    expect(page.locator("#status")).to_have_text("Completed.", timeout=LONG)
    assert {url.split("/")[2] for url in asked if url.startswith("http")} == {api.url.split("/")[2]}
    assert complaints == []


def test_a_clock_shows_its_period_after_its_main_time(page: Page, complaints: list[str], api: RestClient) -> None:
    people = [{"participant_id": name} for name in ("black", "white")]
    session_id = api.create(participants=people, time_control="sgf:1 3x90 byo-yomi")
    open_page(page, api, session_id)
    expect(page.get_by_role("timer")).to_have_text(["0:01.0", "0:01.0"], timeout=LONG)
    api.command(session_id, "start")
    expect(page.get_by_role("timer").first).to_have_text(re.compile(r"1:\d\d"), timeout=LONG)
    api.command(session_id, "switch")
    expect(page.get_by_role("timer").first).to_have_text("1:30", timeout=LONG)
    assert complaints == []


@pytest.mark.parametrize("owner", ["participant", "group"])
def test_the_clocks_of_an_hourglass_that_wait_gain_live_what_the_mover_uses(
    page: Page, complaints: list[str], api: RestClient, owner: str
) -> None:
    people = [{"participant_id": name} | ({"group_id": name} if owner == "group" else {}) for name in "abc"]
    session_id = api.running(sync_mode=f"per_{owner}", participants=people, time_control="pgn:*3000")
    # The state that the page gets is from the middle of the turn.
    wait_until(lambda: used_ms(api, session_id) >= 4000)
    open_page(page, api, session_id)
    timers = page.get_by_role("timer")
    expect(timers.first).to_have_text(re.compile(r"4\d:\d\d"), timeout=LONG)

    def gain_half_each() -> bool:
        before_ms, shown, after_ms = used_ms(api, session_id), timers.all_inner_texts(), used_ms(api, session_id)
        gained_ms = [shown_ms(text) - HOURGLASS_MS for text in shown[1:]]
        return all(before_ms / 2 - 1000 <= gained <= after_ms / 2 + 1000 for gained in gained_ms)

    wait_until(gain_half_each)  # a busy page shows an older time, or has measured the server's less well
    shown = timers.all_inner_texts()
    expect(timers.nth(1)).not_to_have_text(shown[1], timeout=LONG)
    expect(timers.nth(2)).not_to_have_text(shown[2], timeout=LONG)
    assert complaints == []


def shown_ms(text: str) -> int:
    """Return the time that a clock shows as minutes and seconds."""
    minutes, seconds = map(int, text.split(":"))
    return (minutes * 60 + seconds) * 1000


def used_ms(api: RestClient, session_id: str) -> int:
    """Return what the first mover of an hourglass has used."""
    remaining_ms: int = api.state(session_id)["clock"]["remaining_ms"]
    return HOURGLASS_MS - remaining_ms


def test_a_clock_shows_what_the_server_shows_even_if_the_computers_clock_is_wrong(page: Page, api: RestClient) -> None:
    session_id = api.running()
    page.add_init_script("const now = Date.now; Date.now = () => now() + 3_600_000;")
    open_page(page, api, session_id)
    expect(page.get_by_role("timer").first).to_have_text(re.compile(r"59:\d\d"), timeout=LONG)

    def shows_the_servers_time() -> bool:
        before: int = api.state(session_id)["clock"]["remaining_ms"]
        shown = shown_ms(page.get_by_role("timer").first.inner_text())
        after: int = api.state(session_id)["clock"]["remaining_ms"]
        return after - 1000 <= shown <= before + 1000

    wait_until(shows_the_servers_time)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({"sync_mode": "count_up", "participants": []}, ["0:00"]),
        ({"sync_mode": "global", "total_time_ms": 90_000, "participants": []}, ["1:30"]),
        (
            {
                "sync_mode": "per_group",
                "participants": [
                    {"participant_id": name, "group_id": name[0], "total_time_ms": 60_000} for name in ("r1", "b1")
                ],
            },
            ["1:00", "1:00"],
        ),
        ({"sync_mode": "per_cycle", "time_per_cycle_ms": 5000, "participants": [{"participant_id": "a"}]}, ["0:05.0"]),
    ],
    ids=["count_up", "global", "per_group", "per_cycle"],
)
def test_every_mode_has_its_clocks(page: Page, api: RestClient, body: dict[str, object], shown: list[str]) -> None:
    session_id = api.create(**body)
    open_page(page, api, session_id)
    expect(page.get_by_role("timer")).to_have_text(shown, timeout=LONG)
    api.command(session_id, "start")
    expect(page.get_by_role("timer").first).not_to_have_text(shown[0], timeout=LONG)


def test_people_can_start_switch_by_the_space_bar_pause_and_resume(
    page: Page, complaints: list[str], api: RestClient
) -> None:
    session_id = api.create()
    open_page(page, api, session_id)
    expect(page.get_by_role("button", name="Switch")).to_be_disabled()
    page.get_by_role("button", name="Start").click(timeout=LONG)
    expect(page.locator("#status")).to_have_text("Running. It is white's turn.", timeout=LONG)
    page.get_by_role("heading").click()
    page.keyboard.press("Space")
    expect(page.locator("#status")).to_have_text("Running. It is black's turn.", timeout=LONG)
    page.get_by_role("button", name="Switch").focus()
    page.keyboard.press("Space")  # the button itself: once, not twice
    expect(page.locator("#status")).to_have_text("Running. It is white's turn.", timeout=LONG)
    assert api.state(session_id)["cycle_count"] == 2
    page.get_by_role("button", name="Pause").click()
    expect(page.locator("#status")).to_have_text("Paused.", timeout=LONG)
    page.get_by_role("button", name="Resume").click()
    expect(page.locator("#status")).to_have_text("Running. It is white's turn.", timeout=LONG)
    assert complaints == []


def test_a_press_that_comes_too_late_changes_nothing_and_is_explained(page: Page, api: RestClient) -> None:
    session_id = api.running()
    open_page(page, api, session_id)
    expect(page.get_by_role("button", name="Switch")).to_be_enabled(timeout=LONG)
    # Two presses before the first one's effect is shown.
    page.evaluate("document.getElementById('switch').click(); document.getElementById('switch').click()")
    expect(page.get_by_role("alert")).to_have_text(re.compile("Somebody else was faster"), timeout=LONG)
    assert api.state(session_id)["cycle_count"] == 1


def test_the_page_waits_for_a_session_and_says_when_it_was_deleted(page: Page, api: RestClient) -> None:
    session_id = str(uuid.uuid4())
    open_page(page, api, session_id)
    expect(page.get_by_role("alert")).to_have_text(re.compile("no such session yet"), timeout=LONG)
    api.create(session_id=session_id)
    expect(page.locator("#status")).to_have_text("Not started yet.", timeout=LONG)
    expect(page.locator("#problem")).to_have_text("")
    api.delete(session_id)
    expect(page.get_by_role("alert")).to_have_text("This session was deleted.", timeout=LONG)
    expect(page.locator("#status")).to_have_text("Last known state: Not started yet.")
    expect(page.locator("#controls")).to_be_hidden()


def test_the_page_connects_again_by_itself(page: Page, api: RestClient, web: Cluster) -> None:
    session_id = api.running()
    open_page(page, api, session_id)
    web.web[0].stop()
    expect(page.get_by_role("status")).to_have_text(re.compile("Trying again|Connecting"), timeout=LONG)
    expect(page.get_by_role("button", name="Switch")).to_be_disabled()
    web.web[0].start()
    expect(page.get_by_role("status")).to_have_text("Connected.", timeout=LONG)
    api.command(session_id, "switch")
    expect(page.locator("#status")).to_have_text("Running. It is black's turn.", timeout=LONG)


def test_a_page_without_a_session_says_what_is_missing(page: Page, complaints: list[str], api: RestClient) -> None:
    page.goto(f"{api.url}/watch")
    expect(page.get_by_role("alert")).to_have_text(re.compile("needs a link to a session"), timeout=LONG)
    assert complaints == []


def test_text_from_a_session_is_shown_as_text(page: Page, complaints: list[str], api: RestClient) -> None:
    session_id = api.create(participants=[{"participant_id": "a.b:c@d+e-f", "total_time_ms": 60_000}])
    open_page(page, api, session_id)
    expect(page.locator(".name")).to_have_text("a.b:c@d+e-f", timeout=LONG)
    assert complaints == []


def test_the_page_fits_a_phone(page: Page, api: RestClient) -> None:
    page.set_viewport_size({"width": 320, "height": 640})
    open_page(page, api, api.create(participants=[{"participant_id": "p" * 64, "total_time_ms": 36_000_000}]))
    expect(page.get_by_role("timer")).to_have_text("10:00:00", timeout=LONG)
    assert page.evaluate("document.documentElement.scrollWidth") <= 320
    assert page.get_by_role("button", name="Switch").bounding_box()["height"] >= 90  # type: ignore[index]  # the button is visible

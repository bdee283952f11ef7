"""The page of an exam in a real browser: an invigilator, the hall and candidates, each in a context of its own."""

from __future__ import annotations

import re
from typing import Any

import pytest
import requests
from playwright.sync_api import Locator, Page, expect

from tests.browser.accessibility import violations
from tests.browser.announcements import listen, wait_until_heard
from tests.browser.tabs import PHONE, Tabs
from tests.support.tokens import token
from tests.support.web_clients import RestClient, wait_until

LONG = 60_000
EXTRA = "Extra time"
EXAM: dict[str, Any] = {
    "sync_mode": "global",
    "participants": [],
    "total_time_ms": 6_750_000,
    "warn_at_ms": [1_800_000, 300_000],
    "metadata": {
        "title": "Mathematics",
        "groups": [{"name": "Standard", "time_ms": 5_400_000}, {"name": EXTRA, "time_ms": 6_750_000}],
        "candidates": [{"name": "A-101", "group": "Standard"}, {"name": "A-102", "group": EXTRA}],
    },
}


@pytest.fixture
def exam(api: RestClient) -> str:
    return api.create(**EXAM)


def invigilator_of(tabs: Tabs, api: RestClient, exam: str) -> Page:
    """The invigilator's tab, when all seats are there."""
    page = tabs.open(f"{api.url}/exam/{exam}")
    expect(page.locator("#seats .badge")).to_have_text(["Not started", "Not started"], timeout=LONG)
    return page


def seats_of(api: RestClient, exam: str) -> list[str]:
    """The ids of the candidates' sessions."""
    wait_until(lambda: api.state(exam)["metadata"].get("seats_ready"))
    return [each["seat"] for each in api.state(exam)["metadata"]["candidates"]]


def row(page: Page, name: str) -> Locator:
    return page.get_by_role("row", name=name)


def status(page: Page, text: str) -> None:
    expect(page.locator("#status")).to_have_text(text, timeout=LONG)


def seconds(page: Page) -> int:
    """The time left that a candidate's page shows, in seconds."""
    count = 0
    for part in page.locator(".group-card .left").inner_text().split(":"):
        count = count * 60 + int(part)
    return count


def test_each_candidate_gets_a_clock_and_all_start_pause_and_resume_together(
    tabs: Tabs, api: RestClient, exam: str
) -> None:
    invigilator = invigilator_of(tabs, api, exam)
    seats = seats_of(api, exam)
    assert [api.state(seat)["total_time_ms"] for seat in seats] == [5_400_000, 6_750_000]
    assert api.state(seats[0])["metadata"] == {
        "title": "Mathematics",
        "exam": exam,
        "candidate": "A-101",
        "group": "Standard",
    }
    candidates = [tabs.open(f"{api.url}/exam/{seat}?view=1", **PHONE) for seat in seats]
    hall = tabs.open(f"{api.url}/exam/{exam}?view=1")
    expect(candidates[1].locator(".group-card .left")).to_have_text("1:52:30", timeout=LONG)
    expect(candidates[1].get_by_text("A-101")).to_have_count(0)
    invigilator.get_by_role("button", name="Start the exam").click()
    for page in (*candidates, hall):
        status(page, "Running")
    assert [violations(page) for page in (invigilator, hall, candidates[0])] == [[], [], []]
    invigilator.locator("h1").click()
    expect(invigilator.get_by_role("button", name="Pause all")).to_be_enabled(timeout=LONG)  # all have answered
    invigilator.keyboard.press("Space")
    for page in (*candidates, hall):
        status(page, "Paused")
    assert violations(candidates[1]) == []
    invigilator.reload()
    invigilator.get_by_role("button", name="Resume all").click(timeout=LONG)
    for page in (*candidates, hall):
        status(page, "Running")
    assert seats_of(api, exam) == seats


def test_time_can_be_added_for_one_candidate_and_for_all(tabs: Tabs, api: RestClient, exam: str) -> None:
    invigilator = invigilator_of(tabs, api, exam)
    seats = seats_of(api, exam)
    invigilator.get_by_role("button", name="Add time: A-101").click()
    invigilator.get_by_label("Minutes").fill("10")
    invigilator.get_by_label("Reason").fill("computer replaced")
    assert violations(invigilator) == []
    invigilator.get_by_role("button", name="Add the time").click()
    wait_until(lambda: api.state(seats[0])["time_remaining_ms"] == 6_000_000)
    assert api.state(seats[1])["time_remaining_ms"] == 6_750_000
    invigilator.get_by_role("button", name="Add time for all").click()
    invigilator.get_by_role("button", name="Add the time").click()
    wait_until(lambda: api.state(exam)["time_remaining_ms"] == 7_050_000)
    wait_until(lambda: [api.state(seat)["time_remaining_ms"] for seat in seats] == [6_300_000, 7_050_000])
    expect(row(invigilator, "A-101").locator(".left")).to_have_text("1:45:00", timeout=LONG)
    expect(invigilator.locator(".group-card .left")).to_have_text(["1:35:00", "1:57:30"], timeout=LONG)


@pytest.mark.detail
def test_the_same_incident_is_not_credited_twice(tabs: Tabs, api: RestClient, exam: str) -> None:
    invigilator = invigilator_of(tabs, api, exam)
    seat = seats_of(api, exam)[0]
    invigilator.get_by_role("button", name="Add time: A-101").click()
    api.command(seat, "adjust", op="add", ms=300_000)  # by another invigilator, while this one thinks
    expect(row(invigilator, "A-101").locator(".left")).to_have_text("1:35:00", timeout=LONG)
    invigilator.get_by_role("button", name="Add the time").click()
    expect(invigilator.locator(".toast")).to_contain_text("Somebody else was faster.", timeout=LONG)
    assert api.state(seat)["time_remaining_ms"] == 5_700_000


@pytest.mark.detail
def test_a_candidate_hands_in_and_one_whose_time_is_up_can_be_given_more(
    tabs: Tabs, api: RestClient, exam: str
) -> None:
    invigilator = invigilator_of(tabs, api, exam)
    seats = seats_of(api, exam)
    first, second = (tabs.open(f"{api.url}/exam/{seat}?view=1") for seat in seats)
    invigilator.get_by_role("button", name="Start the exam").click()
    status(first, "Running")
    status(second, "Running")
    invigilator.get_by_role("button", name="Hand in: A-101").click()
    invigilator.get_by_role("button", name="End", exact=True).click()
    status(first, "Handed in")
    status(second, "Running")
    api.command(seats[1], "adjust", op="set", ms=0)
    status(second, "Time is up")
    invigilator.get_by_role("button", name="Add time: A-102").click(timeout=LONG)
    invigilator.get_by_role("button", name="Add the time").click()
    status(second, "Running")
    assert 0 < seconds(second) <= 300
    invigilator.get_by_role("button", name="End the exam").click()
    invigilator.locator("dialog").get_by_role("button", name="End the exam").click()
    status(second, "Handed in")
    status(invigilator, "Ended")
    assert violations(invigilator) == []


def test_the_hall_shows_the_servers_time_and_when_each_group_ends(tabs: Tabs, api: RestClient, exam: str) -> None:
    hall = tabs.open("about:blank", timezone_id="UTC")
    hall.add_init_script("const now = Date.now; Date.now = () => now() + 3_600_000;")  # this computer's clock is wrong
    hall.goto(f"{api.url}/exam/{exam}?view=1")
    status(hall, "Not started")
    started = api.command(exam, "start")
    time_of_day = started["session_started_at"][11:16]
    status(hall, "Running")
    expect(hall.locator("#now")).to_have_text(re.compile(r"\d\d:\d\d:\d\d"), timeout=LONG)
    hour, minute = map(int, hall.locator("#now").inner_text().split(":")[:2])
    begun_hour, begun_minute = map(int, time_of_day.split(":"))
    assert 0 <= (hour * 60 + minute - begun_hour * 60 - begun_minute) % 1440 <= 10
    ends = [_minutes(text) for text in hall.locator(".group-card .ends").all_inner_texts()]
    assert [(end - begun_hour * 60 - begun_minute) % 1440 for end in ends] in ([90, 112], [90, 113], [91, 113])
    for button in hall.get_by_role("button").all():
        expect(button).to_be_hidden()
    listen(hall)
    api.command(exam, "adjust", op="set", ms=1_350_000 + 300_000)  # five minutes for the standard group
    expect(hall.locator(".notice").first).to_have_text("5 min left", timeout=LONG)
    wait_until_heard(hall, "Standard: 5 min left. Extra time: 30 min left")
    api.command(exam, "adjust", op="set", ms=1_350_000)
    expect(hall.locator(".group-card .left").first).to_have_text("Time is up", timeout=LONG)
    status(hall, "Running")
    assert violations(hall) == []


def _minutes(ends: str) -> int:
    """The minute of the day of 'Ends 11:30:12'."""
    hour, minute = ends.removeprefix("Ends ").split(":")[:2]
    return int(hour) * 60 + int(minute)


def test_a_latecomer_is_added_and_started_alone_and_two_invigilators_make_no_seat_twice(
    tabs: Tabs, api: RestClient, exam: str
) -> None:
    pages = [tabs.open(f"{api.url}/exam/{exam}") for _ in range(2)]
    for page in pages:
        expect(page.locator("#seats .badge")).to_have_text(["Not started", "Not started"], timeout=LONG)
    seats = seats_of(api, exam)
    pages[0].get_by_role("button", name="Start the exam").click()
    for page in pages:
        expect(page.locator("#seats .badge")).to_have_text(["Writing", "Writing"], timeout=LONG)
    pages[1].get_by_label("New candidate").fill("A-103")
    pages[1].get_by_label("Group").select_option(EXTRA)
    pages[1].get_by_role("button", name="Add candidate").click()
    for page in pages:
        expect(row(page, "A-103").locator(".badge")).to_have_text("Not started", timeout=LONG)
    pages[0].get_by_role("button", name="Start: A-103").click()
    expect(row(pages[1], "A-103").locator(".badge")).to_have_text("Writing", timeout=LONG)
    after = seats_of(api, exam)
    assert after[:2] == seats
    assert api.state(after[2])["total_time_ms"] == 6_750_000
    listed = requests.get(f"{api.url}/v1/sessions", params={"metadata.exam": exam}, timeout=60).json()["data"]
    assert {each["session_id"] for each in listed["sessions"]} == set(after)


def test_with_tokens_a_candidates_link_shows_one_clock_and_a_link_to_the_hall_none_of_the_seats(
    tabs: Tabs, guarded: RestClient
) -> None:
    exam = guarded.create(**EXAM)

    def link(session_id: str, scope: str) -> str:
        links = f"{guarded.url}/v1/sessions/{session_id}/links"
        made = requests.post(links, json={"scope": scope, "page": "exam"}, headers=guarded.headers, timeout=60)
        assert made.status_code == 201, made.text
        url: str = made.json()["data"]["url"]
        return url

    given = token("ivy", "session:create session:control")
    invigilator = tabs.open(f"{guarded.url}/exam/{exam}#token={given}")
    expect(invigilator.locator("#seats .badge")).to_have_text(["Not started", "Not started"], timeout=LONG)
    seats = seats_of(guarded, exam)
    candidate = tabs.open(link(seats[0], "session:watch"))
    helper = tabs.open(link(exam, "session:control"))
    hall = tabs.open(link(exam, "session:watch"))
    expect(helper.get_by_text("need a token for all sessions of the exam")).to_be_visible(timeout=LONG)
    expect(helper.locator("#candidates")).to_be_hidden()
    invigilator.get_by_role("button", name="Start the exam").click()
    for page in (candidate, helper, hall):
        status(page, "Running")
    for page in (candidate, hall):
        expect(page.locator("#controls")).to_be_hidden()
        expect(page.locator("#candidates")).to_be_hidden()
    expect(candidate.locator("#who")).to_have_text("A-101")

"""The page of a quiz in a real browser: a host, players and the big screen, each in a context of its own."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, WebSocketRoute, expect

from tests.browser.accessibility import violations
from tests.browser.announcements import heard, listen, wait_until_heard
from tests.browser.tabs import PHONE, Tabs
from tests.support.web_clients import RestClient, wait_until

LONG = 60_000
QUIZ: dict[str, Any] = {
    "sync_mode": "per_cycle",
    "participants": [],
    "time_per_cycle_ms": 300_000,
    "warn_at_ms": [10_000],
    "action_on_timeout": {"type": "notify"},
    "metadata": {"title": "Friday quiz"},
}
QUESTIONS = "Two and two?\nThree\n* Four\n\nThe largest planet?\n* Jupiter\nMars"


COVERED = """() => {
  // A toast goes again after some seconds, so what it covers is written down when it is in its place.
  const look = () => {
    const toast = document.querySelector('.toast')
    if (!toast) return requestAnimationFrame(look)
    requestAnimationFrame(() => requestAnimationFrame(() => {
      const {top, bottom} = toast.parentElement.getBoundingClientRect()  // where it stands when it has come
      const covered = [...document.querySelectorAll('button')].filter((each) => {
        const rect = each.getBoundingClientRect()
        return rect.height && rect.top < bottom && rect.bottom > top
      })
      window.covered = [toast.textContent, covered.map((each) => each.id)]
    }))
  }
  look()
}"""


class LateState:
    """A page's WebSocket that gives the states only after the server's time, or before it."""

    def __init__(self, page: Page) -> None:
        self.is_state_first = False
        page.route_web_socket(re.compile("/ws"), self._connect)

    def _connect(self, socket: WebSocketRoute) -> None:
        server, held, is_state_first = socket.connect_to_server(), list[str | bytes](), self.is_state_first
        awaited, late = ("STATE_SYNC", "PONG") if is_state_first else ("PONG", "STATE_SYNC")
        is_here = False

        def pass_on(message: str | bytes) -> None:
            nonlocal is_here
            kind = json.loads(message)["type"]
            if kind == late and not is_here:
                held.append(message)
                return
            socket.send(message)
            if kind == awaited and not is_here:
                is_here = True
                for each in held:
                    socket.send(each)

        server.on_message(pass_on)
        socket.on_message(server.send)


def answers_kept(page: Page) -> list[Any]:
    kept: list[Any] = page.evaluate(
        "Object.entries(sessionStorage).filter(([key]) => key.startsWith('syncapp.answers.'))"
        ".map(([, value]) => JSON.parse(value))"
    )
    return kept


def host_of(tabs: Tabs, url: str) -> Page:
    """The host's tab, with two questions."""
    page = tabs.open(url)
    page.get_by_label("Questions").fill(QUESTIONS, timeout=LONG)
    page.get_by_role("button", name="Use these questions").click()
    return page


def press(host: Page, name: str) -> None:
    host.get_by_role("button", name=name).click(timeout=LONG)


def said(page: Page, text: str) -> None:
    expect(page.locator("#said")).to_have_text(text, timeout=LONG)


def test_players_answer_until_the_host_closes_and_see_what_was_right(tabs: Tabs, api: RestClient) -> None:
    quiz = api.create(**QUIZ)
    host = host_of(tabs, f"{api.url}/quiz/{quiz}")
    anna, ben = (tabs.open(f"{api.url}/quiz/{quiz}?view=1", **PHONE) for _ in range(2))
    screen = tabs.open(f"{api.url}/quiz/{quiz}?view=1&screen=1")
    press(host, "Start the quiz")
    for page in (host, anna, ben, screen):
        expect(page.get_by_role("heading", name="Two and two?")).to_be_visible(timeout=LONG)
        expect(page.locator("#number")).to_have_text("Question 1 of 2")
    expect(screen.locator("button.option")).to_have_count(0)
    anna.get_by_role("button", name="Three").click()
    anna.get_by_role("button", name="Four").click()
    said(anna, "You may change your answer until the time is up.")
    ben.keyboard.press("a")
    anna.reload()
    expect(anna.get_by_role("button", name="Four")).to_have_attribute("aria-pressed", "true", timeout=LONG)
    assert [violations(page) for page in (host, anna, screen)] == [[], [], []]
    press(host, "Close the answers")
    said(anna, "Your answer is B.")
    expect(ben.get_by_role("button", name="Four")).to_be_disabled()
    ben.keyboard.press("b")
    press(host, "Show the answer")
    said(anna, "Right!")
    said(ben, "Not right this time.")
    expect(screen.locator(".option.right .words")).to_have_text("Four", timeout=LONG)
    assert [violations(page) for page in (host, anna, ben, screen)] == [[], [], [], []]
    late = tabs.open(f"{api.url}/quiz/{quiz}?view=1")
    press(host, "Next question")
    for page in (anna, late):
        page.get_by_role("button", name="Jupiter").click(timeout=LONG)
    press(host, "Close the answers")
    press(host, "Show the answer")
    said(late, "Right!")
    host.locator("#next", has_text="Finish the quiz").click(timeout=LONG)
    expect(anna.locator("#lead")).to_have_text("The quiz is over. You had 2 of 2 right.", timeout=LONG)
    expect(late.locator("#score")).to_have_text("1 of 2 right", timeout=LONG)


def test_the_solution_is_in_no_state_before_it_is_shown(tabs: Tabs, api: RestClient) -> None:
    quiz = api.create(**QUIZ)
    host = host_of(tabs, f"{api.url}/quiz/{quiz}")
    press(host, "Start the quiz")
    expect(host.locator("#question")).to_have_text("Two and two?", timeout=LONG)
    metadata = api.state(quiz)["metadata"]
    assert metadata["current"] == {"index": 0, "text": "Two and two?", "options": ["Three", "Four"]}
    assert "solutions" not in metadata
    press(host, "Close the answers")
    press(host, "Show the answer")
    expect(host.locator("#next")).to_have_text("Next question", timeout=LONG)
    assert api.state(quiz)["metadata"]["solutions"] == [1]


def test_answers_are_locked_at_zero_and_during_a_pause(tabs: Tabs, api: RestClient) -> None:
    quiz = api.create(**QUIZ)
    host = host_of(tabs, f"{api.url}/quiz/{quiz}")
    player = tabs.open(f"{api.url}/quiz/{quiz}?view=1")
    press(host, "Start the quiz")
    four = player.get_by_role("button", name="Four")
    four.click(timeout=LONG)
    listen(player)
    host.locator("h1").click()
    pause = host.locator("#pause")
    expect(pause).to_be_enabled(timeout=LONG)  # a button that is disabled while a command runs takes no keys
    host.keyboard.press("p")
    expect(four).to_be_disabled(timeout=LONG)
    said(player, "Paused: answers are closed. Your answer is B.")
    expect(pause).to_have_text("Resume", timeout=LONG)
    expect(pause).to_be_enabled(timeout=LONG)
    host.keyboard.press("Space")
    expect(four).to_be_enabled(timeout=LONG)
    expect(pause).to_have_text("Pause", timeout=LONG)  # until then, the key would resume
    expect(pause).to_be_enabled(timeout=LONG)
    host.keyboard.press("p")
    expect(four).to_be_disabled(timeout=LONG)
    api.command(quiz, "adjust", op="set", ms=3_000)
    press(host, "+10 s")
    expect(player.get_by_role("timer")).to_have_text("0:13", timeout=LONG)
    api.command(quiz, "adjust", op="set", ms=1_500)
    press(host, "Resume")
    expect(player.locator("#status")).to_have_text("Closed", timeout=LONG)
    wait_until_heard(player, "Time is up.")
    expect(player.get_by_role("timer")).to_have_text("0:00", timeout=LONG)
    expect(four).to_be_disabled()
    player.keyboard.press("a")
    said(player, "Your answer is B.")
    assert api.state(quiz)["cycle_count"] == 0, "the next question waits for the host"


def test_a_host_goes_on_after_a_reload_and_after_a_step_that_was_made_half(tabs: Tabs, api: RestClient) -> None:
    quiz = api.create(**QUIZ)
    host = host_of(tabs, f"{api.url}/quiz/{quiz}")
    expect(host.get_by_role("button", name="Start the quiz")).to_be_enabled(timeout=LONG)
    api.command(quiz, "start")  # no question was published
    press(host, "Show the question")
    expect(host.locator("#question")).to_have_text("Two and two?", timeout=LONG)
    host.reload()
    press(host, "Close the answers")
    press(host, "Show the answer")
    expect(host.locator("#next")).to_have_text("Next question", timeout=LONG)
    state = api.state(quiz)
    current = {"index": 1, "text": "The largest planet?", "options": ["Jupiter", "Mars"]}
    requests.patch(
        f"{api.url}/v1/sessions/{quiz}", json={"metadata": state["metadata"] | {"current": current}}, timeout=60
    ).raise_for_status()  # published, but the time has not begun
    expect(host.locator("#lead")).to_be_visible(timeout=LONG)
    expect(host.locator("#lead")).to_have_text("The next question comes in a moment.")
    press(host, "Next question")
    expect(host.locator("#question")).to_have_text("The largest planet?", timeout=LONG)
    assert api.state(quiz)["cycle_count"] == 1


@pytest.mark.detail
def test_a_quiz_without_a_host_runs_through_its_questions(tabs: Tabs, api: RestClient) -> None:
    questions = [{"text": f"Question {letter}", "options": ["yes", "no"]} for letter in "abc"]
    quiz = api.create(
        **QUIZ | {"action_on_timeout": {"type": "skip_cycle"}, "max_cycles": 3, "metadata": {"questions": questions}}
    )
    player = tabs.open(f"{api.url}/quiz/{quiz}?view=1")
    host = tabs.open(f"{api.url}/quiz/{quiz}")
    press(host, "Start the quiz")
    for number, letter in enumerate("abc", start=1):
        expect(player.get_by_role("heading", name=f"Question {letter}")).to_be_visible(timeout=LONG)
        expect(player.locator("#number")).to_have_text(f"Question {number} of 3")
        api.command(quiz, "adjust", op="set", ms=0)
    expect(player.locator("#status")).to_have_text("Over", timeout=LONG)


@pytest.mark.detail
def test_faulty_questions_are_explained(tabs: Tabs, api: RestClient) -> None:
    page = tabs.open(f"{api.url}/quiz/{api.create(**QUIZ)}")
    page.get_by_label("Questions").fill(QUESTIONS + "\n\nNo star?\nyes\nno", timeout=LONG)
    page.get_by_role("button", name="Use these questions").click()
    expect(page.get_by_text("Question 3 needs 2 to 8 options")).to_be_visible()
    assert violations(page) == []
    page.get_by_role("button", name="Fill in an example").click()
    page.get_by_role("button", name="Use these questions").click()
    expect(page.get_by_role("button", name="Start the quiz")).to_be_enabled(timeout=LONG)


def test_with_tokens_players_can_watch_and_answer_and_nothing_else(tabs: Tabs, guarded: RestClient) -> None:
    quiz = guarded.create(**QUIZ | {"metadata": {"demo": True}})

    def link(scope: str) -> str:
        links = f"{guarded.url}/v1/sessions/{quiz}/links"
        made = requests.post(links, json={"scope": scope, "page": "quiz"}, headers=guarded.headers, timeout=60)
        assert made.status_code == 201, made.text
        url: str = made.json()["data"]["url"]
        return url

    player, host = tabs.open(link("session:watch"), **PHONE), tabs.open(link("session:control"))
    press(host, "Start the quiz")
    player.get_by_role("button", name="Jupiter").click(timeout=LONG)
    for locator in ("#controls", "#notes", "#setup", "#share"):
        expect(player.locator(locator)).to_be_hidden()
    press(host, "Close the answers")
    press(host, "Show the answer")
    said(player, "Right!")


def test_answers_survive_every_reload_whatever_comes_first_and_later_ones_are_added(
    tabs: Tabs, api: RestClient
) -> None:
    quiz = api.create(**QUIZ)
    host = host_of(tabs, f"{api.url}/quiz/{quiz}")
    player = tabs.open(f"{api.url}/quiz/{quiz}?view=1")
    line = LateState(player)
    press(host, "Start the quiz")
    player.get_by_role("button", name="Four").click(timeout=LONG)
    for step in ("Close the answers", "Show the answer", "Next question"):
        press(host, step)
    for turn in range(10):
        line.is_state_first = turn % 2 == 1
        player.reload()
        expect(player.locator("#status")).to_have_text("Open", timeout=LONG)
        expect(player.locator("#score")).to_have_text("1 of 1 right", timeout=LONG)
    line.is_state_first = False
    player.reload()
    player.get_by_role("button", name="Jupiter").click(timeout=LONG)
    assert answers_kept(player) == [{"0": 1, "1": 0}]
    press(host, "Close the answers")
    press(host, "Show the answer")
    expect(player.locator("#score")).to_have_text("2 of 2 right", timeout=LONG)


def test_a_host_without_the_questions_can_pause_add_time_close_and_finish(tabs: Tabs, api: RestClient) -> None:
    quiz = api.create(**QUIZ)
    first = host_of(tabs, f"{api.url}/quiz/{quiz}")
    press(first, "Start the quiz")
    second = tabs.open(f"{api.url}/quiz/{quiz}", **PHONE)
    expect(second.get_by_text("This tab does not have the questions.")).to_be_visible(timeout=LONG)
    press(second, "Pause")
    press(second, "Resume")
    press(second, "+10 s")
    expect(second.get_by_role("timer")).to_have_text(re.compile(r"5:0\d"), timeout=LONG)
    press(second, "Close the answers")
    expect(second.locator("#status")).to_have_text("Closed", timeout=LONG)
    expect(second.locator("#next")).to_be_hidden(timeout=LONG)
    assert violations(second) == []
    second.get_by_role("button", name="Finish").click()
    second.get_by_role("dialog").get_by_role("button", name="Finish").click()
    expect(first.locator("#status")).to_have_text("Over", timeout=LONG)


@pytest.mark.detail
def test_a_host_is_told_to_enter_questions_before_the_link_is_shared(tabs: Tabs, api: RestClient) -> None:
    page = tabs.open(f"{api.url}/quiz/{api.create(**QUIZ)}", **PHONE)
    lead = page.locator("#lead")
    expect(lead).to_have_text(re.compile("Enter your questions below, then share"), timeout=LONG)
    expect(page.get_by_text("For example:")).to_be_visible()
    page.get_by_label("Questions").fill(QUESTIONS)
    page.evaluate(COVERED)
    page.get_by_role("button", name="Use these questions").click()
    expect(lead).to_have_text(re.compile("Everything is ready"), timeout=LONG)
    wait_until(lambda: page.evaluate("window.covered") is not None)
    assert page.evaluate("window.covered") == ["2 questions are ready.", []]


@pytest.mark.detail
def test_closing_early_is_not_announced_as_the_end_of_the_time(tabs: Tabs, api: RestClient) -> None:
    quiz = api.create(**QUIZ)
    host = host_of(tabs, f"{api.url}/quiz/{quiz}")
    player = tabs.open(f"{api.url}/quiz/{quiz}?view=1")
    press(host, "Start the quiz")
    expect(player.get_by_role("button", name="Four")).to_be_enabled(timeout=LONG)
    listen(player)
    press(host, "Close the answers")
    wait_until_heard(player, "The answers are closed.")
    press(host, "Show the answer")
    said(player, "You gave no answer.")
    expect(player.locator("#score")).to_have_text("0 of 1 right", timeout=LONG)
    expect(player.locator("#score")).to_have_class("badge")
    wait_until_heard(player, "The answer is B: Four")
    assert [each for each in heard(player) if "Time is up" in each or each.endswith(" left")] == []
    press(host, "Next question")
    api.command(quiz, "adjust", op="set", ms=11_000)
    wait_until_heard(player, "10 seconds left")
    expect(player.get_by_role("alert")).to_be_empty(timeout=LONG)  # the earlier message is gone

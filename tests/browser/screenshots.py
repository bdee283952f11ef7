"""`make screenshots`: draws the pictures of the service's pages that the documents show.

It starts private servers, plays scenes through the API and in the pages, and writes docs/images/pages/*.png. Names, ids
and clocks are the same in each run, but a clock that runs may be a second further.
"""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from playwright.sync_api import Expect, sync_playwright

from syncapp.dev.processes import end_leftovers
from syncapp.dev.servers import Servers
from syncapp.postgres.schema import upgrade
from tests.browser.example_sessions import EXAM, LOT, QUESTIONS, QUIZ, STAGE
from tests.browser.studio import PHONE, Studio
from tests.support.chromium import CHROMIUM, OPTIONS
from tests.support.cluster import FAST_POSTGRES, Cluster
from tests.support.paths import ROOT
from tests.support.web_clients import RestClient

PICTURES = ROOT / "docs" / "images" / "pages"
HD: dict[str, Any] = {"viewport": {"width": 1280, "height": 720}}
CAMERA = "linear-gradient(160deg, #33496d 0 45%, #6b5548 45%)"
"""What stands for a camera's picture behind an overlay: few colours, so that the file is small."""

expect = Expect()
expect.set_options(timeout=120_000)  # for busy machines


def game(title: str, control: str, *names: str, **more: Any) -> dict[str, Any]:
    """Return the fields of a game of two players, white and black unless named."""
    players = [{"participant_id": name} for name in names or ("white", "black")]
    fields = {"sync_mode": "per_participant", "participants": players, "time_control": control, "takeback_cycles": 20}
    return fields | {"warn_at_ms": [20_000, 10_000], "metadata": {"title": title}} | more


def play(studio: Studio, fields: dict[str, Any], moves: int) -> str:
    """Begin a game, and make this many moves; return its id."""
    made = studio.session(**fields)
    studio.api.command(made, "start")
    for _ in range(moves):
        studio.api.command(made, "switch")
    return made


def set_clock(studio: Studio, session_id: str, who: str, ms: int) -> None:
    studio.api.command(session_id, "adjust", participant_id=who, op="set", ms=ms)


def console_list(studio: Studio) -> None:
    """The first scene, so that the list shows its sessions alone."""
    kinds: tuple[tuple[str, dict[str, Any], int], ...] = (
        ("Main stage, day {}", STAGE, 60_000),
        ("Mathematics, hall {}", EXAM, 2_831_000),
        ("Lot {}", LOT, 94_000),
        ("Friday quiz, room {}", QUIZ, 17_000),
        ("Club evening, table {}", game("", "sgf:1800 5x30 byo-yomi", "black", "white"), 1_043_000),
        ("City open, board {}", game("", "minutes:90+30"), 3_704_000),
    )
    for number in range(1, 6):
        for kind, (title, fields, ms) in enumerate(kinds):
            made = studio.session(**fields | {"metadata": {"title": title.format(number)}})
            if (number + kind) % 5 == 0:
                continue  # pending
            studio.api.command(made, "start")
            if fields["sync_mode"] == "per_participant":
                for _ in range(7 * number + kind):
                    studio.api.command(made, "switch")
                set_clock(studio, made, "black", ms - 61_700 * number)
                set_clock(studio, made, "white", ms - 72_300 * number)
            else:
                studio.api.command(made, "adjust", op="set", ms=ms - 2_700 * number)
            if (number + kind) % 3 == 0:
                studio.api.command(made, "pause")
    page = studio.open("/console")
    expect(page.locator("#rows tr")).to_have_count(5 * len(kinds))
    studio.shoot(console_list=page)


def home(studio: Studio) -> None:
    page = studio.open("/", viewport={"width": 1280, "height": 1000})
    expect(page.get_by_role("button", name="Start").first).to_be_enabled()
    studio.shoot(home=page)


def play_on_two_phones(studio: Studio) -> None:
    made = play(studio, game("Blitz, 3+2", "minutes:3+2"), moves=24)
    white, black = (studio.open(f"/play/{made}?as={name}", **PHONE) for name in ("white", "black"))
    expect(white.locator("#headline")).to_have_text("Your move")
    expect(black.locator("#headline")).to_have_text("White to move")
    set_clock(studio, made, "black", 101_000)
    set_clock(studio, made, "white", 87_900)
    for page in (white, black):
        expect(page.locator("body")).to_contain_text("1:2")
    studio.shoot(play_phones=(white, black))


def play_on_one_phone(studio: Studio) -> None:
    made = play(studio, game("Rapid, 15+10", "minutes:15+10"), moves=37)
    page = studio.open(f"/play/{made}", **PHONE)
    viewer = studio.open(f"/play/{made}?view=1", is_dark=True)
    for each in (page, viewer):
        expect(each.locator("#headline")).to_have_text("Black to move")
    set_clock(studio, made, "white", 192_000)
    set_clock(studio, made, "black", 17_900)
    for each in (page, viewer):
        expect(each.locator("body")).to_contain_text("3:12")
        expect(each.locator("body")).to_contain_text("0:1")
    studio.shoot(play_phone=page, play_viewer_dark=viewer)


def play_go(studio: Studio) -> None:
    fields = game("Go, 30 min and 5 × 30 s", "sgf:1800 5x30 byo-yomi", "black", "white")
    made = play(studio, fields | {"warn_at_ms": [10_000], "warn_scope": "period"}, moves=112)
    page = studio.open(f"/play/{made}")
    expect(page.locator("#headline")).to_have_text("Black to move")
    set_clock(studio, made, "white", 254_000)
    set_clock(studio, made, "black", 0)
    studio.api.command(made, "adjust", participant_id="black", periods_left=3, period_remaining_ms=24_900)
    expect(page.locator("body")).to_contain_text("3 periods")
    studio.shoot(play_go=page)


def stage(studio: Studio) -> None:
    """Waits until the talk has run for a while: its bar shows the time that has really passed."""
    made = studio.session(**STAGE)
    viewer, operator = studio.open(f"/stage/{made}?view=1", **HD), studio.open(f"/stage/{made}")
    show = "show=time,title,speaker,bar&align=left&valign=bottom&size=20"
    overlay = studio.open(f"/stage/{made}?view=1&overlay=1&{show}", **HD)
    overlay.evaluate("(camera) => { document.documentElement.style.background = camera }", CAMERA)
    studio.api.command(made, "start")
    expect(overlay.get_by_role("timer")).to_have_text("1:32")
    studio.shoot(stage_overlay=overlay)
    message: dict[str, Any] = {"text": "Please repeat the question", "colour": "white", "shown": True}
    studio.update(made, stage={"message": message})
    for page in (viewer, operator):
        expect(page.locator(".screen-message")).to_have_text(message["text"])
    expect(viewer.get_by_role("timer")).to_have_text("0:48")
    studio.shoot(stage_viewer=viewer, stage_operator=operator)


def quiz(studio: Studio) -> None:
    made = studio.session(**QUIZ)
    host, player = studio.open(f"/quiz/{made}"), studio.open(f"/quiz/{made}?view=1", **PHONE)
    host.get_by_label("Questions").fill(QUESTIONS)
    host.get_by_role("button", name="Use these questions").click()
    for name in ("Start the quiz", "Close the answers", "Show the answer", "Next question"):
        if name == "Close the answers":
            player.get_by_role("button", name="Jupiter").click()
        host.get_by_role("button", name=name).click()
    player.get_by_role("button", name="3,600").click()
    host.mouse.move(0, 0)
    expect(host.locator(".toast")).to_have_count(0)
    expect(player.locator("#number")).to_have_text("Question 2 of 2")
    expect(host.locator("#time")).to_have_text("0:18")
    studio.shoot(quiz_host=host, quiz_player=player)


def auction(studio: Studio) -> None:
    made = studio.session(**LOT)
    auctioneer = studio.open(f"/auction/{made}", viewport={"width": 1280, "height": 880})
    auctioneer.get_by_role("button", name="Open the lot").click()
    auctioneer.mouse.move(0, 0)
    anna, ben = (studio.open(f"/auction/{made}?bid=1", **PHONE) for _ in range(2))
    for page, name, price in ((anna, "Anna", 1000), (ben, "Ben", 1100), (anna, "Anna", 1250), (ben, "Ben", 1300)):
        page.get_by_label("Your name").fill(name)
        page.get_by_label("Amount").fill(str(price))
        page.get_by_role("button", name=f"Bid {price:,} EUR", exact=True).click()
        expect(page.locator("#bid-hint")).to_have_text("Your bid is the highest.")
    anna.evaluate("scrollTo(0, 0)")
    studio.api.command(made, "adjust", op="set", ms=9_900)
    expect(auctioneer.locator("#call")).to_contain_text("Going once")
    studio.shoot(auction=auctioneer, auction_bidder=anna)


def exam(studio: Studio) -> None:
    made = studio.session(**EXAM)
    invigilator = studio.open(f"/exam/{made}")
    expect(invigilator.locator("#seats .badge")).to_have_text(["Not started"] * 6)
    seats = [each["seat"] for each in studio.api.state(made)["metadata"]["candidates"]]
    hall = studio.open(f"/exam/{made}?view=1")
    candidate = studio.open(f"/exam/{seats[2]}?view=1", is_dark=True, **PHONE)
    invigilator.get_by_role("button", name="Start the exam").click()
    for page in (hall, candidate, invigilator):
        expect(page.locator("#status")).to_have_text("Running")
    for number, each in enumerate((made, *seats)):
        studio.api.command(each, "adjust", op="set", ms=4_050_000 if number in (0, 3) else 2_700_000)
    for page in (hall, candidate, invigilator):
        expect(page.locator("body")).to_contain_text("1:07:")
    studio.shoot(exam_hall=hall, exam_candidate_dark=candidate, exam_invigilator=invigilator)


def console_session(studio: Studio) -> None:
    made = play(studio, game("City open, round 3, board 1", "minutes:5+3"), moves=0)
    for pause_s in (1.2, 0.6, 2.2, 0.9, 1.6, 0.4, 2.8, 1.1):  # the time of each turn, for the statistics
        time.sleep(pause_s)
        studio.api.command(made, "switch")
    studio.api.command(made, "adjust", op="add", ms=30_000, participant_id="white", reason="illegal move of black")
    studio.api.command(made, "pause")
    page = studio.open(f"/console#session={made}", viewport={"width": 1280, "height": 1200})
    expect(page.locator("#connection")).to_have_text("Live")
    expect(page.locator("#events")).to_contain_text("illegal move of black")
    page.locator("#previous-event").click()
    page.mouse.move(0, 0)
    expect(page.locator("#past-clocks li")).to_have_count(2)
    expect(page.locator("#instant-text")).not_to_contain_text("loading")
    studio.shoot(console_session=page)


def watch(studio: Studio) -> None:
    made = play(studio, game("Rapid", "minutes:15+10"), moves=0)
    page = studio.open(f"/watch?session={made}", viewport={"width": 800, "height": 660})
    set_clock(studio, made, "black", 612_000)
    set_clock(studio, made, "white", 547_900)
    expect(page.get_by_role("timer").first).to_have_text(re.compile("^9:0"))
    studio.shoot(watch=page)


GAMES = (play_on_two_phones, play_on_one_phone, play_go)
SCENES: tuple[Callable[[Studio], None], ...] = (
    *(console_list, home, *GAMES, stage, quiz, auction, exam, console_session, watch),
)


def main(names: list[str]) -> None:
    """Take the pictures of all scenes, or of those that are named."""
    if CHROMIUM is None:
        sys.exit("no Chromium here; on Debian or Ubuntu: apt-get install chromium")
    PICTURES.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="syncapp-pictures-"))
    try:
        with Servers(directory, postgres_options=FAST_POSTGRES) as servers, sync_playwright() as playwright:
            upgrade(servers.database_url)
            browser = playwright.chromium.launch(executable_path=CHROMIUM, headless=True, args=OPTIONS)
            with Cluster(servers, directory, web=1, worker=True, env={"ALLOWED_ORIGINS": "", "AUTH": "off"}) as cluster:
                studio = Studio(browser, RestClient(cluster.urls[0]), PICTURES)
                for scene in (each for each in SCENES if not names or each.__name__ in names):
                    with studio.scene():
                        scene(studio)
            browser.close()
    finally:
        end_leftovers(directory)
        shutil.rmtree(directory)


if __name__ == "__main__":
    main(sys.argv[1:])

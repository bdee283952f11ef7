"""The page of a lot in a real browser: an auctioneer, bidders and spectators, each in a context of its own."""

from __future__ import annotations

import re
from typing import Any

import pytest
import requests
from playwright.sync_api import Page, expect

from tests.browser.accessibility import violations
from tests.browser.announcements import listen, wait_until_heard
from tests.browser.tabs import PHONE, Tabs
from tests.support.web_clients import RestClient, wait_until

LONG = 60_000
LOT: dict[str, Any] = {
    "sync_mode": "global",
    "participants": [],
    "total_time_ms": 180_000,
    "warn_at_ms": [60_000, 10_000, 5_000],
    "metadata": {
        "lot": 17,
        "title": "Harbour at dusk",
        "currency": "EUR",
        "price": 1000,
        "bidder": None,
        "step": 50,
        "extend_to_ms": 20_000,
        "hard_limit_ms": 600_000,
    },
}
BID_UNTIL_THE_END = """async ([id, bidder]) => {
  const {connect} = await import('/sdk/syncapp.js')
  const {lotOf, lowestBid, makeBid} = await import('/pages/auction-rules.js')
  const game = await connect(location.origin, id), accepted = [], refused = []
  const bidOn = async () => {
    while (!refused.includes('ended')) {
      const price = lowestBid(lotOf(game.state))
      await makeBid(game, {bidder, price}).then(() => accepted.push(price), ({why, code}) => refused.push(why ?? code))
    }
    window.results = {accepted, refused}
    document.body.dataset.done = 'yes'
  }
  game.on('change', ({event}) => event?.type === 'session_started' && bidOn())
}"""
"""Waits for the start, then bids as fast as possible. Keeps the prices that were accepted, and why others were not."""

BID_ONCE = """async ([id, bidder, price]) => {
  const {connect} = await import('/sdk/syncapp.js')
  const {makeBid} = await import('/pages/auction-rules.js')
  const game = await connect(location.origin, id)
  return makeBid(game, {bidder, price}).then(() => 'accepted', (error) => error.why ?? error.code)
}"""


def bidder(tabs: Tabs, api: RestClient, lot: str, name: str) -> Page:
    """A bidder's phone, ready to bid."""
    page = tabs.open(f"{api.url}/auction/{lot}?bid=1", **PHONE)
    expect(page.locator("#place")).to_be_enabled(timeout=LONG)
    page.get_by_label("Your name").fill(name)
    return page


def bid(page: Page, price: int) -> None:
    page.get_by_label("Amount").fill(str(price))
    page.get_by_role("button", name=f"Bid {price:,} EUR", exact=True).click(timeout=LONG)


def hint_of(page: Page, text: str) -> None:
    expect(page.locator("#bid-hint")).to_have_text(text, timeout=LONG)


def test_everybody_sees_a_bid_and_a_late_one_extends_the_lot(tabs: Tabs, api: RestClient) -> None:
    lot = api.create(**LOT | {"metadata": LOT["metadata"] | {"extend_to_ms": 150_000}})
    auctioneer = tabs.open(f"{api.url}/auction/{lot}")
    auctioneer.get_by_role("button", name="Open the lot").click(timeout=LONG)
    anna, ben = (bidder(tabs, api, lot, name) for name in ("anna", "ben"))
    viewer = tabs.open(f"{api.url}/auction/{lot}?view=1")
    bid(anna, 1000)
    for page in (auctioneer, anna, ben, viewer):
        expect(page.locator("#bidder")).to_have_text("by anna", timeout=LONG)
    hint_of(anna, "Your bid is the highest.")
    bid(ben, 1300)
    hint_of(anna, "You were outbid. Bids from 1,350 EUR.")
    api.command(lot, "adjust", op="set", ms=90_000)
    bid(anna, 1400)
    expect(viewer.locator("#price")).to_have_text("1,400 EUR", timeout=LONG)
    # What was left before the bid was at most 90 s, and the time that has run is not taken off this number.
    assert api.state(lot)["time_remaining_ms"] >= 150_000
    assert [violations(page) for page in (auctioneer, anna, viewer)] == [[], [], []]
    late = tabs.open(f"{api.url}/auction/{lot}?view=1")
    anna.reload()
    for page in (late, anna):
        expect(page.locator("#bids li")).to_have_text(["anna1,400 EUR", "ben1,300 EUR", "anna1,000 EUR"], timeout=LONG)
    expect(anna.get_by_label("Your name")).to_have_value("anna")


def test_of_two_equal_bids_at_the_same_time_one_is_accepted(tabs: Tabs, api: RestClient) -> None:
    lot = api.running(**LOT)
    pages = [bidder(tabs, api, lot, name) for name in ("anna", "ben")]

    def price() -> int:
        """Return the highest bid; 0 before the first."""
        metadata = api.state(lot)["metadata"]
        return metadata["price"] if metadata["bidder"] else 0

    for _ in range(5):
        amount = max(1000, price() + 50)
        for page in pages:
            page.get_by_label("Amount").fill(str(amount))
        for page in pages:
            page.evaluate("setTimeout(() => document.getElementById('place').click(), 100)")
        wait_until(lambda amount=amount: price() >= amount)  # type: ignore[misc] # a lambda's default has no type
        for page in pages:
            expect(page.locator("#place")).to_be_enabled(timeout=LONG)
    # On a slow machine the second click may come after the first bid: it is then another, higher bid.
    prices = [each["price"] for each in api.state(lot)["metadata"]["bids"]]
    assert prices == sorted(set(prices), reverse=True)
    assert 5 <= len(prices) <= 10
    for page in pages:
        wait_until(lambda page=page: page.locator("#price").inner_text() == f"{price():,} EUR")  # type: ignore[misc] # as above


@pytest.fixture
def bidding(tabs: Tabs, api: RestClient) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A lot that ended while three bid as fast as they could: its state, and what each of them got as answers."""
    # A page without a session: only the rules run here.
    pages = [tabs.open(f"{api.url}/auction/none") for _ in range(3)]
    for total_ms in (1_000, 4_000, 16_000):  # a busy machine may need longer for the first bid
        metadata = LOT["metadata"] | {"extend_to_ms": total_ms, "hard_limit_ms": 3 * total_ms}
        lot = api.create(**LOT | {"total_time_ms": total_ms, "warn_at_ms": [500], "metadata": metadata})
        for number, page in enumerate(pages):
            page.reload()
            page.evaluate(BID_UNTIL_THE_END, [lot, f"bidder-{number}"])
        api.command(lot, "start")
        for page in pages:
            expect(page.locator("body[data-done]")).to_be_attached(timeout=LONG)
        state = api.state(lot)
        if state["metadata"]["bidder"] is not None:
            break
    return state, [page.evaluate("window.results") for page in pages]


def test_no_acknowledged_bid_is_lost_the_price_only_rises_and_the_hard_end_holds(
    bidding: tuple[dict[str, Any], list[dict[str, Any]]],
) -> None:
    state, results = bidding
    assert state["status"] == "expired"
    assert state["time_used_ms"] <= state["metadata"]["hard_limit_ms"]
    assert state["updated_at"] == state["session_completed_at"], "something was recorded after the end"
    accepted = {(f"bidder-{number}", price) for number, each in enumerate(results) for price in each["accepted"]}
    recorded = [(each["bidder"], each["price"]) for each in state["metadata"]["bids"]]
    assert state["metadata"]["bid_count"] == len(accepted)
    assert {each for each in accepted if each[1] >= recorded[-1][1]} == set(recorded)
    prices = [price for _, price in recorded]
    assert prices == sorted(set(prices), reverse=True)
    assert {why for each in results for why in each["refused"]} <= {"outbid", "ended"}


def test_a_bid_is_refused_while_the_auction_is_paused_and_after_its_end(tabs: Tabs, api: RestClient) -> None:
    lot = api.running(**LOT)
    anna = bidder(tabs, api, lot, "anna")
    api.command(lot, "pause")
    hint_of(anna, "The auction is paused.")
    expect(anna.locator("#place")).to_be_disabled()
    eve = tabs.open(f"{api.url}/auction/none")
    assert eve.evaluate(BID_ONCE, [lot, "eve", 9000]) == "paused"
    api.command(lot, "resume")
    bid(anna, 1000)
    hint_of(anna, "Your bid is the highest.")
    api.command(lot, "adjust", op="set", ms=0)
    expect(anna.locator("#call")).to_have_text("Sold!", timeout=LONG)
    expect(anna.locator("#bid")).to_be_hidden()
    assert eve.evaluate(BID_ONCE, [lot, "eve", 9000]) == "ended"
    assert api.state(lot)["metadata"]["bidder"] == "anna"


@pytest.mark.detail
def test_the_auctioneer_sells_withdraws_and_works_from_the_keyboard(tabs: Tabs, api: RestClient) -> None:
    lot = api.create(**LOT)
    page = tabs.open(f"{api.url}/auction/{lot}")
    expect(page.get_by_role("button", name="Open the lot")).to_be_enabled(timeout=LONG)
    page.keyboard.press("Space")
    expect(page.locator("#status")).to_have_text("Open", timeout=LONG)
    page.keyboard.press("b")
    page.keyboard.type("paddle 4")
    bid(page, 1000)
    expect(page.locator("#bidder")).to_have_text("by paddle 4", timeout=LONG)
    page.locator("h1").click()
    page.keyboard.press("h")
    page.get_by_role("button", name="Sell", exact=True).click()
    expect(page.locator("#status")).to_have_text("Sold", timeout=LONG)
    assert api.state(lot)["completion"]["result"] == {"winner": "paddle 4", "price": 1000}
    assert violations(page) == []
    other = api.running(**LOT)
    page.goto(f"{api.url}/auction/{other}")
    page.get_by_role("button", name="Withdraw").click(timeout=LONG)
    page.get_by_role("button", name="Withdraw the lot").click()
    expect(page.locator("#status")).to_have_text("Withdrawn", timeout=LONG)


@pytest.mark.detail
def test_going_once_and_twice_are_called_only_if_there_is_a_bid(tabs: Tabs, api: RestClient) -> None:
    lot = api.running(**LOT | {"warn_at_ms": [150_000, 75_000]})
    anna = bidder(tabs, api, lot, "anna")
    api.command(lot, "adjust", op="set", ms=149_000)
    expect(anna.get_by_role("timer")).to_have_text(re.compile("2:2"), timeout=LONG)
    expect(anna.locator("#call")).to_be_hidden()
    listen(anna)
    bid(anna, 1000)
    expect(anna.locator("#call")).to_have_text("Going once …", timeout=LONG)
    api.command(lot, "adjust", op="set", ms=74_000)
    expect(anna.locator("#call")).to_have_text("Going twice …", timeout=LONG)
    wait_until_heard(anna, "Going twice …")
    api.command(lot, "adjust", op="set", ms=0)
    expect(anna.locator("#call")).to_have_text("Sold!", timeout=LONG)


def test_with_tokens_only_the_auctioneers_link_can_bid(tabs: Tabs, guarded: RestClient) -> None:
    lot = guarded.running(**LOT)

    def link(scope: str) -> str:
        links = f"{guarded.url}/v1/sessions/{lot}/links"
        made = requests.post(links, json={"scope": scope, "page": "auction"}, headers=guarded.headers, timeout=60)
        assert made.status_code == 201, made.text
        url: str = made.json()["data"]["url"]
        return url

    viewer, auctioneer = tabs.open(link("session:watch")), tabs.open(link("session:control"))
    expect(viewer.locator("#price")).to_have_text("1,000 EUR", timeout=LONG)
    for locator in ("#bid", "#controls", "#share"):
        expect(viewer.locator(locator)).to_be_hidden()
    auctioneer.get_by_label("Name or paddle number").fill("paddle 7", timeout=LONG)
    bid(auctioneer, 1100)
    expect(viewer.locator("#bidder")).to_have_text("by paddle 7", timeout=LONG)

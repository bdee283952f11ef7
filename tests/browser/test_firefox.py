"""The JavaScript client and the service's pages in Firefox."""

from __future__ import annotations

import random
import re
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.browser.firefox import FIREFOX, Firefox, Tab
from tests.support.cluster import Cluster, MakeCluster
from tests.support.other_site import Site
from tests.support.tcp_proxy import TcpProxy
from tests.support.types import Redis
from tests.support.web_clients import RestClient, metric_value, wait_until

OPEN = """async (base, id) => {
  const {open} = await import(`${base}/sdk/syncapp.js`);
  window.changes = [];
  window.game = open(base, id);
  game.on("change", ({state, event, skipped}) => changes.push([state.version, event?.type ?? null, skipped]));
}"""
CLOCKS = """(selector) => [...document.querySelectorAll(selector)]
  .filter((each) => each.checkVisibility()).map((each) => each.innerText)"""
TIMERS = "[role=timer]"
PAGES: dict[str, tuple[dict[str, Any], str]] = {
    "/play/{}": ({}, TIMERS),
    "/watch?session={}": ({}, TIMERS),
    "/console#session={}": ({}, "#clocks [role=timer]"),
    "/stage/{}": (
        {
            "sync_mode": "global",
            "participants": [],
            "total_time_ms": 3_000_000,
            "action_on_timeout": {"type": "notify"},
            "metadata": {"stage": {"title": "Hall", "items": {"one": {"place": 1, "title": "One", "ms": 3_000_000}}}},
        },
        TIMERS,
    ),
    "/quiz/{}": (
        {
            "sync_mode": "per_cycle",
            "participants": [],
            "time_per_cycle_ms": 300_000,
            "max_cycles": 1,
            "metadata": {"questions": [{"text": "Two and two?", "options": ["three", "four"]}]},
        },
        TIMERS,
    ),
    "/auction/{}": (
        {
            "sync_mode": "global",
            "participants": [],
            "total_time_ms": 180_000,
            "metadata": {"lot": 1, "title": "Harbour", "currency": "EUR", "price": 1000, "bidder": None, "step": 50},
        },
        TIMERS,
    ),
    "/exam/{}": (
        {
            "sync_mode": "global",
            "participants": [],
            "total_time_ms": 5_400_000,
            "metadata": {"title": "Mathematics", "groups": [{"name": "Standard", "time_ms": 5_400_000}]},
        },
        ".groups [role=timer]",
    ),
}
"""Each page that shows a session: the session's fields, and where its clocks are."""

OpenTab = Callable[[str], Tab]


@pytest.fixture(scope="module")
def firefox(run_directory: Path) -> Iterator[Firefox]:
    """Firefox without a window."""
    if FIREFOX is None:
        pytest.skip("no firefox-esr here; on Debian: apt-get install firefox-esr")
    with Firefox(FIREFOX, Path(tempfile.mkdtemp(prefix="firefox-", dir=run_directory))) as firefox:
        yield firefox


@pytest.fixture
def open_tab(firefox: Firefox) -> Iterator[OpenTab]:
    """Opens tabs of one person."""
    with firefox.person() as open_tab:
        yield open_tab


@pytest.fixture(scope="module")
def web(firefox: Firefox, make_cluster: MakeCluster, redis_url: str) -> Cluster:
    """One web process, which pages of every origin may use."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(web=1, worker=False, ALLOWED_ORIGINS="*")


@pytest.fixture
def api(web: Cluster) -> RestClient:
    return RestClient(web.urls[0])


def open_session(tab: Tab, base: str, session_id: str) -> None:
    """Open a session as `window.game`, and wait until it is live."""
    tab.call(OPEN, base, session_id)
    tab.wait_for("() => game.status === 'live'")


def reached(tab: Tab, version: int) -> None:
    tab.wait_for("(version) => game.state.version === version && game.status === 'live'", version)


def connections(api: RestClient) -> float:
    return metric_value(api.url, "syncapp_ws_connections")


def test_what_goes_wrong_in_a_page_is_noticed(open_tab: OpenTab, site: Site, api: RestClient) -> None:
    policy = """<meta http-equiv="Content-Security-Policy" content="script-src 'self'">"""
    parts = "<script>document.title = 'run'</script>", f'<img src="{api.url}/missing.png">'
    site.pages["/faulty.html"] = "".join(("<!doctype html>", policy, *parts))
    tab = open_tab(f"{site.url}/faulty.html")
    tab.call("() => { setTimeout(() => { throw new Error('uncaught') }) }")
    wait_until(lambda: len(tab.complaints()) >= 3)
    found = tab.complaints()
    assert len(found) == 3
    for expected in ("^Content-Security-Policy: ", "^Error: uncaught$", f" for {api.url}/missing.png$"):
        assert any(re.search(expected, each) for each in found), found


def test_a_page_of_another_origin_sees_each_change_in_order(open_tab: OpenTab, site: Site, api: RestClient) -> None:
    session_id = api.create()
    tab = open_tab(site.url)
    open_session(tab, api.url, session_id)
    assert tab.call("() => game.transport") == "websocket"
    assert tab.call("() => game.start()")["version"] == 2
    for _ in range(3):
        api.command(session_id, "switch")
    reached(tab, 5)
    assert tab.call("() => game.switch({participantId: 'black'})")["version"] == 6
    events = [None, "session_started", *["cycle_switched"] * 4]
    assert tab.call("() => changes") == [[version, event, 0] for version, event in enumerate(events, 1)]
    refused = "() => game.command('adjust', {op: 'add', ms: 1, expectedVersion: 1}).catch(({code}) => code)"
    assert tab.call(refused) == "CONFLICT"
    assert tab.complaints() == []


def test_a_page_shows_the_time_that_the_server_shows(open_tab: OpenTab, site: Site, api: RestClient) -> None:
    session_id = api.running()
    tab = open_tab(site.url)
    open_session(tab, api.url, session_id)

    before = api.state(session_id)["clock"]["remaining_ms"]
    shown, idle, error = tab.call("() => [game.remaining(), game.remaining('black'), game.clock.stats().errorMs]")
    after = api.state(session_id)["clock"]["remaining_ms"]
    assert after - 1 - error <= shown <= before + 1 + error
    assert idle == 3_600_000


def test_two_tabs_share_one_connection_and_the_second_takes_it_over(
    open_tab: OpenTab, site: Site, api: RestClient
) -> None:
    session_id = api.running()
    wait_until(lambda: connections(api) == 0)
    first, second = open_tab(site.url), open_tab(site.url)
    for tab in (first, second):
        open_session(tab, api.url, session_id)
    assert connections(api) == 1
    assert first.call("() => game.switch({participantId: 'white'})")["version"] == 3
    reached(second, 3)
    first.close()
    api.command(session_id, "switch")
    reached(second, 4)
    assert second.call("() => game.switch({participantId: 'white'})")["version"] == 5
    wait_until(lambda: connections(api) == 1)
    assert [(version, skipped) for version, _, skipped in second.call("() => changes")] == [
        (2, 0),
        (3, 0),
        (4, 0),  # without its event, if it happened between the two connections
        (5, 0),
    ]


def test_without_websockets_a_stream_takes_over_with_every_event(
    open_tab: OpenTab, site: Site, web: Cluster, api: RestClient
) -> None:
    session_id = api.running()
    with TcpProxy(web.web[0].port, random.Random(1)) as proxy:
        proxy.refuse(b"GET /ws")
        tab = open_tab(site.url)
        open_session(tab, f"http://127.0.0.1:{proxy.port}", session_id)
        assert tab.call("() => game.transport") == "sse"
        assert tab.call("() => game.switch()")["version"] == 3
        api.command(session_id, "switch")
        reached(tab, 4)
        assert tab.call("() => changes") == [[2, None, 0], [3, "cycle_switched", 0], [4, "cycle_switched", 0]]


@pytest.mark.parametrize("path", PAGES)
def test_a_page_of_the_service_shows_a_clock_that_runs(open_tab: OpenTab, api: RestClient, path: str) -> None:
    fields, selector = PAGES[path]
    session_id = api.running(**fields)
    tab = open_tab(api.url + path.format(session_id))
    shown: list[str] = []

    def clocks() -> list[str]:
        texts: list[str] = tab.call(CLOCKS, selector)
        return texts

    def shows_a_time() -> bool:
        shown[:] = clocks()
        return any(re.search(r"\d:\d\d", text) for text in shown)

    wait_until(shows_a_time)
    wait_until(lambda: clocks() != shown)
    assert tab.complaints() == []


def test_the_first_page_starts_a_game(open_tab: OpenTab, api: RestClient) -> None:
    tab = open_tab(f"{api.url}/")
    tab.wait_for("() => document.querySelector('[data-demo]') !== null")
    tab.call("() => { document.querySelector('[data-demo]').click() }")
    tab.wait_for("() => location.pathname.startsWith('/play/')")
    tab.wait_for("() => document.querySelector('[role=timer]')?.innerText === '3:00'")
    assert tab.complaints() == []

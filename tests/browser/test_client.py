"""The JavaScript client in a real browser: what a page sees of a session, and how it acts on it."""

from __future__ import annotations

import random
import uuid
from typing import Any

import pytest
import requests
from playwright.sync_api import Browser, Page, WebSocket

from tests.browser import js_client
from tests.support.browser_policy import complaints_of
from tests.support.cluster import Cluster, MakeCluster
from tests.support.other_site import Site
from tests.support.tcp_proxy import TcpProxy
from tests.support.types import Redis
from tests.support.web_clients import RestClient, wait_until

SLEEP = """() => {
  const now = performance.now.bind(performance);
  let asleep = 0;
  performance.now = () => now() - asleep;
  window.sleepFor = (ms) => { asleep += ms; };
}"""
"""Makes `sleepFor(ms)`: afterwards the page's monotonic clock has stood still for that long, its wall clock has not."""


@pytest.fixture(scope="module")
def web(make_cluster: MakeCluster, redis_url: str, site: Site) -> Cluster:
    """Two web processes, which the pages of one other site may use."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(worker=False, ALLOWED_ORIGINS=site.url)


@pytest.fixture
def apis(web: Cluster) -> list[RestClient]:
    return [RestClient(url) for url in web.urls]


@pytest.fixture
def api(apis: list[RestClient]) -> RestClient:
    return apis[0]


def test_two_players_and_a_viewer_see_each_version_once_and_in_order(browser: Browser, apis: list[RestClient]) -> None:
    session_id = apis[0].create(increment_ms=2000)
    contexts = [browser.new_context() for _ in range(3)]
    pages = [context.new_page() for context in contexts]
    complaints = [complaints_of(page) for page in pages]
    for page, api in zip(pages, [*apis, apis[0]], strict=True):  # the players are served by two processes
        js_client.open_session(page, api.url, session_id)
        js_client.live(page)
    white, black, _ = pages
    assert js_client.command(white, "start")["version"] == 2
    for version in range(3, 13, 2):
        assert js_client.command(white, "switch", participantId="white")["version"] == version
        assert js_client.command(black, "switch", participantId="black")["version"] == version + 1
    for page in pages:
        js_client.reached(page, 12)
        events = ["session_started"] + ["cycle_switched"] * 10
        expected = [[1, None, 0], *([version, event, 0] for version, event in enumerate(events, 2))]
        assert js_client.changes(page) == expected
        mine, servers = page.evaluate("game.state"), apis[0].state(session_id)
        for state in (mine, servers):
            del state["clock"], state["server_time_ms"]
        assert mine == servers
    assert complaints == [[], [], []]
    for context in contexts:
        context.close()


def test_two_presses_at_once_end_one_turn(page: Page, api: RestClient) -> None:
    session_id = api.running()
    js_client.open_session(page, api.url, session_id)
    js_client.live(page)
    outcomes = page.evaluate("Promise.allSettled([game.switch(), game.switch()])")
    assert [each["status"] for each in outcomes] == ["fulfilled", "rejected"]
    assert api.state(session_id)["cycle_count"] == 1


def test_a_switch_that_names_its_participant_needs_no_newer_state(page: Page, api: RestClient) -> None:
    session_id = api.create()
    js_client.open_session(page, api.url, session_id)
    js_client.live(page)
    both = "Promise.all([game.start(), game.switch({participantId: 'white'})])"  # the start is not shown yet
    assert [each["version"] for each in page.evaluate(both)] == [2, 3]


def test_a_refused_command_says_why_and_shows_the_current_state(page: Page, api: RestClient) -> None:
    session_id = api.running()
    js_client.open_session(page, api.url, session_id)
    js_client.live(page)
    refused = """(fields) => game.command("adjust", fields).catch(({name, code, status, outcomeUnknown, current}) =>
      [name, code, status ?? null, outcomeUnknown, current?.version])"""
    assert page.evaluate(refused, {"op": "add"})[:2] == ["SyncAppError", "VALIDATION_ERROR"]
    conflict = {"op": "add", "ms": 1, "expectedVersion": 1}
    assert page.evaluate(refused, conflict) == ["SyncAppError", "CONFLICT", None, False, 2]


def test_one_socket_serves_many_sessions(page: Page, api: RestClient) -> None:
    sockets: list[WebSocket] = []
    page.on("websocket", lambda socket: sockets.append(socket))  # noqa: PLW0108 -- Playwright marks what it calls
    ids = [api.create() for _ in range(20)]
    js_client.open_session(page, api.url, ids[0])
    page.evaluate(
        "async ([base, ids]) => { window.all = await Promise.all(ids.map((id) => client.connect(base, id))); }",
        [api.url, ids[1:]],
    )
    js_client.live(page)
    for session_id in ids:
        api.command(session_id, "start")
    wait_until(lambda: page.evaluate("all.every((each) => each.state.version === 2)"))
    assert len(sockets) == 1
    page.evaluate("() => { for (const each of [...all, game]) each.close(); }")
    wait_until(lambda: page.evaluate("1") and sockets[0].is_closed())


def test_two_parts_of_a_page_may_open_the_same_session(page: Page, api: RestClient) -> None:
    session_id = api.running()
    js_client.open_session(page, api.url, session_id)
    js_client.live(page)
    assert (
        page.evaluate(
            "async ([base, id]) => { window.second = await client.connect(base, id); return second.status; }",
            [api.url, session_id],
        )
        == "live"
    )
    api.command(session_id, "switch")
    wait_until(lambda: page.evaluate("[game, second].every((each) => each.state.version === 3)"))
    page.evaluate("game.close()")
    api.command(session_id, "switch")
    wait_until(lambda: page.evaluate("second.state.version === 4"))
    assert page.evaluate("[game.status, game.state.version]") == ["closed", 3]


def test_an_unknown_session_is_refused_unless_the_page_waits_for_it(page: Page, api: RestClient) -> None:
    session_id = str(uuid.uuid4())
    js_client.open_session(page, api.url, session_id)
    assert js_client.closed(page)["code"] == "SESSION_NOT_FOUND"
    assert page.evaluate("game.ready.catch(({code}) => code)") == "SESSION_NOT_FOUND"
    js_client.open_session(page, api.url, session_id, wait=True)
    wait_until(lambda: page.evaluate("game.reason?.code") == "SESSION_NOT_FOUND")
    assert js_client.status(page) == "connecting"
    api.create(session_id=session_id)
    js_client.live(page)


def test_a_deleted_session_is_closed_for_good_after_its_last_event(page: Page, api: RestClient) -> None:
    session_id = api.running()
    js_client.open_session(page, api.url, session_id)
    js_client.live(page)
    api.delete(session_id)
    assert js_client.closed(page) == {"code": "DELETED", "message": "The session was deleted", "final": True}
    assert js_client.changes(page)[-1][1] == "session_deleted"
    assert js_client.command(page, "switch")["code"] == "CLOSED"


KINDS: dict[str, dict[str, Any]] = {
    "participants": {"increment_ms": 3000},
    "cycles": {"sync_mode": "per_cycle", "time_per_cycle_ms": 30_000, "participants": [{"participant_id": "white"}]},
    "global": {"sync_mode": "global", "total_time_ms": 90_000, "participants": []},
    "overtime": {
        "sync_mode": "global",
        "total_time_ms": 1000,
        "participants": [],
        "action_on_timeout": {"type": "notify"},
    },
    "hourglass": {"time_control": "pgn:*60", "participants": [{"participant_id": each} for each in "ab"]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_page_behind_a_slow_and_jittery_network_shows_the_servers_time(
    page: Page, api: RestClient, web: Cluster, kind: str
) -> None:
    with TcpProxy(web.web[0].port, random.Random(3)) as proxy:
        proxy.delay(0.2, 0.3)
        session_id = api.running(**KINDS[kind])
        js_client.open_session(page, f"http://127.0.0.1:{proxy.port}", session_id)
        js_client.live(page)
        for _ in range(5):
            before = requests.get(f"{api.url}/v1/time", timeout=60).json()["timestamp_ms"]
            now, shown, later, error, state = page.evaluate(
                "() => [game.clock.now(), game.remaining(), game.clock.now(), game.clock.stats().errorMs, game.state]"
            )
            after = requests.get(f"{api.url}/v1/time", timeout=60).json()["timestamp_ms"]
            assert before - error <= now <= after + 1 + error
            most, least = (state["clock"]["remaining_ms"] - (each - state["server_time_ms"]) for each in (now, later))
            assert least - 1 <= shown <= most + 1


def test_an_untimed_clock_is_null_and_a_stopwatch_counts_up(page: Page, api: RestClient) -> None:
    session_id = api.running(sync_mode="count_up", participants=[])
    js_client.open_session(page, api.url, session_id)
    js_client.live(page)
    assert page.evaluate("game.remaining()") is None
    wait_until(lambda: page.evaluate("game.elapsed()") > 100)


def test_a_sleep_discards_the_measured_clock(page: Page, api: RestClient) -> None:
    page.add_init_script(f"({SLEEP})()")
    session_id = api.running()
    js_client.open_session(page, api.url, session_id)
    js_client.live(page)
    wait_until(lambda: page.evaluate("game.clock.stats().samples") >= 3)
    page.evaluate("sleepFor(60_000)")
    wrong = page.evaluate("game.clock.now()")
    wait_until(lambda: page.evaluate("game.clock.now() ?? 0") - wrong > 59_000)
    js_client.live(page)
    assert ["stale", None, None] in page.evaluate("statuses")  # it showed no time in between


def test_a_page_that_comes_back_from_the_cache_connects_again(page: Page, api: RestClient) -> None:
    sockets: list[WebSocket] = []
    page.on("websocket", lambda socket: sockets.append(socket))  # noqa: PLW0108 -- Playwright marks what it calls
    session_id = api.running()
    js_client.open_session(page, api.url, session_id)
    js_client.live(page)
    page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', {persisted: true}))")
    wait_until(lambda: page.evaluate("1") and sockets[0].is_closed())
    assert page.evaluate("navigator.locks.query().then(({held}) => held.length)") == 0
    api.command(session_id, "switch")
    page.evaluate("dispatchEvent(new PageTransitionEvent('pageshow', {persisted: true}))")
    wait_until(lambda: js_client.version(page) == 3)
    js_client.live(page)


def test_a_page_of_an_allowed_origin_needs_one_import(page: Page, api: RestClient, site: Site) -> None:
    session_id = api.running()
    js_client.open_session(page, api.url, session_id, page_url=site.url)
    js_client.live(page)
    assert js_client.command(page, "switch")["version"] == 3


def test_a_page_of_another_origin_is_told_that_it_is_not_allowed(page: Page, api: RestClient) -> None:
    session_id = api.running()
    with Site() as other:
        # Its own copy of the client: this service gives it none.
        page.route(
            f"{other.url}/syncapp.js",
            lambda route: route.fulfill(
                body=requests.get(f"{api.url}/sdk/syncapp.js", timeout=60).text, content_type="text/javascript"
            ),
        )
        js_client.open_session(page, api.url, session_id, page_url=other.url, sdk=f"{other.url}/syncapp.js")
        wait_until(lambda: page.evaluate("game.reason?.code") == "ORIGIN_NOT_ALLOWED")
        assert page.evaluate("game.reason.final") is False

"""The JavaScript client in a real browser under faults: what is lost comes back, and nothing happens twice."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.browser import js_client
from tests.support.cluster import Cluster, MakeCluster
from tests.support.tcp_proxy import TcpProxy
from tests.support.types import Redis
from tests.support.web_clients import RestClient, metric_value, wait_until


@pytest.fixture(scope="module")
def web(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    """Two web processes; pages of every origin may use them."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(worker=False, ALLOWED_ORIGINS="*")


@pytest.fixture
def api(web: Cluster) -> RestClient:
    return RestClient(web.urls[0])


@pytest.fixture
def proxy(web: Cluster) -> Iterator[TcpProxy]:
    """A network that can fail, before the first web process."""
    with TcpProxy(web.web[0].port, random.Random(1)) as proxy:
        yield proxy


@pytest.fixture
def base(proxy: TcpProxy) -> str:
    return f"http://127.0.0.1:{proxy.port}"


def open_running(page: Page, api: RestClient, base: str, **options: Any) -> str:
    """Open a running session through the proxy, and wait until it is live."""
    session_id = api.running()
    js_client.open_session(page, base, session_id, page_url=f"{api.url}/health", **options)
    js_client.live(page)
    return session_id


def switch_elsewhere(api: RestClient, session_id: str, times: int) -> None:
    """Switch as another client, past the proxy."""
    for _ in range(times):
        api.command(session_id, "switch")


def test_a_cut_connection_comes_back_and_misses_no_version(
    page: Page, api: RestClient, proxy: TcpProxy, base: str
) -> None:
    session_id = open_running(page, api, base)
    for round_number in range(3):
        proxy.cut(1)
        assert "version" in js_client.command(page, "switch")
        wait_until(lambda: js_client.is_live(page))
        switch_elsewhere(api, session_id, 1)
        wait_until(lambda: js_client.version(page) == api.state(session_id)["version"])
        assert js_client.version(page) == 4 + 2 * round_number
    seen = [version for version, _, _ in js_client.changes(page)]
    assert seen == sorted(set(seen))


def test_a_silent_connection_is_noticed_and_the_state_catches_up(
    page: Page, api: RestClient, proxy: TcpProxy, base: str
) -> None:
    session_id = open_running(page, api, base)
    proxy.silence(on=True)
    switch_elsewhere(api, session_id, 3)
    wait_until(lambda: js_client.status(page) == "stale")
    proxy.silence(on=False)
    wait_until(lambda: js_client.version(page) == 5)
    js_client.live(page)
    assert js_client.changes(page)[-1][0] == 5


def test_a_command_whose_reply_is_lost_takes_effect_once(
    page: Page, api: RestClient, proxy: TcpProxy, base: str
) -> None:
    session_id = open_running(page, api, base)
    page.evaluate("() => { window.sent = game.switch({participantId: 'white'}); sent.catch(() => {}); }")
    proxy.drop_replies(0.5)
    done = page.evaluate("sent")
    assert done["version"] == 3
    assert api.state(session_id)["version"] == 3
    events = [event for _, event, _ in js_client.changes(page)]
    assert events.count("cycle_switched") <= 1


def test_a_killed_process_is_replaced_by_another_one(
    page: Page, api: RestClient, web: Cluster, proxy: TcpProxy, base: str
) -> None:
    session_id = open_running(page, api, base)
    web.web[0].kill()
    try:
        proxy.retarget(web.web[1].port)
        wait_until(lambda: metric_value(web.urls[1], "syncapp_ws_connections") == 1)
        assert js_client.command(page, "switch")["version"] == 3
        js_client.live(page)
        wait_until(lambda: js_client.version(page) == 3)
        assert RestClient(web.urls[1]).state(session_id)["active_participant_id"] == "black"
    finally:
        web.web[0].start()


def test_a_browser_that_was_offline_sends_what_was_pressed_meanwhile(
    page: Page, api: RestClient, proxy: TcpProxy, base: str
) -> None:
    session_id = open_running(page, api, base)
    page.context.set_offline(True)
    proxy.cut(1)
    wait_until(lambda: js_client.status(page) == "stale")
    page.evaluate("() => { window.sent = game.switch({participantId: 'white'}); sent.catch(() => {}); }")
    page.context.set_offline(False)
    assert page.evaluate("sent")["version"] == 3
    js_client.live(page)
    assert js_client.version(page) == 3
    assert api.state(session_id)["active_participant_id"] == "black"


def test_without_websockets_a_stream_takes_over_with_every_event(
    page: Page, api: RestClient, proxy: TcpProxy, base: str
) -> None:
    proxy.refuse(b"GET /ws")
    session_id = open_running(page, api, base)
    assert page.evaluate("game.transport") == "sse"
    assert js_client.command(page, "switch")["version"] == 3
    assert js_client.changes(page)[-1] == [3, "cycle_switched", 0]
    switch_elsewhere(api, session_id, 2)
    wait_until(lambda: js_client.version(page) == 5)
    assert [event for _, event, _ in js_client.changes(page)][-2:] == ["cycle_switched"] * 2
    assert page.evaluate("game.remaining('white')") is not None


def test_without_streams_polling_takes_over(page: Page, api: RestClient, proxy: TcpProxy, base: str) -> None:
    proxy.refuse(b"GET /ws")
    page.route("**/stream?*", lambda _: None)  # a proxy that holds the stream back for ever
    session_id = open_running(page, api, base)
    assert page.evaluate("game.transport") == "polling"
    assert js_client.command(page, "switch")["version"] == 3
    switch_elsewhere(api, session_id, 2)
    wait_until(lambda: js_client.version(page) == 5)
    js_client.live(page)


def test_a_frozen_tab_that_has_the_connection_hands_it_over(browser: Browser, api: RestClient) -> None:
    session_id = api.running()
    with browser.new_context() as context:
        leader, other = context.new_page(), context.new_page()
        for page in (leader, other):
            js_client.open_session(page, api.url, session_id)
            js_client.live(page)
        assert metric_value(api.url, "syncapp_ws_connections") == 1
        session = context.new_cdp_session(leader)
        session.send("Debugger.enable")
        session.send("Debugger.pause")  # stands still at its next line, as a frozen tab does
        switch_elsewhere(api, session_id, 3)
        wait_until(lambda: js_client.version(other) == 5)
        js_client.live(other)
        session.send("Debugger.resume")
        session.send("Debugger.disable")
        wait_until(lambda: js_client.version(leader) == 5)
        js_client.live(leader)
        wait_until(lambda: metric_value(api.url, "syncapp_ws_connections") == 1)
        for page in (leader, other):
            seen = js_client.changes(page)
            assert [version for version, _, _ in seen] == sorted({version for version, _, _ in seen})
            assert sum(1 + skipped for _, _, skipped in seen) == 4


def test_a_tab_that_freezes_while_it_waits_to_connect_hands_over(
    browser: Browser, api: RestClient, proxy: TcpProxy, base: str
) -> None:
    session_id = api.running()
    with browser.new_context() as context:
        leader, other = context.new_page(), context.new_page()
        for page in (leader, other):
            js_client.open_session(page, base, session_id, page_url=f"{api.url}/health")
            js_client.live(page)
        proxy.refuse(b"GET")
        proxy.cut(1)
        wait_until(lambda: [js_client.status(page) for page in (leader, other)] == ["stale"] * 2)
        session = context.new_cdp_session(leader)
        paused: list[object] = []
        session.on("Debugger.paused", lambda event: paused.append(event))  # noqa: PLW0108 -- Playwright marks it
        session.send("Debugger.enable")
        session.send("Debugger.pause")
        wait_until(lambda: js_client.status(other) and paused)
        proxy.refuse()
        switch_elsewhere(api, session_id, 1)
        js_client.reached(other, 3)
        js_client.live(other)
        session.send("Debugger.resume")
        session.send("Debugger.disable")
        js_client.reached(leader, 3)
        js_client.live(leader)


def test_a_command_that_is_too_long_for_a_socket_ends_no_session(page: Page, api: RestClient, base: str) -> None:
    open_running(page, api, base)
    assert js_client.command(page, "update", metadata={"text": "x" * 100_000})["code"] == "VALIDATION_ERROR"
    js_client.live(page)
    assert js_client.command(page, "switch")["version"] == 3


def test_a_tab_that_closes_hands_its_connection_over(browser: Browser, api: RestClient) -> None:
    session_id = api.running()
    with browser.new_context() as context:
        pages = [context.new_page() for _ in range(3)]
        for page in pages:
            js_client.open_session(page, api.url, session_id)
            js_client.live(page)
        assert metric_value(api.url, "syncapp_ws_connections") == 1
        pages[0].close()
        switch_elsewhere(api, session_id, 1)
        for page in pages[1:]:
            js_client.reached(page, 3)
            js_client.live(page)
            assert [version for version, _, _ in js_client.changes(page)] == [2, 3]
        assert js_client.command(pages[2], "switch")["version"] == 4
        wait_until(lambda: metric_value(api.url, "syncapp_ws_connections") == 1)

"""The JavaScript client in a real browser where pages, networks and servers do what they rarely do."""

from __future__ import annotations

import random

import pytest
from playwright.sync_api import Browser, Page, Route, WebSocket

from tests.browser import js_client
from tests.support.cluster import Cluster, MakeCluster
from tests.support.tcp_proxy import TcpProxy
from tests.support.tokens import SECRET, bearer, token
from tests.support.types import Redis
from tests.support.web_clients import RestClient, wait_until

WITHOUT_SOCKETS = 'window.WebSocket = class { constructor() { throw new DOMException("no", "SecurityError"); } };'


@pytest.fixture(scope="module")
def web(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    """One web process that requires tokens; a connection may watch two sessions."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(
        web=1, worker=False, AUTH="required", AUTH_SECRETS=SECRET, ALLOWED_ORIGINS="*", WS_MAX_SUBSCRIPTIONS="2"
    )


@pytest.fixture
def api(web: Cluster) -> RestClient:
    return RestClient(web.urls[0], bearer())


def test_a_refused_command_closes_the_session_in_no_tab(browser: Browser, api: RestClient) -> None:
    session_id = api.running()
    with browser.new_context() as context:
        pages = [context.new_page() for _ in range(3)]
        for page in pages:
            js_client.open_session(page, api.url, session_id, token=token())
            js_client.live(page)
        for page in pages:
            assert js_client.command(page, "adjust", op="add")["code"] == "VALIDATION_ERROR"
            assert js_client.command(page, "pause", expectedVersion=1)["code"] == "CONFLICT"
        assert js_client.command(pages[0], "switch")["version"] == 3
        for page in pages:
            js_client.reached(page, 3)
            js_client.live(page)


def test_a_page_that_closes_the_session_when_the_connection_is_lost_connects_no_more(
    page: Page, api: RestClient, web: Cluster
) -> None:
    sockets: list[WebSocket] = []
    page.on("websocket", lambda socket: sockets.append(socket))  # noqa: PLW0108 -- Playwright marks what it calls
    page.add_init_script("Math.random = () => 0;")  # nothing waits before it connects again
    session_id = api.running()
    with TcpProxy(web.web[0].port, random.Random(1)) as proxy:
        base = f"http://127.0.0.1:{proxy.port}"
        js_client.open_session(page, base, session_id, page_url=f"{api.url}/health", token=token())
        js_client.live(page)
        page.evaluate("() => { game.on('status', ({reason}) => reason?.retryInMs === 0 && game.close()); }")
        proxy.cut(1)
        assert js_client.closed(page)["code"] == "CLOSED"
        js_client.open_session(page, base, session_id, token=token())
        js_client.live(page)
        page.evaluate("game.close()")
        wait_until(lambda: page.evaluate("1") and all(socket.is_closed() for socket in sockets))
        assert len(sockets) == 2


def test_an_answer_that_is_not_the_services_deletes_no_session(page: Page, api: RestClient) -> None:
    session_id = api.running()
    js_client.open_session(page, api.url, session_id, token=token(), transports=["polling"])
    js_client.live(page)
    answers = ["<p>Log in to this network</p>"]

    def answer(route: Route) -> None:
        if answers:
            route.fulfill(body=answers.pop(), content_type="text/html")
        else:
            route.continue_()

    page.route("**/switch", answer)
    assert js_client.command(page, "switch")["version"] == 3
    js_client.live(page)
    assert api.state(session_id)["version"] == 3


def test_a_page_that_may_open_no_websocket_gets_a_stream(page: Page, api: RestClient) -> None:
    page.add_init_script(WITHOUT_SOCKETS)
    session_id = api.running()
    js_client.open_session(page, api.url, session_id, token=token())
    js_client.live(page)
    assert page.evaluate("game.transport") == "sse"
    assert js_client.command(page, "switch")["version"] == 3


def test_a_back_end_that_gives_no_tokens_for_a_while_ends_no_session(page: Page, api: RestClient) -> None:
    page.add_init_script("Math.random = () => 0;")
    session_id = api.running()
    page.goto(f"{api.url}/health")
    page.evaluate(
        """async ([base, id, token]) => {
          const client = await import(`${base}/sdk/syncapp.js`);
          window.asked = 0;
          window.game = client.open(base, id, {token: async () => {
            if (++asked === 1) return "no.such.token";
            if (asked < 9) throw new Error("The back end is down");
            return token;
          }});
          window.sent = game.command("switch");
          sent.catch(() => {});
        }""",
        [api.url, session_id, token()],
    )
    js_client.live(page)
    assert page.evaluate("asked") >= 9
    assert js_client.command(page, "switch")["version"] in {3, 4}  # the earlier one may have given up


def test_a_command_is_answered_although_the_token_never_comes(page: Page, api: RestClient) -> None:
    session_id = api.running()
    page.goto(f"{api.url}/health")
    code = page.evaluate(
        """async ([base, id]) => {
          const client = await import(`${base}/sdk/syncapp.js`);
          window.game = client.open(base, id, {token: () => new Promise(() => {}), commandTimeoutMs: 1000});
          return game.pause().catch((error) => [error.code, error.outcomeUnknown]);
        }""",
        [api.url, session_id],
    )
    assert code == ["UNAUTHORIZED", False]


def test_sessions_beyond_what_a_connection_may_watch_share_further_connections(page: Page, api: RestClient) -> None:
    sockets: list[WebSocket] = []
    page.on("websocket", lambda socket: sockets.append(socket))  # noqa: PLW0108 -- Playwright marks what it calls
    ids = [api.running() for _ in range(6)]
    js_client.open_session(page, api.url, ids[0], token=token())
    page.evaluate(
        """async ([base, ids, token]) => {
          window.all = await Promise.all(ids.map((id) => client.connect(base, id, {token})));
        }""",
        [api.url, ids[1:], page.evaluate("game.token")],
    )
    js_client.live(page)
    for session_id in ids:
        api.command(session_id, "switch")
    wait_until(lambda: page.evaluate("all.every((each) => each.state.version === 3)"))
    assert len(sockets) == 3


def test_strange_notes_between_tabs_do_no_harm(page: Page, api: RestClient) -> None:
    session_id = api.running()
    js_client.open_session(page, api.url, session_id, token=token())
    js_client.live(page)
    page.evaluate(
        """async () => {
          window.uncaught = [];
          addEventListener("error", ({message}) => uncaught.push(message));
          const {held} = await navigator.locks.query();
          const channel = new BroadcastChannel(held[0].name);
          for (const note of [null, 7, "x", {}, {from: "z", kind: "later"}, {from: "z", kind: "lost"}]) {
            channel.postMessage(note);
          }
        }"""
    )
    assert js_client.command(page, "switch")["version"] == 3
    js_client.live(page)
    assert page.evaluate("uncaught") == []

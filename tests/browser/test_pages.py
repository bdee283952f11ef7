"""A page of another origin in a real browser: what it can read, and what it can't change."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.support.cluster import Cluster, MakeCluster
from tests.support.other_site import Site
from tests.support.types import Redis
from tests.support.web_clients import RestClient

ASK = """async ([method, url, headers, body]) => {
  const answer = await fetch(url, {method, headers, body: body ?? undefined});
  const text = await answer.text();
  let document = null;
  try { document = JSON.parse(text); } catch {}
  return {status: answer.status, headers: Object.fromEntries(answer.headers), document};
}"""


@pytest.fixture(scope="module")
def web(make_cluster: MakeCluster, redis_url: str, site: Site) -> Cluster:
    """One web process that the site's pages may use."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(web=1, worker=False, ALLOWED_ORIGINS=site.url, MAX_BODY_BYTES="20000")


@pytest.fixture
def api(web: Cluster) -> RestClient:
    return RestClient(web.urls[0])


@pytest.fixture(scope="module")
def closed(make_cluster: MakeCluster) -> RestClient:
    """One web process with default settings."""
    return RestClient(make_cluster(web=1, worker=False).urls[0])


def ask(page: Page, method: str, url: str, headers: dict[str, str] | None = None, body: str | None = None) -> Any:
    """What the page's `fetch` returns."""
    return page.evaluate(ASK, [method, url, headers or {}, body])


def test_a_page_that_polls_sees_time_move(foreign: Page, api: RestClient) -> None:
    url = f"{api.url}/v1/sessions/{api.running()}"
    for path, name in ((url, "remaining_ms"), (f"{api.url}/v1/time", "timestamp_ms")):
        shown = foreign.evaluate(
            """async ([url, name]) => {
              const find = (value) => value?.[name] ??
                (value && typeof value === 'object' ? Object.values(value).map(find).find((x) => x != null) : null);
              const shown = [];
              for (let i = 0; i < 5; i++) {
                shown.push(find(await (await fetch(url)).json()));
                await new Promise((done) => setTimeout(done, 20));
              }
              return shown;
            }""",
            [path, name],
        )
        assert len(set(shown)) == 5, shown


def test_a_long_poll_of_a_page_is_answered_with_the_next_version_or_304(foreign: Page, api: RestClient) -> None:
    session_id = api.running()
    url = f"{api.url}/v1/sessions/{session_id}"
    tag = ask(foreign, "GET", url)["headers"]["etag"]
    same = ask(foreign, "GET", f"{url}?wait_ms=50", {"If-None-Match": tag})
    assert (same["status"], same["headers"]["etag"]) == (304, tag)
    api.command(session_id, "switch")
    answer = ask(foreign, "GET", f"{url}?wait_ms=20000", {"If-None-Match": tag})
    assert (answer["status"], answer["document"]["data"]["version"]) == (200, 3)


def test_a_page_of_a_listed_origin_can_play_a_game(foreign: Page, api: RestClient) -> None:
    session_id = str(uuid.uuid4())
    sent = (
        f'{{"session_id": "{session_id}", "sync_mode": "global", "total_time_ms": 60000, '
        '"participants": [{"participant_id": "a"}, {"participant_id": "b"}]}'
    )
    json = {"Content-Type": "application/json"}
    made = ask(foreign, "POST", f"{api.url}/v1/sessions", json, sent)
    assert made["status"] == 201, made
    url = f"{api.url}{made['headers']['location']}"
    started = ask(foreign, "POST", f"{url}/start", {"X-Request-Id": "page-1"})
    assert started["headers"]["x-request-id"] == "page-1"
    key = {"If-Match": started["headers"]["etag"], "Idempotency-Key": "k", "Prefer": "return=minimal"}
    moved = ask(foreign, "POST", f"{url}/switch", key | json, "{}")
    assert (moved["status"], moved["headers"]["preference-applied"]) == (200, "return=minimal")
    again = ask(foreign, "POST", f"{url}/switch", key | json, "{}")
    assert again["headers"]["idempotency-replayed"] == "true"
    changed = ask(foreign, "PATCH", url, json, '{"metadata": {"a": 1}}')
    assert changed["document"]["data"]["metadata"] == {"a": 1}
    assert ask(foreign, "DELETE", url)["status"] == 204


def test_a_page_can_read_why_it_was_refused(foreign: Page, api: RestClient) -> None:
    url = f"{api.url}/v1/sessions/{api.running()}"
    stale = {"If-Match": '"1-1"'}
    for method, path, headers, body, code in (
        ("GET", f"{api.url}/nothing", None, None, "NOT_FOUND"),
        ("PATCH", f"{api.url}/v1/time", None, None, "METHOD_NOT_ALLOWED"),
        ("POST", f"{url}/switch", stale, None, "PRECONDITION_FAILED"),
        ("POST", f"{url}/switch", None, "x" * 20_001, "PAYLOAD_TOO_LARGE"),
        ("POST", f"{url}/switch", None, "x", "UNSUPPORTED_MEDIA_TYPE"),
        ("GET", f"{url}?wait_ms=9", {"If-None-Match": '"x"'}, None, "VALIDATION_ERROR"),
    ):
        assert ask(foreign, method, path, headers, body)["document"]["error"]["code"] == code


def test_a_page_reads_a_stream_and_goes_on_after_it_was_cut(foreign: Page, api: RestClient, web: Cluster) -> None:
    session_id = api.running()
    foreign.evaluate(
        """(url) => {
          window.told = [];
          window.opened = 0;
          const open = () => {
            window.stream = new EventSource(url);
            stream.onopen = () => window.opened++;
            stream.onmessage = (event) => window.told.push([event.lastEventId, JSON.parse(event.data).type]);
            // A process that stops may still answer with 503, after which an EventSource does not try again.
            stream.onerror = () => { if (stream.readyState === EventSource.CLOSED) setTimeout(open, 500); };
          };
          open();
        }""",
        f"{api.url}/v1/sessions/{session_id}/stream",
    )
    foreign.wait_for_function("told.some(([id, type]) => type === 'STATE_SYNC')", timeout=60_000)
    web.web[0].restart()
    state = api.command(session_id, "switch")
    foreign.wait_for_function(
        "([id]) => opened === 2 && told.some(([last]) => last === id)",
        arg=[f"{state['epoch']}-{state['version']}"],
        timeout=60_000,
    )
    # A preflight that names the header is what fetch-based readers of streams send.
    status = foreign.evaluate(
        """async ([url, id]) => {
          const ends = new AbortController();
          const answer = await fetch(url, {headers: {'Last-Event-ID': id}, signal: ends.signal});
          ends.abort();
          return answer.status;
        }""",
        [f"{api.url}/v1/sessions/{session_id}/stream", f"{state['epoch']}-1"],
    )
    assert status == 200
    foreign.evaluate("stream.close()")


def test_a_page_of_another_origin_can_neither_switch_a_clock_nor_read_it(foreign: Page, closed: RestClient) -> None:
    session_id = closed.running()
    url = f"{closed.url}/v1/sessions/{session_id}"
    told = foreign.evaluate(
        """async (url) => {
          const told = [];
          for (const more of [{}, {body: 'x'}, {headers: {'Content-Type': 'application/json'}, body: '{}'}]) {
            told.push(await fetch(url, {method: 'POST', ...more}).then((x) => x.status, (error) => error.name));
          }
          told.push((await fetch(url, {method: 'POST', mode: 'no-cors'})).type);
          return told;
        }""",
        f"{url}/switch",
    )
    assert told == ["TypeError", "TypeError", "TypeError", "opaque"]
    # A form needs no script at all.
    foreign.set_content(f'<form method="post" action="{url}/switch"><button>go</button></form>')
    with foreign.expect_navigation():
        foreign.click("button")
    assert "ORIGIN_NOT_ALLOWED" in foreign.content()
    assert closed.state(session_id)["version"] == 2


def test_the_documentation_can_be_tried_out_where_no_origin_is_listed(page: Page, closed: RestClient) -> None:
    session_id = closed.running()
    page.goto(f"{closed.url}/api-docs")
    answer = ask(page, "POST", f"/v1/sessions/{session_id}/switch")
    assert (answer["status"], answer["document"]["data"]["version"]) == (200, 3)

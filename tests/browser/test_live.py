"""Streams and WebSockets of a page in a real browser."""

from __future__ import annotations

import time
from typing import Any

import pytest
import requests
from playwright.sync_api import Page

from tests.support.cluster import Cluster, MakeCluster
from tests.support.types import Redis
from tests.support.web_clients import RestClient, metric_value, wait_until

STREAM = """(path) => new Promise((done) => {
  const source = new EventSource(path), seen = [];
  const note = (event) => {
    seen.push({name: event.type, id: event.lastEventId, ...JSON.parse(event.data)});
    if (seen.filter((each) => each.name === "heartbeat").length === 2) done(seen);
  };
  for (const name of ["message", "heartbeat"]) source.addEventListener(name, note);
})"""
OPEN = """(path) => new Promise((done) => {
  window.source = new EventSource(path);
  window.source.onmessage = () => done(true);
})"""
SOCKET = """([url, first, count]) => new Promise((done) => {
  const socket = new WebSocket(url), seen = [];
  socket.onopen = () => first.forEach((message) => socket.send(JSON.stringify(message)));
  socket.onmessage = (event) => {
    seen.push(JSON.parse(event.data));
    if (seen.length === count) done(seen);
  };
})"""


@pytest.fixture(scope="module")
def web(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    """One web process; few connections for an address."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(web=1, worker=False, STREAM_HEARTBEAT_S="0.5", WS_MAX_CONNECTIONS_PER_ADDRESS="4")


@pytest.fixture
def api(web: Cluster) -> RestClient:
    wait_until(lambda: metric_value(web.urls[0], "syncapp_ws_connections") == 0)
    return RestClient(web.urls[0])


def test_a_script_sees_heartbeats_and_they_leave_the_last_id_alone(page: Page, api: RestClient) -> None:
    session_id = api.running()
    epoch = api.state(session_id)["epoch"]
    page.goto(f"{api.url}/health")
    seen: list[dict[str, Any]] = page.evaluate(STREAM, f"/v1/sessions/{session_id}/stream")
    assert [each["type"] for each in seen if each["name"] == "message"] == ["CONNECTED", "STATE_SYNC"]
    beats = [each for each in seen if each["name"] == "heartbeat"]
    assert [each["type"] for each in beats] == ["HEARTBEAT"] * 2
    assert {each["id"] for each in beats} == {f"{epoch}-2"}
    assert beats[0]["timestamp"] < beats[1]["timestamp"]


def test_a_page_with_a_stream_that_is_reloaded_many_times_fills_no_limit(page: Page, api: RestClient) -> None:
    path = f"/v1/sessions/{api.running()}/stream"
    page.goto(f"{api.url}/health")
    for _ in range(15):
        # A closed connection counts for another half second.
        wait_until(lambda: metric_value(api.url, "syncapp_ws_connections") < 4)
        assert page.evaluate(OPEN, path)
        page.reload()
    assert metric_value(api.url, 'syncapp_ws_refused_total{reason="address_quota"}') == 0
    began_s = time.monotonic()
    wait_until(lambda: metric_value(api.url, "syncapp_ws_connections") == 0)
    assert time.monotonic() - began_s < 10
    assert requests.get(f"{api.url}/health", timeout=60).status_code == 200


def test_a_page_is_told_where_it_stands_before_its_first_command_is_answered(page: Page, api: RestClient) -> None:
    page.goto(f"{api.url}/health")
    for _ in range(10):
        session_id = api.running()
        first = [{"type": "COMMAND", "id": 1, "command": "switch"}, {"type": "PING", "t0": 1}]
        url = f"{api.url.replace('http', 'ws', 1)}/ws?sessionId={session_id}"
        seen: list[dict[str, Any]] = page.evaluate(SOCKET, [url, first, 5])
        kinds = [message["type"] for message in seen if message["type"] != "PONG"]
        assert kinds == ["CONNECTED", "STATE_SYNC", "STATE_UPDATE", "ACK"]
        assert seen[0]["type"] == "CONNECTED"
        page.reload()
        wait_until(lambda: metric_value(api.url, "syncapp_ws_connections") < 4)

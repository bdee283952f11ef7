"""Clients without WebSockets: server-sent events, and long polling."""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
import uuid
from contextlib import ExitStack, suppress
from urllib.parse import urlsplit

import pytest
import requests

from syncapp.server.transport import Watchdog
from tests.support.cluster import Cluster, MakeCluster
from tests.support.event_streams import Events
from tests.support.nginx import nginx
from tests.support.types import Redis
from tests.support.web_clients import RestClient, metric_value, wait_until

pytestmark = pytest.mark.usefixtures("no_errors_logged")


@pytest.fixture(scope="module")
def pair(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(worker=False, WS_MAX_CONNECTIONS_PER_SESSION="5", WS_SLOW_CLOSE_S="2")


@pytest.fixture(scope="module")
def lively(make_cluster: MakeCluster) -> Cluster:
    """A web process with frequent heartbeats."""
    return make_cluster(web=1, worker=False, STREAM_HEARTBEAT_S="0.3")


def test_a_stream_tells_what_a_websocket_tells(apis: list[RestClient]) -> None:
    session_id = apis[0].running()
    with Events(apis[0], session_id) as one, Events(apis[1], session_id, format="patch") as two:
        assert one.answer.headers["Content-Type"] == "text/event-stream"
        assert one.answer.headers["Cache-Control"] == "no-store"
        assert re.match(r"retry: \d{4}$", one.event()[0])
        for each in (one, two):
            assert [each.next()["type"], each.next()["type"]] == ["CONNECTED", "STATE_SYNC"]
        state = apis[0].command(session_id, "switch")
        update, patch = one.next(), two.next()
        assert (update["type"], update["state"]["version"]) == ("STATE_UPDATE", 3)
        assert (patch["type"], patch["patch"]["version"]) == ("STATE_PATCH", 3)
        assert one.last_id == two.last_id == f"{state['epoch']}-3"
        apis[1].delete(session_id)
        for each in (one, two):
            assert each.next()["type"] == "SESSION_DELETED"
            with pytest.raises(EOFError):
                each.next()


def test_a_stream_goes_on_after_the_last_event(apis: list[RestClient]) -> None:
    session_id = apis[0].running()
    with Events(apis[0], session_id) as one:
        one.next()
        one.next()
    with Events(apis[1], session_id, one.last_id) as again:
        assert again.next()["type"] == "CONNECTED"
        apis[0].command(session_id, "switch")
        assert again.next()["type"] == "STATE_UPDATE"
    with Events(apis[0], session_id, one.last_id) as behind:
        assert [behind.next()["type"], behind.next()["state"]["version"]] == ["CONNECTED", 3]
    epoch, version = one.last_id.split("-")
    with Events(apis[0], session_id, epoch=epoch, version=int(version) + 1) as current:
        assert current.next()["version"] == 3


def test_an_unknown_session_is_told_of_when_it_is_made(apis: list[RestClient]) -> None:
    session_id = str(uuid.uuid4())
    with Events(apis[0], session_id) as one:
        connected = one.next()
        assert (connected["type"], connected["epoch"], connected["version"]) == ("CONNECTED", None, None)
        apis[1].create(session_id=session_id)
        assert one.next()["event"]["type"] == "session_created"


def test_what_is_wrong_with_a_request_for_a_stream_is_said_with_a_status(apis: list[RestClient]) -> None:
    url = f"{apis[0].url}/v1/sessions"
    session_id = apis[0].running()
    assert requests.get(f"{url}/x/stream", timeout=60).status_code == 400
    for query in ("epoch=1", "format=xml", "epoch=a&version=2"):
        assert requests.get(f"{url}/{session_id}/stream?{query}", timeout=60).status_code == 400
    answer = requests.get(f"{url}/{session_id}/stream", headers={"Last-Event-ID": "7"}, timeout=60)
    assert answer.json()["error"]["details"][0]["field"] == "Last-Event-ID"
    head = requests.head(f"{url}/{session_id}/stream", timeout=60)
    assert (head.status_code, head.headers["Content-Type"]) == (200, "text/event-stream")
    wait_until(lambda: metric_value(apis[0].url, "syncapp_ws_connections") == 0)


def test_streams_and_polls_count_as_connections(apis: list[RestClient]) -> None:
    session_id = apis[0].running()
    epoch = apis[0].state(session_id)["epoch"]
    url = f"{apis[0].url}/v1/sessions/{session_id}"
    with ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(Events(apis[0], session_id)).next()
        polled: list[requests.Response] = []
        headers = {"If-None-Match": f'"{epoch}-2"'}
        poll = threading.Thread(
            target=lambda: polled.append(requests.get(f"{url}?wait_ms=20000", headers=headers, timeout=60))
        )
        poll.start()
        wait_until(lambda: metric_value(apis[0].url, "syncapp_ws_connections") == 5)
        for refused in (
            requests.get(f"{url}/stream", timeout=60),
            requests.get(f"{url}?wait_ms=1000", headers=headers, timeout=60),
        ):
            assert (refused.status_code, refused.json()["error"]["code"]) == (503, "TOO_MANY_CONNECTIONS")
            assert refused.headers["Retry-After"]
        assert requests.get(url, timeout=60).status_code == 200
        apis[1].command(session_id, "switch")
        poll.join()
        assert polled[0].json()["data"]["version"] == 3
    wait_until(lambda: metric_value(apis[0].url, "syncapp_ws_connections") == 0)


def test_a_stream_that_nobody_reads_is_cut_off(apis: list[RestClient]) -> None:
    session_id = apis[0].running(metadata={"text": "x" * 16_000})
    address = urlsplit(apis[0].url)
    before = metric_value(apis[0].url, 'syncapp_ws_closed_total{code="1013"}')
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow.connect((address.hostname, address.port))
        slow.sendall(f"GET /v1/sessions/{session_id}/stream HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        begun = b""
        while b"STATE_SYNC" not in begun:  # from here on it is told every version
            begun += slow.recv(1024)
        for _ in range(60):
            apis[0].command(session_id, "switch")
        wait_until(lambda: metric_value(apis[0].url, 'syncapp_ws_closed_total{code="1013"}') == before + 1)
        wait_until(lambda: metric_value(apis[0].url, "syncapp_ws_connections") == 0)


def hanging_up(api: RestClient, path: str, headers: str, how: str) -> float:
    """Open and close five long polls; return how long the process took to end the last one."""
    address = urlsplit(api.url)
    with ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection((address.hostname, address.port), timeout=60))
            for _ in range(5)
        ]
        for client in clients:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n{headers}\r\n".encode())
            if how == "after pipelining":
                client.sendall(b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(lambda: metric_value(api.url, "syncapp_ws_connections") == 5)
        time.sleep(0.6)  # longer than between two looks: bytes after the request do not end it
        assert metric_value(api.url, "syncapp_ws_connections") == 5
        for client in clients:
            if how == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if how == "half":
                client.shutdown(socket.SHUT_WR)
            else:
                client.close()
        began_s = time.monotonic()
        wait_until(lambda: metric_value(api.url, "syncapp_ws_connections") == 0)
        return time.monotonic() - began_s


HOW = pytest.mark.parametrize("how", ["close", "reset", "half", "after pipelining"])
# A heartbeat would notice a closed stream after 15 s at the earliest, and a poll waits for 25 s.
WITHIN_S = 10


@HOW
def test_a_stream_whose_client_has_closed_is_let_go_at_once(apis: list[RestClient], how: str) -> None:
    assert hanging_up(apis[0], f"/v1/sessions/{apis[0].running()}/stream", "", how) < WITHIN_S


def test_the_first_request_that_waits_is_let_go_too() -> None:
    ours, theirs = socket.socketpair()
    gone = threading.Event()
    with ours, Watchdog().notify_disconnect(ours, gone.set):
        theirs.close()
        assert gone.wait(60)


@HOW
def test_a_read_that_waits_is_let_go_when_its_client_has_closed(apis: list[RestClient], how: str) -> None:
    session_id = apis[0].running()
    epoch = apis[0].state(session_id)["epoch"]
    headers = f'If-None-Match: "{epoch}-2"\r\n'
    assert hanging_up(apis[0], f"/v1/sessions/{session_id}?wait_ms=25000", headers, how) < WITHIN_S


def test_a_client_that_leaves_nginx_is_let_go_behind_it(apis: list[RestClient]) -> None:
    session_id = apis[0].running()
    for location in ("", "proxy_http_version 1.1; proxy_set_header Connection ''; proxy_buffering off;"):
        with nginx(apis[0].url, location=location) as proxy:
            assert hanging_up_behind(proxy.url, apis[0], session_id) < WITHIN_S


def hanging_up_behind(url: str, api: RestClient, session_id: str) -> float:
    with ExitStack() as stack:
        for _ in range(4):
            events = stack.enter_context(Events(RestClient(url), session_id))
            assert events.next()["type"] == "CONNECTED"
        wait_until(lambda: metric_value(api.url, "syncapp_ws_connections") == 4)
    began_s = time.monotonic()
    wait_until(lambda: metric_value(api.url, "syncapp_ws_connections") == 0)
    return time.monotonic() - began_s


def test_a_heartbeat_is_an_event_with_the_servers_time_that_leaves_the_last_id_alone(lively: Cluster) -> None:
    api = RestClient(lively.urls[0])
    session_id = api.running()
    with Events(api, session_id) as one:
        one.event()
        one.next()
        one.next()
        times: list[int] = []
        last_id = one.last_id
        busy = threading.Thread(target=lambda: [api.command(session_id, "switch") for _ in range(100)])
        busy.start()  # heartbeats also come between other events
        while len(times) < 4:
            fields = [line.split(": ", 1) for line in one.event()]
            if fields[0] == ["event", "heartbeat"]:
                assert [name for name, _ in fields] == ["event", "data"]
                beat = json.loads(fields[1][1])
                assert (beat["type"], beat["sessionId"], len(beat)) == ("HEARTBEAT", session_id, 3)
                times.append(beat["timestamp"])
            else:
                last_id = dict(fields)["id"]
        busy.join()
        assert last_id != one.last_id
    assert times == sorted(times)
    assert abs(times[-1] - time.time() * 1000) < 30_000


# Long polling.


def poll(api: RestClient, session_id: str, tag: str, wait_ms: int = 5000) -> requests.Response:
    url = f"{api.url}/v1/sessions/{session_id}?wait_ms={wait_ms}"
    return requests.get(url, headers={"If-None-Match": tag}, timeout=60)


def test_a_read_that_waits_is_answered_with_the_next_version(apis: list[RestClient], redis_url: str) -> None:
    session_id = apis[0].running()
    tag = requests.get(f"{apis[0].url}/v1/sessions/{session_id}", timeout=60).headers["ETag"]
    answers: list[requests.Response] = []
    threads = [
        threading.Thread(target=lambda api=api: answers.append(poll(api, session_id, tag)))
        for api in apis
        for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    wait_until(lambda: metric_value(apis[0].url, "syncapp_ws_connections") == 2)
    with Redis.from_url(redis_url) as redis:
        redis.config_resetstat()
        state = apis[1].command(session_id, "switch")
        for thread in threads:
            thread.join()
        calls = redis.info("commandstats")["cmdstat_fcall"]["calls"]
    assert calls < 20  # a switch, and the sweeper's: no reads
    for answer in answers:
        assert answer.status_code == 200
        assert answer.headers["ETag"] == f'"{state["epoch"]}-3"'
        moving = {name: answer.json()["data"][name] for name in ("server_time_ms", "clock")}
        assert answer.json()["data"] == state | moving
    begun_s = time.monotonic()
    assert poll(apis[0], session_id, tag, 20_000).json()["data"]["version"] == 3
    assert time.monotonic() - begun_s < 15


def test_a_read_that_waits_in_vain_is_told_that_nothing_changed(apis: list[RestClient]) -> None:
    session_id = apis[0].running()
    tag = requests.get(f"{apis[0].url}/v1/sessions/{session_id}", timeout=60).headers["ETag"]
    begun_s = time.monotonic()
    answer = poll(apis[0], session_id, f"W/{tag}", 300)
    assert (answer.status_code, answer.content, answer.headers["ETag"]) == (304, b"", tag)
    assert time.monotonic() - begun_s >= 0.3


def test_what_waits_for_nothing_is_answered_at_once(apis: list[RestClient]) -> None:
    session_id = apis[0].running()
    url = f"{apis[0].url}/v1/sessions/{session_id}"
    for tags in ("", '"1-1"', '"1-1", "1-2"'):
        begun_s = time.monotonic()
        answer = requests.get(f"{url}?wait_ms=20000", headers={"If-None-Match": tags} if tags else {}, timeout=60)
        assert answer.status_code == 200
        assert time.monotonic() - begun_s < 15
    for wait_ms in ("-1", "x", "25001", "1e3", "٣"):
        assert requests.get(f"{url}?wait_ms={wait_ms}", timeout=60).status_code == 400
    gone = str(uuid.uuid4())
    assert poll(apis[0], gone, '"1-1"').status_code == 404


def test_who_has_any_version_waits_for_the_next(apis: list[RestClient]) -> None:
    session_id = apis[0].running()
    answers: list[requests.Response] = []
    thread = threading.Thread(target=lambda: answers.append(poll(apis[0], session_id, "*", 20_000)))
    thread.start()
    wait_until(lambda: metric_value(apis[0].url, "syncapp_ws_connections") == 1)
    apis[1].command(session_id, "switch")
    thread.join()
    assert (answers[0].status_code, answers[0].json()["data"]["version"]) == (200, 3)
    assert poll(apis[0], session_id, "*", 100).status_code == 304


def test_a_session_that_is_deleted_or_made_anew_ends_the_wait(apis: list[RestClient]) -> None:
    session_id = apis[0].running()
    tag = requests.get(f"{apis[0].url}/v1/sessions/{session_id}", timeout=60).headers["ETag"]
    answers: list[requests.Response] = []
    thread = threading.Thread(target=lambda: answers.append(poll(apis[0], session_id, tag)))
    thread.start()
    wait_until(lambda: metric_value(apis[0].url, "syncapp_ws_connections") == 1)
    apis[0].delete(session_id)
    thread.join()
    assert answers[0].status_code == 404
    apis[0].create(session_id=session_id)
    assert poll(apis[1], session_id, tag).json()["data"]["version"] == 1


def test_clients_that_leave_in_the_middle_leave_nothing_behind(apis: list[RestClient]) -> None:
    session_id = apis[0].running()
    for _ in range(20):
        with suppress(requests.exceptions.ReadTimeout), Events(apis[0], str(uuid.uuid4())) as one:
            one.event()
    with Events(apis[0], session_id) as one:
        one.next()
    wait_until(lambda: metric_value(apis[0].url, "syncapp_ws_connections") == 0)
    wait_until(lambda: metric_value(apis[0].url, "syncapp_hub_sessions") == 0)

"""Shutdown of a web process: it is announced, connections are closed in order, and running requests are answered."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from types import SimpleNamespace
from urllib.parse import urlsplit

import psutil
import pytest
import requests

from syncapp.dev.servers import Valkey
from syncapp.errors import ServerStopping
from syncapp.realtime.protocol import Close
from syncapp.server.shutdown import Shutdown
from tests.support.cluster import Cluster, MakeCluster
from tests.support.raw_websocket import CLOSE, PING, ConnectionEnded, RawWebSocket
from tests.support.step_clock import StepClock
from tests.support.web_clients import RestClient, metric_value, wait_until

KILLED_AFTER_S = 15
"""After this time (s) gunicorn kills a worker that has not ended (graceful_timeout)."""


@pytest.fixture(scope="module")
def single(make_cluster: MakeCluster) -> Cluster:
    return make_cluster(web=1, worker=False, WS_DRAIN_S="4", REDIS_TIMEOUT_S="10")


@pytest.fixture
def api(single: Cluster) -> Iterator[RestClient]:
    if not single.web[0].alive:
        single.web[0].start()
    yield RestClient(single.urls[0])
    single.web[0].unpause()


def ended_within(single: Cluster, since_s: float, within_s: float) -> None:
    wait_until(lambda: not single.web[0].alive, since_s + within_s - time.monotonic())


def test_everybody_is_sent_away_over_some_time_while_the_process_says_that_it_ends(
    single: Cluster, api: RestClient
) -> None:
    session_id = api.running()
    ends: list[tuple[int | None, float]] = []
    with ExitStack() as stack:
        raws = [stack.enter_context(RawWebSocket(api.url, session_id)) for _ in range(60)]
        for raw in raws:
            raw.message("STATE_SYNC")

        def read(raw: RawWebSocket) -> None:
            ends.append((raw.close_code(), time.monotonic()))

        threads = [threading.Thread(target=read, args=(raw,)) for raw in raws]
        for thread in threads:
            thread.start()
        begun_s = time.monotonic()
        single.web[0].ask_to_stop()
        wait_until(lambda: requests.get(f"{api.url}/ready", timeout=60).status_code == 503, 4)
        ready = requests.get(f"{api.url}/ready", timeout=60)
        stopping = {"status": "unavailable", "problems": ["this process is shutting down"]}
        assert (ready.status_code, ready.json()) == (503, stopping)
        assert requests.get(f"{api.url}/health", timeout=60).status_code == 200
        assert requests.post(f"{api.url}/v1/sessions/{session_id}/switch", timeout=60).status_code == 200
        with RawWebSocket(api.url, session_id) as late:
            assert late.status == 503
            assert "retry-after" in late.answer.lower()
        assert requests.get(f"{api.url}/v1/sessions/{session_id}/stream", timeout=60).status_code == 503
        for thread in threads:
            thread.join()
        ended_within(single, begun_s, KILLED_AFTER_S)
    assert {code for code, _ in ends} == {Close.RESTART}
    times = sorted(when_s for _, when_s in ends)
    assert times[-1] - times[0] > 0.5
    assert single.web[0].exit_code == 0


def test_what_runs_is_answered_before_the_end(single: Cluster, api: RestClient, valkey: Valkey) -> None:
    session_id = api.running()
    answers: list[requests.Response] = []
    with RawWebSocket(api.url, session_id) as raw:
        raw.message("STATE_SYNC")
        valkey.pause()
        try:
            raw.send({"type": "COMMAND", "id": 1, "command": "switch"})
            request = threading.Thread(
                target=lambda: answers.append(requests.post(f"{api.url}/v1/sessions/{session_id}/switch", timeout=60))
            )
            request.start()
            time.sleep(1.5)  # both wait for the store now
            begun_s = time.monotonic()
            single.web[0].ask_to_stop()
            time.sleep(1)
        finally:
            valkey.unpause()
        frames = [received for received in raw.until_end() if received.opcode != PING]
        request.join()
    assert frames[-1].opcode == CLOSE
    assert frames[-1].code == Close.RESTART
    assert "ACK" in [received.message["type"] for received in frames[:-1]]
    assert answers[0].status_code == 200
    ended_within(single, begun_s, KILLED_AFTER_S)


def test_streams_and_reads_that_wait_end_and_who_does_not_read_holds_nothing_up(
    single: Cluster, api: RestClient
) -> None:
    session_id = api.running(metadata={"text": "x" * 16_000})
    epoch = api.state(session_id)["epoch"]
    address = urlsplit(api.url)
    with ExitStack() as stack:
        stuck = stack.enter_context(RawWebSocket(api.url, session_id, receive_bytes=4096))
        idle = stack.enter_context(socket.create_connection((address.hostname, address.port)))
        stream = requests.get(f"{api.url}/v1/sessions/{session_id}/stream", stream=True, timeout=60)
        stack.callback(stream.close)
        stuck.message("STATE_SYNC")
        chunks, begun = stream.iter_content(None), b""
        while b"STATE_SYNC" not in begun:
            begun += next(chunks)
        with RawWebSocket(api.url, session_id) as follower:
            follower.message("STATE_SYNC")
            for _ in range(60):
                version = api.command(session_id, "switch")["version"]
                while follower.message("STATE_UPDATE")["version"] < version:  # the others were told at the same time
                    pass
        polled: list[int] = []
        url = f"{api.url}/v1/sessions/{session_id}?wait_ms=20000"
        tag = {"If-None-Match": f'"{epoch}-{version}"'}
        poll = threading.Thread(target=lambda: polled.append(requests.get(url, headers=tag, timeout=60).status_code))
        poll.start()
        wait_until(lambda: metric_value(api.url, "syncapp_ws_connections") == 3)
        begun_s = time.monotonic()
        single.web[0].ask_to_stop()
        assert b"".join(chunks).count(b"STATE_UPDATE") > 10
        poll.join()
        assert polled == [304]
        ended_within(single, begun_s, KILLED_AFTER_S)
        assert idle.recv(10) == b""
        with suppress(ConnectionEnded, AssertionError, OSError):
            while True:
                stuck.next()


def test_a_reload_loses_no_request_and_clients_find_the_new_process(single: Cluster, api: RestClient) -> None:
    session_id = api.running()
    master = psutil.Process(single.web[0].pid)
    (old,) = master.children()
    failed: list[str] = []
    stop = threading.Event()

    def traffic() -> None:
        while not stop.is_set():
            answer = requests.post(f"{api.url}/v1/sessions/{session_id}/switch", timeout=60)
            if answer.status_code != 200:
                failed.append(answer.text)

    thread = threading.Thread(target=traffic)
    thread.start()
    known = (0, 0)
    with RawWebSocket(api.url, session_id) as raw:
        raw.message("STATE_UPDATE")
        os.kill(master.pid, signal.SIGHUP)
        frames = raw.until_end()
        assert frames[-1].code == Close.RESTART
        orders = [
            (frame.message["state"]["epoch"], frame.message["state"]["version"])
            for frame in frames
            if frame.opcode not in (CLOSE, PING) and "state" in frame.message
        ]
        known = orders[-1] if orders else known
    wait_until(lambda: not old.is_running())
    stop.set()
    thread.join()
    assert not failed
    assert old not in master.children()
    with RawWebSocket(api.url, f"{session_id}&epoch={known[0]}&version={known[1]}") as raw:
        connected = raw.message("CONNECTED")
        assert (connected["epoch"], connected["version"]) >= known


def test_health_is_answered_while_sockets_fill_the_process(make_cluster: MakeCluster) -> None:
    full = make_cluster(web=1, worker=False, WS_MAX_CONNECTIONS="30", WORKER_CONNECTIONS="60")
    with ExitStack() as stack:
        raws = [stack.enter_context(RawWebSocket(full.urls[0], str(uuid.uuid4()))) for _ in range(35)]
        assert sorted({raw.status for raw in raws}) == [101, 503]
        assert sum(raw.status == 101 for raw in raws) == 30
        for path in ("/health", "/ready", "/metrics"):
            assert requests.get(full.urls[0] + path, timeout=60).status_code == 200


class Numbered:
    """Something open that records when it is stopped."""

    def __init__(self, number: int, stopped: list[int]) -> None:
        self._number = number
        self._stopped = stopped

    def stop(self) -> None:
        self._stopped.append(self._number)


def test_nobody_is_forgotten_and_nothing_begins_any_more() -> None:
    shutdown, told = Shutdown(0.2), list[int]()
    with ExitStack() as stack:
        for i in range(50):
            stack.enter_context(shutdown.notify(Numbered(i, told)))
        shutdown.check()
        begun_s = time.monotonic()
        shutdown.run()
        assert time.monotonic() - begun_s >= 0.2
        assert sorted(told) == list(range(50))
        assert told != list(range(50))
        with shutdown.notify(Numbered(99, told)):
            assert told[-1] == 99
        with pytest.raises(ServerStopping):
            shutdown.check()
    assert shutdown.open_connections == 0


def test_a_busy_process_that_wakes_late_stops_all_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, shutdown, told = StepClock(), Shutdown(4), list[int]()

    def wake_late(pause_s: float) -> None:
        now.now_s += pause_s + 0.5

    monkeypatch.setattr("syncapp.server.shutdown.time", SimpleNamespace(monotonic=now, sleep=wake_late))
    with ExitStack() as stack:
        for i in range(1000):
            stack.enter_context(shutdown.notify(Numbered(i, told)))
        began_s = now()
        shutdown.run()
    assert sorted(told) == list(range(1000))
    assert 4 <= now() - began_s < 5

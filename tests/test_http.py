"""Clients that break the rules of HTTP or take their time: what they are answered, and that nobody waits for them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest
import requests
from peers import Api, eventually, metric
from wire import PONG, Raw, frame

from conftest import Cluster, MakeCluster, Redis  # isort: skip  # pytest puts this folder on the path


@pytest.fixture(scope="module")
def web(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    """One web process of one worker: whoever blocks it blocks all."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(web=1, worker=False)


@pytest.fixture
def api(web: Cluster) -> Api:
    return Api(web.urls[0])


@contextmanager
def served(url: str, within_s: float = 1.0) -> Iterator[None]:
    """Check that a well-behaved client is answered soon all the while."""
    waits_s: list[float] = []
    done = threading.Event()

    def ask() -> None:
        with requests.Session() as http:
            while not done.is_set():
                began_s = time.monotonic()
                with suppress(requests.RequestException):
                    http.get(f"{url}/health", timeout=30)
                waits_s.append(time.monotonic() - began_s)
                time.sleep(0.02)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
    assert max(waits_s) < within_s


def keep_sending(to: socket.socket, data: bytes, most_bytes: int = 64_000_000) -> int:
    """Send until the server takes no more; returns how much it took."""
    sent = 0
    to.settimeout(5)
    with suppress(OSError):
        while sent < most_bytes:
            sent += to.send(data)
    return sent


def test_frames_right_after_the_handshake_are_counted_as_any_and_hold_nobody_up(web: Cluster, api: Api) -> None:
    session_id, tries = api.create(), 4
    flood = frame(b"", PONG) * 5000
    with served(web.urls[0]):
        for _ in range(tries):
            with Raw(web.urls[0], session_id) as raw:
                assert keep_sending(raw.socket, flood) < 64_000_000
    eventually(lambda: metric(web.urls[0], 'syncapp_ws_closed_total{code="1008"}') == tries)

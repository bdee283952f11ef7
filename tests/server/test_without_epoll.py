"""WebSockets on a system without epoll (macOS): gevent's watchers take its place."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, MakeCluster
from tests.support.raw_websocket import CLOSE, RawWebSocket, client_frame
from tests.support.slow_clients import Large, check_versions, read_until, version_of
from tests.support.types import Redis
from tests.support.web_clients import RestClient, metric_value, wait_until

WITHOUT_EPOLL = """
import select

del select.epoll
"""


@pytest.fixture(scope="module")
def web(make_cluster: MakeCluster, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    folder: Path = tmp_path_factory.mktemp("without-epoll")
    (folder / "sitecustomize.py").write_text(WITHOUT_EPOLL)
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(web=1, worker=False, PYTHONPATH=str(folder), WS_SLOW_CLOSE_S="60")


@pytest.fixture
def quiet(web: Cluster) -> Cluster:
    """The connections of earlier tests have ended."""
    wait_until(lambda: metric_value(web.urls[0], "syncapp_ws_connections") == 0)
    return web


def test_players_who_press_their_clocks_see_each_other(quiet: Cluster) -> None:
    url = quiet.urls[0]
    session_id = RestClient(url).running()
    with ExitStack() as stack:
        players = [stack.enter_context(RawWebSocket(url, session_id)) for _ in range(10)]
        for each in players:
            each.message("STATE_SYNC")
        for turn in range(30):
            players[turn % 10].send({"type": "COMMAND", "id": turn, "command": "switch"})
            assert players[turn % 10].message("ACK")["id"] == turn
        for each in players[:-1]:  # the last one has read its update before its answer
            assert version_of(read_until(each, 32)[-1]) == 32


def test_input_that_comes_at_once_is_read_in_turns_and_whole(quiet: Cluster) -> None:
    url = quiet.urls[0]
    session_id = RestClient(url).running()
    with RawWebSocket(url, session_id) as raw:
        raw.message("STATE_SYNC")
        padding = b" " * 30_000
        for t0 in range(20):
            raw.send(b'{"type":"PING","t0":%d%b}' % (t0, padding))
        assert [raw.message("PONG")["t0"] for _ in range(20)] == list(range(20))


def test_a_client_that_reads_late_sees_whole_frames_and_the_newest_state(quiet: Cluster) -> None:
    session = Large(quiet.urls[0])
    with RawWebSocket(quiet.urls[0], session.id, receive_bytes=4096) as raw:
        for _ in range(60):
            newest = session.switch()
        frames = read_until(raw, newest)
        check_versions(frames)
        assert version_of(frames[-1]) == newest


def test_all_ways_to_end_are_noticed(quiet: Cluster) -> None:
    url = quiet.urls[0]
    session_id = RestClient(url).running()
    with ExitStack() as stack:
        clients = [stack.enter_context(RawWebSocket(url, session_id)) for _ in range(6)]
        for each in clients:
            each.message("STATE_SYNC")
        clients[0].send(b"\x03\xe8", CLOSE)
        assert clients[0].close_code() == 1000
        clients[1].socket.sendall(client_frame(b"x", rsv=1))
        assert clients[1].close_code() == 1002
        for each in clients[2:]:
            each.socket.close()
    wait_until(lambda: metric_value(url, "syncapp_ws_connections") == 0)


def test_a_shutdown_closes_all(quiet: Cluster) -> None:
    url = quiet.urls[0]
    session_id = RestClient(url).running()
    with RawWebSocket(url, session_id) as raw:
        raw.message("STATE_SYNC")
        quiet.web[0].stop()
        assert raw.close_code() == 1012

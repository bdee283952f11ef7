"""Attendance: a process reports its watched sessions to the store, and they do not end as idle."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, closing
from typing import Any

import pytest
import redis as redis_py
import requests
from msgspec.structs import replace
from redis.exceptions import ResponseError
from websockets.sync.client import connect

from syncapp.domain.instants import iso
from syncapp.domain.session import Session
from syncapp.errors import StoreUnavailable
from syncapp.realtime.attendance import BATCH, RETRY_S, Attendance
from syncapp.realtime.hub import Hub
from tests.support.cluster import MakeCluster
from tests.support.store import chess_request, make_settings, make_store
from tests.support.types import Redis
from tests.support.watchers import Recorder
from tests.support.web_clients import RestClient, WebSocketClient, wait_until

DAY_S = 86_400


class Fake:
    """Sessions that a process watches, and its reports to the store, by a clock that the test sets."""

    def __init__(self, session: Session) -> None:
        self.now_s = 0.0
        self.watched: dict[str, Session | None] = {}
        self.session = session
        self.told: list[tuple[float, tuple[str, ...]]] = []
        self.failure: Exception | None = None
        self.answers: dict[str, ResponseError] = {}
        self.attendance = Attendance(self.attend, self.watched.__getitem__, lambda: self.now_s)

    def watch(self, name: str, idle_timeout_s: int = 40, **changes: Any) -> None:
        self.watched[name] = replace(self.session, idle_timeout_ms=idle_timeout_s * 1000, **changes)
        self.attendance.begin(name)

    def attend(self, session_ids: Sequence[str]) -> list[ResponseError | None]:
        self.told.append((self.now_s, tuple(session_ids)))
        if self.failure:
            raise self.failure
        return [self.answers.get(each) for each in session_ids]

    def run(self, until_s: float, step_s: float = 0.1) -> list[tuple[float, tuple[str, ...]]]:
        """Run it every tenth of a second, and return the reports."""
        self.told.clear()
        while self.now_s < until_s:
            self.attendance.run_once()
            self.now_s = round(self.now_s + step_s, 3)
        return list(self.told)


@pytest.fixture
def process(redis: Redis, redis_url: str) -> Fake:
    return Fake(make_store(redis_url, set_clock=False).create(chess_request()).found)


def test_a_session_is_told_of_when_its_watch_begins_and_then_each_quarter_of_its_timeout(process: Fake) -> None:
    process.watch("a")
    assert process.run(30.1) == [(0, ("a",)), (10, ("a",)), (20, ("a",)), (30, ("a",))]
    process.watch("b", idle_timeout_s=1)
    assert len([each for each in process.run(40) if "b" in each[1]]) == pytest.approx(10 / 0.3, abs=5)


def test_who_comes_again_and_again_is_not_told_of_each_time(process: Fake) -> None:
    told = []
    for second in range(25):  # a long poll counts as a watcher
        process.watch("a")
        told += process.run(second + 0.5)
        del process.watched["a"]
        told += process.run(second + 1)
    assert [at_s for at_s, _ in told] == [0, 10, 20]


def test_a_session_that_was_not_read_yet_or_is_over_is_not_told_of(process: Fake) -> None:
    process.watch("a", status="cancelled")
    process.watched["b"] = None
    process.attendance.begin("b")
    assert process.run(20) == []
    process.watched["b"] = process.session
    assert [name for _, names in process.run(21) for name in names] == ["b"]
    process.watched["a"] = process.session
    assert [name for _, names in process.run(30) for name in names] == ["a"]


def test_a_session_made_anew_with_a_shorter_timeout_is_told_of_as_often_as_that_wants(process: Fake) -> None:
    process.watch("a", idle_timeout_s=DAY_S)
    process.run(100)
    process.watched["a"] = replace(process.session, idle_timeout_ms=20_000)
    assert 3 <= len(process.run(120)) <= 5


@pytest.mark.parametrize("failure", [StoreUnavailable("away"), redis_py.ConnectionError("away"), KeyError("a bug")])
def test_what_could_not_be_told_is_told_again_soon(process: Fake, failure: Exception) -> None:
    process.watch("a")
    process.failure = failure
    tries = [at_s for at_s, _ in process.run(5)]
    assert tries == pytest.approx([RETRY_S * number for number in range(5)], abs=0.6)
    process.failure = None
    assert len(process.run(14)) == 1


def test_a_session_that_fails_is_tried_again_and_the_others_are_told_of(process: Fake) -> None:
    process.answers["a"] = ResponseError("WRONGTYPE")
    process.watch("a")
    process.watch("b")
    names = [name for _, names in process.run(12) for name in names]
    assert (names.count("a"), names.count("b")) == (3, 2)


def test_many_sessions_are_told_of_a_batch_at_a_time(process: Fake) -> None:
    for number in range(3 * BATCH):
        process.watch(f"{number}")
    told = process.run(1)
    assert [len(names) for _, names in told] == [BATCH] * 3
    assert len({name for _, names in told for name in names}) == 3 * BATCH


# With the servers' own clocks.


def test_a_watched_session_is_not_idle_and_ends_when_its_watcher_has_left(redis: Redis, redis_url: str) -> None:
    store = make_store(redis_url, set_clock=False)
    made = store.create(chess_request(idle_timeout_s=4)).found
    watcher, hub = Recorder(), Hub(make_settings(redis_url), store.read, attend=store.attend)
    try:
        hub.watch(made.session_id, watcher)
        watcher.wait_for_order(made.order)
        wait_until(lambda: (store.get(made.session_id).found.idle_ms or 0) > made.created_ms + 9000, 30)
        assert store.get(made.session_id).found.order == made.order
        hub.unwatch(made.session_id, watcher)
        wait_until(lambda: store.get(made.session_id).found.status == "cancelled", 30)
        found = store.get(made.session_id).found
        assert (found.session_completed_ms or 0) > made.created_ms + 9000
    finally:
        hub.stop()


def test_whoever_is_connected_keeps_a_session_alive(make_cluster: MakeCluster, redis: Redis) -> None:
    # Frequent pings find clients that left without a close.
    cluster = make_cluster(web=1, worker=False, WS_PING_INTERVAL_S="0.5")
    api = RestClient(cluster.urls[0])
    ids = {kind: api.create(idle_timeout_s=6) for kind in ("socket", "stream", "poll", "nobody")}
    made_ms = {kind: api.state(session_id)["epoch"] for kind, session_id in ids.items()}
    url = f"{api.url}/v1/sessions"

    def is_alive_for_long(kind: str) -> bool:
        if kind == "poll":
            tag = requests.get(f"{url}/{ids[kind]}", timeout=60).headers["ETag"]
            requests.get(f"{url}/{ids[kind]}?wait_ms=500", headers={"If-None-Match": tag}, timeout=60)
        state = api.state(ids[kind])
        assert state["status"] == "pending"
        assert state["version"] == 1
        return bool(state["idle_at"] > iso(made_ms[kind] + 10_000))

    with ExitStack() as stack:
        socket = WebSocketClient(
            stack.enter_context(connect(f"{api.url.replace('http', 'ws')}/ws?sessionId={ids['socket']}"))
        )
        stream = stack.enter_context(closing(requests.get(f"{url}/{ids['stream']}/stream", stream=True, timeout=60)))
        assert (socket.next()["type"], stream.status_code) == ("CONNECTED", 200)
        wait_until(lambda: False not in [is_alive_for_long(kind) for kind in ("socket", "stream", "poll")], 40)
    for kind in ids:
        wait_until(lambda kind=kind: api.state(ids[kind])["status"] == "cancelled", 40)  # type: ignore[misc]  # mypy cannot infer it

"""The round trip of a WebSocket: measured by the server's pings, and the limit of a move's compensation for lag."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from syncapp.errors import SessionNotFound
from syncapp.realtime.protocol import Outgoing
from syncapp.server.round_trips import LAG_TOLERANCE_MS, MAX_ROUND_TRIP_S, REFRESH_S, SAMPLES, RoundTrips
from tests.support.cluster import Cluster, MakeCluster
from tests.support.raw_websocket import PING, PONG, TEXT, RawWebSocket
from tests.support.web_clients import metric_value, wait_until

METRIC = "syncapp_websocket_round_trip_seconds"
DELAY_S = 0.2
PREFIX = 2
"""Bytes of a short ping frame before its payload."""


@pytest.fixture(scope="module")
def url(make_cluster: MakeCluster) -> str:
    """URL of a web process that measures often, and sends no other pings."""
    (web,) = make_cluster(web=1, worker=False, WS_PING_INTERVAL_S="3600").web
    web.argv = [each.replace("wsgi:app", "tests.support.measured_web:app") for each in web.argv]
    web.restart()
    return web.url


class Player:
    """A client that answers a ping when a test wants it to."""

    def __init__(self, raw: RawWebSocket) -> None:
        self._raw = raw
        self._pings: list[bytes] = []

    def ping(self) -> bytes:
        """Return the payload of the next ping."""
        while not self._pings:
            self._take()
        return self._pings.pop(0)

    def pong(self, payload: bytes, after_s: float = 0) -> None:
        time.sleep(after_s)
        self._raw.send(payload, PONG)

    def answer(self, after_s: float = 0) -> bytes:
        """Answer the next ping; return its payload."""
        payload = self.ping()
        self.pong(payload, after_s)
        return payload

    def limit(self) -> int | None:
        """Send a command; return the limit of the compensation for lag that it brings to the store."""
        self._raw.send({"type": "COMMAND", "id": 1, "command": "pause"})
        message = self.wait_for(Outgoing.ERROR)
        assert (message["id"], message["code"]) == (1, SessionNotFound.code)
        limit: int | None = message["details"]["lag_limit_ms"]
        return limit

    def measured(self) -> int:
        """Return the limit of a command of a client that has been measured."""
        limit = self.limit()
        assert limit is not None
        return limit

    def wait_for(self, kind: str) -> dict[str, Any]:
        """Return the next message of a type; the pings before it are kept."""
        while (message := self._take()) is None or message["type"] != kind:
            pass
        return message

    def _take(self) -> dict[str, Any] | None:
        frame = self._raw.next()
        if frame.opcode == PING:
            self._pings.append(frame.payload)
        return frame.message if frame.opcode == TEXT else None


@pytest.fixture
def player(url: str) -> Iterator[Player]:
    with RawWebSocket(url, str(uuid.uuid4())) as raw:
        player = Player(raw)
        player.wait_for("CONNECTED")  # the first ping may come before it
        yield player


def least_ms(delay_s: float) -> int:
    return round(delay_s * 1000) + LAG_TOLERANCE_MS


def test_a_command_may_be_compensated_for_the_round_trip_and_the_tolerance(player: Player) -> None:
    player.answer(after_s=DELAY_S)
    assert player.measured() >= least_ms(DELAY_S)


def test_a_client_that_answers_no_ping_has_no_estimate_and_is_served_as_before(player: Player) -> None:
    player.ping()
    assert [player.limit() for _ in range(3)] == [None, None, None]


def test_pongs_that_answer_no_ping_measure_nothing(player: Player) -> None:
    player.pong(b"")
    player.pong(bytes(8))
    payload = player.ping()
    player.pong(b"")
    player.pong(payload[:-1])
    player.pong(payload + b"\0")
    player.pong(payload[::-1])
    assert player.limit() is None


def test_a_forged_pong_does_not_shorten_the_round_trip(player: Player) -> None:
    payload = player.ping()
    player.pong(bytes(8))
    player.pong(payload, after_s=DELAY_S)
    assert player.measured() >= least_ms(DELAY_S)


def test_a_second_pong_to_a_ping_changes_nothing(player: Player) -> None:
    payload = player.answer(after_s=DELAY_S)
    player.pong(payload)
    assert player.measured() >= least_ms(DELAY_S)
    second = player.ping()
    player.pong(payload)  # not to the ping that is being measured
    player.pong(second, after_s=DELAY_S)
    player.pong(second)
    assert player.measured() >= least_ms(DELAY_S)


def test_every_ping_has_another_payload(player: Player) -> None:
    payloads = []
    for _ in range(5):
        payloads.append(player.answer())
        player.limit()  # a command has the client pinged again
    assert len(set(payloads)) == 5
    assert min(map(len, payloads)) >= 8


def test_one_delayed_pong_does_not_raise_the_estimate(player: Player) -> None:
    player.answer()
    before = player.measured()
    player.answer(after_s=DELAY_S)
    assert player.measured() <= before


def test_round_trips_are_counted_in_the_metrics_of_a_web_process(one_web: Cluster) -> None:
    url = one_web.urls[0]
    count, total_s = metric_value(url, f"{METRIC}_count"), metric_value(url, f"{METRIC}_sum")
    with RawWebSocket(url, str(uuid.uuid4())) as raw:
        while (frame := raw.next()).opcode != PING:
            pass
        raw.send(bytes(8), PONG)
        time.sleep(DELAY_S)
        raw.send(frame.payload, PONG)
        raw.send(frame.payload, PONG)
        raw.send({"type": "PING"})
        assert raw.message("PONG")
    wait_until(lambda: metric_value(url, f"{METRIC}_count") == count + 1)
    assert metric_value(url, f"{METRIC}_sum") >= total_s + DELAY_S


# With a time that is set.


def test_the_first_ping_is_due_soon_and_the_next_when_a_command_comes() -> None:
    trips = RoundTrips(1000.0)
    assert 1000 < trips.due_s <= 1000 + REFRESH_S
    first_s = trips.due_s
    trips.refresh()
    assert trips.due_s == first_s
    trips.ping(first_s)
    assert trips.due_s == float("inf")
    trips.refresh()
    trips.refresh()
    assert trips.due_s == first_s + REFRESH_S


def test_connections_that_are_opened_together_are_not_pinged_together() -> None:
    assert len({RoundTrips(0.0).due_s for _ in range(100)}) == 100


def measure(trips: RoundTrips, now_s: float, took_s: float) -> int | None:
    trips.take_pong(trips.ping(now_s)[PREFIX:], now_s + took_s)
    return trips.estimate_ms


def test_the_estimate_is_the_smallest_of_the_last_five_round_trips() -> None:
    trips = RoundTrips(0.0)
    assert (trips.estimate_ms, trips.lag_limit_ms) == (None, None)
    assert measure(trips, 10.0, 0.08) == 80
    assert trips.lag_limit_ms == 80 + LAG_TOLERANCE_MS
    delayed = [measure(trips, 20.0 + number, 0.9 + number / 1000) for number in range(SAMPLES)]
    assert delayed == [80, 80, 80, 80, 900]
    assert measure(trips, 30.0, 0.05) == 50


def test_one_delayed_pong_is_the_whole_estimate_of_a_new_connection() -> None:
    trips = RoundTrips(0.0)
    measure(trips, 10.0, 4.9)
    assert trips.lag_limit_ms == 5040


def test_a_ping_before_the_pong_repeats_the_payload_and_the_first_of_them_is_measured() -> None:
    trips = RoundTrips(0.0)
    frame = trips.ping(10.0)
    assert trips.ping(11.0) == frame
    trips.take_pong(frame[PREFIX:], 12.0)
    trips.take_pong(frame[PREFIX:], 12.1)
    assert trips.estimate_ms == 2000


def test_a_pong_that_comes_too_late_measures_nothing_and_the_next_ping_is_another() -> None:
    trips = RoundTrips(0.0)
    late, late_s = trips.ping(10.0), 10.0 + MAX_ROUND_TRIP_S + 0.001
    trips.take_pong(late[PREFIX:], late_s)
    assert trips.estimate_ms is None
    frame = trips.ping(20.0)
    following = trips.ping(20.0 + MAX_ROUND_TRIP_S + 0.001)
    assert following != frame
    trips.take_pong(frame[PREFIX:], 25.5)
    assert trips.estimate_ms is None
    trips.take_pong(following[PREFIX:], 26.0)
    assert trips.estimate_ms == 999

"""Slow clients receive well-formed frames and the newest state, and delay nobody."""

from __future__ import annotations

import re
import threading
import time
from contextlib import ExitStack, suppress

import psutil
import pytest

from syncapp.realtime.send_queue import MAX_BYTES
from tests.support.cluster import Cluster, MakeCluster
from tests.support.raw_websocket import CLOSE, ConnectionEnded, Frame, RawWebSocket
from tests.support.slow_clients import Large, check_versions, read_until, version_of
from tests.support.web_clients import metric_value, wait_until

SLOW_CLOSE_S = 3


@pytest.fixture(scope="module")
def impatient(make_cluster: MakeCluster) -> Cluster:
    """A web process that soon closes slow clients."""
    return make_cluster(web=1, worker=False, WS_SLOW_CLOSE_S=str(SLOW_CLOSE_S))


class Follower:
    """A client that reads all the time, on a thread, and records when it saw each version."""

    def __init__(self, raw: RawWebSocket) -> None:
        self.raw = raw
        self.seen_s: dict[int, float] = {}
        self.versions: list[int] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with suppress(ConnectionEnded, OSError):
            while True:
                version = version_of(self.raw.next(60))
                if version:
                    self.versions.append(version)
                    self.seen_s[version] = time.monotonic()


def test_a_client_that_does_not_read_for_10_s_sees_whole_frames_and_the_newest_state_and_nobody_waits(
    pair: Cluster,
) -> None:
    session = Large(pair.urls[1])
    with ExitStack() as stack:
        slow = [stack.enter_context(RawWebSocket(pair.urls[i % 2], session.id, receive_bytes=4096)) for i in range(4)]
        fast = [Follower(stack.enter_context(RawWebSocket(pair.urls[i % 2], session.id))) for i in range(4)]
        wait_until(lambda: all(follower.versions for follower in fast))
        began_s = time.monotonic()
        for i in range(200):
            newest = session.switch()
            time.sleep(max(0.0, began_s + i * 0.05 - time.monotonic()))
        wait_until(lambda: all(newest in follower.seen_s for follower in fast))
        time.sleep(max(0.0, began_s + 10 - time.monotonic()))
        for follower in fast:
            # On a busy machine this process is sometimes slow itself. The delay is measured in bench/; a client that
            # waited for the slow ones would have seen next to nothing within these 10 s.
            assert follower.versions == sorted(set(follower.versions))
            assert len(follower.versions) > 100
            waits_s = sorted(
                follower.seen_s[v] - session.switched_s[v] for v in session.switched_s if v in follower.seen_s
            )
            assert waits_s[len(waits_s) // 2] < 2
            assert waits_s[-1] < 8
        for raw in slow:
            frames = read_until(raw, newest)
            check_versions(frames)
            assert len(frames) < 40
            assert version_of(frames[-1]) == newest


def test_a_client_that_never_reads_is_closed_and_costs_a_bounded_amount_of_memory(impatient: Cluster) -> None:
    url, session = impatient.urls[0], Large(impatient.urls[0])
    worker = psutil.Process(impatient.web[0].pid).children()[0]
    count = 40
    with ExitStack() as stack:
        fast = Follower(stack.enter_context(RawWebSocket(url, session.id)))
        slow = [stack.enter_context(RawWebSocket(url, session.id, receive_bytes=4096)) for _ in range(count)]
        for raw in slow:
            raw.message("STATE_SYNC")  # the last that it reads
        wait_until(lambda: fast.versions)
        before = worker.memory_info().rss
        for _ in range(30):
            newest = session.switch()
        # All queues share the same bytes.
        assert worker.memory_info().rss - before < 20 * MAX_BYTES
        wait_until(lambda: metric_value(url, "syncapp_ws_connections") == 1, SLOW_CLOSE_S + 60)
        assert metric_value(url, 'syncapp_ws_closed_total{code="1013"}') >= count
        wait_until(lambda: newest in fast.seen_s)
        for raw in slow:
            check_versions(frames := cut_off(raw))
            assert CLOSE not in [frame.opcode for frame in frames]
    assert (
        len(re.findall(rf"websocket closed .*by=server code=1013 .*{session.id}", impatient.web[0].output())) >= count
    )


def cut_off(raw: RawWebSocket) -> list[Frame]:
    """Return the complete frames of a stream that may end within one."""
    frames: list[Frame] = []
    with suppress(ConnectionEnded, AssertionError):
        while True:
            frames.append(raw.next())
    return frames


def test_a_client_that_sends_and_does_not_read_is_held_up_and_closed(impatient: Cluster) -> None:
    url, session = impatient.urls[0], Large(impatient.urls[0])
    worker = psutil.Process(impatient.web[0].pid).children()[0]
    with RawWebSocket(url, session.id, receive_bytes=4096) as raw:
        raw.message("STATE_SYNC")
        before = worker.memory_info().rss
        for _ in range(20):
            session.switch()
        raw.socket.settimeout(0.5)
        sent = 0
        with suppress(OSError):
            for _ in range(150):
                raw.send(b'{"type":"PING","t0":1,"x":"' + b"x" * 60_000 + b'"}')
                sent += 60_000
        assert sent < 150 * 60_000
        assert worker.memory_info().rss - before < 30_000_000
        wait_until(lambda: metric_value(url, "syncapp_ws_connections") == 0, SLOW_CLOSE_S + 60)

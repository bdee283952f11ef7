"""Loops survive any exception of a turn; a stuck loop is named."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import redis as redis_py
import requests

from syncapp.loops import STUCK_S, Loops
from tests.support.captured_logs import capture_own_logs
from tests.support.cluster import Cluster, MakeCluster
from tests.support.step_clock import StepClock
from tests.support.web_clients import RestClient, metric_value, wait_until


@pytest.fixture
def stopped() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


@pytest.mark.parametrize("error", [ValueError("a reply"), TypeError(), redis_py.ResponseError("BUSY"), MemoryError()])
def test_no_exception_ends_a_loop_and_a_row_of_them_is_logged_once(error: Exception, stopped: threading.Event) -> None:
    turns: list[int] = []
    loops = Loops()

    def turn() -> float:
        turns.append(len(turns))
        if len(turns) in (2, 3, 4):
            raise error
        return 0.001

    with capture_own_logs() as logs:
        loops.start("it", turn, stopped)
        wait_until(lambda: len(turns) > 6)
    assert [line["event"] for line in logs if line.get("loop") == "it"] == ["loop_failed", "loop_recovered"]
    assert loops.unwell() == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # the test expects it to end
def test_a_loop_that_is_stuck_or_whose_thread_has_ended_is_named(stopped: threading.Event) -> None:
    clock, go_on, began = StepClock(), threading.Event(), threading.Event()

    def stick() -> None:
        began.set()
        go_on.wait(30)

    def end() -> None:
        raise SystemExit

    loops = Loops(clock)
    loops.start("stuck", stick, stopped)
    began.wait(30)
    assert "stuck" not in loops.unwell()
    clock.now_s += STUCK_S + 1
    assert "stuck" in loops.unwell()
    loops.heartbeat("stuck")
    assert "stuck" not in loops.unwell()
    thread = loops.start("ended", end, stopped)
    thread.join(30)
    assert loops.unwell() == ["ended"]
    go_on.set()


def test_a_loop_that_was_stopped_is_not_missed(stopped: threading.Event) -> None:
    loops, ends = Loops(), []
    thread = loops.start("it", lambda: 0.001, stopped, at_end=lambda: ends.append(1))
    stopped.set()
    thread.join(30)
    assert loops.unwell() == []
    assert ends == [1]


@pytest.fixture(scope="module")
def busy_cluster(make_cluster: MakeCluster) -> Cluster:
    return make_cluster(web=1)


def test_a_server_that_is_busy_for_seconds_ends_no_loop_of_web_or_worker(
    busy_cluster: Cluster, redis_url: str, redis: redis_py.Redis
) -> None:
    (url,) = busy_cluster.urls
    api = RestClient(url)
    session_id = api.running()
    with redis_py.Redis.from_url(redis_url) as other:
        limit = other.config_get("busy-reply-threshold")["busy-reply-threshold"]
        other.config_set("busy-reply-threshold", 50)
        loop = threading.Thread(target=_block, args=(other,))
        loop.start()
        try:
            # Every loop has met BUSY.
            wait_until(lambda: requests.get(f"{url}/ready", timeout=30).status_code == 503, within_s=60)
            assert "busy" in requests.get(f"{url}/ready", timeout=30).text
            assert requests.get(f"{url}/metrics", timeout=30).status_code == 200
            assert requests.get(f"{url}/v1/audit/queue", timeout=30).status_code == 503
            threading.Event().wait(6)  # the worker looks at its buckets every 5 s
        finally:
            wait_until(lambda: _killed(redis_url), within_s=60)
            loop.join(60)
            other.config_set("busy-reply-threshold", int(limit))
    wait_until(lambda: requests.get(f"{url}/ready", timeout=30).status_code == 200, within_s=60)
    api.command(session_id, "switch")
    # No drain request comes for this one; only the worker's own look finds it.
    redis.delete(*[f"sync:{{b{bucket:02d}}}:nudge" for bucket in range(64)])
    wait_until(lambda: metric_value(url, 'syncapp_audit_queue{state="waiting"}') == 0, within_s=60)
    wait_until(lambda: _seconds_since(url, "sweeper") < 30, within_s=60)


def _block(client: redis_py.Redis) -> None:
    with pytest.raises(redis_py.RedisError):
        client.eval("while true do end", 0)


def _killed(redis_url: str) -> bool:
    with redis_py.Redis.from_url(redis_url) as client:
        try:
            client.script_kill()
        except redis_py.ResponseError as error:
            return "NOTBUSY" in str(error)
    return False


def _seconds_since(url: str, loop: str) -> float:
    import time

    return time.time() - metric_value(url, f'syncapp_loop_turned_timestamp_seconds{{loop="{loop}"}}')

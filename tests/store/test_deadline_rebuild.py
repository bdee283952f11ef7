"""Deleted deadlines are rebuilt without any request for their sessions, while the sweep goes on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import redis as redis_py
import requests
import structlog
from prometheus_client import REGISTRY
from structlog.testing import LogCapture

from syncapp.dev.runner import ROOT, app_env
from syncapp.dev.servers import Servers
from syncapp.store import deadline_rebuild as rebuild_module
from syncapp.store.client import connect
from syncapp.store.deadline_rebuild import SCANNING, DeadlineRebuild
from syncapp.store.keys import COMPLETE, SENTINEL, Keyspace
from syncapp.store.sessions import SessionStore
from syncapp.store.sweeper import Sweeper
from tests.support.cluster import MakeCluster
from tests.support.store import PARTIALS, ManualClock, chess_request, make_settings, make_store, outbox_messages
from tests.support.web_clients import wait_until

KEYS = Keyspace()
ALL = [KEYS.deadlines(bucket) for bucket in range(KEYS.buckets)]


class FastClock:
    """A clock that ends each slice at once, so that a step is one round trip."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        self.now_s += 1.0
        return self.now_s


@pytest.fixture
def rebuild(clock: ManualClock, redis_url: str) -> DeadlineRebuild:
    chosen = make_settings(redis_url)
    client = connect(chosen)
    return DeadlineRebuild(client, SessionStore(client, chosen, partials=PARTIALS), KEYS, FastClock())


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    """Log lines of the rebuild."""
    capture = LogCapture()
    recorder = structlog.wrap_logger(None, processors=[capture], wrapper_class=structlog.make_filtering_bound_logger(0))
    monkeypatch.setattr(rebuild_module, "log", recorder)
    return capture


def sentinel_scores(client: redis_py.Redis) -> set[float | None]:
    """Scores of the sentinels of all buckets."""
    return {client.zscore(key, SENTINEL) for key in ALL}


def scheduled(client: redis_py.Redis) -> dict[str, float]:
    """Return the deadlines of all sessions in the store."""
    found: dict[str, float] = {}
    for key in ALL:
        entries: Any = client.zrange(key, 0, -1, withscores=True)
        found |= {name.decode(): score for name, score in entries if name.decode() != SENTINEL}
    return found


def steps_until_complete(rebuild: DeadlineRebuild, client: redis_py.Redis) -> int:
    """Take steps until every set is marked complete; return how many it took."""
    for count in range(1, 10_000):
        rebuild.step(held=True)
        if sentinel_scores(client) == {float(COMPLETE)}:
            return count
    raise AssertionError("the sets were never marked complete")


def started(store: SessionStore, count: int, **more: Any) -> list[str]:
    ids = [store.create(chess_request(**more)).found.session_id for _ in range(count)]
    for each in ids:
        store.start(each)
    return ids


def lost() -> float:
    return REGISTRY.get_sample_value("syncapp_deadlines_rebuilt_total") or 0.0


def test_deleted_deadlines_come_back_as_they_were(
    redis: redis_py.Redis, store: SessionStore, rebuild: DeadlineRebuild, logged: LogCapture
) -> None:
    started(store, 100)
    pending = store.create(chess_request()).found.session_id
    paused = started(store, 1)[0]
    store.pause(paused)
    ended = started(store, 1)[0]
    store.complete(ended)
    deleted = started(store, 1)[0]
    store.delete(deleted)
    steps_until_complete(rebuild, redis)
    before = scheduled(redis)
    assert {pending, paused} < before.keys()
    assert not {ended, deleted} & before.keys()

    redis.delete(*ALL)
    count = lost()
    steps_until_complete(rebuild, redis)
    assert scheduled(redis) == before
    assert lost() - count == len(before) == 102
    (entry,) = [entry for entry in logged.entries if entry["log_level"] == "warning"]
    assert (entry["event"], entry["buckets"], entry["sessions"], entry["failed"]) == ("deadlines_rebuilt", 64, 102, 0)


def test_a_set_that_commands_have_filled_in_part_is_rebuilt_too(
    redis: redis_py.Redis, store: SessionStore, rebuild: DeadlineRebuild
) -> None:
    ids = started(store, 60)
    steps_until_complete(rebuild, redis)
    before = scheduled(redis)
    redis.delete(*ALL)
    for each in ids[:30]:
        store.get(each)
        store.switch(each)
    assert 0 < len(scheduled(redis)) < 60
    steps_until_complete(rebuild, redis)
    assert scheduled(redis).keys() == before.keys()


def test_one_deleted_key_is_rebuilt_and_the_others_are_left_alone(
    redis: redis_py.Redis, store: SessionStore, rebuild: DeadlineRebuild
) -> None:
    ids = started(store, 60)
    steps_until_complete(rebuild, redis)
    before = scheduled(redis)
    bucket = KEYS.bucket(ids[0])
    redis.delete(KEYS.deadlines(bucket))
    count = lost()
    steps_until_complete(rebuild, redis)
    assert scheduled(redis) == before
    assert lost() - count == sum(KEYS.bucket(each) == bucket for each in ids)


def test_a_set_that_is_deleted_again_during_the_walk_is_not_marked_complete_before_it_is(
    redis: redis_py.Redis, store: SessionStore, rebuild: DeadlineRebuild
) -> None:
    started(store, 200)
    steps_until_complete(rebuild, redis)
    before = scheduled(redis)
    for at in range(1, 40, 4):
        redis.delete(*ALL)
        for _ in range(at):
            rebuild.step(held=True)
        redis.delete(*ALL)
        steps_until_complete(rebuild, redis)
        assert scheduled(redis) == before, f"deleted after {at} steps"


def test_a_walk_is_given_up_with_the_lease_and_done_by_the_next_holder(
    redis: redis_py.Redis, store: SessionStore, rebuild: DeadlineRebuild, redis_url: str
) -> None:
    started(store, 200)
    redis.delete(*ALL)
    rebuild.step(held=True)
    assert sentinel_scores(redis) == {float(SCANNING)}
    rebuild.step(held=False)
    another = DeadlineRebuild(connect(make_settings(redis_url)), store, KEYS, FastClock())
    steps_until_complete(another, redis)
    assert len(scheduled(redis)) == 200


def test_a_new_store_is_marked_without_a_warning_and_its_sentinels_are_no_sessions(
    redis: redis_py.Redis, store: SessionStore, rebuild: DeadlineRebuild, logged: LogCapture
) -> None:
    steps_until_complete(rebuild, redis)
    assert {entry["log_level"] for entry in logged.entries} == {"info"}
    assert list(store.scheduled()) == []


def test_what_is_no_session_of_ours_holds_nothing_up(
    redis: redis_py.Redis, store: SessionStore, rebuild: DeadlineRebuild, logged: LogCapture
) -> None:
    ids = started(store, 20)
    broken = started(store, 1)[0]
    redis.hset(KEYS.session(broken), "scalars", "1 2")
    redis.set("sync:{b00}:session:nothing", "not ours")
    redis.set("sync:{b99}:session:", "not ours")
    redis.delete(*ALL)
    steps_until_complete(rebuild, redis)
    assert scheduled(redis).keys() == set(ids)
    assert [entry["session_id"] for entry in logged.entries if entry["event"] == "session_not_scheduled"] == [broken]


def test_a_store_that_takes_no_writes_is_walked_again_when_it_does(
    redis: redis_py.Redis, store: SessionStore, rebuild: DeadlineRebuild, logged: LogCapture
) -> None:
    ids = started(store, 20)
    steps_until_complete(rebuild, redis)
    redis.delete(*ALL)
    redis.config_set("maxmemory", 1)
    try:
        for _ in range(100):
            rebuild.step(held=True)
        assert "deadlines_not_rebuilt" in {entry["event"] for entry in logged.entries}
    finally:
        redis.config_set("maxmemory", 0)
    steps_until_complete(rebuild, redis)
    assert scheduled(redis).keys() == set(ids)


def test_the_sweep_goes_on_while_a_walk_runs(
    redis: redis_py.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rebuild_module, "_SLICE_S", 0.0)
    monkeypatch.setattr(rebuild_module, "_SCAN_COUNT", 10)
    with redis.pipeline(transaction=False) as pipe:
        for number in range(50_000):
            pipe.set(f"other:{number}", "")
        pipe.execute()
    store = make_store(redis_url, set_clock=False)
    chosen = make_settings(redis_url)
    client = connect(chosen)
    sweeper = Sweeper(client, SessionStore(client, chosen))
    sweeper.start()
    try:
        (session,) = started(store, 1, budget_ms=1000)
        wait_until(
            lambda: "participant_expired" in [each["event"]["type"] for each in outbox_messages(redis, session)], 90
        )
        assert sentinel_scores(redis) == {float(SCANNING)}, "the scan ended before the session expired"
    finally:
        sweeper.stop()


def test_sessions_time_out_though_their_deadlines_were_deleted_and_nobody_comes(
    make_cluster: MakeCluster, servers: Servers, redis: redis_py.Redis, db: psycopg2.extensions.connection
) -> None:
    cluster = make_cluster(web=2, worker=True)
    wait_until(lambda: sentinel_scores(redis) == {float(COMPLETE)}, 90)
    ids = []
    for number in range(40):
        people = [{"participant_id": name, "total_time_ms": 3000} for name in ("white", "black")]
        body = {"sync_mode": "per_participant", "participants": people}
        made = requests.post(f"{cluster.urls[number % 2]}/v1/sessions", json=body, timeout=30).json()
        ids.append(made["data"]["session_id"])
    for each in ids:
        assert requests.post(f"{cluster.urls[0]}/v1/sessions/{each}/start", timeout=30).status_code == 200
    redis.delete(*ALL)
    # Commands write some deadlines again: the keys exist, but are incomplete.
    for each in ids[:10]:
        requests.post(f"{cluster.urls[1]}/v1/sessions/{each}/pause", timeout=30)
        requests.post(f"{cluster.urls[1]}/v1/sessions/{each}/resume", timeout=30)

    def ended() -> set[str]:
        with db.cursor() as cursor:
            cursor.execute("SELECT session_id::text FROM sync_events WHERE event_type = 'participant_expired'")
            return {session_id for (session_id,) in cursor.fetchall()}

    wait_until(lambda: ended() == set(ids), 90)
    holders = [web for web in cluster.web if "deadlines_rebuilt" in web.output()]
    assert len(holders) >= 1
    metrics = "".join(requests.get(f"{url}/metrics", timeout=30).text for url in cluster.urls)
    assert "syncapp_deadlines_rebuilt_total" in metrics

    # Afterwards everything works.
    again = requests.post(f"{cluster.urls[0]}/v1/sessions", json=body, timeout=30).json()["data"]["session_id"]
    requests.post(f"{cluster.urls[1]}/v1/sessions/{again}/start", timeout=30)
    wait_until(lambda: again in ended(), 90)
    flask = [str(Path(sys.executable).parent / "flask"), "--app", "wsgi", "audit", "verify"]
    env = app_env({}, servers)
    done = subprocess.run(flask, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr

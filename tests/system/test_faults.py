"""Servers that fail under load: acknowledged commands stay, failures are reported, late events arrive."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import redis as redis_py
import requests

from syncapp.dev.servers import Postgres, Valkey
from tests.support.client_threads import ClientThreads
from tests.support.cluster import Cluster
from tests.support.postgres_roles import run_sql
from tests.support.store import crowd_request, make_store
from tests.support.web_clients import CHESS, wait_until


class Load:
    """Threads that switch sessions through both web processes until they are stopped."""

    def __init__(self, clients: ClientThreads, sessions: list[str]) -> None:
        self.clients = clients
        self.answers: list[tuple[float, float, int]] = []
        self.acknowledged: Counter[str] = Counter()
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._switch, args=(i, session)) for i, session in enumerate(sessions)]

    def _switch(self, number: int, session: str) -> None:
        count = number
        while not self._stop.is_set():
            count += 1
            began_s = time.monotonic()
            answer = self.clients.post(count, f"/{session}/switch", Prefer="return=minimal")
            ended_s = time.monotonic()
            self.answers.append((began_s, ended_s, answer.status_code))
            self.acknowledged[session] += answer.status_code == 200
            time.sleep(0.01)

    @contextmanager
    def running(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()


@pytest.fixture(scope="module")
def clients(cluster: Cluster) -> ClientThreads:
    return ClientThreads(cluster, 16)


def test_a_restart_of_the_store_fails_only_what_comes_during_the_outage(clients: ClientThreads, valkey: Valkey) -> None:
    sessions = [clients.running() for _ in range(6)]
    load = Load(clients, sessions)
    with load.running():
        time.sleep(1)
        down_s = time.monotonic()
        valkey.stop()
        wait_until(lambda: any(status == 503 for _, _, status in load.answers))
        time.sleep(0.5)
        valkey.start()
        up_s = time.monotonic()
        wait_until(lambda: sum(began > up_s and status == 200 for began, _, status in load.answers) > 50)
    assert {status for _, _, status in load.answers} <= {200, 503}
    failed = [(began, ended) for began, ended, status in load.answers if status == 503]
    assert failed
    assert all(ended >= down_s and began <= up_s for began, ended in failed)
    for session in sessions:
        state = requests.get(f"{clients.urls[0]}/{session}", timeout=60).json()["data"]
        # A switch whose answer was lost may have happened; an acknowledged one has.
        lost = sum(status == 503 for _, _, status in load.answers)
        assert load.acknowledged[session] <= state["cycle_count"] <= load.acknowledged[session] + lost
        assert state["version"] == state["cycle_count"] + 2


def test_an_outage_of_postgresql_is_not_seen_by_clients_and_loses_nothing(
    clients: ClientThreads, postgres: Postgres, database_url: str, redis_url: str
) -> None:
    sessions = [clients.running() for _ in range(6)]
    load = Load(clients, sessions)
    try:
        with load.running():
            time.sleep(2)
            down_s = time.monotonic()
            postgres.stop()
            time.sleep(5)
            up_s = time.monotonic()
            postgres.start()
            time.sleep(1)
    finally:
        if not postgres.alive:
            postgres.start()
    assert {status for _, _, status in load.answers} == {200}
    before = sorted(ended - began for began, ended, _ in load.answers if ended < down_s)
    during = sorted(ended - began for began, ended, _ in load.answers if down_s < began and ended < up_s)
    # A request that waited for PostgreSQL would take seconds; smaller slowdowns are measured in bench/.
    assert during[len(during) // 2] < max(1.0, 3 * before[len(before) // 2])
    query = (
        "SELECT session_id::text, count(*), count(DISTINCT version), max(version) FROM sync_events"
        " WHERE session_id = ANY(%s::uuid[]) GROUP BY 1"
    )
    expected = {(session, n := load.acknowledged[session] + 2, n, n) for session in sessions}
    wait_until(lambda: set(run_sql(database_url, query, sessions)) == expected, within_s=120)


def test_a_killed_worker_neither_loses_nor_doubles_an_event(
    cluster: Cluster, redis_url: str, database_url: str
) -> None:
    cluster.worker.kill()
    store = make_store(redis_url, set_clock=False)
    sessions = [store.create(crowd_request(2, 86_400_000)).found.session_id for _ in range(10)]
    for session in sessions:
        store.start(session)
        for _ in range(498):
            store.switch(session)
    cluster.worker.start()
    query = "SELECT count(*) FROM sync_events WHERE session_id = ANY(%s::uuid[])"
    wait_until(lambda: bool(run_sql(database_url, query, sessions)[0][0] > 500), within_s=120)
    cluster.worker.kill()
    cluster.worker.start()
    wait_until(lambda: bool(run_sql(database_url, query, sessions)[0][0] >= 5000), within_s=120)
    each = "SELECT count(*), count(DISTINCT version), max(version) FROM sync_events WHERE session_id = %s"
    assert {run_sql(database_url, each, session)[0] for session in sessions} == {(500, 500, 500)}


def test_a_switch_costs_the_server_about_the_same_at_any_number_of_participants(
    redis: redis_py.Redis, redis_url: str
) -> None:
    store = make_store(redis_url, set_clock=False)
    cost_us: dict[int, float] = {}
    for count in (2, 1000):
        session = store.create(crowd_request(count, 86_400_000)).found.session_id
        store.start(session)
        best = float("inf")
        for _ in range(5):
            redis.config_resetstat()
            for _ in range(90):
                store.switch(session)
            best = min(best, float(redis.info("commandstats")["cmdstat_fcall"]["usec_per_call"]))
        cost_us[count] = best
    # A cost that grows with the participants would be twenty times as large; the exact ratio is for bench/.
    assert cost_us[1000] < 8 * cost_us[2], cost_us


def test_a_worker_that_stops_hands_over_what_it_had_begun(
    cluster: Cluster, clients: ClientThreads, database_url: str
) -> None:
    session = clients.running(metadata={"who": CHESS["sync_mode"]})
    cluster.worker.pause()
    try:
        for i in range(20):
            assert clients.post(i, f"/{session}/switch").status_code == 200
    finally:
        cluster.worker.unpause()
    query = "SELECT count(*) FROM sync_events WHERE session_id = %s"
    wait_until(lambda: bool(run_sql(database_url, query, session)[0][0] == 22), within_s=120)

"""Many sessions expire on two real web processes: each once, at its deadline's own instant, and on time.

The lateness comes from the outbox, whose entries carry the instant of their commit; it is printed
(`pytest -rP`), not asserted, because it depends on the machine. With CI set there are fewer sessions.
"""

from __future__ import annotations

import os
import random
import statistics
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import redis as redis_py
import requests

from syncapp.domain.schemas import CreateSession
from syncapp.errors import InvalidTransition
from syncapp.store.keys import Keyspace
from tests.support.cluster import Cluster, MakeCluster
from tests.support.store import make_store, published
from tests.support.web_clients import wait_until

SESSIONS, OVER_S = (250, 4) if os.environ.get("CI") else (1000, 10)
PAIR = [{"participant_id": name} for name in ("white", "black")]
ENDS = ("participant_expired", "session_expired")


@dataclass(frozen=True)
class Commit:
    """One message of the outbox, and the instant (ms) it was committed at."""

    at_ms: int
    committed_ms: int
    version: int
    word: str
    actor: str


class Load:
    """Sessions and clients of both web processes; records the deadline of every state in an answer.

    Sessions are created directly in the store, so that the web processes only handle expiries and commands.
    """

    def __init__(self, cluster: Cluster, redis_url: str) -> None:
        self.urls = [f"{url}/v1/sessions" for url in cluster.urls]
        self.http = requests.Session()
        self.http.mount("http://", requests.adapters.HTTPAdapter(pool_connections=4, pool_maxsize=32))
        self.store = make_store(redis_url, set_clock=False)
        self.deadlines: dict[tuple[str, int], int] = {}

    def start(self, until_s: float, **body: Any) -> str:
        """Return a running session that expires about when time.time() says `until_s`."""
        budget_ms = max(1000, round((until_s - time.time()) * 1000))
        if body["sync_mode"] == "per_participant":
            body["participants"] = [person | {"total_time_ms": budget_ms} for person in PAIR]
        else:
            body |= {"participants": PAIR, "total_time_ms": budget_ms}
        session_id = self.store.create(CreateSession.parse(body)).found.session_id
        done = self.store.start(session_id)
        self._note(done.found.state(done.now_ms))
        return session_id

    def command(self, session_id: str) -> int:
        """Send a command to one of the web processes; return the status."""
        path, json = random.choice([("switch", None), ("adjust", {"op": "add", "ms": random.randint(-40, 40)})])
        answer = self.http.post(f"{random.choice(self.urls)}/{session_id}/{path}", json=json, timeout=60)
        if answer.ok:
            self._note(answer.json()["data"])
        return answer.status_code

    def _note(self, state: dict[str, Any]) -> None:
        self.deadlines[state["session_id"], state["version"]] = state["clock"]["deadline_ms"]


@pytest.fixture(scope="module")
def cluster(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    """Two web processes without a worker: the outbox keeps what was committed."""
    with redis_py.Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(worker=False)


@pytest.fixture
def load(cluster: Cluster, redis_url: str) -> Iterator[Load]:
    found = Load(cluster, redis_url)
    yield found
    found.http.close()


@pytest.fixture
def outbox(redis: redis_py.Redis) -> redis_py.Redis:
    return redis


def commits(client: redis_py.Redis) -> dict[str, list[Commit]]:
    """Return the commits of each session."""
    found: dict[str, list[Commit]] = defaultdict(list)
    keys = Keyspace()
    for bucket in range(keys.buckets):
        entries: Any = client.xrange(keys.outbox(bucket))
        for stream_id, fields in entries:
            message = published(fields[b"message"])
            event = message["event"]
            commit = Commit(
                event["at_ms"], int(stream_id.split(b"-")[0]), message["version"], event["type"], message["actor"]
            )
            found[message["session_id"]].append(commit)
    return found


def ends(client: redis_py.Redis, sessions: list[str]) -> dict[str, Commit]:
    """The expiry of each session, when all have expired; each has exactly one, and it is the last commit."""
    end_s, keys = time.monotonic() + 120, Keyspace()
    live = {session: keys.deadlines(keys.bucket(session)) for session in sessions}
    while live and time.monotonic() < end_s:
        time.sleep(0.25)
        with client.pipeline(transaction=False) as pipe:
            for session, key in live.items():
                pipe.zscore(key, session)
            scores = pipe.execute()
        live = {session: key for (session, key), score in zip(live.items(), scores, strict=True) if score is not None}
    found = commits(client)
    for session in sessions:
        assert [commit.version for commit in found[session]] == list(range(1, len(found[session]) + 1))
        assert [commit.word in ENDS for commit in found[session]].count(True) == 1
        assert found[session][-1].actor == "system"
    return {session: found[session][-1] for session in sessions}


def report(title: str, found: dict[str, Commit]) -> list[int]:
    """Print how late the expiries were (ms); return it, in order."""
    late = sorted(commit.committed_ms - commit.at_ms for commit in found.values())
    p99 = statistics.quantiles(late, n=100)[98]
    print(f"{title}: {len(late)} expiries, late by p50 {late[len(late) // 2]}, p99 {p99:.0f}, at most {late[-1]} ms")
    return late


def metric(cluster: Cluster, name: str) -> float:
    """Sum of a metric over the web processes."""
    total = 0.0
    for url in cluster.urls:
        lines = requests.get(f"{url}/metrics", timeout=60).text.splitlines()
        total += sum(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))
    return total


def test_sessions_that_expire_while_commands_run_expire_once_at_their_deadlines(
    cluster: Cluster, load: Load, outbox: redis_py.Redis
) -> None:
    swept = metric(cluster, "syncapp_expiry_lateness_seconds_count")
    first_s = time.time() + 1 + SESSIONS / 200
    until_s = [first_s + random.random() * OVER_S for _ in range(SESSIONS)]
    commanded: list[str] = []
    over = threading.Event()
    statuses: Counter[int] = Counter()

    def command() -> None:
        while not over.wait(0.02):
            if commanded:
                statuses[load.command(random.choice(commanded))] += 1

    threads = [threading.Thread(target=command) for _ in range(4)]
    for thread in threads:  # before the sessions, which a slow machine makes until the first have expired
        thread.start()
    for each in until_s[::3]:
        commanded.append(load.start(each, sync_mode="global"))  # noqa: PERF401 the threads use each at once
    quiet = [load.start(each, sync_mode="per_participant") for each in until_s[1::3] + until_s[2::3]]
    time.sleep(max(0.0, first_s + OVER_S + 0.5 - time.time()))
    over.set()
    for thread in threads:
        thread.join()

    found = ends(outbox, commanded + quiet)
    assert set(statuses) == {200, 400}
    past = commits(outbox)
    for session, end in found.items():
        # No state is shown between an adjustment to zero and the expiry, so the adjustment is the deadline.
        adjusted_ms = past[session][-2].at_ms
        assert end.at_ms == load.deadlines.get((session, end.version - 1), adjusted_ms)
        assert end.committed_ms >= end.at_ms
    assert report(f"{OVER_S} s, {statuses.total()} commands", found)[-1] < 10_000
    assert metric(cluster, "syncapp_expiry_lateness_seconds_count") - swept > SESSIONS / 2
    wait_until(lambda: metric(cluster, "syncapp_swept_buckets") == Keyspace().buckets)
    assert metric(cluster, "syncapp_sweepers") == 2
    for session in random.sample(commanded + quiet, 20):
        for url in load.urls:
            assert load.http.get(f"{url}/{session}", timeout=60).json()["data"]["status"] == "expired"


def test_sessions_that_expire_all_at_once_do_so_once_each(load: Load, outbox: redis_py.Redis) -> None:
    until_s = time.time() + 1 + SESSIONS / 200
    sessions = [load.start(until_s, sync_mode="per_participant") for _ in range(SESSIONS)]
    found = ends(outbox, sessions)
    assert all(end.at_ms == load.deadlines[session, 2] for session, end in found.items())
    assert report("all at once", found)[-1] < 10_000


def test_the_past_is_right_when_no_web_process_was_there(cluster: Cluster, load: Load, outbox: redis_py.Redis) -> None:
    game = load.start(time.time() + 5, sync_mode="per_participant")
    made = load.store.create(
        CreateSession.parse({"sync_mode": "per_cycle", "time_per_cycle_ms": 1000, "participants": PAIR})
    )
    rounds = made.found.session_id
    started_ms = load.store.start(rounds).now_ms
    try:
        for web in cluster.web:
            web.kill()
        time.sleep(max(0.0, (max(load.deadlines[game, 2], started_ms + 5000) - load.store.time_ms()) / 1000 + 0.1))
        before = commits(outbox)
        assert [commit.word for commit in before[game]] == ["session_created", "session_started"]
        with pytest.raises(InvalidTransition) as refused:
            load.store.switch(game)
        assert (refused.value.details or {})["expired_participant_id"] == "white"
        state = load.store.switch(rounds).found
    finally:
        for web in cluster.web:
            web.start()
    assert ends(outbox, [game])[game].at_ms == load.deadlines[game, 2]
    found = [commit for commit in commits(outbox)[rounds] if commit.version <= state.version]
    timeouts = [commit.at_ms for commit in found if commit.word == "cycle_timed_out"]
    assert timeouts == [started_ms + 1000 * cycle for cycle in range(1, len(timeouts) + 1)]
    assert len(timeouts) >= 5
    assert found[-1].word == "cycle_switched"
    assert 0 <= found[-1].at_ms - timeouts[-1] < 1000
    assert state.cycle_count == len(timeouts) + 1

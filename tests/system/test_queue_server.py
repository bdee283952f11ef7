"""The task queue on its own server: with real processes, while that server is killed, hangs and comes back."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from syncapp import connection_limits
from syncapp.config import Settings
from syncapp.dev.servers import Postgres, Valkey
from tests.support.cluster import Cluster, MakeCluster
from tests.support.outboxes import count_rows
from tests.support.types import Db, Redis
from tests.support.web_clients import RestClient, metric_value, wait_until

QUEUE = "huey.redis.syncapp"
TIMEOUT_S = 4.0
SETTINGS = {"REDIS_TIMEOUT_S": str(TIMEOUT_S), "WORKER_THREADS": "2", "AUDIT_RETRY_DELAY_S": "1", "LOG_FORMAT": "json"}


@pytest.fixture(scope="module")
def started(run_directory: Path) -> Iterator[Valkey]:
    data = Path(tempfile.mkdtemp(prefix="tasks-", dir=run_directory))
    server = Valkey(run_directory, data / "valkey")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def processes(make_cluster: MakeCluster, started: Valkey) -> Cluster:
    return make_cluster(web=1, worker=True, TASKS_REDIS_URL=started.url, **SETTINGS)


@pytest.fixture
def server(started: Valkey, processes: Cluster) -> Iterator[Valkey]:
    """The queue's server; it runs again afterwards, and so does the worker, and both have noticed."""
    yield started
    started.unpause()
    if not started.alive:
        started.start()
    processes.worker.unpause()
    if not processes.worker.alive:
        processes.worker.start()
    wait_until(lambda: not worry(processes))


@pytest.fixture
def api(processes: Cluster) -> RestClient:
    return RestClient(processes.urls[0])


def ready(processes: Cluster) -> dict[str, Any]:
    answer = requests.get(f"{processes.urls[0]}/ready", timeout=60)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def worry(processes: Cluster) -> str:
    return next((each for each in ready(processes).get("worries", []) if "task queue" in each), "")


def counts(processes: Cluster) -> dict[str, Any]:
    answer = requests.get(f"{processes.urls[0]}/v1/audit/queue", timeout=60)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()["data"]
    return found


def play(api: RestClient, session: str, switches: int = 10) -> int:
    """Switch; return the session's version, which is how many events it has."""
    for _ in range(switches):
        version = api.command(session, "switch")["version"]
    return int(version)


def wait_stored(db: Db, session: str, version: int) -> None:
    """Wait until each event of a session is in the log, once."""
    query = f"SELECT count(*) FROM sync_events WHERE session_id = '{session}'"
    wait_until(lambda: count_rows(db, query) == version)
    assert count_rows(db, "SELECT count(*) FROM sync_dead_letters") == 0


def check_that_tasks_pass_through(server: Valkey, processes: Cluster, api: RestClient, db: Db, session: str) -> None:
    with Redis.from_url(server.url, socket_timeout=60) as client:
        processes.worker.pause()
        try:
            # Soon after a drain was requested, commits request no other.
            wait_until(lambda: play(api, session, 1) and client.llen(QUEUE))
        finally:
            processes.worker.unpause()
        wait_until(lambda: not client.llen(QUEUE))  # only a reader of the queue removes a task
    wait_stored(db, session, play(api, session, 1))


def test_the_queue_is_on_its_own_server_and_nothing_of_it_in_the_store(
    server: Valkey, processes: Cluster, api: RestClient, db: Db, redis: Redis
) -> None:
    session = api.running()
    check_that_tasks_pass_through(server, processes, api, db, session)
    assert counts(processes)["delayed"] == 0
    assert redis.keys("huey.*") == []
    chosen = Settings(redis_url="redis://store", tasks_redis_url=server.url, worker_threads=2)
    most = connection_limits.queue_of_web(chosen) + connection_limits.queue_of_worker(chosen)
    with Redis.from_url(server.url, socket_timeout=60) as client:
        assert client.keys("sync:*") == []
        assert 2 <= len(client.client_list()) - 1 <= most
        # A scheduled retry is counted there.
        client.zadd("huey.schedule.syncapp", {"a task of the year 2100": 4_102_444_800})
        try:
            assert counts(processes)["delayed"] == 1
            assert metric_value(processes.urls[0], 'syncapp_audit_queue{state="delayed"}') == 1
        finally:
            client.delete("huey.schedule.syncapp")


def test_when_the_queues_server_is_killed_commands_go_on_and_events_are_stored(
    server: Valkey, processes: Cluster, api: RestClient, db: Db
) -> None:
    session = api.running()
    play(api, session)
    server.kill()
    wait_stored(db, session, play(api, session))
    wait_until(lambda: worry(processes))
    assert worry(processes) == "the server of the task queue does not answer: audit events wait up to 5 s"
    wait_stored(db, session, play(api, session))
    assert counts(processes)["delayed"] is None
    assert counts(processes)["waiting"] == 0
    assert math.isnan(metric_value(processes.urls[0], 'syncapp_audit_queue{state="delayed"}'))
    assert metric_value(processes.urls[0], 'syncapp_audit_queue{state="waiting"}') == 0
    server.start()
    wait_until(lambda: not worry(processes))
    check_that_tasks_pass_through(server, processes, api, db, session)
    assert counts(processes)["delayed"] == 0
    assert "Traceback" not in processes.worker.output() + processes.web[0].output()


def test_a_server_of_the_queue_that_hangs_stalls_no_loop(
    server: Valkey, processes: Cluster, api: RestClient, db: Db
) -> None:
    session = api.running()
    play(api, session)
    server.pause()
    wait_stored(db, session, play(api, session, 50))
    wait_until(lambda: worry(processes))
    assert "does not answer in time: audit events wait" in worry(processes)
    assert counts(processes)["delayed"] is None
    wait_stored(db, session, play(api, session, 50))
    server.unpause()
    wait_until(lambda: not worry(processes))
    check_that_tasks_pass_through(server, processes, api, db, session)
    assert "Traceback" not in processes.worker.output() + processes.web[0].output()


def test_a_worker_that_starts_without_the_queues_server_drains_and_uses_it_later(
    server: Valkey, processes: Cluster, api: RestClient, db: Db
) -> None:
    session, worker = api.running(), processes.worker
    server.kill()
    worker.stop()
    before = len(worker.output())
    version = play(api, session)
    worker.start()
    wait_stored(db, session, version)
    wait_stored(db, session, play(api, session))
    wait_until(lambda: '"task_queue_unfit"' in worker.output()[before:])
    lines = worker.output()[before:]
    assert lines.count('"task_queue_unfit"') == 1
    assert "Traceback" not in lines
    assert "ERROR:" not in lines  # Huey's own format
    assert '"level": "error"' not in lines

    worker.ask_to_stop()
    wait_until(lambda: not worker.alive)
    assert worker.exit_code == 0
    worker.start()
    wait_until(lambda: worker.output()[before:].count('"task_queue_unfit"') == 2)
    server.start()
    wait_until(lambda: '"task_queue_fit"' in worker.output()[before:])
    wait_until(lambda: not worry(processes))
    check_that_tasks_pass_through(server, processes, api, db, session)


def test_a_worker_can_be_stopped_while_the_queues_server_hangs(server: Valkey, processes: Cluster) -> None:
    server.pause()
    wait_until(lambda: worry(processes))
    processes.worker.ask_to_stop()
    wait_until(lambda: not processes.worker.alive)
    assert processes.worker.exit_code == 0


def test_drains_that_failed_are_tried_again_without_the_queue(
    server: Valkey, processes: Cluster, api: RestClient, db: Db, postgres: Postgres
) -> None:
    session = api.running()
    play(api, session)
    server.kill()
    before = len(processes.worker.output())
    wait_until(lambda: '"task_queue_unfit"' in processes.worker.output()[before:])
    postgres.stop()
    try:
        version = play(api, session)
        wait_until(lambda: '"retries_left": 4' in processes.worker.output()[before:])
    finally:
        postgres.start()
    wait_until(lambda: counts(processes)["waiting"] + counts(processes)["active"] == 0)
    assert counts(processes)["delayed"] is None
    assert version == 12 + 10

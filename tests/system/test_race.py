"""Two real web processes and a worker: concurrent clients never break a session."""

from __future__ import annotations

import uuid

import pytest
import redis as redis_py
import requests

from syncapp.audit.outbox import Outbox
from syncapp.config import Settings
from syncapp.dev.processes import Process
from syncapp.store.keys import AUDIT_GROUP, Keyspace
from tests.support.client_threads import ClientThreads
from tests.support.cluster import Cluster
from tests.support.postgres_roles import run_sql
from tests.support.store import dump_session
from tests.support.web_clients import CHESS, wait_until


@pytest.fixture(scope="module")
def clients(cluster: Cluster) -> ClientThreads:
    return ClientThreads(cluster, 50)


def where_events_wait(client: redis_py.Redis, database_url: str) -> str:
    """Describe the outboxes, the task queue, and locks in PostgreSQL."""
    outbox = Outbox(client, Keyspace(Settings().sync_buckets))
    held = {bucket: backlog for bucket, backlog in outbox.backlogs().items() if backlog.waiting or backlog.active}
    readers = {bucket: client.xinfo_consumers(outbox.keyspace.outbox(bucket), AUDIT_GROUP) for bucket in held}
    queue = {key: client.type(key) for key in client.scan_iter("huey*")}
    tasks = {key: client.lrange(key, 0, -1) for key, kind in queue.items() if kind == b"list"}
    activity = run_sql(
        database_url,
        "SELECT pid, state, wait_event_type, wait_event, pg_blocking_pids(pid), now() - xact_start, left(query, 200)"
        " FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    return "\n".join(map(str, [held, readers, queue, tasks, *activity]))


def test_acknowledged_switches_are_versions_cycles_and_rows(
    cluster: Cluster, clients: ClientThreads, database_url: str, redis_url: str
) -> None:
    sessions = [clients.running() for _ in range(20)]
    calls = [
        lambda session=session, i=i: clients.post(i, f"/{session}/switch", Prefer="return=minimal")
        for i in range(50)
        for session in sessions
    ]
    answers = clients.at_once(calls)  # type: ignore[arg-type]  # lambdas with defaults
    assert {answer.status_code for answer in answers} == {200}
    versions = {(answer.json()["data"]["session_id"], answer.json()["data"]["version"]) for answer in answers}
    assert len(versions) == 1000
    for session in sessions:
        state = clients.http.get(f"{clients.urls[0]}/{session}").json()["data"]
        assert (state["version"], state["cycle_count"]) == (52, 50)
        assert sum(person["cycle_count"] for person in state["participants"]) == 50
    query = "SELECT count(*) FROM sync_events WHERE event_type = 'cycle_switched' AND session_id = ANY(%s::uuid[])"
    try:
        wait_until(lambda: bool(run_sql(database_url, query, sessions)[0][0] == 1000))
    except AssertionError:
        with redis_py.Redis.from_url(redis_url) as client:
            print(where_events_wait(client, database_url))
        raise


def test_of_fifty_with_the_same_expected_version_one_wins(clients: ClientThreads) -> None:
    session = clients.running()
    calls = [lambda i=i: clients.post(i, f"/{session}/switch", {"expected_version": 2}) for i in range(50)]
    answers = clients.at_once(calls)  # type: ignore[arg-type]  # lambdas with defaults
    won = [answer for answer in answers if answer.status_code == 200]
    lost = [answer for answer in answers if answer.status_code == 409]
    assert (len(won), len(lost)) == (1, 49)
    for answer in lost:
        error = answer.json()["error"]
        assert error["code"] == "CONFLICT"
        assert error["details"]["current"]["version"] == error["details"]["actual_version"] == 3


def test_a_command_retried_at_once_from_two_processes_commits_once(clients: ClientThreads, redis_url: str) -> None:
    session = clients.running()
    key = uuid.uuid4().hex
    answers = clients.at_once(
        [lambda i=i: clients.post(i, f"/{session}/switch", **{"Idempotency-Key": key}) for i in range(20)]  # type: ignore[misc]  # mypy cannot infer it
    )
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["data"]["version"] for answer in answers} == {3}
    assert sum("Idempotency-Replayed" not in answer.headers for answer in answers) == 1
    assert clients.http.get(f"{clients.urls[0]}/{session}").json()["data"]["version"] == 3


def test_a_create_retried_at_once_makes_one_session(clients: ClientThreads) -> None:
    key = str(uuid.uuid4())
    calls = [lambda i=i: clients.post(i, "", CHESS, **{"Idempotency-Key": key}) for i in range(20)]
    answers = clients.at_once(calls)  # type: ignore[arg-type]  # lambdas with defaults
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["data"]["session_id"] for answer in answers}) == 1


def test_refusals_from_both_processes_leave_a_session_as_it_was(clients: ClientThreads, redis_url: str) -> None:
    session = clients.running()
    with redis_py.Redis.from_url(redis_url) as client:
        wait_until(lambda: dump_session(client, session)[b"outbox"] == [])
        before = dump_session(client, session)
        for process in (0, 1):
            assert clients.post(process, f"/{session}/start").status_code == 400
            assert clients.post(process, f"/{session}/switch", {"participant_id": "black"}).status_code == 409
            assert clients.post(process, f"/{session}/switch", **{"If-Match": '"1-1"'}).status_code == 412
            assert clients.post(process, "", CHESS | {"session_id": session}).status_code == 409
        assert dump_session(client, session) == before


def test_forgotten_scripts_fail_no_request(clients: ClientThreads, redis_url: str) -> None:
    session = clients.running()
    with redis_py.Redis.from_url(redis_url) as client:
        for i in range(20):
            client.script_flush()
            assert clients.post(i, f"/{session}/switch").status_code == 200


def test_a_killed_web_process_takes_no_acknowledged_switch_with_it(cluster: Cluster, clients: ClientThreads) -> None:
    session = clients.running()
    victim: Process = cluster.web[1]
    acknowledged = 0
    try:
        for i in range(200):
            if i == 100:
                victim.kill()
            try:
                acknowledged += clients.post(i, f"/{session}/switch").status_code == 200
            except requests.ConnectionError:
                assert i >= 100
    finally:
        victim.start()
    state = requests.get(f"{clients.urls[1]}/{session}", timeout=60).json()["data"]
    assert acknowledged >= 150
    assert state["cycle_count"] == acknowledged

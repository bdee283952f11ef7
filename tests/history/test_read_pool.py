"""Reads of PostgreSQL from web processes: a slow or broken server delays only the request that reads, briefly."""

from __future__ import annotations

import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg2
import pytest
import requests

from syncapp.dev.servers import Postgres
from syncapp.errors import AuditUnavailable
from syncapp.history.read_pool import ReadPool
from syncapp.postgres.database import Connection, Cursor, Database, connect
from syncapp.postgres.schema import upgrade
from tests.support.cluster import MakeCluster
from tests.support.postgres_roles import connection_count, limited_role, role_name, run_sql
from tests.support.web_clients import CHESS, wait_until


@pytest.fixture
def pool(database_url: str) -> Iterator[ReadPool]:
    made = ReadPool(database_url, connections=2, timeout_s=1.0)
    yield made
    made.close()


def number(cursor: Cursor) -> int:
    """Return the process id of the server process."""
    cursor.execute("SELECT pg_backend_pid()")
    ((pid,),) = cursor.fetchall()
    return int(pid)


def test_questions_share_a_few_connections(pool: ReadPool) -> None:
    with ThreadPoolExecutor(8) as threads:
        pids = set(threads.map(lambda _: pool.ask(number), range(16)))
    assert 1 <= len(pids) <= 2


def test_a_question_changes_nothing(pool: ReadPool) -> None:
    with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        pool.ask(lambda cursor: cursor.execute("DELETE FROM sync_events"))
    assert pool.ask(number)


def test_a_slow_answer_is_not_waited_for(pool: ReadPool) -> None:
    began_s = time.monotonic()
    with pytest.raises(AuditUnavailable) as refused:
        pool.ask(lambda cursor: cursor.execute("SELECT pg_sleep(30)"))
    assert time.monotonic() - began_s < 20
    assert refused.value.details["retry_after_s"] == 1
    wait_until(lambda: pool.ask(number) > 0)


def test_more_questions_than_can_wait_are_refused_at_once(database_url: str) -> None:
    pool, go_on = ReadPool(database_url, connections=1, timeout_s=10), threading.Event()
    with ThreadPoolExecutor(9) as threads:
        asked = [threads.submit(pool.ask, lambda _: go_on.wait(60)) for _ in range(9)]
        wait_until(lambda: pool._waiting == 8)
        with pytest.raises(AuditUnavailable, match="does not answer"):
            pool.ask(number)
        go_on.set()
        assert all(each.result() for each in asked)
    assert pool.ask(number)
    pool.close()


def test_a_connection_that_broke_while_nobody_used_it_is_replaced(
    pool: ReadPool, db: psycopg2.extensions.connection
) -> None:
    broken = pool.ask(number)
    with db.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s)", [broken])
    assert pool.ask(number) != broken


def test_a_server_that_refuses_is_left_alone_for_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = ReadPool("postgresql://127.0.0.1:1/nothing")
    with pytest.raises(AuditUnavailable) as refused:
        pool.ask(number)
    assert refused.value.details["reason"] == "cannot be reached"  # the driver's message names host and port
    monkeypatch.setattr(pool, "_connect", lambda: pytest.fail("it tried"))
    with pytest.raises(AuditUnavailable):
        pool.ask(number)


def test_a_connection_that_nobody_has_used_for_seconds_is_closed(database_url: str) -> None:
    with limited_role(database_url) as url:
        pool, ready = ReadPool(url, connections=3, timeout_s=60), threading.Barrier(3)

        def question(_: Cursor) -> int:
            ready.wait(30)
            found = connection_count(database_url, role_name(url))
            ready.wait(30)
            return found

        with ThreadPoolExecutor(3) as threads:
            assert list(threads.map(lambda _: pool.ask(question), range(3))) == [3] * 3
        wait_until(lambda: connection_count(database_url, role_name(url)) == 0)
        assert pool.ask(number)
        pool.close()


def test_while_idle_connections_are_closed_there_are_never_too_many(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Connection] = []
    open_at_once: list[int] = []

    def counted(url: str, **options: Any) -> Connection:
        made.append(connect(url, **options))
        open_at_once.append(sum(not each.closed for each in made))
        return made[-1]

    # Counted here, because the server counts a connection until its process has ended.
    monkeypatch.setattr("syncapp.history.read_pool.connect", counted)
    pool, end_s = ReadPool(database_url, connections=2, timeout_s=20), time.monotonic() + 60

    def goes_on() -> bool:
        return len(made) < 20 and time.monotonic() < end_s

    def closing() -> None:
        while goes_on():
            pool.close_idle(0.0)

    def asking() -> int:
        asked = 0
        while goes_on() or not asked:
            assert pool.ask(number)
            asked += 1
        return asked

    with ThreadPoolExecutor(5) as threads:
        closer, askers = threads.submit(closing), [threads.submit(asking) for _ in range(4)]
        assert all(asker.result() for asker in askers)
        closer.result()
    pool.close()
    assert len(made) > 2
    assert max(open_at_once) <= 2


def test_what_the_database_refuses_is_told_in_our_words(database_url: str) -> None:
    with limited_role(database_url) as url:
        pool = ReadPool(url, connections=1)

        def reason() -> str:
            with pytest.raises(AuditUnavailable) as refused:
                pool.ask(lambda cursor: cursor.execute("SELECT FROM sync_events"))
            return str(refused.value.details["reason"])

        assert reason() == "does not grant the required rights"
        run_sql(database_url, f"ALTER ROLE {role_name(url)} CONNECTION LIMIT 0")
        pool.close()
        wait_until(lambda: reason() == "has no connection left")
        run_sql(database_url, f"ALTER ROLE {role_name(url)} CONNECTION LIMIT -1")
        run_sql(database_url, f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role_name(url)}")

        def answers() -> bool:
            try:
                return bool(pool.ask(number))
            except AuditUnavailable:
                return False

        wait_until(answers)
        pool.close()


def test_web_processes_that_were_asked_once_give_every_connection_back(
    make_cluster: MakeCluster, database_url: str, db: psycopg2.extensions.connection
) -> None:
    with limited_role(database_url, "SELECT, INSERT, UPDATE") as url:
        role = role_name(url)
        run_sql(database_url, f"ALTER ROLE {role} CONNECTION LIMIT 12")
        cluster = make_cluster(web=3, worker=False, DATABASE_URL=url, HISTORY_TIMEOUT_S="60")
        ours = Database(url)
        with db.cursor() as cursor:  # slow enough to need every connection
            cursor.execute("BEGIN; LOCK TABLE sync_sessions")
            with ThreadPoolExecutor(24) as threads:
                asked = [threads.submit(requests.get, f"{base}/v1/history", timeout=90) for base in cluster.urls * 8]
                wait_until(lambda: connection_count(database_url, role) == 12)
                with pytest.raises(psycopg2.OperationalError, match="too many connections"), ours.transaction():
                    pass
                cursor.execute("ROLLBACK")
                assert {each.result().status_code for each in asked} == {200}
        assert upgrade(url) == []  # it waits for one
        wait_until(lambda: connection_count(database_url, role) == 0)
        with ours.transaction() as cursor:
            cursor.execute("SELECT 1")
        ours.close()
        assert {requests.get(f"{base}/v1/history", timeout=30).status_code for base in cluster.urls} == {200}


def test_an_outage_of_postgresql_stops_answers_from_the_log_and_nothing_else(
    make_cluster: MakeCluster, postgres: Postgres
) -> None:
    cluster = make_cluster(web=1, HISTORY_TIMEOUT_S="4")
    (base,) = cluster.urls
    made = requests.post(f"{base}/v1/sessions", json=CHESS, timeout=60)
    url = base + made.headers["Location"]
    requests.post(f"{url}/start", timeout=60)
    wait_until(lambda: requests.get(f"{url}/at?version=2", timeout=60).status_code == 200)
    postgres.pause()
    try:
        with ThreadPoolExecutor(60) as threads:
            refused = [threads.submit(requests.get, f"{url}/events", timeout=60) for _ in range(50)]
            took_s = []
            for _ in range(20):
                began_s = time.monotonic()
                assert requests.post(f"{url}/switch", timeout=60).status_code == 200
                took_s.append(time.monotonic() - began_s)
            answers = [each.result() for each in refused]
        assert {answer.status_code for answer in answers} == {503}
        assert {answer.json()["error"]["code"] for answer in answers} == {"AUDIT_UNAVAILABLE"}
        assert {answer.headers["Retry-After"] for answer in answers} == {"1"}
        # If one of them blocked the process, a switch would take as long.
        assert sorted(took_s)[10] < 2
    finally:
        postgres.unpause()
    wait_until(lambda: requests.get(f"{url}/at?version=22", timeout=60).status_code == 200)


def test_many_who_ask_without_a_pause_leave_every_connection_usable(
    make_cluster: MakeCluster, database_url: str
) -> None:
    cluster = make_cluster(web=1, worker=False)
    url, end_s = f"{cluster.urls[0]}/v1/history?limit=10", time.monotonic() + 2

    def ask(_: int) -> Counter[int]:
        statuses: Counter[int] = Counter()
        with requests.Session() as http:
            while time.monotonic() < end_s:
                statuses[http.get(url, timeout=60).status_code] += 1
        return statuses

    with ThreadPoolExecutor(24) as threads:
        statuses = sum(threads.map(ask, range(24)), Counter[int]())
    assert statuses[200]
    assert set(statuses) <= {200, 503}  # a busy machine may be too slow for so many
    for _ in range(8):
        wait_until(lambda: requests.get(url, timeout=60).status_code == 200)
    unknown = f"{cluster.urls[0]}/v1/sessions/{uuid.uuid4()}/events"
    assert requests.get(unknown, timeout=60).status_code == 404
    assert "Traceback" not in cluster.web[0].output()

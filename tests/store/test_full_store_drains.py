"""A full store empties by itself once PostgreSQL takes events, and reports what it cannot count."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from typing import Any

import pytest
import redis as redis_py
import requests

from syncapp import create_app
from syncapp.audit.drain import Drain
from syncapp.audit.log import AuditLog
from syncapp.audit.outbox import Outbox
from syncapp.audit.queue_stats import QueueCounts
from syncapp.postgres.database import Database
from syncapp.store.client import connect
from tests.support.captured_logs import capture_own_logs
from tests.support.full_store import CREATE, FullStore, log_lines, running_worker, web_and_worker
from tests.support.outboxes import KEYS
from tests.support.store import chess_request
from tests.support.web_clients import wait_until

# Drains


def test_a_full_store_empties_by_itself_when_postgresql_is_back(full: FullStore) -> None:
    with web_and_worker(full) as cluster:
        url = f"{cluster.urls[0]}/v1/sessions"
        full.postgres.stop()
        sessions = full.fill()
        before = full.dump()
        refused = requests.post(f"{url}/{sessions[0]}/switch", timeout=30)
        assert (refused.status_code, refused.json()["error"]["details"]["reason"]) == (503, "OutOfMemoryError")
        refused = requests.post(url, json=CREATE, timeout=30)
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "STORE_FULL")
        assert refused.headers["Retry-After"] == "30"
        assert requests.get(f"{url}/{sessions[0]}", timeout=30).status_code == 200
        assert {key: held for key, held in full.dump().items() if b"huey" not in key and b"outbox" not in key} == {
            key: held for key, held in before.items() if b"huey" not in key and b"outbox" not in key
        }
        # Alerts are sent although nothing can be written to Redis.
        wait_until(
            lambda: log_lines(cluster.worker, "drain_gave_up") and log_lines(cluster.worker, "audit_lag"), within_s=60
        )
        assert (
            log_lines(cluster.worker, "drain_gave_up")[-1]["waiting"]
            + log_lines(cluster.worker, "drain_gave_up")[-1]["active"]
        )
        waiting = full.left
        assert waiting > 500
        full.postgres.start()
        began_s = time.monotonic()
        wait_until(lambda: full.left == 0, within_s=60)
        print(f"{waiting} events were stored {time.monotonic() - began_s:.1f} s after PostgreSQL was back")
        assert requests.post(f"{url}/{sessions[0]}/switch", timeout=30).status_code == 200
        full.redis.config_set("maxmemory", full.used * 2)
        assert requests.post(url, json=CREATE, timeout=30).status_code == 201
        wait_until(lambda: full.left == 0, within_s=60)
        assert "Traceback" not in cluster.worker.output()
    full.check_commands_drains_and_log()


def test_a_worker_that_starts_while_the_store_is_full_and_has_no_groups_empties_it(full: FullStore) -> None:
    full.fill()
    with suppress(redis_py.ResponseError):
        for bucket in range(KEYS.buckets):
            full.redis.xgroup_destroy(KEYS.outbox(bucket), "audit")
    with pytest.raises(redis_py.exceptions.OutOfMemoryError):
        full.redis.xgroup_create(KEYS.outbox(0), "audit", "0", mkstream=True)
    with running_worker(full):
        wait_until(lambda: full.left == 0, within_s=60)
    full.check_commands_drains_and_log()


def test_a_worker_whose_queue_takes_nothing_drains_all_the_same(full: FullStore) -> None:
    with running_worker(full) as process:
        wait_until(lambda: full.redis.exists(KEYS.outbox(KEYS.buckets - 1)))  # its groups exist
        full.redis.flushall()
        full.redis.set("huey.redis.syncapp", "no list")
        session = full.store.create(chess_request(3_600_000)).found.session_id
        for _ in range(3):  # found by the sweep alone each time
            full.store.update(session, {"at": time.monotonic_ns()})
            wait_until(lambda: full.left == 0, within_s=60)
        assert process.alive
        full.redis.delete("huey.redis.syncapp")
        full.store.update(session, {"at": 0})
        wait_until(lambda: full.left == 0, within_s=60)
        wait_until(lambda: full.redis.hget(KEYS.audit_counts(), "completed") == b"5", within_s=30)
    full.check_commands_drains_and_log()


def test_a_retry_that_huey_lost_is_made_by_the_worker(full: FullStore) -> None:
    full.postgres.stop()
    session = full.store.create(chess_request(3_600_000)).found.session_id
    with running_worker(full, AUDIT_RETRIES="5") as process:
        wait_until(lambda: full.redis.zcard("huey.schedule.syncapp"))
        with over_and_over(lambda: full.redis.delete("huey.schedule.syncapp")):
            wait_until(lambda: len(log_lines(process, "drain_failed")) >= 3, within_s=60)
        assert [line["retries_left"] for line in log_lines(process, "drain_failed")][:3] == [5, 4, 3]
    full.postgres.start()
    full.check_commands_drains_and_log()
    assert full.store.get(session).found.version == 1


@contextmanager
def over_and_over(act: Callable[[], Any]) -> Iterator[None]:
    """Repeat a call on a thread."""
    stopping = threading.Event()

    def run() -> None:
        while not stopping.wait(0.02):
            act()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def test_buckets_that_wait_for_postgresql_are_drained_when_it_is_back_and_not_when_their_retry_is_due(
    full: FullStore,
) -> None:
    full.postgres.stop()
    for _ in range(20):
        full.store.create(chess_request(3_600_000))
    with running_worker(full, AUDIT_RETRY_DELAY_S="3600") as process:
        wait_until(lambda: log_lines(process, "drain_failed"))
        full.postgres.start()
        wait_until(lambda: full.left == 0, within_s=60)
    full.check_commands_drains_and_log()


def test_the_watch_of_a_worker_survives_a_store_that_is_busy(full: FullStore) -> None:
    with running_worker(full) as process:
        wait_until(lambda: full.redis.exists(KEYS.outbox(KEYS.buckets - 1)))
        with ExitStack() as stack, suppress(redis_py.RedisError):
            patient = stack.enter_context(redis_py.Redis.from_url(full.servers.redis_url, socket_timeout=60))
            blocked = threading.Thread(target=lambda: _run_for_ever(patient))
            blocked.start()
            wait_until(lambda: log_lines(process, "sweep_failed"), within_s=60)
            full.redis.script_kill()
            blocked.join()
        full.store.create(chess_request())  # no drain requests
        wait_until(lambda: full.left == 0, within_s=60)
        assert len(log_lines(process, "sweep_failed")) == 1
    full.check_commands_drains_and_log()


def _run_for_ever(client: redis_py.Redis) -> None:
    with suppress(redis_py.RedisError):
        client.eval("while true do end", 0)


def test_a_batch_of_any_size_is_removed_at_once_from_a_full_store(full: FullStore) -> None:
    with full.redis.pipeline(transaction=False) as pipe:
        for number in range(10_000):
            pipe.xadd(KEYS.outbox(1), {"message": str(number)})
        pipe.execute()
    outbox = Outbox(connect(full.chosen, decode=False), KEYS)
    full.redis.config_set("maxmemory", 1)
    entries = outbox.read_new(1, 10_000)
    assert len(entries) == 10_000
    outbox.acknowledge(1, entries)
    assert (full.left, full.redis.xpending(KEYS.outbox(1), "audit")["pending"]) == (0, 0)
    full.no_limit()
    full.check_commands_drains_and_log()


# Counters


def test_what_cannot_be_counted_fails_no_drain_and_repeats_no_batch_and_is_counted_later(full: FullStore) -> None:
    session = full.store.create(chess_request(3_600_000)).found.session_id
    full.store.start(session)
    for _ in range(98):
        full.store.switch(session)
    full.redis.set(KEYS.audit_counts(), "no hash")
    client = connect(full.chosen, decode=False)
    outbox, tally, stored = Outbox(client, KEYS), QueueCounts(client, KEYS), []

    def count(completed: int, failed: int) -> None:
        stored.append(completed)
        tally.add(completed, failed)

    with closing(Database(full.servers.database_url)) as database, capture_own_logs() as logs:
        drain = Drain(outbox, AuditLog(database), batch=10, count=count)
        assert drain.run_all() == (100, {})
        full.redis.delete(KEYS.audit_counts())
        full.store.switch(session)
        assert drain.run_all() == (1, {})
    assert stored == [10] * 10 + [1]
    assert tally.read().completed == 101
    assert [line["event"] for line in logs] == ["tally_failed"]
    full.check_commands_drains_and_log()


def test_commands_of_operators_drain_a_full_store_and_go_on_after_a_bucket_that_fails(full: FullStore) -> None:
    sessions = full.fill()
    broken = next(bucket for bucket in range(KEYS.buckets) if not full.redis.xlen(KEYS.outbox(bucket)))
    client = redis_py.Redis.from_url(full.servers.redis_url)
    client.eval("#!lua flags=allow-oom\nreturn redis.call('SET', KEYS[1], 'no stream')", 1, KEYS.outbox(broken))
    waiting = _left_but(full, broken)
    assert waiting > 500
    code, printed = full.flask("audit", "drain")
    assert (code, printed.count("\n")) == (1, 1)
    assert printed.startswith(f"Error: moved {waiting} events, but not all of buckets {broken} (WRONGTYPE")
    assert _left_but(full, broken) == 0
    client.delete(KEYS.outbox(broken))
    assert full.flask("audit", "drain") == (0, "Moved 0 events.\n")
    assert full.flask("audit", "status")[0] == 0
    assert full.store.get(sessions[0]).found.status == "running"
    full.no_limit()
    full.check_commands_drains_and_log()


def _left_but(full: FullStore, broken: int) -> int:
    return sum(full.redis.xlen(KEYS.outbox(bucket)) for bucket in range(KEYS.buckets) if bucket != broken)


def test_dead_letters_are_driven_and_sessions_recovered_though_the_store_is_full(full: FullStore) -> None:
    lost = full.store.create(chess_request(3_600_000)).found.session_id
    kept = full.store.create(chess_request(3_600_000)).found.session_id
    full.redis.xadd(KEYS.outbox(0), {"message": "nothing of ours"})
    assert full.flask("audit", "drain")[0] == 0
    full.redis.delete(KEYS.session(lost))
    full.redis.config_set("maxmemory", 1)
    code, printed = full.flask("audit", "redrive")
    assert code == 0
    assert printed.startswith("0 dead letters were stored, 1 was not.\nTheir count in Redis is not updated yet")
    code, printed = full.flask("sessions", "recover", "--all")
    assert code == 1
    assert "1 current, 1 failed" in printed
    assert f"{lost} failed: the store does not accept commands now" in printed
    full.no_limit()
    assert full.flask("sessions", "recover", "--all")[0] == 0
    assert {full.store.get(each).found.status for each in (lost, kept)} == {"pending"}
    full.check_commands_drains_and_log()


# Metrics and logs


def test_the_queue_is_unavailable_and_the_metrics_answer_whatever_redis_replies(full: FullStore) -> None:
    client = create_app(full.chosen).test_client()

    def check(status: int) -> None:
        with capture_own_logs():
            answer = client.get("/v1/audit/queue")
            assert answer.status_code == status
            if status == 503:
                assert answer.get_json()["error"]["code"] == "STORE_UNAVAILABLE"
            answer = client.get("/metrics")
            assert (answer.status_code, "syncapp_audit_queue" in answer.text) == (200, True)

    check(200)
    for key in (KEYS.audit_counts(), KEYS.outbox(3), "huey.schedule.syncapp"):
        full.redis.set(key, "of another type")
        check(503)
        full.redis.delete(key)
    full.redis.hset(KEYS.audit_counts(), "completed", "no number")
    check(503)
    full.redis.delete(KEYS.audit_counts())
    patient = redis_py.Redis.from_url(full.servers.redis_url, socket_timeout=60)
    blocked = threading.Thread(target=_run_for_ever, args=[patient])
    blocked.start()
    try:
        wait_until(lambda: _is_busy(full.redis))
        check(503)
    finally:
        full.redis.script_kill()
        blocked.join()
        patient.close()
    check(200)
    full.check_commands_drains_and_log()


def _is_busy(client: redis_py.Redis) -> bool:
    try:
        client.get("any")
    except redis_py.ResponseError as error:
        return str(error).startswith("BUSY")
    return False


def test_a_worker_with_fewer_connections_than_threads_takes_what_it_needs_and_says_so_once(full: FullStore) -> None:
    for _ in range(20):
        full.store.create(chess_request(3_600_000))
    with running_worker(full, REDIS_MAX_CONNECTIONS="1", WORKER_THREADS="4") as process:
        wait_until(lambda: full.left == 0, within_s=60)
        (line,) = log_lines(process, "redis_max_connections_too_small")
        assert (line["level"], line["setting"], line["value"], line["used"]) == (
            "warning",
            "REDIS_MAX_CONNECTIONS",
            1,
            9,
        )
        assert "No connection available" not in process.output()
    full.check_commands_drains_and_log()

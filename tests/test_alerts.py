"""Alerts are sent on every configured channel, once per interval, and delay nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import orjson
import pytest
import redis as redis_py

from syncapp import create_app
from syncapp.alerts import Alerts
from syncapp.audit.queue_stats import QueueCounts, QueueStats
from syncapp.dev.ports import free_port
from syncapp.errors import AuditBacklog
from tests.support.captured_logs import capture_own_logs
from tests.support.outboxes import KEYS, commit_events
from tests.support.receiver import Receiver
from tests.support.store import chess_request, make_settings, make_store
from tests.support.types import Db


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.go_on.set()
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_alert_is_posted_with_its_whole_context(receiver: Receiver) -> None:
    alerts = Alerts(make_settings("", alert_webhook_url=f"http://{receiver.address}/hook"))
    with capture_own_logs() as logs:
        alerts("drain_gave_up", bucket=7, error="refused", retries=5)
        alerts.close()
    (body,) = receiver.bodies
    posted = orjson.loads(body)
    assert (posted["kind"], posted["context"]) == (
        "drain_gave_up",
        {"bucket": 7, "error": "refused", "retries": 5, "more": 0},
    )
    assert posted["message"].startswith("Audit events could not be moved to PostgreSQL")
    assert abs(posted["at_ms"] - time.time() * 1000) < 60_000
    assert logs == [{"event": "drain_gave_up", "log_level": "critical", "bucket": 7, "error": "refused", "retries": 5}]


def test_a_storm_is_one_alert_of_each_kind_and_then_one_that_counts(receiver: Receiver) -> None:
    now_s = 1000.0
    alerts = Alerts(
        make_settings("", alert_webhook_url=f"http://{receiver.address}/", alert_interval_s=60), clock=lambda: now_s
    )
    with capture_own_logs() as logs:
        for bucket in range(500):
            alerts("drain_gave_up", bucket=bucket)
        alerts("audit_lag", events=1)
        now_s += 60
        alerts("drain_gave_up", bucket=500)
        alerts.close()
    told = [orjson.loads(body) for body in receiver.bodies]
    assert [(each["kind"], each["context"].get("bucket"), each["context"]["more"]) for each in told] == [
        ("drain_gave_up", 0, 0),
        ("audit_lag", None, 0),
        ("drain_gave_up", 500, 499),
    ]
    assert [line["log_level"] for line in logs].count("critical") == 3
    assert sum(line["log_level"] == "error" for line in logs) == 499


def test_a_webhook_that_does_not_answer_holds_nobody_up_and_one_that_fails_is_asked_again(receiver: Receiver) -> None:
    receiver.go_on.clear()
    receiver.statuses = [500, 200]
    alerts = Alerts(make_settings("", alert_webhook_url=f"http://{receiver.address}/"))
    began_s = time.monotonic()
    alerts("audit_lag", events=1)
    assert time.monotonic() - began_s < 4  # waiting for the webhook would take longer
    receiver.go_on.set()
    alerts.close()
    assert len(receiver.bodies) == 2


def test_an_alert_that_cannot_be_sent_is_told_in_the_log() -> None:
    alerts = Alerts(make_settings("", alert_webhook_url=f"http://127.0.0.1:{free_port()}/"))
    with capture_own_logs() as logs:
        alerts("audit_lag", events=1)
        alerts.close()
    assert [(line["event"], line["log_level"]) for line in logs] == [
        ("audit_lag", "critical"),
        ("alert_not_sent", "warning"),
    ]


@pytest.mark.filterwarnings("default")  # sentry's own
def test_sentry_gets_an_alert_as_a_fatal_message_with_its_context(receiver: Receiver) -> None:
    alerts = Alerts(make_settings("", sentry_dsn=f"http://public@{receiver.address}/1"))
    alerts("dead_letters", count=3, error="22P02: asleep", bucket=7)
    alerts.close()
    import gzip

    body = receiver.bodies[0]
    lines = (gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body).splitlines()
    event = next(orjson.loads(line) for line in lines if b'"level"' in line)
    assert event["level"] == "fatal"
    assert event["tags"]["kind"] == "dead_letters"
    assert {name: event["contexts"]["alert"][name] for name in ("count", "error", "bucket")} == {
        "count": 3,
        "error": "22P02: asleep",
        "bucket": 7,
    }


def test_a_sweep_tells_of_events_that_wait_for_too_long(tasks: Any, redis: redis_py.Redis) -> None:
    now_s, _ = redis.time()
    redis.xadd(KEYS.outbox(3), {"message": "1"}, id=f"{(now_s - 290) * 1000}-0")
    with capture_own_logs() as logs:
        tasks.worker.sweep()
    assert logs == []
    redis.xadd(KEYS.outbox(4), {"message": "1"}, id=f"{(now_s - 301) * 1000}-0")
    with capture_own_logs() as logs:
        tasks.worker.sweep()
    (line,) = logs
    assert (line["event"], line["log_level"], line["buckets"], line["events"]) == ("audit_lag", "critical", [4], 2)
    assert 300_000 < line["oldest_age_ms"] < 400_000


# The queue


def test_the_queue_tells_what_waits_what_was_stored_and_what_could_not_be(
    tasks: Any,
    db: Db,
    redis: redis_py.Redis,
    redis_url: str,
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = create_app(make_settings(redis_url, database_url=database_url)).test_client()

    def queue() -> dict[str, Any]:
        answer = client.get("/v1/audit/queue")
        assert answer.status_code == 200
        found: dict[str, Any] = answer.get_json()["data"]
        return found

    assert queue() == {
        **dict.fromkeys(("waiting", "active", "completed", "failed", "delayed"), 0),
        "oldest_age_ms": None,
        "rate_per_s": 0,
    }
    commits = commit_events(redis_url, 1, 10)
    bucket = next(bucket for bucket in range(KEYS.buckets) if redis.xlen(KEYS.outbox(bucket)))
    redis.xadd(KEYS.outbox(bucket), {"message": "nothing of ours"})
    found = queue()
    assert (found["waiting"], found["active"]) == (commits + 1, 0)
    assert found["oldest_age_ms"] >= 0

    good, tasks.worker.database._url = tasks.worker.database._url, f"postgresql://127.0.0.1:{free_port()}/none"
    tasks.enqueue_drain(bucket)
    tasks.huey.execute(tasks.huey.dequeue())
    found = queue()
    assert (found["waiting"], found["active"], found["delayed"]) == (0, commits + 1, 1)

    tasks.worker.database._url = good
    (retry,) = tasks.huey.scheduled()
    tasks.huey.execute(retry, retry.eta)
    found = queue()
    assert (found["waiting"], found["active"], found["completed"], found["failed"]) == (0, 0, commits, 1)
    later_s = time.time() + 10
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: later_s)
        assert queue()["rate_per_s"] == round(commits / 60, 1)
    text = client.get("/metrics").get_data(as_text=True)
    assert f'syncapp_audit_queue{{state="completed"}} {commits}.0' in text
    assert 'syncapp_audit_queue{state="failed"} 1.0' in text
    with db.cursor() as cursor:
        cursor.execute("DELETE FROM sync_dead_letters")
    tasks.worker.count_dead_letters()
    assert queue()["failed"] == 0


def test_without_redis_the_queue_is_unavailable_and_the_metrics_answer_all_the_same(database_url: str) -> None:
    nowhere = make_settings(f"redis://127.0.0.1:{free_port()}/0", database_url=database_url)
    client = create_app(nowhere).test_client()
    answer = client.get("/v1/audit/queue")
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "STORE_UNAVAILABLE")
    assert client.get("/metrics").status_code == 200


def test_a_queue_never_read_by_anybody_is_empty(redis: redis_py.Redis) -> None:
    assert QueueCounts(redis, KEYS).read() == QueueStats(0, 0, 0, 0, 0, None, 0.0)


# The limit


def test_new_sessions_are_refused_while_the_outbox_is_full_and_running_ones_go_on(
    redis: redis_py.Redis, redis_url: str, database_url: str, dump_all: Callable[[], Any]
) -> None:
    store = make_store(redis_url, set_clock=False, sync_buckets=1, audit_backlog_limit=4)
    running = store.create(chess_request()).found.session_id
    store.start(running)
    store.switch(running)
    store.create(chess_request())
    before = dump_all()
    with pytest.raises(AuditBacklog):
        store.create(chess_request())
    assert dump_all() == before
    assert store.switch(running).found.cycle_count == 2
    chosen = make_settings(redis_url, database_url=database_url, sync_buckets=1, audit_backlog_limit=4)
    body = {"sync_mode": "global", "total_time_ms": 60_000}
    answer = create_app(chosen).test_client().post("/v1/sessions", json=body)
    assert (answer.status_code, answer.get_json()["error"]["code"]) == (503, "AUDIT_BACKLOG")
    assert answer.headers["Retry-After"] == "30"
    redis.xtrim("sync:{b00}:outbox", maxlen=3, approximate=False)
    store.create(chess_request())
    unlimited = make_store(redis_url, set_clock=False, sync_buckets=1, audit_backlog_limit=0)
    unlimited.create(chess_request())


@pytest.fixture
def dump_all(redis: redis_py.Redis) -> Callable[[], Any]:
    """Returns every key with its value."""
    return lambda: {key: redis.dump(key) for key in sorted(redis.keys())}

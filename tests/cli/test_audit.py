"""`flask audit` and `flask db` on the command line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis as redis_py

from syncapp.audit.log import AuditLog
from syncapp.dev.ports import free_port
from tests.support.audit_log import event_partitions
from tests.support.flask_commands import run_flask
from tests.support.outboxes import KEYS, commit_events, count_rows
from tests.support.store import make_settings
from tests.support.types import Db


@pytest.fixture
def run(db: Db, redis: redis_py.Redis, redis_url: str, database_url: str) -> Callable[..., tuple[int, str]]:
    """Runs a command of `flask`; returns its exit code and output."""

    def run(*words: str, **changes: str) -> tuple[int, str]:
        settings = make_settings(**({"redis_url": redis_url, "database_url": database_url} | changes))
        done = run_flask(settings, *words)
        return done.exit_code, done.output

    return run


def test_events_can_be_counted_and_drained_without_a_worker(
    run: Callable[..., tuple[int, str]], db: Db, redis: redis_py.Redis, redis_url: str
) -> None:
    commits = commit_events(redis_url, 1, 10)
    bucket = next(bucket for bucket in range(KEYS.buckets) if redis.xlen(KEYS.outbox(bucket)))
    code, printed = run("audit", "status")
    assert code == 0
    assert [line.split()[:3] for line in printed.splitlines()] == [
        ["bucket", "waiting", "active"],
        [str(bucket), str(commits), "0"],
        ["total", str(commits), "0"],
        ["completed", "0,", "failed"],
    ]
    assert run("audit", "drain") == (0, f"Moved {commits} events.\n")
    assert run("audit", "drain") == (0, "Moved 0 events.\n")
    assert count_rows(db) == commits
    assert f"completed {commits}, failed 0, delayed 0, " in run("audit", "status")[1]


@pytest.fixture
def no_fives(db: Db) -> Iterator[Callable[[], None]]:
    """A database that refuses every fifth version, until this is called."""

    def allow() -> None:
        with db.cursor() as cursor:
            cursor.execute("ALTER TABLE sync_events DROP CONSTRAINT IF EXISTS no_fives")

    with db.cursor() as cursor:
        cursor.execute("ALTER TABLE sync_events ADD CONSTRAINT no_fives CHECK (version % 5 > 0)")
    yield allow
    allow()


def test_dead_letters_are_driven_again_and_kept(
    run: Callable[..., tuple[int, str]],
    db: Db,
    audit: AuditLog,
    redis: redis_py.Redis,
    redis_url: str,
    no_fives: Callable[[], None],
) -> None:
    commits = commit_events(redis_url, 1, 10)
    bucket = next(bucket for bucket in range(KEYS.buckets) if redis.xlen(KEYS.outbox(bucket)))
    redis.xadd(KEYS.outbox(bucket), {"message": "nothing of ours"})
    assert run("audit", "drain") == (0, f"Moved {commits + 1} events.\n")
    assert (count_rows(db), count_rows(db, "SELECT count(*) FROM sync_dead_letters")) == (commits - 2, 3)
    assert "failed 3" in run("audit", "status")[1]
    assert run("audit", "redrive") == (0, "0 dead letters were stored, 3 were not.\n")
    assert count_rows(db, "SELECT count(*) FROM sync_dead_letters") == 3
    no_fives()
    assert run("audit", "redrive") == (0, "2 dead letters were stored, 1 was not.\n")
    assert run("audit", "redrive") == (0, "0 dead letters were stored, 1 was not.\n")
    assert (count_rows(db), count_rows(db, "SELECT count(*) FROM sync_dead_letters")) == (commits, 3)
    assert "failed 1" in run("audit", "status")[1]
    assert run("audit", "verify")[0] == 0


def test_a_divergence_does_not_go_through_when_it_is_driven_again(
    run: Callable[..., tuple[int, str]], audit: AuditLog, redis: redis_py.Redis, redis_url: str
) -> None:
    commit_events(redis_url, 1, 1)
    bucket = next(bucket for bucket in range(KEYS.buckets) if redis.xlen(KEYS.outbox(bucket)))
    entries: Any = redis.xrange(KEYS.outbox(bucket))
    redis.xadd(KEYS.outbox(bucket), {"message": entries[1][1][b"message"].replace(b"client", b"system")})
    assert run("audit", "drain")[0] == 0
    assert run("audit", "redrive") == (0, "0 dead letters were stored, 1 was not.\n")


def test_retention_drops_months_that_are_over_and_no_longer_written_to(
    run: Callable[..., tuple[int, str]], db: Db
) -> None:
    def make(months_ago: int, latest: str) -> str:
        with db.cursor() as cursor:
            cursor.execute(
                "SELECT to_char(month, '\"sync_events_\"YYYY_MM'), extract(epoch FROM month)::bigint * 1000,"
                " extract(epoch FROM month + interval '1 month')::bigint * 1000"
                " FROM (SELECT date_trunc('month', now(), 'UTC') - make_interval(months => %s) AS month) AS made",
                [months_ago],
            )
            ((name, low, high),) = cursor.fetchall()
            cursor.execute(f"CREATE TABLE {name} PARTITION OF sync_events FOR VALUES FROM ({low}) TO ({high})")
            cursor.execute(
                "INSERT INTO sync_events (session_id, epoch, version, event_type, at, sync_mode, status, cycle_count,"
                " actor, patch, message, content_hash) VALUES (gen_random_uuid(), %s, 1, 'session_created',"
                f" now() - interval '{latest}', 'global', 'pending', 0, 'client', '{{}}', '{{}}', '')",
                [low],
            )
        return str(name)

    old, lived_long, older, recent = (
        make(15, "14 months"),
        make(16, "1 day"),
        make(17, "17 months"),
        make(12, "12 months"),
    )
    try:
        assert run("audit", "retention", "--months", "13") == (0, f"Dropped {older}, {old}.\n")
        assert run("audit", "retention", "--months", "13") == (0, "There is nothing to drop.\n")
        assert {lived_long, recent} <= set(event_partitions(db))
        assert not {old, older} & set(event_partitions(db))
        assert count_rows(db) == 2
        assert count_rows(db, "SELECT count(*) FROM sync_dropped_partitions WHERE to_epoch > from_epoch") == 2
        assert run("audit", "retention", "--months", "0")[0] == 2
        assert run("audit", "retention")[0] == 2
    finally:
        with db.cursor() as cursor:
            cursor.execute(f"DROP TABLE IF EXISTS {old}, {lived_long}, {older}, {recent}")


def test_commands_fail_in_one_line(run: Callable[..., tuple[int, str]], redis: redis_py.Redis) -> None:
    redis.xadd(KEYS.outbox(1), {"message": "1"})
    nowhere = f"postgresql://127.0.0.1:{free_port()}/none"
    for words, away in (
        (("audit", "drain"), {"database_url": nowhere}),
        (("audit", "status"), {"redis_url": f"redis://127.0.0.1:{free_port()}/0"}),
        (("db", "upgrade"), {"database_url": nowhere}),
    ):
        code, printed = run(*words, **away)
        assert code == 1
        assert printed.startswith("Error: ")
        assert "refused" in printed
        assert printed.count("\n") == 1


def test_db_upgrade_says_what_it_did(run: Callable[..., tuple[int, str]]) -> None:
    assert run("db", "upgrade") == (0, "The database is up to date.\n")

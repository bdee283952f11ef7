"""PostgreSQL accepts no writes for a while: no event is lost or becomes a dead letter, and all are drained later."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import redis as redis_py

from syncapp.audit import log
from syncapp.audit.last_failure import LastFailure
from syncapp.dev.runner import App, app_env
from syncapp.dev.servers import Postgres, Servers
from syncapp.domain.schemas import CreateSession
from syncapp.postgres import failures
from syncapp.postgres.check import check
from syncapp.postgres.failures import Failure
from syncapp.postgres.migrations import UpgradeFailed
from syncapp.postgres.schema import upgrade
from syncapp.store.keys import Keyspace
from tests.support.flask_commands import run_flask
from tests.support.outboxes import entries_left
from tests.support.postgres_roles import (
    add_migration,
    empty_database,
    end_connections,
    limited_role,
    maintenance_url,
    role_name,
    run_sql,
    set_read_only,
)
from tests.support.store import make_settings, make_store
from tests.support.web_clients import wait_until

RIGHTS = "SELECT, INSERT, UPDATE"


class Scene:
    """A private database, a role that drains into it, a real worker, and a session whose commits it drains."""

    def __init__(self, url: str, guest: str, client: redis_py.Redis, redis_url: str, stack: ExitStack) -> None:
        self.url, self.guest, self.client, self.redis_url, self.stack = url, guest, client, redis_url, stack
        self.store = make_store(redis_url, set_clock=False, sync_buckets=1)
        body = {"sync_mode": "count_up", "participants": [{"participant_id": name} for name in "ab"]}
        self.session_id = self.store.create(CreateSession.parse(body)).found.session_id
        self.store.start(self.session_id)
        self.commits = 2

    def start(self, servers: Servers, directory: Path) -> None:
        env = app_env(os.environ, servers) | {
            "DATABASE_URL": self.guest, "SYNC_BUCKETS": "1", "AUDIT_RETRIES": "1", "AUDIT_RETRY_DELAY_S": "1",
        }  # fmt: skip
        output = directory / f"worker-{secrets.token_hex(4)}.log"
        self.worker = App("worker", env, directory=directory, output=output)
        self.stack.callback(self.worker.stop)
        self.worker.spawn()
        wait_until(lambda: entries_left(self.client) == 0)

    def play(self, commits: int) -> None:
        """Make large commits."""
        for number in range(commits):
            self.store.update(self.session_id, {"text": secrets.token_hex(2000), "number": number})
        self.commits += commits

    def rows(self) -> tuple[int, int]:
        """Return the numbers of events in the log and of dead letters."""
        ((events, dead_letters),) = run_sql(
            self.url, "SELECT (SELECT count(*) FROM sync_events), (SELECT count(*) FROM sync_dead_letters)"
        )
        return events, dead_letters

    def found(self) -> str | None:
        """Return the last drain's result, as web processes report it."""
        failure = LastFailure(self.client, Keyspace(1)).read()
        return failure.category if failure else None

    def run(self, *words: str) -> tuple[int, str]:
        settings = make_settings(self.redis_url, database_url=self.url, sync_buckets=1)
        done = run_flask(settings, *words)
        return done.exit_code, done.output


Make = Callable[..., Scene]


@pytest.fixture
def make(
    servers: Servers, run_directory: Path, redis: redis_py.Redis, redis_url: str, database_url: str
) -> Iterator[Make]:
    """Makes a scene, in the given tablespace."""
    with ExitStack() as stack:

        def make(tablespace: str = "pg_default") -> Scene:
            url = stack.enter_context(empty_database(database_url, tablespace))
            upgrade(url)
            guest = stack.enter_context(limited_role(url, RIGHTS))
            scene = Scene(url, guest, redis, redis_url, stack)
            scene.start(servers, run_directory)
            return scene

        yield make


def commit_during_outage(scene: Scene, category: str, end: Callable[[], Any]) -> None:
    """Commit while PostgreSQL accepts no writes, until the worker has alerted; then end the outage, and compare."""
    before, _ = scene.rows()
    scene.play(60)
    wait_until(lambda: "drain_gave_up" in scene.worker.output(), within_s=60)
    wait_until(lambda: scene.found() == category)
    assert scene.rows() == (before, 0)
    assert entries_left(scene.client) == 60
    end()
    began_s = time.monotonic()
    wait_until(lambda: entries_left(scene.client) == 0, within_s=60)
    print(f"{category}: drained {time.monotonic() - began_s:.1f} s after its end")
    scene.play(1)
    wait_until(lambda: scene.rows() == (scene.commits, 0))
    wait_until(lambda: scene.found() is None)
    assert "Traceback" not in scene.worker.output()
    code, printed = scene.run("audit", "verify")
    assert code == 0, printed


def test_a_read_only_postgresql_delays_events_and_loses_none(make: Make) -> None:
    scene = make()
    set_read_only(scene.url, on=True)
    end_connections(scene.url)
    # The worker keeps no read-only connection.
    commit_during_outage(scene, "read_only", lambda: set_read_only(scene.url, on=False))


def test_a_role_without_the_right_to_insert_delays_events_and_loses_none(make: Make) -> None:
    scene = make()
    role = role_name(scene.guest)
    run_sql(scene.url, f"REVOKE INSERT ON sync_events FROM {role}")
    failure = check(scene.guest, 10)
    assert failure is not None
    assert failure.sentence == "does not grant the required rights: INSERT on sync_events"
    commit_during_outage(scene, "lacks_rights", lambda: run_sql(scene.url, f"GRANT INSERT ON sync_events TO {role}"))


def test_a_role_without_a_connection_left_delays_events_and_loses_none(make: Make) -> None:
    scene = make()
    role = role_name(scene.guest)
    run_sql(scene.url, f"ALTER ROLE {role} CONNECTION LIMIT 0")
    end_connections(scene.url)
    commit_during_outage(
        scene, "too_many_connections", lambda: run_sql(scene.url, f"ALTER ROLE {role} CONNECTION LIMIT -1")
    )


def test_nothing_that_is_wrong_with_the_server_is_blamed_on_an_event() -> None:
    assert not [state for state, _ in failures._BY_STATE if state.startswith(log._REFUSALS)]
    assert {category for _, category in (*failures._BY_STATE, *failures._BY_TEXT)} <= failures.CATEGORIES


def test_a_standby_is_told_and_an_upgrade_with_nothing_to_apply_is_content_with_it(
    run_directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Postgres(run_directory, run_directory / f"standby-{secrets.token_hex(4)}", options=("fsync=off",))
    server.start()
    try:
        upgrade(server.url)
        server.stop()
        signal = server.data / "standby.signal"
        signal.touch()
        server.start()
        failure = check(server.url, 10)
        assert failure == Failure("standby", "is a standby, not a primary")
        warned: list[str] = []
        assert upgrade(server.url, warn=warned.append) == []
        assert upgrade(server.url, partition_months=5, warn=warned.append) == []
        assert len(warned) == 1
        add_migration(tmp_path, monkeypatch, "CREATE TABLE more ();")
        with pytest.raises(UpgradeFailed, match=r"^900_more must be applied, but the database is a standby$"):
            upgrade(server.url)
        server.stop()
        signal.unlink()
        server.start()
        assert upgrade(server.url) == ["900_more"]
        wait_until(lambda: check(server.url, 10) is None)
    finally:
        server.stop()


@contextmanager
def small_disk(postgres: Postgres, directory: Path, size: str) -> Iterator[str]:
    """A tablespace on a file system of this size."""
    mount, name = directory / f"small-{secrets.token_hex(4)}", f"small_{secrets.token_hex(4)}"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(mount)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"this machine lets nobody make a small file system: {done.stderr.strip()}")
    try:
        os.chown(mount, postgres.data.stat().st_uid, -1)
        run_outside_transaction(postgres.url, f"CREATE TABLESPACE {name} LOCATION '{mount}'")
        yield name
        run_outside_transaction(postgres.url, f"DROP TABLESPACE {name}")
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=False)


def run_outside_transaction(url: str, query: str) -> None:
    """Run a statement that cannot run in a transaction."""
    connection = psycopg2.connect(maintenance_url(url))
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute(query)
    connection.close()


def test_a_full_disk_of_postgresql_delays_events_and_loses_none(
    postgres: Postgres, run_directory: Path, request: pytest.FixtureRequest
) -> None:
    with small_disk(postgres, run_directory, "40m") as tablespace:
        make: Make = request.getfixturevalue("make")
        scene = make(tablespace)
        fill(scene.url)
        assert check(scene.guest, 10) is None  # small writes still work
        commit_during_outage(scene, "disk_full", lambda: run_sql(scene.url, "DROP TABLE filler"))
        scene.stack.close()


def fill(url: str) -> None:
    """Fill the tablespace to the last block."""
    run_sql(url, "CREATE TABLE filler (text text); ALTER TABLE filler ALTER text SET STORAGE PLAIN")
    for rows in (100_000, 1000, 10, 1):
        while True:
            try:
                run_sql(url, "INSERT INTO filler SELECT repeat('x', 4000) FROM generate_series(1, %s)", rows)
            except psycopg2.errors.DiskFull:
                break

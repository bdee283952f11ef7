"""Backup and restore as docs/deployment.md describes them, on servers of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2
import pytest
import redis as redis_py
import requests

from syncapp.dev.servers import Postgres, Servers, Valkey
from tests.support.cluster import FAST_POSTGRES, Cluster
from tests.support.web_clients import RestClient, metric_value, wait_until

ROOT = Path(__file__).parents[2]


@contextmanager
def running(directory: Path, *valkey_options: str) -> Iterator[Servers]:
    """Servers with their data in a directory."""
    directory.mkdir(exist_ok=True)
    with Servers(directory, valkey_options=valkey_options, postgres_options=FAST_POSTGRES) as servers:
        yield servers


@contextmanager
def app(servers: Servers, directory: Path) -> Iterator[Cluster]:
    directory.mkdir(exist_ok=True)
    with Cluster(servers, directory, web=1, worker=True, env={}) as cluster:
        yield cluster


def flask(servers: Servers, *arguments: str, code: int = 0) -> str:
    """What a command prints; it must end with the exit code."""
    env = {**os.environ, "REDIS_URL": servers.redis_url, "DATABASE_URL": servers.database_url}
    done = subprocess.run(
        [Path(sys.executable).parent / "flask", "--app", "wsgi", *arguments],
        env=env,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def postgres_tool(servers: Servers, name: str, *arguments: str) -> None:
    assert servers.postgres
    command = [str(servers.postgres.binaries / name), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def stored(url: str) -> bool:
    return (
        metric_value(url, 'syncapp_audit_queue{state="waiting"}')
        + metric_value(url, 'syncapp_audit_queue{state="active"}')
        == 0
    )


@pytest.fixture
def backup(run_directory: Path) -> Iterator[Path]:
    """Directory that the tests' PostgreSQL may pass."""
    directory = run_directory / "backup"
    directory.mkdir()
    yield directory
    shutil.rmtree(directory)


def test_both_are_restored_from_a_store_that_is_older_than_the_log(backup: Path) -> None:
    rdb, dump = backup / "sessions.rdb", backup / "log.dump"
    with running(backup / "old") as servers:
        assert isinstance(servers.valkey, Valkey)
        assert isinstance(servers.postgres, Postgres)
        flask(servers, "db", "upgrade")
        with app(servers, backup / "old-app") as cluster:
            api = RestClient(cluster.urls[0])
            session_id, untouched = api.running(), api.running()
            with redis_py.Redis.from_url(servers.redis_url) as client:
                client.save()
            shutil.copy(backup / "old" / "valkey" / "dump.rdb", rdb)
            between = api.command(session_id, "switch")["version"]
            wait_until(lambda: stored(cluster.urls[0]))
            postgres_tool(servers, "pg_dump", "--format=custom", f"--file={dump}", servers.database_url)
            api.command(session_id, "switch")  # in no backup

    new = backup / "new"
    (new / "valkey").mkdir(parents=True)
    shutil.copy(rdb, new / "valkey" / "dump.rdb")
    with running(new) as servers, redis_py.Redis.from_url(servers.redis_url) as client:
        assert client.dbsize() == 0  # with `appendonly yes` it ignores dump.rdb
    shutil.rmtree(new / "valkey")
    (new / "valkey").mkdir()
    shutil.copy(rdb, new / "valkey" / "dump.rdb")
    with running(new, "--appendonly", "no") as servers, redis_py.Redis.from_url(servers.redis_url) as client:
        assert client.dbsize() > 0
        client.config_set("appendonly", "yes")
        postgres_tool(servers, "pg_restore", "--no-owner", f"--dbname={servers.database_url}", str(dump))
        assert "up to date" in flask(servers, "db", "upgrade")
        assert "replaced" in flask(servers, "sessions", "recover", "--all")
        flask(servers, "audit", "verify")
        with app(servers, backup / "new-app") as cluster:
            api = RestClient(cluster.urls[0])
            assert api.command(session_id, "switch")["version"] == 2  # of a new epoch
            assert api.command(untouched, "switch")["version"] == 3
            events = requests.get(f"{cluster.urls[0]}/v1/sessions/{session_id}/events", timeout=60)
            assert between in [each["version"] for each in events.json()["data"]["events"]]
            wait_until(lambda: stored(cluster.urls[0]))
        assert "Everything is as committed." in flask(servers, "audit", "verify")
        wait_until(lambda: client.info("persistence")["aof_rewrite_in_progress"] == 0)
    with running(new) as servers, redis_py.Redis.from_url(servers.redis_url) as client:
        assert client.dbsize() > 0  # the append-only file has it all


def test_a_lost_store_is_filled_from_the_log(backup: Path) -> None:
    with running(backup / "data") as servers:
        flask(servers, "db", "upgrade")
        with app(servers, backup / "app") as cluster:
            session_id = RestClient(cluster.urls[0]).running()
            wait_until(lambda: stored(cluster.urls[0]))
        with redis_py.Redis.from_url(servers.redis_url) as client:
            client.flushall()
        flask(servers, "sessions", "recover", "--all")
        flask(servers, "audit", "verify")
        with app(servers, backup / "again") as cluster:
            assert RestClient(cluster.urls[0]).state(session_id)["status"] == "running"


def test_a_lost_log_is_restored_and_sessions_go_on(backup: Path) -> None:
    dump = backup / "log.dump"
    with running(backup / "data") as servers:
        flask(servers, "db", "upgrade")
        with app(servers, backup / "app") as cluster:
            api = RestClient(cluster.urls[0])
            session_id = api.running()
            wait_until(lambda: stored(cluster.urls[0]))
            postgres_tool(servers, "pg_dump", "--format=custom", f"--file={dump}", servers.database_url)
            api.command(session_id, "switch")
            wait_until(lambda: stored(cluster.urls[0]))
        connection = psycopg2.connect(servers.database_url)
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
        connection.close()
        postgres_tool(
            servers, "pg_restore", "--no-owner", "--clean", "--if-exists", f"--dbname={servers.database_url}", str(dump)
        )
        flask(servers, "db", "upgrade")
        assert "ahead" in flask(servers, "sessions", "recover", "--all", code=1)
        flask(servers, "audit", "verify", code=1)
        with app(servers, backup / "again") as cluster:
            assert RestClient(cluster.urls[0]).command(session_id, "switch")["version"] == 4

"""Servers of the whole run, clean stores for each test, and a cluster of real processes.

A server that cannot start fails the tests that need it: none is skipped for that.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Generator, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Protocol

import psycopg2
import pytest
import redis as redis_py

from syncapp.dev.processes import Process, end_leftovers, free_port
from syncapp.dev.runner import NO_LIMITS, App, Web, app_env
from syncapp.dev.servers import Postgres, Servers, Valkey

Redis = redis_py.Redis

LONGEST = {
    "dev/test_make_run",
    "history/test_read_pool",
    "postgres/test_database",
    "realtime/test_hub",
    "server/test_http_reader",
    "server/test_listen_address",
    "store/test_full_store",
    "test_connection_limits",
}

# Killing the server still loses nothing: only a crash of the machine would. A vacuum of the catalogue deletes a file
# that the next connection has to write again, and it can't while a test keeps the disk full.
FAST_POSTGRES = ("fsync=off", "full_page_writes=off", "autovacuum=off")


@pytest.fixture(scope="session")
def run_directory() -> Iterator[Path]:
    """Directory of the servers' data and logs; not under pytest's own, which other users may not pass."""
    directory = Path(tempfile.mkdtemp(prefix="syncapp-test-"))
    yield directory
    end_leftovers(directory)
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def servers(run_directory: Path) -> Iterator[Servers]:
    """Servers of the whole run: private ones, or those of REDIS_URL and DATABASE_URL.

    A given Redis must be empty, because tests flush it. On a given PostgreSQL a database of a random name is
    made, and dropped at the end.
    """
    with ExitStack() as stack:
        redis_url = os.environ.get("REDIS_URL", "")
        if redis_url:
            stack.enter_context(_borrowed_redis(redis_url))
        database_url = os.environ.get("DATABASE_URL", "")
        if database_url:
            database_url = stack.enter_context(scratch_database(database_url))
        yield stack.enter_context(
            Servers(
                run_directory,
                redis_url,
                database_url,
                valkey_options=("--enable-debug-command", "local"),
                postgres_options=FAST_POSTGRES,
            )
        )


@pytest.fixture(scope="session")
def valkey(servers: Servers) -> Valkey:
    """The run's private Valkey, to kill and to pause; a given server is not ours to do that to."""
    return servers.valkey or pytest.skip("REDIS_URL is given")


@pytest.fixture(scope="session")
def postgres(servers: Servers) -> Postgres:
    """The run's private PostgreSQL, to kill and to pause; a given server is not ours to do that to."""
    return servers.postgres or pytest.skip("DATABASE_URL is given")


@pytest.fixture(scope="session")
def redis_url(servers: Servers) -> str:
    """Where the run's Redis is."""
    return servers.redis_url


@pytest.fixture(scope="session")
def database_url(servers: Servers) -> str:
    """Where the run's PostgreSQL is, with every migration applied."""
    from syncapp.postgres.database import upgrade

    upgrade(servers.database_url)
    return servers.database_url


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    """Client of an empty Redis, which answers in bytes; scripts loaded earlier stay loaded."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
        yield client


@pytest.fixture
def db(database_url: str) -> Iterator[psycopg2.extensions.connection]:
    """Connection to a database whose tables are empty; each statement is a transaction of its own."""
    with closing(psycopg2.connect(database_url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SET syncapp.allow_changes = 'on'")  # tests may do what the log refuses
            cursor.execute(
                r"SELECT string_agg(quote_ident(tablename), ', ') FROM pg_tables"
                r" WHERE schemaname = current_schema AND tablename LIKE 'sync\_%'"
            )
            if tables := (cursor.fetchone() or (None,))[0]:
                cursor.execute(f"TRUNCATE {tables} CASCADE")
        yield connection


class Cluster:
    """Web processes on ports of their own and a worker, with the Procfile's commands and the run's stores.

    Each of `web` and `worker` is a `Process`: kill, pause, unpause, stop, start, restart, output.
    """

    def __init__(self, servers: Servers, directory: Path, *, web: int, worker: bool, env: Mapping[str, str]) -> None:
        def environment(port: int) -> dict[str, str]:
            # A killed web process leaves its temporary files: they go with the directory.
            own = {"HOST": "127.0.0.1", "PORT": str(port), "WEB_CONCURRENCY": "1", "TMPDIR": str(directory)}
            return app_env(os.environ, servers, **{**NO_LIMITS, **own, **env})

        self.web = [
            Web(environment(free_port()), directory=directory, output=directory / f"web-{number}.log")
            for number in range(web)
        ]
        for process in self.web:
            process.name = f"web on port {process.port}"
        self.worker = App("worker", environment(free_port()), directory=directory, output=directory / "worker.log")
        self.processes: list[Process] = [*self.web, *([self.worker] if worker else [])]

    @property
    def urls(self) -> list[str]:
        """Base URL of each web process."""
        return [process.url for process in self.web]

    def __enter__(self) -> Cluster:
        try:
            for process in self.processes:
                process.spawn()
            for process in self.processes:
                process.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        for process in self.processes:
            process.unpause()
            process.ask_to_stop()
        for process in self.processes:
            process.stop()


class MakeCluster(Protocol):
    """Starts a cluster that ends with the test module; `env` adds to the environment of all its processes."""

    def __call__(self, *, web: int = 2, worker: bool = True, **env: str) -> Cluster: ...


@pytest.fixture(scope="module")
def make_cluster(servers: Servers, run_directory: Path, database_url: str) -> Iterator[MakeCluster]:
    """What starts clusters with settings of their own; Redis is not flushed."""
    with ExitStack() as stack:

        def make(*, web: int = 2, worker: bool = True, **env: str) -> Cluster:
            directory = Path(tempfile.mkdtemp(prefix="cluster-", dir=run_directory))
            return stack.enter_context(Cluster(servers, directory, web=web, worker=worker, env=env))

        yield make


@pytest.fixture(scope="module")
def cluster(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    """Two web processes and a worker, on an empty Redis; what a test stops, it starts again."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster()


def pytest_xdist_auto_num_workers() -> int:
    """Return the number of processes for `make test`, each with its own servers; 0 is one process, on REDIS_URL."""
    return 0 if os.environ.get("REDIS_URL") else max(2, min(4, os.cpu_count() or 1))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the longest files, so that all processes end at about the same time."""
    items.sort(key=lambda item: item.nodeid.partition(".py")[0].removeprefix("tests/") not in LONGEST)


def pytest_sessionstart(session: pytest.Session) -> None:
    """Have coverage trace greenlets in the processes that tests start; pytest's own have none."""
    if session.config.getoption("numprocesses", None):
        return  # this one starts pytest's own
    if text := os.environ.get("COVERAGE_PROCESS_CONFIG"):
        config = json.loads(base64.b64decode(text)) | {"concurrency": ["thread", "gevent"]}
        os.environ["COVERAGE_PROCESS_CONFIG"] = base64.b64encode(json.dumps(config).encode()).decode()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add to a failure what the processes the test used have printed."""
    report = yield
    if report.failed:
        for value in getattr(item, "funcargs", {}).values():
            for process in value.processes if isinstance(value, Cluster) else ():
                report.sections.append((f"output of {process.name}", process.output()[-8000:]))
    return report


@contextmanager
def _borrowed_redis(url: str) -> Iterator[None]:
    """Refuse a Redis that holds anything; leave it empty."""
    with Redis.from_url(url) as client:
        if keys := client.dbsize():
            pytest.exit(f"REDIS_URL holds {keys} keys, and tests would flush it: give an empty database", returncode=4)
        try:
            yield
        finally:
            client.flushdb()


@contextmanager
def scratch_database(url: str) -> Iterator[str]:
    """Make a database beside the given one; drop it at the end."""
    name = f"syncapp_test_{secrets.token_hex(4)}"
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(f"CREATE DATABASE {name}")
        try:
            yield re.sub(r"^(\w+://[^/?]*)(/[^?]*)?", rf"\1/{name}", url)
        finally:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")

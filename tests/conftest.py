"""Fixtures of all tests: servers of the whole run, empty stores, real processes, clients.

A server that cannot start fails the tests that need it; they are not skipped.
"""

from __future__ import annotations

import importlib
import os
import shutil
import sys
import tempfile
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlencode

import psycopg2
import pytest
import redis as redis_py
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from websockets.sync.client import connect

from syncapp import create_app
from syncapp.audit.log import AuditLog
from syncapp.dev.processes import end_leftovers
from syncapp.dev.servers import Postgres, Servers, Valkey
from syncapp.dev.valkey_cluster import ValkeyCluster
from syncapp.postgres.database import Database
from syncapp.postgres.schema import upgrade
from syncapp.realtime.hub import Hub
from syncapp.store.connection_pool import ConnectionPool
from syncapp.store.sessions import SessionStore
from tests.support.audit_log import AuditServices
from tests.support.captured_logs import kept_log_handlers
from tests.support.child_coverage import COVERAGE_CONFIG, traced
from tests.support.cluster import FAST_POSTGRES, Cluster, MakeCluster, borrowed_redis, scratch_database
from tests.support.store import PARTIALS, ManualClock, make_settings, make_store
from tests.support.types import Db, Redis
from tests.support.web_clients import OpenWebSocket, RestClient, WebSocketClient, logged_errors

# No test may fail because the machine is slow.
hypothesis_settings.register_profile("slow machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
hypothesis_settings.load_profile("slow machine")
LONGEST = {
    "cli/test_rebucket",
    "deploy/test_backup",
    "deploy/test_production",
    "deploy/test_rights",
    "dev/test_cluster_runner",
    "dev/test_make_run",
    "dev/test_valkey_cluster",
    "history/test_read_pool",
    "postgres/test_database",
    "postgres/test_fitness_check",
    "realtime/test_hub_outages",
    "realtime/test_sharded_pubsub",
    "server/test_http_timeouts",
    "server/test_listen_address",
    "store/test_cluster_pool",
    "store/test_full_store_drains",
    "store/test_sentinels",
    "store/test_replication",
    "system/test_chaos",
    "system/test_cluster",
    "system/test_cluster_chaos",
    "test_connection_limits",
}


# Coverage doubles what these take, and other tests reach nearly every line that they reach.
UNTRACED = (
    "access/test_origins",
    "access/test_rate_limits",
    "access/test_token_properties",
    "api/test_arbiters_commands",
    "api/test_contract",
    "api/test_front",
    "api/test_permissions",
    "api/test_tenants",
    "clients/",
    "deploy/",
    "dev/",
    "docs/",
    "domain/notation/test_round_trips",
    "history/test_export",
    "history/test_read_pool",
    "history/test_replay",
    "history/test_restored_controls",
    "history/test_rollback",
    "lua/",
    "postgres/test_fitness_check",
    "realtime/",
    "server/",
    "store/test_full_store_drains",
    "store/test_node_sweepers",
    "system/",
    "test_architecture",
    "test_bench",
    "test_config",
    "test_connection_limits",
    "test_loops",
    "test_metrics",
)

_clusters: list[Cluster] = []
"""The clusters of the running module."""
_EMPTY_TABLES = r"""
DO $$
DECLARE each text; has_rows boolean; filled text[];
BEGIN
  FOR each IN SELECT quote_ident(tablename) FROM pg_tables
    WHERE schemaname = current_schema AND tablename LIKE 'sync\_%'
  LOOP
    EXECUTE 'SELECT EXISTS (SELECT FROM ' || each || ')' INTO has_rows;
    IF has_rows THEN filled := filled || each; END IF;
  END LOOP;
  IF filled IS NOT NULL THEN EXECUTE 'TRUNCATE ' || array_to_string(filled, ', ') || ' CASCADE'; END IF;
END $$
"""
"""Truncating a table takes much longer than finding that it has no rows."""


@pytest.fixture(scope="session")
def run_directory() -> Iterator[Path]:
    """Directory of the servers' data and logs; not under pytest's own, which other users cannot enter."""
    directory = Path(tempfile.mkdtemp(prefix="syncapp-test-"))
    yield directory
    end_leftovers(directory)
    shutil.rmtree(directory)


@pytest.fixture(scope="session")
def servers(run_directory: Path) -> Iterator[Servers]:
    """Servers of the whole run: private ones, or those of REDIS_URL and DATABASE_URL.

    A given Redis must be empty, because tests flush it. On a given PostgreSQL a database with a random
    name is created, and dropped at the end.
    """
    with ExitStack() as stack:
        redis_url = os.environ.get("REDIS_URL", "")
        if redis_url:
            stack.enter_context(borrowed_redis(redis_url))
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


@pytest.fixture
def valkey(servers: Servers) -> Iterator[Valkey]:
    """The run's private Valkey, which tests may stop, kill and pause; it runs again afterwards.

    Tests must not do that to a given server.
    """
    server = servers.valkey or pytest.skip("REDIS_URL is given")
    yield server
    server.unpause()
    if not server.alive:
        server.start()


@pytest.fixture
def postgres(servers: Servers) -> Iterator[Postgres]:
    """The run's private PostgreSQL, which tests may stop, kill and pause; it runs again afterwards.

    Tests must not do that to a given server.
    """
    server = servers.postgres or pytest.skip("DATABASE_URL is given")
    yield server
    server.unpause()
    if not server.alive:
        server.start()


@pytest.fixture(scope="module")
def _valkey_cluster(run_directory: Path) -> Iterator[ValkeyCluster]:
    data = Path(tempfile.mkdtemp(prefix="valkey-cluster-", dir=run_directory))
    with ValkeyCluster(run_directory, data, options=("--enable-debug-command", "local")) as cluster:
        yield cluster


@pytest.fixture
def valkey_cluster(_valkey_cluster: ValkeyCluster) -> Iterator[ValkeyCluster]:
    """An empty Valkey Cluster of three masters and three replicas; the module's, which takes 2 s to start.

    Tests may stop, kill and pause its nodes, and move slots; all nodes run again afterwards. After a kill, the replica
    takes over within about 7 s.
    """
    _valkey_cluster.flush()
    yield _valkey_cluster
    for node in _valkey_cluster.nodes:
        node.unpause()
        if not node.alive:
            node.start()
    _valkey_cluster.wait_ok()


@pytest.fixture(scope="session")
def redis_url(servers: Servers) -> str:
    """URL of the run's Redis."""
    return servers.redis_url


@pytest.fixture(scope="session")
def database_url(servers: Servers) -> str:
    """URL of the run's PostgreSQL, with every migration applied."""

    upgrade(servers.database_url)
    return servers.database_url


@pytest.fixture
def redis(redis_url: str) -> Iterator[Redis]:
    """Client of an empty Redis, which answers in bytes; scripts loaded earlier stay loaded."""
    with Redis.from_url(redis_url, socket_timeout=60) as client:
        client.flushdb()
        yield client


@pytest.fixture
def db(database_url: str) -> Iterator[psycopg2.extensions.connection]:
    """Connection to a database whose tables are empty; each statement is its own transaction."""
    with closing(psycopg2.connect(database_url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("SET syncapp.allow_changes = 'on'")  # the log is append-only otherwise
            cursor.execute(_EMPTY_TABLES)
        yield connection


@pytest.fixture(scope="module")
def make_cluster(servers: Servers, run_directory: Path, database_url: str) -> Iterator[MakeCluster]:
    """Starts clusters with their own settings; Redis is empty before the module's first one, and not flushed again."""
    with Redis.from_url(servers.redis_url) as client:
        client.flushdb()  # other modules leave keys on purpose with which no process becomes ready
    with ExitStack() as stack:
        stack.callback(_clusters.clear)

        def make(*, web: int = 2, worker: bool = True, **env: str) -> Cluster:
            directory = Path(tempfile.mkdtemp(prefix="cluster-", dir=run_directory))
            _clusters.append(stack.enter_context(Cluster(servers, directory, web=web, worker=worker, env=env)))
            return _clusters[-1]

        yield make


@pytest.fixture(scope="module")
def cluster(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    """Two web processes and a worker, on an empty Redis; a test that stops a process starts it again."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster()


def pytest_configure() -> None:
    """Require no tokens in the processes that tests start, unless a test says otherwise."""
    os.environ["AUTH"] = "off"


def pytest_xdist_auto_num_workers() -> int:
    """Return the number of processes for `make test`, each with its own servers; 0 is one process, on REDIS_URL."""
    # Two more than processors, because many tests wait for processes that they start, or for a browser.
    return 0 if os.environ.get("REDIS_URL") else max(2, min(6, 2 + (os.cpu_count() or 1)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the slowest files, so that all processes end at about the same time; mark those without coverage."""
    items.sort(key=lambda item: _place(item) not in LONGEST)
    for item in items:
        module = item.getparent(pytest.Module)
        if module and _place(item).startswith(UNTRACED) and not module.get_closest_marker("no_cover"):
            module.add_marker(pytest.mark.no_cover)  # pytest-cov's


@pytest.fixture(scope="module", autouse=True)
def _coverage_of_processes(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have coverage trace no process that a module without coverage starts."""
    with pytest.MonkeyPatch.context() as patch:
        if request.node.get_closest_marker("no_cover"):
            patch.delenv(COVERAGE_CONFIG, raising=False)
        yield


def _place(item: pytest.Item) -> str:
    return item.nodeid.partition(".py")[0].removeprefix("tests/")


def pytest_sessionstart(session: pytest.Session) -> None:
    """Have coverage trace greenlets in the processes that tests start; pytest's own have none."""
    if session.config.getoption("numprocesses", None):
        return  # this one starts pytest's own
    os.environ.update(traced(os.environ, "gevent"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the output of the module's web and worker processes to a failure."""
    report = yield
    if report.failed:
        for process in (each for cluster in _clusters for each in cluster.processes):
            report.sections.append((f"output of {process.name}", process.output()[-8000:]))
    return report


@pytest.fixture(autouse=True)
def no_hub_is_left(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stop hubs that a test started: they would notice what later tests do to the servers."""
    started: list[Hub] = []
    start = Hub._start

    def recorded(hub: Hub) -> None:
        started.append(hub)
        start(hub)

    monkeypatch.setattr(Hub, "_start", recorded)
    yield
    for hub in started:
        if not hub._stopped.is_set():
            hub.stop()


@pytest.fixture
def audit(db: Db, database_url: str) -> Iterator[AuditLog]:
    database = Database(database_url)
    yield AuditLog(database)
    database.close()


@pytest.fixture
def app(redis_url: str, database_url: str, clock: ManualClock) -> Flask:
    return create_app(make_settings(redis_url, database_url=database_url), partials=PARTIALS)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture(scope="module")
def one_web(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    """One web process with default settings, without a worker, on an empty Redis."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(web=1, worker=False)


@pytest.fixture(scope="module")
def web_url(one_web: Cluster) -> str:
    """URL of the one web process."""
    return one_web.urls[0]


@pytest.fixture(scope="module")
def pair(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    """Two web processes with default settings, without a worker, on an empty Redis."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(worker=False)


@pytest.fixture(scope="module")
def apis(pair: Cluster) -> list[RestClient]:
    return [RestClient(url) for url in pair.urls]


@pytest.fixture
def tasks(
    redis: redis_py.Redis, redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ModuleType]:
    """The module of tasks, imported anew with the URLs of the run's servers."""
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.delitem(sys.modules, "syncapp.tasks", raising=False)
    module = importlib.import_module("syncapp.tasks")
    monkeypatch.setitem(sys.modules, "syncapp.tasks", module)  # monkeypatch puts the old module back
    yield module
    for nudges in (module.worker._drain_requests, module.worker._local_drains):
        nudges._act = lambda bucket: None  # pending requests must not reach the next test
    module.worker.database.close()


@pytest.fixture
def clock(redis: Redis) -> ManualClock:
    """The store's clock; it moves only when the test moves it."""
    return ManualClock(redis)


@pytest.fixture
def store(redis_url: str, clock: ManualClock) -> SessionStore:
    """A store whose clock the test sets; see `clock`."""
    return make_store(redis_url)


@pytest.fixture(params=["one_script", "split"])
def split_limits(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run a test twice, the second time with the limits of a cluster; return whether they are.

    For that, stores take the run's server for a cluster.
    """
    is_split = bool(request.param == "split")
    if is_split:
        monkeypatch.setattr(ConnectionPool, "is_cluster", True)
    return is_split


@pytest.fixture
def open_websocket() -> Iterator[OpenWebSocket]:
    """Opens WebSockets that end with the test: `open_websocket(url, session_id, name=value, ...)`."""
    with ExitStack() as stack:

        def open_connection(url: str, session_id: str = "", **query: Any) -> WebSocketClient:
            parameters = urlencode({"sessionId": session_id, **query} if session_id else query)
            address = f"{url.replace('http', 'ws', 1)}/ws?{parameters}"
            return WebSocketClient(stack.enter_context(connect(address, max_size=None, max_queue=None)))

        yield open_connection


@pytest.fixture(autouse=True)
def _log_handlers() -> Iterator[None]:
    """Remove the log handlers that a test adds: the next test must not write to a stream that is closed by then."""
    with kept_log_handlers():
        yield


@pytest.fixture
def no_errors_logged(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fail a test whose web processes have logged an error."""
    yield
    for value in request.node.funcargs.values():
        if isinstance(value, Cluster):
            assert not logged_errors(value)


@pytest.fixture
def log(database_url: str, db: Db, redis: Redis, redis_url: str) -> Iterator[AuditServices]:
    made = AuditServices(database_url, redis, redis_url)
    yield made
    made.database.close()
    made.pool.close()

"""Fixtures of the store: the session list and its upkeep, a full store, a sweeper."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psycopg2
import pytest
import structlog
from flask.testing import FlaskClient
from structlog.testing import LogCapture

from syncapp import create_app
from syncapp.dev.servers import Servers, Valkey
from syncapp.postgres.schema import upgrade
from syncapp.store import sweeper as sweeper_module
from syncapp.store.client import connect
from syncapp.store.keys import Keyspace
from syncapp.store.list_upkeep import ListUpkeep
from syncapp.store.session_list import SessionList
from syncapp.store.sessions import SessionStore
from syncapp.store.sweeper import Sweeper
from tests.support.cluster import FAST_POSTGRES
from tests.support.full_store import FullStore
from tests.support.step_clock import StepClock
from tests.support.store import ManualClock, chess_request, make_settings
from tests.support.sweepers import make_sweeper
from tests.support.types import Redis

KEYS = Keyspace()


@pytest.fixture
def valkey_with(run_directory: Path, tmp_path: Path) -> Any:
    """Starts further servers: `with valkey_with(*options) as server`."""
    numbers = itertools.count()

    @contextmanager
    def start(*options: str) -> Iterator[Valkey]:
        server = Valkey(run_directory, tmp_path / f"valkey-{next(numbers)}", options=options)
        server.spawn()
        try:
            yield server
        finally:
            server.stop()

    return start


@pytest.fixture
def live(redis_url: str, store: SessionStore) -> SessionList:
    return SessionList(connect(make_settings(redis_url)), KEYS, store)


@pytest.fixture
def client(redis_url: str, database_url: str, redis: Redis) -> FlaskClient:
    return create_app(make_settings(redis_url, database_url=database_url)).test_client()


@pytest.fixture
def minutes() -> StepClock:
    return StepClock()


@pytest.fixture
def upkeep(redis_url: str, store: SessionStore, minutes: StepClock) -> ListUpkeep:
    return ListUpkeep(connect(make_settings(redis_url)), store, KEYS, minutes)


@pytest.fixture(scope="module")
def own(run_directory: Path) -> Iterator[FullStore]:
    directory = Path(tempfile.mkdtemp(prefix="full-", dir=run_directory))
    options = ("--maxmemory-policy", "noeviction", "--busy-reply-threshold", "100")
    with Servers(directory, valkey_options=options, postgres_options=FAST_POSTGRES) as servers:
        upgrade(servers.database_url)
        yield FullStore(servers, directory)


@pytest.fixture
def full(own: FullStore) -> Iterator[FullStore]:
    """The module's own servers, empty and without a memory limit; both run again at the end."""
    own.redis.flushall()
    own.no_limit()
    with closing(psycopg2.connect(own.servers.database_url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("SET syncapp.allow_changes = 'on'")
        cursor.execute(r"SELECT string_agg(tablename, ', ') FROM pg_tables WHERE tablename LIKE 'sync\_%'")
        cursor.execute(f"TRUNCATE {(cursor.fetchone() or ('',))[0]} CASCADE")
    yield own
    own.no_limit()
    if not own.postgres.alive:
        own.postgres.start()


@pytest.fixture
def sweeper(clock: ManualClock, redis_url: str) -> Sweeper:
    return make_sweeper(redis_url)


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    """Log lines of the sweeper."""
    capture = LogCapture()
    recorder = structlog.wrap_logger(None, processors=[capture], wrapper_class=structlog.make_filtering_bound_logger(0))
    monkeypatch.setattr(sweeper_module, "log", recorder)
    return capture


@pytest.fixture
def running(store: SessionStore) -> str:
    session_id = store.create(chess_request(increment_ms=3000)).found.session_id
    store.start(session_id)
    return session_id

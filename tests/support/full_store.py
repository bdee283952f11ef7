"""A Redis whose memory is full, and processes that use it."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import redis as redis_py

from syncapp.dev.runner import App, app_env
from syncapp.dev.servers import Postgres, Servers, Valkey
from syncapp.errors import StoreUnavailable
from syncapp.store.client import connect
from syncapp.store.sessions import SessionStore
from tests.support.cluster import Cluster
from tests.support.flask_commands import run_flask
from tests.support.outboxes import KEYS
from tests.support.store import chess_request, make_settings, memory_used

MIB = 1_048_576
CREATE = {"sync_mode": "global", "total_time_ms": 3_600_000}
ENV = {
    "AUDIT_RETRIES": "1",
    "AUDIT_RETRY_DELAY_S": "1",
    "AUDIT_LAG_ALERT_S": "1",
    "ALERT_INTERVAL_S": "0",
    "LOG_FORMAT": "json",
}


class FullStore:
    """Private servers: a Valkey whose memory can be filled, and a PostgreSQL that can be stopped."""

    def __init__(self, servers: Servers, directory: Path) -> None:
        assert servers.valkey
        assert servers.postgres
        self.servers = servers
        self.valkey: Valkey = servers.valkey
        self.postgres: Postgres = servers.postgres
        self.directory = directory
        self.redis = redis_py.Redis.from_url(servers.redis_url)
        self.chosen = make_settings(servers.redis_url, database_url=servers.database_url, memory_limit_percent=0)
        self.store = SessionStore(connect(self.chosen), self.chosen)

    @property
    def used(self) -> int:
        return memory_used(self.redis)

    @property
    def left(self) -> int:
        return sum(self.redis.xlen(KEYS.outbox(bucket)) for bucket in range(KEYS.buckets))

    def fill(self, *, mib: int = 8) -> list[str]:
        """Create and change sessions until the memory is full; return their ids."""
        self.redis.config_set("maxmemory", self.used + mib * MIB)
        sessions = [self.store.create(chess_request(3_600_000)).found.session_id for _ in range(8)]
        for session in sessions:
            self.store.start(session)
        with suppress(StoreUnavailable):
            while True:
                for session in sessions:
                    self.store.update(session, {"text": uuid.uuid4().hex * 400})
        with suppress(StoreUnavailable):
            while True:
                for session in sessions:
                    self.store.switch(session)
        # Memory stays full when a few connections end.
        self.redis.config_set("maxmemory", self.used - MIB // 2)
        return sessions

    def no_limit(self) -> None:
        self.redis.config_set("maxmemory", 0)

    def dump(self) -> dict[bytes, tuple[Any, int]]:
        """All keys except the list of processes and keys that expire within a second."""
        passing = re.compile(rb"sweeper|nudge|:ready$|processes$")
        keys = sorted(key for key in self.redis.scan_iter(count=1000) if not passing.search(key))
        # DUMP returns a hash's fields in no fixed order.
        hashes = {key for key in keys if self.redis.type(key) == b"hash"}
        return {
            key: (self.redis.hgetall(key) if key in hashes else self.redis.dump(key), self.redis.pexpiretime(key))
            for key in keys
        }

    def flask(self, *words: str) -> tuple[int, str]:
        """Run a command of `flask`; return its exit code and what it printed."""
        done = run_flask(self.chosen, *words)
        return done.exit_code, done.output

    def check_commands_drains_and_log(self) -> None:
        """Check that commands, drains and the audit log work."""
        session = self.store.create(chess_request(3_600_000)).found.session_id
        self.store.start(session)
        assert self.store.switch(session).found.cycle_count == 1
        if self.left:
            code, printed = self.flask("audit", "drain")
            assert code == 0, printed
        code, printed = self.flask("audit", "verify")
        assert code == 0, printed


@contextmanager
def web_and_worker(full: FullStore, *, web: int = 1, **env: str) -> Iterator[Cluster]:
    """Web processes and a worker on these servers."""
    directory = full.directory / f"cluster-{time.monotonic_ns()}"
    directory.mkdir()
    with Cluster(full.servers, directory, web=web, worker=True, env=ENV | env) as cluster:
        yield cluster


@contextmanager
def running_worker(full: FullStore, **env: str) -> Iterator[App]:
    """A worker without web processes."""
    log = full.directory / f"worker-{time.monotonic_ns()}.log"
    process = App("worker", app_env({}, full.servers) | ENV | env, directory=full.directory, output=log)
    process.spawn()
    try:
        yield process
    finally:
        process.stop()


def log_lines(process: App, event: str) -> list[dict[str, Any]]:
    """Return the lines that a process logged for one event."""
    lines = [json.loads(line) for line in process.output().splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("event") == event]

"""Web processes and a worker for tests, and temporary databases."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Protocol

import psycopg2
import pytest

from syncapp.dev.ports import free_port
from syncapp.dev.processes import Process
from syncapp.dev.runner import NO_LIMITS, App, Web, app_env
from syncapp.dev.servers import Servers
from tests.support.child_coverage import traced
from tests.support.types import Redis

# Killing the server still loses nothing; only a crash of the machine would. A vacuum of the catalogue deletes a file
# that the next connection has to write again, which fails while a test keeps the disk full.
FAST_POSTGRES = ("fsync=off", "full_page_writes=off", "autovacuum=off")

# A machine that stands still for a moment is no outage. Tests of outages say how soon the store is given up.
PATIENT = {"REDIS_TIMEOUT_S": "20"}


class Cluster:
    """Web processes on their own ports and a worker, with the Procfile's commands and the run's stores.

    Each of `web` and `worker` is a `Process`: kill, pause, unpause, stop, start, restart, output.
    """

    def __init__(self, servers: Servers, directory: Path, *, web: int, worker: bool, env: Mapping[str, str]) -> None:
        def environment(port: int) -> dict[str, str]:
            # A killed web process leaves its temporary files; they are deleted with the directory.
            own = {"HOST": "127.0.0.1", "PORT": str(port), "WEB_CONCURRENCY": "1", "TMPDIR": str(directory)}
            return app_env(os.environ, servers, **{**NO_LIMITS, **PATIENT, **own, **env})

        self.web = [
            Web(environment(free_port()), directory=directory, output=directory / f"web-{number}.log")
            for number in range(web)
        ]
        for process in self.web:
            process.name = f"web on port {process.port}"
        threaded = traced(environment(free_port()), "thread")
        self.worker = App("worker", threaded, directory=directory, output=directory / "worker.log")
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


@contextmanager
def borrowed_redis(url: str) -> Iterator[None]:
    """Refuse a Redis that is not empty; leave it empty."""
    with Redis.from_url(url) as client:
        if keys := client.dbsize():
            pytest.exit(f"REDIS_URL holds {keys} keys, and tests would flush it: give an empty database", returncode=4)
        try:
            yield
        finally:
            client.flushdb()


@contextmanager
def scratch_database(url: str) -> Iterator[str]:
    """Create a database on the same server; drop it at the end."""
    name = f"syncapp_test_{secrets.token_hex(4)}"
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(f"CREATE DATABASE {name}")
        try:
            yield re.sub(r"^(\w+://[^/?]*)(/[^?]*)?", rf"\1/{name}", url)
        finally:
            cursor.execute(f"DROP DATABASE {name} WITH (FORCE)")

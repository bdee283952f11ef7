"""A Valkey Cluster, web processes and workers of their own, for tests that kill and move everything."""

from __future__ import annotations

import os
import random
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import requests
from redis.crc import key_slot

from syncapp.config import Settings
from syncapp.dev.ports import free_port
from syncapp.dev.processes import Process
from syncapp.dev.runner import NO_LIMITS, App, Web, app_env
from syncapp.dev.servers import Servers
from syncapp.dev.valkey_cluster import ValkeyCluster
from syncapp.dev.valkey_node import ValkeyNode
from syncapp.postgres.schema import upgrade
from syncapp.store.keys import Keyspace
from tests.support.cluster import FAST_POSTGRES
from tests.support.postgres_roles import run_sql
from tests.support.web_clients import wait_until


class ClusterRig:
    """Three masters with a replica each, a Valkey for tasks, PostgreSQL, two web processes and two workers.

    A context manager. `settings` are those of the processes; `env` adds to their environment.
    """

    def __init__(self, directory: Path, *, node_timeout_ms: int = 1500, **env: str) -> None:
        self.directory = directory
        self.servers = Servers(directory, postgres_options=FAST_POSTGRES)
        self.nodes = ValkeyCluster(directory, directory / "nodes", node_timeout_ms=node_timeout_ms)
        assert self.servers.valkey
        self.tasks_server = self.servers.valkey
        own = {"HOST": "127.0.0.1", "WEB_CONCURRENCY": "1", "TMPDIR": str(directory), "AUTH": "off"}
        stores = {"REDIS_URL": self.nodes.url, "TASKS_REDIS_URL": self.servers.redis_url}
        soon = {"REDIS_TIMEOUT_S": "1.5", "AUDIT_RETRY_DELAY_S": "1", "AUDIT_CLAIM_IDLE_S": "3"}
        self.env = app_env(os.environ, self.servers, **{**NO_LIMITS, **soon, **own, **stores, **env})
        self.settings = Settings.from_env(self.env)
        self.keys = Keyspace(self.settings.sync_buckets)
        self.webs = [
            Web(self.env | {"PORT": str(free_port())}, directory=directory, output=directory / f"web-{number}.log")
            for number in range(2)
        ]
        self.workers = [
            App("worker", self.env, directory=directory, output=directory / f"worker-{number}.log")
            for number in range(2)
        ]
        self.apps: list[Process] = [*self.webs, *self.workers]
        self._stack = ExitStack()

    def __enter__(self) -> ClusterRig:
        with ExitStack() as stack:
            stack.enter_context(self.servers)
            stack.enter_context(self.nodes)
            upgrade(self.servers.database_url)
            stack.callback(self._stop)
            for app in self.apps:
                app.spawn()
            # A list is read from all masters.
            for url in self.urls:
                wait_until(lambda url=url: _answers(f"{url}/v1/sessions"), within_s=120)  # type: ignore[misc]  # the default binds it
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @property
    def urls(self) -> list[str]:
        """Base URL of each web process."""
        return [web.url for web in self.webs]

    @property
    def processes(self) -> list[Process]:
        """Everything that runs."""
        return [*self.apps, *self.servers.processes, *self.nodes.nodes]

    def slot_of(self, session_id: str) -> int:
        """Return the hash slot of a session's keys."""
        return int(key_slot(self.keys.session(session_id).encode()))

    def masters_of(self, session_ids: Iterable[str]) -> set[ValkeyNode]:
        """Return the masters that have sessions."""
        slots = set(map(self.slot_of, session_ids))
        return {master for master in self.nodes.masters() if slots & _slots(master)}

    def ids_of(self, master: ValkeyNode, rng: random.Random) -> Iterator[str]:
        """Yield new session ids whose keys a master has."""
        slots = _slots(master)
        while True:
            session_id = str(uuid.UUID(int=rng.getrandbits(128), version=4))
            if self.slot_of(session_id) in slots:
                yield session_id

    def stored(self) -> Counter[str]:
        """Return the number of stored events of each session."""
        query = "SELECT session_id::text, count(*) FROM sync_events GROUP BY session_id"
        return Counter(dict(run_sql(self.settings.database_url, query)))

    def output(self, last: int = 3000) -> str:
        """Return the end of the output of every process."""
        return "\n".join(f"--- {each.name}\n{each.output()[-last:]}" for each in self.processes)

    def _stop(self) -> None:
        for process in self.processes:
            process.unpause()
        for app in self.apps:
            app.ask_to_stop()
        for app in self.apps:
            app.stop()


def _slots(master: ValkeyNode) -> set[int]:
    return {slot for first, last in master.view()[0].slots for slot in range(first, last + 1)}


def _answers(url: str) -> bool:
    with suppress(requests.ConnectionError):
        return requests.get(url, timeout=60).status_code == 200
    return False

"""The rig: private servers of one run, and the processes that its parts need."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import jwt
import psutil
import redis as redis_py

from syncapp.config import Settings
from syncapp.dev.ports import free_port
from syncapp.dev.runner import NO_LIMITS, App, Web, app_env
from syncapp.dev.servers import Servers
from syncapp.domain.private_parts import split_entry
from syncapp.domain.results import Result
from syncapp.domain.schemas import CreateSession
from syncapp.postgres.schema import upgrade
from syncapp.store.client import connect
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore

BARE = "return {'ok', ARGV[1]}"
"""The floor of every script: it only replies."""
SECRET = "the secret of a benchmark: 32 bytes or more"


class Rig:
    """Private servers, as `make run` starts them, for one run of the benchmark; a context manager."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.servers = Servers(directory)
        self.keys = Keyspace()

    def __enter__(self) -> Rig:
        self.servers.__enter__()
        upgrade(self.servers.database_url)
        self.settings = Settings.from_env(
            {"AUTH": "off", "REDIS_URL": self.servers.redis_url, "DATABASE_URL": self.servers.database_url}
        )
        self.redis: redis_py.Redis = redis_py.Redis.from_url(self.servers.redis_url)
        self.store = self.new_store()
        return self

    def __exit__(self, *exc: object) -> None:
        self.redis.close()
        self.servers.__exit__(*exc)

    @property
    def valkey(self) -> psutil.Process:
        """The Valkey of this run."""
        if self.servers.valkey is None:
            raise LookupError("the benchmark starts its own Valkey")
        return psutil.Process(self.servers.valkey.pid)

    def new_store(self) -> SessionStore:
        """Return a store with its own connections and cache."""
        return SessionStore(connect(self.settings), self.settings)

    def flush(self) -> None:
        """Empty Redis; scripts stay loaded."""
        self.redis.flushdb()

    def session(self, participants: int = 2, *, start: bool = True, **fields: object) -> str:
        """Create and start a session with a day for each participant; return its id."""
        made = self.create(participants, **fields).found.session_id
        if start:
            self.store.start(made)
        return made

    def create(self, participants: int = 2, **fields: object) -> Result:
        """Create a session with a day for each participant."""
        return self.store.create(new_session(participants, **fields))

    def memory(self, key: str) -> int:
        """Return the bytes of a key with all its elements; 0 if there is none."""
        return self.redis.memory_usage(key, samples=0) or 0

    def outbox(self) -> Iterator[tuple[int, bytes]]:
        """Yield when each event in the outboxes was committed (ms), and its hashed message."""
        for bucket in range(self.settings.sync_buckets):
            entries: Any = self.redis.xrange(self.keys.outbox(bucket))
            for stream_id, fields in entries:
                yield int(stream_id.split(b"-")[0]), split_entry(fields[b"message"])[0]

    def forget_outbox(self) -> None:
        """Delete the outboxes: parts without a worker must not measure a server that fills up."""
        self.redis.delete(*(self.keys.outbox(bucket) for bucket in range(self.settings.sync_buckets)))

    @contextmanager
    def web(self, processes: int = 1, **env: str) -> Iterator[Web]:
        """Start the Procfile's web process with this many workers."""
        web = Web(self._env(WEB_CONCURRENCY=str(processes), **env), directory=self.directory, output=self._log("web"))
        with _running(web):
            yield web

    def token(self) -> str:
        """Return a token that allows everything, for `secured`."""
        claims = {"sub": "bench", "scope": "admin", "exp": int(time.time()) + 86_400}
        return jwt.encode(claims, SECRET, algorithm="HS256")

    def secured(self, processes: int = 1, **env: str) -> AbstractContextManager[Web]:
        """Start the web process with `AUTH=required`. All limits are counted, but none is reached."""
        limits = {name: "1000000" for name, value in NO_LIMITS.items() if name not in env}
        return self.web(processes, **(limits | {"AUTH": "required", "AUTH_SECRETS": SECRET} | env))

    @contextmanager
    def floor(self, processes: int = 1) -> Iterator[Web]:
        """Start a bare Flask app under the same gunicorn settings."""
        web = Web(self._env(WEB_CONCURRENCY=str(processes)), directory=self.directory, output=self._log("floor"))
        web.argv = [arg.replace("wsgi:app", "bench.floor:app") for arg in web.argv]
        with _running(web):
            yield web

    @contextmanager
    def worker(self) -> Iterator[App]:
        """Start the Procfile's worker process."""
        worker = App("worker", self._env(), directory=self.directory, output=self._log("worker"))
        with _running(worker):
            yield worker

    def _env(self, **values: str) -> dict[str, str]:
        own = {"HOST": "127.0.0.1", "PORT": str(free_port()), "TMPDIR": str(self.directory)}
        return app_env(os.environ, self.servers, **(NO_LIMITS | own | values))

    def _log(self, name: str) -> Path:
        handle, path = tempfile.mkstemp(prefix=f"{name}-", suffix=".log", dir=self.directory)
        os.close(handle)
        return Path(path)


def new_session(participants: int = 2, **fields: object) -> CreateSession:
    """Return a create request with a day for each participant, unless other fields are given."""
    people = [{"participant_id": f"p{place}", "total_time_ms": 86_400_000} for place in range(participants)]
    return CreateSession.parse({"sync_mode": "per_participant", "increment_ms": 1000, "participants": people} | fields)


def cpu_s(tree: list[psutil.Process]) -> float:
    """Return the CPU time that processes have used, in s."""
    return sum(sum(process.cpu_times()[:2]) for process in tree)


@contextmanager
def _running(process: App) -> Iterator[None]:
    process.start()
    try:
        yield
    finally:
        process.stop()

"""A build: private servers for one tree of SyncApp, and the processes of that tree that a measurement needs."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

import psutil
import redis as redis_py
from honcho.environ import parse_procfile

from bench.raw import Raw
from syncapp.dev.ports import free_port
from syncapp.dev.processes import StartError, end_leftovers
from syncapp.dev.runner import NO_LIMITS, ROOT, App, Web, app_env
from syncapp.dev.servers import Servers

_SCRIPT_CALLS = ("cmdstat_evalsha", "cmdstat_fcall")
_Kind = TypeVar("_Kind", bound=App)
OPEN = {
    "WS_MAX_CONNECTIONS": "20000",
    "WS_MAX_CONNECTIONS_PER_SESSION": "20000",
    "WS_MAX_CONNECTIONS_PER_ADDRESS": "20000",
    "WS_MESSAGES_PER_S": "100000",
    "WS_MESSAGES_BURST": "100000",
    "WS_DRAIN_S": "0",
    "LOG_LEVEL": "WARNING",
}
"""Settings for many clients of one address."""


class Build:
    """A tree with its own Valkey and PostgreSQL; a context manager.

    The servers' programs and everything that measures are those of this tree; web, worker, migrations and scripts are
    those of the build. packages: a folder with packages that the build needs and this Python does not have.
    """

    def __init__(self, root: Path = ROOT, name: str = "this build", packages: Path | None = None) -> None:
        self.root = root.resolve()
        self.name = name
        self._packages = packages
        if not (self.root / "Procfile").exists():
            raise StartError(f"{self.root} is no tree of SyncApp: it has no Procfile")

    def __enter__(self) -> Self:
        self.directory = Path(tempfile.mkdtemp(prefix="syncapp-bench-"))
        with contextlib.ExitStack() as stack:
            stack.callback(shutil.rmtree, self.directory, ignore_errors=True)
            stack.callback(end_leftovers, self.directory)
            self.servers = stack.enter_context(Servers(self.directory))
            self.redis: redis_py.Redis = stack.enter_context(redis_py.Redis.from_url(self.servers.redis_url))
            release = self._adapted(App("release", self._env(), directory=self.directory, output=self._log("release")))
            release.spawn()
            if code := release.wait():
                raise StartError(f"{self.name}: the release command failed (exit code {code}): {release.output()}")
            self._agent: subprocess.Popen[str] | None = None
            stack.callback(self._end_agent)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()

    @property
    def valkey(self) -> psutil.Process:
        """The Valkey of this build."""
        if self.servers.valkey is None:
            raise LookupError("the benchmark starts its own Valkey")
        return psutil.Process(self.servers.valkey.pid)

    def web(self, processes: int = 1, /, **env: str) -> AbstractContextManager[Web]:
        """Start the build's web process with this many workers, without limits."""
        values = self._env(WEB_CONCURRENCY=str(processes), **(OPEN | env))
        web = self._adapted(Web(values, directory=self.directory, output=self._log("web")))
        return _running(web)

    def worker(self) -> AbstractContextManager[App]:
        """Start the build's worker process."""
        return _running(self._adapted(App("worker", self._env(), directory=self.directory, output=self._log("worker"))))

    def sessions(self, count: int, participants: int = 2) -> list[str]:
        """Create and start sessions with a day for each participant; return their ids."""
        found: list[str] = self.ask("sessions", count, participants)
        return found

    def recorded(self, ids: list[str]) -> list[bytes]:
        """Switch each session once; return the bytes that each call sent to the server."""
        return [base64.b64decode(each) for each in self.ask("recorded", ids)]

    def ask(self, *question: object) -> Any:
        """Call a function of the agent, which runs in the build."""
        agent = self._agent = self._agent or self._started_agent()
        if not agent.stdin or not agent.stdout:
            raise RuntimeError("the agent has no pipes")
        with contextlib.suppress(BrokenPipeError):
            agent.stdin.write(json.dumps(question) + "\n")
            agent.stdin.flush()
        if not (answer := agent.stdout.readline()):
            logs = "".join(path.read_text() for path in self.directory.glob("agent-*.log"))
            raise RuntimeError(f"{self.name}: the agent ended: {logs[-2000:]}")
        return json.loads(answer)

    def _started_agent(self) -> subprocess.Popen[str]:
        with self._log("agent").open("wb") as log:
            return subprocess.Popen(
                [sys.executable, "-P", str(Path(__file__).with_name("agent.py"))],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=self._env(),
                cwd=self.root,
            )

    def raw(self) -> Raw:
        """Return a bare connection to the build's Valkey."""
        return Raw(self.servers.redis_url)

    def flush(self) -> None:
        """Empty Redis; scripts stay loaded."""
        self.redis.flushdb()

    def outboxes(self) -> list[bytes]:
        """Return the keys of the streams of events that are not in PostgreSQL yet."""
        keys: Iterable[bytes] = self.redis.scan_iter(match="*outbox*", count=1000, _type="stream")
        return sorted(keys)

    def forget_outbox(self) -> None:
        """Delete these events: without a worker, the server must not fill up."""
        if keys := self.outboxes():
            self.redis.delete(*keys)

    def script_time(self) -> tuple[float, int]:
        """Return the time (µs) that the server has spent in scripts, and the number of their calls."""
        stats: Any = self.redis.info("commandstats")
        found = [stats[name] for name in _SCRIPT_CALLS if name in stats]
        return sum(each["usec"] for each in found), sum(each["calls"] for each in found)

    def busy_s(self) -> float:
        """Return the CPU time that the server's main thread has used, in s."""
        cpu: Any = self.redis.info("cpu")
        return float(cpu["used_cpu_user_main_thread"]) + float(cpu["used_cpu_sys_main_thread"])

    def _adapted(self, app: _Kind) -> _Kind:
        """Return a process that runs the build's command in the build's directory."""
        command = dict(parse_procfile((self.root / "Procfile").read_text()).processes)[app.name]
        app.argv, app.cwd = ["sh", "-c", f"exec {command}"], self.root
        return app

    def _env(self, **values: str) -> dict[str, str]:
        own = {"HOST": "127.0.0.1", "PORT": str(free_port()), "TMPDIR": str(self.directory)}
        env = app_env(os.environ, self.servers, **(NO_LIMITS | own | values))
        paths = [str(self.root), *map(str, filter(None, (self._packages, values.get("PYTHONPATH"))))]
        return env | {"PYTHONPATH": os.pathsep.join(paths), "AUTH": "off"}

    def _log(self, name: str) -> Path:
        handle, path = tempfile.mkstemp(prefix=f"{name}-", suffix=".log", dir=self.directory)
        os.close(handle)
        return Path(path)

    def _end_agent(self) -> None:
        if self._agent:
            self._agent.kill()
            self._agent.communicate()


def resident(processes: Iterable[psutil.Process]) -> int:
    """Return the resident memory of processes, in bytes."""
    return sum(each.memory_info().rss for each in processes)


def workers(web: Web) -> list[psutil.Process]:
    """Return the processes that serve requests."""
    return psutil.Process(web.pid).children(recursive=True)


@contextmanager
def _running(app: _Kind) -> Iterator[_Kind]:
    app.start()
    try:
        yield app
    finally:
        app.stop()

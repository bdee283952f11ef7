"""`make run`: starts private servers and the Procfile's processes, and prints commands to try.

Unlike other modules it reads the environment itself, because it makes the environment of the processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path

from honcho.environ import parse, parse_procfile
from honcho.printer import Message, Printer

from syncapp.config import Settings, SettingsError
from syncapp.dev.greeting import greeting
from syncapp.dev.processes import Process, StartError, end_leftovers
from syncapp.dev.servers import Servers
from syncapp.server.listen_address import ListenAddress

ROOT = Path(__file__).resolve().parents[2]
NO_LIMITS = dict.fromkeys(
    (
        "CREATES_PER_MINUTE",
        "ADDRESS_STORE_BYTES_PER_HOUR",
        "SELF_COMMITS_PER_HOUR",
        "SESSION_COMMANDS_PER_S",
        "PRINCIPAL_COMMANDS_PER_S",
        "PRINCIPAL_CREATES_PER_MINUTE",
        "TENANT_LIVE_SESSIONS",
        "TENANT_STORE_BYTES_PER_HOUR",
        "TENANT_SELF_COMMITS_PER_HOUR",
        "READS_PER_S",
    ),
    "0",
)
"""Settings for tests and benchmarks, whose load comes from one address."""


def procfile() -> dict[str, str]:
    """Return the Procfile's shell commands by process type."""
    return dict(parse_procfile((ROOT / "Procfile").read_text()).processes)


def dotenv() -> dict[str, str]:
    """Return the settings in the file `.env`, if there is one; the environment takes precedence over it."""
    path = ROOT / ".env"
    return dict(parse(path.read_text())) if path.exists() else {}


def app_env(environ: Mapping[str, str], servers: Servers, **values: str) -> dict[str, str]:
    """Return the environment of the Procfile's processes; their commands are in the directory of this Python.

    Without `AUTH` in it, they require no tokens.
    """
    return {
        **environ,
        "AUTH": environ.get("AUTH", "").strip() or "off",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{environ.get('PATH', os.defpath)}",
        "PYTHONUNBUFFERED": "1",
        "REDIS_URL": servers.redis_url,
        "DATABASE_URL": servers.database_url,
        **values,
    }


class App(Process):
    """One process type of the Procfile."""

    stop_timeout_s = 28.0  # above the 20 s that web and worker wait for their work to end

    def __init__(
        self, kind: str, env: Mapping[str, str], *, directory: Path, output: Path | Callable[[bytes], None]
    ) -> None:
        # Without exec the shell would receive the signals instead of the process.
        argv = ["sh", "-c", f"exec {procfile()[kind]}"]
        super().__init__(kind, argv, directory=directory, output=output, env=env, cwd=ROOT)


class Web(App):
    """The Procfile's web process, which listens on HOST and PORT of its environment."""

    def __init__(self, env: Mapping[str, str], *, directory: Path, output: Path | Callable[[bytes], None]) -> None:
        super().__init__("web", env, directory=directory, output=output)
        listening = ListenAddress.of(Settings.from_env(env))
        self.host, self.port, self.url = listening.reached_at, listening.port, listening.url

    def is_ready(self) -> bool:
        """Return whether it answers GET /ready with 200."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=5)
        with contextlib.suppress(OSError, http.client.HTTPException), contextlib.closing(connection):
            connection.request("GET", "/ready")
            answer = connection.getresponse()
            self.unready = "" if answer.status == 200 else answer.read().decode(errors="replace")
            return answer.status == 200
        return False


def run(environ: Mapping[str, str]) -> None:
    """Start everything, print what to try, and wait.

    Raises `SettingsError`, and `StartError` if something fails or stops unexpectedly.
    """
    directory = Path(environ.get("DATA_DIR") or ".data").expanduser().resolve()
    # Only this machine can connect, unless HOST says otherwise.
    environ = {**environ, "HOST": environ.get("HOST", "").strip() or "127.0.0.1"}
    environ["AUTH"] = environ.get("AUTH", "").strip() or "off"  # the greeting says what that means
    if not any(environ.get(name, "").strip() for name in ("ALLOWED_ORIGINS", "WS_ALLOWED_ORIGINS")):
        environ["ALLOWED_ORIGINS"] = "*"  # a page under development is served by another server
    settings = Settings.from_env(environ)
    listening = ListenAddress.of(settings)
    with _locked(directory):
        if end_leftovers(directory):
            print("Ended processes that a killed run had left behind.", flush=True)
        _check_port(listening)
        print("Starting ...", flush=True)
        try:
            with Servers(directory, environ.get("REDIS_URL", ""), environ.get("DATABASE_URL", "")) as servers:
                text = greeting(settings, listening, directory, servers, _again(environ))
                _serve(servers, app_env(environ, servers), directory, text)
        finally:
            end_leftovers(directory)  # a signal may have come after a process started, but before that was recorded


def _again(environ: Mapping[str, str]) -> str:
    """Return the shell command that starts a run with the same port and data."""
    given = [f"{name}={shlex.quote(environ[name])}" for name in ("PORT", "DATA_DIR") if environ.get(name)]
    return " ".join(["make", "run", *given])


def _serve(servers: Servers, env: Mapping[str, str], directory: Path, text: str) -> None:
    show = _prefixed()
    release = App("release", env, directory=directory, output=show("release"))
    release.spawn()
    if code := release.wait():
        raise StartError(f"the release command failed (exit code {code}): {procfile()['release']}")
    web = Web(env, directory=directory, output=show("web"))
    worker = App("worker", env, directory=directory, output=show("worker"))
    try:
        worker.spawn()
        web.start()
        print(text, flush=True)
        while True:
            for process in (*servers.processes, web, worker):
                if not process.alive:
                    raise StartError(f"{process.name} stopped unexpectedly (exit code {process.exit_code})")
            time.sleep(0.2)
    finally:
        print("Stopping ...", flush=True)
        for process in (web, worker):
            process.ask_to_stop()
        for process in (web, worker):
            process.stop()


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Lock a directory for this run."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(
                f"{directory} is in use by another run; for a second one: make run DATA_DIR=... PORT=..."
            ) from None
        yield


def _check_port(listening: ListenAddress) -> None:
    try:
        with socket.socket(listening.family) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((listening.address, listening.port))
            probe.listen()
    except OSError as error:
        raise StartError(
            f"cannot listen on {listening.bind} ({error.strerror}); for another port: make run PORT=..."
        ) from None


def _prefixed() -> Callable[[str], Callable[[bytes], None]]:
    """Return a function that takes a process's name and returns a function that prints its lines."""
    printer = Printer(sys.stdout, width=len("release"))
    colours = iter(("35", "36", "33"))
    lock = threading.Lock()

    def named(name: str) -> Callable[[bytes], None]:
        colour = next(colours)

        def show(line: bytes) -> None:
            with lock:
                printer.write(Message(type="line", data=line, time=datetime.now(), name=name, colour=colour))

        return show

    return named


def _stop(_number: int, _frame: object) -> None:
    """Begin to stop. Further signals are ignored, so that they do not interrupt it."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    """Run until a signal; return the exit code: 0 after a signal, 1 after a failure."""
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, _stop)
    try:
        run(dotenv() | os.environ)
    except KeyboardInterrupt:
        print("Stopped.", flush=True)
    except SettingsError as error:
        print(f"SyncApp cannot start: {error}", file=sys.stderr)
        return 1
    except (StartError, OSError) as error:
        print(f"make run: {error}", file=sys.stderr)
        return 1
    return 0

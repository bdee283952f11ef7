"""`make run`: starts private servers and the Procfile's processes, and prints commands to try.

Unlike other modules it reads the environment itself, because it makes the environment of the processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import itertools
import os
import shlex
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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


Show = Callable[[str], Callable[[bytes], None]]
"""Takes a process's name, and returns a function that prints its lines."""


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
    directory = data_directory(environ)
    environ = for_this_machine(environ)
    settings = Settings.from_env(environ)
    listening = ListenAddress.of(settings)
    with (
        alone(directory, listening),
        Servers(directory, environ.get("REDIS_URL", ""), environ.get("DATABASE_URL", "")) as servers,
    ):
        stores = {"REDIS_URL": servers.redis_url, "DATABASE_URL": servers.database_url}
        text = greeting(settings, listening, directory, stores, start_again("run", environ))
        env, show = app_env(environ, servers), prefixed()
        release(env, directory, show)
        worker = App("worker", env, directory=directory, output=show("worker"))
        web = Web(env, directory=directory, output=show("web"))
        serve([worker, web], servers.processes, text)


def data_directory(environ: Mapping[str, str]) -> Path:
    """Return the absolute DATA_DIR."""
    return Path(environ.get("DATA_DIR") or ".data").expanduser().resolve()


def for_this_machine(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment with what a run has by default: unlike a deployment, only this machine can connect."""
    own = {"HOST": environ.get("HOST", "").strip() or "127.0.0.1"}
    own["AUTH"] = environ.get("AUTH", "").strip() or "off"  # the greeting says what that means
    if not any(environ.get(name, "").strip() for name in ("ALLOWED_ORIGINS", "WS_ALLOWED_ORIGINS")):
        own["ALLOWED_ORIGINS"] = "*"  # a page under development is served by another server
    return {**environ, **own}


@contextlib.contextmanager
def alone(directory: Path, *listening: ListenAddress) -> Iterator[None]:
    """Lock the directory of a run, check its ports, and end what earlier runs and this one leave behind."""
    with _locked(directory):
        if end_leftovers(directory):
            print("Ended processes that a killed run had left behind.", flush=True)
        for each in listening:
            _check_port(each)
        print("Starting ...", flush=True)
        try:
            yield
        finally:
            end_leftovers(directory)  # a signal may have come after a process started, but before that was recorded


def start_again(target: str, environ: Mapping[str, str]) -> str:
    """Return the shell command that starts a run with the same port and data."""
    given = [f"{name}={shlex.quote(environ[name])}" for name in ("PORT", "DATA_DIR") if environ.get(name)]
    return " ".join(["make", target, *given])


def release(env: Mapping[str, str], directory: Path, show: Show) -> None:
    """Run the Procfile's release command. Raises `StartError` if it fails."""
    command = App("release", env, directory=directory, output=show("release"))
    command.spawn()
    if code := command.wait():
        raise StartError(f"the release command failed (exit code {code}): {procfile()['release']}")


def serve(
    apps: Sequence[App], servers: Sequence[Process], text: str, *, each_turn: Callable[[], None] = lambda: None
) -> None:
    """Start the apps, print the text, and wait until one of them or of the servers stops; then stop the apps.

    each_turn: is called about five times a second. Raises `StartError`.
    """
    try:
        for app in apps:
            app.spawn()
        for app in apps:
            app.wait_ready()
        print(text, flush=True)
        while True:
            for process in (*servers, *apps):
                if not process.alive:
                    raise StartError(f"{process.name} stopped unexpectedly (exit code {process.exit_code})")
            each_turn()
            time.sleep(0.2)
    finally:
        print("Stopping ...", flush=True)
        for app in apps:
            app.ask_to_stop()
        for app in apps:
            app.stop()


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


def prefixed() -> Show:
    """Return a function that takes a process's name and returns a function that prints its lines."""
    printer = Printer(sys.stdout, width=len("release"))
    colours = itertools.cycle(("35", "36", "33", "32", "34"))
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


def main(run: Callable[[Mapping[str, str]], None] = run, target: str = "make run") -> int:
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
        print(f"{target}: {error}", file=sys.stderr)
        return 1
    return 0

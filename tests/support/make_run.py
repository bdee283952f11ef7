"""`make run` and `make run-cluster` in tests."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from syncapp.dev.ports import free_port
from syncapp.dev.processes import MARK, end_leftovers, runs
from syncapp.dev.runner import ROOT
from syncapp.dev.servers import Servers


class Run:
    """One `make run` or `make run-cluster` on a directory and a port, its output in a file."""

    def __init__(self, directory: Path, servers: Servers, *, port: int | None = None, argv: Sequence[str]) -> None:
        self.directory = directory
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = Path(f"{directory}-{self.port}.log")
        # A surrounding make would pass on its own flags and PORT.
        own = "MAKE|MFLAGS|(PORT|HOST|DATA_DIR|AUTH|AUTH_SECRETS)$"
        kept = {name: value for name, value in os.environ.items() if not re.match(own, name)}
        # Given servers are passed on to the run; otherwise it starts its own.
        given = {} if servers.valkey else {"REDIS_URL": servers.redis_url}
        given |= {} if servers.postgres else {"DATABASE_URL": servers.database_url}
        env = kept | given | {"PORT": str(self.port), "DATA_DIR": str(directory)}
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                argv, cwd=ROOT, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    @property
    def output(self) -> str:
        return self._log.read_text()

    def wait_until_announced(self) -> None:
        while "Try:" not in self.output:
            assert self.process.poll() is None, self.output
            time.sleep(0.05)

    def wait(self) -> int:
        return self.process.wait(timeout=110)

    def processes(self) -> list[psutil.Process]:
        """The processes of the directory and those in it, without the runner."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):  # it ended just now
                mark = process.environ().get(MARK, "")
                if Path(mark).is_relative_to(self.directory) and runs(process):
                    found.append(process)
        return found

    def child(self, word: str) -> psutil.Process:
        """The first process with a word in its command line."""
        return next(process for process in self.processes() if any(word in part for part in process.cmdline()))


RunIt = Callable[..., Run]


@contextmanager
def runs_on_one_directory(servers: Servers) -> Iterator[RunIt]:
    """Give what starts runs on a data directory not there yet; kill what a failed test leaves."""
    parent = Path(tempfile.mkdtemp(prefix="syncapp-run-"))
    directory = parent / "my data"
    started: list[Run] = []

    def start(*, port: int | None = None, argv: tuple[str, ...] = ("make", "run")) -> Run:
        started.append(Run(directory, servers, port=port, argv=argv))
        return started[-1]

    yield start
    for run in started:
        run.process.kill()
        run.process.wait()
    for each in (directory, directory / "cluster"):
        end_leftovers(each)
    shutil.rmtree(parent)

"""Processes that development and tests start for themselves, and end without leaving one behind."""

from __future__ import annotations

import contextlib
import ctypes
import os
import pwd
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

MARK = "SYNCAPP_RUN"
"""Environment variable that names, in every process started here, the directory it was started for."""


class StartError(RuntimeError):
    """Something that did not start, or stopped by itself; its text says what and why."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on.

    Ports that the system gives to outgoing connections are left out: a client that keeps trying to
    reach a stopped server could otherwise be given the server's own port, and keep it from starting again.
    """
    while True:
        port = random.randrange(20_000, 32_000)
        if port_is_free("127.0.0.1", port):
            return port


def port_is_free(host: str, port: int) -> bool:
    """Tell whether a server could listen on the port now."""
    with contextlib.suppress(OSError), socket.create_server((host, port)):
        return True
    return False


def end_leftovers(directory: Path) -> int:
    """Kill every process that an earlier, killed run left behind for this directory; return how many."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == str(directory):
                found += [process, *process.children(recursive=True)]
    _kill_all(found)
    return len(set(found))


def runs(process: psutil.Process) -> bool:
    """Tell whether a process still runs; one that only waits to be collected by its parent does not.

    A killed process that waits like this still holds its files and ports while one of its threads ends.
    """
    try:
        return process.is_running() and (process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1)
    except psutil.NoSuchProcess:
        return False


class Process:
    """One command, in a session of its own, so that a terminal's Ctrl-C does not reach it.

    What it prints goes to a file, or line by line to a function.
    """

    stop_signal = signal.SIGTERM
    stop_timeout_s = 10.0
    ready_timeout_s = 120.0

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        directory: Path,
        output: Path | Callable[[bytes], None],
        env: Mapping[str, str] | None = None,
        cwd: Path = Path("/"),
    ) -> None:
        self.name = name
        self.argv = list(argv)
        self.env = {**(os.environ if env is None else env), MARK: str(directory)}
        self.cwd = cwd
        self.user: int | None = None
        self._output = output
        self._popen: subprocess.Popen[bytes] | None = None
        self._asked = False  # to stop: Huey, asked twice, drops what it does
        self.unready = ""  # why it is not ready, when it says so

    @property
    def pid(self) -> int:
        """Process id of the latest start."""
        return self._started.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code; None while it runs or when it was never started; negative for a signal."""
        return self._popen.poll() if self._popen else None

    @property
    def alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    def tree(self) -> list[psutil.Process]:
        """Return the process and its descendants, parents first; nothing once it has ended."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            return [process, *process.children(recursive=True)]
        return []

    def is_ready(self) -> bool:
        """Tell whether it does its work; a subclass asks it."""
        return True

    def start(self) -> None:
        """Start it and wait until it is ready. Raises `StartError`."""
        self.spawn()
        self.wait_ready()

    def spawn(self) -> None:
        """Start it without waiting."""
        self._asked = False
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(self._output.open("ab")) if isinstance(self._output, Path) else None
            self._popen = subprocess.Popen(
                self.argv,
                stdin=subprocess.DEVNULL,
                stdout=log or subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self.env,
                cwd=self.cwd,
                start_new_session=True,
                preexec_fn=_end_with_parent(self.stop_signal),  # noqa: PLW1509 it does one system call
                **as_user(self.user),
            )
        if not isinstance(self._output, Path) and self._popen.stdout:
            threading.Thread(target=_forward, args=(self._popen.stdout, self._output), daemon=True).start()

    def wait_ready(self) -> None:
        """Wait until it is ready. Raises `StartError` when it ends or takes longer than `ready_timeout_s`."""
        end = time.monotonic() + self.ready_timeout_s
        while not self.is_ready():
            if not self.alive:
                raise StartError(f"{self.name} did not start (exit code {self.exit_code}){self._tail()}")
            if time.monotonic() > end:
                why = f": {self.unready}" if self.unready else ""
                raise StartError(f"{self.name} is not ready after {self.ready_timeout_s:.0f} s{why}{self._tail()}")
            time.sleep(0.05)

    def wait(self) -> int:
        """Wait until it has ended by itself; return its exit code."""
        return self._started.wait()

    def ask_to_stop(self) -> None:
        """Send the signal that ends it in good order, and return at once; a second time does nothing."""
        if self.alive and not self._asked:
            self._asked = True
            os.kill(self.pid, self.stop_signal)

    def stop(self) -> None:
        """End it in good order, or after `stop_timeout_s` by force; its descendants end with it."""
        tree = self.tree() if self.alive else []
        self.ask_to_stop()
        if self._popen:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(self.stop_timeout_s)
        _kill_all(tree)

    def kill(self) -> None:
        """Kill it and its descendants (SIGKILL); return when they are gone."""
        _kill_all(self.tree() if self.alive else [])
        if self._popen:
            self._popen.wait()

    def restart(self) -> None:
        """Stop it if it runs, and start it again with the same words, environment and port."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Freeze it and its descendants (SIGSTOP): connections stay open and nothing answers."""
        for process in self.tree():
            process.suspend()

    def unpause(self) -> None:
        """Let it run again (SIGCONT)."""
        for process in self.tree():
            process.resume()

    def output(self) -> str:
        """Return what it has printed so far, over all its starts; empty when that went to a function."""
        if isinstance(self._output, Path) and self._output.exists():
            return self._output.read_text(errors="replace")
        return ""

    @property
    def _started(self) -> subprocess.Popen[bytes]:
        if self._popen is None:
            raise RuntimeError(f"{self.name} was never started")
        return self._popen

    def _tail(self) -> str:
        lines = self.output().splitlines()[-15:]
        return ":\n  " + "\n  ".join(lines) if lines else ""


def _forward(lines: IO[bytes], show: Callable[[bytes], None]) -> None:
    with lines:
        for line in lines:
            show(line)


def _kill_all(processes: Sequence[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    end = time.monotonic() + 10
    while any(map(runs, processes)) and time.monotonic() < end:
        time.sleep(0.01)


def as_user(user: int | None) -> dict[str, Any]:
    """Return the arguments of `subprocess` that start a process as a user (by number); None for the present one."""
    return {} if user is None else {"user": user, "group": pwd.getpwuid(user).pw_gid, "extra_groups": []}


def _end_with_parent(number: int) -> Callable[[], None] | None:
    """Return what makes a new process get a signal when its parent is killed; None where that cannot be.

    Linux sends it when the parent's *thread* ends, so only a main thread may ask for it.
    """
    if sys.platform != "linux" or threading.current_thread() is not threading.main_thread():
        return None
    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(1, number)

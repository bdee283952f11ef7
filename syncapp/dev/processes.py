"""Processes that development and tests start, and end without leaving any behind."""

from __future__ import annotations

import contextlib
import functools
import os
import pwd
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil

MARK = "SYNCAPP_RUN"
"""The environment variable that names the run's directory in every process started here."""

SUSPENDED = frozenset({psutil.STATUS_STOPPED, psutil.STATUS_DISK_SLEEP, psutil.STATUS_ZOMBIE})
"""The states in which a process that got SIGSTOP runs no code of its own.

One that waits in the kernel, as for a vfork'ed child that is suspended itself, stops before it runs on. A zombie is
left of a process that ended, until its parent runs again.
"""


class StartError(RuntimeError):
    """A process or server did not start, or stopped unexpectedly; the text says which and why."""


def end_leftovers(directory: Path) -> int:
    """Kill every process that a killed run left behind for this directory; return how many."""
    found: list[psutil.Process] = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == str(directory):
                found += [process, *process.children(recursive=True)]
    _kill_all(found)
    return len(set(found))


def runs(process: psutil.Process) -> bool:
    """Return whether a process still runs; a zombie does not, unless it has threads left.

    A killed process keeps its files and ports until its last thread has ended.
    """
    try:
        return process.is_running() and (process.status() != psutil.STATUS_ZOMBIE or process.num_threads() > 1)
    except psutil.NoSuchProcess:
        return False


class Process:
    """One command, in its own process session, so that a terminal's Ctrl-C does not reach it.

    Its output goes to a file, or line by line to a function.
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
        self._was_asked_to_stop = False  # a second signal would make Huey interrupt its tasks
        self.unready = ""  # why it is not ready, if it says so

    @property
    def pid(self) -> int:
        """The process id of the last start."""
        return self._started.pid

    @property
    def exit_code(self) -> int | None:
        """The exit code; None while it runs or before it was started; negative for a signal."""
        return self._popen.poll() if self._popen else None

    @property
    def alive(self) -> bool:
        """Whether it was started and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    def tree(self) -> list[psutil.Process]:
        """Return the process and its descendants, parents first; an empty list after it has ended."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            return [process, *process.children(recursive=True)]
        return []

    def is_ready(self) -> bool:
        """Return whether it is ready; subclasses check it."""
        return True

    def start(self) -> None:
        """Start it and wait until it is ready. Raises `StartError`."""
        self.spawn()
        self.wait_ready()

    def spawn(self) -> None:
        """Start it without waiting."""
        self._was_asked_to_stop = False
        with contextlib.ExitStack() as stack:
            log = stack.enter_context(self._output.open("ab")) if isinstance(self._output, Path) else None
            self._popen = subprocess.Popen(
                [*_end_with_parent(self.stop_signal), *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=log or subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env=self.env,
                cwd=self.cwd,
                start_new_session=True,
                **as_user(self.user),
            )
        if not isinstance(self._output, Path) and self._popen.stdout:
            threading.Thread(target=_forward, args=(self._popen.stdout, self._output), daemon=True).start()

    def wait_ready(self) -> None:
        """Wait until it is ready. Raises `StartError` if it ends, or takes longer than `ready_timeout_s`."""
        end = time.monotonic() + self.ready_timeout_s
        while not self.is_ready():
            if not self.alive:
                raise StartError(f"{self.name} did not start (exit code {self.exit_code}){self._tail()}")
            if time.monotonic() > end:
                why = f": {self.unready}" if self.unready else ""
                raise StartError(f"{self.name} is not ready after {self.ready_timeout_s:.0f} s{why}{self._tail()}")
            time.sleep(0.05)

    def wait(self) -> int:
        """Wait until it has ended; return its exit code."""
        return self._started.wait()

    def ask_to_stop(self) -> None:
        """Send the signal that stops it gracefully, and return at once. A second call does nothing."""
        if self.alive and not self._was_asked_to_stop:
            self._was_asked_to_stop = True
            os.kill(self.pid, self.stop_signal)

    def stop(self) -> None:
        """Stop it gracefully, or kill it after `stop_timeout_s`. Its descendants are killed."""
        tree = self.tree() if self.alive else []
        self.ask_to_stop()
        if self._popen:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(self.stop_timeout_s)
        _kill_all(tree)

    def kill(self) -> None:
        """Kill it and its descendants (SIGKILL), and wait until they have ended."""
        _kill_all(self.tree() if self.alive else [])
        if self._popen:
            self._popen.wait()

    def restart(self) -> None:
        """Stop it if it runs, and start it again with the same arguments, environment and port."""
        self.stop()
        self.start()

    def pause(self) -> None:
        """Suspend it and its descendants (SIGSTOP): connections stay open, and nothing answers."""
        paused: set[psutil.Process] = set()
        # A process that is suspended starts no more, so this ends when all that were there are.
        while new := [process for process in self.tree() if process not in paused]:
            _signal_all(new, signal.SIGSTOP)
            _wait_while(_is_active, new)
            paused.update(new)

    def unpause(self) -> None:
        """Resume it and its descendants (SIGCONT)."""
        _signal_all(self.tree(), signal.SIGCONT)

    def output(self) -> str:
        """Return its output so far, of all its starts; empty if the output goes to a function."""
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


def _signal_all(processes: Sequence[psutil.Process], number: signal.Signals) -> None:
    """Send a signal to each; one that has ended since it was listed gets none."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(number)


def _kill_all(processes: Sequence[psutil.Process]) -> None:
    _signal_all(processes, signal.SIGKILL)
    _wait_while(runs, processes)


def _wait_while(holds: Callable[[psutil.Process], bool], processes: Sequence[psutil.Process]) -> None:
    """Wait, for at most 10 s, until something holds for none of the processes."""
    end = time.monotonic() + 10
    while any(map(holds, processes)) and time.monotonic() < end:
        time.sleep(0.01)


def _is_active(process: psutil.Process) -> bool:
    """Return whether a process that got SIGSTOP still runs code of its own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() not in SUSPENDED
    return False


def as_user(user: int | None) -> dict[str, Any]:
    """Return the `subprocess` arguments that start a process as this user id; None for the current user."""
    return {} if user is None else {"user": user, "group": pwd.getpwuid(user).pw_gid, "extra_groups": []}


def _end_with_parent(number: signal.Signals) -> list[str]:
    """Return the command that gives the program after it this signal when its parent is killed; nothing if impossible.

    A function of ours between fork and exec could do the same. But CPython then copies this process instead of sharing
    its memory for that moment: from one of 400 MB, such as pytest, each start took a second or more of processor time.

    Linux sends the signal when the parent's *thread* ends, so this works in a main thread only.
    """
    if threading.current_thread() is not threading.main_thread() or not (setpriv := _setpriv()):
        return []
    return [setpriv, "--pdeathsig", number.name.removeprefix("SIG")]


@functools.cache
def _setpriv() -> str | None:
    """Return the path of util-linux's setpriv; None if there is none. BusyBox's lacks the option."""
    path = shutil.which("setpriv")
    if path and subprocess.run([path, "--pdeathsig", "TERM", "true"], capture_output=True, check=False).returncode == 0:
        return path
    return None

"""Players: a process with many WebSockets, which plays sessions at an even rate, or listens to one."""

from __future__ import annotations

import gc
import multiprocessing
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any, Self

from bench.hall import Hall
from bench.pipes import serve
from bench.wire import Wire

_context = multiprocessing.get_context("spawn")


class Players:
    """A process that holds the sockets of some sessions; a context manager."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def __enter__(self) -> Self:
        self._pipe, theirs = _context.Pipe()
        self._process = _context.Process(target=_serve, args=(theirs, self._wire), daemon=True)
        self._process.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._pipe.close()
        self._process.join(10)
        self._process.kill()

    def connect(self, ports: Sequence[int], sessions: Sequence[str], per_session: int, first: int) -> None:
        """Begin to open the sockets of sessions, on ports chosen at random.

        first: the number of the first socket among those of all processes. Wait with `result`, which returns how long
        each took from its connect to its state, in ns.
        """
        self._pipe.send(("connect", list(ports), list(sessions), per_session, first))

    def play(self, rate: float, seconds: float, start_ns: int, seed: int) -> None:
        """Begin to switch the sessions, so many a second in all; wait with `result`, which returns a `Played`."""
        self._pipe.send(("play", rate, seconds, start_ns, seed))

    def fan(self, rounds: int, port: int) -> None:
        """Begin to switch the only session so many times, each time when all sockets of this process have the news.

        port: where to publish, for a wire that does not send commands over its sockets; 0 to only listen. Wait with
        `result`, which returns for each number of a switch when it was sent, came to the first socket and to the last.
        """
        self._pipe.send(("fan", rounds, port))

    def result(self) -> Any:
        """Return what the last call was to return."""
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer


def _serve(pipe: Connection, wire: Wire) -> None:
    gc.disable()  # nothing here is in cycles, and a pause would count as the server's
    serve(pipe, Hall(wire))

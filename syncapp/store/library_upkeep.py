"""Removes the libraries of other releases: each costs a server about a fifth of the time of its scripts.

A process that still uses one loads it again at its next call. So a library comes back while processes of an earlier
release serve, and would outlive the last of them: a worker keeps looking. It leaves alone what it sees for the first
time, because a deployment replaces its processes one after another. Functions belong to all databases of a server: two
installations of different releases there make each other load 140 kB once for each removal, which is cheap.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import redis

from syncapp.store.connection_pool import ConnectionPool, packed
from syncapp.store.functions import PREFIX
from syncapp.store.scripts import Scripts

TURN_S = 5.0
SECOND_LOOK_S = 120.0
"""Time from the start of a worker to the first removal. By then the processes of the earlier release have ended."""
LOOK_S = 600.0
"""Time between two looks after that."""


class LibraryUpkeep:
    """Looks at the libraries of all servers, and removes those of other releases that the last look found, too."""

    def __init__(self, client: redis.Redis, clock: Callable[[], float] = time.monotonic) -> None:
        scripts = Scripts(client)
        self._pool = scripts.pool
        self._own = scripts.functions.library
        self._clock = clock
        self._due_s = clock()
        self._wait_s = SECOND_LOOK_S
        self._seen: set[tuple[str, str]] = set()

    def turn(self) -> float:
        """Look if it is time; return how long to wait (s). Raises redis-py's errors; the next turn looks again."""
        if self._clock() >= self._due_s:
            self._look()
            self._due_s, self._wait_s = self._clock() + self._wait_s, LOOK_S
        return TURN_S

    def _look(self) -> None:
        found = {(node.name, library): node for node in self._pool.nodes() for library in self._others(node)}
        for place in found.keys() & self._seen:
            found[place].call_each(packed("FUNCTION", "DELETE", place[1]))
        self._seen = set(found)

    def _others(self, node: ConnectionPool) -> set[str]:
        """Return the libraries of other releases on a server; none if it does not answer or does not allow that."""
        (found,) = node.call_each(packed("FUNCTION", "LIST", "LIBRARYNAME", f"{PREFIX}*"))
        return set() if isinstance(found, Exception) else {_name_in(each) for each in found} - {self._own}


def _name_in(listed: Sequence[Any]) -> str:
    """Return the name of a library in an item of FUNCTION LIST, which is a flat list of names and values."""
    return str(listed[list(listed).index("library_name") + 1])

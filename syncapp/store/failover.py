"""The server behind an address: replies which show that it is the wrong one, and Sentinels that name another.

A demoted primary replies READONLY to every write, as long as the connection to it stays open. So such a reply closes
all connections of the process that were opened before it; new ones lead to the server that the address points to now.
So does the word of the Sentinels, who are asked once a second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import structlog
from redis import exceptions

from syncapp import metrics
from syncapp.store.sentinels import Sentinels

log = structlog.get_logger(__name__)

TURN_S = 1.0
"""Time between two questions to the Sentinels."""
_ASK_AGAIN_S = 0.5
"""Time after which a new connection asks again, if another one has failed."""
_ASK_ANYWAY_S = 5.0
"""Time after which a new connection asks in any case: commands of `flask` have no loop."""
_WRONG_SERVER = frozenset({"READONLY", "MASTERDOWN", "LOADING", "CLUSTERDOWN", "MOVED", "ASK"})
"""Codes of replies from a server that does not, or does not yet, accept commands for this address."""


class NoPrimaryNamed(exceptions.ConnectionError):
    """No Sentinel has named the server yet, so nothing was sent."""


class Server:
    """The server behind an address; its generation grows whenever that turns out to be another one.

    That is when a reply shows it, or when the Sentinels name another server. sentinels: None for a fixed address.
    """

    def __init__(self, sentinels: Sentinels | None = None) -> None:
        self.generation = 0
        self._sentinels = sentinels
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._address: tuple[str, int] | None = None
        self._is_suspect = True
        self._asked_s = float("-inf")

    def leave(self, generation: int) -> None:
        """End a generation of connections that lead to the wrong server; does nothing if it has already ended."""
        with self._lock:
            if generation == self.generation:
                self.generation += 1
                self._is_suspect = True

    def suspect(self) -> None:
        """Have the Sentinels asked again before the next connection, because one could not be opened or has failed."""
        self._is_suspect = True

    def known(self) -> Mapping[str, Any]:
        """Return host and port that the Sentinels named last, without asking them; nothing for a fixed address."""
        return {"host": self._address[0], "port": self._address[1]} if self._address else {}

    def endpoint(self) -> Mapping[str, Any]:
        """Return host and port for a new connection, as its arguments; nothing for a fixed address.

        Raises `NoPrimaryNamed` if no Sentinel has named a server yet.
        """
        if self._sentinels is None:
            return {}
        asked_s, again_s = self._asked_s, _ASK_AGAIN_S if self._is_suspect else _ASK_ANYWAY_S
        # One caller asks. The others take the known address; they wait only if there is none.
        if time.monotonic() - asked_s > again_s and self._asking.acquire(blocking=self._address is None):
            try:
                if asked_s == self._asked_s:  # nobody has asked in between
                    self._ask(self._sentinels)
            finally:
                self._asking.release()
        if self._address is None:
            raise NoPrimaryNamed("no Sentinel names the server")
        return {"host": self._address[0], "port": self._address[1]}

    @property
    def has_sentinels(self) -> bool:
        """Whether Sentinels name the server."""
        return self._sentinels is not None

    def ask(self) -> None:
        """Ask the Sentinels who the server is; never raises."""
        if self._sentinels:
            with self._asking:
                self._ask(self._sentinels)

    def worries(self) -> list[str]:
        """Return what is wrong with the Sentinels, for `/ready`."""
        return self._sentinels.worries() if self._sentinels else []

    def _ask(self, sentinels: Sentinels) -> None:
        """Ask the Sentinels; begin a new generation if they name another server than before."""
        self._is_suspect = False
        address = sentinels.ask()
        self._asked_s = time.monotonic()
        if address is None or address == self._address:
            return
        before, self._address = self._address, address
        if before:
            metrics.PROMOTIONS.inc()
            log.warning("primary_changed", before=_shown(before), after=_shown(address))
            with self._lock:
                self.generation += 1


def asks_sentinels(servers: Sequence[Server]) -> Callable[[], float] | None:
    """Return the turn of a loop that asks the Sentinels of these servers; None if none of them has Sentinels."""
    named = [server for server in servers if server.has_sentinels]

    def turn() -> float:
        for server in named:
            server.ask()
        return TURN_S

    return turn if named else None


def _shown(address: tuple[str, int]) -> str:
    return f"{address[0]}:{address[1]}"


def says_wrong_server(error: BaseException) -> bool:
    """Return whether an error reply means that this server does not accept commands, but another one may."""
    code = getattr(error, "status_code", None) or str(error).removeprefix("ERR ").split(" ", 1)[0]
    return code in _WRONG_SERVER


class _Watchful:
    """Mixin for redis-py's connections: a reply that means "wrong server" ends the server's generation."""

    server: Server
    generation: int

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().read_response(*args, **kwargs)  # type: ignore[misc]  # defined by the class it is mixed into
        except exceptions.RedisError as error:
            if says_wrong_server(error):
                self.server.leave(self.generation)
            raise


@cache
def watchful(connection_class: type[Any]) -> type[Any]:
    """Return a subclass of one of redis-py's connection classes that does so."""
    return type(f"Watchful{connection_class.__name__}", (_Watchful, connection_class), {})

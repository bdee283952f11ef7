"""The server behind an address, and replies which show that it is the wrong one.

A demoted primary replies READONLY to every write, as long as the connection to it stays open. So such a reply closes
all connections of the process that were opened before it; new ones lead to the server that the address points to now.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

from redis import exceptions

_WRONG_SERVER = frozenset({"READONLY", "MASTERDOWN", "LOADING", "CLUSTERDOWN", "MOVED", "ASK"})
"""Codes of replies from a server that does not, or does not yet, accept commands for this address."""


class Server:
    """The server behind an address; its generation grows whenever a reply shows that it is the wrong one."""

    def __init__(self) -> None:
        self.generation = 0
        self._lock = threading.Lock()

    def leave(self, generation: int) -> None:
        """End a generation of connections that lead to the wrong server; does nothing if it has already ended."""
        with self._lock:
            if generation == self.generation:
                self.generation += 1


@cache
def server_at(url: str) -> Server:
    """Return the server behind an address; all pools of this process share it."""
    return Server()


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

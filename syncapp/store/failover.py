"""Which server an address leads to, and replies that say that it is the wrong one.

A primary that was demoted behind its address answers READONLY to every write, for as long as the connection stays
open. So such a reply ends all connections of the process that were made before it, and new ones are made to wherever
the address points by then.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

from redis import exceptions

_WRONG_SERVER = frozenset({"READONLY", "MASTERDOWN", "LOADING", "CLUSTERDOWN", "MOVED", "ASK"})
"""Replies of a server that is not, or not yet, the one that takes commands."""


class Server:
    """The server that an address leads to; its generation grows when it turns out to be the wrong one."""

    def __init__(self) -> None:
        self.generation = 0
        self._lock = threading.Lock()

    def leave(self, generation: int) -> None:
        """End a generation of connections, one of which leads to the wrong server. Does nothing if it has ended."""
        with self._lock:
            if generation == self.generation:
                self.generation += 1


@cache
def server_at(url: str) -> Server:
    """Return the server of an address: one for all pools of this process that use it."""
    return Server()


def says_wrong_server(error: BaseException) -> bool:
    """Tell whether an error reply means that this server does not accept commands but another one may."""
    word = getattr(error, "status_code", None) or str(error).removeprefix("ERR ").split(" ", 1)[0]
    return word in _WRONG_SERVER


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
    """Return a class of redis-py's connections that does so."""
    return type(f"Watchful{connection_class.__name__}", (_Watchful, connection_class), {})

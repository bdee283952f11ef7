"""The hand-over of a socket from the web server to what its request has become: a WebSocket outlives its request.

The environ of a request has a function under `HAND_OVER`. It takes the socket, and what to call with it after the
request. No metrics are imported here: gunicorn's main process must not have metrics of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent.socket

HAND_OVER = "syncapp.hand_over"
Begin = Callable[[Any, bytes, Callable[[], None]], None]
"""Begins to serve a socket, after input that has arrived with the request; the last argument is called at the end."""


class HandOvers:
    """The sockets that the running requests of a web process have handed over."""

    def __init__(self) -> None:
        self._begins: dict[Any, Begin] = {}

    def offered_to(self, application: Any) -> Any:
        """Return a WSGI application that offers the hand-over to another one, except with TLS."""
        hand_over = self._begins.__setitem__

        def offering(environ: dict[str, Any], start_response: Any) -> Any:
            if type(environ.get("gunicorn.socket")) is gevent.socket.socket:
                environ[HAND_OVER] = hand_over
            return application(environ, start_response)

        return offering

    def __contains__(self, client: Any) -> bool:
        return client in self._begins

    def take(self, client: Any) -> Begin | None:
        """Return what to call with a socket, None if it was not handed over."""
        return self._begins.pop(client, None)

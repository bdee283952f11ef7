"""The subscriptions of one WebSocket: the sessions that it watches besides the one that it was opened for."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from syncapp.domain.version_order import Order
from syncapp.errors import TooManySubscriptions
from syncapp.metrics import SUBSCRIPTIONS
from syncapp.realtime.topic import Watcher
from syncapp.server.command_runner import Backend
from syncapp.server.writer import Writer

log = structlog.get_logger(__name__)


class Subscriptions:
    """Adds and removes sessions that the client watches. Each counts as a connection of its session.

    own: the session that the connection was opened for, which is already counted with the connection; '' for none.
    """

    __slots__ = ("_hub", "_id", "_limit", "_own", "_quotas", "_watcher", "_writer")

    def __init__(self, backend: Backend, writer: Writer, watcher: Watcher, own: str, connection_id: str) -> None:
        self._hub = backend.hub
        self._quotas = backend.quotas
        self._limit = backend.settings.ws_max_subscriptions
        self._writer = writer
        self._watcher = watcher
        self._own = own
        self._id = connection_id

    def add(self, session_id: str, known: Order, confirm: Callable[[], None]) -> None:
        """Watch another session; confirm: sends the answer, which comes before anything about the session.

        Raises `TooManySubscriptions` and `TooManyConnections`.
        """
        if len(self._writer.sessions) >= self._limit:
            message = f"this connection already watches {self._limit} sessions, the maximum; open another one"
            raise TooManySubscriptions(message, {"limit": self._limit})
        if session_id != self._own:
            self._quotas.add(session_id)
            SUBSCRIPTIONS.inc()
        confirm()
        self._writer.add(session_id, known)
        log.info("websocket subscribed", session_id=session_id, connection=self._id)
        self._hub.watch(session_id, self._watcher, known)

    def add_own(self, session_id: str, known: Order) -> None:
        """Watch the session of the connection's URL, now that a token has come. Raises `TooManyConnections`."""
        self._writer.set_own(session_id)
        self.add(session_id, known, lambda: None)

    def remove(self, session_id: str) -> None:
        """Stop watching a session: nothing more about it is sent."""
        self._hub.unwatch(session_id, self._watcher)
        self._writer.remove(session_id)
        self._uncount(session_id)
        log.info("websocket unsubscribed", session_id=session_id, connection=self._id)

    def end(self) -> None:
        """Stop watching all sessions."""
        for session_id in self._writer.sessions:
            self._hub.unwatch(session_id, self._watcher)
            self._uncount(session_id)

    def _uncount(self, session_id: str) -> None:
        if session_id != self._own:
            self._quotas.remove(session_id)
            SUBSCRIPTIONS.dec()

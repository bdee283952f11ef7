"""The sessions that one WebSocket watches beside the one that it was opened for."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from syncapp.domain.order import Order
from syncapp.errors import TooManySubscriptions
from syncapp.metrics import SUBSCRIPTIONS
from syncapp.realtime.topic import Watcher
from syncapp.server.command_runner import Backend
from syncapp.server.writer import Writer

log = structlog.get_logger(__name__)


class Subscriptions:
    """Begins and ends watches as a client asks. They count as connections of their sessions.

    own: the session that the connection was opened for, which is counted with it; empty when there is none.
    """

    def __init__(self, backend: Backend, outlet: Writer, watcher: Watcher, own: str, connection_id: str) -> None:
        self._hub = backend.hub
        self._quotas = backend.quotas
        self._limit = backend.settings.ws_max_subscriptions
        self._outlet = outlet
        self._watcher = watcher
        self._own = own
        self._id = connection_id

    def add(self, session_id: str, claim: Order, confirm: Callable[[], None]) -> None:
        """Watch another session; confirm: tells the client, before anything of the session.

        Raises `TooManySubscriptions`, `TooManyConnections`.
        """
        if len(self._outlet.sessions) >= self._limit:
            message = f"this connection already watches {self._limit} sessions, the maximum; open another one"
            raise TooManySubscriptions(message, {"limit": self._limit})
        if session_id != self._own:
            self._quotas.add(session_id)
            SUBSCRIPTIONS.inc()
        confirm()
        self._outlet.add(session_id, claim)
        log.info("websocket subscribed", session_id=session_id, connection=self._id)
        self._hub.watch(session_id, self._watcher, claim)

    def remove(self, session_id: str) -> None:
        """Watch a session no more: nothing of it follows."""
        self._hub.unwatch(session_id, self._watcher)
        self._outlet.remove(session_id)
        self._give_back(session_id)
        log.info("websocket unsubscribed", session_id=session_id, connection=self._id)

    def end(self) -> None:
        """Watch nothing more."""
        for session_id in self._outlet.sessions:
            self._hub.unwatch(session_id, self._watcher)
            self._give_back(session_id)

    def _give_back(self, session_id: str) -> None:
        if session_id != self._own:
            self._quotas.remove(session_id)
            SUBSCRIPTIONS.dec()

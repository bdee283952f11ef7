"""The thread that keeps a session connected: WebSockets, long polls where those do not get through, and pauses."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

from syncapp_client.connection import Connection
from syncapp_client.errors import OFFLINE
from syncapp_client.handshake import opened
from syncapp_client.polling import POLL_FOR_S, Polling
from syncapp_client.rest import Rest
from syncapp_client.retries import jitter_s
from syncapp_client.timeline import order_of
from syncapp_client.values import Reason
from syncapp_client.watched import Lost, Watched

log = logging.getLogger(__name__)
STEADY_S = 10.0
"""A connection that has held for so long makes the next pause short again."""
_FEW = 2
"""After so many handshakes that do not get through, one after the other, long polls are tried."""
_SHORT_POLL_S = 5.0
_JOIN_S = 20.0


class Supervisor:
    """Connects one session again and again, in a thread of its own, until the reason is final or it is closed.

    finished: is told the final reason, in that thread.
    """

    def __init__(
        self, rest: Rest, watched: Watched, finished: Callable[[Reason], None], rng: random.Random | None = None
    ) -> None:
        self._rest = rest
        self._watched = watched
        self._finished = finished
        self._rng = rng or random.Random()
        self._connection: Connection | None = None
        self._lock = threading.Lock()
        self._held_since_s: float | None = None
        self._tries = 0
        self._blocked = 0
        self._has_opened = False
        self._thread = threading.Thread(target=self._run, name=f"syncapp {watched.session_id}", daemon=True)

    @property
    def connection(self) -> Connection | None:
        """The open WebSocket; None if there is none."""
        return self._connection

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Close the connection, and wait for the thread; from any thread."""
        with self._lock:
            self._watched.stopped.set()
            connection = self._connection
        if connection is not None:
            connection.close()
        if self._thread is not threading.current_thread() and self._thread.ident is not None:
            self._thread.join(_JOIN_S)

    def _run(self) -> None:
        while not self._watched.stopped.is_set():
            try:
                reason = self.run_once()
            except Exception as error:  # a wrong setting of a proxy, or a fault here: nobody may wait for ever
                log.exception("the connection cannot go on")
                reason = Reason("CLOSED", f"the connection cannot go on: {error!r}", final=True)
            if reason is not None and reason.final:
                self._finished(reason)
                return

    def run_once(self) -> Reason | None:
        """Connect, stay connected for as long as it goes, and pause; return why it ended."""
        self._held_since_s = None
        try:
            if self._blocked < _FEW:
                self._connect()
            else:
                self._poll()
        except Lost as found:
            lost = found
        except (KeyError, TypeError, ValueError) as error:
            log.exception("a message of the server is not as documented")
            lost = Lost(Reason(OFFLINE, f"a message of the server is not as documented: {error!r}"))
        else:
            return None
        if lost.reason.final or self._watched.stopped.is_set():
            return lost.reason
        self._pause(lost)
        return lost.reason

    def _connect(self) -> None:
        state = self._watched.timeline.state
        with opened(self._rest.base, self._watched, None if state is None else order_of(state)) as (socket, token):
            self._held_since_s = time.monotonic()
            self._blocked, self._has_opened = 0, True
            connection = Connection(socket, self._watched, token, state)
            with self._lock:
                if self._watched.stopped.is_set():
                    return
                self._connection = connection
            try:
                connection.run()
            finally:
                self._connection = None

    def _poll(self) -> None:
        self._blocked = 0
        self._held_since_s = time.monotonic()
        # A poll does not tell events, so where WebSockets have worked before, they are tried again soon.
        Polling(self._rest, self._watched).run(_SHORT_POLL_S if self._has_opened else POLL_FOR_S)

    def _pause(self, lost: Lost) -> None:
        """Wait before the next try: at random, and as long as the server asks."""
        held_s = 0.0 if self._held_since_s is None else time.monotonic() - self._held_since_s
        self._tries = 0 if held_s >= STEADY_S else self._tries
        self._blocked += lost.blocked
        wait_s = max(lost.wait_s, jitter_s(self._tries, self._rng))
        self._tries += 1
        self._watched.report(False, Reason(lost.reason.code, lost.reason.message, retry_in_s=wait_s))
        self._watched.stopped.wait(wait_s)

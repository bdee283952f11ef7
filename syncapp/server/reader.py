"""What a client sends over a WebSocket: no more than the protocol, its rate and the handler allow.

simple_websocket reads on a thread of its own, and answers pings and closes from there; `Connection` writes
everything else, from any thread as long as that need not wait. All go through `Transport`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol

import structlog
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Event, Message, Ping, Pong

from syncapp.server.transport import PAUSE_S, Transport
from syncapp.token_bucket import TokenBucket

log = structlog.get_logger(__name__)

_INSPECTED_WITHIN_S = 10
_ANSWERED_WITHIN_S = 5.0
"""How long a close waits for answers to what came before it."""


class Flood(OSError):
    """More frames than a client may send."""


class Handler(Protocol):
    """Who answers what a client sends."""

    @property
    def owes(self) -> bool:
        """Whether something that came is not answered yet."""


class CheckedConnection:
    """simple_websocket's protocol state, which takes no more than the handler and the client's rate allow.

    flooded: more frames came than may. closed: the client has closed. refused: the code with which a frame that
    breaks the protocol was answered.
    """

    def __init__(
        self, ws: Any, wire: Transport, bucket: TokenBucket, most_waiting_bytes: int, handler: Handler
    ) -> None:
        # Not the whole of it: the rest was for the handshake, and is kilobytes.
        self._inner = ws.ws.connection
        self._ws = ws
        self._handler = handler
        self._waiting = ws.input_buffer
        self._wire = wire
        self._bucket = bucket
        self._most_waiting_bytes = most_waiting_bytes
        self.flooded = self.closed = False
        self.refused: int | None = None

    def send(self, event: Event) -> bytes:
        """Return the bytes of an event."""
        data: bytes = self._inner.send(event)
        return data

    def receive_data(self, data: bytes) -> None:
        """Take bytes, once the handler has taken messages that came before: it may wait for a slow client."""
        while sum(map(len, self._waiting)) > self._most_waiting_bytes and self._wire.is_open:
            time.sleep(PAUSE_S)
        self._inner.receive_data(data)

    def events(self) -> Iterator[Event]:
        """Yield what came. Raises `Flood`, which makes simple_websocket stop reading."""
        for event in self._inner.events():
            is_frame = isinstance(event, Ping | Pong) or (isinstance(event, Message) and event.frame_finished)
            if is_frame and self._bucket.take(time.monotonic()):
                self.flooded = True
                raise Flood
            if isinstance(event, CloseConnection):
                self._answered()
                if self._inner.state is ConnectionState.OPEN:
                    self.refused = int(event.code)
                else:
                    self.closed = True
            elif isinstance(event, Message):
                size = self._ws.incoming_message_len + len(event.data)
                if size > self._ws.max_message_size:  # simple_websocket closes
                    self._answered()
            yield event

    def _answered(self) -> None:
        """Wait until all that came before is answered: simple_websocket sends the close frame from here."""
        until_s = time.monotonic() + _ANSWERED_WITHIN_S
        while self._handler.owes and self._wire.is_open and time.monotonic() < until_s:
            time.sleep(PAUSE_S)


class Reader(threading.Thread):
    """simple_websocket's thread; however it ends, whoever waits for input is woken.

    inspected: to be set once what it reads is inspected. simple_websocket starts it before that can be, and what a
    client sends right after its handshake must not pass unseen.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.inspected = threading.Event()

    def run(self) -> None:
        """Read until the end."""
        websocket = self._target.__self__  # type: ignore[attr-defined]  # threading keeps it there while it runs
        try:
            if self.inspected.wait(_INSPECTED_WITHIN_S):
                super().run()
        except Exception:
            log.exception("a reader of a WebSocket failed")
        finally:
            websocket.connected = False
            websocket.event.set()

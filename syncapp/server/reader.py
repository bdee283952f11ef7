"""Reads what a client sends over a WebSocket, within the limits of the protocol, its rate and the handler.

simple_websocket reads on a thread of its own, and answers pings and close frames from there. `Connection` writes
everything else: from any thread if the write does not have to wait. Both write through `Transport`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any, Protocol

import structlog
from wsproto.connection import ConnectionState
from wsproto.events import CloseConnection, Event, Message, Ping, Pong

from syncapp.server.round_trips import RoundTrips
from syncapp.server.transport import PAUSE_S, Transport
from syncapp.token_bucket import TokenBucket

log = structlog.get_logger(__name__)

_READY_WITHIN_S = 10
_MAX_ANSWER_WAIT_S = 5.0
"""How long a close frame waits for the answers to earlier messages."""


class Flood(OSError):
    """More frames than a client may send."""


class Handler(Protocol):
    """Answers what a client sends."""

    @property
    def has_unanswered(self) -> bool:
        """Whether a message that was received is not answered yet."""


class CheckedConnection:
    """simple_websocket's protocol state, with limits on what waits for the handler and on the rate of frames.

    flooded: the client has sent too many frames. closed: the client has closed. refused: the close code that answered a
    frame that breaks the protocol.
    """

    def __init__(
        self,
        ws: Any,
        transport: Transport,
        bucket: TokenBucket,
        max_waiting_bytes: int,
        handler: Handler,
        round_trips: RoundTrips,
    ) -> None:
        # Only this part of the object is kept: the rest was for the handshake, and takes kilobytes.
        self._inner = ws.ws.connection
        self._ws = ws
        self._handler = handler
        self._round_trips = round_trips
        self._waiting = ws.input_buffer
        self._transport = transport
        self._bucket = bucket
        self._most_waiting_bytes = max_waiting_bytes
        self.flooded = self.closed = False
        self.refused: int | None = None

    def send(self, event: Event) -> bytes:
        """Return an event as bytes."""
        data: bytes = self._inner.send(event)
        return data

    def receive_data(self, data: bytes) -> None:
        """Take bytes, after waiting until the handler has taken earlier messages: a slow client may delay it."""
        while sum(map(len, self._waiting)) > self._most_waiting_bytes and self._transport.is_open:
            time.sleep(PAUSE_S)
        self._inner.receive_data(data)

    def events(self) -> Iterator[Event]:
        """Yield the events that have arrived. Raises `Flood`, which makes simple_websocket stop reading."""
        for event in self._inner.events():
            if isinstance(event, Pong):
                self._round_trips.take_pong(event.payload, self._transport.received_s)
            is_frame = isinstance(event, Ping | Pong) or (isinstance(event, Message) and event.frame_finished)
            if is_frame and self._bucket.take(time.monotonic()):
                self.flooded = True
                raise Flood
            if isinstance(event, CloseConnection):
                self._wait_for_answers()
                if self._inner.state is ConnectionState.OPEN:
                    self.refused = int(event.code)
                else:
                    self.closed = True
            elif isinstance(event, Message):
                size = self._ws.incoming_message_len + len(event.data)
                if size > self._ws.max_message_size:  # simple_websocket closes
                    self._wait_for_answers()
            yield event

    def _wait_for_answers(self) -> None:
        """Wait until all earlier messages are answered: simple_websocket then sends the close frame on this thread."""
        until_s = time.monotonic() + _MAX_ANSWER_WAIT_S
        while self._handler.has_unanswered and self._transport.is_open and time.monotonic() < until_s:
            time.sleep(PAUSE_S)


class Reader(threading.Thread):
    """simple_websocket's reading thread. However it ends, it wakes the handler that waits for input.

    ready: set when `CheckedConnection` is in place. simple_websocket starts the thread before that, and what a client
    sends right after its handshake must be checked, too.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.ready = threading.Event()

    def run(self) -> None:
        """Read until the end."""
        websocket = self._target.__self__  # type: ignore[attr-defined]  # threading keeps it there while it runs
        try:
            if self.ready.wait(_READY_WITHIN_S):
                super().run()
        except Exception:
            log.exception("a reader of a WebSocket failed")
        finally:
            websocket.connected = False
            websocket.event.set()

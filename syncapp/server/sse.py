"""Fallbacks for clients without WebSockets: a stream of server-sent events, and a wait for the next version."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import structlog

from syncapp.config import Settings
from syncapp.domain.order import Order
from syncapp.errors import SessionNotFound
from syncapp.metrics import SENT, WS_CLOSED, WS_SKIPPED
from syncapp.realtime import protocol
from syncapp.realtime.hub import Hub
from syncapp.realtime.protocol import Close, Outgoing
from syncapp.realtime.send_queue import QueuedAnswer, QueuedItem, SendQueue
from syncapp.realtime.topic import SessionUpdate
from syncapp.server.admission import WatchRequest
from syncapp.server.transport import Transport, Watchdog

log = structlog.get_logger(__name__)

_RETRY_MS = (1000, 5000)
_WITH_STATE = (Outgoing.STATE_SYNC, Outgoing.STATE_UPDATE, Outgoing.STATE_PATCH)


class EventStream:
    """The messages of a WebSocket as server-sent events. A watcher of the hub.

    raw: the client's socket, to give up on one that does not read; None where the web server does not show it.
    """

    def __init__(self, hub: Hub, settings: Settings, watchdog: Watchdog, wish: WatchRequest, raw: Any) -> None:
        self._hub = hub
        self._settings = settings
        self._watchdog = watchdog
        self._wish = wish
        self._raw = raw
        self._wire = Transport(raw, watchdog, settings.ws_slow_close_s) if raw else None
        self._lock = threading.Lock()
        self._backlog = SendQueue(wish.claim, patches=wish.patches)
        self._event = threading.Event()
        self._leaves = False

    def offer(self, update: SessionUpdate) -> None:
        """Note what the client is to be told."""
        with self._lock:
            self._backlog.put(update)
        self._event.set()

    def leave(self) -> None:
        """End, because this process ends; the client comes back."""
        if self._wire:
            self._wire.hurry(2.0)
        self._end()

    def _end(self) -> None:
        self._leaves = True
        self._event.set()

    def chunks(self) -> Iterator[bytes]:
        """Yield events until either side ends; a client may not take longer for one than `WS_SLOW_CLOSE_S`."""
        began_s, sent, session_id = time.monotonic(), 0, self._wish.session_id
        log.info("stream opened", session_id=session_id)
        try:
            self._hub.watch(session_id, self, self._wish.claim)
            with self._watchdog.told(self._raw, self._end):
                for chunk in self._chunks():
                    if self._wire:
                        self._watchdog.begin(self._wire, time.monotonic() + self._wire.limit_s)
                    yield chunk
                    if self._wire:
                        self._watchdog.end(self._wire)
                    sent += 1
        finally:
            self._hub.unwatch(session_id, self)
            if self._wire:
                self._watchdog.end(self._wire)
                if self._wire.aborted:
                    WS_CLOSED.labels(int(Close.TOO_SLOW)).inc()
            WS_SKIPPED.inc(self._backlog.skipped)
            took_s = round(time.monotonic() - began_s, 1)
            log.info(
                "stream closed", session_id=session_id, duration_s=took_s, sent=sent, skipped=self._backlog.skipped
            )

    def _chunks(self) -> Iterator[bytes]:
        # Clients that lost the same process must not come back in the same instant.
        yield b"retry: %d\n\n" % random.randint(*_RETRY_MS)
        beat_s = time.monotonic() + self._settings.stream_heartbeat_s
        while True:
            with self._lock:
                item = self._backlog.take()
            if item:
                SENT.add(item.kind)
                yield _event(item)
            elif self._backlog.is_ended or self._leaves:
                return
            elif self._event.wait(max(0.0, beat_s - time.monotonic())):
                self._event.clear()
            if time.monotonic() >= beat_s:  # however much else there is: a script may listen to nothing but these
                beat_s = time.monotonic() + self._settings.stream_heartbeat_s
                SENT.add(Outgoing.HEARTBEAT)
                beat = protocol.message(Outgoing.HEARTBEAT, self._wish.session_id, self._hub.clock.now_ms(), {})
                yield b"event: heartbeat\ndata: " + beat + b"\n\n"


class LongPoll:
    """Waits for another version than the one that the client has. A watcher of the hub."""

    def __init__(self, known: Order) -> None:
        self._known = known
        self._event = threading.Event()
        self._found: SessionUpdate | None = None

    def offer(self, update: SessionUpdate) -> None:
        """Take the first news."""
        is_news = update.error or update.order > self._known or (update.went_back and update.order != self._known)
        if is_news and self._found is None:
            self._found = update
            self._event.set()

    def leave(self) -> None:
        """Wait no longer."""
        self._event.set()

    def wait(self, hub: Hub, session_id: str, wait_s: float) -> SessionUpdate | None:
        """Return another version, or None when there was none in time.

        Raises `SessionNotFound`, also when the session is deleted meanwhile, and `StoreUnavailable`.
        """
        hub.watch(session_id, self, self._known)
        try:
            self._event.wait(wait_s)
        finally:
            hub.unwatch(session_id, self)
        if self._found and self._found.error:
            raise self._found.error
        if self._found and self._found.session is None:
            raise SessionNotFound("the session was deleted")
        return self._found


def _event(item: QueuedItem) -> bytes:
    """Return a message as an event; only one with a state has an id: from there a client can go on."""
    update = item.update
    if isinstance(update, QueuedAnswer):
        raise TypeError("a stream has no commands to answer")
    data = b"data: " + update.payload(item.kind) + b"\n\n"
    if item.kind in _WITH_STATE:
        return b"id: %d-%d\n" % update.order + data
    return data

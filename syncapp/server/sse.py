"""Fallbacks for clients without WebSockets: a stream of server-sent events, and a long poll for the next version."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import structlog

from syncapp.config import Settings
from syncapp.domain.version_order import Order
from syncapp.errors import SessionNotFound, Unauthorized
from syncapp.metrics import SENT, WS_CLOSED, WS_SKIPPED
from syncapp.realtime import protocol
from syncapp.realtime.hub import Hub
from syncapp.realtime.protocol import Close, Outgoing
from syncapp.realtime.send_queue import QueuedAnswer, QueuedItem, SendQueue
from syncapp.realtime.topic import SessionUpdate
from syncapp.server.admission import WatchRequest
from syncapp.server.authentication import Access
from syncapp.server.transport import Transport, Watchdog

log = structlog.get_logger(__name__)

_RETRY_MS = (1000, 5000)
_SHUTDOWN_WRITE_S = 2.0
"""How long one write may take once this process shuts down."""
_REVOKED_WRITE_S = 0.5
"""How long one write may take once the client's token was revoked."""
_WITH_STATE = (Outgoing.STATE_SYNC, Outgoing.STATE_UPDATE, Outgoing.STATE_PATCH)


class EventStream:
    """The messages of a WebSocket as server-sent events. A watcher of the hub.

    access: whose it is, and until when. raw: the client's socket, to disconnect a client that does not read; None if
    the web server does not provide it.
    """

    def __init__(
        self,
        hub: Hub,
        settings: Settings,
        watchdog: Watchdog,
        access: Access,
        watch_request: WatchRequest,
        raw: Any,
    ) -> None:
        self._hub = hub
        self._access = access
        self._settings = settings
        self._watchdog = watchdog
        self._request = watch_request
        self._raw = raw
        self._transport = Transport(raw, watchdog, settings.ws_slow_close_s) if raw else None
        self._lock = threading.Lock()
        self._queue = SendQueue(watch_request.known, patches=watch_request.patches)
        self._event = threading.Event()
        self._stopping = False

    def offer(self, update: SessionUpdate) -> None:
        """Queue an update for the client."""
        if not self._access.admits(update.order):
            return
        with self._lock:
            self._queue.put(update)
        self._event.set()

    def stop(self) -> None:
        """End because this process shuts down; the client reconnects."""
        if self._transport:
            self._transport.shorten_limit(_SHUTDOWN_WRITE_S)
        self._end()

    def _end_access(self) -> None:
        if self._transport:
            self._transport.shorten_limit(_REVOKED_WRITE_S)
        self._event.set()

    def _end(self) -> None:
        self._stopping = True
        self._event.set()

    def chunks(self) -> Iterator[bytes]:
        """Yield events until either side ends. A client must accept each of them within `WS_SLOW_CLOSE_S`."""
        began_s, sent, session_id = time.monotonic(), 0, self._request.session_id
        log.info("stream opened", session_id=session_id)
        self._access.begin(self._end_access)
        try:
            self._hub.watch(session_id, self, self._request.known)
            with self._watchdog.notify_disconnect(self._raw, self._end):
                for chunk in self._chunks():
                    if self._transport:
                        self._watchdog.begin(self._transport, time.monotonic() + self._transport.limit_s)
                    yield chunk
                    if self._transport:
                        self._watchdog.end(self._transport)
                    sent += 1
        finally:
            self._access.end()
            self._hub.unwatch(session_id, self)
            if self._transport:
                self._watchdog.end(self._transport)
                if self._transport.aborted:
                    WS_CLOSED.labels(int(Close.TOO_SLOW)).inc()
            WS_SKIPPED.inc(self._queue.skipped)
            took_s = round(time.monotonic() - began_s, 1)
            log.info("stream closed", session_id=session_id, duration_s=took_s, sent=sent, skipped=self._queue.skipped)

    def _chunks(self) -> Iterator[bytes]:
        # Clients that lost the same process must not all reconnect at the same time.
        yield b"retry: %d\n\n" % random.randint(*_RETRY_MS)
        beat_s = time.monotonic() + self._settings.stream_heartbeat_s
        while True:
            if reason := self._access.end_reason():
                # An EventSource reconnects, gets 401, and stays closed.
                fault = Unauthorized(reason, {"reason": "invalid_token"})
                SENT.add(Outgoing.ERROR)
                yield b"data: " + self._error(fault) + b"\n\n"
                return
            with self._lock:
                item = self._queue.take()
            if item:
                SENT.add(item.kind)
                yield _event(item)
            elif self._queue.is_ended or self._stopping:
                return
            elif self._event.wait(max(0.0, min(beat_s, self._access.due_s) - time.monotonic())):
                self._event.clear()
            if time.monotonic() >= beat_s:  # sent even between other messages: a script may listen to heartbeats only
                beat_s = time.monotonic() + self._settings.stream_heartbeat_s
                SENT.add(Outgoing.HEARTBEAT)
                beat = protocol.message(Outgoing.HEARTBEAT, self._request.session_id, self._hub.clock.now_ms(), {})
                yield b"event: heartbeat\ndata: " + beat + b"\n\n"

    def _error(self, fault: Unauthorized) -> bytes:
        return protocol.error(self._request.session_id, self._hub.clock.now_ms(), fault)


class LongPoll:
    """Waits for a version other than the one that the client has. A watcher of the hub. access: whose it is."""

    def __init__(self, known: Order, access: Access) -> None:
        self._known = known
        self._access = access
        self._event = threading.Event()
        self._found: SessionUpdate | None = None

    def offer(self, update: SessionUpdate) -> None:
        """Take the first update that differs from what the client has."""
        if not self._access.admits(update.order):
            return
        differs = update.error or update.order > self._known or (update.went_back and update.order != self._known)
        if differs and self._found is None:
            self._found = update
            self._event.set()

    def stop(self) -> None:
        """End the wait."""
        self._event.set()

    def wait(self, hub: Hub, session_id: str, wait_s: float) -> SessionUpdate | None:
        """Return another version, or None if there is none within `wait_s`.

        Raises `SessionNotFound`, also if the session is deleted meanwhile; `StoreUnavailable`; `Unauthorized` when the
        token has expired or was revoked.
        """
        until_s = time.monotonic() + wait_s
        self._access.begin(self._event.set)
        try:
            hub.watch(session_id, self, self._known)
            while not self._event.wait(max(0.0, min(until_s, self._access.due_s) - time.monotonic())):
                if time.monotonic() >= until_s or self._access.end_reason():
                    break
        finally:
            self._access.end()
            hub.unwatch(session_id, self)
        if reason := self._access.end_reason():
            raise Unauthorized(reason, {"reason": "invalid_token"})
        if self._found and self._found.error:
            raise self._found.error
        if self._found and self._found.session is None:
            raise SessionNotFound("the session was deleted")
        return self._found


def _event(item: QueuedItem) -> bytes:
    """Return a message as an event. Only one with a state has an id: a client can resume from there."""
    update = item.update
    if isinstance(update, QueuedAnswer):
        raise TypeError("a stream has no commands to answer")
    data = b"data: " + update.payload(item.kind) + b"\n\n"
    if item.kind in _WITH_STATE:
        return b"id: %d-%d\n" % update.order + data
    return data

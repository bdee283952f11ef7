"""One WebSocket: what its client asks, and what it is told, in order, never more than it can take.

The handler's own thread writes; whoever has news leaves it in the backlog and wakes the thread.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from typing import Any

import structlog

from syncapp import protocol
from syncapp.backlog import Backlog
from syncapp.config import Settings
from syncapp.errors import SyncError, ValidationFailed
from syncapp.hub import Hub
from syncapp.metrics import WS_CLOSED, WS_RECEIVED, WS_SENT, WS_SKIPPED
from syncapp.protocol import Asked, Close, Command, Ping, Told
from syncapp.sockets import Bucket, Inspected, Wire
from syncapp.topics import Update

log = structlog.get_logger(__name__)

_ABNORMAL = 1006


class Connection:
    """Serves a client until either side ends it. A watcher of the hub."""

    __slots__ = (
        "_answers", "_backlog", "_close", "_hub", "_inspected", "_lock", "_ping_s", "_received", "_sent",
        "_session_id", "_settings", "_wire", "_ws",
    )  # fmt: skip

    def __init__(self, ws: Any, wire: Wire, hub: Hub, settings: Settings, session_id: str) -> None:
        self._ws = ws
        self._wire = wire
        self._hub = hub
        self._settings = settings
        self._session_id = session_id
        self._lock = threading.Lock()
        self._backlog = Backlog()
        self._answers: list[tuple[Told, bytes]] = []
        self._close: tuple[Close, str] | None = None
        self._sent = self._received = 0
        # Connections that came together are pinged apart.
        self._ping_s = wire.heard_s + settings.ws_ping_interval_s * random.uniform(0.5, 1)
        bucket = Bucket(settings.ws_messages_per_s, settings.ws_messages_burst)
        self._inspected = ws.ws = Inspected(ws, wire, bucket, 4 * settings.ws_max_message_bytes)
        wire.wake = ws.event.set

    def run(self) -> None:
        """Serve until the end; raises nothing."""
        began_s = time.monotonic()
        try:
            self._hub.watch(self._session_id, self)
            while not (self._wire.ended or self._close):
                self._step()
        except OSError:
            pass  # the client is gone
        except Exception:
            log.exception("a WebSocket failed", session_id=self._session_id)
            self._end(Close.FAULT, "something went wrong on our side")
        finally:
            self._hub.unwatch(self._session_id, self)
            code, by = self._finish()
            log.info(
                "websocket closed",
                session_id=self._session_id,
                code=code,
                by=by,
                duration_s=round(time.monotonic() - began_s, 1),
                received=self._received,
                sent=self._sent,
                skipped=self._backlog.skipped,
            )

    # On the hub's threads.

    def offer(self, update: Update) -> None:
        """Note what the client is to be told."""
        with self._lock:
            self._backlog.put(update)
        self._ws.event.set()

    # On the handler's thread.

    def _step(self) -> None:
        """Take one message and write one frame, answers before news; wait when there is neither."""
        if self._ws.input_buffer:
            self._take(self._ws.receive(timeout=0))
        if self._answers:
            self._write(*self._answers.pop(0))
            return
        with self._lock:
            item = self._backlog.take()
        if item:
            self._write(item.kind, item.frame)
        elif self._backlog.is_ended:
            self._end(Close.DONE, "the session was deleted")
        elif not self._ws.input_buffer:
            self._wait()

    def _write(self, kind: Told, frame: bytes) -> None:
        self._wire.write(frame)
        self._sent += 1
        WS_SENT.labels(kind).inc()

    def _wait(self) -> None:
        """Wait for something to do; ping a client that has not been heard of, and give up on a silent one."""
        event, interval_s = self._ws.event, self._settings.ws_ping_interval_s
        now_s = time.monotonic()
        if now_s >= self._ping_s:
            if self._wire.heard_s < self._ping_s - interval_s:  # not since the last ping
                self._end(Close.SILENT, "no answer to pings")
                return
            self._wire.write(protocol.PING_FRAME)
            self._ping_s = now_s + interval_s
        event.wait(self._ping_s - now_s)
        event.clear()

    def _take(self, message: str | bytes) -> None:
        """Answer one message."""
        self._received += 1
        if isinstance(message, bytes):
            self._end(Close.NOT_TEXT, "send text frames")
            return
        # simple_websocket counts characters.
        if not message.isascii() and len(message.encode()) > self._settings.ws_max_message_bytes:
            self._end(Close.TOO_BIG, "the message is too big")
            return
        try:
            self._obey(message)
        except SyncError as fault:
            WS_RECEIVED.labels("refused").inc()
            echo = protocol.echo_of(message)
            self._answers.append((Told.ERROR, protocol.error(self._session_id, self._now_ms(), fault, echo)))

    def _obey(self, text: str) -> None:
        asked = protocol.parse(text)
        if isinstance(asked, Ping):
            WS_RECEIVED.labels(Asked.PING).inc()
            fields = {} if asked.t0 is None else {"t0": asked.t0}
            self._answers.append((Told.PONG, protocol.message(Told.PONG, self._session_id, self._now_ms(), fields)))
        elif isinstance(asked, Command):
            raise protocol.CommandUnavailable("commands are not taken over the socket yet; send them to /v1/sessions")
        else:
            WS_RECEIVED.labels(Asked.RECONNECT).inc()
            if (asked.epoch is None) != (asked.version is None):
                name = "epoch" if asked.epoch is None else "version"
                raise ValidationFailed.of(name, "is required beside the other of epoch and version", "missing")
            claim = (asked.epoch or 0, asked.version or 0)
            with self._lock:
                self._backlog.expect(claim)
            self._hub.ask(self._session_id, self, claim)

    def _now_ms(self) -> int:
        return self._hub.clock.now_ms()

    # The end.

    def _end(self, code: Close, reason: str) -> None:
        """Close, without what is still to be told."""
        self._close = (code, reason)

    def _finish(self) -> tuple[int, str]:
        """Send the close frame that is due and end the stream; returns the code, and who closed."""
        if self._inspected.flooded:
            self._end(Close.ABUSE, "too many messages")
        code, by = self._ws.close_reason, "client"
        if self._wire.aborted:
            code, by = Close.TOO_SLOW, "server"
        elif self._inspected.refused:
            code, by = self._inspected.refused, "server"
        elif self._ws.incoming_message_len > self._settings.ws_max_message_bytes:
            code, by = Close.TOO_BIG, "server"  # simple_websocket has sent the close frame
        elif self._close and not self._inspected.closed:
            code, by = self._close[0], "server"
            with contextlib.suppress(OSError):
                self._wire.write(protocol.close_frame(*self._close))
        elif not self._inspected.closed:
            code = _ABNORMAL
        if by == "server":
            WS_CLOSED.labels(int(code)).inc()
        WS_SKIPPED.inc(self._backlog.skipped)
        self._wire.finish(self._ws.thread)
        return int(code), by

"""One WebSocket: reads the client's messages, and sends it answers and updates, in order and bounded in size.

The handler's own thread reads messages, and writes what has to wait for the socket. Commands run on the command pool.
"""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from typing import Any

import structlog

from syncapp.domain.version_order import NEVER, Order
from syncapp.metrics import WS_CLOSED, WS_SKIPPED
from syncapp.realtime import frames
from syncapp.realtime.protocol import Close, Outgoing
from syncapp.server.authentication import Access
from syncapp.server.command_queue import MAX_IN_FLIGHT
from syncapp.server.command_runner import Backend
from syncapp.server.message_handler import MessageHandler
from syncapp.server.reader import CheckedConnection
from syncapp.server.round_trips import RoundTrips
from syncapp.server.transport import Transport
from syncapp.server.writer import Writer
from syncapp.token_bucket import TokenBucket

log = structlog.get_logger(__name__)

_ABNORMAL = 1006
_SHUTDOWN_WRITE_S = 2.0
"""How long one write may take once this process shuts down."""
_REVOKED_WRITE_S = 0.5
"""How long one write may take once the client's token was revoked."""


class Connection(MessageHandler):
    """Serves a client until either side closes. A watcher of the hub.

    access: who uses it. session_id: the session that it was opened for, '' for none, or if a token has to come first.
    known: the order that the client says it has. patches: the client gets patches instead of states.
    """

    __slots__ = ("_checked", "_close", "_ping_s", "_stopping", "_transport")

    def __init__(
        self,
        ws: Any,
        transport: Transport,
        backend: Backend,
        access: Access,
        session_id: str,
        known: Order = NEVER,
        *,
        patches: bool = False,
    ) -> None:
        settings = backend.settings
        writer = Writer(transport, session_id, known, patches=patches)
        round_trips = RoundTrips(transport.received_s)
        super().__init__(ws, backend, access, session_id, writer, round_trips, uuid.uuid4().hex[:12])
        self._transport = transport
        self._close: tuple[Close, str] | None = None
        self._stopping = False
        # Connections that were opened at the same time are pinged at different times.
        self._ping_s = transport.received_s + settings.ws_ping_interval_s * random.uniform(0.5, 1)
        bucket = TokenBucket(settings.ws_messages_per_s, settings.ws_messages_burst, time.monotonic())
        waiting_bytes = 4 * settings.ws_max_message_bytes
        self._checked = ws.ws = CheckedConnection(ws, transport, bucket, waiting_bytes, self, self._round_trips)
        transport.wake = ws.event.set
        ws.thread.ready.set()

    def run(self, address: str, known: Order = NEVER) -> None:
        """Serve until the end; raises nothing."""
        began_s = time.monotonic()
        self._address = address
        if self._access.principal:
            self._log_opened()
        self._access.begin(self._end_access)
        try:
            if self._session_id:
                self._backend.hub.watch(self._session_id, self, known)
            else:
                self._send(Outgoing.CONNECTED, "", {"epoch": None, "version": None})
            while not (self._transport.ended or self._close):
                self._step()
        except OSError:
            pass  # the client has disconnected
        except Exception:
            log.exception("a WebSocket failed", session_id=self._session_id)
            self._end(Close.FAULT, "something went wrong on our side")
        finally:
            self._access.end()
            self._get_subscriptions().end()
            code, by = self._finish()
            # One that never had a token leaves no lines: anybody could fill the log with them.
            write = log.info if self._access.principal else log.debug
            write(
                "websocket closed",
                session_id=self._session_id,
                connection=self._id,
                code=code,
                by=by,
                duration_s=round(time.monotonic() - began_s, 1),
                received=self._received,
                sent=self._writer.sent,
                skipped=self._writer.skipped,
            )

    # On any thread.

    def stop(self) -> None:
        """Close because this process shuts down; requests that were read are still answered if the client is fast."""
        self._stopping = True
        self._transport.shorten_limit(_SHUTDOWN_WRITE_S)
        self._ws.event.set()

    def _end_access(self) -> None:
        """Have the handler notice that the access has ended; a client that does not read must not delay that."""
        self._transport.shorten_limit(_REVOKED_WRITE_S)
        self._ws.event.set()

    @property
    def has_unanswered(self) -> bool:
        """Whether a message that was received is not answered yet."""
        unread = self._ws.input_buffer and not self._fault
        return bool(unread or self._commands or self._writer.has_answers)

    # On the handler's thread.

    def _step(self) -> None:
        """Read one message, or write one; wait when there is neither."""
        if reason := self._access.end_reason():
            self._end(Close.UNAUTHORIZED, reason)
            return
        self._do_pending()
        if self._ws.input_buffer and self._may_read:
            self._handle(self._ws.receive(timeout=0))
        elif self._writer.write_next():
            if self._commands:
                self._commands.proceed()  # it may have waited until this was written
        elif (self._fault or self._stopping or self._writer.is_done) and not (
            self._commands or self._writer.has_answers
        ):
            restart = (Close.RESTART, "the server restarts; reconnect after a random delay")
            done = restart if self._stopping else (Close.DONE, "the session was deleted")
            self._end(*(self._fault or done))
        else:
            self._wait()

    @property
    def _may_read(self) -> bool:
        # The first message that is sent is the session's position: nothing is answered before it.
        if self._stopping or self._fault or self._writer.is_full or not self._writer.sent:
            return False
        return self._commands is None or len(self._commands) < MAX_IN_FLIGHT

    def _do_pending(self) -> None:
        """Do what the writer cannot do by itself: ask the hub, and release answers that have waited long enough."""
        writer = self._writer
        if writer.needs_resync:
            for session_id, known in writer.take_resyncs():
                self._backend.hub.resend(session_id, self, known)
        for session_id in writer.finished():
            self._get_subscriptions().remove(session_id)
        due_s = writer.due_s
        if due_s is not None and (self._stopping or due_s <= time.monotonic()):
            self._writer.release_due(due_s)

    def _wait(self) -> None:
        """Wait for something to do; ping the client when that is due, and close if it stays silent."""
        event, interval_s = self._ws.event, self._backend.settings.ws_ping_interval_s
        now_s = time.monotonic()
        if now_s >= self._ping_s:
            if self._transport.received_s < self._ping_s - interval_s:  # nothing since the last ping
                self._end(Close.SILENT, "no answer to pings")
                return
            self._ping_s = now_s + interval_s
            self._transport.write(self._round_trips.ping(now_s))
        elif now_s >= self._round_trips.due_s:
            self._transport.write(self._round_trips.ping(now_s))
        if self._commands:
            self._commands.proceed()  # other threads may have written answers since
        due_s, until_s = self._writer.due_s, min(self._ping_s, self._round_trips.due_s, self._access.due_s)
        event.wait((until_s if due_s is None else min(until_s, due_s)) - now_s)
        event.clear()

    # The end.

    def _end(self, code: Close, reason: str) -> None:
        """Close, without sending what is still queued."""
        self._close = (code, reason)

    def _finish(self) -> tuple[int, str]:
        """Send the close frame if one is due, and end the stream; return the close code, and which side closed."""
        if self._checked.flooded:
            self._end(Close.ABUSE, "too many messages")
        code, by = self._ws.close_reason, "client"
        if self._transport.aborted:
            code, by = Close.TOO_SLOW, "server"
        elif self._checked.refused:
            code, by = self._checked.refused, "server"
        elif self._ws.incoming_message_len > self._backend.settings.ws_max_message_bytes:
            code, by = Close.TOO_BIG, "server"  # simple_websocket has sent the close frame
        elif self._close and not self._checked.closed:
            code, by = self._close[0], "server"
            with contextlib.suppress(OSError):
                self._transport.write(frames.close_frame(*self._close))
        elif not self._checked.closed:
            code = _ABNORMAL
        if by == "server":
            WS_CLOSED.labels(int(code)).inc()
        WS_SKIPPED.inc(self._writer.skipped)
        self._transport.finish(self._ws.thread)
        return int(code), by

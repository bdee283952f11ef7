"""One WebSocket: what its client asks, and what it is told, in order, never more than it can take.

The handler's own thread reads messages and writes what has to wait for the socket; commands run on the crew's.
"""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from functools import partial
from typing import Any

import structlog

from syncapp.domain.order import NEVER, Order
from syncapp.errors import SyncError, ValidationFailed
from syncapp.metrics import WS_CLOSED, WS_RECEIVED, WS_SKIPPED
from syncapp.realtime import protocol
from syncapp.realtime.protocol import (
    Close,
    Command,
    Message,
    Outgoing,
    Ping,
    Reconnect,
    Subscribe,
    Unsubscribe,
)
from syncapp.realtime.topic import SessionUpdate
from syncapp.server.command_queue import MOST_IN_FLIGHT, CommandQueue
from syncapp.server.command_runner import Backend, CommandRunner
from syncapp.server.reader import CheckedConnection
from syncapp.server.subscriptions import Subscriptions
from syncapp.server.transport import Transport
from syncapp.server.writer import Writer
from syncapp.token_bucket import TokenBucket

log = structlog.get_logger(__name__)

_ABNORMAL = 1006
_HURRY_S = 2.0


class Connection:
    """Serves a client until either side ends it. A watcher of the hub.

    session_id: what it was opened for, '' for nothing yet. claim: the order that the client says it knows. patches: it
    wants patches instead of states.
    """

    __slots__ = (
        "_address", "_backend", "_close", "_fault", "_id", "_inbox", "_inspected", "_leaves", "_outlet",
        "_ping_s", "_received", "_session_id", "_subscriptions", "_wire", "_ws",
    )  # fmt: skip

    def __init__(
        self,
        ws: Any,
        wire: Transport,
        backend: Backend,
        session_id: str,
        claim: Order = NEVER,
        *,
        patches: bool = False,
    ) -> None:
        settings = backend.settings
        self._ws = ws
        self._wire = wire
        self._backend = backend
        self._session_id = session_id
        self._id = uuid.uuid4().hex[:12]
        self._outlet = Writer(wire, session_id, claim, patches=patches)
        self._subscriptions: Subscriptions | None = None
        self._inbox: CommandQueue | None = None
        self._address = ""
        self._close: tuple[Close, str] | None = None
        self._fault: tuple[Close, str] | None = None
        self._leaves = False
        self._received = 0
        # Connections that came together are pinged apart.
        self._ping_s = wire.heard_s + settings.ws_ping_interval_s * random.uniform(0.5, 1)
        bucket = TokenBucket(settings.ws_messages_per_s, settings.ws_messages_burst, time.monotonic())
        self._inspected = ws.ws = CheckedConnection(ws, wire, bucket, 4 * settings.ws_max_message_bytes, self)
        wire.wake = ws.event.set
        ws.thread.inspected.set()

    def run(self, address: str, claim: Order = NEVER) -> None:
        """Serve until the end; raises nothing."""
        began_s = time.monotonic()
        self._address = address
        log.info("websocket opened", session_id=self._session_id, address=address, connection=self._id)
        try:
            if self._session_id:
                self._backend.hub.watch(self._session_id, self, claim)
            else:
                self._tell(Outgoing.CONNECTED, "", {"epoch": None, "version": None})
            while not (self._wire.ended or self._close):
                self._step()
        except OSError:
            pass  # the client is gone
        except Exception:
            log.exception("a WebSocket failed", session_id=self._session_id)
            self._end(Close.FAULT, "something went wrong on our side")
        finally:
            self._watched().end()
            code, by = self._finish()
            log.info(
                "websocket closed",
                session_id=self._session_id,
                connection=self._id,
                code=code,
                by=by,
                duration_s=round(time.monotonic() - began_s, 1),
                received=self._received,
                sent=self._outlet.sent,
                skipped=self._outlet.skipped,
            )

    # On any thread.

    def offer(self, update: SessionUpdate) -> None:
        """Tell the client of an update."""
        self._outlet.offer(update)

    def leave(self) -> None:
        """Close, because this process ends; what has begun is still answered, to a client that is not slow."""
        self._leaves = True
        self._wire.hurry(_HURRY_S)
        self._ws.event.set()

    @property
    def owes(self) -> bool:
        """Whether something that came is not answered yet."""
        waits = self._ws.input_buffer and not self._fault
        return bool(waits or self._inbox or self._outlet.owes_answers)

    # On the handler's thread.

    def _step(self) -> None:
        """Take a message, or write one; wait when there is neither."""
        self._settle()
        if self._ws.input_buffer and self._may_take:
            self._take(self._ws.receive(timeout=0))
        elif self._outlet.write_next():
            if self._inbox:
                self._inbox.proceed()  # it may have been held up by what is written now
        elif (self._fault or self._leaves or self._outlet.is_done) and not (self._inbox or self._outlet.owes_answers):
            restart = (Close.RESTART, "the server restarts; come back with jitter")
            done = restart if self._leaves else (Close.DONE, "the session was deleted")
            self._end(*(self._fault or done))
        else:
            self._wait()

    @property
    def _may_take(self) -> bool:
        # First of all it is told where it stands.
        if self._leaves or self._fault or self._outlet.is_full or not self._outlet.sent:
            return False
        return self._inbox is None or len(self._inbox) < MOST_IN_FLIGHT

    def _settle(self) -> None:
        """Do what the outlet can't do by itself: ask the hub, and answer without the news that does not come."""
        outlet = self._outlet
        if outlet.doubts:
            for session_id, known in outlet.doubted():
                self._backend.hub.resend(session_id, self, known)
        for session_id in outlet.over():
            self._watched().remove(session_id)
        due_s = outlet.due_s
        if due_s is not None and (self._leaves or due_s <= time.monotonic()):
            self._outlet.settle(due_s)

    def _wait(self) -> None:
        """Wait for something to do; ping a client that has not been heard of, and give up on a silent one."""
        event, interval_s = self._ws.event, self._backend.settings.ws_ping_interval_s
        now_s = time.monotonic()
        if now_s >= self._ping_s:
            if self._wire.heard_s < self._ping_s - interval_s:  # not since the last ping
                self._end(Close.SILENT, "no answer to pings")
                return
            self._wire.write(protocol.PING_FRAME)
            self._ping_s = now_s + interval_s
        if self._inbox:
            self._inbox.proceed()  # answers may have been written by others since
        due_s = self._outlet.due_s
        event.wait((self._ping_s if due_s is None else min(self._ping_s, due_s)) - now_s)
        event.clear()

    def _take(self, message: str | bytes) -> None:
        """Answer one message."""
        self._received += 1
        if isinstance(message, bytes):
            self._fault = (Close.NOT_TEXT, "send text frames")
            return
        # simple_websocket counts characters.
        if not message.isascii() and len(message.encode()) > self._backend.settings.ws_max_message_bytes:
            self._fault = (Close.TOO_BIG, "the message is too big")
            return
        session_id = self._session_id
        try:
            asked = protocol.parse(message)
            session_id = (not isinstance(asked, Ping) and asked.session_id) or session_id
            self._obey(asked, session_id)
        except SyncError as fault:
            WS_RECEIVED.labels("refused").inc()
            self._outlet.urge(Outgoing.ERROR, self._error(fault, protocol.echo_of(message), session_id))

    def _obey(self, asked: Message, session_id: str) -> None:
        WS_RECEIVED.labels(asked.type).inc()
        if isinstance(asked, Ping):
            given = {"t0": asked.t0, "client_timestamp": asked.timestamp}
            self._tell(Outgoing.PONG, self._session_id, given, first=True)
            return
        is_watched = session_id in self._outlet.sessions
        if isinstance(asked, Unsubscribe):
            if is_watched:
                self._watched().remove(session_id)
            self._tell(Outgoing.UNSUBSCRIBED, session_id, {"id": asked.id})
        elif isinstance(asked, Subscribe) and not is_watched:
            confirm = partial(self._tell, Outgoing.SUBSCRIBED, session_id, {"id": asked.id})
            self._watched().add(session_id, asked.known(), confirm)
        elif not is_watched:
            if not session_id:
                raise ValidationFailed.of("session_id", "is required: this connection has none of its own", "missing")
            raise ValidationFailed.of("session_id", "is not one that this connection watches", "not_subscribed")
        elif isinstance(asked, Command):
            if self._inbox is None:
                wake = self._ws.event.set
                runner = CommandRunner(self._backend, self._outlet, self._session_id, self._address, self._id, wake)
                self._inbox = CommandQueue(self._backend.crew, self._backend.settings.redis_timeout_s, runner)
            self._inbox.put(asked)
        else:
            self._locate(asked, session_id)

    def _locate(self, asked: Reconnect, session_id: str) -> None:
        """Tell the client where a session stands that it watches already."""
        known = self._outlet.expect(session_id, asked.known())
        if isinstance(asked, Subscribe):
            self._tell(Outgoing.SUBSCRIBED, session_id, {"id": asked.id})
        self._backend.hub.resend(session_id, self, known or NEVER)

    def _watched(self) -> Subscriptions:
        if self._subscriptions is None:
            self._subscriptions = Subscriptions(self._backend, self._outlet, self, self._session_id, self._id)
        return self._subscriptions

    def _tell(self, kind: Outgoing, session_id: str, fields: dict[str, Any], *, first: bool = False) -> None:
        given = {name: value for name, value in fields.items() if value is not None or kind is Outgoing.CONNECTED}
        payload = protocol.message(kind, session_id or None, self._now_ms(), given)
        self._outlet.urge(kind, protocol.text_frame(payload), first=first)

    def _now_ms(self) -> int:
        return self._backend.hub.clock.now_ms()

    def _error(self, fault: SyncError, echo: str | int | None, session_id: str) -> bytes:
        return protocol.text_frame(protocol.error(session_id or None, self._now_ms(), fault, echo))

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
        elif self._ws.incoming_message_len > self._backend.settings.ws_max_message_bytes:
            code, by = Close.TOO_BIG, "server"  # simple_websocket has sent the close frame
        elif self._close and not self._inspected.closed:
            code, by = self._close[0], "server"
            with contextlib.suppress(OSError):
                self._wire.write(protocol.close_frame(*self._close))
        elif not self._inspected.closed:
            code = _ABNORMAL
        if by == "server":
            WS_CLOSED.labels(int(code)).inc()
        WS_SKIPPED.inc(self._outlet.skipped)
        self._wire.finish(self._ws.thread)
        return int(code), by

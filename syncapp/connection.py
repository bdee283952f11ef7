"""One WebSocket: what its client asks, and what it is told, in order, never more than it can take.

The handler's own thread reads messages and writes what has to wait for the socket; commands run on the crew's.
"""

from __future__ import annotations

import contextlib
import random
import time
import uuid
from dataclasses import dataclass
from typing import Any

import structlog

from syncapp import protocol
from syncapp.backlog import HELD_S, THE_END, Answer
from syncapp.commands import Result
from syncapp.config import Settings
from syncapp.errors import InternalError, SyncError, ValidationFailed
from syncapp.hub import Hub
from syncapp.inbox import MOST_IN_FLIGHT, Crew, Inbox
from syncapp.limits import Limits
from syncapp.metrics import WS_CLOSED, WS_COMMANDS, WS_RECEIVED, WS_SKIPPED
from syncapp.outlet import Outlet
from syncapp.protocol import Close, Command, Ping, Told
from syncapp.sessions import SessionStore
from syncapp.sockets import Bucket, Inspected
from syncapp.topics import NEVER, Order, Update
from syncapp.wire import Wire

log = structlog.get_logger(__name__)

_ABNORMAL = 1006
_HURRY_S = 2.0


@dataclass(frozen=True, slots=True)
class Backend:
    """What connections are served with."""

    settings: Settings
    store: SessionStore
    hub: Hub
    crew: Crew
    limits: Limits


class Connection:
    """Serves a client until either side ends it. A watcher of the hub.

    claim: the order that the client says it knows. patches: it wants patches instead of states.
    """

    __slots__ = (
        "_address", "_backend", "_close", "_commands", "_fault", "_id", "_inbox", "_inspected", "_leaves", "_outlet",
        "_ping_s", "_received", "_session_id", "_wire", "_ws",
    )  # fmt: skip

    def __init__(
        self, ws: Any, wire: Wire, backend: Backend, session_id: str, claim: Order = NEVER, *, patches: bool = False
    ) -> None:
        settings = backend.settings
        self._ws = ws
        self._wire = wire
        self._backend = backend
        self._session_id = session_id
        self._id = uuid.uuid4().hex[:12]
        self._outlet = Outlet(wire, claim, patches=patches)
        self._inbox: Inbox | None = None
        self._address = ""
        self._close: tuple[Close, str] | None = None
        self._fault: tuple[Close, str] | None = None
        self._leaves = False
        self._received = self._commands = 0
        # Connections that came together are pinged apart.
        self._ping_s = wire.heard_s + settings.ws_ping_interval_s * random.uniform(0.5, 1)
        bucket = Bucket(settings.ws_messages_per_s, settings.ws_messages_burst)
        self._inspected = ws.ws = Inspected(ws, wire, bucket, 4 * settings.ws_max_message_bytes, self)
        wire.wake = ws.event.set
        ws.thread.inspected.set()

    def run(self, address: str, claim: Order = NEVER) -> None:
        """Serve until the end; raises nothing."""
        began_s = time.monotonic()
        self._address = address
        log.info("websocket opened", session_id=self._session_id, address=address, connection=self._id)
        try:
            self._backend.hub.watch(self._session_id, self, claim)
            while not (self._wire.ended or self._close):
                self._step()
        except OSError:
            pass  # the client is gone
        except Exception:
            log.exception("a WebSocket failed", session_id=self._session_id)
            self._end(Close.FAULT, "something went wrong on our side")
        finally:
            self._backend.hub.unwatch(self._session_id, self)
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

    def offer(self, update: Update) -> None:
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
        if self._outlet.doubts:
            self._backend.hub.ask(self._session_id, self, self._outlet.doubted())
        due_s = self._outlet.due_s
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
        try:
            self._obey(message)
        except SyncError as fault:
            WS_RECEIVED.labels("refused").inc()
            self._outlet.urge(Told.ERROR, self._error(fault, protocol.echo_of(message)))

    def _obey(self, text: str) -> None:
        asked = protocol.parse(text)
        WS_RECEIVED.labels(asked.type).inc()
        if isinstance(asked, Ping):
            given = {"t0": asked.t0, "client_timestamp": asked.timestamp}
            fields = {name: value for name, value in given.items() if value is not None}
            pong = protocol.message(Told.PONG, self._session_id, self._now_ms(), fields)
            self._outlet.urge(Told.PONG, protocol.text_frame(pong), first=True)
        elif isinstance(asked, Command):
            if self._inbox is None:
                self._inbox = Inbox(self._backend.crew, self._backend.settings.redis_timeout_s, self)
            self._inbox.put(asked)
        else:
            if (asked.epoch is None) != (asked.version is None):
                name = "epoch" if asked.epoch is None else "version"
                raise ValidationFailed.of(name, "is required beside the other of epoch and version", "missing")
            known = self._outlet.expect((asked.epoch or 0, asked.version or 0))
            self._backend.hub.ask(self._session_id, self, known)

    def _now_ms(self) -> int:
        return self._backend.hub.clock.now_ms()

    # On the crew's threads.

    @property
    def takes_answers(self) -> bool:
        """Whether the client takes answers."""
        return not self._outlet.is_full

    def obey(self, command: Command) -> SyncError | None:
        """Run a command and answer it; returns why it was refused, if it was."""
        self._commands += 1
        request_id = f"{self._id}.{self._commands}"
        try:
            asked = command.asked(self._session_id)
            backend, claim = self._backend, command.claim(request_id)
            result = backend.limits.run(backend.store, self._address, command.command, self._session_id, asked, claim)
        except SyncError as fault:
            self.refuse(command, fault)
            return fault
        except Exception:
            log.exception("a command failed", request_id=request_id, command=command.command)
            self.refuse(command, InternalError("something went wrong on our side", {"request_id": request_id}))
        else:
            WS_COMMANDS.labels(command.command, Told.ACK).inc()
            ack = protocol.ack(self._session_id, self._now_ms(), command.id, result)
            self._answer(Told.ACK, protocol.text_frame(ack), _order_of(result), result)
        return None

    def refuse(self, command: Command, fault: SyncError) -> None:
        """Answer a command that did not happen, or of which that is not known."""
        WS_COMMANDS.labels(command.command, fault.code).inc()
        current = fault.details.get("current") if isinstance(fault.details, dict) else None
        order = (current["epoch"], current["version"]) if current else NEVER
        self._answer(Told.ERROR, self._error(fault, command.id), order)

    def obeyed(self) -> None:
        """Let the handler take another command, or end."""
        self._ws.event.set()

    def _answer(self, kind: Told, text: bytes, order: Order, result: Result | None = None) -> None:
        self._outlet.answer(kind, Answer(text, order, time.monotonic() + HELD_S, result))

    def _error(self, fault: SyncError, echo: str | int | None) -> bytes:
        return protocol.text_frame(protocol.error(self._session_id, self._now_ms(), fault, echo))

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


def _order_of(result: Result) -> Order:
    """Return what the client is told of before the answer: the command's version, or the session's end."""
    if result.order:
        return result.order
    return THE_END if result.event_json and not result.replayed else NEVER

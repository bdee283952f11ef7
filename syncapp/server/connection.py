"""One WebSocket: reads the client's messages, and sends it answers and updates, in order and bounded in size.

The loop runs `step` when there is something to do; between two steps, a connection is nothing but these objects.
Commands run outside of the steps. An update is written as soon as it arrives, if the socket has room; that of the
client's own command with its answer.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from typing import Any

import structlog

from syncapp.realtime import frames
from syncapp.realtime.protocol import Close, Outgoing
from syncapp.server.admission import WatchRequest
from syncapp.server.authentication import Access
from syncapp.server.command_queue import MAX_IN_FLIGHT
from syncapp.server.command_runner import Backend
from syncapp.server.connection_end import ConnectionEnd
from syncapp.server.connection_loop import BROKEN, ENDED, READABLE
from syncapp.server.frame_reader import CLOSE, NO_CODE, PING, PONG, TEXT, BrokenFrame, FrameReader
from syncapp.server.frame_socket import SHARE_BYTES, FrameSocket
from syncapp.server.writer import Writer
from syncapp.token_bucket import TokenBucket

log = structlog.get_logger(__name__)

_SHUTDOWN_WRITE_S = 2.0
"""How long one write may take once this process shuts down."""
_REVOKED_WRITE_S = 0.5
"""How long one write may take once the client's token was revoked."""
_MAX_ANSWER_WAIT_S = 5.0
"""How long a close frame waits for the answers to earlier messages."""


class Connection(ConnectionEnd):
    """Serves a client until either side closes. A watcher of the hub.

    access: who uses it. asked: the session that it was opened for, '' for none or if a token has to come first.
    raw: its socket, after the handshake. on_over: called at the very end.
    """

    __slots__ = ("_bucket", "_messages", "_ping_s", "_reader", "_reply", "_stopping")

    def __init__(
        self,
        backend: Backend,
        access: Access,
        asked: WatchRequest,
        address: str,
        raw: Any,
        on_over: Callable[[], None],
    ) -> None:
        settings = backend.settings
        socket = FrameSocket(raw, settings.ws_slow_close_s)
        super().__init__(backend, access, asked.session_id, address, socket, on_over)
        self._writer = Writer(socket, self, asked.session_id, asked.known, patches=asked.patches)
        self._reader = FrameReader(settings.ws_max_message_bytes)
        self._bucket: TokenBucket | None = None
        self._messages: list[str] | None = None
        self._stopping = False
        # The close frame to send when earlier messages are answered, its code, and whether it is ours.
        self._reply: tuple[bytes, int, bool] | None = None
        # Connections that were opened at the same time are pinged at different times.
        self._ping_s = socket.received_s + settings.ws_ping_interval_s * random.uniform(0.5, 1)

    def begin(self, asked: WatchRequest, received: bytes) -> None:
        """Begin to serve; received: what the client has sent after its handshake. Raises nothing."""
        backend = self._backend
        try:
            if self._access.principal:
                self._log_opened()
            self._access.begin(self._end_access)
            if self._session_id:
                backend.hub.watch(self._session_id, self, asked.known)
            else:
                self._send(Outgoing.CONNECTED, "", {"epoch": None, "version": None})
            if received:
                self._take(received)
        except Exception:
            log.exception("a WebSocket failed", session_id=self._session_id)
            self._close(Close.FAULT, "something went wrong on our side")
        try:
            backend.loop.add(self, self._socket.fileno())
            backend.shutdown.add(self)
        except Exception:
            log.exception("a WebSocket failed", session_id=self._session_id)
            self.fail()

    # On any greenlet.

    def wake(self) -> None:
        """Have `step` run."""
        self._backend.loop.wake(self)

    def command_finished(self) -> None:
        """Take another command, or end; or plan only the time at which the answer is sent without its update."""
        is_calm = not (self._messages or self._reply or self._fault or self._stopping)
        if is_calm and self._is_open and not self._writer.has_unsent:
            self._plan()
        else:
            self.wake()

    def stop(self) -> None:
        """Close because this process shuts down; requests that were read are still answered if the client is fast."""
        self._stopping = True
        self._socket.shorten_limit(_SHUTDOWN_WRITE_S)
        self.wake()

    def _end_access(self) -> None:
        """Notice that the access has ended; a client that does not read must not delay that."""
        self._socket.shorten_limit(_REVOKED_WRITE_S)
        self.wake()

    # In a step.

    def step(self) -> bool:
        """Do what there is to do; return whether there is more to read. Raises only what a close raises."""
        now_s = time.monotonic()
        try:
            if self._is_open:
                self._serve(now_s)
        except Exception:
            log.exception("a WebSocket failed", session_id=self._session_id)
            self._close(Close.FAULT, "something went wrong on our side")
        if self._is_open:
            return bool(self.events & READABLE) and self._may_receive
        self._go_on_closing(now_s)
        return False

    def _serve(self, now_s: float) -> None:
        writer = self._writer
        if self._socket.is_late(now_s):
            self._abort()
            return
        if self.events & READABLE:
            self._receive(now_s)
        while self._is_open:
            if reason := self._access.end_reason():
                self._close(Close.UNAUTHORIZED, reason)
                return
            self._do_pending(now_s)
            writer.flush()
            if not (self._messages and self._may_read):
                break
            self._handle(self._messages.pop(0))
            self._messages = self._messages or None
        if self._commands:
            self._commands.proceed()  # it may have waited until answers were written
        self._close_if_done(now_s)
        if self._is_open:
            self._ping_if_due(now_s)
            self._plan()

    @property
    def _may_read(self) -> bool:
        # The first message that is sent is the session's position: nothing is answered before it.
        if self._stopping or self._fault or self._writer.is_full or not self._writer.sent:
            return False
        return self._commands is None or len(self._commands) < MAX_IN_FLIGHT

    @property
    def _may_receive(self) -> bool:
        """Whether more may be read: not after a close, and not while too much of what has come waits to be handled."""
        if self._reply:
            return False
        return not self._messages or sum(map(len, self._messages)) <= 4 * self._backend.settings.ws_max_message_bytes

    def _receive(self, now_s: float) -> None:
        """Read a share of what has arrived."""
        if not self._may_receive:
            if self.events & BROKEN:
                self._end()
            return
        try:
            data = self._socket.read()
        except BlockingIOError:
            self.events &= ~READABLE
            return
        except OSError:
            data = b""
        if not data:
            self._end()
            return
        if len(data) < SHARE_BYTES and not self.events & ENDED:
            self.events &= ~READABLE  # epoll reports whatever comes after this
        self._take(data)

    def _take(self, data: bytes) -> None:
        """Take input: keep messages, answer pings, and note what closes the connection."""
        settings, now_s = self._backend.settings, self._socket.received_s
        bucket = self._bucket
        if bucket is None:
            bucket = self._bucket = TokenBucket(settings.ws_messages_per_s, settings.ws_messages_burst, now_s)
        try:
            for event in self._reader.read(data):
                kind = event.kind
                if kind == CLOSE:
                    payload = b"" if event.code == NO_CODE else event.code.to_bytes(2) + event.text.encode()
                    self._reply_soon(frames.close_reply(payload), event.code, is_ours=False)
                    return
                if kind == PONG:
                    self._round_trips.take_pong(event.payload, now_s)
                if bucket.take(now_s):
                    self._close(Close.ABUSE, "too many messages")
                    return
                if kind == TEXT:
                    if self._messages is None:
                        self._messages = []
                    self._messages.append(event.text)
                elif kind == PING:
                    self._socket.send_control(frames.pong_frame(event.payload))
        except BrokenFrame as broken:
            self._reply_soon(frames.close_frame(broken.code, broken.reason), broken.code, is_ours=True)

    def _reply_soon(self, frame: bytes, code: int, *, is_ours: bool) -> None:
        self._reply, self._until_s = (frame, code, is_ours), self._socket.received_s + _MAX_ANSWER_WAIT_S

    def _do_pending(self, now_s: float) -> None:
        """Do what the writer cannot do by itself: ask the hub, and release answers that have waited long enough."""
        writer = self._writer
        if writer.needs_resync:
            for session_id, known in writer.take_resyncs():
                self._backend.hub.resend(session_id, self, known)
        for session_id in writer.finished():
            self._get_subscriptions().remove(session_id)
        due_s = writer.due_s
        if due_s is not None and (self._stopping or due_s <= now_s):
            writer.release_due(due_s)

    def _close_if_done(self, now_s: float) -> None:
        """Close if that is due, and everything that comes before it is done."""
        is_answering = bool(self._commands or self._writer.has_answers)
        if self._reply:
            unread = self._messages and not self._fault
            if not (unread or is_answering) or now_s >= self._until_s:
                frame, code, is_ours = self._reply
                self._close_with(frame, code, is_ours=is_ours)
                return
        if (self._fault or self._stopping or self._writer.is_done) and not is_answering:
            restart = (Close.RESTART, "the server restarts; reconnect after a random delay")
            done = restart if self._stopping else (Close.DONE, "the session was deleted")
            self._close(*(self._fault or done))

    def _ping_if_due(self, now_s: float) -> None:
        """Ping the client when that is due, and close if it stays silent. One that does not read is given its time."""
        if self._socket.blocked_until_s is not None:
            return
        interval_s = self._backend.settings.ws_ping_interval_s
        if now_s >= self._ping_s:
            if self._socket.received_s < self._ping_s - interval_s:  # nothing since the last ping
                self._close(Close.SILENT, "no answer to pings")
                return
            self._ping_s = now_s + interval_s
            self._socket.send_control(self._round_trips.ping(now_s))
        elif now_s >= self._round_trips.due_s:
            self._socket.send_control(self._round_trips.ping(now_s))

    def _plan(self) -> None:
        """Have the next step run when there will be something to do."""
        blocked_s, held_s = self._socket.blocked_until_s, self._writer.due_s
        due_s = min(self._ping_s, self._round_trips.due_s) if blocked_s is None else blocked_s
        due_s = min(due_s, self._access.due_s, self._until_s, math.inf if held_s is None else held_s)
        self._backend.loop.plan(self, due_s)

"""How a WebSocket ends, whichever side ends it: the close frame, what is released, and the last line of the log."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial

import structlog

from syncapp.metrics import WS_CLOSED, WS_SKIPPED
from syncapp.realtime import frames
from syncapp.realtime.protocol import Close
from syncapp.server.authentication import Access
from syncapp.server.command_runner import Backend
from syncapp.server.connection_loop import BROKEN, READABLE
from syncapp.server.frame_socket import FrameSocket
from syncapp.server.message_handler import MessageHandler

log = structlog.get_logger(__name__)

LINGER_S = 1.0
"""How long input is discarded after a close: closing a socket with unread input could lose the last frames."""
_PAUSE_S = 0.01
"""Between two reads of input that is discarded."""
_ABNORMAL = 1006
_OPEN, _CLOSING, _LINGERING, _OVER = range(4)


class ConnectionEnd(MessageHandler):
    """Ends a connection: `Connection` is the one implementation, split off for its length.

    on_over: called at the very end. It is counted, in the quotas and for the shutdown, until then.
    """

    __slots__ = ("_began_s", "_code", "_counted", "_discard_s", "_is_ours", "_on_over", "_phase", "_socket", "_until_s")

    def __init__(
        self,
        backend: Backend,
        access: Access,
        session_id: str,
        address: str,
        socket: FrameSocket,
        on_over: Callable[[], None],
    ) -> None:
        super().__init__(backend, access, session_id, address, socket.received_s)
        self._socket = socket
        self._began_s = socket.received_s
        self._counted = session_id
        self._on_over = on_over
        self._phase = _OPEN
        self._code, self._is_ours = _ABNORMAL, False
        self._discard_s = 0.0
        self._until_s = math.inf  # the end of a wait for answers, and then of the linger

    def stop(self) -> None:
        """Close because this process shuts down."""
        raise NotImplementedError

    @property
    def is_blocked(self) -> bool:
        """Whether something waits for room to be sent."""
        return self._socket.blocked_until_s is not None

    @property
    def _is_open(self) -> bool:
        return self._phase == _OPEN

    def _close(self, code: Close, reason: str) -> None:
        """Close, without sending what is still queued."""
        self._close_with(frames.close_frame(code, reason), code, is_ours=True)

    def _close_with(self, frame: bytes, code: int, *, is_ours: bool) -> None:
        """Send a close frame as the last one; code and is_ours: what is logged."""
        if self._phase == _OPEN:
            self._code, self._is_ours = code, is_ours
            self._leave(_CLOSING)
            self._socket.finish(frame)

    def _end(self) -> None:
        """End without a close frame: the client has ended its side, or the connection is broken."""
        self._leave(_LINGERING)

    def _abort(self) -> None:
        """Reset the connection, because a message took too long."""
        if self._phase == _OPEN:
            self._code, self._is_ours = Close.TOO_SLOW, True
        self._socket.abort()
        self._leave(_LINGERING)

    def _leave(self, phase: int) -> None:
        """Go on to the end; at its beginning, watch nothing any more, and listen to no revocations."""
        was_open = self._phase == _OPEN
        self._phase, self._until_s = phase, 0.0
        if was_open:
            try:
                self._access.end()
            finally:
                self._get_subscriptions().end()

    def _go_on_closing(self, now_s: float) -> None:
        """Do the next part of the end, once it has begun."""
        socket = self._socket
        if self._phase == _CLOSING:
            if socket.is_late(now_s):
                self._abort()
            elif self.events & BROKEN:
                self._leave(_LINGERING)
            elif socket.flush():
                socket.end_stream()
                self._phase, self._until_s = _LINGERING, now_s + LINGER_S
            elif socket.blocked_until_s is not None:
                self._backend.loop.plan(self, socket.blocked_until_s)
        if self._phase == _CLOSING:
            return
        if now_s < self._until_s and not self._discard(now_s):
            self._backend.loop.plan(self, self._until_s)
            return
        self._conclude(now_s)

    def _discard(self, now_s: float) -> bool:
        """Discard input, but slowly: a client may keep sending. Return whether that was the end."""
        if now_s < self._discard_s or not self.events & READABLE:
            return False
        try:
            is_over = self._socket.discard()
        except BlockingIOError:
            self.events &= ~READABLE
            return False
        self._discard_s = now_s + _PAUSE_S
        self._backend.loop.plan(self, self._discard_s)
        return is_over

    def fail(self) -> None:
        """End at once, because something has failed that would have ended the connection in order."""
        if self._phase == _OVER:
            return
        self._attempt(partial(self._close, Close.FAULT, "something went wrong on our side"), self._end)
        self._conclude(time.monotonic())

    def _conclude(self, now_s: float) -> None:
        """Let go of everything. What refers back to the connection is cut, so that it needs no garbage collection."""
        self._phase = _OVER
        self._commands = self._subscriptions = None
        backend = self._backend
        self._attempt(
            partial(backend.loop.remove, self),
            self._socket.close,
            self._writer.end,
            partial(backend.shutdown.remove, self),
            partial(backend.quotas.give_back, self._counted, self._address),
            self._on_over,
            self._count_end,
            partial(self._log_end, now_s),
        )

    def _attempt(self, *parts: Callable[[], None]) -> None:
        """Do all parts of the end; one that fails must not keep the others from being done."""
        for part in parts:
            try:
                part()
            except Exception:
                log.exception("a WebSocket failed", session_id=self._session_id)

    def _count_end(self) -> None:
        if self._is_ours:
            WS_CLOSED.labels(int(self._code)).inc()
        WS_SKIPPED.inc(self._writer.skipped)

    def _log_end(self, now_s: float) -> None:
        # One that never had a token leaves no lines: anybody could fill the log with them.
        write = log.info if self._access.principal else log.debug
        write(
            "websocket closed",
            session_id=self._session_id,
            connection=self._id,
            code=int(self._code),
            by="server" if self._is_ours else "client",
            duration_s=round(now_s - self._began_s, 1),
            received=self._received,
            sent=self._writer.sent,
            skipped=self._writer.skipped,
        )

"""The writer of a connection: sends messages at once if the socket has room, otherwise as soon as it has."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, islice
from typing import Protocol

from syncapp.domain.version_order import Order
from syncapp.metrics import SENT
from syncapp.realtime.protocol import Outgoing
from syncapp.realtime.round_robin import RoundRobin
from syncapp.realtime.send_queue import QueuedAnswer, SendQueue
from syncapp.realtime.topic import SessionUpdate
from syncapp.server.frame_socket import FrameSocket

MAX_ANSWERS = 32
MAX_ANSWER_BYTES = 262_144
_MAX_JOINED_BYTES = 8192


class Woken(Protocol):
    """Has something to do for its writer."""

    def wake(self) -> None:
        """Have it done soon."""


class _Nobody:
    """In the place of a connection that has ended."""

    def wake(self) -> None:
        """Do nothing."""


class Writer:
    """Takes messages from any greenlet, and writes what the socket accepts without waiting.

    Its connection calls `flush` when the socket has room again, and is woken when it has something to do: a message
    began to wait for room, the hub has to be asked, or the client's messages may be read again. sent: number of
    messages sent. The first one is the session's position: nothing that the client has sent is answered before it.
    running: the request id of the client's command that runs now, or ''.
    """

    __slots__ = ("_connection", "_queue", "_socket", "_urgent", "running", "sent")

    def __init__(self, socket: FrameSocket, connection: Woken, session_id: str, known: Order, *, patches: bool) -> None:
        self._socket = socket
        self._connection = connection
        # Most connections watch one session, and need no more than one queue.
        self._queue: SendQueue | RoundRobin = SendQueue(known, patches=patches, session_id=session_id)
        if not session_id:
            self._queue = RoundRobin({}, "", patches=patches)
        self._urgent: Sequence[tuple[Outgoing, bytes]] = ()
        self.running = ""
        self.sent = 0

    @property
    def skipped(self) -> int:
        """Number of versions that were left out."""
        return self._queue.skipped

    @property
    def is_full(self) -> bool:
        """Whether so many answers wait that no more messages of the client are read."""
        if not self.has_answers:
            return False
        answers = [*self._queue.answers, *self._urgent]
        return len(answers) >= MAX_ANSWERS or sum(len(frame) for _, frame in answers) > MAX_ANSWER_BYTES

    @property
    def has_answers(self) -> bool:
        """Whether an answer is queued."""
        return bool(self._urgent or self._queue.has_answers)

    @property
    def has_unsent(self) -> bool:
        """Whether something is queued that waits for no update."""
        return bool(self._urgent or self._queue.first or self._queue.has_ended or self._socket.has_unsent)

    @property
    def is_done(self) -> bool:
        """Whether the session was deleted, and everything is written."""
        return self._queue.is_ended and not (self._urgent or len(self._queue) or self._socket.has_unsent)

    @property
    def sessions(self) -> list[str]:
        """The sessions that the client watches."""
        return self._queue.sessions

    def add(self, session_id: str, known: Order) -> None:
        """Add a session that the client watches."""
        self._as_round_robin().add(session_id, known)

    def set_own(self, session_id: str) -> None:
        """Name the session that the connection is for, if that was not known when it was opened."""
        self._as_round_robin().own = session_id

    def remove(self, session_id: str) -> None:
        """Remove a session; answers that are queued for it are still sent."""
        self._urgent = [*self._urgent, *self._as_round_robin().remove(session_id)]

    def finished(self) -> list[str]:
        """Return deleted sessions of which everything was sent, if the connection goes on without them."""
        if isinstance(self._queue, SendQueue) or not self._queue.has_ended:
            return []
        return self._queue.finished()

    @property
    def needs_resync(self) -> bool:
        """Whether the hub has to be asked for current states; `take_resyncs` returns which."""
        return self._queue.needs_resync

    def take_resyncs(self) -> list[tuple[str, Order]]:
        """Return the sessions to ask for, with the order that the hub's state must have at least."""
        return self._queue.take_resyncs()

    def restart(self, session_id: str, known: Order) -> Order | None:
        """Send a session's position with the next update, and the state unless the client has it.

        Returns the order that the hub's state must have at least; None if the client does not watch the session.
        """
        queue = self._queue.queue_of(session_id)
        return None if queue is None else queue.restart(known)

    def offer(self, update: SessionUpdate) -> None:
        """Send the client an update.

        That of the client's own command usually arrives just before the store's reply, which the answer follows: then
        both are sent together.
        """
        # The usual case, which has to be fast: there may be thousands of clients.
        kind = None if self._urgent else self._queue.direct_kind(update)
        if kind and self.running and update.request_id == self.running:
            self._queue.put(update)
            return
        if kind and self._try_write(update.frame(kind)):
            self._queue.mark_sent(update)
            self.sent += 1
            SENT.add(kind)
            return
        was_full, had_begun = self._queue.due_s is not None and self.is_full, self.sent > 0
        self._queue.put(update)
        self.flush()
        if was_full or not had_begun or self._queue.needs_resync or self._queue.has_ended:
            self._connection.wake()

    def send_now(self, kind: Outgoing, frame: bytes, *, first: bool = False) -> None:
        """Send a message that waits for no update; first: before everything else that is queued."""
        self._urgent = [(kind, frame), *self._urgent] if first else [*self._urgent, (kind, frame)]
        self.flush()

    def answer(self, session_id: str, kind: Outgoing, answer: QueuedAnswer) -> None:
        """Send the answer to a command, after the update that it waits for. The caller wakes the connection.

        It is not written at once, because the update usually arrives at the same time: then both are sent together.
        """
        if not self._queue.answer(session_id, kind, answer):
            self._urgent = [*self._urgent, (kind, answer.encoded)]

    @property
    def due_s(self) -> float | None:
        """When `release_due` has to be called; None if it does not."""
        return self._queue.due_s

    def release_due(self, now_s: float) -> None:
        """Queue the answers that have waited long enough."""
        self._queue.release_due(now_s)

    def flush(self) -> None:
        """Write what is queued, as far as the socket has room."""
        if self._socket.flush():
            while self._write_some():
                pass

    def end(self) -> None:
        """Write nothing more, and forget the connection."""
        self._connection = _NOBODY

    def _as_round_robin(self) -> RoundRobin:
        if isinstance(self._queue, SendQueue):
            own = self._queue
            self._queue = RoundRobin({own.session_id: own}, own.session_id, patches=own.patches)
        return self._queue

    def _write_some(self) -> bool:
        """Write queued messages, small ones together; return False if there are none, or no room."""
        found = self._first()
        if not found:
            return False
        kinds, frames = [found[0]], [found[1]]
        if len(found[1]) < _MAX_JOINED_BYTES:
            waiting = chain(self._urgent, ((item.kind, item.frame) for item in self._queue.waiting))
            for kind, frame in islice(waiting, 1, None):
                if sum(map(len, frames)) + len(frame) > _MAX_JOINED_BYTES:
                    break
                kinds.append(kind)
                frames.append(frame)
        if not self._try_write(frames[0] if len(frames) == 1 else b"".join(frames)):
            return False
        for kind in kinds:
            self._drop_first(kind)
        return True

    def _try_write(self, frame: bytes) -> bool:
        was_blocked = self._socket.blocked_until_s is not None
        is_accepted = self._socket.try_write(frame)
        if self._socket.blocked_until_s is not None and not was_blocked:
            self._connection.wake()  # to plan the end of the time for it
        return is_accepted

    def _first(self) -> tuple[Outgoing, bytes] | None:
        if self._urgent:
            return self._urgent[0]
        item = self._queue.first
        return (item.kind, item.update.frame(item.kind)) if item else None

    def _drop_first(self, kind: Outgoing) -> None:
        if self._urgent:
            self._urgent = self._urgent[1:] or ()
        else:
            self._queue.take()
        self.sent += 1
        SENT.add(kind)


_NOBODY = _Nobody()

"""What one client is sent: at once when its socket has room, and else when it has."""

from __future__ import annotations

from itertools import chain, islice

from syncapp.domain.order import Order
from syncapp.metrics import SENT
from syncapp.realtime.protocol import Outgoing
from syncapp.realtime.round_robin import RoundRobin
from syncapp.realtime.send_queue import QueuedAnswer, SendQueue
from syncapp.realtime.topic import SessionUpdate
from syncapp.server.transport import Transport

MOST_ANSWERS = 32
MOST_ANSWER_BYTES = 262_144
_JOINED_BYTES = 8192


class Writer:
    """Takes messages from any thread, and writes what the socket takes without waiting.

    The handler's thread writes the rest, with `write_next`; `wire.wake` calls it. sent: how many messages. The first
    one tells the client where it stands: no message of its own is answered before.
    """

    __slots__ = ("_backlog", "_lock", "_urgent", "_wire", "_writing", "sent")

    def __init__(self, wire: Transport, session_id: str, claim: Order, *, patches: bool) -> None:
        self._wire = wire
        self._lock = wire.lock
        # Most connections are about one session, and are to cost no more than that.
        self._backlog: SendQueue | RoundRobin = SendQueue(claim, patches=patches, session_id=session_id)
        if not session_id:
            self._backlog = RoundRobin({}, "", patches=patches)
        self._urgent: list[tuple[Outgoing, bytes]] = []
        self._writing = False
        self.sent = 0

    @property
    def skipped(self) -> int:
        """How many versions were left out."""
        return self._backlog.skipped

    @property
    def is_full(self) -> bool:
        """Whether as many answers wait as may."""
        if not self.owes_answers:
            return False
        answers = [*self._backlog.answers, *self._urgent]
        return len(answers) >= MOST_ANSWERS or sum(len(frame) for _, frame in answers) > MOST_ANSWER_BYTES

    @property
    def owes_answers(self) -> bool:
        """Whether an answer waits."""
        return bool(self._urgent or self._backlog.has_answers)

    @property
    def is_done(self) -> bool:
        """Whether the session was deleted, and everything is written."""
        return self._backlog.is_ended and not (self._urgent or len(self._backlog) or self._wire.has_rest)

    @property
    def sessions(self) -> list[str]:
        """The sessions that the client is told of."""
        return self._backlog.sessions

    def add(self, session_id: str, claim: Order) -> None:
        """Tell the client of another session."""
        with self._lock:
            self._many().add(session_id, claim)

    def remove(self, session_id: str) -> None:
        """Tell the client no more of a session; answers that are owed are sent."""
        with self._lock:
            self._urgent.extend(self._many().remove(session_id))

    def over(self) -> list[str]:
        """Return sessions that were deleted, when everything is told of them and the connection goes on."""
        if isinstance(self._backlog, SendQueue) or not self._backlog.has_ended:
            return []
        with self._lock:
            return self._backlog.finished()

    @property
    def doubts(self) -> bool:
        """Whether the hub is to be asked anew, for what `doubted` returns."""
        return self._backlog.needs_resync

    def doubted(self) -> list[tuple[str, Order]]:
        """Return sessions, and what the hub has to know of each at least."""
        with self._lock:
            return self._backlog.take_resyncs()

    def expect(self, session_id: str, claim: Order) -> Order | None:
        """Tell the client where it stands, with the next update; returns what the hub has to know at least.

        None: it is not told of this session.
        """
        with self._lock:
            backlog = self._backlog.queue_of(session_id)
            return None if backlog is None else backlog.restart(claim)

    def offer(self, update: SessionUpdate) -> None:
        """Tell the client of an update."""
        with self._lock:
            # What nearly always is so, and has to be quick: there may be thousands of clients.
            kind = None if self._writing or self._urgent else self._backlog.direct_kind(update)
            if kind and self._wire.try_write(update.frame(kind)):
                self._backlog.mark_sent(update)
                self.sent += 1
                SENT.add(kind)
                return
            was_full, had_begun = self._backlog.due_s is not None and self.is_full, self.sent > 0
            self._backlog.put(update)
            self._write_through()
            if was_full or not had_begun or self._backlog.needs_resync:
                self._wire.wake()  # the handler may take messages now, or has to ask the hub

    def urge(self, kind: Outgoing, frame: bytes, *, first: bool = False) -> None:
        """Send what does not wait for news; first: before all else."""
        with self._lock:
            self._urgent.insert(0 if first else len(self._urgent), (kind, frame))
            self._write_through()

    def answer(self, session_id: str, kind: Outgoing, answer: QueuedAnswer) -> None:
        """Answer a command, once the client was told of what it is about. The caller wakes the handler.

        What a command changed mostly comes in the same moment as its answer, and then goes out with it.
        """
        with self._lock:
            if not self._backlog.answer(session_id, kind, answer):
                self._urgent.append((kind, answer.encoded))

    @property
    def due_s(self) -> float | None:
        """When to call `settle`; None: it need not be called."""
        return self._backlog.due_s

    def settle(self, now_s: float) -> None:
        """Send the answers that have waited for long enough."""
        with self._lock:
            self._backlog.release_due(now_s)

    def write_next(self) -> bool:
        """Write what waits, however long it takes; False when there is nothing. Raises what `Transport.write` does."""
        with self._lock:
            has_rest = self._wire.has_rest
            if not has_rest and self._write_at_once():
                return True
            found = None if has_rest else self._first()
            if not (found or has_rest):
                return False
            if found:
                self._drop_first(found[0])
            self._writing = True
        try:
            self._wire.write(found[1] if found else b"")
        finally:
            self._writing = False
        return True

    # The lock is held.

    def _many(self) -> RoundRobin:
        if isinstance(self._backlog, SendQueue):
            own = self._backlog
            self._backlog = RoundRobin({own.session_id: own}, own.session_id, patches=own.patches)
        return self._backlog

    def _write_through(self) -> None:
        if self._writing:
            return  # it goes on with what is there
        while self._write_at_once():
            pass
        if self._first() or self._backlog.has_ended:
            self._wire.wake()

    def _write_at_once(self) -> bool:
        """Write what waits, small messages together, if the socket takes it without waiting."""
        found = self._first()
        if not found:
            return False
        kinds, frames = [found[0]], [found[1]]
        if len(found[1]) < _JOINED_BYTES:
            waiting = chain(self._urgent, ((item.kind, item.frame) for item in self._backlog.waiting))
            for kind, frame in islice(waiting, 1, None):
                if sum(map(len, frames)) + len(frame) > _JOINED_BYTES:
                    break
                kinds.append(kind)
                frames.append(frame)
        if not self._wire.try_write(frames[0] if len(frames) == 1 else b"".join(frames)):
            return False
        for kind in kinds:
            self._drop_first(kind)
        return True

    def _first(self) -> tuple[Outgoing, bytes] | None:
        if self._urgent:
            return self._urgent[0]
        item = self._backlog.first
        return (item.kind, item.update.frame(item.kind)) if item else None

    def _drop_first(self, kind: Outgoing) -> None:
        if self._urgent:
            self._urgent.pop(0)
        else:
            self._backlog.take()
        self.sent += 1
        SENT.add(kind)

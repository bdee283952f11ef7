"""What one client is sent: answers before news, at once when its socket has room, and else when it has."""

from __future__ import annotations

from syncapp.backlog import Backlog
from syncapp.metrics import SENT
from syncapp.protocol import Told
from syncapp.topics import Order, Update
from syncapp.wire import Wire

MOST_ANSWERS = 32
MOST_ANSWER_BYTES = 262_144
_JOINED_BYTES = 8192


class Outlet:
    """Takes messages from any thread, and writes what the socket takes without waiting.

    The handler's thread writes the rest, with `write_next`; `wire.wake` calls it. sent: how many messages.
    """

    __slots__ = ("_answers", "_backlog", "_lock", "_wire", "_writing", "sent")

    def __init__(self, wire: Wire, claim: Order, *, patches: bool) -> None:
        self._wire = wire
        self._lock = wire.lock
        self._backlog = Backlog(claim, patches=patches)
        self._answers: list[tuple[Told, bytes]] = []
        self._writing = False
        self.sent = 0

    @property
    def skipped(self) -> int:
        """How many versions were left out."""
        return self._backlog.skipped

    @property
    def is_full(self) -> bool:
        """Whether as many answers wait as may."""
        answers = self._answers
        return len(answers) >= MOST_ANSWERS or sum(len(frame) for _, frame in answers) > MOST_ANSWER_BYTES

    @property
    def is_done(self) -> bool:
        """Whether the session was deleted, and everything is written."""
        return self._backlog.is_ended and not (self._answers or len(self._backlog) or self._wire.has_rest)

    def expect(self, claim: Order) -> None:
        """Tell the client where it stands, with the next update."""
        with self._lock:
            self._backlog.expect(claim)

    def offer(self, update: Update) -> None:
        """Tell the client of an update."""
        with self._lock:
            # What nearly always is so, and has to be quick: there may be thousands of clients.
            kind = None if self._writing or self._answers else self._backlog.passes(update)
            if kind and self._wire.try_write(update.frame(kind)):
                self._backlog.passed(update)
                self.sent += 1
                SENT.add(kind)
                return
            self._backlog.put(update)
            self._write_through()

    def answer(self, kind: Told, frame: bytes, *, first: bool = False, soon: bool = False) -> None:
        """Answer the client; first: before all else that waits; soon: the caller wakes the handler.

        What a command changed mostly comes in the same moment as its answer, and then goes out with it.
        """
        with self._lock:
            self._answers.insert(0 if first else len(self._answers), (kind, frame))
            if not soon:
                self._write_through()

    def write_next(self) -> bool:
        """Write what waits, however long it takes; False when there is nothing. Raises what `Wire.write` does."""
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

    def _write_through(self) -> None:
        if self._writing:
            return  # it goes on with what is there
        while self._write_at_once():
            pass
        if self._first() or self._backlog.is_ended:
            self._wire.wake()

    def _write_at_once(self) -> bool:
        """Write what waits, small messages together, if the socket takes it without waiting."""
        found = self._first()
        if not found:
            return False
        kinds, frames = [found[0]], [found[1]]
        if len(found[1]) < _JOINED_BYTES:
            waiting = [*self._answers, *((item.kind, item.frame) for item in self._backlog.waiting)]
            for kind, frame in waiting[1:]:
                if sum(map(len, frames)) + len(frame) > _JOINED_BYTES:
                    break
                kinds.append(kind)
                frames.append(frame)
        if not self._wire.try_write(frames[0] if len(frames) == 1 else b"".join(frames)):
            return False
        for kind in kinds:
            self._drop_first(kind)
        return True

    def _first(self) -> tuple[Told, bytes] | None:
        if self._answers:
            return self._answers[0]
        item = self._backlog.first
        return (item.kind, item.update.frame(item.kind)) if item else None

    def _drop_first(self, kind: Told) -> None:
        if self._answers:
            self._answers.pop(0)
        else:
            self._backlog.take()
        self.sent += 1
        SENT.add(kind)

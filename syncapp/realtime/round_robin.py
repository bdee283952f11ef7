"""What one client is still to be told of several sessions: of each in order, and of all of them in turns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

from syncapp.domain.order import Order
from syncapp.realtime.protocol import Outgoing
from syncapp.realtime.send_queue import MOST_BYTES, QueuedAnswer, QueuedItem, SendQueue
from syncapp.realtime.topic import SessionUpdate

LEAST_ROOM_BYTES = 8192
"""What may wait of one session, however many there are."""


class RoundRobin:
    """A backlog for each session, in the place of the only one of most connections. Not locked.

    own: the session of the connection itself, whose end is its end when there is no other.
    """

    def __init__(self, backlogs: Mapping[str, SendQueue], own: str, *, patches: bool) -> None:
        self._of = dict(backlogs)
        self._own = own
        self._patches = patches
        # Sessions of which a message waits; the first one's turn is next.
        self._turns: dict[str, None] = {each: None for each, backlog in self._of.items() if len(backlog)}
        self._skipped = 0

    def __len__(self) -> int:
        return sum(map(len, self._of.values()))

    @property
    def sessions(self) -> list[str]:
        """The sessions, of the earliest first."""
        return list(self._of)

    def add(self, session_id: str, claim: Order) -> None:
        """Begin to tell of a session; all share what may wait of a single one."""
        self._of[session_id] = SendQueue(claim, patches=self._patches, session_id=session_id)
        self._share()

    def remove(self, session_id: str) -> list[tuple[Outgoing, bytes]]:
        """Tell no more of a session; returns the answers that are owed."""
        backlog = self._of.pop(session_id)
        self._turns.pop(session_id, None)
        self._skipped += backlog.skipped
        self._share()
        return backlog.answers

    def of(self, session_id: str) -> SendQueue | None:
        """Return the backlog of a session; None when the client is not told of it."""
        return self._of.get(session_id)

    def over(self) -> list[str]:
        """Return the sessions that were deleted, when everything is told of them and they are not all there is."""
        if self.is_ended:
            return []
        return [each for each, backlog in self._of.items() if backlog.is_ended and not len(backlog)]

    # As of one backlog.

    @property
    def is_ended(self) -> bool:
        """Whether the connection's own session was deleted, and there is no other."""
        return len(self._of) == 1 and self._own in self._of and self._of[self._own].is_ended

    @property
    def has_ended(self) -> bool:
        """Whether a session was deleted that `over` may return."""
        return any(backlog.is_ended for backlog in self._of.values())

    @property
    def skipped(self) -> int:
        """How many versions were left out."""
        return self._skipped + sum(backlog.skipped for backlog in self._of.values())

    @property
    def doubts(self) -> bool:
        """Whether the hub is to be asked anew."""
        return any(backlog.doubts for backlog in self._of.values())

    def doubted(self) -> list[tuple[str, Order]]:
        """Return for which sessions, and what it has to know at least; and doubt no more."""
        return [each for backlog in self._of.values() if backlog.doubts for each in backlog.doubted()]

    def put(self, update: SessionUpdate) -> None:
        """Add what the client is to be told of an update."""
        backlog = self._of.get(update.session_id)
        if backlog is not None:  # an empty one is false
            backlog.put(update)
            self._note(update.session_id, backlog)

    def passes(self, update: SessionUpdate) -> Outgoing | None:
        """Return as what an update may be sent without waiting in here."""
        backlog = self._of.get(update.session_id)
        return backlog.passes(update) if backlog is not None and not self._turns else None

    def passed(self, update: SessionUpdate) -> None:
        """Note that an update was sent without waiting in here."""
        self._of[update.session_id].passed(update)

    def answer(self, session_id: str, kind: Outgoing, answer: QueuedAnswer) -> bool:
        """Add an answer; False when the client is not told of its session."""
        backlog = self._of.get(session_id)
        if backlog is None:
            return False
        backlog.answer(session_id, kind, answer)
        self._note(session_id, backlog)
        return True

    @property
    def due_s(self) -> float | None:
        """When the next of the answers that wait for news is sent without."""
        return min((due_s for backlog in self._of.values() if (due_s := backlog.due_s) is not None), default=None)

    def settle(self, now_s: float) -> None:
        """Send answers whose time is up."""
        for session_id, backlog in self._of.items():
            if backlog.due_s is not None:
                backlog.settle(now_s)
                self._note(session_id, backlog)

    @property
    def owes_answers(self) -> bool:
        """Whether there is an answer in here."""
        return any(backlog.owes_answers for backlog in self._of.values())

    @property
    def answers(self) -> list[tuple[Outgoing, bytes]]:
        """The answers in here."""
        return list(chain.from_iterable(backlog.answers for backlog in self._of.values()))

    @property
    def first(self) -> QueuedItem | None:
        """The next message."""
        return next(self.waiting, None)

    @property
    def waiting(self) -> Iterator[QueuedItem]:
        """Yield all messages, as `take` would return them."""
        turns = [self._of[each].waiting for each in self._turns]
        for i in range(max(map(len, turns), default=0)):
            for items in turns:
                if i < len(items):
                    yield items[i]

    def take(self) -> QueuedItem | None:
        """Take the next message of the session whose turn it is."""
        session_id = next(iter(self._turns), None)
        if session_id is None:
            return None
        del self._turns[session_id]
        item = self._of[session_id].take()
        self._note(session_id, self._of[session_id])
        return item

    def _note(self, session_id: str, backlog: SendQueue) -> None:
        if len(backlog):
            self._turns.setdefault(session_id)
        else:
            self._turns.pop(session_id, None)

    def _share(self) -> None:
        room = max(LEAST_ROOM_BYTES, MOST_BYTES // max(1, len(self._of)))
        for backlog in self._of.values():
            backlog.room_bytes = room

"""The send queues of a connection that watches several sessions: each keeps its order, and the sessions take turns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain

from syncapp.domain.version_order import Order
from syncapp.realtime.protocol import Outgoing
from syncapp.realtime.send_queue import MAX_BYTES, QueuedAnswer, QueuedItem, SendQueue
from syncapp.realtime.topic import SessionUpdate

MIN_SHARE_BYTES = 8192
"""What may wait of each session, however many there are."""


class RoundRobin:
    """Takes the place of the single `SendQueue` that most connections have. Not locked.

    own: the session that the connection was opened for. If it is deleted and there is no other, the connection ends.
    """

    def __init__(self, queues: Mapping[str, SendQueue], own: str, *, patches: bool) -> None:
        self._queues = dict(queues)
        self.own = own
        self._patches = patches
        # Sessions with queued messages; the first one is next.
        self._turns: dict[str, None] = {each: None for each, queue in self._queues.items() if len(queue)}
        self._skipped = 0

    def __len__(self) -> int:
        return sum(map(len, self._queues.values()))

    @property
    def sessions(self) -> list[str]:
        """The sessions, in the order in which they were added."""
        return list(self._queues)

    def add(self, session_id: str, known: Order) -> None:
        """Add a session; all sessions share the bytes that may wait of a single one."""
        self._queues[session_id] = SendQueue(known, patches=self._patches, session_id=session_id)
        self._share()

    def remove(self, session_id: str) -> list[tuple[Outgoing, bytes]]:
        """Remove a session; return the answers that still have to be sent."""
        queue = self._queues.pop(session_id)
        self._turns.pop(session_id, None)
        self._skipped += queue.skipped
        self._share()
        return queue.answers

    def queue_of(self, session_id: str) -> SendQueue | None:
        """Return a session's queue; None if the connection does not watch it."""
        return self._queues.get(session_id)

    def finished(self) -> list[str]:
        """Return deleted sessions of which everything was sent, unless the connection has to end with them."""
        if self.is_ended:
            return []
        return [each for each, queue in self._queues.items() if queue.is_ended and not len(queue)]

    # The same as `SendQueue` has.

    @property
    def is_ended(self) -> bool:
        """Whether the connection's own session was deleted, and it watches no other."""
        return len(self._queues) == 1 and self.own in self._queues and self._queues[self.own].is_ended

    @property
    def has_ended(self) -> bool:
        """Whether any session was deleted."""
        return any(queue.is_ended for queue in self._queues.values())

    @property
    def skipped(self) -> int:
        """Number of versions that were left out."""
        return self._skipped + sum(queue.skipped for queue in self._queues.values())

    @property
    def needs_resync(self) -> bool:
        """Whether the hub has to be asked for the current state of any session."""
        return any(queue.needs_resync for queue in self._queues.values())

    def take_resyncs(self) -> list[tuple[str, Order]]:
        """Return the sessions to ask for, with the order that the hub's state must have at least; clears the flags."""
        return [each for queue in self._queues.values() if queue.needs_resync for each in queue.take_resyncs()]

    def put(self, update: SessionUpdate) -> None:
        """Queue the messages for an update."""
        queue = self._queues.get(update.session_id)
        if queue is not None:  # an empty queue is false
            queue.put(update)
            self._update_turn(update.session_id, queue)

    def direct_kind(self, update: SessionUpdate) -> Outgoing | None:
        """Return the type of message for an update that may be sent at once; None if the update has to be `put`."""
        queue = self._queues.get(update.session_id)
        return queue.direct_kind(update) if queue is not None and not self._turns else None

    def mark_sent(self, update: SessionUpdate) -> None:
        """Note that an update was sent at once."""
        self._queues[update.session_id].mark_sent(update)

    def answer(self, session_id: str, kind: Outgoing, answer: QueuedAnswer) -> bool:
        """Queue an answer; return False if the connection does not watch its session."""
        queue = self._queues.get(session_id)
        if queue is None:
            return False
        queue.answer(session_id, kind, answer)
        self._update_turn(session_id, queue)
        return True

    @property
    def due_s(self) -> float | None:
        """When the next answer is sent without the update that it waits for; None if no answer waits."""
        return min((due_s for queue in self._queues.values() if (due_s := queue.due_s) is not None), default=None)

    def release_due(self, now_s: float) -> None:
        """Queue the answers that have waited long enough."""
        for session_id, queue in self._queues.items():
            if queue.due_s is not None:
                queue.release_due(now_s)
                self._update_turn(session_id, queue)

    @property
    def has_answers(self) -> bool:
        """Whether an answer is queued or waits for its update."""
        return any(queue.has_answers for queue in self._queues.values())

    @property
    def answers(self) -> list[tuple[Outgoing, bytes]]:
        """All answers, queued or waiting, as frames."""
        return list(chain.from_iterable(queue.answers for queue in self._queues.values()))

    @property
    def first(self) -> QueuedItem | None:
        """The next message; None if nothing is queued."""
        return next(self.waiting, None)

    @property
    def waiting(self) -> Iterator[QueuedItem]:
        """Yield all queued messages, in the order in which `take` would return them."""
        turns = [self._queues[each].waiting for each in self._turns]
        for i in range(max(map(len, turns), default=0)):
            for items in turns:
                if i < len(items):
                    yield items[i]

    def take(self) -> QueuedItem | None:
        """Remove and return the next message of the session whose turn it is; None if nothing is queued."""
        session_id = next(iter(self._turns), None)
        if session_id is None:
            return None
        del self._turns[session_id]
        item = self._queues[session_id].take()
        self._update_turn(session_id, self._queues[session_id])
        return item

    def _update_turn(self, session_id: str, queue: SendQueue) -> None:
        if len(queue):
            self._turns.setdefault(session_id)
        else:
            self._turns.pop(session_id, None)

    def _share(self) -> None:
        share_bytes = max(MIN_SHARE_BYTES, MAX_BYTES // max(1, len(self._queues)))
        for queue in self._queues.values():
            queue.max_bytes = share_bytes

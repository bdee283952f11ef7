"""What one client is still to be told of a session: in order, none twice, and never more than it may hold up.

The answer to a command comes after the news of what it did, and nothing older comes after the answer.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

from syncapp.domain.order import NEVER, Order
from syncapp.domain.results import Result
from syncapp.errors import SessionNotFound, StoreUnavailable
from syncapp.realtime.protocol import Outgoing
from syncapp.realtime.topic import SessionUpdate

MOST_BYTES = 262_144
MOST_FRAMES = 64
HELD_S = 2.0
"""How long an answer waits for the news that it is about."""
THE_END: Order = (sys.maxsize, 0)
"""Later than any order: an answer that comes after the session's end."""
_STATES = (Outgoing.STATE_UPDATE, Outgoing.STATE_PATCH, Outgoing.STATE_SYNC)


class QueuedAnswer(NamedTuple):
    """The answer to a command; the client is told of `order` before it. result: what the command led to, if it did."""

    text: bytes
    order: Order
    due_s: float
    result: Result | None = None

    def frame(self, kind: Outgoing) -> bytes:
        """Return the answer, which is encoded already."""
        return self.text


class QueuedItem(NamedTuple):
    """A message to be sent."""

    kind: Outgoing
    update: SessionUpdate | QueuedAnswer

    @property
    def frame(self) -> bytes:
        """The message as a frame; that of an update has the same bytes for all clients."""
        return self.update.frame(self.kind)


class SendQueue:
    """Bounded: when too much waits, all states that wait give way to the newest one. Not locked.

    The client waits to be told where it stands, at first and after each `expect`: a claim is what it says that
    it knows. patches: it wants patches instead of states. is_ended: the session was deleted, and nothing comes
    after what is in here. skipped: how many versions were left out. doubts: the hub is to be asked anew.
    room_bytes: what may wait.
    """

    __slots__ = (
        "_acked",
        "_claim",
        "_held",
        "_items",
        "_last",
        "_told",
        "doubts",
        "is_ended",
        "patches",
        "room_bytes",
        "session_id",
        "skipped",
    )  # fmt: skip

    def __init__(self, claim: Order = NEVER, *, patches: bool = False, session_id: str = "") -> None:
        self.session_id = session_id
        self.room_bytes = MOST_BYTES
        self._items: list[QueuedItem] = []  # an empty deque is 0.7 kB, for each connection
        self._held: Sequence[tuple[Outgoing, QueuedAnswer]] = ()
        self._claim: Order | None = claim
        self._last = self._acked = NEVER
        self.patches = patches
        self._told = ""
        self.is_ended = self.doubts = False
        self.skipped = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def sessions(self) -> list[str]:
        """The session."""
        return [self.session_id]

    def of(self, session_id: str) -> SendQueue | None:
        """Return this backlog, for its own session."""
        return self if session_id == self.session_id else None

    @property
    def has_ended(self) -> bool:
        """Whether the session was deleted."""
        return self.is_ended

    def expect(self, claim: Order) -> Order:
        """Tell the client where it stands, with the next update; and the state, unless it is this one.

        Returns what the hub has to know at least.
        """
        self._claim, self._told, self.doubts = claim, "", False
        return max(claim, self._acked)

    def doubted(self) -> list[tuple[str, Order]]:
        """Return the session and what the hub has to know of it at least; and doubt no more."""
        self.doubts = False
        return [(self.session_id, self._acked)]

    def put(self, update: SessionUpdate) -> None:
        """Add what the client is to be told of an update, and the answers that waited for it."""
        if self.is_ended:
            return
        if update.error:
            self._put_error(update)
        elif update.session is None:
            self._items.append(QueuedItem(Outgoing.SESSION_DELETED, update))
            self.is_ended = True
        elif self._claim is not None:
            # Who knows of more than this process does waits until the store was asked.
            if update.order >= max(self._claim, self._acked) or update.went_back:
                self._put_position(update, self._claim)
        elif update.went_back and update.order < self._acked:
            self._doubt()  # it may have been read before the command that was answered
        elif update.order > self._last or update.went_back:
            self._put_state(update)
        if self._held:
            self._release()

    def passes(self, update: SessionUpdate) -> Outgoing | None:
        """Return as what an update may be sent without waiting in here; None when it has to be `put`."""
        epoch, version = self._last
        if self._items or self._held or self._claim is not None or update.order != (epoch, version + 1):
            return None
        if update.event is None or update.session is None or self.is_ended:
            return None
        return Outgoing.STATE_PATCH if self.patches and update.patch else Outgoing.STATE_UPDATE

    def passed(self, update: SessionUpdate) -> None:
        """Note that an update was sent without waiting in here."""
        self._last, self._told = update.order, ""

    # Answers to commands.

    def answer(self, session_id: str, kind: Outgoing, answer: QueuedAnswer) -> bool:
        """Add an answer, once the client was told of what it is about; in the order of the calls.

        Returns False for another session.
        """
        if session_id != self.session_id:
            return False
        self._held = [*self._held, (kind, answer)]
        self._release()
        return True

    @property
    def due_s(self) -> float | None:
        """When the next of the answers that wait for news is sent without; None when there is none."""
        return self._held[0][1].due_s if self._held else None

    def settle(self, now_s: float) -> None:
        """Send answers whose time is up; what they are about is told from what the command itself has found."""
        while self._held and (held := self._held[0])[1].due_s <= now_s:
            result = held[1].result
            if result and result.session:
                self.put(
                    SessionUpdate(result.session.session_id, result.now_ms, session=result.session, event=result.event)
                )
            if self._held and self._held[0] is held:
                self._put_first_answer()
                if self._last < self._acked:
                    self._doubt()

    @property
    def owes_answers(self) -> bool:
        """Whether there is an answer in here."""
        return bool(self._held) or any(isinstance(item.update, QueuedAnswer) for item in self._items)

    @property
    def answers(self) -> list[tuple[Outgoing, bytes]]:
        """The answers in here, as frames."""
        waiting = [(item.kind, item.frame) for item in self._items if isinstance(item.update, QueuedAnswer)]
        return [*waiting, *((kind, answer.text) for kind, answer in self._held)]

    @property
    def first(self) -> QueuedItem | None:
        """The next message."""
        return self._items[0] if self._items else None

    @property
    def waiting(self) -> Sequence[QueuedItem]:
        """All messages, in order."""
        return self._items

    def take(self) -> QueuedItem | None:
        """Take the next message, None when there is nothing to tell."""
        return self._items.pop(0) if self._items else None

    def _release(self) -> None:
        while self._held and (self._held[0][1].order <= self._last or self.is_ended):
            self._put_first_answer()

    def _put_first_answer(self) -> None:
        (kind, answer), *self._held = self._held
        self._items.append(QueuedItem(kind, answer))
        if kind is Outgoing.ACK and answer.order != THE_END and answer.result:
            # A replay reports an earlier outcome; anything else reports the newest known one.
            self._acked = max(self._acked, answer.order) if answer.result.replayed else answer.order

    def _doubt(self) -> None:
        """Have the hub asked anew; whatever the client knows, it is sent the state."""
        self._claim, self.doubts = NEVER, True

    def _put_error(self, update: SessionUpdate) -> None:
        error = update.error
        if isinstance(error, SessionNotFound) and self._claim is not None:
            self._items.append(QueuedItem(Outgoing.CONNECTED, update))  # without epoch and version
            self._last = self._acked = NEVER
            self._claim, self._told = None, error.code
            return
        if error and error.code != self._told:  # once for each outage
            self._told = error.code
            self._items.append(QueuedItem(Outgoing.ERROR, update))
        if isinstance(error, StoreUnavailable) and self._claim is None:
            self._claim = self._last  # it is told when that is over

    def _put_position(self, update: SessionUpdate, claim: Order) -> None:
        self._drop_states()
        self._items.append(QueuedItem(Outgoing.CONNECTED, update))
        if claim != update.order:
            self._items.append(QueuedItem(Outgoing.STATE_SYNC, update))
        self._last, self._claim, self._told = update.order, None, ""
        self._acked = min(self._acked, update.order)
        self.doubts = False

    def _put_state(self, update: SessionUpdate) -> None:
        """Add a state: as a patch or an update if it follows on the one before, else as a whole."""
        kind = Outgoing.STATE_SYNC
        if update.event:
            epoch, version = self._last
            if update.order == (epoch, version + 1):
                kind = Outgoing.STATE_PATCH if self.patches and update.patch else Outgoing.STATE_UPDATE
            elif update.order[1] == 1:
                kind = Outgoing.STATE_UPDATE  # there is nothing that it could patch
        self._items.append(QueuedItem(kind, update))
        self._last, self._told = update.order, ""
        if len(self._items) > 1 and self._is_full():
            self.skipped += self._drop_states() - 1
            self._items.append(QueuedItem(Outgoing.STATE_SYNC, update))

    def _is_full(self) -> bool:
        return len(self._items) > MOST_FRAMES or sum(len(item.frame) for item in self._items) > self.room_bytes

    def _drop_states(self) -> int:
        """Take states out; returns how many."""
        kept = [item for item in self._items if item.kind not in _STATES]
        dropped = len(self._items) - len(kept)
        self._items = kept
        return dropped

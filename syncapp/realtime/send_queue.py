"""The send queue: messages about one session that wait to be sent to one client, in order, none twice, bounded in size.

The answer to a command comes after the update that the command caused, and nothing older comes after the answer.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NamedTuple

from syncapp.domain.results import Result
from syncapp.domain.version_order import NEVER, Order
from syncapp.errors import SessionNotFound, StoreUnavailable
from syncapp.realtime.protocol import Outgoing
from syncapp.realtime.topic import SessionUpdate

MAX_BYTES = 262_144
MAX_FRAMES = 64
MAX_HOLD_S = 2.0
"""How long an answer waits for the update that has to come before it."""
AFTER_DELETE: Order = (sys.maxsize, 0)
"""Later than any order: for an answer that comes after the delete of its session."""
_STATES = (Outgoing.STATE_UPDATE, Outgoing.STATE_PATCH, Outgoing.STATE_SYNC)


class QueuedAnswer(NamedTuple):
    """The answer to a command, as a frame.

    order: of the update that is sent before it. due_s: when it is sent without that update (monotonic, in seconds).
    result: what the command returned, if it succeeded.
    """

    encoded: bytes
    order: Order
    due_s: float
    result: Result | None = None

    def frame(self, kind: Outgoing) -> bytes:
        """Return the frame, which is encoded already."""
        return self.encoded


class QueuedItem(NamedTuple):
    """A message to be sent."""

    kind: Outgoing
    update: SessionUpdate | QueuedAnswer

    @property
    def frame(self) -> bytes:
        """The message as a frame; an update has the same bytes for all clients."""
        return self.update.frame(self.kind)


class SendQueue:
    """The messages about one session for one client. When too much waits, the newest state replaces all others.

    The next update is sent as the session's position (`CONNECTED`), at first and after each `restart`. Not locked.

    known: the order that the client says it has; a state of that order is not sent. patches: the client gets patches
    instead of states. is_ended: the session was deleted; nothing comes after what is queued. skipped: number of
    versions that were left out. needs_resync: the hub has to be asked for the current state. max_bytes: what may wait.
    """

    __slots__ = (
        "_acked",
        "_floor",
        "_held",
        "_items",
        "_known",
        "_last",
        "_last_error",
        "is_ended",
        "max_bytes",
        "needs_resync",
        "patches",
        "session_id",
        "skipped",
    )  # fmt: skip

    def __init__(self, known: Order = NEVER, *, patches: bool = False, session_id: str = "") -> None:
        self.session_id = session_id
        self.max_bytes = MAX_BYTES
        self._items: Sequence[QueuedItem] = ()  # most connections wait for nothing
        self._held: Sequence[tuple[Outgoing, QueuedAnswer]] = ()
        self._known: Order | None = known  # None once the position was sent
        self._last = self._acked = self._floor = NEVER
        self.patches = patches
        self._last_error = ""
        self.is_ended = self.needs_resync = False
        self.skipped = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def sessions(self) -> list[str]:
        """The session."""
        return [self.session_id]

    def queue_of(self, session_id: str) -> SendQueue | None:
        """Return this queue if it is the session's, otherwise None."""
        return self if session_id == self.session_id else None

    @property
    def has_ended(self) -> bool:
        """Whether the session was deleted."""
        return self.is_ended

    def restart(self, known: Order) -> Order:
        """Send the position with the next update, and the state unless the client has it.

        Returns the order that the hub's state must have at least.
        """
        self._known, self._last_error, self.needs_resync = known, "", False
        self._floor = max(self._acked, self._last)
        return max(known, self._floor)

    def take_resyncs(self) -> list[tuple[str, Order]]:
        """Return the session, with the order that the hub's state must have at least; clears `needs_resync`."""
        self.needs_resync = False
        return [(self.session_id, self._acked)]

    def put(self, update: SessionUpdate) -> None:
        """Queue the messages for an update, and the answers that waited for it."""
        if self.is_ended:
            return
        if update.error:
            self._put_error(update)
        elif update.session is None:
            self._add(QueuedItem(Outgoing.SESSION_DELETED, update))
            self.is_ended = True
        elif self._known is not None:
            # A client that knows or was sent a later version than this process has waits until the store was asked.
            if update.order >= max(self._known, self._acked, self._floor) or update.went_back:
                self._put_position(update, self._known)
        elif update.went_back and update.order < self._acked:
            self._resync()  # it may have been read before the command that was answered
        elif update.order > self._last or update.went_back:
            self._put_state(update)
        if self._held:
            self._release()

    def direct_kind(self, update: SessionUpdate) -> Outgoing | None:
        """Return the type of message for an update that may be sent at once; None if the update has to be `put`."""
        epoch, version = self._last
        if self._items or self._held or self._known is not None or update.order != (epoch, version + 1):
            return None
        if update.event is None or update.session is None or self.is_ended:
            return None
        return Outgoing.STATE_PATCH if self.patches and update.patch else Outgoing.STATE_UPDATE

    def mark_sent(self, update: SessionUpdate) -> None:
        """Note that an update was sent at once."""
        self._last, self._last_error = update.order, ""

    # Answers to commands.

    def answer(self, session_id: str, kind: Outgoing, answer: QueuedAnswer) -> bool:
        """Queue an answer, after the update that it waits for; answers keep the order of these calls.

        Returns False if the queue is not this session's.
        """
        if session_id != self.session_id:
            return False
        self._held = [*self._held, (kind, answer)]
        self._release()
        return True

    @property
    def due_s(self) -> float | None:
        """When the next answer is sent without the update that it waits for; None if no answer waits."""
        return self._held[0][1].due_s if self._held else None

    def release_due(self, now_s: float) -> None:
        """Queue the answers that have waited long enough, each after the state that its command returned."""
        while self._held and (held := self._held[0])[1].due_s <= now_s:
            result = held[1].result
            if result and result.session:
                self.put(
                    SessionUpdate(result.session.session_id, result.now_ms, session=result.session, event=result.event)
                )
            if self._held and self._held[0] is held:
                self._put_first_answer()
                if self._last < self._acked:
                    self._resync()

    @property
    def has_answers(self) -> bool:
        """Whether an answer is queued or waits for its update."""
        return bool(self._held) or any(isinstance(item.update, QueuedAnswer) for item in self._items)

    @property
    def answers(self) -> list[tuple[Outgoing, bytes]]:
        """All answers, queued or waiting, as frames."""
        queued = [(item.kind, item.frame) for item in self._items if isinstance(item.update, QueuedAnswer)]
        return [*queued, *((kind, answer.encoded) for kind, answer in self._held)]

    @property
    def first(self) -> QueuedItem | None:
        """The next message; None if nothing is queued."""
        return self._items[0] if self._items else None

    @property
    def waiting(self) -> Sequence[QueuedItem]:
        """All queued messages, in order."""
        return self._items

    def take(self) -> QueuedItem | None:
        """Remove and return the next message; None if nothing is queued."""
        if not self._items:
            return None
        item, self._items = self._items[0], self._items[1:] or ()
        return item

    def _add(self, item: QueuedItem) -> None:
        self._items = [*self._items, item]

    def _release(self) -> None:
        while self._held and (self._held[0][1].order <= self._last or self.is_ended):
            self._put_first_answer()

    def _put_first_answer(self) -> None:
        (kind, answer), *self._held = self._held
        self._add(QueuedItem(kind, answer))
        if kind is Outgoing.ACK and answer.order != AFTER_DELETE and answer.result:
            # A replay reports an earlier outcome; anything else reports the newest known one.
            self._acked = max(self._acked, answer.order) if answer.result.replayed else answer.order

    def _resync(self) -> None:
        """Have the hub asked for the current state, and send it even if the client has it."""
        self._known, self._floor, self.needs_resync = NEVER, NEVER, True

    def _put_error(self, update: SessionUpdate) -> None:
        error = update.error
        if isinstance(error, SessionNotFound) and self._known is not None:
            self._add(QueuedItem(Outgoing.CONNECTED, update))  # without epoch and version
            self._last = self._acked = self._floor = NEVER
            self._known, self._last_error = None, error.code
            return
        if error and error.code != self._last_error:  # once for each outage
            self._last_error = error.code
            self._add(QueuedItem(Outgoing.ERROR, update))
        if isinstance(error, StoreUnavailable) and self._known is None:
            self._known = self._last  # the position is sent when the outage is over

    def _put_position(self, update: SessionUpdate, known: Order) -> None:
        position = [QueuedItem(Outgoing.CONNECTED, update)]
        if known != update.order:
            position.append(QueuedItem(Outgoing.STATE_SYNC, update))
        self._replace_states(position)
        self._last, self._known, self._last_error = update.order, None, ""
        self._acked = min(self._acked, update.order)
        self.needs_resync = False

    def _put_state(self, update: SessionUpdate) -> None:
        """Queue a state: as a patch or an update if it directly follows the last one, otherwise as a whole."""
        kind = Outgoing.STATE_SYNC
        if update.event:
            epoch, version = self._last
            if update.order == (epoch, version + 1):
                kind = Outgoing.STATE_PATCH if self.patches and update.patch else Outgoing.STATE_UPDATE
            elif update.order[1] == 1:
                kind = Outgoing.STATE_UPDATE  # an epoch's first version has no predecessor to patch
        self._add(QueuedItem(kind, update))
        self._last, self._last_error = update.order, ""
        if len(self._items) > 1 and self._is_full():
            self.skipped += self._replace_states([QueuedItem(Outgoing.STATE_SYNC, update)]) - 1

    def _is_full(self) -> bool:
        return len(self._items) > MAX_FRAMES or sum(len(item.frame) for item in self._items) > self.max_bytes

    def _replace_states(self, items: list[QueuedItem]) -> int:
        """Replace all queued states by these items, ahead of the answers queued behind the first state.

        Return how many states there were.
        """
        first = next((i for i, item in enumerate(self._items) if item.kind in _STATES), len(self._items))
        dropped, answers = 0, []
        kept = list(self._items[:first])
        for item in self._items[first:]:
            if item.kind in _STATES:
                dropped += 1
            elif isinstance(item.update, QueuedAnswer):
                answers.append(item)
            else:
                kept.append(item)
        self._items = [*kept, *items, *answers]
        return dropped

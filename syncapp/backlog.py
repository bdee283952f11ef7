"""What one client is still to be told: in order, none twice, and never more than it may hold up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from syncapp.errors import SessionNotFound, StoreUnavailable
from syncapp.protocol import Told
from syncapp.topics import NEVER, Order, Update

MOST_BYTES = 262_144
MOST_FRAMES = 64
_STATES = (Told.STATE_UPDATE, Told.STATE_PATCH, Told.STATE_SYNC)


class Item(NamedTuple):
    """A message to be sent."""

    kind: Told
    update: Update

    @property
    def frame(self) -> bytes:
        """The message as a frame, the same bytes for all clients."""
        return self.update.frame(self.kind)


class Backlog:
    """Bounded: when too much waits, all states that wait give way to the newest one. Not locked.

    The client waits to be told where it stands, at first and after each `expect`: a claim is what it says that
    it knows. patches: it wants patches instead of states. is_ended: the session was deleted, and nothing comes
    after what is in here. skipped: how many versions were left out.
    """

    __slots__ = ("_claim", "_items", "_last", "_patches", "_told", "is_ended", "skipped")

    def __init__(self, claim: Order = NEVER, *, patches: bool = False) -> None:
        self._items: list[Item] = []  # an empty deque is 0.7 kB, for each connection
        self._claim: Order | None = claim
        self._last = NEVER
        self._patches = patches
        self._told = ""
        self.is_ended = False
        self.skipped = 0

    def __len__(self) -> int:
        return len(self._items)

    def expect(self, claim: Order) -> None:
        """Tell the client where it stands, with the next update; and the state, unless it is this one."""
        self._claim, self._told = claim, ""

    def put(self, update: Update) -> None:
        """Add what the client is to be told of an update."""
        if self.is_ended:
            return
        if update.error:
            if update.error.code != self._told:  # once for each outage
                self._told = update.error.code
                self._items.append(Item(Told.ERROR, update))
            if isinstance(update.error, SessionNotFound):
                self._claim = None  # that was the answer
            elif isinstance(update.error, StoreUnavailable) and self._claim is None:
                self._claim = self._last  # it is told when that is over
        elif update.session is None:
            self._items.append(Item(Told.SESSION_DELETED, update))
            self.is_ended = True
        elif self._claim is not None:
            # Who knows of more than this process does waits until the store was asked.
            if update.order >= self._claim or update.went_back:
                self._put_answer(update, self._claim)
        elif update.order > self._last or update.went_back:
            self._put_state(update)

    def passes(self, update: Update) -> Told | None:
        """Return as what an update may be sent without waiting in here; None when it has to be `put`."""
        epoch, version = self._last
        if self._items or self._claim is not None or self.is_ended or update.order != (epoch, version + 1):
            return None
        if update.event is None or update.session is None:
            return None
        return Told.STATE_PATCH if self._patches and update.patch else Told.STATE_UPDATE

    def passed(self, update: Update) -> None:
        """Note that an update was sent without waiting in here."""
        self._last, self._told = update.order, ""

    @property
    def first(self) -> Item | None:
        """The next message."""
        return self._items[0] if self._items else None

    @property
    def waiting(self) -> Sequence[Item]:
        """All messages, in order."""
        return self._items

    def take(self) -> Item | None:
        """Take the next message, None when there is nothing to tell."""
        return self._items.pop(0) if self._items else None

    def clear(self) -> None:
        """Forget what was to be told."""
        self._items.clear()

    def _put_answer(self, update: Update, claim: Order) -> None:
        self._drop_states()
        self._items.append(Item(Told.CONNECTED, update))
        if claim != update.order:
            self._items.append(Item(Told.STATE_SYNC, update))
        self._last, self._claim, self._told = update.order, None, ""

    def _put_state(self, update: Update) -> None:
        """Add a state: as a patch or an update if it follows on the one before, else as a whole."""
        kind = Told.STATE_SYNC
        if update.event:
            epoch, version = self._last
            if update.order == (epoch, version + 1):
                kind = Told.STATE_PATCH if self._patches and update.patch else Told.STATE_UPDATE
            elif update.order[1] == 1:
                kind = Told.STATE_UPDATE  # there is nothing that it could patch
        self._items.append(Item(kind, update))
        self._last, self._told = update.order, ""
        if len(self._items) > 1 and self._is_full():
            self.skipped += self._drop_states() - 1
            self._items.append(Item(Told.STATE_SYNC, update))

    def _is_full(self) -> bool:
        return len(self._items) > MOST_FRAMES or sum(len(item.frame) for item in self._items) > MOST_BYTES

    def _drop_states(self) -> int:
        """Take states out; returns how many."""
        kept = [item for item in self._items if item.kind not in _STATES]
        dropped = len(self._items) - len(kept)
        self._items = kept
        return dropped

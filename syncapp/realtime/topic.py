"""A watched session as this process knows it: a copy that messages are folded into, and what watchers are told.

Nothing in here waits, reads a clock or locks; the hub does. An order is (epoch, version).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, Protocol

import orjson
import structlog

from syncapp.domain.order import NEVER, Order
from syncapp.domain.session import TERMINAL, Session, patch_of, public_patch
from syncapp.errors import SessionNotFound, SyncError
from syncapp.realtime import protocol
from syncapp.realtime.protocol import Outgoing

log = structlog.get_logger(__name__)

_FRESH_MS = 50
_EARLY = 128


class SessionUpdate:
    """What a watcher is told: a state, with the event that led to it; a session's end; or why there is no state.

    order: (epoch, version) it is about. patch: what its commit changed, as published. went_back: it is older than
    what was known, or said to be, and yet true: the store has lost commits. payload, frame: a message about it as
    JSON and as a WebSocket frame, encoded once for all watchers.
    """

    __slots__ = (
        "_frames", "_payloads", "_state", "at_ms", "error", "event", "order", "patch", "session", "session_id",
        "went_back",
    )  # fmt: skip

    def __init__(
        self,
        session_id: str,
        at_ms: int,
        *,
        order: Order = NEVER,
        session: Session | None = None,
        event: Mapping[str, Any] | None = None,
        patch: Mapping[str, Any] | None = None,
        error: SyncError | None = None,
        went_back: bool = False,
    ) -> None:
        self.session_id = session_id
        self.at_ms = max(at_ms, session.updated_ms) if session else at_ms
        self.order = session.order if session else order
        self.session = session
        self.event = event
        self.patch = patch
        self.error = error
        self.went_back = went_back
        self._state: orjson.Fragment | None = None
        self._payloads: dict[Outgoing, bytes] = {}
        self._frames: dict[Outgoing, bytes] = {}

    @property
    def kind(self) -> Outgoing:
        """The message that tells it best to someone who was told of everything before."""
        if self.error:
            return Outgoing.ERROR
        if self.session is None:
            return Outgoing.SESSION_DELETED
        return Outgoing.STATE_UPDATE if self.event else Outgoing.STATE_SYNC

    def frame(self, kind: Outgoing) -> bytes:
        """Return the message of a kind as a frame."""
        found = self._frames.get(kind)
        if found is None:
            found = self._frames[kind] = protocol.text_frame(self.payload(kind))
        return found

    def payload(self, kind: Outgoing) -> bytes:
        """Return the message of a kind as JSON."""
        found = self._payloads.get(kind)
        if found is None:
            found = self._payloads[kind] = self._encode(kind)
        return found

    def _encode(self, kind: Outgoing) -> bytes:
        if self.error and kind is Outgoing.ERROR:
            return protocol.error(self.session_id, self.at_ms, self.error)
        fields: dict[str, Any] = {}
        if kind is not Outgoing.STATE_SYNC:
            epoch, version = (None, None) if self.error else self.order  # there is no session
            fields |= {"epoch": epoch, "version": version}
        if kind in (Outgoing.STATE_UPDATE, Outgoing.STATE_PATCH, Outgoing.SESSION_DELETED):
            fields["event"] = self.event
        if self.session and kind is Outgoing.STATE_PATCH:
            fields |= {"patch": public_patch(self.patch or {}), "clock": self.session.clock(self.at_ms)}
        if self.session and kind in (Outgoing.STATE_SYNC, Outgoing.STATE_UPDATE):
            if self._state is None:
                self._state = orjson.Fragment(orjson.dumps(self.session.state(self.at_ms)))
            fields["state"] = self._state
        return protocol.message(kind, self.session_id, self.at_ms, fields)


def patch_between(patch: Mapping[str, Any], before: Session | None, after: Session) -> Mapping[str, Any]:
    """Return a commit's patch as it is sent to watchers: with the idle end, if there is or was one."""
    if before and before.idle_ms is None and after.idle_ms is None:
        return patch
    return {**patch, "idle_ms": after.idle_ms}


class Watcher(Protocol):
    """Who is told."""

    def offer(self, update: SessionUpdate) -> None:
        """Take note of an update: at once, without waiting for anything, and without calling the hub."""


class Topic:
    """A watched session.

    order: the newest known, of a session that was deleted too. current: what is held, or that there is no
    session, is so in Redis too, but for messages on their way. waiting: who has asked and was not answered,
    with the order it says it knows. generation counts subscriptions and their losses.
    """

    __slots__ = (
        "_early", "_held", "_shown", "channel", "current", "failures", "generation", "order", "reading",
        "session_id", "subscribed", "waiting", "watchers",
    )  # fmt: skip

    def __init__(self, session_id: str, channel: str) -> None:
        self.session_id = session_id
        self.channel = channel
        self.watchers: dict[Watcher, None] = {}
        self.waiting: dict[Watcher, Order] = {}
        self.order = NEVER
        self.subscribed = self.current = self.reading = False
        self.generation = self.failures = 0
        self._held: Session | None = None
        self._shown: SessionUpdate | None = None
        self._early: deque[Mapping[str, Any]] = deque(maxlen=_EARLY)

    @property
    def session(self) -> Session | None:
        """The cached session; None if there is none, or it has not been read yet."""
        return self._held

    def lost(self) -> None:
        """Note that messages may be missed from now on."""
        self.subscribed = self.current = False
        self.generation += 1

    def confirmed(self) -> None:
        """Note that messages arrive from now on; what is held may be old."""
        self.subscribed, self.current = True, False
        self.generation += 1

    def is_due(self, now_ms: int, kept_ms: int) -> bool:
        """Tell whether something has happened by itself that nobody has told of: a read shows what.

        A deadline has passed; or the session ended so long ago, `kept_ms`, that Redis has dropped it.
        """
        if not self._held:
            return False
        if self._held.status in TERMINAL:
            return now_ms > self._held.updated_ms + kept_ms
        deadline_ms: int | None = self._held.clock(now_ms)["deadline_ms"]
        return deadline_ms is not None and now_ms >= deadline_ms

    def contradicts(self, before: Order, found: Order | None) -> bool:
        """Tell whether the store's order, None for no session, shows that something was missed.

        before: the order known when the store was asked.
        """
        if not self.current:
            return False
        if found is None:
            return self._held is not None and self.order == before
        return found > self.order or found < before == self.order

    def shown(self, now_ms: int) -> SessionUpdate:
        """Return what is now; those who come within moments of each other are shown the same bytes."""
        if self._held is None:
            return self.failure(now_ms, SessionNotFound("there is no such session; if one is made, its state follows"))
        if self._shown is None or self._shown.order != self.order or now_ms - self._shown.at_ms > _FRESH_MS:
            self._shown = SessionUpdate(self.session_id, now_ms, session=self._held)
        return self._shown

    def shown_to_doubters(self, now_ms: int) -> SessionUpdate:
        """Return what is now for those who say that they know of something later, when the store does not."""
        if self._held is None:
            return self.shown(now_ms)
        return SessionUpdate(self.session_id, now_ms, session=self._held, went_back=True)

    def failure(self, now_ms: int, error: SyncError) -> SessionUpdate:
        """Return the update that tells of an error."""
        return SessionUpdate(self.session_id, now_ms, error=error)

    def take(self, message: Mapping[str, Any], now_ms: int) -> SessionUpdate | None:
        """Take the message of a commit; returns what to tell all watchers.

        A message that does not follow on what is held makes the topic not current: it is kept until a read.
        """
        order = (message["epoch"], message["version"])
        if order <= self.order:
            return None
        if self.current:
            event = message["event"]
            if message["status"] == "deleted":
                self._hold(None, order)
                return SessionUpdate(self.session_id, now_ms, order=order, event=event)
            session = self._after(message, order)
            if session:
                patch = patch_between(patch_of(message)[0], self._held, session)
                self._hold(session, order)
                return SessionUpdate(self.session_id, now_ms, session=session, event=event, patch=patch)
            self.current = False
        self._early.append(message)
        return None

    def found(self, session: Session | None, before: Order, now_ms: int) -> SessionUpdate | None:
        """Take what a read found, None for nothing; returns what to tell all watchers.

        before: the order known when the read began. What was learned since is newer than a read that differs.
        """
        if session and session.order > self.order:
            self._hold(session, session.order)
            return SessionUpdate(self.session_id, now_ms, session=session)
        if session and session.order < self.order == before:
            log.warning("the store went back", session_id=self.session_id, known=before, found=session.order)
            self._hold(session, session.order)
            return SessionUpdate(self.session_id, now_ms, session=session, went_back=True)
        if session is None and self.order == before and self._held:
            self._hold(None, self.order)
            return self.shown(now_ms)
        return None

    def take_early(self, now_ms: int) -> list[SessionUpdate]:
        """Take the messages that came during a read."""
        early, self._early = self._early, deque(maxlen=_EARLY)
        return [update for message in early if (update := self.take(message, now_ms))]

    def _hold(self, session: Session | None, order: Order) -> None:
        self._held, self.order, self._shown = session, order, None

    def _after(self, message: Mapping[str, Any], order: Order) -> Session | None:
        """Return the session after a message, or None when the message alone does not tell."""
        try:
            if self._held and order == (self._held.epoch, self._held.version + 1):
                return self._held.fold(*patch_of(message))
            if "snapshot" in message:
                return Session.from_snapshot(self.session_id, message["snapshot"])
        except Exception:  # a later release may send what this one can't fold: it is read instead
            log.exception("a message does not fit", session_id=self.session_id, order=order)
        return None

"""A watched session as this process knows it: a copy that messages are applied to, and the updates for its watchers.

Nothing in this module waits, reads a clock or takes a lock; the hub does. An order is (epoch, version).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import orjson
import structlog

from syncapp.domain.patches import patch_of, public_patch
from syncapp.domain.session import TERMINAL, Session
from syncapp.domain.version_order import NEVER, Order
from syncapp.errors import SessionNotFound, SyncError
from syncapp.realtime import protocol
from syncapp.realtime.frames import text_frame
from syncapp.realtime.protocol import Outgoing

log = structlog.get_logger(__name__)

_SHARED_MS = 50
"""For this long, all watchers that ask for a state get the same bytes, with the clock computed once."""
_MAX_EARLY_MESSAGES = 128


class SessionUpdate:
    """An update for watchers: a state, with the event that led to it; a delete; or the reason why there is no state.

    order: the (epoch, version) of the state or the delete. patch: what its commit changed, as published. went_back:
    this current state is older than the one that was known or claimed, because the store has lost commits. request_id:
    of the request that caused it, if it comes from a commit's message. payload and frame: a message about the update as
    JSON and as a WebSocket frame, encoded once for all watchers.
    """

    __slots__ = (
        "_frames", "_payloads", "_state", "at_ms", "error", "event", "order", "patch", "request_id", "session",
        "session_id", "went_back",
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
        request_id: str = "",
    ) -> None:
        self.session_id = session_id
        self.at_ms = max(at_ms, session.updated_ms) if session else at_ms
        self.order = session.order if session else order
        self.session = session
        self.event = event
        self.patch = patch
        self.error = error
        self.went_back = went_back
        self.request_id = request_id
        self._state: orjson.Fragment | None = None
        self._payloads: dict[Outgoing, bytes] = {}
        self._frames: dict[Outgoing, bytes] = {}

    @property
    def kind(self) -> Outgoing:
        """The type of message for a client that has received all earlier updates."""
        if self.error:
            return Outgoing.ERROR
        if self.session is None:
            return Outgoing.SESSION_DELETED
        return Outgoing.STATE_UPDATE if self.event else Outgoing.STATE_SYNC

    def frame(self, kind: Outgoing) -> bytes:
        """Return the message of this type as a frame."""
        found = self._frames.get(kind)
        if found is None:
            found = self._frames[kind] = text_frame(self.payload(kind))
        return found

    def payload(self, kind: Outgoing) -> bytes:
        """Return the message of this type as JSON."""
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
    """Return a commit's patch as it is sent to clients: with `idle_ms` if the state has one now or had one before."""
    if before and before.idle_ms is None and after.idle_ms is None:
        return patch
    return {**patch, "idle_ms": after.idle_ms}


class Watcher(Protocol):
    """Receives the updates of sessions."""

    def offer(self, update: SessionUpdate) -> None:
        """Take an update. Must not wait for anything or call the hub: the hub's lock is held."""


class Topic:
    """A watched session.

    order: the newest known one; it stays when the session is deleted. current: the copy, or the fact that there is no
    session, matches the store, except for messages that have not arrived yet. waiting: watchers that are owed an
    answer, with the order that they say they know. generation: counts confirmed and lost subscriptions. reading: a read
    is requested or running. failures: reads that have failed in a row.
    """

    __slots__ = (
        "_early_messages",
        "_session",
        "_shared",
        "channel",
        "current",
        "failures",
        "generation",
        "order",
        "reading",
        "session_id",
        "subscribed",
        "waiting",
        "watchers",
    )  # fmt: skip

    def __init__(self, session_id: str, channel: str) -> None:
        self.session_id = session_id
        self.channel = channel
        self.watchers: dict[Watcher, None] = {}
        self.waiting: dict[Watcher, Order] = {}
        self.order = NEVER
        self.subscribed = self.current = self.reading = False
        self.generation = self.failures = 0
        self._session: Session | None = None
        self._shared: SessionUpdate | None = None
        self._early_messages: Sequence[Mapping[str, Any]] = ()

    @property
    def session(self) -> Session | None:
        """The copy of the session; None if the session does not exist or has not been read yet."""
        return self._session

    def offer(self, watchers: Iterable[Watcher], update: SessionUpdate) -> None:
        """Offer an update to watchers; if one of them fails, the others still get it."""
        for watcher in watchers:
            try:
                watcher.offer(update)
            except Exception:
                log.exception("a watcher failed", session_id=self.session_id)

    def mark_lost(self) -> None:
        """Note that the subscription was lost: messages may be missed from now on."""
        self.subscribed = self.current = False
        self.generation += 1

    def mark_subscribed(self) -> None:
        """Note that the subscription is confirmed: messages arrive from now on, but the copy may be old."""
        self.subscribed, self.current = True, False
        self.generation += 1

    def is_due(self, now_ms: int, ttl_ms: int) -> bool:
        """Tell whether the session must have changed without a message, so that it has to be read.

        Its deadline has passed, or it ended more than `ttl_ms` ago and the store has deleted it.
        """
        if not self._session:
            return False
        if self._session.status in TERMINAL:
            return now_ms > self._session.updated_ms + ttl_ms
        deadline_ms: int | None = self._session.clock(now_ms)["deadline_ms"]
        return deadline_ms is not None and now_ms >= deadline_ms

    def contradicts(self, before: Order, found: Order | None) -> bool:
        """Tell whether the order found in the store, None for no session, shows that a message was missed.

        before: the order that was known when the store was asked.
        """
        if not self.current:
            return False
        if found is None:
            return self._session is not None and self.order == before
        return found > self.order or found < before == self.order

    def current_state(self, now_ms: int) -> SessionUpdate:
        """Return the current state, or that there is no session; within 50 ms everybody gets the same bytes."""
        if self._session is None:
            return self.error_update(now_ms, SessionNotFound("no such session; if it is created, its state follows"))
        if self._shared is None or self._shared.order != self.order or now_ms - self._shared.at_ms > _SHARED_MS:
            self._shared = SessionUpdate(self.session_id, now_ms, session=self._session)
        return self._shared

    def corrected_state(self, now_ms: int) -> SessionUpdate:
        """Return the current state for watchers that claim a later version, which the store does not have."""
        if self._session is None:
            return self.current_state(now_ms)
        return SessionUpdate(self.session_id, now_ms, session=self._session, went_back=True)

    def error_update(self, now_ms: int, error: SyncError) -> SessionUpdate:
        """Return an update that reports an error."""
        return SessionUpdate(self.session_id, now_ms, error=error)

    def apply(self, message: Mapping[str, Any], now_ms: int) -> SessionUpdate | None:
        """Apply the message of a commit; return the update for all watchers, None if there is none (yet).

        A message that cannot be applied to the copy makes the topic not current, and is kept until the next read.
        """
        order = (message["epoch"], message["version"])
        if order <= self.order:
            return None
        if self.current:
            event = message["event"]
            if message["status"] == "deleted":
                self._replace(None, order)
                return SessionUpdate(self.session_id, now_ms, order=order, event=event)
            session = self._session_after(message, order)
            if session:
                patch = patch_between(patch_of(message)[0], self._session, session)
                self._replace(session, order)
                request_id = message.get("request_id") or ""
                return SessionUpdate(
                    self.session_id, now_ms, session=session, event=event, patch=patch, request_id=request_id
                )
            self.current = False
        self._early_messages = [*self._early_messages, message][-_MAX_EARLY_MESSAGES:]
        return None

    def apply_read(self, session: Session | None, before: Order, now_ms: int) -> SessionUpdate | None:
        """Apply what a read found, None for no session; return the update for all watchers, None if nothing changed.

        before: the order that was known when the read began. If it has changed since, the messages are newer than the
        read.
        """
        if session and session.order > self.order:
            self._replace(session, session.order)
            return SessionUpdate(self.session_id, now_ms, session=session)
        if session and session.order < self.order == before:
            log.warning("the store went back", session_id=self.session_id, known=before, found=session.order)
            self._replace(session, session.order)
            return SessionUpdate(self.session_id, now_ms, session=session, went_back=True)
        if session is None and self.order == before and self._session:
            self._replace(None, self.order)
            return self.current_state(now_ms)
        return None

    def apply_early(self, now_ms: int) -> list[SessionUpdate]:
        """Apply the messages that arrived while the topic was not current; it may not be current afterwards.

        If the read has found no session and they have one, it was created after the read, or it was deleted before and
        that message was lost: another read has to tell.
        """
        early, self._early_messages = self._early_messages, ()
        had_session = self._session is not None
        updates = [update for message in early if (update := self.apply(message, now_ms))]
        if self._session is not None and not had_session:
            self.current = False
        return updates

    def _replace(self, session: Session | None, order: Order) -> None:
        self._session, self.order, self._shared = session, order, None

    def _session_after(self, message: Mapping[str, Any], order: Order) -> Session | None:
        """Return the session after a message, or None if it cannot be computed from the copy and the message."""
        try:
            if self._session and order == (self._session.epoch, self._session.version + 1):
                return self._session.fold(*patch_of(message))
            if "snapshot" in message:
                return Session.from_snapshot(self.session_id, message["snapshot"])
        except Exception:  # a later release may send messages that this one cannot apply: the session is read instead
            log.exception("a message does not fit", session_id=self.session_id, order=order)
        return None

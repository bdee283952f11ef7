"""What a client's messages do on its WebSocket: `Connection` is the one implementation, split off for its length."""

from __future__ import annotations

import os
from functools import partial
from typing import Any

import structlog

from syncapp.domain.principal import ANYONE
from syncapp.domain.session_ids import public_id, qualified
from syncapp.domain.version_order import NEVER
from syncapp.errors import Forbidden, SyncError, TooManyConnections, Unauthorized, ValidationFailed
from syncapp.metrics import RECEIVED
from syncapp.realtime import frames, protocol
from syncapp.realtime.protocol import (
    Auth,
    Close,
    Command,
    Message,
    Outgoing,
    Ping,
    Reconnect,
    Subscribe,
    Unsubscribe,
)
from syncapp.realtime.topic import SessionUpdate
from syncapp.server.authentication import Access
from syncapp.server.command_queue import CommandQueue
from syncapp.server.command_runner import Backend, CommandRunner
from syncapp.server.connection_loop import Stepped
from syncapp.server.round_trips import RoundTrips
from syncapp.server.subscriptions import Subscriptions
from syncapp.server.writer import Writer

log = structlog.get_logger(__name__)


class MessageHandler(Stepped):
    """Handles the messages of one client, in the steps of its connection.

    Clients name sessions by public ids. From here on, ids are qualified with the tenant of the client's token.
    """

    __slots__ = (
        "_access", "_address", "_backend", "_commands", "_fault", "_id", "_received", "_round_trips", "_session_id",
        "_subscriptions", "_writer",
    )  # fmt: skip

    _writer: Writer

    def __init__(self, backend: Backend, access: Access, session_id: str, address: str, opened_s: float) -> None:
        super().__init__()
        self._backend = backend
        self._access = access
        self._session_id = session_id
        self._address = address
        self._id = os.urandom(6).hex()
        self._round_trips = RoundTrips(opened_s)
        self._subscriptions: Subscriptions | None = None
        self._commands: CommandQueue | None = None
        self._fault: tuple[Close, str] | None = None
        self._received = 0

    def command_finished(self) -> None:
        """Take another command, or end."""
        raise NotImplementedError

    def offer(self, update: SessionUpdate) -> None:
        """Send the client an update, on any greenlet."""
        if self._access.epoch is None or self._access.admits(update.order):
            self._writer.offer(update)

    def _handle(self, message: str) -> None:
        """Handle one message of the client."""
        self._received += 1
        session_id = self._session_id
        try:
            asked = protocol.parse(message)
            session_id = self._session_of(asked)
            self._dispatch(asked, session_id)
        except SyncError as fault:
            RECEIVED.add("refused")
            self._writer.send_now(Outgoing.ERROR, self._error(fault, protocol.echo_of(message), session_id))

    def _session_of(self, asked: Message) -> str:
        """Return the session that a message means, with its qualified id; '' for none."""
        named = None if isinstance(asked, Ping | Auth) else asked.session_id
        if not named:
            return self._session_id
        principal = self._access.principal
        return qualified(principal.tenant, named) if principal else named

    def _dispatch(self, asked: Message, session_id: str) -> None:
        RECEIVED.add(asked.type)
        if isinstance(asked, Ping):
            given = {"t0": asked.t0, "client_timestamp": asked.timestamp}
            self._send(Outgoing.PONG, self._session_id, given, first=True)
            return
        if isinstance(asked, Auth):
            self._authenticate(asked)
            return
        if self._access.principal is None or isinstance(asked, Reconnect):  # `SUBSCRIBE` is one, too
            self._access.check("watch", public_id(session_id))
        is_watched = session_id in self._writer.sessions
        if isinstance(asked, Unsubscribe):
            if is_watched:
                self._get_subscriptions().remove(session_id)
            self._send(Outgoing.UNSUBSCRIBED, session_id, {"id": asked.id})
        elif isinstance(asked, Subscribe) and not is_watched:
            confirm = partial(self._send, Outgoing.SUBSCRIBED, session_id, {"id": asked.id})
            self._get_subscriptions().add(session_id, asked.known(), confirm)
        elif not is_watched:
            if not session_id:
                raise ValidationFailed.of(
                    "session_id", "is required: this connection was opened without a session", "missing"
                )
            raise ValidationFailed.of("session_id", "is not watched by this connection", "not_subscribed")
        elif isinstance(asked, Command):
            self._get_commands().put(asked, self._access.principal or ANYONE)
            self._round_trips.refresh()
        else:
            self._send_position(asked, session_id)

    def _send_position(self, asked: Reconnect, session_id: str) -> None:
        """Send the current position of a session that the client watches already, and the state unless it has it."""
        known = self._writer.restart(session_id, asked.known())
        if isinstance(asked, Subscribe):
            self._send(Outgoing.SUBSCRIBED, session_id, {"id": asked.id})
        self._backend.hub.resend(session_id, self, known or NEVER)

    def _authenticate(self, asked: Auth) -> None:
        """Take a token: the first one, after which the session of the URL is watched, or one that renews it."""
        access = self._access
        try:
            principal = access.authenticate(asked.token)
        except Unauthorized:
            if access.has_failed:
                self._fault = (Close.UNAUTHORIZED, "too many bad tokens")
            raise
        first = access.take_asked()
        begins = first.session_id if first else ""
        try:
            for session_id in [begins] if begins else map(public_id, self._writer.sessions):
                access.check("watch", session_id)
        except Forbidden as forbidden:
            self._fault = (Close.FORBIDDEN, forbidden.message)
            raise
        if begins:
            self._get_subscriptions()  # made before the connection has a session: this one is not counted with it
            self._session_id = qualified(principal.tenant, begins)
        if first:
            self._log_opened()
        expires_ms = None if principal.expires_s is None else principal.expires_s * 1000
        given = {"id": asked.id, "expires_at_ms": expires_ms, "sub": principal.sub}
        self._send(Outgoing.AUTHENTICATED, self._session_id, given)
        if first and begins:
            try:
                self._get_subscriptions().add_own(self._session_id, first.known)
            except TooManyConnections as full:
                self._writer.send_now(Outgoing.ERROR, self._error(full, None, self._session_id))

    def _log_opened(self) -> None:
        log.info("websocket opened", session_id=self._session_id, address=self._address, connection=self._id)

    def _get_commands(self) -> CommandQueue:
        if self._commands is None:
            backend = self._backend
            runner = CommandRunner(
                backend,
                self._writer,
                self._access,
                self._round_trips,
                self._session_id,
                self._address,
                self._id,
                self,
            )
            self._commands = CommandQueue(backend.command_pool, backend.settings.redis_timeout_s, runner)
        return self._commands

    def _get_subscriptions(self) -> Subscriptions:
        if self._subscriptions is None:
            self._subscriptions = Subscriptions(self._backend, self._writer, self, self._session_id, self._id)
        return self._subscriptions

    def _send(self, kind: Outgoing, session_id: str, fields: dict[str, Any], *, first: bool = False) -> None:
        given = {name: value for name, value in fields.items() if value is not None or kind is Outgoing.CONNECTED}
        payload = protocol.message(kind, session_id or None, self._now_ms(), given)
        self._writer.send_now(kind, frames.text_frame(payload), first=first)

    def _now_ms(self) -> int:
        return self._backend.hub.clock.now_ms()

    def _error(self, fault: SyncError, echo: str | int | None, session_id: str) -> bytes:
        return frames.text_frame(protocol.error(session_id or None, self._now_ms(), fault, echo))

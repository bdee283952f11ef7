"""Runs the commands of one connection and answers them."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Protocol

import structlog

from syncapp.access.permissions import check, narrowed
from syncapp.access.rate_limits import RateLimits
from syncapp.config import Settings
from syncapp.domain.commands import COMMANDS
from syncapp.domain.principal import Principal
from syncapp.domain.results import Result
from syncapp.domain.session_ids import public_id, qualified
from syncapp.domain.version_order import NEVER, Order
from syncapp.errors import InternalError, SyncError
from syncapp.metrics import COMMANDS_ANSWERED
from syncapp.realtime import protocol
from syncapp.realtime.frames import text_frame
from syncapp.realtime.hub import Hub
from syncapp.realtime.protocol import Command, Outgoing
from syncapp.realtime.send_queue import AFTER_DELETE, MAX_HOLD_S, QueuedAnswer
from syncapp.server.admission import ConnectionQuotas
from syncapp.server.authentication import Access, Gate
from syncapp.server.command_queue import CommandPool
from syncapp.server.connection_loop import ConnectionLoop
from syncapp.server.round_trips import RoundTrips
from syncapp.server.shutdown import Shutdown
from syncapp.server.writer import Writer
from syncapp.store.sessions import SessionStore

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Backend:
    """The services that connections use."""

    settings: Settings
    store: SessionStore
    hub: Hub
    command_pool: CommandPool
    limits: RateLimits
    quotas: ConnectionQuotas
    gate: Gate
    shutdown: Shutdown
    loop: ConnectionLoop


class CommandClient(Protocol):
    """The connection whose commands run."""

    def command_finished(self) -> None:
        """Take another command, or end."""


class CommandRunner:
    """The owner of a command queue (`syncapp.server.command_queue`); created with a connection's first command.

    access: what the client may do when a command runs. round_trips: limit the compensation for lag. own: the session of
    commands that name none. client: is told when a command has finished.
    """

    __slots__ = ("_access", "_address", "_backend", "_client", "_count", "_id", "_own", "_round_trips", "_writer")

    def __init__(
        self,
        backend: Backend,
        writer: Writer,
        access: Access,
        round_trips: RoundTrips,
        own: str,
        address: str,
        connection_id: str,
        client: CommandClient,
    ) -> None:
        self._backend = backend
        self._writer = writer
        self._access = access
        self._round_trips = round_trips
        self._own = own
        self._address = address
        self._id = connection_id
        self._client = client
        self._count = 0

    @property
    def accepts_answers(self) -> bool:
        """Whether the client reads its answers."""
        return not self._writer.is_full

    def run(self, command: Command, principal: Principal) -> SyncError | None:
        """Run a command of a principal and answer it; return why it was refused, if it was."""
        self._count += 1
        request_id = f"{self._id}.{self._count}"
        session_id = self._session_of(command)
        if not self._backend.settings.redis_min_replicas:  # otherwise the answer waits for replicas, and news must not
            self._writer.running = request_id
        try:
            self._access.check_valid()
            check(principal, command.command, public_id(session_id))
            body = narrowed(principal, command.command, command.body(session_id))
            backend = self._backend
            claim = command.claim(request_id, principal, self._round_trips.lag_limit_ms)
            with backend.limits.charge(self._address, command.command, session_id, body, claim) as charge:
                result = charge.settle(COMMANDS[command.command].run(backend.store, session_id, body, charge.claim))
        except SyncError as fault:
            self.refuse(command, fault)
            return fault
        except Exception:
            log.exception("a command failed", request_id=request_id, command=command.command)
            self.refuse(command, InternalError("something went wrong on our side", {"request_id": request_id}))
        else:
            COMMANDS_ANSWERED.add(command.command, Outgoing.ACK)
            ack = protocol.ack(session_id, self._now_ms(), command.id, result)
            self._answer(session_id, Outgoing.ACK, ack, _order_of(result), result)
        finally:
            self._writer.running = ""
        return None

    def refuse(self, command: Command, fault: SyncError) -> None:
        """Answer a command that was refused, or whose outcome is unknown."""
        COMMANDS_ANSWERED.add(command.command, fault.code)
        current = fault.details.get("current") if isinstance(fault.details, dict) else None
        order = (current["epoch"], current["version"]) if current else NEVER
        session_id = self._session_of(command)
        self._answer(session_id, Outgoing.ERROR, protocol.error(session_id, self._now_ms(), fault, command.id), order)

    def command_finished(self) -> None:
        """Let the connection take another command, or end."""
        self._client.command_finished()

    def _session_of(self, command: Command) -> str:
        principal = self._access.principal
        if command.session_id is None or principal is None:
            return self._own
        return qualified(principal.tenant, command.session_id)

    def _answer(self, session_id: str, kind: Outgoing, text: bytes, order: Order, result: Result | None = None) -> None:
        answer = QueuedAnswer(text_frame(text), order, time.monotonic() + MAX_HOLD_S, result)
        self._writer.answer(session_id, kind, answer)

    def _now_ms(self) -> int:
        return self._backend.hub.clock.now_ms()


def _order_of(result: Result) -> Order:
    """Return the order of the update that comes before the answer: the version after the command, or the delete."""
    if result.order:
        return result.order
    return AFTER_DELETE if result.event_json and not result.replayed else NEVER

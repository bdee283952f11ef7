"""A store with the limits in front of it, as REST, WebSockets and batches use them."""

from __future__ import annotations

from typing import Any

from syncapp.access.rate_limits import RateLimits
from syncapp.domain.commands import COMMANDS
from syncapp.domain.principal import Principal
from syncapp.domain.results import Claim, Result
from syncapp.domain.schemas import CreateSession
from syncapp.store.sessions import SessionStore
from tests.support.store import make_settings, make_store

ADA, BEN, EVE = Principal(sub="ada"), Principal(sub="ben"), Principal(sub="ada", tenant="acme")
ROUNDS = CreateSession.parse({"sync_mode": "per_cycle", "time_per_cycle_ms": 1000, "participants": [
    {"participant_id": "white"}, {"participant_id": "black"},
]})  # fmt: skip


class Service:
    """The commands of principals; several services share a server."""

    def __init__(self, redis_url: str, *, set_clock: bool = True, **changes: Any) -> None:
        self.store: SessionStore = make_store(redis_url, set_clock=set_clock, **changes)
        self.limits = RateLimits(make_settings(redis_url, **changes), self.store.cached, self.store.read)

    def run(
        self, command: str, session_id: str, principal: Principal = ADA, key: str | None = None, **body: Any
    ) -> Result:
        """Run a command on a session."""
        known = COMMANDS[command]
        return self.send(command, session_id, known.body.parse(body), Claim(idempotency_key=key, principal=principal))

    def create(self, new: CreateSession, principal: Principal = ADA, key: str | None = None) -> str:
        """Create a session, and return its id."""
        return self.send("create", "", new, Claim(idempotency_key=key, principal=principal)).found.session_id

    def send(self, command: str, session_id: str, body: Any, claim: Claim) -> Result:
        """Run a command with a parsed body and a claim."""
        with self.limits.charge("203.0.113.7", command, session_id, body, claim) as charge:
            return charge.settle(COMMANDS[command].run(self.store, session_id, body, charge.claim))

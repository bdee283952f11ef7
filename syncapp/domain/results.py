"""Inputs and results of commands, as values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import orjson
from msgspec import Struct

from syncapp.domain.principal import ANYONE, Principal
from syncapp.domain.session import Session


class Costs(Struct, frozen=True):
    """What a command uses of the quotas.

    creates: sessions that it creates; size: bytes that it adds to the store; commits: commits that its session may make
    by itself within an hour.
    """

    creates: int = 0
    size: int = 0
    commits: float = 0


NO_COSTS = Costs()


class Claim(Struct, frozen=True):
    """The preconditions and the identity of a command.

    expected_epoch, expected_version: if given, a session at any other is not changed (compare-and-set).
    idempotency_key: 1-128 visible characters; a command with the key of an earlier one is a replay and changes nothing.
    request_id: recorded in the audit log; letters, digits, `.`, `_` and `-`. principal: who sends the command; it is
    recorded in the audit log, and owns the idempotency key. costs: counted against the quotas of the principal.
    lag_limit_ms: the most that a switch may be compensated for the connection's lag; None without a measurement.
    """

    expected_epoch: int | None = None
    expected_version: int | None = None
    idempotency_key: str | None = None
    request_id: str = ""
    principal: Principal = ANYONE
    costs: Costs = NO_COSTS
    lag_limit_ms: int | None = None


NO_CLAIM = Claim()


class Allowance(Struct, frozen=True):
    """What a token bucket holds after a command.

    name: `session` or `principal`. burst: how many tokens it holds when it is full, after `window_s` seconds. left:
    tokens in it. next_s: seconds until it gains one; 0 if it is full.
    """

    name: str
    burst: int
    window_s: int
    left: int
    next_s: int


class Result(Struct, frozen=True):
    """The result of a command or a read.

    session: the state afterwards; None if it is deleted. now_ms: the server's time of that state. event_json,
    patch_json: the commit's event and patch, as text because few callers parse them; '' if nothing was committed.
    expired_participant_id: the participant whose time ran out before the command. replayed: the command took effect
    earlier, with the same idempotency key. Then the session is the current one, and the rest is from the first result:
    first is its (epoch, version), None after a delete; event_json and patch_json are '' if they were too long to keep.
    read_allowances: returns what is left of the limits that the command counts against; None without limits. It is a
    function, because only REST shows that.
    """

    session: Session | None
    now_ms: int
    event_json: str = ""
    patch_json: str = ""
    replayed: bool = False
    expired_participant_id: str | None = None
    first: tuple[int, int] | None = None
    read_allowances: Callable[[], tuple[Allowance, ...]] | None = None

    @property
    def allowances(self) -> tuple[Allowance, ...]:
        """What is left of the limits that the command counts against; empty without limits."""
        return self.read_allowances() if self.read_allowances else ()

    @property
    def order(self) -> tuple[int, int] | None:
        """The (epoch, version) after the command; None after a delete."""
        return self.first or (self.session.order if self.session else None)

    @property
    def event(self) -> Mapping[str, Any] | None:
        """The event of the commit; None if nothing was committed."""
        return orjson.loads(self.event_json) if self.event_json else None

    @property
    def patch(self) -> Mapping[str, Any] | None:
        """The patch of the commit; None if nothing was committed."""
        return orjson.loads(self.patch_json) if self.patch_json else None

    @property
    def found(self) -> Session:
        """The session. Raises `LookupError` if it is deleted."""
        if self.session is None:
            raise LookupError("this result has no session")
        return self.session


class ExpiryResult(Struct, frozen=True):
    """The result of an expiry: the server's time in ms, and the instants (ms) at which commits took effect.

    more: more is due than one call applies.
    """

    now_ms: int
    instants_ms: tuple[int, ...]
    more: bool


class SessionPosition(Struct, frozen=True):
    """The epoch and version of a session, and the hash of its newest message (`chain`)."""

    epoch: int
    version: int
    chain: str

    @property
    def order(self) -> tuple[int, int]:
        """(epoch, version)."""
        return (self.epoch, self.version)

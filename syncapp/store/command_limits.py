"""The limits of commands per session and per principal: what the scripts get of them, and what their replies mean.

The token buckets themselves are in lua/_limits.lua, so they are shared by all processes and cost no round trip. A
command without a principal (`AUTH=off`, recovery, the sweeper) is not limited.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from syncapp.config import Settings
from syncapp.domain.results import NO_COSTS, Allowance, Claim
from syncapp.errors import RateLimited
from syncapp.metrics import LIMITED
from syncapp.store.keys import Keyspace
from syncapp.store.quotas import Quotas

NOT_LIMITED: tuple[str, Sequence[str]] = ("", ())
"""The argument `limits` of a call that has none, and its keys."""


class CommandLimited(RateLimited):
    """A token bucket refused the command; `allowances` says what it holds."""

    def __init__(self, message: str, details: Any, allowances: tuple[Allowance, ...]) -> None:
        super().__init__(message, details)
        self.allowances = allowances


@dataclass(frozen=True, slots=True)
class BucketKind:
    """A kind of token buckets. setting: the name of its rate; per_s: the rate, 0 for no limit.

    token_us: the time (µs) in which a bucket gains a token, 0 without a limit. burst_us, window_s: the time in which an
    empty bucket fills.
    """

    name: str
    setting: str
    per_s: float
    burst: int
    sentence: str
    token_us: int = field(init=False)
    burst_us: int = field(init=False)
    window_s: int = field(init=False)

    def __post_init__(self) -> None:
        # Computed once: every command needs them.
        object.__setattr__(self, "token_us", round(1_000_000 / self.per_s) if self.per_s else 0)
        object.__setattr__(self, "burst_us", self.token_us * self.burst)
        object.__setattr__(self, "window_s", ceil(self.burst_us / 1_000_000))

    def allowance(self, ahead_us: int) -> Allowance:
        """Return what a bucket holds that is full in `ahead_us`; one with a debt gains its token when that is paid."""
        left, rest_us = divmod(self.burst_us - ahead_us, self.token_us)
        next_us = self.token_us - rest_us if ahead_us > 0 else 0
        if left < 0:
            left, next_us = 0, ahead_us - self.burst_us
        return Allowance(self.name, self.burst, self.window_s, left, -(-next_us // 1_000_000))

    def refusal(self, ahead_us: int) -> CommandLimited:
        """Count a refusal and return its error; ahead_us: of the bucket, if it had given its token."""
        LIMITED.labels(self.setting).inc()
        allowance = self.allowance(ahead_us)
        details = {"reason": self.setting, "limit": self.per_s, "retry_after_s": allowance.next_s}
        return CommandLimited(self.sentence.format(f"{self.per_s:g}"), details, (allowance,))


class CommandLimits:
    """The limits of one process's settings."""

    def __init__(self, settings: Settings, keys: Keyspace) -> None:
        self._keys = keys
        session = BucketKind(
            "session",
            "session_commands_per_s",
            settings.session_commands_per_s,
            settings.session_commands_burst,
            "this session accepts {} commands a second",
        )
        principal = BucketKind(
            "principal",
            "principal_commands_per_s",
            settings.principal_commands_per_s,
            settings.principal_commands_burst,
            "this principal may send {} commands a second",
        )
        self._kinds = (session, principal)
        self._quotas = Quotas(settings)
        self._are_on = bool(session.per_s or principal.per_s)
        of_session = f"{session.token_us} {session.burst_us}"
        self._argument = f"{of_session} {principal.token_us} {principal.burst_us}"
        self._paid_argument = f"{of_session} 0 {principal.burst_us}"

    def of(self, claim: Claim, *, is_paid: bool = False) -> tuple[str, Sequence[str]]:
        """Return the scripts' argument `limits`, '' without a principal or limits, and the keys that belong to it.

        is_paid: an earlier call for the same command has taken the principal's token.
        """
        if not claim.principal.sub:
            return NOT_LIMITED
        keys: tuple[str, ...] = (self._keys.limits(claim.principal),)
        of_buckets = self._paid_argument if is_paid else self._argument
        if claim.costs != NO_COSTS:  # charged by the call that takes effect
            creates = (self._keys.creates(claim.principal),) if claim.costs.creates else ()
            return f"{of_buckets} {self._quotas.argument(claim.costs)}", (*keys, self._keys.tenants(), *creates)
        return (of_buckets, keys) if self._are_on else NOT_LIMITED

    def allowances(self, *ahead_us: int) -> tuple[Allowance, ...]:
        """Return what the buckets of session and principal hold, from how long (µs) each takes until it is full."""
        pairs = zip(self._kinds, ahead_us, strict=True)
        return tuple(kind.allowance(ahead) for kind, ahead in pairs if kind.token_us)

    def refusal(self, session_us: int, principal_us: int, quota: int = 0, wait_us: int = 0) -> RateLimited:
        """Return the error of a command that a bucket refused (the other one has -1), or the quota of a number."""
        if quota:
            return self._quotas.refusal(quota, wait_us)
        session, principal = self._kinds
        return session.refusal(session_us) if session_us >= 0 else principal.refusal(principal_us)

"""The limits of commands in a cluster, where a session, its principal and the quotas of tenants are in different slots.

On a single server, the command's own script takes from all buckets (lua/_limits.lua, lua/_quotas.lua). In a cluster, a
script on the keys of the principal goes before it, and for a command that costs something of the tenant's quotas
another one. The command's script then takes from the session's bucket only. What the command did not use is given back
afterwards: everything if a bucket refused it, only the quotas if it took no effect for another reason.

A limit whose master does not answer is not enforced until it does: a lost master must not concern the sessions of the
other masters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import redis
import structlog
from redis.exceptions import RedisError

from syncapp.domain.results import Claim, Result
from syncapp.domain.session_ids import tenant_of
from syncapp.errors import NotReplicated, RateLimited, StoreUnavailable, one_line
from syncapp.store.client import TRANSLATION, call_all
from syncapp.store.command_limits import NOT_LIMITED, CommandLimits
from syncapp.store.connection_pool import Arguments, packed, pool_of
from syncapp.store.keys import Keyspace
from syncapp.store.reply_errors import NoReply
from syncapp.store.scripts import Scripts

log = structlog.get_logger(__name__)

_AWAY = ("ASK", "CLUSTERDOWN", "ClusterDownError", "LOADING", "MOVED", "TRYAGAIN")
"""Reasons of an unavailable store that concern a slot or its master."""
_NO_QUOTAS = ("0", "0", "", "0", "0", "0", "0")
"""What `Quotas.argument` returns for a command that costs nothing, as words."""


class SplitCharge:
    """What a command was charged.

    limits: the argument `limits` of the command's script, and its keys. of_principal, of_tenant: keys and arguments of
    the scripts that give it back; None if nothing was taken.
    """

    def __init__(self) -> None:
        self.limits = NOT_LIMITED
        self.of_principal: tuple[Sequence[str], Arguments] | None = None
        self.of_tenant: tuple[Sequence[str], Arguments] | None = None
        self.is_sent = False
        self.is_replay = False

    def settle(self, result: Result) -> Result:
        """Note and return the command's result."""
        self.is_replay = result.replayed
        return result


class SplitLimits:
    """Charges commands before they run, so that a race can only refuse too much (docs/keys.md)."""

    def __init__(self, client: redis.Redis, scripts: Scripts, limits: CommandLimits, keys: Keyspace) -> None:
        self._pool = pool_of(client)
        self._scripts = scripts
        self._limits = limits
        self._keys = keys
        self._is_skipping = False

    @contextmanager
    def charge(self, session_id: str, claim: Claim, *, is_paid: bool) -> Iterator[SplitCharge]:
        """Charge a command (see `CommandLimits.of`), and give back what it has not used when the block ends.

        Raises `RateLimited`, and `StoreUnavailable`; then the command was not sent.
        """
        charge = SplitCharge()
        try:
            self._take(charge, session_id, claim, is_paid=is_paid)
            charge.is_sent = True
            yield charge
        except (NoReply, NotReplicated):
            if not charge.is_sent:
                self._give_back(charge)
            raise  # a command that was sent may have taken effect, so it stays charged
        except RateLimited:
            self._give_back(charge, with_token=True)
            raise
        except Exception:
            self._give_back(charge)
            raise
        if charge.is_replay:
            self._give_back(charge)

    def _take(self, charge: SplitCharge, session_id: str, claim: Claim, *, is_paid: bool) -> None:
        """Take from the buckets of the principal and of the tenant, and note what was taken."""
        text, keys = self._limits.of(claim, is_paid=is_paid)
        if not text:
            return
        session_token_us, session_burst_us, token_us, burst_us, *quotas = text.split(" ")
        create_us, creates_us, *of_tenant = quotas or _NO_QUOTAS
        principal_us = paid_until_ms = 0
        both = (keys[0], self._keys.creates(claim.principal))
        if (burst_us != "0" or create_us != "0") and not self._pool.is_away(both[0]):
            args: Arguments = (token_us, burst_us, create_us, creates_us)
            with self._skipping_if_away():
                charged_ms, principal_us, *costs_us = self._call("charge_principal", both, args)
                charge.of_principal = both, (charged_ms, *costs_us)
        most, size_us, _, commit_us, _ = of_tenant
        tenant, key = tenant_of(session_id), [self._keys.tenants()]
        if (most or size_us != "0" or commit_us != "0") and not self._pool.is_away(key[0]):
            paid_before_ms = self._paid_until_ms(session_id) if commit_us != "0" else "0"
            args = (tenant, *of_tenant, paid_before_ms)
            with self._skipping_if_away():
                _, paid_until_ms, *taken = self._call("charge_tenant", key, args)
                charge.of_tenant = key, (tenant, "1" if most else "0", *taken)
        charge.limits = f"{session_token_us} {session_burst_us} taken {principal_us} {paid_until_ms}", ()

    @contextmanager
    def _skipping_if_away(self) -> Iterator[None]:
        """Let the command go on without a limit whose master does not answer: its session may be on another one."""
        try:
            yield
        except StoreUnavailable as error:
            if not isinstance(error, NoReply) and error.details["reason"] not in _AWAY:
                raise
            if not self._is_skipping:
                self._is_skipping = True
                log.warning("limits_not_enforced", error=one_line(error))
        else:
            self._is_skipping = False

    def _call(self, script: str, keys: Sequence[str], args: Arguments) -> list[Any]:
        """Run a script that charges; return its reply after the word. Raises `RateLimited`, `StoreUnavailable`."""
        reply: list[Any]
        with TRANSLATION:
            word, *reply = self._scripts.call(script, keys, args)
        if word == "rate_limited":
            raise self._limits.refusal(*reply[1:])
        return reply

    def _paid_until_ms(self, session_id: str) -> str:
        """Return until when a session has paid for the commits that it makes by itself."""
        (paid,) = call_all(self._pool, [packed("HGET", self._keys.session(session_id), "commits_paid_ms")])
        return paid or "0"

    def _give_back(self, charge: SplitCharge, *, with_token: bool = False) -> None:
        """Give back the quotas, and the principal's token only if asked to. What cannot be given back stays charged."""
        if charge.of_principal:
            keys, (charged_ms, cost_us, create_us) = charge.of_principal
            cost_us = cost_us if with_token else "0"
            if (cost_us, create_us) != ("0", "0"):
                self._refund("refund_principal", keys, (charged_ms, cost_us, create_us))
        if charge.of_tenant:
            self._refund("refund_tenant", *charge.of_tenant)

    def _refund(self, script: str, keys: Sequence[str], args: Arguments) -> None:
        with suppress(RedisError, StoreUnavailable), TRANSLATION:
            self._scripts.call(script, keys, args)

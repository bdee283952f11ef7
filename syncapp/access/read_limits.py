"""Limits of routes that read much, and of requests that look like guessing; counted in this process.

They apply with `AUTH=required`. Lists and the history are limited per address. An answer 401, or 404 for a session,
counts twice: against the principal, or against the address if the request has no valid token. So nobody can use up what
a principal at the same address may read. While there is a debt, reads are refused, and so are requests without a valid
token; commands are not.
"""

from __future__ import annotations

import time

from syncapp.access.client_address import group_of
from syncapp.access.rate_limits import refused
from syncapp.config import Settings
from syncapp.domain.principal import Principal
from syncapp.token_bucket import TokenBuckets

_SESSION = "/v1/sessions/<session>"
READ_HEAVY = frozenset(
    {"/v1/sessions", "/v1/history", *(f"{_SESSION}/{name}" for name in ("events", "at", "statistics", "export"))}
)
"""Routes whose `GET` reads many sessions, or the audit log."""
_READS = frozenset({"GET", "HEAD"})


class ReadLimits:
    """The limits of one process; `route` is the pattern of a request's path, None for an unknown path."""

    def __init__(self, settings: Settings) -> None:
        self._per_s = settings.reads_per_s
        self._reads = TokenBuckets(self._per_s or 1, settings.reads_burst)
        self._failures = TokenBuckets(self._per_s or 1, settings.reads_burst)
        self.are_on = bool(self._per_s) and settings.auth == "required"

    def check(self, address: str, caller: Principal, method: str, route: str | None) -> None:
        """Charge a read of a read-heavy route, and refuse reads of who is in debt. Raises `RateLimited`."""
        if method not in _READS or route is None or not route.startswith("/v1/"):
            return
        self.check_debt(address, caller)
        if route in READ_HEAVY and (wait_s := self._reads.take(group_of(address), time.monotonic())):
            message = f"this address may read lists and the history {self._per_s:g} times a second"
            raise refused("reads_per_s", self._per_s, wait_s, message)

    def check_debt(self, address: str, caller: Principal) -> None:
        """Raise `RateLimited` if a principal, or an address without one, is in debt for failures."""
        debt = self._failures.debt(_owner(address, caller), time.monotonic())
        if debt > 0:
            who, what = ("principal", "404s") if caller.sub else ("address", "401s and 404s")
            message = f"this {who} got too many {what}: its reads are refused until that is paid off, at "
            raise refused("reads_per_s", self._per_s, debt / self._per_s, f"{message}{self._per_s:g} a second")

    def charge_failure(self, address: str, caller: Principal, route: str | None, status: int) -> bool:
        """Charge an answer that may be to a guess; return whether it is one."""
        if not (status == 401 or (status == 404 and route is not None and "<session>" in route)):
            return False
        self._failures.add(_owner(address, caller), time.monotonic(), -2)
        return True


def _owner(address: str, caller: Principal) -> str:
    """Return who pays for failures."""
    return f"{caller.tenant}/{caller.sub}" if caller.sub else group_of(address)

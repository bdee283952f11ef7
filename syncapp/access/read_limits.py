"""Limits per address of routes that read much, and of requests that look like guessing; counted in this process.

They apply with `AUTH=required`. An answer 401, or 404 for a session, takes two tokens, and may leave a debt; reads of
an address in debt are refused until it is paid. Commands are not, because many clients may share an address.
"""

from __future__ import annotations

import time

from syncapp.access.client_address import group_of
from syncapp.access.rate_limits import refused
from syncapp.config import Settings
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
        self._buckets = TokenBuckets(self._per_s or 1, settings.reads_burst)
        self.are_on = bool(self._per_s) and settings.auth == "required"

    def check(self, address: str, method: str, route: str | None) -> None:
        """Charge a read of a read-heavy route, and refuse reads of an address in debt. Raises `RateLimited`."""
        if method not in _READS or route is None or not route.startswith("/v1/"):
            return
        group, now_s = group_of(address), time.monotonic()
        debt = max(0.0, -self._buckets.level(group, now_s))
        wait_s = self._buckets.take(group, now_s) if route in READ_HEAVY else debt / self._per_s
        if wait_s:
            message = f"this address may read lists and the history {self._per_s:g} times a second"
            if debt:
                message = (
                    "this address got too many 401s and 404s: all its reads are refused until that is paid off, at "
                    f"{self._per_s:g} a second"
                )
            raise refused("reads_per_s", self._per_s, wait_s, message)

    def charge_failure(self, address: str, route: str | None, status: int) -> bool:
        """Charge an answer that may be to a guess; return whether it is one."""
        if not (status == 401 or (status == 404 and route is not None and "<session>" in route)):
            return False
        self._buckets.add(group_of(address), time.monotonic(), -1 if route in READ_HEAVY else -2)
        return True

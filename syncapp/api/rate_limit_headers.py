"""The header fields `RateLimit-Policy` and `RateLimit`: draft-ietf-httpapi-ratelimit-headers-11 (May 2026, expired).

Both are lists of strings, the names of the limits, with parameters (RFC 9651). `q`: the quota, here the burst; `w`: the
seconds in which it is restored; `r`: what is left; `t`: seconds until more is available, left out if nothing is
missing. With a 429, `t` is the same as `Retry-After`.
"""

from __future__ import annotations

from collections.abc import Iterable

from syncapp.domain.results import Allowance


def of(allowances: Iterable[Allowance]) -> dict[str, str]:
    """Return the header fields of an answer; none without limits."""
    policy, limit = [], []
    for each in allowances:
        policy.append(f'"{each.name}";q={each.burst};w={each.window_s}')
        limit.append(f'"{each.name}";r={each.left}' + (f";t={each.next_s}" if each.next_s else ""))
    return {"RateLimit-Policy": ", ".join(policy), "RateLimit": ", ".join(limit)} if policy else {}

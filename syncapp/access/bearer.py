"""Tokens in requests: `Authorization: Bearer …`, or `?token=…` where a page cannot set headers (RFC 6750)."""

from __future__ import annotations

import re
from collections.abc import Sequence

from syncapp.errors import ValidationFailed

_REPEATED = re.compile(r",\s*bearer\s", re.IGNORECASE)


def bearer_token(authorization: str | None, in_query: Sequence[str] = ()) -> str | None:
    """Return the token of a request; None if it has none, or if the header has another scheme.

    authorization: the header, in which repeated headers are joined by commas. in_query: the values of `token` in the
    query. Raises `ValidationFailed` for more than one token.
    """
    found = list(in_query)
    scheme, _, rest = (authorization or "").strip().partition(" ")
    if scheme.lower() == "bearer":
        found += [each.strip() for each in _REPEATED.split(rest)]
    if len(found) > 1:
        message = "must be given once: in the header Authorization, or in the query"
        raise ValidationFailed.of("token", message, "repeated")
    return found[0] if found else None

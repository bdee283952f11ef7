"""Claims of a token (RFC 7519): checks them, and returns the principal that they state.

The claims: `sub`, `exp` (both required), `scope`, `tenant`, `session_id`, `participant_id`, `jti`, `nbf`, `iat`, `aud`,
`iss`, and `link`, which only links have. Others are ignored. Times are in seconds since 1970.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from syncapp.domain.field_types import ID_PATTERN, UUID_PATTERN
from syncapp.domain.principal import DEFAULT_TENANT, MAX_SUB, SCOPES, Principal, is_tenant, with_implied
from syncapp.errors import Unauthorized

MAX_TIME_S = 253_402_300_799
"""The last second of the year 9999."""
_UUID = re.compile(UUID_PATTERN.removesuffix("$") + r"\Z")
_PARTICIPANT = re.compile(ID_PATTERN.removesuffix("$") + r"\Z")
_JTI = re.compile(r"[A-Za-z0-9._-]{1,64}\Z")


def invalid_token(message: str) -> Unauthorized:
    r"""Return the error for a token.

    message: a sentence that repeats nothing of the token. It goes into a quoted header: printable ASCII without `"` and
    `\` (RFC 6750, section 3).
    """
    return Unauthorized(message, {"reason": "invalid_token"})


@dataclass(frozen=True, slots=True)
class ClaimRules:
    """What the settings demand of claims; audience, issuer: '' if none is configured."""

    leeway_s: float = 0.0
    audience: str = ""
    issuer: str = ""

    def principal(self, claims: Mapping[str, Any], now_s: float) -> Principal:
        """Return the principal. Raises `Unauthorized` if a claim is missing, malformed, or not valid now."""
        expires_s = self._check_times(claims, now_s)
        self._check_audience(claims)
        session_id = _text(claims, "session_id", _UUID, "a UUID")
        return Principal(
            sub=_sub(claims),
            tenant=_tenant(claims),
            scopes=_scopes(claims),
            session_id=session_id and session_id.lower(),
            participant_id=_text(claims, "participant_id", _PARTICIPANT, "the id of a participant"),
            jti=_text(claims, "jti", _JTI, "1 to 64 characters of A-Z a-z 0-9 . _ -") or "",
            expires_s=math.floor(expires_s),
            is_link=_is_link(claims),
        )

    def dies_s(self, claims: Mapping[str, Any]) -> float:
        """Return when a token with these valid claims stops to be accepted."""
        return float(claims["exp"]) + self.leeway_s

    def _check_times(self, claims: Mapping[str, Any], now_s: float) -> float:
        expires_s, starts_s, issued_s = (_time(claims, name) for name in ("exp", "nbf", "iat"))
        if expires_s is None:
            raise invalid_token("the token has no exp claim: it must say when it expires")
        if now_s >= expires_s + self.leeway_s:
            raise invalid_token(f"the token expired {max(1, round(now_s - expires_s))} s ago")
        if starts_s is not None and now_s < starts_s - self.leeway_s:
            raise invalid_token(f"the token is not valid yet, but in {max(1, round(starts_s - now_s))} s (nbf claim)")
        if issued_s is not None and now_s < issued_s - self.leeway_s:
            ahead_s = max(1, round(issued_s - now_s))
            raise invalid_token(f"the token was issued {ahead_s} s in the future (iat claim): compare the clocks")
        return expires_s

    def _check_audience(self, claims: Mapping[str, Any]) -> None:
        # RFC 7519, section 4.1.3: who is not among the audience must reject the token.
        if "aud" in claims or self.audience:
            audience = claims.get("aud")
            named = [audience] if isinstance(audience, str) else audience
            if not self.audience:
                raise invalid_token("the token is for an audience (aud claim), and AUTH_AUDIENCE is not set here")
            if not isinstance(named, list) or self.audience not in named:
                raise invalid_token("the token is not for this audience (aud claim)")
        if self.issuer and claims.get("iss") != self.issuer:
            raise invalid_token("the token is not from the accepted issuer (iss claim)")


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MAX_TIME_S:
        raise invalid_token(f"the {name} claim must be a number of seconds since 1970")
    return value


def _text(claims: Mapping[str, Any], name: str, pattern: re.Pattern[str], what: str) -> str | None:
    if name not in claims:
        return None
    value = claims[name]
    if not isinstance(value, str) or not pattern.match(value):
        raise invalid_token(f"the {name} claim must be {what}")
    return value


def _sub(claims: Mapping[str, Any]) -> str:
    value = claims.get("sub")
    is_valid = isinstance(value, str) and 1 <= len(value) <= MAX_SUB
    if not is_valid or any(unicodedata.category(each) in ("Cc", "Cs") for each in str(value)):
        raise invalid_token(f"the sub claim must be a text of 1 to {MAX_SUB} characters, without control characters")
    return str(value)


def _tenant(claims: Mapping[str, Any]) -> str:
    value = claims.get("tenant", DEFAULT_TENANT)
    if not isinstance(value, str) or not is_tenant(value):
        raise invalid_token("the tenant claim must be 1 to 64 characters of A-Z a-z 0-9 . _ -, a letter or digit first")
    return value


def _scopes(claims: Mapping[str, Any]) -> frozenset[str]:
    """Return the scopes that are known, with all that they include; others may come with later versions."""
    value = claims.get("scope", "")
    if not isinstance(value, str):
        raise invalid_token("the scope claim must be a text, with spaces between the scopes")
    return with_implied(frozenset(value.split(" ")) & SCOPES.keys())


def _is_link(claims: Mapping[str, Any]) -> bool:
    value = claims.get("link", False)
    if not isinstance(value, bool):
        raise invalid_token("the link claim must be true or false")
    return value

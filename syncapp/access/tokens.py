"""Tokens: verifies the JWT of a caller, and makes those of links and of `flask tokens create`.

PyJWT checks and makes signatures only. The header, the choice of the key and the claims are checked by modules of their
own (`token_text`, `key_ring`, `token_claims`), which are stricter. Nothing here uses Redis.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Iterable
from hashlib import sha256
from typing import Any

import jwt

from syncapp.access.key_ring import KeyRing
from syncapp.access.token_cache import TokenCache
from syncapp.access.token_claims import ClaimRules, invalid_token
from syncapp.access.token_keys import secrets_of
from syncapp.access.token_text import TokenText
from syncapp.config import Settings
from syncapp.domain.principal import DEFAULT_TENANT, Principal
from syncapp.errors import TokensNotConfigured


class Authenticator:
    """Tells who a token's bearer is. Thread-safe.

    required: whether callers need a token (`AUTH=required`). is_revoked: tells whether the token with this `jti` was
    revoked; it is asked for every call, so it must not use the network. clock: seconds since 1970.
    """

    def __init__(
        self,
        settings: Settings,
        is_revoked: Callable[[str], bool] = lambda _jti: False,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.required = settings.auth == "required"
        self.keys = KeyRing(settings)
        self.rules = ClaimRules(settings.auth_leeway_s, settings.auth_audience, settings.auth_issuer)
        self._secrets = secrets_of(settings.auth_secrets)
        self._metrics_token = settings.metrics_token
        self._is_revoked = is_revoked
        self._clock = clock
        self._cache = TokenCache()

    def start(self) -> None:
        """Begin to fetch the keys of `AUTH_JWKS_URL`, so that the first call finds them; call it after the fork."""
        _ = self.keys.generation

    def principal(self, token: str) -> Principal:
        """Return who calls with this token. Raises `Unauthorized`, which repeats nothing of the token."""
        now_s, generation = self._clock(), self.keys.generation
        found = self._cache.get(token, now_s, generation)
        if found is None:
            found = self._verified(token, now_s, generation)
        if found.jti and self._is_revoked(found.jti):
            raise invalid_token("the token was revoked")
        return found

    def _verified(self, token: str, now_s: float, generation: int) -> Principal:
        parsed = TokenText.parse(token)
        self.keys.key_of(parsed)
        claims = parsed.claims()
        found = self.rules.principal(claims, now_s)
        self._cache.put(token, found, dies_s=self.rules.dies_s(claims), generation=generation)
        return found

    def mint(
        self,
        *,
        sub: str,
        scopes: Iterable[str],
        tenant: str = DEFAULT_TENANT,
        session_id: str | None = None,
        participant_id: str | None = None,
        expires_in_s: int,
        jti: str | None = None,
        is_link: bool = False,
    ) -> str:
        """Return a new token, signed with the first of `AUTH_SECRETS`.

        Claims that say nothing are left out, so that a link's token fits into a QR code. Raises `TokensNotConfigured`
        without a secret, and `Unauthorized` if this server would not accept the token.
        """
        if not self._secrets:
            raise TokensNotConfigured("this server signs no tokens: AUTH_SECRETS is not set")
        now_s = int(self._clock())
        claims: dict[str, Any] = {
            "sub": sub,
            "scope": " ".join(scopes),
            "tenant": None if tenant == DEFAULT_TENANT else tenant,
            "session_id": session_id,
            "participant_id": participant_id,
            "jti": jti,
            "link": is_link or None,
            "aud": self.rules.audience or None,
            "iss": self.rules.issuer or None,
            "iat": now_s,
            "exp": now_s + expires_in_s,
        }
        claims = {name: value for name, value in claims.items() if value is not None}
        self.rules.principal(claims, now_s)
        token = jwt.encode(claims, self._secrets[0], algorithm="HS256")
        TokenText.parse(token)
        return token

    def is_metrics_token(self, text: str) -> bool:
        """Return whether a text is `METRICS_TOKEN`; compares in constant time."""
        given, wanted = (sha256(each.encode(errors="replace")).digest() for each in (text, self._metrics_token))
        return bool(self._metrics_token) and hmac.compare_digest(given, wanted)

    def worries(self) -> list[str]:
        """Return the problems that operators should know of."""
        waiting = self.required and self.keys.is_waiting
        return ["the keys of AUTH_JWKS_URL could not be fetched: no token of its keys is accepted"] if waiting else []

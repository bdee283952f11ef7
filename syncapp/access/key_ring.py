"""All keys of the settings, and the choice of the key that a token's signature was made with."""

from __future__ import annotations

from collections.abc import Iterator

from syncapp.access.jwks import JwksKeys
from syncapp.access.token_claims import invalid_token
from syncapp.access.token_keys import PUBLIC_ALGORITHMS, TokenKey, public_keys, secret_keys
from syncapp.access.token_text import TokenText
from syncapp.config import Settings


class KeyRing:
    """The keys of `AUTH_SECRETS`, `AUTH_PUBLIC_KEYS` and `AUTH_JWKS_URL`. Raises `ValueError` if one is invalid."""

    def __init__(self, settings: Settings) -> None:
        self._fixed = (*secret_keys(settings.auth_secrets), *public_keys(settings.auth_public_keys))
        self._jwks = JwksKeys(settings.auth_jwks_url) if settings.auth_jwks_url else None

    @property
    def generation(self) -> int:
        """A number that changes when keys do. Reading it starts a refresh of old keys in the background."""
        if self._jwks is None:
            return 0
        self._jwks.refresh_if_due()
        return self._jwks.generation

    @property
    def is_waiting(self) -> bool:
        """Whether the keys of `AUTH_JWKS_URL` could never be fetched."""
        return self._jwks is not None and not self._jwks.keys

    def key_of(self, token: TokenText) -> TokenKey:
        """Return the key that a token was signed with. Raises `Unauthorized` if there is none.

        A token that names an unknown key makes the keys be fetched again, but not more often than
        `syncapp.access.jwks` allows.
        """
        key = self._match(token)
        if key is None and self._jwks is not None and self._names_unknown_key(token):
            self._jwks.refresh()
            key = self._match(token)
        if key is None:
            raise invalid_token(self._reason(token))
        return key

    def _match(self, token: TokenText) -> TokenKey | None:
        return next((key for key in self._candidates(token) if key.verifies(token.signed, token.signature)), None)

    def _names_unknown_key(self, token: TokenText) -> bool:
        if token.algorithm not in PUBLIC_ALGORITHMS:
            return False  # no JWKS has such a key
        return self.is_waiting or (token.kid is not None and not self._listed(token))

    def _candidates(self, token: TokenText) -> Iterator[TokenKey]:
        """Yield the keys that a token may have been signed with: those of its algorithm, and of its `kid` in a JWKS.

        A token without `kid` fits a JWKS that has only one key of its algorithm.
        """
        yield from (key for key in self._fixed if key.algorithm == token.algorithm)
        yield from self._listed(token)

    def _listed(self, token: TokenText) -> list[TokenKey]:
        keys = [key for key in (self._jwks.keys if self._jwks else ()) if key.algorithm == token.algorithm]
        if token.kid is not None:
            return [key for key in keys if key.kid == token.kid]
        return keys if len(keys) == 1 else []

    def _reason(self, token: TokenText) -> str:
        accepted = {key.algorithm for key in (*self._fixed, *(self._jwks.keys if self._jwks else ()))}
        if self.is_waiting and token.algorithm in PUBLIC_ALGORITHMS - accepted:
            return "the keys of AUTH_JWKS_URL could not be fetched yet: try again later"
        if token.algorithm not in accepted:
            return f"the algorithm of the token is not accepted here, only {', '.join(sorted(accepted)) or 'none'}"
        if any(self._candidates(token)):
            return "the signature of the token does not match any key"
        return "the token names no key that is known here (kid in its header)"

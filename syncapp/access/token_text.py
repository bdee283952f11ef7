"""The text of a token (JWS compact serialization, RFC 7515): its three parts, decoded, within limits of size."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass, field
from typing import Any

from syncapp.access.token_claims import invalid_token
from syncapp.access.token_keys import MAX_KID
from syncapp.domain.strict_json import decode
from syncapp.errors import SyncError

MAX_TOKEN = 4096
"""Maximum characters of a token."""
MAX_PAYLOAD_BYTES = 2048
_PARTS = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\Z")
_TYPES = {"jwt", "at+jwt", "application/jwt", "application/at+jwt"}


@dataclass(frozen=True, slots=True)
class TokenText:
    """A token that is well formed; nothing in it is verified. signed: what the signature signs."""

    header: dict[str, Any]
    payload: bytes = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> TokenText:
        """Return the parts of a token. Raises `Unauthorized`."""
        if len(text) > MAX_TOKEN:
            raise invalid_token(f"the token is longer than {MAX_TOKEN} characters")
        if not (parts := _PARTS.match(text)):
            raise invalid_token("the token is not a signed JWT: three parts in base64url, with dots between them")
        header, payload, signature = (_decoded(part) for part in parts.groups())
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise invalid_token(f"the claims of the token are larger than {MAX_PAYLOAD_BYTES} bytes")
        found = cls(_document(header, "header"), payload, text[: parts.end(2)].encode(), signature)
        found._check_header()
        return found

    def claims(self) -> dict[str, Any]:
        """Return the claims. Raises `Unauthorized` if they are not a JSON object."""
        return _document(self.payload, "payload")

    @property
    def algorithm(self) -> str:
        """The algorithm that the header names."""
        return str(self.header.get("alg"))

    @property
    def kid(self) -> str | None:
        """The name of the key, if the header has one."""
        return self.header.get("kid")

    def _check_header(self) -> None:
        kid, kind = self.header.get("kid"), self.header.get("typ")
        if "kid" in self.header and (not isinstance(kid, str) or not 0 < len(kid) <= MAX_KID):
            raise invalid_token(f"the kid in the token's header must be a text of 1 to {MAX_KID} characters")
        if "crit" in self.header or "b64" in self.header:
            raise invalid_token("the token's header demands an extension that is not supported (crit, b64)")
        # RFC 8725, section 3.11: JWTs of other kinds, such as logout tokens, are not access tokens.
        if "typ" in self.header and (not isinstance(kind, str) or kind.lower() not in _TYPES):
            raise invalid_token("the typ in the token's header must be JWT or at+jwt")


def _decoded(part: str) -> bytes:
    """Return the bytes of a part. Only their one canonical text is accepted, so that a token has no second form."""
    try:
        found = base64.urlsafe_b64decode(part + "=" * (-len(part) % 4))
    except binascii.Error:
        found = b""
    if base64.urlsafe_b64encode(found).rstrip(b"=").decode() != part:
        raise invalid_token("the token is not a signed JWT: a part is not base64url")
    return found


def _document(text: bytes, name: str) -> dict[str, Any]:
    try:
        document = decode(text, name)
    except SyncError:
        document = None
    if not isinstance(document, dict):
        raise invalid_token(f"the {name} of the token is not a JSON object that can be read")
    return document

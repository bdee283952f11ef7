"""Keys that tokens are verified with; each is for one algorithm, so no token can choose how it is verified.

HS256 is for `AUTH_SECRETS` only. RS256 (2048 bits or more), ES256 (P-256) and EdDSA (Ed25519) are for public keys.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key

MIN_SECRET_BYTES = 32
"""RFC 7518, section 3.2: at least as long as the hash."""
MIN_RSA_BITS = 2048
MAX_KID = 256
_PEM = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----(.*?)-----END \1-----", re.DOTALL)
_SPACE = re.compile(r"\\n|\\r|\s")
_PUBLIC_MEMBERS = ("kty", "crv", "n", "e", "x", "y")
_ALGORITHM_OF_TYPE = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}
PUBLIC_ALGORITHMS = frozenset(_ALGORITHM_OF_TYPE.values())
"""The algorithms of public keys."""
_BAD_KEY = (jwt.PyJWTError, UnsupportedAlgorithm, ValueError, TypeError)


@dataclass(frozen=True, slots=True)
class TokenKey:
    """One key: the only algorithm that it verifies, the secret or public key, and where it comes from.

    kid: the name that tokens give it in their header; None for keys of the settings, which are tried in order.
    """

    algorithm: str
    material: Any = field(repr=False)
    source: str
    kid: str | None = None

    def verifies(self, signed: bytes, signature: bytes) -> bool:
        """Return whether the signature of these bytes was made with this key."""
        return jwt.get_algorithm_by_name(self.algorithm).verify(signed, self.material, signature)


def secrets_of(text: str) -> list[str]:
    """Return the secrets of `AUTH_SECRETS`."""
    return [part.strip() for part in text.split(",") if part.strip()]


def secret_keys(text: str) -> list[TokenKey]:
    """Return the keys of `AUTH_SECRETS`. Raises `ValueError`, which does not repeat a secret."""
    keys = []
    for number, secret in enumerate(secrets_of(text), 1):
        if len(secret.encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"must have at least {MIN_SECRET_BYTES} bytes in each secret; secret {number} is shorter")
        try:
            material = jwt.get_algorithm_by_name("HS256").prepare_key(secret)
        except _BAD_KEY:
            raise ValueError(f"must hold secrets, and no keys in PEM or JSON; secret {number} looks like one") from None
        keys.append(TokenKey("HS256", material, f"secret {number} of AUTH_SECRETS"))
    return keys


def public_keys(text: str) -> list[TokenKey]:
    r"""Return the keys of `AUTH_PUBLIC_KEYS`, with line breaks or `\n` for them. Raises `ValueError`."""
    if not text.strip():
        return []
    found = _PEM.findall(text)
    if not found or _SPACE.sub("", _PEM.sub("", text)):
        raise ValueError("must be public keys in PEM, one after the other, from -----BEGIN to -----END")
    keys = []
    for number, (kind, body) in enumerate(found, 1):
        if kind not in ("PUBLIC KEY", "RSA PUBLIC KEY"):
            raise ValueError(f"must hold public keys only; entry {number} is a {kind.lower()}")
        pem = f"-----BEGIN {kind}-----\n{_SPACE.sub('', body)}\n-----END {kind}-----\n"
        try:
            material = load_pem_public_key(pem.encode())
            keys.append(TokenKey(_algorithm_of(material), material, f"key {number} of AUTH_PUBLIC_KEYS"))
        except _BAD_KEY:
            wanted = f"RSA of at least {MIN_RSA_BITS} bits, EC P-256 or Ed25519"
            raise ValueError(f"must hold keys that are {wanted}; entry {number} is not") from None
    return keys


def _algorithm_of(material: object) -> str:
    """Return the algorithm of a public key. Raises `ValueError` if there is none that tokens may use."""
    if isinstance(material, rsa.RSAPublicKey) and material.key_size >= MIN_RSA_BITS:
        return "RS256"
    if isinstance(material, ec.EllipticCurvePublicKey) and isinstance(material.curve, ec.SECP256R1):
        return "ES256"
    if isinstance(material, ed25519.Ed25519PublicKey):
        return "EdDSA"
    raise ValueError("this kind of key is not accepted")


def keys_of_jwks(document: Any) -> tuple[TokenKey, ...]:
    """Return the usable keys of a JWKS (RFC 7517); others are skipped. Raises `ValueError` if there is none."""
    listed = document.get("keys") if isinstance(document, dict) else None
    entries = listed if isinstance(listed, list) else []
    if keys := tuple(key for each in entries if isinstance(each, dict) and (key := _key_of_jwk(each))):
        return keys
    raise ValueError(
        'the answer is not a JWKS (an object with a list "keys") with a key that tokens may be signed with'
    )


def _key_of_jwk(entry: Mapping[str, Any]) -> TokenKey | None:
    """Return a key, or None if it is not one for signatures, of another algorithm, symmetric, or malformed."""
    algorithm, kid = _ALGORITHM_OF_TYPE.get(str(entry.get("kty"))), entry.get("kid", "")
    if algorithm is None or entry.get("alg", algorithm) != algorithm or entry.get("use", "sig") != "sig":
        return None
    uses = entry.get("key_ops", ["verify"])
    if not isinstance(uses, list) or "verify" not in uses or not isinstance(kid, str) or len(kid) > MAX_KID:
        return None
    # Without the private members, if a server publishes them by mistake.
    public = {name: entry[name] for name in _PUBLIC_MEMBERS if isinstance(entry.get(name), str)}
    try:
        material = jwt.get_algorithm_by_name(algorithm).from_jwk(public)
        return TokenKey(algorithm, material, "AUTH_JWKS_URL", kid) if _algorithm_of(material) == algorithm else None
    except _BAD_KEY:
        return None

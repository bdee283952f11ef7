"""Tokens for tests, made by PyJWT itself."""

from __future__ import annotations

import time
from typing import Any

import jwt

SECRET = "a secret of the tests: 32 bytes or more"


def token(
    sub: str = "ada", scope: str = "admin", *, secret: str = SECRET, expires_in_s: int = 3600, **claims: Any
) -> str:
    """Return a token; a claim that is None is left out."""
    given = {"sub": sub, "scope": scope, "exp": int(time.time()) + expires_in_s} | claims
    return jwt.encode({name: value for name, value in given.items() if value is not None}, secret, algorithm="HS256")


def bearer(*arguments: Any, **claims: Any) -> dict[str, str]:
    """Return the header with such a token."""
    return {"Authorization": f"Bearer {token(*arguments, **claims)}"}

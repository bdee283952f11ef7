"""The token that a client sends: a fixed one, or one that a function of the caller's renews."""

from __future__ import annotations

import base64
import binascii
import json
import logging
import threading
import time
from collections.abc import Callable
from typing import TypeAlias

from syncapp_client.errors import SyncAppError

log = logging.getLogger(__name__)
TokenSource: TypeAlias = str | Callable[[], str | None] | None
"""A token or link; or a function that gets a new one each time it is called, and returns None if there is none."""
_RENEW_BEFORE_S = 60.0
_MOST_REFUSED = 3


class Tokens:
    """The token in force. Threads share it; the function is called by one thread at a time.

    The local wall clock only decides when to renew: if it is wrong, the server refuses a token, and a new one is got.
    """

    def __init__(self, source: TokenSource, now_s: Callable[[], float] = time.time) -> None:
        self._source = source
        self._now_s = now_s
        self._lock = threading.Lock()
        self._token = source if isinstance(source, str) else None
        self._expires_s: float | None = None
        self._renew_s: float | None = None
        self._refused: str | None = None
        self._refusals = 0

    def current(self) -> str | None:
        """Return the token to send, a new one if this one ends within a minute; None without a source.

        Raises `SyncAppError` `UNAUTHORIZED` if there is no other token than one that was refused, and what the
        caller's function raises, unless the present token is still valid.
        """
        source = self._source
        with self._lock:
            if source is None:
                return None
            if isinstance(source, str):
                if source == self._refused:
                    raise SyncAppError("UNAUTHORIZED", "the token was refused, or has expired", status=401)
                return source
            if self._token is None or (self._renew_s is not None and self._now_s() >= self._renew_s):
                self._renew(source)
            return self._token

    @property
    def renews_in_s(self) -> float | None:
        """In how many s a new token is to be got; None if never."""
        return None if self._renew_s is None else max(0.0, self._renew_s - self._now_s())

    def refuse(self, token: str | None) -> bool:
        """Enter that a token was refused. Return whether trying again with another one may help."""
        with self._lock:
            if token is not None and token == self._token:
                self._refused, self._renew_s = token, None
                self._refusals += 1
                if callable(self._source):
                    self._token = None
            return callable(self._source) and self._refusals < _MOST_REFUSED

    def accept(self) -> None:
        """Enter that the token was accepted."""
        self._refusals = 0

    def _renew(self, source: Callable[[], str | None]) -> None:
        now_s = self._now_s()
        try:
            token = source()
        except Exception:
            if self._token is None or self._expires_s is None or self._expires_s <= now_s:
                raise
            log.warning("no new token could be got; the present one is still valid", exc_info=True)
            self._renew_s = now_s + max(1.0, (self._expires_s - now_s) / 2)
            return
        if token is None or token == self._refused:
            self._token = None
            raise SyncAppError("UNAUTHORIZED", "there is no token that the server accepts", status=401)
        self._token, self._expires_s = token, expiry_s(token)
        if self._expires_s is None:
            self._renew_s = None
        else:  # half of a short life, because a token of a minute would be renewed all the time
            left_s = self._expires_s - now_s
            self._renew_s = now_s + max(1.0, left_s / 2, left_s - _RENEW_BEFORE_S)


def expiry_s(token: str) -> float | None:
    """Return when a token expires, in s since 1970, without checking it; None if it does not say so."""
    payload = token.split(".")[1] if token.count(".") == 2 else ""
    try:
        found = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))["exp"]
    except (binascii.Error, ValueError, KeyError, TypeError):
        return None
    return float(found) if isinstance(found, int | float) else None

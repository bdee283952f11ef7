"""Revoked tokens: each process keeps their ids in memory, so that checking a token needs no call of the store.

A loop reads the ids that were added to the store (`syncapp.store.revoked_ids`), and ends what uses them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Revocations:
    """The ids (`jti`) of revoked tokens that have not expired, and who must hear of a new one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._expiries: dict[str, float] = {}
        self._listeners: dict[str, dict[Callable[[], None], None]] = {}

    def is_revoked(self, jti: str) -> bool:
        """Tell whether a token with this id was revoked."""
        return jti in self._expiries

    def add(self, jti: str, expires_s: float) -> None:
        """Note that a token was revoked, and tell those who use it; expires_s: when it expires, in s since 1970."""
        with self._lock:
            self._expiries[jti] = expires_s
            told = list(self._listeners.get(jti, ()))
        for stop in told:
            stop()

    def listen(self, jti: str, stop: Callable[[], None]) -> None:
        """Have `stop` called as soon as a token is revoked, or now if it is; it must not wait. '' is no token."""
        if not jti:
            return
        with self._lock:
            self._listeners.setdefault(jti, {})[stop] = None
        if self.is_revoked(jti):
            stop()

    def unlisten(self, jti: str, stop: Callable[[], None]) -> None:
        """End `listen`."""
        with self._lock:
            listeners = self._listeners.get(jti, {})
            listeners.pop(stop, None)
            if not listeners:
                self._listeners.pop(jti, None)

    @contextmanager
    def notify(self, jti: str, stop: Callable[[], None]) -> Iterator[None]:
        """`listen` while the context lasts."""
        self.listen(jti, stop)
        try:
            yield
        finally:
            self.unlisten(jti, stop)

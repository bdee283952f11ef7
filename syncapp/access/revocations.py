"""Revoked tokens: each process keeps their ids in memory, so that checking a token needs no call of the store.

A loop reads what was added to the store since its last turn, and ends the connections that use it. While the store is
away, the last known ids stay in force. If the store has lost them, the processes that know them add them again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol

POLL_S = 0.25
"""Time between two reads: the limit for closing the connections of a revoked token is a second."""
_FORGET_S = 60.0
_FORGET_AFTER_S = 600.0
"""Time from a token's expiry after which its id is forgotten; longer than any `AUTH_LEEWAY_S`."""


class Revoked(Protocol):
    """A revocation as the store has it."""

    @property
    def position(self) -> str:
        """Its place among all revocations."""

    @property
    def jti(self) -> str:
        """The id of the token."""

    @property
    def expires_s(self) -> float:
        """When the token expires, in s since 1970."""


class RevokedTokens(Protocol):
    """The revocations in the store (`syncapp.store.links.LinkStore`). The methods raise `StoreUnavailable`."""

    def revoked_from(self, position: str) -> Sequence[Revoked]:
        """Return a page of revocations from a position on, this one included; '' for the first one."""

    def add_revoked(self, ids: Iterable[tuple[str, float]]) -> None:
        """Add revocations."""


class Revocations:
    """The ids (`jti`) of revoked tokens that have not expired, and who is told of a new one. Thread-safe."""

    def __init__(self, store: RevokedTokens) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._expiries: dict[str, float] = {}
        self._listeners: dict[str, dict[Callable[[], None], None]] = {}
        self._last: Revoked | None = None
        self._is_loaded = False
        self._forgot_s = time.monotonic()

    def is_revoked(self, jti: str) -> bool:
        """Tell whether a token was revoked.

        Raises `StoreUnavailable` if the revoked ids have not been read yet, since this process began.
        """
        if not self._is_loaded:
            self.turn()
        return jti in self._expiries

    def turn(self) -> float:
        """Read what was revoked since the last turn; return the time until the next one (s). Raises as the store."""
        last = self._last
        position = last.position if last else ""
        page = self._store.revoked_from(position)
        # Compared as a whole: after a loss, another entry may have the position of the last one.
        was_lost = last is not None and not (page and _is_same(page[0], last))
        if was_lost:
            position, page = "", self._store.revoked_from("")
        found: dict[str, float] = {}
        while page:
            found |= {each.jti: each.expires_s for each in page}
            last = page[-1]
            if page[-1].position == position:
                break
            position = page[-1].position
            page = self._store.revoked_from(position)
        if was_lost:
            now_s = time.time()
            known = list(self._expiries.items())
            self._store.add_revoked(each for each in known if each[0] not in found and each[1] > now_s)
        self._last = last if found else None
        for jti, expires_s in found.items():
            self.add(jti, expires_s)
        self._is_loaded = True
        self._forget()
        return POLL_S

    def add(self, jti: str, expires_s: float) -> None:
        """Note that a token was revoked, and tell those who use it; expires_s: when it expires, in s since 1970."""
        if jti in self._expiries:
            return
        with self._lock:
            self._expiries[jti] = expires_s
            told = list(self._listeners.get(jti, ()))
        for stop in told:
            stop()

    @contextmanager
    def notify(self, jti: str, stop: Callable[[], None]) -> Iterator[None]:
        """`listen` while the context lasts."""
        self.listen(jti, stop)
        try:
            yield
        finally:
            self.unlisten(jti, stop)

    def listen(self, jti: str, stop: Callable[[], None]) -> None:
        """Have `stop` called as soon as a token is revoked, or now if it is; it must not wait. '' is no token."""
        if not jti:
            return
        with self._lock:
            self._listeners.setdefault(jti, {})[stop] = None
        if jti in self._expiries:
            stop()

    def unlisten(self, jti: str, stop: Callable[[], None]) -> None:
        """End `listen`."""
        with self._lock:
            listeners = self._listeners.get(jti, {})
            listeners.pop(stop, None)
            if not listeners:
                self._listeners.pop(jti, None)

    def _forget(self) -> None:
        """Once a minute, forget tokens that have expired: they are refused anyway."""
        if time.monotonic() - self._forgot_s < _FORGET_S:
            return
        self._forgot_s, oldest_s = time.monotonic(), time.time() - _FORGET_AFTER_S
        with self._lock:
            self._expiries = {jti: expires_s for jti, expires_s in self._expiries.items() if expires_s > oldest_s}


def _is_same(one: Revoked, other: Revoked) -> bool:
    return (one.position, one.jti) == (other.position, other.jti)

"""A bounded cache of verified tokens, so that a token which was seen before costs no signature."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import sha256

from syncapp.domain.principal import Principal

MAX_TOKENS = 10_000


@dataclass(frozen=True, slots=True)
class _Verified:
    principal: Principal
    dies_s: float
    generation: int


class TokenCache:
    """Principals by token, the least recently used one dropped first. Keeps no token, but the SHA-256 of each."""

    def __init__(self, size: int = MAX_TOKENS) -> None:
        self._size = size
        self._entries: OrderedDict[bytes, _Verified] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, token: str, now_s: float, generation: int) -> Principal | None:
        """Return the principal of a token that was verified with the present keys and is still valid."""
        name = sha256(token.encode(errors="replace")).digest()
        with self._lock:
            if (found := self._entries.get(name)) is None:
                return None
            if now_s >= found.dies_s or found.generation != generation:
                del self._entries[name]
                return None
            self._entries.move_to_end(name)
            return found.principal

    def put(self, token: str, principal: Principal, *, dies_s: float, generation: int) -> None:
        """Keep the principal of a token.

        dies_s: when the token stops to be accepted, in seconds since 1970. generation: of the keys, read before the
        token was verified.
        """
        name = sha256(token.encode()).digest()
        with self._lock:
            self._entries[name] = _Verified(principal, dies_s, generation)
            self._entries.move_to_end(name)
            while len(self._entries) > self._size:
                self._entries.popitem(last=False)

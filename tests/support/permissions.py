"""The cells of the table of permissions: tokens of every kind, and what each must be refused."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from itertools import product
from typing import Any, Literal, NamedTuple

import redis as redis_py

from syncapp.access.permissions import ACTIONS, Reach
from syncapp.domain.principal import SCOPES
from tests.support.tokens import SECRET, bearer, token

OTHER_SESSION = str(uuid.UUID(int=7))
ACTIVE, WAITING = "white", "black"
"""The participants of a running game of chess: whose turn it is, and the other."""
REQUIRED = {"auth": "required", "auth_secrets": SECRET}
"""Settings with which a token is required."""
INCLUDES = {
    "session:act": {"session:watch"},
    "session:control": {"session:act", "session:watch"},
    "admin": set(SCOPES),
}


class Cell(NamedTuple):
    """A kind of token: its scope, the session that it is for, and the participant that it acts as."""

    scope: str
    session: Literal["this", "other", "all"]
    participant: str | None

    def claims(self, session_id: str) -> dict[str, Any]:
        """Return the claims of such a token, for a test with this session."""
        only = {"this": session_id, "other": OTHER_SESSION, "all": None}[self.session]
        return {"scope": self.scope, "session_id": only, "participant_id": self.participant}

    def token(self, session_id: str, **more: Any) -> str:
        return token(**self.claims(session_id), **more)

    def header(self, session_id: str, **more: Any) -> dict[str, str]:
        return bearer(**self.claims(session_id), **more)

    def has(self, scope: str) -> bool:
        return scope == self.scope or scope in INCLUDES.get(self.scope, ())

    def refusal(self, action: str) -> dict[str, str] | None:
        """Return the details of the refusal of an action on this session, None if it is allowed."""
        needed = ACTIONS[action]
        if not self.has(needed.scope):
            return {"missing_scope": needed.scope}
        if self.session == "other" or (self.session == "this" and needed.reach is not Reach.SESSION):
            return {"reason": "session_id"}
        return None


def cells() -> Iterator[Cell]:
    """Every scope, for this session, another or all, as the active participant, another or any."""
    sessions: tuple[Literal["this", "other", "all"], ...] = ("this", "other", "all")
    for scope, session, participant in product(SCOPES, sessions, (ACTIVE, WAITING, None)):
        yield Cell(scope, session, participant)


def dump_all(client: redis_py.Redis) -> dict[bytes, object]:
    """Return everything that the store holds, except what limits count: types, values and expiries."""
    readers: dict[Any, Any] = {
        b"string": client.get,
        b"hash": client.hgetall,
        b"zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        b"stream": client.xrange,
        b"set": client.smembers,
        b"list": lambda key: client.lrange(key, 0, -1),
    }
    return {
        key: (readers[client.type(key)](key), client.pexpiretime(key))
        for key in sorted(client.scan_iter())
        if not key.startswith(b"sync:limits")
    }

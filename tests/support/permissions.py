"""The cells of the table of permissions: requests of every route, tokens of every kind, and what must be refused."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from itertools import product
from typing import Any, Literal, NamedTuple

import redis as redis_py

from syncapp.access.permissions import ACTIONS, Reach
from syncapp.api.route_actions import ROUTE_ACTIONS
from syncapp.domain.commands import COMMANDS
from syncapp.domain.principal import SCOPES
from tests.support.rest import CHESS
from tests.support.tokens import SECRET, bearer, token

OTHER_SESSION = str(uuid.UUID(int=7))
ACTIVE, WAITING = "white", "black"
"""The participants of a running game of chess: whose turn it is, and the other."""
REQUIRED = {"auth": "required", "auth_secrets": SECRET, "reads_per_s": 0.0}
"""Settings with which a token is required, and reads are not limited per address."""
COUNTED = (b"sync:limits", b"sync:creates", b"sync:tenants")
"""What the keys of limits begin with: a refused request may count."""
INCLUDES = {
    "session:act": {"session:watch"},
    "session:control": {"session:act", "session:watch"},
    "admin": set(SCOPES),
}


class Cell(NamedTuple):
    """A kind of token: its scope, the session that it is for, the participant that it acts as; is_link: a link's."""

    scope: str
    session: Literal["this", "other", "all"]
    participant: str | None
    is_link: bool = False

    def claims(self, session_id: str) -> dict[str, Any]:
        """Return the claims of such a token, for a test with this session."""
        only = {"this": session_id, "other": OTHER_SESSION, "all": None}[self.session]
        link = True if self.is_link else None
        return {"scope": self.scope, "session_id": only, "participant_id": self.participant, "link": link}

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
        return {"reason": "link"} if self.is_link and not needed.by_link else None


class Call(NamedTuple):
    """A valid request of a route; `{id}` is a session, which is in status `status`."""

    method: str
    path: str
    body: dict[str, Any] | None = None
    status: str = "running"
    answer: tuple[int, ...] = (200,)


# History is read from PostgreSQL, which has nothing of a session without a worker.
NOT_LOGGED = (404,)
CALLS = {
    "sessions.create": Call("POST", "/v1/sessions", CHESS, "missing", (201,)),
    "sessions.read": Call("GET", "/v1/sessions/{id}"),
    "sessions.start": Call("POST", "/v1/sessions/{id}/start", {}, "pending"),
    "sessions.switch": Call("POST", "/v1/sessions/{id}/switch", {}),
    "sessions.pause": Call("POST", "/v1/sessions/{id}/pause", {}),
    "sessions.resume": Call("POST", "/v1/sessions/{id}/resume", {}, "paused"),
    "sessions.adjust": Call("POST", "/v1/sessions/{id}/adjust", {"op": "add", "ms": 1000}),
    "sessions.takeback": Call("POST", "/v1/sessions/{id}/takeback", {}, "switched"),
    "sessions.reopen": Call("POST", "/v1/sessions/{id}/reopen", {}, "completed"),
    "sessions.complete": Call("POST", "/v1/sessions/{id}/complete", {}),
    "sessions.cancel": Call("POST", "/v1/sessions/{id}/cancel", {}),
    "sessions.update": Call("PATCH", "/v1/sessions/{id}", {"metadata": {"a": 1}}),
    "sessions.delete": Call("DELETE", "/v1/sessions/{id}", {}, answer=(204,)),
    "listing.list_sessions": Call("GET", "/v1/sessions"),
    "texts.text": Call("GET", "/v1/sessions/{id}/text"),
    "streams.stream": Call("GET", "/v1/sessions/{id}/stream"),
    "links.create_link": Call("POST", "/v1/sessions/{id}/links", {"scope": "session:watch"}, answer=(201,)),
    "links.list_links": Call("GET", "/v1/sessions/{id}/links"),
    "links.revoke_link": Call("DELETE", "/v1/sessions/{id}/links/AAAAAAAAAAAAAAAAAAAAAAAA", answer=(404,)),
    "links.revoke_links": Call("DELETE", "/v1/sessions/{id}/links", answer=(204,)),
    "history.events": Call("GET", "/v1/sessions/{id}/events", answer=NOT_LOGGED),
    "history.at": Call("GET", "/v1/sessions/{id}/at?version=1", answer=(404, 503)),
    "history.statistics": Call("GET", "/v1/sessions/{id}/statistics", answer=NOT_LOGGED),
    "history.export": Call("GET", "/v1/sessions/{id}/export", answer=NOT_LOGGED),
    "history.sessions": Call("GET", "/v1/history"),
    "system.audit_queue": Call("GET", "/v1/audit/queue"),
    "system.audit_verification": Call("GET", "/v1/audit/verification"),
    "system.show_metrics": Call("GET", "/metrics"),
}
OF_COMMANDS = {
    name: next(CALLS[endpoint] for endpoint, action in ROUTE_ACTIONS.items() if action == name)
    for name in COMMANDS
    if name != "create"
}


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
        if not key.startswith(COUNTED) and not key.endswith(b":nudge")  # it expires after half a second
    }

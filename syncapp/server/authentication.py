"""Authentication of connections: who may use one, with which rights, and until when.

A token comes with the handshake, or in an `AUTH` message, which also renews it. REST's is in `syncapp.api`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from flask import request

from syncapp.access import permissions
from syncapp.access.bearer import bearer_token
from syncapp.access.revocations import Revocations
from syncapp.access.tokens import Authenticator
from syncapp.domain.link_ids import link_epoch
from syncapp.domain.principal import ANYONE, Principal
from syncapp.domain.version_order import NEVER, Order
from syncapp.errors import Forbidden, Unauthorized, ValidationFailed
from syncapp.metrics import AUTH_REFUSED
from syncapp.server.admission import WatchRequest

AUTH_WITHIN_S = 10.0
"""How long a connection without a token may take to send one."""
MAX_BAD_TOKENS = 3
"""How many bad tokens in a row a connection may send."""
RECHECK_S = 60.0
"""A token's expiry is compared with the clock at least this often: the system's clock may have been set meanwhile."""
_NEEDED = "this connection needs a token: send AUTH with one"
LINK_IS_OLD = "the link is for an earlier session with this id"


@dataclass(frozen=True, slots=True)
class Gate:
    """Admits connections: verifies their tokens, and tells when these end. leeway_s: `AUTH_LEEWAY_S`."""

    authenticator: Authenticator
    revocations: Revocations
    leeway_s: float

    def access(self, asked: WatchRequest) -> Access:
        """Return the access of the request that opens a connection, by its token if it has one.

        asked: what it asks to watch, with the session as clients write it. Raises `Unauthorized`; `Forbidden` if the
        token does not allow watching that; `ValidationFailed` for two tokens.
        """
        if not self.authenticator.required:
            return _UNLIMITED
        token = bearer_token(request.environ.get("HTTP_AUTHORIZATION"), request.args.getlist("token"))
        access = TokenAccess(self, asked)
        if token is not None:
            access.authenticate(token)
            access.take_asked()
            if asked.session_id:
                access.check("watch", asked.session_id)
        return access

    def granted(self, principal: Principal) -> Access:
        """Return the access of a stream or a long poll, whose principal is known and may watch its session."""
        if not self.authenticator.required:
            return _UNLIMITED
        access = TokenAccess(self, WatchRequest("", NEVER, patches=False))
        access.accept(principal)
        return access

    def remaining_s(self, principal: Principal) -> float:
        """Return how long a principal's token is still valid (s); it may be negative."""
        return math.inf if principal.expires_s is None else principal.expires_s + self.leeway_s - time.time()


class Access:
    """The access of a connection with `AUTH=off`: all connections share one, which allows everything.

    principal: who uses the connection; None until a token has come. epoch: the only one that it may see of its session;
    None for all. due_s: when `end_reason` may change by itself (monotonic).
    """

    __slots__ = ()
    principal: Principal | None = ANYONE
    epoch: int | None = None
    due_s: float = math.inf
    has_failed: bool = False
    """Whether too many bad tokens have come."""

    def begin(self, on_end: Callable[[], None]) -> None:
        """Have `on_end` called, on any thread, when the access ends early."""

    def end(self) -> None:
        """End `begin`."""

    def end_reason(self) -> str | None:
        """Return why the access has ended, None if it has not."""
        return None

    def authenticate(self, token: str) -> Principal:
        """Take a token of the client. Raises `ValidationFailed`: none is needed."""
        raise ValidationFailed.of("type", "AUTH is not needed: this server runs with AUTH=off", "not_needed")

    def check(self, action: str, session_id: str) -> Principal:
        """Return the principal, who may do this on a session (a public id). Raises `Forbidden`, `Unauthorized`."""
        return ANYONE

    def check_valid(self) -> Principal:
        """Return the principal. Raises `Unauthorized` without a valid token."""
        return ANYONE

    def take_asked(self) -> WatchRequest | None:
        """Return what the client asked to watch before its first token came; None afterwards."""
        return None

    def admits(self, order: Order) -> bool:
        """Tell whether the client may see an update of its session with this order."""
        return True


_UNLIMITED = Access()


class TokenAccess(Access):
    """The access of one connection with `AUTH=required`."""

    __slots__ = ("_asked", "_bad_tokens", "_early_end", "_gate", "_on_end", "due_s", "epoch", "has_failed", "principal")

    def __init__(self, gate: Gate, asked: WatchRequest) -> None:
        self.principal = None
        self.epoch = None
        self._asked: WatchRequest | None = asked
        self.due_s = time.monotonic() + AUTH_WITHIN_S
        self.has_failed = False
        self._gate = gate
        self._bad_tokens = 0
        self._early_end = ""
        self._on_end: Callable[[], None] | None = None

    def begin(self, on_end: Callable[[], None]) -> None:
        """Have `on_end` called, on any thread, when the token is revoked."""
        self._on_end = on_end
        if self.principal:
            self._gate.revocations.listen(self.principal.jti, self._revoke)

    def end(self) -> None:
        """End `begin`."""
        self._unlisten()
        self._on_end = None  # it refers to the connection, which refers to this

    def end_reason(self) -> str | None:
        """Return why the access has ended, None if it has not: no token in time, expired or revoked."""
        if self._early_end:
            return self._early_end
        now_s = time.monotonic()
        if now_s < self.due_s:
            return None
        if self.principal is None:
            return "authentication is required"
        remaining_s = self._gate.remaining_s(self.principal)
        if remaining_s <= 0:
            return "the token has expired"
        self.due_s = now_s + min(remaining_s, RECHECK_S)
        return None

    def authenticate(self, token: str) -> Principal:
        """Take a token: the first one, or a renewal. Raises `Unauthorized`, and `Forbidden` for another principal.

        A refused renewal leaves the earlier token in force.
        """
        try:
            new = self._gate.authenticator.principal(token)
        except Unauthorized:
            AUTH_REFUSED.labels("invalid_token").inc()
            self._bad_tokens += 1
            self.has_failed = self._bad_tokens >= MAX_BAD_TOKENS
            raise
        old = self.principal
        if old and (old.tenant, old.sub) != (new.tenant, new.sub):
            AUTH_REFUSED.labels("principal").inc()
            message = "a token that renews must have the same tenant and sub; open another connection"
            raise Forbidden(message, {"reason": "principal"})
        self.accept(new)
        return new

    def accept(self, principal: Principal) -> None:
        """Take the principal of a token that was verified."""
        self._unlisten()
        self.principal, self.epoch = principal, link_epoch(principal)
        self._bad_tokens = 0
        self.due_s = time.monotonic() + min(self._gate.remaining_s(principal), RECHECK_S)
        if self._on_end:
            self.begin(self._on_end)

    def check(self, action: str, session_id: str) -> Principal:
        """Return the principal, who may do this. Raises `Forbidden`, and `Unauthorized` without a valid token."""
        principal = self.check_valid()
        permissions.check(principal, action, session_id)
        return principal

    def check_valid(self) -> Principal:
        """Return the principal. Raises `Unauthorized` without a valid token."""
        principal = self.principal
        if principal is None:
            AUTH_REFUSED.labels("missing_token").inc()
            raise Unauthorized(_NEEDED, {"reason": "missing_token"})
        if reason := self.end_reason():
            raise Unauthorized(reason, {"reason": "invalid_token"})
        return principal

    def take_asked(self) -> WatchRequest | None:
        """Return what the client asked to watch before its first token came; None afterwards."""
        asked, self._asked = self._asked, None
        return asked

    def admits(self, order: Order) -> bool:
        """Hide other lives of the session from a link; a later one ends it."""
        epoch = order[0]
        if self.epoch is None or epoch in (self.epoch, NEVER[0]):
            return True
        if epoch > self.epoch:
            self._end_early(LINK_IS_OLD)
        return False

    def _unlisten(self) -> None:
        if self.principal:
            self._gate.revocations.unlisten(self.principal.jti, self._revoke)

    def _revoke(self) -> None:
        self._end_early("the link was revoked")

    def _end_early(self, reason: str) -> None:
        self._early_end = reason
        if self._on_end:
            self._on_end()

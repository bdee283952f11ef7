"""The principal: who calls, for which tenant, and with which rights. Tokens state it (`syncapp.access.tokens`)."""

from __future__ import annotations

import re

from msgspec import Struct

DEFAULT_TENANT = "default"
"""Tenant of tokens that name none, of callers without authentication, and of data from before there were tenants."""
TENANT_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
MAX_SUB = 128
"""Maximum characters of a principal's id."""
SCOPES = {
    "session:create": "Create sessions.",
    "session:watch": "Read and watch sessions.",
    "session:act": "Switch; with `participant_id`, only in that participant's turn. Includes `session:watch`.",
    "session:control": "Start, pause, resume, adjust, complete, cancel and update sessions, switch for everyone, "
    "manage links; includes `session:act`.",
    "session:delete": "Delete sessions, and erase them from the audit log.",
    "session:time": "With `session:act`: state when a participant acted (`acted_at_ms`), for lag compensation.",
    "history:read": "Read the audit log: events, earlier states, statistics and exports.",
    "webhook:manage": "Reserved for later; allows nothing yet. Meant for managing webhooks.",
    "admin": "Everything, in this tenant; and the service's metrics, audit queue and health.",
}
"""All scopes, and what each allows."""
RESERVED_SCOPES = ("webhook:manage",)
"""Scopes that no action needs yet."""
_IMPLIED = {
    "session:act": frozenset({"session:watch"}),
    "session:control": frozenset({"session:act", "session:watch"}),
    "admin": frozenset(SCOPES),
}
_TENANT = re.compile(TENANT_PATTERN.removesuffix("$") + r"\Z")


def is_tenant(text: str) -> bool:
    """Return whether a text can be the name of a tenant."""
    return _TENANT.match(text) is not None


def with_implied(scopes: frozenset[str]) -> frozenset[str]:
    """Return scopes and all that they include."""
    return scopes.union(*(_IMPLIED[scope] for scope in scopes & _IMPLIED.keys()))


class Principal(Struct, frozen=True):
    """Who calls.

    sub: the id of the principal, 1 to 128 characters; '' without authentication. scopes: including the implied ones
    (`with_implied`). session_id: the only session that it may use, as clients write it; None for all of the tenant.
    participant_id: the only participant that it may act as; None for all. jti: the id of its token; '' if it has none.
    expires_s: when its token expires, in seconds since 1970; None without a token. is_link: whether it is
    a link's token (`POST /v1/sessions/{id}/links`).
    """

    sub: str = ""
    tenant: str = DEFAULT_TENANT
    scopes: frozenset[str] = frozenset()
    session_id: str | None = None
    participant_id: str | None = None
    jti: str = ""
    expires_s: int | None = None
    is_link: bool = False


ANYONE = Principal(scopes=frozenset(SCOPES))
"""Every caller, with `AUTH=off`."""
NOBODY = Principal()
"""A caller that has shown no token yet, with `AUTH=required`."""

"""Ids of sessions: what clients write, what the store uses, and what the audit log uses.

- Clients write a UUID. It belongs to the tenant of their token: the same UUID is another session in another tenant.
- The store uses the **qualified id**: the UUID itself in tenant `default`, `tenant/UUID` in every other. Keys,
  channels, deadlines and caches are made from it, so the sessions of two tenants can never meet. Wherever the code
  says `session_id`, it is the qualified id, except where clients read or write it.
- The audit log uses the **log id**, which is a UUID too. In tenant `default` it is the session's own id, in every other
  a hash of the qualified id. So the log's keys stay what they were before there were tenants, and are unique over all
  tenants.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256
from uuid import UUID

from syncapp.domain.principal import DEFAULT_TENANT


def qualified(tenant: str, session_id: str) -> str:
    """Return the qualified id of a tenant's session."""
    return session_id if tenant == DEFAULT_TENANT else f"{tenant}/{session_id}"


def public_id(session_id: str) -> str:
    """Return the id that clients use, from the qualified id."""
    return session_id.rpartition("/")[2]


def tenant_of(session_id: str) -> str:
    """Return the tenant of a session, from its qualified id."""
    return session_id.rpartition("/")[0] or DEFAULT_TENANT


@lru_cache(maxsize=4096)
def log_id(session_id: str) -> str:
    """Return the log id of a session, from its qualified id.

    A hashed id has version 15 and variant 12, which no generator of UUIDs makes. An id of tenant `default` that has
    them all the same is hashed too, so that it cannot be the log id of another tenant's session.
    """
    if "/" not in session_id and not is_hashed(session_id):
        return session_id
    digest = sha256(f"{tenant_of(session_id)}/{public_id(session_id)}".encode()).hexdigest()
    return str(UUID(f"{digest[:12]}f{digest[13:16]}c{digest[17:32]}"))


def is_hashed(log_id: str) -> bool:
    """Return whether a UUID has the form of a hashed log id."""
    return log_id[14:15] == "f" and log_id[19:20] == "c"

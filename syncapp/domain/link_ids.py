"""Ids of links (`jti`): each begins with the epoch of the session that the link is for.

So a link belongs to one life of a session: it does not open a later session with the same id, whatever became of the
record that lists it, and a restored session needs new links. Ids have 24 of `A-Z a-z 0-9 - _`, of which 16 are random
(96 bits).
"""

from __future__ import annotations

import re
import secrets
from base64 import urlsafe_b64decode, urlsafe_b64encode
from functools import lru_cache

from syncapp.domain.principal import Principal

MAX_LIFETIME_S = 30 * 86_400
"""Maximum lifetime of a link."""
LENGTH = 24
_ID = re.compile(rf"[A-Za-z0-9_-]{{{LENGTH}}}\Z", re.ASCII)
_EPOCH_BYTES, _RANDOM_BYTES = 6, 12
_NO_EPOCH = -1
"""The epoch of no session: a link whose id names none opens nothing."""


def new_link_id(epoch: int) -> str:
    """Return a new id of a link for the session with this epoch."""
    return urlsafe_b64encode(epoch.to_bytes(_EPOCH_BYTES) + secrets.token_bytes(_RANDOM_BYTES)).decode()


def link_epoch(principal: Principal) -> int | None:
    """Return the only epoch in which a link's principal may use its session; None for every other principal."""
    return epoch_of(principal.jti) if principal.is_link else None


@lru_cache(maxsize=4096)
def epoch_of(link_id: str) -> int:
    """Return the epoch in a link's id; -1 if the text is not a link's id."""
    return int.from_bytes(urlsafe_b64decode(link_id)[:_EPOCH_BYTES]) if _ID.match(link_id) else _NO_EPOCH

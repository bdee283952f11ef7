"""What goes into a command and comes out of it, as values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from msgspec import Struct

from syncapp.domain.session import Session


class Claim(Struct, frozen=True):
    """What a caller claims about the session it acts on, and how the command is known.

    expected_epoch, expected_version: when given, any other is refused (compare-and-set).
    idempotency_key: 1-128 visible characters; the same key again does nothing more.
    request_id: goes into the audit trail; letters, digits, `.`, `_` and `-`.
    """

    expected_epoch: int | None = None
    expected_version: int | None = None
    idempotency_key: str | None = None
    request_id: str = ""


NO_CLAIM = Claim()


class Result(Struct, frozen=True):
    """What a command or a read found.

    session: the state after it, or None when it is deleted. now_ms: the server's time it is shown at.
    event_json, patch_json: of its commit, as text, because few callers want them; '' when nothing had to be
    committed. expired_participant_id: who was found to have run out of time. replayed: the command was carried out
    before under the same idempotency key. Then the session is the present one, the rest is of the first result:
    first, its (epoch, version), None after a delete; event_json and patch_json, '' if they were too long to keep.
    """

    session: Session | None
    now_ms: int
    event_json: str = ""
    patch_json: str = ""
    replayed: bool = False
    expired_participant_id: str | None = None
    first: tuple[int, int] | None = None

    @property
    def order(self) -> tuple[int, int] | None:
        """The (epoch, version) after the command; None after a delete."""
        return self.first or (self.session.order if self.session else None)

    @property
    def event(self) -> Mapping[str, Any] | None:
        """The event of its commit; None when nothing had to be committed."""
        return orjson.loads(self.event_json) if self.event_json else None

    @property
    def patch(self) -> Mapping[str, Any] | None:
        """What its commit changed; None when nothing had to be committed."""
        return orjson.loads(self.patch_json) if self.patch_json else None

    @property
    def found(self) -> Session:
        """The session of every result but that of a delete."""
        if self.session is None:
            raise LookupError("this result has no session")
        return self.session


class ExpiryResult(Struct, frozen=True):
    """What an expiry applied: the server's time in ms, and the instants (ms) at which it took effect.

    more: more is due than one call applies.
    """

    now_ms: int
    instants_ms: tuple[int, ...]
    more: bool


class SessionPosition(Struct, frozen=True):
    """Where a session is, and the hash of its newest message."""

    epoch: int
    version: int
    chain: str

    @property
    def order(self) -> tuple[int, int]:
        """(epoch, version)."""
        return (self.epoch, self.version)

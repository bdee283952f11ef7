"""The message of a commit, as lua/_message.lua writes it into an outbox (docs/protocol.md), and its private parts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.json import Decoder

from syncapp.domain.principal import DEFAULT_TENANT

Parts = Mapping[str, tuple[str, Raw]]
"""The salt and the JSON text of private parts by name."""

_MAX_INSTANT_MS = 253_402_300_800_000  # the year 10,000
_Instant = Annotated[int, Meta(ge=0, lt=_MAX_INSTANT_MS)]
_Number = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class CommitEvent(Struct, gc=False):
    """The members of a message's `event` that have columns of their own."""

    type: str
    at_ms: _Instant
    participant_id: str | None = None
    next_participant_id: str | None = None
    group_id: str | None = None
    remaining_ms: _Number | None = None


class CommitMessage(Struct, gc=False):
    """A message; its patch stays text."""

    session_id: str
    epoch: _Number
    version: _Number
    sync_mode: str
    status: str
    cycle_count: _Number
    elapsed_ms: _Number | None
    actor: str
    request_id: str
    previous: str
    event: CommitEvent
    patch: Raw
    snapshot: list[str] | UnsetType = UNSET
    tenant: str = DEFAULT_TENANT
    tenant_session_id: str | None = None
    jti: str | None = None
    private: dict[str, str] | None = None


class PatchedParticipant(Struct, gc=False):
    """A participant in a patch; its members are in the order of Usage."""

    time_used_ms: _Number
    time_remaining_ms: _Number | None
    cycle_count: _Number
    has_expired: bool
    is_active: bool


class CommitPatch(Struct, gc=False):
    """The members of a patch that totals need, and the instants, which are checked."""

    updated_ms: _Instant | None = None
    cycle_started_ms: _Instant | None = None
    session_started_ms: _Instant | None = None
    session_completed_ms: _Instant | None = None
    metadata: Raw | UnsetType = UNSET
    participants: dict[str, PatchedParticipant] = {}


read_message = Decoder(CommitMessage).decode
read_patch = Decoder(CommitPatch).decode
read_parts = Decoder(dict[str, tuple[str, Raw]]).decode

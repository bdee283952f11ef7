"""An audit event as a value: read from the message that a commit left in its outbox.

The message is JSON text made by lua/_message.lua; `docs/protocol.md` is its dictionary. A drain reads a hundred
thousand of them in a few seconds: what is made for each is made once, and flat, and its patch is passed on as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from operator import itemgetter
from typing import Annotated, Any, NamedTuple, Self
from uuid import UUID

import orjson
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from msgspec.json import Decoder
from msgspec.structs import astuple

from syncapp.audit.copy_format import COLUMNS, copied_row
from syncapp.domain.instants import iso
from syncapp.domain.session import Session
from syncapp.domain.session_layout import BLOCKS, DEFINITION, SCALARS, TAGS, parted, values_of_snapshot

Row = dict[str, Any]
"""Column values by name, as JSON; instants are ISO 8601 text, exact to the millisecond."""
NEWEST = ("sync_mode", "status", "cycle_count")
SETTLED = ("time_used_ms", "time_remaining_ms", "cycle_count", "has_expired")
GRANTED = ("participant_index", "total_time_ms")
Settled = tuple[int, int | None, int, bool, bool]
"""Values of SETTLED, and whether the participant is active."""
Granted = tuple[int, int | None]
_settled = itemgetter(*SETTLED, "is_active")
_granted = itemgetter(*GRANTED)

_LATEST_MS = 253_402_300_800_000  # the year 10,000
_AT = COLUMNS.index("at")

_Instant = Annotated[int, Meta(ge=0, lt=_LATEST_MS)]
_Number = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]


class _Happened(Struct, gc=False):
    """The members of a message's `event` that have columns."""

    type: str
    at_ms: _Instant
    participant_id: str | None = None
    next_participant_id: str | None = None
    group_id: str | None = None
    remaining_ms: _Number | None = None


class _Message(Struct, gc=False):
    """A message, its patch as text."""

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
    event: _Happened
    patch: Raw
    snapshot: list[str] | UnsetType = UNSET


class _Person(Struct, gc=False):
    """What a patch tells of a participant, in the order of Settled."""

    time_used_ms: _Number
    time_remaining_ms: _Number | None
    cycle_count: _Number
    has_expired: bool
    is_active: bool


class _Patch(Struct, gc=False):
    """The members of a patch that the totals are made of, and those that are shown as instants."""

    updated_ms: _Instant | None = None
    cycle_started_ms: _Instant | None = None
    session_started_ms: _Instant | None = None
    session_completed_ms: _Instant | None = None
    metadata: Raw | UnsetType = UNSET
    participants: dict[str, _Person] = {}


_read_message = Decoder(_Message).decode
_read_patch = Decoder(_Patch).decode


class OutboxEntry(NamedTuple):
    """One entry of a bucket's outbox stream; raw is None when it was deleted while it was pending."""

    bucket: int
    stream_id: str
    raw: bytes | None


class AuditEvent(NamedTuple):
    """What a message tells; one commit of one session.

    copied: its row of `sync_events` as a tuple of binary COPY. at_ms: when it took effect. newest: values of NEWEST.
    told: what only some commits tell of their session. people: of each participant that it tells of, what is settled;
    and what was granted, if it tells that.
    """

    entry: OutboxEntry
    key: tuple[str, int, int]
    content_hash: bytes
    copied: bytes
    at_ms: int
    newest: tuple[str, str, int]
    told: Row
    people: list[tuple[str, Settled, Granted | None]]

    @classmethod
    def parse(cls, entry: OutboxEntry) -> Self:
        """Read an entry's message. A message that is none raises whatever it trips over."""
        raw = entry.raw or b""
        message = _read_message(raw)
        patch = _read_patch(message.patch)
        whole, document, record = _whole_state(message)
        metadata = None if patch.metadata is UNSET else orjson.loads(bytes(patch.metadata))
        content_hash = sha256(raw).digest()
        values = _values(message, content_hash)
        told = _told_by_patch(message, patch, metadata)
        people: list[tuple[str, Settled, Granted | None]]
        if whole and document:
            told = _told_by_state(whole) | told
            states = document["participants"]
            people = [(person["participant_id"], _settled(person), _granted(person)) for person in states]
        else:
            people = [(name, astuple(person), None) for name, person in patch.participants.items()]
        copied = copied_row(values, (metadata, document, record), bytes(message.patch), raw)
        newest = (message.sync_mode, message.status, message.cycle_count)
        return cls(entry, values[:3], content_hash, copied, message.event.at_ms, newest, told, people)

    @property
    def row(self) -> Row:
        """Its row of `sync_events` by names, but for the message itself."""
        message = _read_message(self.entry.raw or b"")
        patch = orjson.loads(bytes(message.patch))
        *values, previous, content_hash = _values(message, self.content_hash)
        values[_AT] = iso(self.at_ms)
        values += [previous and hex_of(previous), hex_of(content_hash)]
        values += [patch.get("metadata"), patch, *_whole_state(message)[1:]]
        return dict(zip(COLUMNS, values, strict=False))


def _whole_state(message: _Message) -> tuple[Session | None, Row | None, Row | None]:
    """Return what a message with a snapshot tells: the session, its document, and its record."""
    snapshot = message.snapshot
    if isinstance(snapshot, UnsetType):
        return None, None, None
    whole = Session.from_snapshot(message.session_id, snapshot)
    return whole, whole.state(message.event.at_ms), _record(snapshot)


def _values(message: _Message, content_hash: bytes) -> tuple[Any, ...]:
    """Return the row of a message in the order of COLUMNS, as far as it is not JSON; the instant in ms."""
    event = message.event
    return (
        _uuid(message.session_id),
        message.epoch,
        message.version,
        event.type,
        event.at_ms,
        message.sync_mode,
        message.status,
        message.cycle_count,
        event.participant_id,
        event.next_participant_id,
        event.group_id,
        event.remaining_ms,
        message.elapsed_ms,
        message.actor,
        message.request_id or None,
        bytes.fromhex(message.previous) or None,
        content_hash,
    )


def _told_by_patch(message: _Message, patch: _Patch, metadata: Any) -> Row:
    """Return what only some commits tell of their session."""
    told: Row = {}
    if message.status == "deleted":
        told["deleted_at"] = iso(message.event.at_ms)
    if patch.session_started_ms is not None:
        told["started_at"] = iso(patch.session_started_ms)
    if patch.session_completed_ms is not None:
        told["completed_at"] = iso(patch.session_completed_ms)
    if patch.metadata is not UNSET:
        told |= {"metadata": metadata, "metadata_version": message.version}
    return told


def _told_by_state(whole: Session) -> Row:
    """Return what a whole state tells of its session."""
    told = {
        "participant_count": len(whole.participants),
        "total_time_ms": whole.definition.total_time_ms,
        "created_at": iso(whole.created_ms),
        "started_at": iso(whole.session_started_ms),
        "completed_at": iso(whole.session_completed_ms),
        "metadata": whole.metadata,
        "metadata_version": whole.metadata_version,
    }
    return {name: value for name, value in told.items() if value is not None}


def _record(snapshot: Sequence[str]) -> Row:
    """Return a snapshot by names."""
    values = values_of_snapshot(snapshot)
    completion = parted(values[TAGS])[1]
    return (
        dict(zip(SCALARS, values, strict=False))
        | {
            "metadata": values[DEFINITION - 1],
            "definition": values[DEFINITION],
            "participants": "".join(values[BLOCKS:]),
        }
        | ({"completion": completion} if completion else {})
    )


@lru_cache(4096)
def _uuid(text: str) -> str:
    return str(UUID(text))


def hex_of(value: bytes) -> str:
    """Return bytes as PostgreSQL shows them."""
    return rf"\x{value.hex()}"

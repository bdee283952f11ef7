"""An audit event as a value, parsed from the message that a commit left in its outbox.

lua/_message.lua writes the message as JSON text; `docs/protocol.md` lists its members. A drain parses 100,000 messages
in a few seconds, so each value is made once and kept flat, and the patch is passed on as text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple, Self
from uuid import UUID

import orjson
from msgspec import UNSET, Raw, UnsetType
from msgspec.structs import astuple

from syncapp.audit.copy_format import COLUMNS, copied_row
from syncapp.audit.message import CommitMessage, CommitPatch, Parts, read_message, read_parts, read_patch
from syncapp.domain.definition import Definition
from syncapp.domain.instants import iso
from syncapp.domain.modes import MODES
from syncapp.domain.private_parts import sets_metadata, split_entry
from syncapp.domain.records import split_blocks
from syncapp.domain.session import Session
from syncapp.domain.session_layout import BLOCKS, DEFINITION, SCALARS, TAGS, split_tags, values_of_snapshot

Row = dict[str, Any]
"""Column values by name, as JSON; instants are ISO 8601 text, exact to the millisecond."""
NEWEST = ("sync_mode", "status", "cycle_count", "tenant", "tenant_session_id")
"""Columns of `sync_sessions` that every commit sets."""
USAGE = ("time_used_ms", "time_remaining_ms", "cycle_count", "has_expired")
GRANT = ("participant_index", "total_time_ms")
Usage = tuple[int, int | None, int, bool, bool]
"""A participant's values of USAGE, and whether the participant is active."""
Grant = tuple[int, int | None]
"""A participant's values of GRANT, which only a snapshot has."""
ParticipantTotals = tuple[str, Usage, Grant | None]
"""A participant's id and values; GRANT is None if the message does not have it."""
_NO_PARTS: Parts = {}
_NO_DIGESTS: Mapping[str, str] = {}


class OutboxEntry(NamedTuple):
    """One entry of a bucket's outbox stream; `raw` is None if the entry was deleted while it was pending."""

    bucket: int
    stream_id: str
    raw: bytes | None


class AuditEvent(NamedTuple):
    """One commit of one session.

    copied: its row of `sync_events` in binary COPY format, in parts. at_ms: when the commit took effect. newest: its
    values of NEWEST. session_columns: columns of `sync_sessions` that only some commits set. participants: the totals
    of each participant that the commit changed; of all participants if the message has a snapshot. digests: of its
    private parts. parts: the salt and the JSON text of each part that the entry has.
    """

    entry: OutboxEntry
    key: tuple[str, int, int]
    content_hash: bytes
    copied: tuple[bytes | Raw, ...]
    at_ms: int
    newest: tuple[str, str, int, str, str | None]
    session_columns: Row
    participants: list[ParticipantTotals]
    digests: Mapping[str, str]
    parts: Parts

    @classmethod
    def parse(cls, entry: OutboxEntry) -> Self:
        """Parse an entry's message. An invalid message raises whatever exception its parsing raises."""
        raw, private = split_entry(entry.raw or b"")
        message, parts = read_message(raw), read_parts(private) if private else _NO_PARTS
        patch = read_patch(message.patch)
        session = None if message.snapshot is UNSET else _session_in(message)
        metadata = None if patch.metadata is UNSET else orjson.loads(bytes(patch.metadata))
        content_hash = sha256(raw).digest()
        values = _values(message, content_hash, parts)
        columns = _columns_from_patch(message, patch, metadata)
        participants: list[ParticipantTotals]
        if session is None:
            snapshot = record = None
            participants = [(name, astuple(usage), None) for name, usage in patch.participants.items()]
        else:
            snapshot, record = _snapshot_columns(message, session)
            columns = _columns_from_session(session) | columns
            participants = _participants_from_session(session)
        if message.private:
            columns |= _columns_from_parts(message, message.private, session, parts)
        copied = copied_row(values, (metadata, snapshot, record), message.patch, raw, private)
        newest = (message.sync_mode, message.status, message.cycle_count, message.tenant, message.tenant_session_id)
        at_ms, digests = message.event.at_ms, message.private or _NO_DIGESTS
        return cls(entry, values[:3], content_hash, copied, at_ms, newest, columns, participants, digests, parts)

    @property
    def row(self) -> Row:
        """Its row of `sync_events` by column name, without the message itself and its private parts."""
        message = read_message(split_entry(self.entry.raw or b"")[0])
        patch = orjson.loads(bytes(message.patch))
        values = [*_values(message, self.content_hash, self.parts), patch.get("metadata"), patch]
        values += _snapshot_columns(message, _session_in(message))
        row = dict(zip(COLUMNS, values, strict=False)) | {"at": iso(self.at_ms)}
        return row | {name: row[name] and hex_of(row[name]) for name in ("previous_hash", "content_hash")}


def _session_in(message: CommitMessage) -> Session | None:
    """Return the session in a message's snapshot; None without a snapshot."""
    snapshot = message.snapshot
    return None if isinstance(snapshot, UnsetType) else Session.from_snapshot(message.session_id, snapshot)


def _snapshot_columns(message: CommitMessage, session: Session | None) -> tuple[Row | None, Row | None]:
    """Return the columns `snapshot` and `record` of a message whose snapshot holds this session."""
    snapshot = message.snapshot
    if session is None or isinstance(snapshot, UnsetType):
        return None, None
    return session.state(message.event.at_ms), _record(snapshot)


def _values(message: CommitMessage, content_hash: bytes, parts: Parts) -> tuple[Any, ...]:
    """Return the columns of a message that are not JSON, in the order of COLUMNS; the instant is in ms."""
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
        message.tenant,
        message.tenant_session_id,
        _principal_in(parts) if parts else None,
        message.jti,
    )


def _principal_in(parts: Parts) -> str | None:
    """Return the principal, if it is among the parts; PostgreSQL's text has no NUL."""
    return str(orjson.loads(bytes(parts["principal"][1]))).replace("\0", "\ufffd") if "principal" in parts else None


def _columns_from_parts(
    message: CommitMessage, digests: Mapping[str, str], session: Session | None, parts: Parts
) -> Row:
    """Return the columns of `sync_sessions` from private parts; the metadata are None if their part was erased."""
    columns: Row = {}
    if "metadata" in digests:
        sets_it = sets_metadata(message.event.type)
        if session or sets_it:
            columns["metadata"] = orjson.loads(bytes(parts["metadata"][1])) if "metadata" in parts else None
        if sets_it:
            columns["metadata_version"] = message.version
    if message.event.type == "session_created" and "principal" in parts:
        columns["principal"] = _principal_in(parts)
    return columns


def _columns_from_patch(message: CommitMessage, patch: CommitPatch, metadata: Any) -> Row:
    """Return the columns of `sync_sessions` that only some commits set, from a commit's patch."""
    columns: Row = {}
    if message.status == "deleted":
        columns["deleted_at"] = iso(message.event.at_ms)
    if patch.session_started_ms is not None:
        columns["started_at"] = iso(patch.session_started_ms)
    if patch.session_completed_ms is not None:
        columns["completed_at"] = iso(patch.session_completed_ms)
    if patch.metadata is not UNSET:
        columns |= {"metadata": metadata, "metadata_version": message.version}
    return columns


def _columns_from_session(session: Session) -> Row:
    """Return the columns of `sync_sessions` that only some commits set, from a snapshot's session."""
    columns = {
        "participant_count": len(session.participants),
        "total_time_ms": session.definition.total_time_ms,
        "created_at": iso(session.created_ms),
        "started_at": iso(session.session_started_ms),
        "completed_at": iso(session.session_completed_ms),
        "metadata": session.metadata,
        "metadata_version": session.metadata_version,
    }
    return {name: value for name, value in columns.items() if value is not None}


def _participants_from_session(session: Session) -> list[ParticipantTotals]:
    """Return the totals of every participant of a session."""
    active, definition = session.active_index, session.definition
    has_budget = MODES[session.sync_mode].has_participant_budgets
    totals: list[ParticipantTotals] = []
    for index, (name, budget_ms, participant) in enumerate(
        zip(definition.participant_ids, definition.budgets_ms, session.participants, strict=True)
    ):
        remaining_ms = participant.time_remaining_ms if has_budget else None
        usage = (
            participant.time_used_ms,
            remaining_ms,
            participant.cycle_count,
            participant.has_expired,
            index == active,
        )
        totals.append((name, usage, (index, budget_ms)))
    return totals


def _record(snapshot: Sequence[str]) -> Row:
    """Return a snapshot with its parts by name: the column `record`."""
    values = values_of_snapshot(snapshot)
    completion = split_tags(values[TAGS])[1]
    records, clocks = split_blocks(Definition.from_json(values[DEFINITION]), values[BLOCKS:])
    return (
        dict(zip(SCALARS, values, strict=False))
        | {
            "metadata": values[DEFINITION - 1],
            "definition": values[DEFINITION],
            "participants": "".join(records),
        }
        | ({"clocks": "".join(clocks)} if clocks else {})
        | ({"completion": completion} if completion else {})
    )


@lru_cache(4096)
def _uuid(text: str) -> str:
    return str(UUID(text))


def hex_of(value: bytes) -> str:
    """Return bytes in the text format of PostgreSQL's `bytea`."""
    return rf"\x{value.hex()}"

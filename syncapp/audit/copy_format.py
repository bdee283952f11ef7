"""Rows of `sync_events` in binary COPY format, which needs no escaping and no parsing by PostgreSQL.

Each value follows its length; a length of -1 is null. Instants are µs since 2000-01-01 UTC
(https://www.postgresql.org/docs/current/sql-copy.html, "Binary Format").
"""

from __future__ import annotations

import struct
from functools import lru_cache
from typing import Any
from uuid import UUID

import orjson

COLUMNS = (
    *("session_id", "epoch", "version", "event_type", "at", "sync_mode", "status", "cycle_count", "participant_id"),
    *("next_participant_id", "group_id", "remaining_ms", "elapsed_ms", "actor", "request_id"),
    *("previous_hash", "content_hash", "tenant", "tenant_session_id", "principal", "jti"),
    *("metadata", "patch", "snapshot", "record", "message", "private"),
)
"""The columns of `sync_events` that a row sets, in this order; the last six are JSON."""
COPY_BEGIN = b"PGCOPY\n\xff\r\n\0" + bytes(8)
COPY_END = b"\xff\xff"
_NULL = b"\xff\xff\xff\xff"
_JSONB = b"\x01"  # the version of the jsonb format
_EPOCH_MS = 946_684_800_000
_key = struct.Struct(">hi16siqiq").pack
_number = struct.Struct(">iq").pack
_length = struct.Struct(">i").pack


def copied_row(
    values: tuple[Any, ...], documents: tuple[Any, Any, Any], patch: bytes, message: bytes, private: bytes | None
) -> bytes:
    """Return a row in binary COPY format.

    values: the columns that are not JSON, the instant in ms. documents: metadata, snapshot, record. patch, message,
    private: the patch, the whole message and its private parts as JSON text.
    """
    (session_id, epoch, version, event_type, at_ms, mode, status, cycle_count, *others) = values
    participant_id, next_id, group_id, remaining_ms, elapsed_ms, actor, request_id, *others = others
    previous, content_hash, tenant, tenant_session_id, principal, jti = others
    metadata, snapshot, record = [
        _NULL if document is None else _sized(_JSONB + orjson.dumps(document)) for document in documents
    ]
    return b"".join(
        (
            _key(len(COLUMNS), 16, _uuid_bytes(session_id), 8, epoch, 8, version),
            _text(event_type),
            _number(8, (at_ms - _EPOCH_MS) * 1000),
            _text(mode),
            _text(status),
            _number(8, cycle_count),
            _text(participant_id),
            _text(next_id),
            _text(group_id),
            _NULL if remaining_ms is None else _number(8, remaining_ms),
            _NULL if elapsed_ms is None else _number(8, elapsed_ms),
            _text(actor),
            _NULL if request_id is None else _sized(request_id.encode()),
            _NULL if previous is None else _sized(previous),
            _sized(content_hash),
            _caller(tenant, tenant_session_id, principal, jti),
            metadata,
            _length(len(patch) + 1),
            _JSONB,
            patch,
            snapshot,
            record,
            _length(len(message)),
            message,
            _NULL if private is None else _sized(private),
        )
    )


def _sized(value: bytes) -> bytes:
    return _length(len(value)) + value


@lru_cache(4096)
def _caller(tenant: str, tenant_session_id: str | None, principal: str | None, jti: str | None) -> bytes:
    public_id = _NULL if tenant_session_id is None else _sized(_uuid_bytes(tenant_session_id))
    return _text(tenant) + public_id + _text(principal) + _text(jti)


@lru_cache(4096)
def _text(text: str | None) -> bytes:
    return _NULL if text is None else _sized(text.encode())


@lru_cache(4096)
def _uuid_bytes(text: str) -> bytes:
    return UUID(text).bytes

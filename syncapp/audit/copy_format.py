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
from msgspec import Raw

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
_NO_STATE = 2 * _NULL
_JSONB = b"\x01"  # the version of the jsonb format
_EPOCH_MS = 946_684_800_000
_key = struct.Struct(">hi16siqiq").pack
_number = struct.Struct(">iq").pack
_length = struct.Struct(">i").pack
_jsonb = struct.Struct(">ic").pack
_hash = struct.Struct(">i32s").pack


def copied_row(
    values: tuple[Any, ...], documents: tuple[Any, Any, Any], patch: Raw, message: bytes, private: bytes | None
) -> tuple[bytes | Raw, ...]:
    """Return a row in binary COPY format, in parts, so that the long texts are copied only once, into the batch.

    values: the columns that are not JSON, the instant in ms. documents: metadata, snapshot, record. patch, message,
    private: the patch, the whole message and its private parts as JSON text.
    """
    session_id, epoch, version, event_type, at_ms, mode, status, cycle_count = values[:8]
    participant_id, next_id, group_id, remaining_ms, elapsed_ms, actor, request_id = values[8:15]
    previous, content_hash, tenant, tenant_session_id, principal, jti = values[15:]
    metadata, snapshot, record = documents
    before = (
        _key(len(COLUMNS), 16, _uuid_bytes(session_id), 8, epoch, 8, version),
        _texts(event_type),
        _number(8, (at_ms - _EPOCH_MS) * 1000),
        _texts(mode, status),
        _number(8, cycle_count),
        _texts(participant_id, next_id, group_id),
        _NULL if remaining_ms is None else _number(8, remaining_ms),
        _NULL if elapsed_ms is None else _number(8, elapsed_ms),
        _texts(actor),
        _NULL if request_id is None else _sized(request_id.encode()),
        _NULL if previous is None else _sized(previous),
        _hash(32, content_hash),
        _caller(tenant, tenant_session_id, principal, jti),
        _NULL if metadata is None else _document(metadata),
        _jsonb(len(memoryview(patch)) + 1, _JSONB),
    )
    state = _NO_STATE if snapshot is None else _document(snapshot) + _document(record)
    end = _NULL if private is None else _sized(private)
    return b"".join(before), patch, state + _length(len(message)), message, end


def _sized(value: bytes) -> bytes:
    return _length(len(value)) + value


def _document(value: Any) -> bytes:
    return _sized(_JSONB + orjson.dumps(value))


@lru_cache(4096)
def _caller(tenant: str, tenant_session_id: str | None, principal: str | None, jti: str | None) -> bytes:
    public_id = _NULL if tenant_session_id is None else _sized(_uuid_bytes(tenant_session_id))
    return _texts(tenant) + public_id + _texts(principal, jti)


@lru_cache(4096)
def _texts(*texts: str | None) -> bytes:
    return b"".join([_NULL if text is None else _sized(text.encode()) for text in texts])


@lru_cache(4096)
def _uuid_bytes(text: str) -> bytes:
    return UUID(text).bytes

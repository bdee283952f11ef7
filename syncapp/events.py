"""An audit event as a value: read from the message that a commit left in its outbox.

The message is JSON text made by lua/_message.lua; `docs/protocol.md` is its dictionary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any, Self
from uuid import UUID

import orjson

from syncapp.state import BLOCKS, DEFINITION, SCALARS, Session, iso, public_patch

Row = dict[str, Any]
"""Column values by name, as JSON; instants are ISO 8601 text, exact to the millisecond."""
COLUMNS = (
    *("session_id", "epoch", "version", "event_type", "at", "sync_mode", "status", "cycle_count", "participant_id"),
    *("next_participant_id", "group_id", "remaining_ms", "elapsed_ms", "actor", "request_id", "metadata", "patch"),
    *("snapshot", "record", "previous_hash", "content_hash", "message"),
)
"""What a row of `sync_events` is written with, in this order."""
_SETTLED = ("time_used_ms", "time_remaining_ms", "cycle_count", "has_expired")
_GRANTED = ("participant_index", "total_time_ms")


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a bucket's outbox stream; raw is None when it was deleted while it was pending."""

    bucket: int
    stream_id: str
    raw: bytes | None


@dataclass(frozen=True, slots=True)
class Event:
    """What a message tells; one commit of one session.

    row: its row of `sync_events`, but for the message itself. line: the whole of that row as COPY reads it. session,
    participants: what it tells of the rows of its session and of participants; what it does not tell is absent.
    """

    entry: Entry
    key: tuple[str, int, int]
    content_hash: bytes
    row: Row
    line: bytes
    session: Row
    participants: tuple[Row, ...]

    @classmethod
    def parse(cls, entry: Entry) -> Self:
        """Read an entry's message. A message that is none raises whatever it trips over."""
        raw = entry.raw or b""
        message = orjson.loads(raw)
        key = (_uuid(message["session_id"]), _whole(message["epoch"]), _whole(message["version"]))
        at = iso(_whole(message["event"]["at_ms"]))
        content_hash = sha256(raw).digest()
        snapshot = message.get("snapshot")
        whole = Session.from_snapshot(key[0], snapshot) if snapshot else None
        common: Row = {"session_id": key[0], "epoch": key[1], "version": key[2]}
        row = common | _event_columns(message, at, whole)
        row |= {"previous_hash": _bytes(message["previous"] or None), "content_hash": _bytes(content_hash.hex())}
        session = (
            common
            | {"content_hash": row["content_hash"]}
            | {name: value for name, value in _session_columns(message, at, whole) if value is not None}
        )
        people = tuple(common | columns for columns in _participant_columns(message, at, whole))
        return cls(entry, key, content_hash, row, _line(row, raw), session, people)


def _event_columns(message: Mapping[str, Any], at: str | None, whole: Session | None) -> Row:
    event, patch = message["event"], message["patch"]
    return {
        "event_type": event["type"],
        "at": at,
        "sync_mode": message["sync_mode"],
        "status": message["status"],
        "cycle_count": message["cycle_count"],
        "participant_id": event.get("participant_id"),
        "next_participant_id": event.get("next_participant_id"),
        "group_id": event.get("group_id"),
        "remaining_ms": event.get("remaining_ms"),
        "elapsed_ms": message.get("elapsed_ms"),
        "actor": message["actor"],
        "request_id": message.get("request_id") or None,
        "metadata": patch.get("metadata"),
        "patch": public_patch(patch),
        "snapshot": whole.state(event["at_ms"]) if whole else None,
        "record": _record(message["snapshot"]) if whole else None,
    }


def _session_columns(message: Mapping[str, Any], at: str | None, whole: Session | None) -> Iterator[tuple[str, Any]]:
    yield from ((name, message[name]) for name in ("sync_mode", "status", "cycle_count"))
    yield "updated_at", at
    if message["status"] == "deleted":
        yield "deleted_at", at
    patch = message["patch"]
    yield "started_at", iso(patch.get("session_started_ms"))
    yield "completed_at", iso(patch.get("session_completed_ms"))
    if "metadata" in patch:
        yield "metadata", patch["metadata"]
        yield "metadata_version", message["version"]
    if whole:
        yield "participant_count", len(whole.participants)
        yield "total_time_ms", whole.definition.total_time_ms
        yield "created_at", iso(whole.created_ms)
        yield "started_at", iso(whole.session_started_ms)
        yield "completed_at", iso(whole.session_completed_ms)
        yield "metadata", whole.metadata
        yield "metadata_version", whole.metadata_version


def _participant_columns(message: Mapping[str, Any], at: str | None, whole: Session | None) -> Iterator[Row]:
    told: dict[str, Row] = dict(message["patch"].get("participants", {}))
    if whole:
        told = {person["participant_id"]: person for person in whole.state(message["event"]["at_ms"])["participants"]}
    for participant_id, person in told.items():
        row: Row = {name: person[name] for name in _SETTLED} | {"participant_id": participant_id}
        row |= {name: person[name] for name in _GRANTED if name in person}
        if person["is_active"]:
            row |= {"first_active_at": at, "last_active_at": at}
        yield row


def _record(snapshot: Sequence[str]) -> Row:
    """Return a snapshot by names: its order is that of one release of lua/_session.lua."""
    return dict(zip(SCALARS, snapshot, strict=False)) | {
        "metadata": snapshot[DEFINITION - 1],
        "definition": snapshot[DEFINITION],
        "participants": "".join(snapshot[BLOCKS:]),
    }


def _bytes(hexadecimal: str | None) -> str | None:
    return None if hexadecimal is None else rf"\x{hexadecimal}"


def _line(row: Row, raw: bytes) -> bytes:
    """Return a row of `sync_events` in the text format of COPY, its columns in the order of `COLUMNS`."""
    return b"\t".join([*(_field(row[name]) for name in COLUMNS[:-1]), _escaped(raw)]) + b"\n"


def _field(value: Any) -> bytes:
    if value is None:
        return rb"\N"
    if isinstance(value, str):
        return _escaped(value.encode())
    return b"%d" % value if type(value) is int else _escaped(orjson.dumps(value))


def _escaped(text: bytes) -> bytes:
    text = text.replace(b"\\", rb"\\")
    return text.replace(b"\t", rb"\t").replace(b"\n", rb"\n").replace(b"\r", rb"\r")


@lru_cache(4096)
def _uuid(text: str) -> str:
    return str(UUID(text))


def _whole(number: Any) -> int:
    if type(number) is not int:
        raise TypeError(f"{number!r} is not a whole number")
    return number

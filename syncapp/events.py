"""An audit event as a value: read from the message that a commit left in its outbox.

The message is JSON text made by lua/_message.lua; `docs/protocol.md` is its dictionary. A drain reads a hundred
thousand of them in a few seconds: what is made for each is made once, and flat.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256
from operator import itemgetter
from typing import Any, NamedTuple, Self
from uuid import UUID

import orjson

from syncapp.state import BLOCKS, DEFINITION, SCALARS, Session, iso, public_patch

Row = dict[str, Any]
"""Column values by name, as JSON; instants are ISO 8601 text, exact to the millisecond."""
COLUMNS = (
    *("session_id", "epoch", "version", "event_type", "at", "sync_mode", "status", "cycle_count", "participant_id"),
    *("next_participant_id", "group_id", "remaining_ms", "elapsed_ms", "actor", "request_id"),
    *("previous_hash", "content_hash", "metadata", "patch", "snapshot", "record", "message"),
)
"""What a row of `sync_events` is written with, in this order; the last five are JSON."""
NEWEST = ("sync_mode", "status", "cycle_count", "content_hash")
SETTLED = ("time_used_ms", "time_remaining_ms", "cycle_count", "has_expired")
GRANTED = ("participant_index", "total_time_ms")
Settled = tuple[int, int | None, int, bool, bool]
"""Values of SETTLED, and whether the participant is active."""
Granted = tuple[int, int | None]
_settled = itemgetter(*SETTLED, "is_active")
_granted = itemgetter(*GRANTED)
_HASHES, _JSON = COLUMNS.index("previous_hash"), COLUMNS.index("metadata")
_ESCAPES = str.maketrans({"\t": r"\t", "\n": r"\n", "\r": r"\r", "\\": r"\\"})


class Entry(NamedTuple):
    """One entry of a bucket's outbox stream; raw is None when it was deleted while it was pending."""

    bucket: int
    stream_id: str
    raw: bytes | None


class Event(NamedTuple):
    """What a message tells; one commit of one session.

    line: its row of `sync_events` as COPY reads it. at: when it took effect. newest: values of NEWEST. told: what only
    some commits tell of their session. people: of each participant that it tells of, what is settled; and what was
    granted, if it tells that.
    """

    entry: Entry
    key: tuple[str, int, int]
    content_hash: bytes
    line: bytes
    at: str
    newest: tuple[str, str, int, str]
    told: Row
    people: list[tuple[str, Settled, Granted | None]]

    @classmethod
    def parse(cls, entry: Entry) -> Self:
        """Read an entry's message. A message that is none raises whatever it trips over."""
        raw = entry.raw or b""
        message = orjson.loads(raw)
        content_hash = sha256(raw).digest()
        whole = _whole_state(message)
        values = _values(message, content_hash, whole)
        session_id, epoch, version, _, at, mode, status, cycle_count = values[:8]
        newest = (mode, status, cycle_count, values[_JSON - 1])
        told = _told_by_patch(message, at)
        people: list[tuple[str, Settled, Granted | None]]
        if whole:
            told = _told_by_state(whole) | told
            states = whole.state(0)["participants"]
            people = [(person["participant_id"], _settled(person), _granted(person)) for person in states]
        else:
            touched = message["patch"].get("participants", {})
            people = [(name, _settled(person), None) for name, person in touched.items()]
        key = (session_id, epoch, version)
        return cls(entry, key, content_hash, _line(values, raw), at, newest, told, people)

    @property
    def row(self) -> Row:
        """Its row of `sync_events` by names, but for the message itself."""
        message = orjson.loads(self.entry.raw or b"")
        return dict(zip(COLUMNS, _values(message, self.content_hash, _whole_state(message)), strict=False))


def _whole_state(message: Mapping[str, Any]) -> Session | None:
    return Session.from_snapshot(message["session_id"], message["snapshot"]) if "snapshot" in message else None


def _values(message: Mapping[str, Any], content_hash: bytes, whole: Session | None) -> list[Any]:
    """Return the row of a message in the order of COLUMNS, but for the message itself."""
    event, patch = message["event"], message["patch"]
    return [
        _uuid(message["session_id"]),
        _whole(message["epoch"]),
        _whole(message["version"]),
        event["type"],
        iso(_whole(event["at_ms"])),
        message["sync_mode"],
        message["status"],
        message["cycle_count"],
        event.get("participant_id"),
        event.get("next_participant_id"),
        event.get("group_id"),
        event.get("remaining_ms"),
        message.get("elapsed_ms"),
        message["actor"],
        message.get("request_id") or None,
        _bytes(message["previous"]),
        _bytes(content_hash.hex()),
        patch.get("metadata"),
        public_patch(patch),
        whole.state(event["at_ms"]) if whole else None,
        _record(message["snapshot"]) if whole else None,
    ]


def _told_by_patch(message: Mapping[str, Any], at: str | None) -> Row:
    """Return what only some commits tell of their session."""
    patch, told = message["patch"], {}
    if message["status"] == "deleted":
        told["deleted_at"] = at
    for name, column in (("session_started_ms", "started_at"), ("session_completed_ms", "completed_at")):
        if patch.get(name) is not None:
            told[column] = iso(patch[name])
    if "metadata" in patch:
        told |= {"metadata": patch["metadata"], "metadata_version": message["version"]}
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
    """Return a snapshot by names: its order is that of one release of lua/_session.lua."""
    return dict(zip(SCALARS, snapshot, strict=False)) | {
        "metadata": snapshot[DEFINITION - 1],
        "definition": snapshot[DEFINITION],
        "participants": "".join(snapshot[BLOCKS:]),
    }


def _line(values: Sequence[Any], raw: bytes) -> bytes:
    r"""Return a row of `sync_events` in the text format of COPY; null is empty, since no text of ours is."""
    fields = ["" if value is None else str(value) for value in values[:_HASHES]]
    texts = [b"" if value is None else orjson.dumps(value) for value in values[_JSON:]]
    if b"\\" in raw or b"\n" in raw or b"\t" in raw or b"\r" in raw:  # only then can anything need an escape
        fields = [field.translate(_ESCAPES) for field in fields]
        texts = [text.replace(b"\\", b"\\\\") for text in texts]
        raw = raw.decode().translate(_ESCAPES).encode()
    previous, content = values[_HASHES:_JSON]
    fields += ("\\" + previous if previous else "", "\\" + content)
    return b"%b\t%b\t%b\t%b\t%b\t%b\n" % ("\t".join(fields).encode(), *texts, raw)


@lru_cache(4096)
def _uuid(text: str) -> str:
    return str(UUID(text))


def _bytes(hexadecimal: str) -> str | None:
    return rf"\x{hexadecimal}" if hexadecimal else None


def _whole(number: Any) -> int:
    if type(number) is not int:
        raise TypeError(f"{number!r} is not a whole number")
    return number

"""Private parts: values of a commit that may hold personal data, and can be erased from the audit log.

The hashed message of a commit has a salted SHA-256 of each part, its digest. The values and salts travel beside the
message and are stored beside it, so the chain of messages still verifies after they are erased (docs/audit.md).
Scripts must not parse a client's JSON and have no SHA-256, so salts and digests are made here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import orjson

from syncapp.domain.session_layout import PLACED, with_completion

_SALT_BYTES = 16
_SETS_METADATA = frozenset({"session_created", "metadata_updated"})
DIGEST = "digest of a private part"
"""The only member of a value that stands for a private part (`with_digests`)."""


class SealedPart(NamedTuple):
    """A value as JSON text, with the salt of its digest, and its digest: the SHA-256 of both. Both are hex."""

    salt: str
    text: bytes
    digest: str

    @property
    def proof(self) -> str:
        """Salt and digest, as the scripts take them."""
        return f"{self.salt} {self.digest}"

    def members(self, name: str) -> tuple[str, bytes]:
        """Return the JSON members with its digest, and with its salt and value."""
        return f'"{name}":"{self.digest}"', b'"%b":["%b",%b]' % (name.encode(), self.salt.encode(), self.text)


def seal(text: bytes) -> SealedPart:
    """Return a value with a new salt; text: the value as JSON, the exact text that is stored."""
    salt = os.urandom(_SALT_BYTES)
    return SealedPart(salt.hex(), text, sha256(salt + text).hexdigest())


def digest_of(salt: str, text: bytes) -> str:
    """Return the hex SHA-256 of a salt (hex) and the JSON text of a value."""
    return sha256(bytes.fromhex(salt) + text).hexdigest()


def metadata_proof(text: bytes) -> str:
    """Return a new salt and the digest of metadata, which are JSON text; '' for empty metadata, which are no part."""
    return seal(text).proof if text not in (b"", b"{}") else ""


def completion_proof(texts: Mapping[str, bytes]) -> str:
    """Return a new salt and the digest of a completion; texts: its reason and result as JSON, in this order."""
    return seal(completion_text(texts)).proof


def completion_text(texts: Mapping[str, bytes]) -> bytes:
    """Return a completion as the scripts write it; texts: as in `completion_proof`."""
    return b"{%b}" % b",".join(b'"%b":%b' % (name.encode(), text) for name, text in texts.items())


def split_entry(raw: bytes) -> tuple[bytes, bytes | None]:
    """Return the hashed message of an outbox entry, and its private parts as JSON; None if it has none.

    They are two lines: JSON text has no line breaks.
    """
    if b"\n" not in raw:  # most entries, which need not be copied
        return raw, None
    message, _, parts = raw.partition(b"\n")
    return message, parts


def values_of(parts: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the values of private parts by name; `parts` has the salt and the value of each."""
    return {name: value for name, (_, value) in (parts or {}).items()}


def revealed(
    event: Mapping[str, Any],
    patch: Mapping[str, Any],
    completion: Mapping[str, Any] | None,
    values: Mapping[str, Any],
) -> tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any] | None]:
    """Return a commit's event, patch and completion with the values of its private parts, as they were published."""
    if "reason" in values:
        event = {**event, "reason": values["reason"]}
    if "completion" in values:
        completion = values["completion"]
        if event["type"] == "session_completed":
            event = {**event, **values["completion"]}
    if "metadata" in values and event["type"] in _SETS_METADATA:
        patch = {**patch, "metadata": values["metadata"]}
    return event, patch, completion


def revealed_message(message: Mapping[str, Any], values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a message with the values of its private parts, as it was published."""
    event, patch, completion = revealed(message["event"], message["patch"], message.get("completion"), values)
    shown = {**message, "event": event, "patch": patch}
    if completion is not None:
        shown["completion"] = completion
    if "snapshot" in message:
        snapshot = list(message["snapshot"])
        if "metadata" in values:
            snapshot[PLACED] = json_text(values["metadata"])
        if "completion" in values:
            word = json_text(values["completion"]).replace(" ", "\\u0020")
            snapshot[PLACED + 2] = with_completion(snapshot[PLACED + 2], word)
        shown["snapshot"] = snapshot
    return shown


def with_digests(message: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a message with digests as the values of its private parts, so that states can be compared by them."""
    digests = message.get("private")
    return revealed_message(message, {name: {DIGEST: text} for name, text in digests.items()}) if digests else message


def sets_metadata(event_type: str) -> bool:
    """Return whether commits of this event set the metadata."""
    return event_type in _SETS_METADATA


def json_text(value: Any) -> str:
    """Return a value as JSON text."""
    return orjson.dumps(value).decode()

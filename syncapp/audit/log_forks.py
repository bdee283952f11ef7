"""Forks of a session's log: messages that follow dead letters instead of rows.

After a failover that lost writes, the same (session, epoch, version) is committed again with different content. The
first of the two to arrive becomes the row, the other a dead letter of kind `divergent`. Later rows may follow either.
Messages are read one by one, so that memory is bounded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha1, sha256
from typing import Any

import orjson

from syncapp.audit.findings import BadRow
from syncapp.domain.patches import patch_of
from syncapp.domain.private_parts import split_entry, with_digests
from syncapp.domain.session import Session
from syncapp.postgres.database import Connection, Cursor

_FETCHED_AT_ONCE = 100
_ROW = """
SELECT message::text, content_hash FROM sync_events WHERE session_id = %s AND epoch = %s AND version = %s
"""
_DEAD_LETTERS = """
SELECT raw, content_hash, stored_hash, redriven_at IS NOT NULL FROM sync_dead_letters
WHERE session_id = %s AND epoch = %s AND version = %s AND kind = 'divergent' ORDER BY id
"""
_EARLIER = """
SELECT letter.epoch, letter.version, letter.raw, stored.message::text
FROM sync_dead_letters AS letter LEFT JOIN sync_events AS stored USING (session_id, epoch, version)
WHERE session_id = %s AND letter.epoch < %s AND kind = 'divergent' ORDER BY letter.epoch DESC, letter.version DESC
"""
_LAST_BEFORE = """
SELECT epoch, message::text FROM sync_events WHERE session_id = %s AND epoch < %s
ORDER BY epoch DESC, version DESC LIMIT 1
"""


@dataclass(frozen=True, slots=True)
class ForkBranch:
    """The dead letters that connect a message to the log.

    epoch: of the dead letters. first, last: their versions. root: the previous hash of version 1, if that is a dead
    letter too; else None. state: after the last of them; None if the log does not have a snapshot to start from.
    """

    epoch: int
    first: int
    last: int
    root: bytes | None
    state: Session | None


class Forks:
    """Finds the branches of one session that dead letters hold, by the hashes of messages."""

    def __init__(self, connection: Connection, session_id: str) -> None:
        self._connection = connection
        self._session_id = session_id

    def find_branch(self, epoch: int, version: int, message_hash: bytes) -> ForkBranch | None:
        """Return the dead letters that end with the message of this epoch, version and hash, and follow a row.

        None if dead letters do not close the gap. Raises `BadRow` if a dead letter shows that another row was stored.
        """
        first, messages, is_row = version + 1, _SinceSnapshot(), False
        with self._connection.cursor() as cursor:
            at, wanted = version, message_hash
            while at and not is_row:
                message, is_row = self._message(cursor, epoch, at, wanted)
                if message is None:
                    return None
                messages.add(message)
                first = first if is_row else at
                at, wanted = at - 1, bytes.fromhex(message["previous"])
            if first > version:
                return None
            root = None if is_row else wanted
            while at and not messages.is_complete:
                message, _ = self._message(cursor, epoch, at, wanted)
                if message is None:
                    break
                messages.add(message)
                at, wanted = at - 1, bytes.fromhex(message["previous"])
        return ForkBranch(epoch, first, version, root, messages.state(self._session_id))

    def find_earlier(self, epoch: int, message_hash: bytes) -> tuple[int, int, bool] | None:
        """Return epoch and version of the message with this hash in an earlier epoch, and whether it is a row.

        Searches the dead letters, and the rows with the same keys: no row follows the last message of a branch.
        """
        with self._connection.cursor("earlier") as cursor:
            cursor.itersize = _FETCHED_AT_ONCE
            cursor.execute(_EARLIER, [self._session_id, epoch])
            for its_epoch, version, kept, text in cursor:
                if text is not None and _hash(text.encode()) == message_hash:
                    return its_epoch, version, True
                if _hash(split_entry(bytes(kept))[0]) == message_hash:
                    return its_epoch, version, False
        return None

    def last_before(self, epoch: int) -> tuple[int, bytes]:
        """Return the epoch and the hash of the last row of an earlier epoch; 0 and b"" if there is none."""
        with self._connection.cursor() as cursor:
            cursor.execute(_LAST_BEFORE, [self._session_id, epoch])
            its_epoch, text = cursor.fetchone() or (0, None)
        return its_epoch, b"" if text is None else _hash(text.encode())

    def _message(
        self, cursor: Cursor, epoch: int, version: int, wanted: bytes
    ) -> tuple[Mapping[str, Any] | None, bool]:
        """Return the message with this hash and whether it is a row; None if neither a row nor a dead letter has it."""
        key = [self._session_id, epoch, version]
        cursor.execute(_ROW, key)
        text, row_hash = cursor.fetchone() or (None, None)
        if text is not None and _hash(text.encode()) == wanted:
            return orjson.loads(text), True
        cursor.execute(_DEAD_LETTERS, key)
        for kept, content_hash, stored_hash, is_redriven in cursor.fetchall():
            raw = split_entry(bytes(kept))[0]
            if _hash(raw) != wanted or sha256(kept).digest() != bytes(content_hash):
                continue
            if row_hash is None:
                raise BadRow(epoch, version, "is missing; a dead letter shows that another event was stored")
            if stored_hash is not None and not is_redriven and bytes(stored_hash) != bytes(row_hash):
                raise BadRow(epoch, version, "was changed: a dead letter of this version found another row")
            return orjson.loads(raw), False
        return None, False


class _SinceSnapshot:
    """Messages from the last one back to the nearest snapshot."""

    def __init__(self) -> None:
        self.is_complete = False
        self._found: list[Mapping[str, Any]] = []

    def add(self, message: Mapping[str, Any]) -> None:
        if not self.is_complete:
            self._found.append(message)
            self.is_complete = "snapshot" in message

    def state(self, session_id: str) -> Session | None:
        if not self.is_complete:
            return None
        first, *others = map(with_digests, reversed(self._found))
        state = Session.from_snapshot(session_id, first["snapshot"])
        for message in others:
            state = state.fold(*patch_of(message))
        return state


def _hash(message: bytes) -> bytes:
    return sha1(message, usedforsecurity=False).digest()

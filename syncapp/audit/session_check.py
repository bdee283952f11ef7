"""Checks one session's rows in the audit log: hash chain, messages, patches, snapshots and totals.

It trusts nothing that is stored: columns and totals are made again from the messages, messages are compared with
their hashes, each hash with the next message, and patches with snapshots. A row that follows dead letters instead of
rows is a fork: checking continues from there, with the state of the dead letters' branch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from hashlib import sha1
from typing import Any

import orjson
from msgspec.structs import replace

from syncapp.audit.event import GRANT, AuditEvent, OutboxEntry, Row
from syncapp.audit.findings import BadRow, Fork
from syncapp.audit.log_forks import Forks
from syncapp.audit.row_comparison import as_stored, first_difference, first_unexplained, without
from syncapp.audit.totals import Totals
from syncapp.domain.patches import patch_of
from syncapp.domain.private_parts import DIGEST, digest_of, with_digests
from syncapp.domain.session import Session
from syncapp.postgres.database import Connection, stream

_HAS_SUCCESSOR = "SELECT EXISTS (SELECT FROM sync_events WHERE session_id = %s AND epoch < %s AND previous_hash = %s)"
_MESSAGES = "SELECT message::text, private::text FROM sync_events WHERE session_id = %s AND epoch = %s ORDER BY version"
_CHANGED = "was changed: the next row does not follow it"
_ALL_EPOCHS = frozenset({"first_active_at", "last_active_at"})
"""Columns of a participant's totals that count all epochs."""


class SessionCheck:
    """Checks one session's rows, which it reads in order.

    dropped: from and to of epochs that retention has dropped. erased_epoch: rows up to this epoch were erased as a
    whole; a row of them that comes later is erased by the worker, too.
    """

    def __init__(
        self, connection: Connection, session_id: str, dropped: Iterable[tuple[int, int]], erased_epoch: int = 0
    ) -> None:
        self._connection = connection
        self._session_id = session_id
        self._dropped = [*dropped, (0, erased_epoch + 1)] if erased_epoch else list(dropped)
        self._erased_epoch = erased_epoch
        self._totals = Totals()
        self._order = (0, 0)  # of the last row
        self._hash = b""  # of the last row
        self._last_of_earlier: tuple[int, bytes] = (0, b"")  # epoch and hash of the last row before this epoch
        self._is_cut = False  # whether retention may have dropped earlier rows
        self._state: Session | None = None
        self._suspect: tuple[int, int] | None = None
        self._forked_epochs: set[int] = set()
        self._branches = Forks(connection, session_id)
        self._erased_in: set[int] = set()  # epochs with erased metadata
        self.forks: list[Fork] = []
        self.erased_parts = 0

    def read(self, row: tuple[Any, ...]) -> None:
        """Check the next row. Raises `BadRow`."""
        _, epoch, version, text, parts, columns = row
        if epoch <= self._erased_epoch:
            return
        last_epoch, last_version = self._order
        if epoch != last_epoch:
            last_version = 0
        if version != last_version + 1:
            raise BadRow(epoch, last_version + 1, f"is missing; the next row has version {version}")
        raw = text.encode()
        try:
            event = AuditEvent.parse(_entry(text, parts))
            message = with_digests(orjson.loads(raw))
        except Exception as error:  # whatever the error, this is not a message that was committed
            raise BadRow(
                epoch, version, f"its message or its private parts cannot be read: {type(error).__name__}"
            ) from error
        self._check_parts(event)
        found = orjson.loads(columns)
        if name := first_difference(as_stored(orjson.loads(orjson.dumps(event.row)), found), found):
            raise BadRow(epoch, version, f"column {name} differs from its message")
        self._check_chain(epoch, version, message["previous"])
        try:
            self._check_state(epoch, version, message)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise BadRow(
                epoch, version, f"its patch does not fit the state before it: {type(error).__name__}"
            ) from error
        self._totals.add(event)
        self._hash = sha1(raw, usedforsecurity=False).digest()
        self._order = (epoch, version)

    def _check_parts(self, event: AuditEvent) -> None:
        """Compare each private part with its digest; count the parts that are missing as erased. Raises `BadRow`."""
        _, epoch, version = event.key
        for name, (salt, text) in event.parts.items():
            if name not in event.digests:
                raise BadRow(epoch, version, f"private part {name} is not one of its message")
            if event.digests[name] != digest_of(salt, bytes(text)):
                raise BadRow(epoch, version, f"private part {name} was changed: it differs from its digest")
        missing = event.digests.keys() - event.parts.keys()
        self.erased_parts += len(missing)
        if "metadata" in missing:
            self._erased_in.add(epoch)

    def compare_totals(self, stored: tuple[str, str] | None) -> None:
        """Compare the session's totals with the stored ones, which are JSON. Raises `BadRow`."""
        if stored is None:
            if self._order != (0, 0):  # not all rows were erased
                raise BadRow(*self._order, "has no row in sync_sessions")
            return
        session, participants = orjson.loads(stored[0]), orjson.loads(stored[1])
        newest = (session["epoch"], session["version"])
        if self._is_behind(newest):
            return
        expected_session = self._totals.sessions[self._session_id]
        if newest[0] in self._erased_in and session["metadata"] is None:
            # An event that arrived after the erasure may still have the part, until the erasure is repeated.
            expected_session = {**expected_session, "metadata": None}
        if self._suspect and session["content_hash"] == expected_session["content_hash"]:
            raise BadRow(*self._suspect, _CHANGED)
        if name := self._difference(_session_columns, expected_session, session):
            raise BadRow(*self._order, f"column {name} in sync_sessions differs from the session's rows")
        expected = {name: row for (_, name), row in self._totals.participants.items()}
        found = {participant["participant_id"]: participant for participant in participants}
        if self._is_cut:
            # These columns also count dropped epochs, and participants may be known from dropped epochs only.
            found = {name: row for name, row in found.items() if name in expected}
            expected = {name: without(row, _ALL_EPOCHS) for name, row in expected.items()}
            found = {name: without(row, _ALL_EPOCHS) for name, row in found.items()}
        for name in sorted(expected.keys() | found.keys()):
            columns_of = partial(_participant_columns, name)
            if column := self._difference(columns_of, expected.get(name, {}), found.get(name, {})):
                raise BadRow(*self._order, f"column {column} of participant {name} differs from the session's rows")

    def _is_behind(self, newest: tuple[int, int]) -> bool:
        """Return whether retention or an erasure has removed the newest row. Raises `BadRow` if it is missing."""
        if newest > self._order and not any(low <= newest[0] < high for low, high in self._dropped):
            raise BadRow(*newest, f"is missing; the last row is epoch {self._order[0]}, version {self._order[1]}")
        return newest > self._order

    def _check_chain(self, epoch: int, version: int, previous: str) -> None:
        previous_hash = bytes.fromhex(previous)
        if version == 1:
            if self._suspect:
                raise BadRow(*self._suspect, _CHANGED)
            self._last_of_earlier = (self._order[0], self._hash)
            self._check_first(epoch, previous_hash, self._last_of_earlier, f"epoch {epoch}")
        elif previous_hash != self._hash and not self._is_fork(epoch, version, previous_hash):
            # Either this row or the one before it was changed; the next row shows which.
            if self._suspect:
                raise BadRow(*self._order, _CHANGED)
            self._suspect = self._order
        elif self._suspect:
            raise BadRow(*self._suspect, _CHANGED)

    def _check_first(self, epoch: int, previous_hash: bytes, before: tuple[int, bytes], follower: str) -> None:
        """Check what the first message of an epoch follows: nothing, or a message of an earlier epoch.

        before: epoch and hash of the last row of an earlier epoch. follower: names the first message in a finding.
        """
        last_epoch, last_hash = before
        if any(low < epoch and high > last_epoch for low, high in self._dropped):
            self._is_cut = True  # retention may have dropped the message that it follows
        elif previous_hash and previous_hash != last_hash and not self._has_successor(epoch, previous_hash):
            found = self._branches.find_earlier(epoch, previous_hash)
            if found is None:
                raise BadRow(epoch, 1, "follows a row of an earlier epoch that is missing or was changed")
            earlier_epoch, version, is_row = found
            if not is_row and not self._is_fork(earlier_epoch, version + 1, previous_hash, follower):
                raise BadRow(epoch, 1, "follows a dead letter of an earlier epoch that follows no row")

    def _is_fork(self, epoch: int, version: int, previous_hash: bytes, follower: str = "") -> bool:
        """Return whether dead letters explain the previous hash of a message with this epoch and version.

        follower: names the message that follows the dead letters, if it is not the row of this epoch and version.
        """
        branch = self._branches.find_branch(epoch, version - 1, previous_hash)
        if branch is None:
            return False
        if branch.root is not None:
            before = self._branches.last_before(epoch) if follower else self._last_of_earlier
            self._check_first(epoch, branch.root, before, f"a dead letter of epoch {epoch}")
        count = branch.last - branch.first + 1
        name = follower or f"version {version}"
        self.forks.append(Fork(self._session_id, epoch, branch.first, branch.last, count, name))
        if not follower:
            self._state = branch.state
            self._forked_epochs.add(epoch)
        return True

    def _check_state(self, epoch: int, version: int, message: Mapping[str, Any]) -> None:
        if version == 1:
            self._state = None
            if "snapshot" not in message:
                raise BadRow(epoch, version, "the first row has no snapshot")
        if message["status"] == "deleted":
            return
        state = self._state.fold(*patch_of(message)) if self._state else None
        if "snapshot" in message:
            in_snapshot = Session.from_snapshot(self._session_id, message["snapshot"])
            if state is not None and in_snapshot != _as_written_in(in_snapshot, state):
                raise BadRow(epoch, version, "its snapshot differs from the state that the patches make")
            state = in_snapshot
        self._state = state

    def _has_successor(self, epoch: int, row_hash: bytes) -> bool:
        """Return whether a row of an earlier epoch follows the row with this hash.

        A restore may continue from such a row in the middle of an epoch, if the later rows were not in the log yet.
        """
        with self._connection.cursor() as cursor:
            cursor.execute(_HAS_SUCCESSOR, [self._session_id, epoch, row_hash])
            return cursor.fetchone() == (True,)

    def _difference(self, columns_of: Callable[[AuditEvent], Row], expected: Row, found: Row) -> str | None:
        """Return the name of the first column of totals that differs and that no fork explains.

        columns_of: returns the columns that a commit sets.
        """
        epoch = found.get("epoch")
        if epoch not in self._forked_epochs:
            return first_difference(expected, found)
        messages = stream(self._connection, "messages", _MESSAGES, [self._session_id, epoch])
        events = (AuditEvent.parse(_entry(*row)) for row in messages)
        return first_unexplained(expected, found, map(columns_of, events))


def _entry(message: str, parts: str | None) -> OutboxEntry:
    """Return a stored message and its private parts as the entry that they came from."""
    return OutboxEntry(0, "", (message if parts is None else f"{message}\n{parts}").encode())


def _as_written_in(snapshot: Session, state: Session) -> Session:
    """Return a state with the metadata and the completion in the form of a snapshot: in clear or as a digest.

    While two releases run, the same value may be in clear in one message and a digest in another.
    """
    for name in ("metadata", "completion"):
        values = getattr(snapshot, name), getattr(state, name)
        if all(values) and (values[0].keys() == {DIGEST}) != (values[1].keys() == {DIGEST}):
            state = replace(state, **{name: values[0]})
    return state


def _session_columns(event: AuditEvent) -> Row:
    return event.session_columns


def _participant_columns(name: str, event: AuditEvent) -> Row:
    grant = next((grant for participant, _, grant in event.participants if participant == name), None)
    return dict(zip(GRANT, grant, strict=True)) if grant else {}

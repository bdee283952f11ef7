"""Checks that the store and the audit log agree on the newest commit of each live session.

The store may be ahead only by the events in its outboxes. Sessions change while they are compared: each is read from
the store first, then its outbox, then the log, so that a commit of the store must be in the outbox or in the log.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from hashlib import sha1
from itertools import chain, islice
from typing import Any

import redis

from syncapp.audit.findings import AuditFault, BadRow, Fork
from syncapp.audit.log_forks import Forks
from syncapp.domain.session_ids import log_id, qualified
from syncapp.domain.session_layout import order_of
from syncapp.domain.version_order import NEVER
from syncapp.postgres.database import Connection, connect, stream
from syncapp.store.keys import SENTINEL, Keyspace

_AT_ONCE = 500
_LIVE = """
SELECT tenant, coalesce(tenant_session_id, session_id)::text FROM sync_sessions
WHERE status IN ('pending', 'running', 'paused')
"""
_NEWEST = """
SELECT session_id::text, epoch, version, one.status IN ('pending', 'running', 'paused'), message::text
FROM sync_sessions AS one JOIN sync_events USING (session_id, epoch, version) WHERE session_id = ANY(%s::uuid[])
    AND NOT EXISTS (SELECT FROM sync_erasures WHERE session_id = one.session_id AND before >= one.epoch)
"""


class Consistency:
    """Compares live sessions; the client may decode replies or not."""

    def __init__(self, client: redis.Redis, keyspace: Keyspace, database_url: str) -> None:
        self._client = client
        self._keys = keyspace
        self._url = database_url

    def compare(self, session_id: str | None = None) -> Iterator[AuditFault | Fork]:
        """Yield the disagreements about all sessions or about one. Raises what redis and psycopg2 raise."""
        reported: set[str] = set()
        with (
            contextlib.closing(connect(self._url)) as listing,
            contextlib.closing(connect(self._url)) as connection,
            connection.cursor() as cursor,
        ):
            connection.autocommit = True
            logged = (qualified(*row) for row in stream(listing, "live", _LIVE))
            names = iter([session_id]) if session_id else chain(logged, self._live())
            while batch := list(dict.fromkeys(islice(names, _AT_ONCE))):
                for finding in self._compare(connection, cursor, batch):
                    if finding.session_id not in reported:
                        reported.add(finding.session_id)
                        yield finding

    def _compare(self, connection: Connection, cursor: Any, batch: list[str]) -> Iterator[AuditFault | Fork]:
        stored = self._newest_in_store(batch)
        has_undrained = self._has_undrained(batch)
        by_log_id = {log_id(name): name for name in batch}
        cursor.execute(_NEWEST, [list(by_log_id)])
        logged = {by_log_id[row[0]]: row[1:] for row in cursor.fetchall()}
        behind = [name for name, row in logged.items() if stored[name][:2] < row[:2]]
        stored |= self._newest_in_store(behind)
        for each in batch:
            epoch, version, is_live, message = logged.get(each, (*NEVER, False, ""))
            order, newest = stored[each][:2], (epoch, version)
            if order == newest:
                if order != NEVER and stored[each][2] != sha1(message.encode(), usedforsecurity=False).hexdigest():
                    yield _divergence(connection, each, *stored[each])
            elif order > newest:
                if each not in behind and not has_undrained[each]:
                    yield AuditFault(each, *order, "is in the store, but neither in the log nor in the outbox")
            elif order != NEVER:
                yield AuditFault(each, *newest, f"the store is behind: it is at epoch {order[0]}, version {order[1]}")
            elif is_live and not has_undrained[each]:
                yield AuditFault(each, *newest, "the store does not have this session, which has not ended")

    def _live(self) -> Iterator[str]:
        """Yield every session that has a deadline: all live ones."""
        for bucket in range(self._keys.buckets):
            for member, _ in self._client.zscan_iter(self._keys.deadlines(bucket), count=_AT_ONCE):
                if (name := _text(member)) != SENTINEL:
                    yield name

    def _newest_in_store(self, names: list[str]) -> dict[str, tuple[int, int, str]]:
        """Return epoch, version and message hash of each session in the store; 0, 0 and '' for a missing session."""
        with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hmget(self._keys.session(name), "scalars", "chain")
            replies = pipe.execute()
        return {name: _newest(scalars, newest) for name, (scalars, newest) in zip(names, replies, strict=True)}

    def _has_undrained(self, names: list[str]) -> dict[str, bool]:
        """Return for each session whether its bucket's outbox has any entry."""
        with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.xlen(self._keys.outbox(self._keys.bucket(name)))
            return dict(zip(names, map(bool, pipe.execute()), strict=True))


def _divergence(connection: Connection, session_id: str, epoch: int, version: int, chain: str) -> AuditFault | Fork:
    """Report a store whose commit differs from the row: a fork if a dead letter has that commit."""
    try:
        branch = Forks(connection, log_id(session_id)).find_branch(epoch, version, bytes.fromhex(chain))
    except BadRow as bad:
        return AuditFault(session_id, *bad.place, str(bad))
    if branch is None:
        return AuditFault(session_id, epoch, version, "the store made another commit of this version")
    follower = "the store (until flask sessions recover)"
    return Fork(session_id, epoch, branch.first, branch.last, branch.last - branch.first + 1, follower)


def _newest(scalars: bytes | str | None, message_hash: bytes | str) -> tuple[int, int, str]:
    """Return epoch and version, which the scalars begin with, and the hash of the newest message."""
    if not scalars:
        return (*NEVER, "")
    return (*order_of(_text(scalars)), _text(message_hash))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value

"""Parity: whether the store and the audit log agree on the newest commit of each live session.

The store may be ahead by what its outboxes still hold, and by nothing else. Sessions change while they are
compared: each is read from the store first, then its outbox, then the log, so that what was in the store must be
in one of the others.
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
from syncapp.domain.session_layout import order_of
from syncapp.postgres.database import Connection, connect
from syncapp.store.keys import SENTINEL, Keyspace

_AT_ONCE = 500
_NOWHERE = (0, 0)
_LIVE = "SELECT session_id::text FROM sync_sessions WHERE status IN ('pending', 'running', 'paused')"
_NEWEST = """
SELECT session_id::text, epoch, version, one.status IN ('pending', 'running', 'paused'), message::text
FROM sync_sessions AS one JOIN sync_events USING (session_id, epoch, version) WHERE session_id = ANY(%s::uuid[])
"""


class Consistency:
    """Compares live sessions; the client answers in bytes or text."""

    def __init__(self, client: redis.Redis, keyspace: Keyspace, database_url: str) -> None:
        self._client = client
        self._keys = keyspace
        self._url = database_url

    def compare(self, session_id: str | None = None) -> Iterator[AuditFault | Fork]:
        """Yield where the two do not agree, on all sessions or on one. Raises what redis and psycopg2 raise."""
        told: set[str] = set()
        with (
            contextlib.closing(connect(self._url)) as listing,
            contextlib.closing(connect(self._url)) as connection,
            connection.cursor() as cursor,
        ):
            connection.autocommit = True
            names = iter([session_id]) if session_id else chain(_live(listing), self._live())
            while batch := list(dict.fromkeys(islice(names, _AT_ONCE))):
                for fault in self._compare(connection, cursor, batch):
                    if fault.session_id not in told:
                        told.add(fault.session_id)
                        yield fault

    def _compare(self, connection: Connection, cursor: Any, batch: list[str]) -> Iterator[AuditFault | Fork]:
        held = self._held(batch)
        waits = self._waits(batch)
        cursor.execute(_NEWEST, [batch])
        logged = {row[0]: row[1:] for row in cursor.fetchall()}
        behind = [name for name, row in logged.items() if held[name][:2] < row[:2]]
        held |= self._held(behind)
        for each in batch:
            epoch, version, is_live, message = logged.get(each, (0, 0, False, ""))
            order, newest = held[each][:2], (epoch, version)
            if order == newest:
                if order != _NOWHERE and held[each][2] != sha1(message.encode(), usedforsecurity=False).hexdigest():
                    yield _other(connection, each, *held[each])
            elif order > newest:
                if each not in behind and not waits[each]:
                    yield AuditFault(each, *order, "is in the store, but neither in the log nor on its way there")
            elif order != _NOWHERE:
                yield AuditFault(each, *newest, f"the store is behind: it is at epoch {order[0]}, version {order[1]}")
            elif is_live and not waits[each]:
                yield AuditFault(each, *newest, "the store does not have this session, which has not ended")

    def _live(self) -> Iterator[str]:
        """Yield every session that has a deadline: all live ones."""
        for bucket in range(self._keys.buckets):
            for member, _ in self._client.zscan_iter(self._keys.deadlines(bucket), count=_AT_ONCE):
                if (name := _text(member)) != SENTINEL:
                    yield name

    def _held(self, names: list[str]) -> dict[str, tuple[int, int, str]]:
        """Return epoch, version and chain of each session as the store has them; 0, 0 and '' for what it has not."""
        with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hmget(self._keys.session(name), "scalars", "chain")
            answers = pipe.execute()
        return {name: _order(scalars, newest) for name, (scalars, newest) in zip(names, answers, strict=True)}

    def _waits(self, names: list[str]) -> dict[str, bool]:
        """Tell of each session whether its bucket's outbox holds anything."""
        with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.xlen(self._keys.outbox(self._keys.bucket(name)))
            return dict(zip(names, map(bool, pipe.execute()), strict=True))


def _other(connection: Connection, session_id: str, epoch: int, version: int, chain: str) -> AuditFault | Fork:
    """Report a store whose commit differs from the row: a fork if dead letters have that commit."""
    try:
        way = Forks(connection, session_id).way(epoch, version, bytes.fromhex(chain))
    except BadRow as bad:
        return AuditFault(session_id, *bad.place, str(bad))
    if way is None:
        return AuditFault(session_id, epoch, version, "the store made another commit of this version")
    goes_on = "the store (until flask sessions recover)"
    return Fork(session_id, epoch, way.first, way.last, way.last - way.first + 1, goes_on)


def _live(connection: Connection) -> Iterator[str]:
    """Yield every session that has not ended, as far as the log knows."""
    with connection.cursor("live") as cursor:
        cursor.itersize = _AT_ONCE
        cursor.execute(_LIVE)
        yield from (name for (name,) in cursor)


def _order(scalars: bytes | str | None, newest: bytes | str) -> tuple[int, int, str]:
    """Return epoch and version, which the scalars begin with, and the newest hash."""
    if not scalars:
        return (*_NOWHERE, "")
    return (*order_of(_text(scalars)), _text(newest))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value

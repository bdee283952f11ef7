"""The audit log: its rows, and the services that read it."""

from __future__ import annotations

from typing import Any

import redis as redis_py

from syncapp.audit.event import OutboxEntry
from syncapp.audit.log import AuditLog
from syncapp.audit.outbox import Outbox
from syncapp.history.queries import HistoryQueries
from syncapp.history.read_pool import ReadPool
from syncapp.history.recovery import Recovery
from syncapp.postgres.database import Database
from tests.support.clock_machine import MAX_UNATTENDED
from tests.support.outboxes import KEYS
from tests.support.store import make_settings, make_store
from tests.support.types import Db


class AuditServices:
    """The audit log, the history that reads it, and a recovery for each rule of the clock."""

    def __init__(self, database_url: str, client: redis_py.Redis, redis_url: str) -> None:
        self.url = database_url
        self.database, self.pool = Database(database_url), ReadPool(database_url, timeout_s=30)
        self.audit, self.client = AuditLog(self.database), client
        self.history = HistoryQueries(self.pool, lambda: 2**45)
        store, outbox = make_store(redis_url, max_unattended_cycles=MAX_UNATTENDED), Outbox(client, KEYS)
        self.recoveries = {
            clock: Recovery(store, self.history, outbox, make_settings(redis_url), clock)
            for clock in ("run", "freeze", "credit")
        }

    def store(self) -> None:
        """Move all entries of the outboxes into the log."""
        for bucket in range(KEYS.buckets):
            entries: Any = self.client.xrange(KEYS.outbox(bucket))
            if entries:
                self.audit.store([OutboxEntry(bucket, at.decode(), fields[b"message"]) for at, fields in entries])
                self.client.xdel(KEYS.outbox(bucket), *(at for at, _ in entries))


def query_rows(db: Db, query: str, *arguments: Any) -> list[Any]:
    with db.cursor() as cursor:
        cursor.execute(query, arguments)
        return cursor.fetchall()


def outbox_entries(client: redis_py.Redis) -> list[OutboxEntry]:
    """Every entry of every outbox, in the order of its stream."""
    found: list[tuple[int, Any]] = [(bucket, client.xrange(KEYS.outbox(bucket))) for bucket in range(KEYS.buckets)]
    return [
        OutboxEntry(bucket, stream_id.decode(), fields[b"message"])
        for bucket, entries in found
        for stream_id, fields in entries
    ]


def event_partitions(db: Db) -> list[str]:
    with db.cursor() as cursor:
        cursor.execute(r"SELECT tablename FROM pg_tables WHERE tablename LIKE 'sync\_events\_2%'")
        return [name for (name,) in cursor.fetchall()]

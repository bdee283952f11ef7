"""Dead letters: counts messages that could not be stored, and tries again to store them."""

from __future__ import annotations

from syncapp.audit.event import OutboxEntry
from syncapp.audit.log import AuditLog
from syncapp.postgres.database import Database

_COUNT = "SELECT count(*) FROM sync_dead_letters WHERE redriven_at IS NULL"
_NEXT = """
SELECT id, bucket, stream_id, raw, EXISTS (
    SELECT FROM sync_dropped_partitions WHERE epoch >= from_epoch AND epoch < to_epoch
) FROM sync_dead_letters WHERE redriven_at IS NULL AND id > %s ORDER BY id LIMIT 100
"""
_DONE = "UPDATE sync_dead_letters SET redriven_at = now() WHERE id = %s"


class DeadLetters:
    """The dead letters that have not been redriven. Its methods raise what psycopg2 raises."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def count(self) -> int:
        """Return how many there are."""
        with self._database.transaction() as cursor:
            cursor.execute(_COUNT)
            return int((cursor.fetchone() or (0,))[0])

    def redrive(self, audit: AuditLog) -> tuple[int, int]:
        """Try to store each one again; return how many were stored and how many were not.

        A dead letter stays in its table unchanged, and is marked once it is stored. If the process is killed between
        the two, the next redrive finds the event stored already. An event of a month that retention has dropped stays
        a dead letter.
        """
        last, done, failed = 0, 0, 0
        while rows := self._after(last):
            for last, bucket, stream_id, raw, is_dropped in rows:
                if is_dropped:
                    failed += 1
                    continue
                stored = audit.store([OutboxEntry(bucket, stream_id, bytes(raw))])
                if stored.completed:
                    with self._database.transaction() as cursor:
                        cursor.execute(_DONE, [last])
                    done += 1
                else:
                    failed += 1
        return done, failed

    def _after(self, last: int) -> list[tuple[int, int, str, memoryview, bool]]:
        with self._database.transaction() as cursor:
            cursor.execute(_NEXT, [last])
            return cursor.fetchall()

"""Upkeep of the audit log: what a worker does now and then, beside its drains.

A failure is logged, and the next run tries again.
"""

from __future__ import annotations

import psycopg2
import structlog
from redis.exceptions import RedisError

from syncapp.audit.dead_letters import DeadLetters
from syncapp.audit.erasures import repeat_erasures
from syncapp.audit.queue_stats import QueueCounts
from syncapp.errors import one_line
from syncapp.postgres.database import Database
from syncapp.postgres.schema import make_partitions

log = structlog.get_logger(__name__)


class LogUpkeep:
    """Tasks that each take a moment, and that may run several times. months: how many partitions are made ahead."""

    def __init__(self, database: Database, counts: QueueCounts, *, months: int) -> None:
        self._database = database
        self._counts = counts
        self._months = months

    def count_dead_letters(self) -> None:
        """Correct the count of dead letters, which operators redrive or delete."""
        try:
            self._counts.set_failed(DeadLetters(self._database).count())
        except (psycopg2.Error, RedisError) as error:
            log.warning("count_letters_failed", error=one_line(error))

    def repeat_erasures(self) -> None:
        """Repeat recent erasures, for events that another drain stored after them."""
        try:
            if changed := repeat_erasures(self._database):
                log.info("erasures_repeated", rows=changed)
        except psycopg2.Error as error:
            log.warning("repeat_erasures_failed", error=one_line(error))

    def make_partitions(self) -> None:
        """Make the partitions of the coming months."""
        try:
            with self._database.transaction() as cursor:
                made = make_partitions(cursor, self._months)
        except psycopg2.Error as error:
            # Not urgent: partitions are made months ahead, and other rows go to the default partition.
            log.warning("make_partitions_failed", error=one_line(error))
        else:
            if made:
                log.info("partitions_made", names=made)

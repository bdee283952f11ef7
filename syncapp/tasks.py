"""The tasks of the worker process, and what asks for them.

A task carries nothing but a bucket's number: Huey forgets a task whose worker dies, the streams do not
forget an event. A bucket is drained when a commit nudges, at most twice a second; again half a second after a
drain that moved something; and by a sweep of all buckets every few seconds and at a worker's start. When Redis takes no
task, the worker drains all the same.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import traceback
from typing import Any

import psycopg2
import structlog
from huey import crontab
from huey.exceptions import CancelExecution
from redis import Redis
from redis.exceptions import RedisError, ResponseError

from syncapp import logs, metrics, task_queue
from syncapp.alerts import Alerts
from syncapp.audit.dead_letters import DeadLetters
from syncapp.audit.drain import Drain, collect_rarely
from syncapp.audit.drain_requests import DrainRequests
from syncapp.audit.last_failure import LastFailure
from syncapp.audit.log import AuditLog
from syncapp.audit.outbox import Outbox
from syncapp.audit.outbox_watch import OutboxWatch
from syncapp.audit.queue_stats import QueueCounts
from syncapp.audit.retry_schedule import POSTGRESQL, REDIS, RetrySchedule
from syncapp.config import Settings, load
from syncapp.connection_limits import redis_of_worker
from syncapp.errors import one_line
from syncapp.loops import Loops
from syncapp.postgres.database import STATEMENT_TIMEOUT_S, Database, check, make_partitions
from syncapp.postgres.failures import failure_of
from syncapp.store.client import connect as connect_store
from syncapp.store.clock_steps import ClockStepWatch
from syncapp.store.connection_pool import pool_of
from syncapp.store.failover import server_at
from syncapp.store.keys import Keyspace
from syncapp.store.process_registry import ProcessRegistry

log = structlog.get_logger(__name__)

_DRAIN_AT_MOST_S = 5.0  # then other buckets have their turn, and a worker that is to stop can
_TRAILING_S = 0.5  # as long as a bucket's nudges are held back: the last commits of a burst come without one
_PROBE_TIMEOUT_S = 2
_HANG_S = STATEMENT_TIMEOUT_S + 10.0  # a server that is only slow ends the statement itself


def enqueue_drain(bucket: int) -> None:
    """Ask the worker to drain a bucket, unless it is asked already. Raises what redis raises."""
    # One id for all makes equal messages, which the queue holds once.
    huey.enqueue(drain_bucket.s(bucket, id=f"drain-{bucket}"))


class AuditWorker:
    """What the tasks of one worker process share; does not connect before the first task.

    client: one that does not decode, with connections for all threads.
    """

    def __init__(self, settings: Settings, client: Redis) -> None:
        self.settings = settings
        self._client = client
        self._loops = Loops()
        self._stopped = threading.Event()
        self.outbox = Outbox(client, Keyspace(settings.sync_buckets), claim_idle_s=settings.audit_claim_idle_s)
        self.database = Database(settings.database_url, hang_s=_HANG_S)
        self._alert = Alerts(settings)
        self._tally = QueueCounts(client, self.outbox.keyspace)
        self._drain = Drain(
            self.outbox, AuditLog(self.database, self._alert), batch=settings.audit_batch, count=self._tally.add
        )
        self._last_drain = LastFailure(client, self.outbox.keyspace)
        self._nudger = DrainRequests(self._ask, loops=self._loops)
        self._own = DrainRequests(self._drain_here, name="drains", loops=self._loops)
        self._retries = RetrySchedule(
            settings.audit_retries, settings.audit_retry_delay_s, settings.audit_retry_backoff
        )
        self._watch = OutboxWatch(
            self.outbox,
            ask=self._ask_or_later,
            alert=self._alert,
            lag_alert_s=settings.audit_lag_alert_s,
            before=self._look_at_postgresql,
            after=lambda: self._release(REDIS),
        )
        self._clock_watch = ClockStepWatch(
            client,
            self.outbox.keyspace,
            ProcessRegistry(client, self.outbox.keyspace, kind="worker", loops=self._loops),
            server=server_at(settings.redis_url),
            alert=self._alert,
        )
        self._started = threading.Lock()
        self._watched = threading.Lock()

    def start(self) -> None:
        """Take over from whoever was there before; does something at the first call only, as each thread calls it."""
        if not self._started.acquire(blocking=False):
            return
        collect_rarely()
        logs.configure(self.settings)
        # Huey's own lines go where all go; it has one for each task, and failures are told below.
        logging.getLogger("huey").handlers.clear()
        logging.getLogger("huey").setLevel(logging.ERROR)
        for handler in logging.getLogger().handlers:
            handler.addFilter(without_traceback)
        needed = redis_of_worker(self.settings)
        pool_of(self._client).grow(needed)
        if self.settings.redis_max_connections < needed:
            log.warning(
                "redis_max_connections_too_small",
                setting="REDIS_MAX_CONNECTIONS",
                value=self.settings.redis_max_connections,
                used=needed,
            )
        for bucket in self.outbox.buckets:
            self._nudger.nudge(bucket)
        with contextlib.suppress(RedisError):  # a drain creates what is still missing
            self.outbox.make_groups()
        self.make_partitions()

    def watch(self) -> None:
        """Start a worker's background loops, once: a nudge may be lost with the process that should pass it on."""
        if self._watched.acquire(blocking=False):
            self._loops.start("watch", self._watch.turn, self._stopped)
            self._loops.start("clock_watch", self._clock_watch.turn, self._stopped)

    def drain(self, bucket: int, task: Any) -> None:
        """Drain a bucket; a failure is tried again by Huey, and told at CRITICAL when no retry is left.

        While a retry waits its turn, other tasks leave its bucket to it: however many nudges come during
        an outage, each bucket is tried by one task, and looked at again when that should be over.
        """
        is_retry = task.retries < self.settings.audit_retries
        if not self._drained(bucket, is_retry=is_retry, is_last=not task.retries):
            # Tells Huey to retry, if retries are left, after the task's delay, and without a traceback. Tries by this
            # worker in between do not begin another row of retries.
            raise CancelExecution(retry=None if is_retry or self._retries.count(bucket) == 1 else False)

    def sweep(self) -> None:
        """Have every bucket drained that holds anything; alert when one holds anything for too long."""
        self._watch.sweep()

    def count_letters(self) -> None:
        """Put the count of dead letters right, which are driven again or deleted by hand."""
        try:
            self._tally.set_failed(DeadLetters(self.database).count())
        except (psycopg2.Error, RedisError) as error:
            log.warning("count_letters_failed", error=one_line(error))

    def make_partitions(self) -> None:
        """Make the partitions of the months to come."""
        try:
            with self.database.transaction() as cursor:
                made = make_partitions(cursor, self.settings.audit_partition_months)
        except psycopg2.Error as error:
            # There is time: months were made ahead, and a default partition takes the rest.
            log.warning("make_partitions_failed", error=one_line(error))
        else:
            if made:
                log.info("partitions_made", names=made)

    def _ask(self, bucket: int) -> None:
        """Ask the queue for a drain; if Redis accepts no task, drain here. Raises what redis raises when it is away."""
        try:
            enqueue_drain(bucket)
        except ResponseError as error:
            # A drain still works then: it makes no write that a full Redis refuses.
            log.debug("drain_not_queued", bucket=bucket, error=one_line(error))
            self._own.nudge(bucket)

    def _ask_or_later(self, bucket: int) -> None:
        try:
            self._ask(bucket)
        except Exception:  # noqa: BLE001 the nudger's thread logs it and tries again
            self._nudger.nudge(bucket)

    def _drain_here(self, bucket: int) -> None:
        self._drained(bucket)

    def _drained(self, bucket: int, *, is_retry: bool = False, is_last: bool = False) -> bool:
        """Drain a bucket, unless it is held for a retry; return False if that failed, which is logged."""
        held_s = 0.0 if is_retry else self._retries.held_s(bucket)
        if held_s > 0:
            self._nudger.nudge(bucket, held_s)
            return True
        try:
            drained = self._drain.run(bucket, at_most_s=_DRAIN_AT_MOST_S)
        except Exception as error:  # noqa: BLE001 the events stay in the outbox, whatever the error
            metrics.DRAIN_FAILURES.inc()
            self._last_drain.failed(error)
            if not is_retry and self._retries.held_s(bucket) > 0:
                # A drain that ran at the same time has failed first: both are one failure, and it has the retry.
                _let_go(error)
                return True
            self._failed(bucket, error, is_last=is_last)
            _let_go(error)
            return False
        if drained.moved:
            self._last_drain.went_through()
            self._retries.forget(bucket)
            self._nudger.nudge(bucket, 0 if drained.more else _TRAILING_S)
            self._release(POSTGRESQL)
            self._release(REDIS)
        return True

    def _release(self, server: str) -> None:
        """Have all buckets drained that were held because a server was away, now that it is back."""
        for bucket in self._retries.release(server):
            self._nudger.nudge(bucket)

    def _look_at_postgresql(self) -> None:
        """Release the buckets that wait for PostgreSQL, if it is back and takes writes again."""
        if self._retries.holds(POSTGRESQL) and check(self.settings.database_url, _PROBE_TIMEOUT_S) is None:
            self._release(POSTGRESQL)

    def _failed(self, bucket: int, error: Exception, *, is_last: bool) -> None:
        """Log a failed drain, and hold the bucket for the retry; this worker makes it if Huey loses it."""
        away = _away(error)
        failure = self._retries.failed(bucket, away)
        self._nudger.nudge(bucket, failure.held_s)
        left = self.settings.audit_retries - failure.count + 1
        what: dict[str, Any] = {"bucket": bucket, "error": one_line(error)} | self._backlog(bucket)
        if is_last or left < 1:
            self._alert("drain_gave_up", retries=self.settings.audit_retries, **what)
        else:
            retry = {"retries_left": left, "retry_in_s": failure.retry_in_s}
            log.warning("drain_failed", exc_info=not away, **retry, **what)

    def _backlog(self, bucket: int) -> dict[str, Any]:
        """Return what is known of a bucket, for alerts; empty if it cannot be read."""
        try:
            found = self.outbox.backlogs()[bucket]
        except Exception:  # noqa: BLE001 the alert is sent without it
            return {}
        return {"waiting": found.waiting, "active": found.active, "oldest_age_ms": found.oldest_age_ms}


def _let_go(error: BaseException | None) -> None:
    """Forget what the frames of an error hold, a batch among it: somebody may keep the error until Python collects."""
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def without_traceback(record: logging.LogRecord) -> bool:
    """Make one line of what Huey says of a Redis that is away: it goes on by itself."""
    error = record.exc_info[1] if record.exc_info else None
    if record.name.startswith("huey") and isinstance(error, RedisError):
        record.msg, record.args = f"{record.getMessage()}: {one_line(error)}", ()
        record.exc_info = record.exc_text = None
    return True


def _away(error: Exception) -> str | None:
    """Return the server that is away or takes no writes, by a drain's error; None for any other cause."""
    if isinstance(error, RedisError):
        return REDIS
    return POSTGRESQL if failure_of(error) else None


# `huey_consumer syncapp.tasks.huey` wants it here, made at import; nothing connects yet.
_settings = load()
# A web process only asks for drains, so one is enough; a worker raises the limit when it starts.
_client = connect_store(_settings, decode=False, max_connections=1)
huey = task_queue.connect(_settings, _client)
worker = AuditWorker(_settings, _client)
drain_bucket: Any = huey.task(
    name="drain_bucket",
    retries=_settings.audit_retries,
    retry_delay=_settings.audit_retry_delay_s,
    retry_backoff=_settings.audit_retry_backoff,
    context=True,
)(worker.drain)
huey.periodic_task(crontab(), name="sweep")(worker.sweep)
huey.periodic_task(crontab(minute="*/10"), name="count_letters")(worker.count_letters)
huey.periodic_task(crontab(hour="3", minute="17"), name="make_partitions")(worker.make_partitions)
huey.on_startup(name="start")(worker.start)
huey.on_startup(name="watch")(worker.watch)

"""The tasks of the worker process, and the functions that request them.

A task carries only the number of a bucket, because Huey loses a task whose worker dies; events stay in their streams. A
bucket is drained when a commit requests it, at most twice a second; again 0.5 s after a drain that moved something; and
by a sweep of all buckets every 5 s and at the start of a worker. If Redis accepts no task, the worker drains anyway.
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
from syncapp.audit.erasures import repeat_erasures
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
from syncapp.postgres.check import check
from syncapp.postgres.database import STATEMENT_TIMEOUT_S, Database
from syncapp.postgres.failures import failure_of
from syncapp.postgres.schema import make_partitions
from syncapp.store.client import connect as connect_store
from syncapp.store.clock_steps import ClockStepWatch
from syncapp.store.connection_pool import pool_of
from syncapp.store.failover import server_at
from syncapp.store.keys import Keyspace
from syncapp.store.process_registry import ProcessRegistry

log = structlog.get_logger(__name__)

_MAX_DRAIN_S = 5.0  # so that other buckets get their turn, and a worker can stop
_NEXT_DRAIN_S = 0.5  # scripts request drains of a bucket at this interval, so the last commits of a burst request none
_PROBE_TIMEOUT_S = 2
_MAX_TRANSACTION_S = STATEMENT_TIMEOUT_S + 10.0  # a server that is only slow ends the statement by itself


def enqueue_drain(bucket: int) -> None:
    """Ask the worker to drain a bucket, unless that is queued already. Raises what redis raises."""
    # Tasks with the same id make equal messages, which the queue holds only once.
    huey.enqueue(drain_bucket.s(bucket, id=f"drain-{bucket}"))


class AuditWorker:
    """The state that the tasks of one worker process share. It does not connect before the first task.

    client: does not decode replies, and has connections for all threads.
    """

    def __init__(self, settings: Settings, client: Redis) -> None:
        self.settings = settings
        self._client = client
        self._loops = Loops()
        self._stopped = threading.Event()
        self.outbox = Outbox(client, Keyspace(settings.sync_buckets), claim_idle_s=settings.audit_claim_idle_s)
        self.database = Database(settings.database_url, max_transaction_s=_MAX_TRANSACTION_S)
        self._alert = Alerts(settings)
        self._counts = QueueCounts(client, self.outbox.keyspace)
        self._drain = Drain(
            self.outbox, AuditLog(self.database, self._alert), batch=settings.audit_batch, count=self._counts.add
        )
        self._last_failure = LastFailure(client, self.outbox.keyspace)
        self._drain_requests = DrainRequests(self._enqueue, loops=self._loops)
        self._local_drains = DrainRequests(self._drain_here, name="drains", loops=self._loops)
        self._retries = RetrySchedule(
            settings.audit_retries, settings.audit_retry_delay_s, settings.audit_retry_backoff
        )
        self._watch = OutboxWatch(
            self.outbox,
            ask=self._enqueue_or_retry,
            alert=self._alert,
            lag_alert_s=settings.audit_lag_alert_s,
            before=self._check_postgresql,
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
        """Start the worker. Each of its threads calls this; only the first call has an effect."""
        if not self._started.acquire(blocking=False):
            return
        collect_rarely()
        logs.configure(self.settings)
        # Huey logs to the root logger, only errors: it has a line for each task, and failures are logged below.
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
            self._drain_requests.nudge(bucket)
        with contextlib.suppress(RedisError):  # a drain creates the missing groups
            self.outbox.make_groups()
        self.make_partitions()

    def watch(self) -> None:
        """Start the worker's background loops, once. They find events whose drain request was lost with its process."""
        if self._watched.acquire(blocking=False):
            self._loops.start("watch", self._watch.turn, self._stopped)
            self._loops.start("clock_watch", self._clock_watch.turn, self._stopped)

    def drain(self, bucket: int, task: Any) -> None:
        """Drain a bucket; Huey retries a failed drain, and an alert follows the last retry.

        While a retry is scheduled, other tasks leave its bucket alone: during an outage only one task tries each
        bucket, however many drains are requested.
        """
        is_retry = task.retries < self.settings.audit_retries
        if not self._try_drain(bucket, is_retry=is_retry, is_last=not task.retries):
            # This makes Huey retry after the task's delay, if retries are left, without logging a traceback. Other
            # failed drains of this worker in between do not start another series of retries.
            raise CancelExecution(retry=None if is_retry or self._retries.count(bucket) == 1 else False)

    def sweep(self) -> None:
        """Request drains of all buckets with events; alert if an event has waited for too long."""
        self._watch.sweep()

    def count_dead_letters(self) -> None:
        """Correct the count of dead letters, which operators redrive or delete."""
        try:
            self._counts.set_failed(DeadLetters(self.database).count())
        except (psycopg2.Error, RedisError) as error:
            log.warning("count_letters_failed", error=one_line(error))

    def repeat_erasures(self) -> None:
        """Repeat recent erasures, for events that another drain stored after them."""
        try:
            if changed := repeat_erasures(self.database):
                log.info("erasures_repeated", rows=changed)
        except psycopg2.Error as error:
            log.warning("repeat_erasures_failed", error=one_line(error))

    def make_partitions(self) -> None:
        """Make the partitions of the coming months."""
        try:
            with self.database.transaction() as cursor:
                made = make_partitions(cursor, self.settings.audit_partition_months)
        except psycopg2.Error as error:
            # Not urgent: partitions are made months ahead, and other rows go to the default partition.
            log.warning("make_partitions_failed", error=one_line(error))
        else:
            if made:
                log.info("partitions_made", names=made)

    def _enqueue(self, bucket: int) -> None:
        """Enqueue a drain; if Redis refuses the task, drain in this process. Raises what redis raises if it is down."""
        try:
            enqueue_drain(bucket)
        except ResponseError as error:
            # A drain still works then, because a full Redis refuses none of its writes.
            log.debug("drain_not_queued", bucket=bucket, error=one_line(error))
            self._local_drains.nudge(bucket)

    def _enqueue_or_retry(self, bucket: int) -> None:
        try:
            self._enqueue(bucket)
        except Exception:  # noqa: BLE001 the thread of drain requests logs it and tries again
            self._drain_requests.nudge(bucket)

    def _drain_here(self, bucket: int) -> None:
        self._try_drain(bucket)

    def _try_drain(self, bucket: int, *, is_retry: bool = False, is_last: bool = False) -> bool:
        """Drain a bucket, unless it is held for a retry. Returns False if the drain failed, which is logged."""
        held_s = 0.0 if is_retry else self._retries.held_s(bucket)
        if held_s > 0:
            self._drain_requests.nudge(bucket, held_s)
            return True
        try:
            drained = self._drain.run(bucket, at_most_s=_MAX_DRAIN_S)
        except Exception as error:  # noqa: BLE001 the events stay in the outbox, whatever the error
            metrics.DRAIN_FAILURES.inc()
            self._last_failure.failed(error)
            if not is_retry and self._retries.held_s(bucket) > 0:
                # A concurrent drain failed first and has the retry; both count as one failure.
                _clear_frames(error)
                return True
            self._hold(bucket, error, is_last=is_last)
            _clear_frames(error)
            return False
        if drained.moved:
            self._last_failure.succeeded()
            self._retries.forget(bucket)
            self._drain_requests.nudge(bucket, 0 if drained.more else _NEXT_DRAIN_S)
            self._release(POSTGRESQL)
            self._release(REDIS)
        return True

    def _release(self, server: str) -> None:
        """Request drains of all buckets that were held because this server failed, now that it works again."""
        for bucket in self._retries.release(server):
            self._drain_requests.nudge(bucket)

    def _check_postgresql(self) -> None:
        """Release the buckets that wait for PostgreSQL, if it accepts writes again."""
        if self._retries.held_buckets(POSTGRESQL) and check(self.settings.database_url, _PROBE_TIMEOUT_S) is None:
            self._release(POSTGRESQL)

    def _hold(self, bucket: int, error: Exception, *, is_last: bool) -> None:
        """Log a failed drain and hold its bucket for the retry, which this worker makes if Huey loses it."""
        server = _failed_server(error)
        failure = self._retries.failed(bucket, server)
        self._drain_requests.nudge(bucket, failure.held_s)
        retries_left = self.settings.audit_retries - failure.count + 1
        context: dict[str, Any] = {"bucket": bucket, "error": one_line(error)} | self._backlog(bucket)
        if is_last or retries_left < 1:
            self._alert("drain_gave_up", retries=self.settings.audit_retries, **context)
        else:
            retry = {"retries_left": retries_left, "retry_in_s": failure.retry_in_s}
            log.warning("drain_failed", exc_info=not server, **retry, **context)

    def _backlog(self, bucket: int) -> dict[str, Any]:
        """Return a bucket's backlog for logs and alerts; empty if it cannot be read."""
        try:
            backlog = self.outbox.backlogs()[bucket]
        except Exception:  # noqa: BLE001 the alert is sent without it
            return {}
        return {"waiting": backlog.waiting, "active": backlog.active, "oldest_age_ms": backlog.oldest_age_ms}


def _clear_frames(error: BaseException | None) -> None:
    """Free the local variables of an error's frames, such as a batch. The error itself may live until a collection."""
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def without_traceback(record: logging.LogRecord) -> bool:
    """Shorten Huey's log records about errors of Redis to one line, because Huey recovers by itself."""
    error = record.exc_info[1] if record.exc_info else None
    if record.name.startswith("huey") and isinstance(error, RedisError):
        record.msg, record.args = f"{record.getMessage()}: {one_line(error)}", ()
        record.exc_info = record.exc_text = None
    return True


def _failed_server(error: Exception) -> str | None:
    """Return the server that a drain failed on: it is down or accepts no writes. None for any other cause."""
    if isinstance(error, RedisError):
        return REDIS
    return POSTGRESQL if failure_of(error) else None


# `huey_consumer syncapp.tasks.huey` needs these objects at import; none of them connects yet.
_settings = load()
# A web process only requests drains, so one connection is enough; a worker raises the limit when it starts.
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
huey.periodic_task(crontab(minute="*/10"), name="count_letters")(worker.count_dead_letters)
huey.periodic_task(crontab(minute="*/5"), name="repeat_erasures")(worker.repeat_erasures)
huey.periodic_task(crontab(hour="3", minute="17"), name="make_partitions")(worker.make_partitions)
huey.on_startup(name="start")(worker.start)
huey.on_startup(name="watch")(worker.watch)

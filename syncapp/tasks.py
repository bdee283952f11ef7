"""The tasks of the worker process, and the functions that request them.

A task carries only the number of a bucket, because Huey loses a task whose worker dies; events stay in their streams. A
bucket is drained when a commit requests it, at most twice a second; again 0.7 s after a drain that moved something, if
there are more events by then; and by a sweep of all buckets every 5 s and at the start of a worker. If the queue takes
no task, the worker drains anyway.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import traceback
from typing import Any

import structlog
from huey import crontab
from huey.exceptions import CancelExecution
from redis import Redis
from redis.exceptions import RedisError

from syncapp import logs, metrics, task_queue
from syncapp.alerts import Alerts
from syncapp.audit.drain import Drain, collect_rarely
from syncapp.audit.drain_requests import DrainRequests
from syncapp.audit.last_failure import LastFailure
from syncapp.audit.log import AuditLog
from syncapp.audit.log_upkeep import LogUpkeep
from syncapp.audit.outbox import Outbox
from syncapp.audit.outbox_watch import OutboxWatch
from syncapp.audit.queue_stats import QueueCounts
from syncapp.audit.retry_schedule import POSTGRESQL, REDIS, REPLICAS, RetrySchedule
from syncapp.config import Settings, load
from syncapp.connection_limits import queue_of_worker, redis_of_worker
from syncapp.errors import StoreUnavailable, one_line
from syncapp.loops import Loops
from syncapp.postgres.check import check
from syncapp.postgres.database import STATEMENT_TIMEOUT_S, Database
from syncapp.postgres.failures import failure_of
from syncapp.queue_server import QueueServer, QueueUnavailable
from syncapp.store.bucket_record import BucketGuard
from syncapp.store.client import connect as connect_store
from syncapp.store.client import has_tasks_server, server_loops, servers_of
from syncapp.store.clock_steps import ClockStepWatch
from syncapp.store.connection_pool import pool_of
from syncapp.store.library_upkeep import LibraryUpkeep
from syncapp.store.process_registry import ProcessRegistry
from syncapp.store.replication import TooFewReplicas

log = structlog.get_logger(__name__)

_MAX_DRAIN_S = 5.0  # so that other buckets get their turn, and a worker can stop
_NEXT_DRAIN_S = 0.7  # scripts request drains of a bucket every 0.5 s: this is for the last commits of a burst
_PROBE_TIMEOUT_S = 2
_MAX_TRANSACTION_S = STATEMENT_TIMEOUT_S + 10.0  # a server that is only slow ends the statement by itself


def enqueue_drain(bucket: int) -> None:
    """Ask the worker to drain a bucket, unless that is queued already. Raises what redis raises."""
    # Tasks with the same id make equal messages, which the queue holds only once.
    huey.enqueue(drain_bucket.s(bucket, id=f"drain-{bucket}"))


class AuditWorker:
    """The state that the tasks of one worker process share. It does not connect before the first task.

    client: does not decode replies, and has connections for all threads. queue: of the tasks.
    """

    def __init__(self, settings: Settings, client: Redis, queue: QueueServer) -> None:
        self.settings = settings
        self._client = client
        self._queue = queue
        self._loops = Loops()
        self._stopped = threading.Event()
        self.outbox = Outbox.of(client, settings)
        self.database = Database(settings.database_url, max_transaction_s=_MAX_TRANSACTION_S)
        self._alert = Alerts(settings)
        counts = QueueCounts(client, self.outbox.keyspace)
        self._upkeep = LogUpkeep(self.database, counts, months=settings.audit_partition_months)
        self._drain = Drain(
            self.outbox, AuditLog(self.database, self._alert), batch=settings.audit_batch, count=counts.add
        )
        self._last_failure = LastFailure(client, self.outbox.keyspace)
        self._drain_requests = DrainRequests(self._enqueue, choose=self.outbox.with_entries, loops=self._loops)
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
        self._bucket_guard = guard = BucketGuard.of(client, settings, adopt=self.outbox.use_buckets)
        registry = ProcessRegistry(
            client, self.outbox.keyspace, kind="worker", loops=self._loops, is_away=lambda: guard.is_moving
        )
        self._clock_watch = ClockStepWatch(
            client,
            self.outbox.keyspace,
            registry,
            server=servers_of(settings)[0],
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
        needed = redis_of_worker(self.settings)
        pool_of(self._client).grow(needed)
        pool_of(huey.storage.conn).grow(queue_of_worker(self.settings))
        if (value := self.settings.redis_max_connections) < needed:
            log.warning("redis_max_connections_too_small", setting="REDIS_MAX_CONNECTIONS", value=value, used=needed)
        with contextlib.suppress(RedisError, StoreUnavailable):
            self._bucket_guard.check()
        for bucket in self.outbox.with_events():
            self._drain_requests.nudge(bucket)
        with contextlib.suppress(RedisError):  # a drain creates the missing groups
            self.outbox.make_groups()
        self.make_partitions()

    def watch(self) -> None:
        """Start the worker's background loops, once. They find events whose drain request was lost with its process."""
        if self._watched.acquire(blocking=False):
            self._loops.start("watch", self._watch.turn, self._stopped)
            self._loops.start("clock_watch", self._bucket_guard.before(self._clock_watch.turn), self._stopped)
            self._loops.start("libraries", LibraryUpkeep(self._client).turn, self._stopped)
            if check_queue := self._queue.turn:
                self._loops.start("queue_server", check_queue, self._stopped)
            for name, turn in server_loops(self.settings).items():
                self._loops.start(name, turn, self._stopped)

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

    # Huey names a task after the module of its function, so a worker of another release knows these by this module.

    def count_dead_letters(self) -> None:
        """Correct the count of dead letters."""
        self._upkeep.count_dead_letters()

    def repeat_erasures(self) -> None:
        """Repeat recent erasures."""
        self._upkeep.repeat_erasures()

    def make_partitions(self) -> None:
        """Make the partitions of the coming months."""
        self._upkeep.make_partitions()

    def _enqueue(self, bucket: int) -> None:
        """Enqueue a drain; if the queue accepts none, drain in this process. Raises what redis raises if it is down."""
        try:
            self._queue.enqueue(lambda: enqueue_drain(bucket))
        except QueueUnavailable as error:
            # A drain works without the queue's own server; and a full store refuses none of its writes.
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
            self._drain_requests.follow_up(bucket, 0 if drained.more else _NEXT_DRAIN_S)
            self._release(POSTGRESQL, REDIS, REPLICAS)
        return True

    def _release(self, *servers: str) -> None:
        """Request drains of all buckets that were held because these servers failed, now that they work again."""
        for bucket in {each for server in servers for each in self._retries.release(server)}:
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
    """Shorten Huey's log records about errors of Redis to one line, because Huey recovers by itself.

    There are none of the queue's own server: `task_queue_unfit` tells it once.
    """
    error = record.exc_info[1] if record.exc_info else None
    if record.name.startswith("huey") and isinstance(error, RedisError):
        record.msg, record.args = f"{record.getMessage()}: {one_line(error)}", ()
        record.exc_info = record.exc_text = None
        return not has_tasks_server(_settings)
    return True


def _failed_server(error: Exception) -> str | None:
    """Return the server that a drain failed on: it is down or accepts no writes. None for any other cause."""
    if isinstance(error, RedisError):
        return REPLICAS if isinstance(error, TooFewReplicas) else REDIS
    return POSTGRESQL if failure_of(error) else None


# `huey_consumer syncapp.tasks.huey` needs these objects at import; none of them connects yet.
_settings = load()
# A web process only requests drains, so one connection is enough; a worker raises the limit when it starts.
_client = connect_store(_settings, decode=False, max_connections=1)
huey = task_queue.connect(_settings, _client, max_connections=1)
worker = AuditWorker(_settings, _client, QueueServer(_settings, huey))
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
for _name in ("huey", "huey.consumer.Worker", "huey.consumer.Scheduler"):  # they log before the worker starts
    logging.getLogger(_name).addFilter(without_traceback)

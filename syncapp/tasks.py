"""The tasks of the worker process, and what asks for them.

A task carries nothing but a bucket's number: Huey forgets a task whose worker dies, the streams do not
forget an event. A bucket is drained when a commit nudges, at most twice a second; again half a second after a
drain that moved something; and by a sweep of all buckets every few seconds and at a worker's start.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import traceback
from typing import Any

import psycopg2
import structlog
from huey import crontab
from huey.exceptions import CancelExecution
from redis.exceptions import RedisError

from syncapp import broker, db, logs, metrics, redis
from syncapp.alerts import Alerts
from syncapp.audit import AuditLog
from syncapp.config import Settings
from syncapp.drains import Drain, Drained, collect_rarely
from syncapp.keys import Keyspace
from syncapp.letters import DeadLetters
from syncapp.nudger import Nudger
from syncapp.outbox import Outbox
from syncapp.tally import Tally

log = structlog.get_logger(__name__)

_DRAIN_AT_MOST_S = 5.0  # then other buckets have their turn, and a worker that is to stop can
_TRAILING_S = 0.5  # as long as a bucket's nudges are held back: the last commits of a burst come without one
_WATCH_S = 5.0  # between two looks at all buckets
_RETRY_SLACK_S = 10.0  # a retry that is due waits for the scheduler and for a free thread


def enqueue_drain(bucket: int) -> None:
    """Ask the worker to drain a bucket, unless it is asked already. Raises what redis raises."""
    # One id for all makes equal messages, which the queue holds once.
    huey.enqueue(drain_bucket.s(bucket, id=f"drain-{bucket}"))


class Worker:
    """What the tasks of one worker process share; it connects to nothing before the first task."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.outbox = Outbox(
            redis.connect(settings, decode=False),
            Keyspace(settings.sync_buckets),
            claim_idle_s=settings.audit_claim_idle_s,
        )
        self.database = db.Database(settings.database_url)
        self._alert = Alerts(settings)
        self._tally = Tally(redis.connect(settings, decode=False), self.outbox.keyspace)
        self._drain = Drain(
            self.outbox, AuditLog(self.database, self._alert), batch=settings.audit_batch, count=self._tally.add
        )
        self._nudger = Nudger(enqueue_drain)
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
        for bucket in self.outbox.buckets:
            with contextlib.suppress(RedisError):
                huey.delete(_hold(bucket))  # for a retry that may have died with who was to make it
            self._nudger.nudge(bucket)
        self.make_partitions()

    def watch(self) -> None:
        """Sweep every few seconds, on a thread of its own: a nudge may die with the process that was to pass it on."""
        if self._watched.acquire(blocking=False):
            threading.Thread(target=self._watch_for_ever, name="watch", daemon=True).start()

    def _watch_for_ever(self) -> None:
        while True:
            time.sleep(_WATCH_S)
            self.sweep()

    def drain(self, bucket: int, task: Any) -> None:
        """Drain a bucket; a failure is tried again by Huey, and told at CRITICAL when no retry is left.

        While a retry waits its turn, other tasks leave its bucket to it: however many nudges come during
        an outage, each bucket is tried by one task, and looked at again when that should be over.
        """
        drained = self._drained(bucket, task)
        if drained is None:
            raise CancelExecution  # to Huey: once more if there are retries, after the task's delay; and no traceback
        if drained.moved:
            self._nudger.nudge(bucket, 0 if drained.more else _TRAILING_S)

    def _drained(self, bucket: int, task: Any) -> Drained | None:
        """Return what a drain did, or would have done but for a hold; None when it failed, which is told."""
        is_retry = task.retries < self.settings.audit_retries
        try:
            held_s = 0 if is_retry else (huey.get(_hold(bucket), peek=True) or 0) - time.time()
            if held_s > 0:
                self._nudger.nudge(bucket, held_s)
                return Drained(0, more=False)
            drained = self._drain.run(bucket, at_most_s=_DRAIN_AT_MOST_S)
            if is_retry:
                huey.delete(_hold(bucket))
        except Exception as error:  # noqa: BLE001 whatever it is, the events stay in the outbox
            metrics.DRAIN_FAILURES.inc()
            self._tell(bucket, task, error)
            _let_go(error)
            return None
        return drained

    def sweep(self) -> None:
        """Have every bucket drained that holds anything; alert when one holds anything for too long."""
        try:
            backlogs = self.outbox.backlogs()
            for bucket, backlog in backlogs.items():
                if backlog.waiting or backlog.active:
                    enqueue_drain(bucket)
        except RedisError as error:
            log.warning("sweep_failed", error=db.one_line(error))
            return
        ages_ms = {bucket: backlog.oldest_age_ms or 0 for bucket, backlog in backlogs.items()}
        late = {bucket: age for bucket, age in ages_ms.items() if age > self.settings.audit_lag_alert_s * 1000}
        if late:
            waiting = sum(backlog.waiting + backlog.active for backlog in backlogs.values())
            self._alert("audit_lag", oldest_age_ms=max(late.values()), buckets=sorted(late), events=waiting)

    def count_letters(self) -> None:
        """Put the count of dead letters right, which are driven again or deleted by hand."""
        try:
            self._tally.set_failed(DeadLetters(self.database).count())
        except (*db.AWAY, RedisError) as error:
            log.warning("count_letters_failed", error=db.one_line(error))

    def make_partitions(self) -> None:
        """Make the partitions of the months to come."""
        try:
            with self.database.transaction() as cursor:
                made = db.make_partitions(cursor, self.settings.audit_partition_months)
        except psycopg2.Error as error:
            # There is time: months were made ahead, and a default partition takes the rest.
            log.warning("make_partitions_failed", error=db.one_line(error))
        else:
            if made:
                log.info("partitions_made", names=made)

    def _tell(self, bucket: int, task: Any, error: Exception) -> None:
        """Log a failed drain, and hold the bucket for the retry."""
        expected = isinstance(error, (*db.AWAY, RedisError))
        what: dict[str, Any] = {"bucket": bucket, "error": db.one_line(error)}
        hold_s = task.retry_delay + _RETRY_SLACK_S if task.retries else self.settings.audit_retry_delay_s
        with contextlib.suppress(RedisError):
            huey.put(_hold(bucket), time.time() + hold_s)
            backlog = self.outbox.backlogs()[bucket]
            what |= {"waiting": backlog.waiting, "active": backlog.active, "oldest_age_ms": backlog.oldest_age_ms}
        if task.retries:
            retry = {"retries_left": task.retries, "retry_in_s": task.retry_delay}
            log.warning("drain_failed", exc_info=not expected, **retry, **what)
        else:
            self._alert("drain_gave_up", retries=self.settings.audit_retries, **what)


def _let_go(error: BaseException | None) -> None:
    """Forget what the frames of an error hold, a batch among it: somebody may keep the error until Python collects."""
    while error:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def without_traceback(record: logging.LogRecord) -> bool:
    """Make one line of what Huey says of a Redis that is away: it goes on by itself."""
    error = record.exc_info[1] if record.exc_info else None
    if record.name.startswith("huey") and isinstance(error, RedisError):
        record.msg, record.args = f"{record.getMessage()}: {db.one_line(error)}", ()
        record.exc_info = record.exc_text = None
    return True


def _hold(bucket: int) -> str:
    """Return the name under which Huey keeps until when (s) a bucket is left to its retry."""
    return f"hold-{bucket}"


# `huey_consumer syncapp.tasks.huey` wants it here, made at import; nothing connects yet.
_settings = Settings.from_env()
huey = broker.connect(_settings)
worker = Worker(_settings)
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

"""The watch: checks all buckets every 5 s, independently of drain requests, tasks and retries."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from syncapp.audit.outbox import Outbox, OutboxBacklog
from syncapp.errors import one_line

log = structlog.get_logger(__name__)

_INTERVAL_S = 5.0


class OutboxWatch:
    """Requests drains of buckets with events, and alerts if events wait too long or the buckets cannot be read.

    ask(bucket) requests a drain, alert(kind, **context) sends an alert; neither raises. before() is called before each
    check, after() when Redis has answered one. lag_alert_s: events older than this cause an alert.
    """

    def __init__(
        self,
        outbox: Outbox,
        *,
        ask: Callable[[int], None],
        alert: Callable[..., None],
        lag_alert_s: float,
        before: Callable[[], None] = lambda: None,
        after: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._outbox = outbox
        self._ask = ask
        self._alert = alert
        self._lag_alert_ms = lag_alert_s * 1000
        self._before = before
        self._after = after
        self._clock = clock
        self._seen_s = clock()
        self._oldest_ms = 0
        self._is_failing = False
        self._is_new = True

    def turn(self) -> float:
        """Check once, except at the first turn; return how long to wait (s). May raise; the next turn tries again."""
        if self._is_new:  # a worker that starts drains every bucket anyway
            self._is_new = False
        else:
            self.run_once()
        return _INTERVAL_S

    def run_once(self) -> None:
        """Check once, even if before() fails."""
        try:
            self._before()
        finally:
            self.sweep()

    def sweep(self) -> None:
        """Check every bucket: first alert, then request drains."""
        try:
            backlogs = self._outbox.backlogs()
        except Exception as error:  # noqa: BLE001 whatever Redis replies, an alert follows if it lasts
            self._alert_unreadable(error)
            self._log_failure(error)
            if self._outbox.is_spread or not isinstance(error, RedisConnectionError | RedisTimeoutError):
                for bucket in self._outbox.buckets:  # perhaps only one cannot be read, and the others can be drained
                    self._ask(bucket)
            return
        self._seen_s = self._clock()
        self._is_failing = False
        self._alert_late(backlogs)
        self._after()
        for bucket, backlog in backlogs.items():
            if backlog.waiting or backlog.active:
                self._ask(bucket)

    def _alert_late(self, backlogs: Mapping[int, OutboxBacklog]) -> None:
        ages_ms = {bucket: backlog.oldest_age_ms or 0 for bucket, backlog in backlogs.items()}
        self._oldest_ms = max(ages_ms.values())
        late = sorted(bucket for bucket, age_ms in ages_ms.items() if age_ms > self._lag_alert_ms)
        if late:
            waiting = sum(backlog.waiting + backlog.active for backlog in backlogs.values())
            self._alert("audit_lag", oldest_age_ms=self._oldest_ms, buckets=late, events=waiting)

    def _alert_unreadable(self, error: Exception) -> None:
        """Alert if the oldest event of the last check, or one right after it, may have been waiting for too long."""
        unseen_s = self._clock() - self._seen_s
        if self._oldest_ms + unseen_s * 1000 > self._lag_alert_ms:
            self._alert("audit_lag", not_seen_for_s=round(unseen_s), error=one_line(error))

    def _log_failure(self, error: Exception) -> None:
        """Log the first of consecutive failures."""
        if not self._is_failing:
            self._is_failing = True
            log.warning("sweep_failed", error=one_line(error) or type(error).__name__)

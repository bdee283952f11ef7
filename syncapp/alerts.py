"""Alerts: what somebody has to be told of, in the log, in Sentry and by a webhook.

Whoever tells never waits: a thread of its own does. In a storm an alert of each kind goes out at once and then one in
each interval, which says how many there were in between; these are in the log as errors.
"""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
import structlog

from syncapp import metrics
from syncapp.config import Settings

_WEBHOOK_TIMEOUT_S = 5.0
_WEBHOOK_ATTEMPTS = 3
_WEBHOOK_PAUSE_S = 1.0
_MESSAGES = {
    "drain_gave_up": "Audit events could not be moved into PostgreSQL, after every retry; the sweep goes on trying.",
    "dead_letters": "PostgreSQL refused audit events for what they are; they are in sync_dead_letters.",
    "divergences": "Other audit events came under known keys; they are in sync_dead_letters, the first ones stay.",
    "clock_step": "The store's clock was set: sessions may have timed out early or stalled (docs/troubleshooting.md).",
    "audit_lag": "Audit events have been waiting for PostgreSQL for too long, or the queue cannot be read to check.",
}
"""What each kind of alert says."""


class Alerts:
    """Tells people, by all the ways that are set; one a kind and interval, by this process."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._webhook_url = settings.alert_webhook_url
        self._sentry_dsn = settings.sentry_dsn
        self._interval_s = settings.alert_interval_s
        self._clock = clock
        self._log = structlog.get_logger(__name__)
        self._lock = threading.Lock()
        self._told_at: dict[str, float] = {}
        self._untold: dict[str, int] = {}
        # Pending alerts are still sent when the process ends in good order.
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="alerts")
        self._sentry_is_ready = False

    def __call__(self, kind: str, **context: Any) -> None:
        """Tell of something of a kind of `_MESSAGES`."""
        metrics.ALERTS.labels(kind).inc()
        now = self._clock()
        with self._lock:
            if now - self._told_at.get(kind, float("-inf")) < self._interval_s:
                self._untold[kind] = self._untold.get(kind, 0) + 1
                self._log.error(kind, **context)
                return
            self._told_at[kind] = now
            more = self._untold.pop(kind, 0)
        if self._webhook_url or self._sentry_dsn:
            self._sender.submit(self._send, kind, context | {"more": more})
        self._log.critical(kind, **context, **({"more": more} if more else {}))

    def close(self) -> None:
        """Wait until what was told is sent."""
        self._sender.shutdown()

    def _send(self, kind: str, context: dict[str, Any]) -> None:
        for way, send in ((self._webhook_url, self._post), (self._sentry_dsn, self._capture)):
            if way:
                try:
                    send(kind, context)
                except Exception as error:  # noqa: BLE001 an alert that cannot be sent stops neither the others nor the work
                    self._log.warning("alert_not_sent", kind=kind, by=send.__name__.strip("_"), error=str(error))

    def _post(self, kind: str, context: dict[str, Any]) -> None:
        document = {"kind": kind, "message": _MESSAGES[kind], "at_ms": time.time_ns() // 1_000_000, "context": context}
        request = urllib.request.Request(  # noqa: S310 the settings take http and https only
            self._webhook_url,
            orjson.dumps(document, default=str),
            {"Content-Type": "application/json", "User-Agent": "SyncApp"},
        )
        for attempt in range(_WEBHOOK_ATTEMPTS):
            try:
                urllib.request.urlopen(request, timeout=_WEBHOOK_TIMEOUT_S).close()  # noqa: S310 as above
            except OSError:
                if attempt == _WEBHOOK_ATTEMPTS - 1:
                    raise
                time.sleep(_WEBHOOK_PAUSE_S)
            else:
                return

    def _capture(self, kind: str, context: dict[str, Any]) -> None:
        import sentry_sdk  # it takes a while to load

        if not self._sentry_is_ready:
            # Of the integrations none: they would send each line of the log once more.
            sentry_sdk.init(self._sentry_dsn, default_integrations=False, auto_enabling_integrations=False)
            self._sentry_is_ready = True
        with sentry_sdk.new_scope() as scope:
            scope.set_tag("kind", kind)
            scope.set_context("alert", context)
            scope.fingerprint = [kind]
            sentry_sdk.capture_message(_MESSAGES[kind], level="fatal")
        sentry_sdk.flush(_WEBHOOK_TIMEOUT_S)

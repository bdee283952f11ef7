"""Alerts: events that need a person, sent to the log, to Sentry and to a webhook.

A separate thread sends them, so callers never wait. At most one alert of each kind is sent per interval; it has the
number of those since the last one, which are logged as errors.
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
    "drain_gave_up": "Audit events could not be moved to PostgreSQL, even after all retries; sweeps keep trying.",
    "dead_letters": "PostgreSQL rejected audit events because of their data; they are in sync_dead_letters.",
    "divergences": "Audit events have the keys of stored rows, but different content; they are in sync_dead_letters.",
    "clock_step": "The store's clock was set: sessions may have timed out early or stalled (docs/troubleshooting.md).",
    "audit_lag": "Audit events have been waiting for PostgreSQL for too long, or the queue cannot be read to check.",
}
"""The message of each kind of alert."""


class Alerts:
    """Sends alerts through every configured channel, at most one of each kind per interval and process."""

    def __init__(self, settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._webhook_url = settings.alert_webhook_url
        self._sentry_dsn = settings.sentry_dsn
        self._interval_s = settings.alert_interval_s
        self._clock = clock
        self._log = structlog.get_logger(__name__)
        self._lock = threading.Lock()
        self._sent_at: dict[str, float] = {}
        self._suppressed: dict[str, int] = {}
        # Pending alerts are still sent when the process exits normally.
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="alerts")
        self._sentry_is_ready = False

    def __call__(self, kind: str, **context: Any) -> None:
        """Send an alert of a kind of `_MESSAGES`."""
        metrics.ALERTS.labels(kind).inc()
        now = self._clock()
        with self._lock:
            if now - self._sent_at.get(kind, float("-inf")) < self._interval_s:
                self._suppressed[kind] = self._suppressed.get(kind, 0) + 1
                self._log.error(kind, **context)
                return
            self._sent_at[kind] = now
            more = self._suppressed.pop(kind, 0)
        if self._webhook_url or self._sentry_dsn:
            self._sender.submit(self._send, kind, context | {"more": more})
        self._log.critical(kind, **context, **({"more": more} if more else {}))

    def close(self) -> None:
        """Wait until pending alerts are sent."""
        self._sender.shutdown()

    def _send(self, kind: str, context: dict[str, Any]) -> None:
        for target, send in ((self._webhook_url, self._post), (self._sentry_dsn, self._capture)):
            if target:
                try:
                    send(kind, context)
                except Exception as error:  # noqa: BLE001 a failed alert must not stop other alerts or the work
                    self._log.warning("alert_not_sent", kind=kind, by=send.__name__.strip("_"), error=str(error))

    def _post(self, kind: str, context: dict[str, Any]) -> None:
        document = {"kind": kind, "message": _MESSAGES[kind], "at_ms": time.time_ns() // 1_000_000, "context": context}
        request = urllib.request.Request(  # noqa: S310 the settings allow http and https only
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
        import sentry_sdk  # imported here because it loads slowly

        if not self._sentry_is_ready:
            # No integrations: they would also send each log line.
            sentry_sdk.init(self._sentry_dsn, default_integrations=False, auto_enabling_integrations=False)
            self._sentry_is_ready = True
        with sentry_sdk.new_scope() as scope:
            scope.set_tag("kind", kind)
            scope.set_context("alert", context)
            scope.fingerprint = [kind]
            sentry_sdk.capture_message(_MESSAGES[kind], level="fatal")
        sentry_sdk.flush(_WEBHOOK_TIMEOUT_S)

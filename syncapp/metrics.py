"""Every metric's name, in one place; `render` makes the text that `/metrics` answers with.

With `PROMETHEUS_MULTIPROC_DIR` set (gunicorn.conf.py does) the web processes of one machine count
together, and any of them answers for all.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Iterable, Mapping
from typing import Any

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

REQUESTS = Counter("syncapp_http_requests_total", "HTTP requests that were answered.", ("route", "method", "status"))
LATENCY = Histogram(
    "syncapp_http_request_seconds",
    "Seconds to answer a request. Includes the wait of a long poll; for /ws, it is the handshake.",
    ("route", "method"),
    buckets=_SECONDS,
)
SOCKETS = Gauge(
    "syncapp_ws_connections", "Open connections: WebSockets, event streams and long polls.", multiprocess_mode="livesum"
)
SUBSCRIPTIONS = Gauge(
    "syncapp_ws_subscriptions", "Subscriptions made with SUBSCRIBE on open WebSockets.", multiprocess_mode="livesum"
)
WATCHED = Gauge("syncapp_hub_sessions", "Watched sessions, added up over web processes.", multiprocess_mode="livesum")
WS_SENT = Counter(
    "syncapp_ws_messages_sent_total", "Messages sent to WebSockets and event streams, by type.", ("type",)
)
WS_RECEIVED = Counter(
    "syncapp_ws_messages_received_total", "Messages received over WebSockets; type `refused` if refused.", ("type",)
)
WS_COMMANDS = Counter(
    "syncapp_ws_commands_total", "Commands over WebSockets, by answer: ACK or an error code.", ("command", "answer")
)
WS_SKIPPED = Counter("syncapp_ws_versions_skipped_total", "Session versions dropped for slow clients.")
WS_CLOSED = Counter(
    "syncapp_ws_closed_total", "WebSockets and event streams closed by the server, by close code.", ("code",)
)
WS_REFUSED = Counter(
    "syncapp_ws_refused_total", "Refused requests to open a WebSocket, event stream or long poll.", ("reason",)
)
LIMITED = Counter("syncapp_limited_total", "Requests and commands refused by a limit, by limit.", ("reason",))
AUTH_REFUSED = Counter(
    "syncapp_auth_refused_total", "Requests and commands refused for lack of a valid token or of a right.", ("reason",)
)
ROUND_TRIPS = Histogram(
    "syncapp_websocket_round_trip_seconds",
    "Seconds from a ping of the server to the client's pong, over WebSockets.",
    buckets=_SECONDS,
)
HUB_RESYNCS = Counter("syncapp_hub_resyncs_total", "Session states read again, by reason.", ("reason",))
EXPIRY_LATENESS = Histogram(
    "syncapp_expiry_lateness_seconds",
    "Seconds from the instant a warning, timeout or idle end took effect until the sweeper committed it.",
    buckets=_SECONDS,
)
EXPIRY_FAILURES = Counter(
    "syncapp_expiry_failures_total", "Failed attempts to apply what is due to a session; the sweeper tries again."
)
DEADLINES_REBUILT = Counter(
    "syncapp_deadlines_rebuilt_total", "Sessions rescheduled after the deadlines of their bucket were deleted."
)
SWEEPING = Gauge("syncapp_sweepers", "Web processes that sweep at least one bucket.", multiprocess_mode="livesum")
SWEPT_BUCKETS = Gauge("syncapp_swept_buckets", "Buckets whose sweeper leases are held.", multiprocess_mode="livesum")
CLOCK_STEPS = Counter(
    "syncapp_clock_steps_total",
    "Clock steps that a process saw: `store` if most processes saw the same step, otherwise `own`.",
    ("clock",),
)
PROCESSES = Gauge(
    "syncapp_processes",
    "Processes that reported within the last 5 seconds, by kind.",
    ("kind",),
    multiprocess_mode="mostrecent",
)
NODE_UP = Gauge(
    "syncapp_redis_up", "1 if a server of the store answers, otherwise 0.", ("node",), multiprocess_mode="mostrecent"
)
NODE_BUCKETS = Gauge(
    "syncapp_redis_buckets", "Buckets on a server of the store.", ("node",), multiprocess_mode="mostrecent"
)
NODE_MEMORY = Gauge(
    "syncapp_redis_memory_bytes", "Memory that a server uses.", ("node",), multiprocess_mode="mostrecent"
)
NODE_CLIENTS = Gauge(
    "syncapp_redis_clients", "Connections to a server, of all clients.", ("node",), multiprocess_mode="mostrecent"
)
NODE_COMMANDS = Gauge(
    "syncapp_redis_commands_per_second",
    "Commands that a server runs, of all clients; a script counts once.",
    ("node",),
    multiprocess_mode="mostrecent",
)
NODE_REPLICAS = Gauge(
    "syncapp_redis_replicas", "Replicas that are connected to a server.", ("node",), multiprocess_mode="mostrecent"
)
PROMOTIONS = Counter("syncapp_redis_promotions_total", "Primaries of which the Sentinels named a successor.")
LOOP_FAILURES = Counter("syncapp_loop_failures_total", "Failed turns of background loops.", ("loop",))
LOOP_TURNED = Gauge(
    "syncapp_loop_turned_timestamp_seconds",
    "Unix time at which a background loop last began a turn; the oldest of all processes.",
    ("loop",),
    multiprocess_mode="livemin",
)
GC_PAUSES = Histogram(
    "syncapp_gc_pause_seconds",
    "Seconds for which a web process stood still to look for reference cycles: a step, or a visit to all objects.",
    ("visited",),
    buckets=_SECONDS,
)
DRAINED = Counter("syncapp_audit_events_stored_total", "Audit events stored in PostgreSQL.")
DRAIN_FAILURES = Counter("syncapp_audit_drain_failures_total", "Failed drains; each is tried again.")
DEAD_LETTERS = Counter(
    "syncapp_audit_dead_letters_total", "Audit events that PostgreSQL refused because of their content."
)
DIVERGENCES = Counter(
    "syncapp_audit_divergences_total", "Audit events whose key is already stored with different content."
)
RECOVERIES = Counter(
    "syncapp_recoveries_total", "Sessions compared with the audit log for recovery, by outcome.", ("outcome",)
)

AUDIT_QUEUE = Gauge(
    "syncapp_audit_queue",
    "Audit events by state (waiting, active, completed, failed), and scheduled retries of drains (delayed).",
    ("state",),
    multiprocess_mode="mostrecent",
)
AUDIT_OLDEST = Gauge(
    "syncapp_audit_oldest_age_seconds",
    "Age in seconds of the oldest event that is not yet in PostgreSQL.",
    multiprocess_mode="mostrecent",
)
AUDIT_RATE = Gauge(
    "syncapp_audit_rate_per_second",
    "Audit events stored per second, averaged over the last minute.",
    multiprocess_mode="mostrecent",
)
ALERTS = Counter(
    "syncapp_alerts_total", "Alerts raised, including those not sent because of ALERT_INTERVAL_S.", ("kind",)
)


def show_queue(*, oldest_age_ms: int | None, rate_per_s: float, **by_state: int | None) -> None:
    """Set the gauges of the audit queue; a count that is unknown becomes NaN."""
    for state, count in by_state.items():
        AUDIT_QUEUE.labels(state).set(float("nan") if count is None else count)
    AUDIT_OLDEST.set((oldest_age_ms or 0) / 1000)
    AUDIT_RATE.set(rate_per_s)


def show_processes(names: Iterable[str]) -> None:
    """Set how many processes of each kind there are, from names that begin with the kind."""
    counts = collections.Counter(name.split(":", 1)[0] for name in names)
    for kind in ("web", "worker"):
        PROCESSES.labels(kind).set(counts[kind])


def show_node(name: str, *, is_up: bool, buckets: int, info: Mapping[str, Any]) -> None:
    """Set the gauges of a server of the store; info: its INFO, perhaps empty."""
    NODE_UP.labels(name).set(is_up)
    NODE_BUCKETS.labels(name).set(buckets)
    for gauge, field in (
        (NODE_MEMORY, "used_memory"),
        (NODE_CLIENTS, "connected_clients"),
        (NODE_COMMANDS, "instantaneous_ops_per_sec"),
        (NODE_REPLICAS, "connected_slaves"),
    ):
        gauge.labels(name).set(info.get(field, 0 if not is_up else float("nan")))


def forget_node(name: str) -> None:
    """Set the gauges of a server that is not a master any more to NaN: they cannot be removed."""
    for gauge in (NODE_UP, NODE_BUCKETS, NODE_MEMORY, NODE_CLIENTS, NODE_COMMANDS, NODE_REPLICAS):
        gauge.labels(name).set(float("nan"))


class BatchedCounter:
    """Counts by labels in memory, and adds to a counter when flushed: an `inc` costs as much as writing a message."""

    def __init__(self, counter: Counter) -> None:
        self._counter = counter
        self._counts: dict[tuple[str, ...], int] = {}

    def add(self, *labels: str) -> None:
        """Count one."""
        self._counts[labels] = self._counts.get(labels, 0) + 1

    def flush(self) -> None:
        """Add what was counted."""
        counts, self._counts = self._counts, {}
        for labels, count in counts.items():
            self._counter.labels(*labels).inc(count)


SENT = BatchedCounter(WS_SENT)
RECEIVED = BatchedCounter(WS_RECEIVED)
COMMANDS_ANSWERED = BatchedCounter(WS_COMMANDS)


def flush_counters() -> None:
    """Add what is counted in memory to the metrics, a few times a second."""
    for each in (SENT, RECEIVED, COMMANDS_ANSWERED):
        each.flush()


def render() -> tuple[bytes, str]:
    """Return all metrics as Prometheus text, and its content type."""
    flush_counters()
    if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
        return generate_latest(REGISTRY), CONTENT_TYPE_LATEST
    registry = CollectorRegistry()
    MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # prometheus_client leaves it untyped
    return generate_latest(registry), CONTENT_TYPE_LATEST

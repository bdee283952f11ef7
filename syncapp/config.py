"""Settings: one table, read once from the environment.

This is the only module that reads the environment. `Settings.from_env()` raises `SettingsError`
naming every value that does not fit, and `load()` makes one line of that, so that a process with wrong settings
never starts.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from typing import Any

from syncapp.domain.limits import MAX_IDLE_TIMEOUT_S
from syncapp.setting_checks import unfit

RENAMED = {"WS_ALLOWED_ORIGINS": "ALLOWED_ORIGINS"}  # names of earlier releases are still read


class SettingsError(ValueError):
    """Invalid settings: names each of them on one line, without its value, which may be a password."""


def _setting(default: Any, text: str, low: float | None = None, high: float | None = None) -> Any:
    return field(default=default, metadata={"help": text, "low": low, "high": high})


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting: its environment name is the field's name in capitals."""

    redis_url: str = _setting(
        "redis://127.0.0.1:6379/0", "Redis or Valkey, the primary store (`redis://`, `rediss://`)."
    )
    database_url: str = _setting(
        "postgresql://127.0.0.1:5432/syncapp", "PostgreSQL, the audit trail (`postgres://` is accepted)."
    )
    redis_timeout_s: float = _setting(2.0, "Longest wait for a connection to or an answer from Redis.", 0.05, 60)
    redis_max_connections: int = _setting(64, "Connections to Redis a process may hold for commands.", 1, 10_000)
    redis_verify_tls: bool = _setting(True, "Check the certificate of a `rediss://` server (Heroku's is self-signed).")
    sync_buckets: int = _setting(16, "Key groups sessions are spread over; fixed for the life of the data.", 1, 1024)
    session_ttl_s: int = _setting(3600, "How long a finished session stays readable.", 1, 604_800)
    idle_timeout_s: int = _setting(
        86_400,
        "How long an abandoned session lives, unless its create request sets `idle_timeout_s`.",
        1,
        MAX_IDLE_TIMEOUT_S,
    )
    max_unattended_cycles: int = _setting(
        1000, "Cycles in a row that may time out without a client command; then the session is paused.", 1, 1_000_000
    )
    idempotency_ttl_s: int = _setting(
        3600, "How long the first result of an idempotency key is kept; not longer than `SESSION_TTL_S`.", 1, 604_800
    )
    audit_retries: int = _setting(5, "How often a failed drain is tried again before an alert.", 0, 100)
    audit_retry_delay_s: int = _setting(2, "Wait before the first retry of a failed drain.", 1, 3600)
    audit_retry_backoff: float = _setting(2.0, "What the wait is multiplied by after each retry.", 1, 10)
    audit_batch: int = _setting(2000, "Maximum events in one transaction of a drain.", 1, 10_000)
    audit_claim_idle_s: float = _setting(
        30.0, "How long a delivered event may stay unacknowledged before another drain takes it over.", 0.1, 86_400
    )
    audit_backlog_limit: int = _setting(
        100_000, "Maximum undrained events per bucket; new sessions are refused from there on; 0 for no limit.", 0
    )
    memory_limit_percent: int = _setting(
        80, "Percentage of Redis' `maxmemory` in use at which new sessions are refused; 0 for no limit.", 0, 100
    )
    audit_lag_alert_s: int = _setting(300, "Age of the oldest event not yet in PostgreSQL that raises an alert.", 1)
    alert_webhook_url: str = _setting("", "Where alerts are posted as JSON (`http://`, `https://`).")
    alert_interval_s: int = _setting(
        60, "Seconds between two alerts of one kind; those in between are counted.", 0, 86_400
    )
    sentry_dsn: str = _setting("", "Where Sentry takes alerts.")
    audit_partition_months: int = _setting(3, "Months of `sync_events` partitions made ahead.", 1, 60)
    history_connections: int = _setting(
        4, "Connections to PostgreSQL a web process may hold to answer from the log.", 1, 100
    )
    history_timeout_s: float = _setting(5.0, "Longest wait for an answer from the log.", 0.1, 60)
    recover_on_miss: bool = _setting(
        False, "Look in the log for a session that Redis does not have, and bring it back if it was lost."
    )
    recovery_clock: str = _setting(
        "run",
        "What a lost session's clock did: `run` (kept running), `freeze` (stopped), `credit` (stopped, now runs on).",
    )
    max_body_bytes: int = _setting(1_048_576, "Largest request body.", 1024, 67_108_864)
    request_timeout_s: float = _setting(
        15.0, "How long a request may take to arrive, and a client to accept an answer.", 0.1, 3600
    )
    rate_limit_per_s: float = _setting(
        0.0, "Requests a second one address may make to one web process; 0 for no limit.", 0, 1_000_000
    )
    rate_limit_burst: int = _setting(50, "Requests one address may make at once before the rate applies.", 1, 1_000_000)
    creates_per_minute: int = _setting(
        1200, "Sessions per minute that one address may create on one web process; 0 for no limit.", 0, 1_000_000
    )
    address_store_bytes_per_hour: int = _setting(
        67_108_864,
        "Bytes per hour that one address may add to the store (sessions, metadata, idempotency keys) on one web "
        "process; 0 for no limit.",
        0,
    )
    self_commits_per_hour: int = _setting(
        72_000,
        "Commits per hour that sessions of one address may make by themselves (`skip_cycle`), on each web process; "
        "0 for no limit.",
        0,
    )
    proxy_hops: int = _setting(
        0,
        "Trusted proxies that append to `X-Forwarded-For` (1 on Heroku); with fewer, the peer's address is used.",
        0,
        10,
    )
    allowed_origins: str = _setting(
        "",
        "Comma-separated origins whose pages may use the API and WebSockets; `*` for all (`make run`: `*`). The "
        "service's own pages, and clients that send no `Origin`, are always allowed.",
    )
    ws_max_connections: int = _setting(5000, "Maximum WebSockets of one web process.", 1, 1_000_000)
    ws_max_connections_per_session: int = _setting(5000, "WebSockets of one session on one web process.", 1, 1_000_000)
    ws_max_connections_per_address: int = _setting(
        5000, "WebSockets from one address to one web process.", 1, 1_000_000
    )
    ws_max_subscriptions: int = _setting(
        100, "Maximum sessions that one WebSocket may watch, including the one in its URL.", 1, 10_000
    )
    ws_max_message_bytes: int = _setting(65_536, "Largest message a client may send (close 1009).", 128, 16_777_216)
    ws_messages_per_s: float = _setting(50.0, "Messages a second a connection may send (close 1008).", 1, 100_000)
    ws_messages_burst: int = _setting(
        200, "Messages a connection may send at once before that rate applies.", 1, 100_000
    )
    ws_ping_interval_s: float = _setting(
        25.0, "Seconds between pings to a client; one that does not answer is disconnected after two.", 0.1, 3600
    )
    stream_heartbeat_s: float = _setting(
        15.0, "Seconds between heartbeats of a stream (`event: heartbeat`), which scripts can listen for.", 0.1, 3600
    )
    ws_slow_close_s: float = _setting(
        30.0, "How long a client may take to accept one message before it is closed (1013).", 0.1, 3600
    )
    ws_drain_s: float = _setting(
        4.0,
        "Longest time that a process shutting down takes to close its WebSockets (1012), one after the other.",
        0,
        3600,
    )
    worker_threads: int = _setting(4, "Threads of the worker process.", 1, 64)
    host: str = _setting("0.0.0.0", "IP address or host name that gunicorn listens on (`make run`: `127.0.0.1`).")  # noqa: S104 a container's router comes from outside
    port: int = _setting(8000, "Port that gunicorn listens on.", 1, 65_535)
    web_concurrency: int = _setting(2, "Web processes that gunicorn starts.", 1, 1000)
    worker_connections: int = _setting(
        0, "Maximum connections of one web process; 0 for `WS_MAX_CONNECTIONS` + 1000.", 0, 1_000_000
    )
    log_level: str = _setting("INFO", "DEBUG, INFO, WARNING, ERROR or CRITICAL.")
    log_format: str = _setting("console", "`console` for people, `json` for machines.")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings; an empty variable counts as absent. Raises `SettingsError`."""
        environ = os.environ if environ is None else environ
        old = {RENAMED[name]: environ[name] for name in renamed(environ)}
        values: dict[str, Any] = {}
        faults: list[str] = []
        for item in fields(cls):
            text = old.get(item.name.upper(), environ.get(item.name.upper(), "")).strip()
            if text:
                try:
                    values[item.name] = _parse(text, item.default, item.metadata["low"], item.metadata["high"])
                except ValueError as error:
                    faults.append(f"{item.name.upper()} {error}")
        faults.extend(unfit(values))
        if faults:
            raise SettingsError("; ".join(faults))
        return cls(**values)


def renamed(environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return the names of earlier releases that settings are read from, because their new names are not given."""
    return [old for old, new in RENAMED.items() if environ.get(old, "").strip() and not environ.get(new, "").strip()]


def _parse(text: str, default: Any, low: float | None, high: float | None) -> Any:
    """Read one value as the type of its default."""
    if isinstance(default, bool):
        if text.lower() in {"1", "true", "yes", "on"}:
            return True
        if text.lower() in {"0", "false", "no", "off"}:
            return False
        raise ValueError("must be true or false")
    if not isinstance(default, int | float):
        return text
    try:
        number = type(default)(text)
    except ValueError:
        kind = "a whole number" if isinstance(default, int) else "a number"
        raise ValueError(f"must be {kind}") from None
    if not (low is None or number >= low) or not (high is None or number <= high):
        raise ValueError(f"must be {_bounds(low, high)}")
    return number


def _bounds(low: float | None, high: float | None) -> str:
    """Return the range of a setting in words, without exponents."""
    shown = [str(int(bound) if bound == int(bound) else bound) for bound in (low, high) if bound is not None]
    return " to ".join(shown) if high is not None else f"at least {shown[0]}"


@contextmanager
def stop_if_wrong() -> Iterator[None]:
    """End the process on a `SettingsError`, with one line on standard error and exit code 1."""
    try:
        yield
    except SettingsError as error:
        raise SystemExit(f"SyncApp cannot start: {error}") from None


def load() -> Settings:
    """Return the settings of this process; invalid settings end it."""
    with stop_if_wrong():
        return Settings.from_env()

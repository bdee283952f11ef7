"""Settings: one table, read once from the environment.

`Settings.from_env()` raises `SettingsError`, which names every invalid value. `load()` prints that as one line and ends
the process, so no process starts with invalid settings.

The help texts also stand in docs/configuration.md and .env.example, under the headings used here; a test compares them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from syncapp.domain.limits import MAX_IDLE_TIMEOUT_S
from syncapp.environment import RENAMED, SettingsError, is_given, read_values, renamed, stop_if_wrong
from syncapp.environment import setting as _setting

__all__ = ["RENAMED", "Settings", "SettingsError", "is_given", "load", "renamed", "stop_if_wrong"]


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. A setting's environment variable is its field's name in capitals."""

    # Redis and PostgreSQL
    redis_url: str = _setting(
        "redis://127.0.0.1:6379/0",
        "URL of Redis or Valkey, the store: `redis://`; through Sentinels `redis+sentinel://h1,h2,h3/name`; a cluster "
        "`redis+cluster://h1,h2,h3`. With TLS `rediss` in place of `redis`.",
        is_secret=True,
    )
    redis_verify_tls: bool = _setting(
        True, "Verify the certificates of servers with TLS. Heroku's are self-signed, so set `false` there."
    )
    redis_timeout_s: float = _setting(
        2.0, "Maximum seconds to wait for a connection to Redis, or for its reply.", 0.05, 60
    )
    redis_max_connections: int = _setting(
        64, "Maximum connections for commands from one process to Redis, or to each master of a cluster.", 1, 10_000
    )
    redis_min_replicas: int = _setting(
        0, "Number of replicas that must have a change before it is acknowledged; otherwise the answer is 503.", 0, 10
    )
    tasks_redis_url: str = _setting(
        "",
        "URL of another Redis or Valkey for the queue of the worker's tasks; by default the store. Required with a "
        "cluster.",
        is_secret=True,
    )
    sync_buckets: int = _setting(
        64, "Number of buckets that sessions are spread over; `flask sessions rebucket` changes it.", 1, 1024
    )
    memory_limit_percent: int = _setting(
        80, "Percentage of Redis's `maxmemory` in use at which new sessions are refused; 0 means no limit.", 0, 100
    )
    database_url: str = _setting(
        "postgresql://127.0.0.1:5432/syncapp",
        "URL of PostgreSQL, the audit log (`postgresql://` or `postgres://`).",
        is_secret=True,
    )
    history_connections: int = _setting(
        4, "Maximum connections to PostgreSQL that one web process opens for history queries.", 1, 100
    )
    history_timeout_s: float = _setting(
        5.0, "Maximum seconds for a history query; after that the response is 503.", 0.1, 60
    )

    # Access
    auth: str = _setting(
        "off",
        "Who may use the service: `required`, only callers with a token; `off`, everyone who reaches the port may do "
        "everything. Must be set (`make run`: `off`).",
    )
    auth_secrets: str = _setting(
        "",
        "Comma-separated secrets of HS256 tokens, each of at least 32 bytes. The first signs; all verify.",
        is_secret=True,
    )
    auth_public_keys: str = _setting(
        "",
        "Public keys that verify tokens, in PEM, one after the other, with line breaks or `\\n`: RSA of at least 2048 "
        "bits (RS256), EC P-256 (ES256), Ed25519 (EdDSA).",
    )
    auth_jwks_url: str = _setting(
        "", "URL of a JWKS with such keys (`https://`, or `http://` of this machine); read again every 5 minutes."
    )
    auth_audience: str = _setting(
        "", "The `aud` that tokens must have; without it, tokens that have an `aud` are refused."
    )
    auth_issuer: str = _setting("", "The `iss` that tokens must have; without it, any or none.")
    auth_leeway_s: float = _setting(
        5.0, "Seconds by which the clocks of the service and of the token's issuer may differ.", 0, 300
    )
    metrics_token: str = _setting(
        "",
        "Bearer token of at least 16 characters for `/metrics`, `/v1/audit/…` and the details of `/ready`.",
        is_secret=True,
    )
    public_url: str = _setting(
        "", "URL at which clients reach the service, for the addresses of links; by default that of the request."
    )

    # Sessions
    session_ttl_s: int = _setting(3600, "Seconds for which a finished session stays readable in Redis.", 1, 604_800)
    idle_timeout_s: int = _setting(
        86_400,
        "Seconds without commands or watchers after which a session is cancelled, unless its create request sets "
        "`idle_timeout_s`.",
        1,
        MAX_IDLE_TIMEOUT_S,
    )
    max_unattended_cycles: int = _setting(
        1000,
        "Cycles in a row that may time out without a client command; after that many, the session is paused.",
        1,
        1_000_000,
    )
    idempotency_ttl_s: int = _setting(
        3600,
        "Seconds for which the result of an idempotency key is kept, but no longer than `SESSION_TTL_S`.",
        1,
        604_800,
    )
    recover_on_miss: bool = _setting(
        False, "When Redis does not have a session, look it up in the audit log and restore it if it was lost."
    )
    recovery_clock: str = _setting(
        "run",
        "What the clock of a lost session did after its last event in the log: `run` (ran on), `freeze` (stopped; the "
        "session comes back paused) or `credit` (stopped, and runs on from the restore).",
    )

    # Web processes
    host: str = _setting(
        "0.0.0.0",  # noqa: S104 a container's router comes from outside
        "IP address or host name that gunicorn listens on (`make run`: `127.0.0.1`).",
    )
    port: int = _setting(8000, "Port that gunicorn listens on.", 1, 65_535)
    web_concurrency: int = _setting(2, "Number of web processes that gunicorn starts.", 1, 1000)
    worker_connections: int = _setting(
        0, "Maximum connections of one web process; 0 means `WS_MAX_CONNECTIONS` + 1000.", 0, 1_000_000
    )
    max_body_bytes: int = _setting(
        1_048_576, "Maximum bytes of a request body; a larger one gets 413.", 1024, 67_108_864
    )
    request_timeout_s: float = _setting(
        15.0, "Maximum seconds for a request to arrive, and for a client to accept the response.", 0.1, 3600
    )
    proxy_hops: int = _setting(
        0,
        "Number of trusted proxies that append to `X-Forwarded-For` (1 on Heroku). A request with fewer entries counts "
        "for the address of its connection.",
        0,
        10,
    )
    allowed_origins: str = _setting(
        "",
        "Comma-separated origins whose pages may use the API and WebSockets; `*` allows all (`make run`: `*`). The "
        "service's own pages, and clients that send no `Origin`, are always allowed.",
    )

    # WebSockets and event streams
    ws_max_connections: int = _setting(
        5000, "Maximum WebSockets, event streams and long polls of one web process.", 1, 1_000_000
    )
    ws_max_connections_per_session: int = _setting(
        5000, "Maximum of these that watch one session in one web process.", 1, 1_000_000
    )
    ws_max_connections_per_address: int = _setting(
        5000, "Maximum of these from one client address to one web process.", 1, 1_000_000
    )
    ws_max_subscriptions: int = _setting(
        100, "Maximum sessions that one WebSocket may watch, including the one in its URL.", 1, 10_000
    )
    ws_max_message_bytes: int = _setting(
        65_536, "Maximum bytes of a client message; a larger one closes the connection (1009).", 128, 16_777_216
    )
    ws_messages_per_s: float = _setting(
        50.0, "Messages per second that one connection may send; more closes it (1008).", 1, 100_000
    )
    ws_messages_burst: int = _setting(
        200, "Messages that one connection may send at once before that rate applies.", 1, 100_000
    )
    ws_ping_interval_s: float = _setting(
        25.0,
        "Seconds between pings to a client; a client that responds to neither of two is disconnected (4408).",
        0.1,
        3600,
    )
    ws_slow_close_s: float = _setting(
        30.0, "Seconds that a client may take to accept one message; then it is disconnected (1013).", 0.1, 3600
    )
    ws_drain_s: float = _setting(
        4.0,
        "Maximum seconds over which a process that shuts down closes its WebSockets (1012), one after the other.",
        0,
        3600,
    )
    stream_heartbeat_s: float = _setting(
        15.0, "Seconds between the heartbeats (`event: heartbeat`) of an event stream.", 0.1, 3600
    )

    # Limits per client address
    rate_limit_per_s: float = _setting(
        0.0, "Requests per second that one address may make to one web process; 0 means no limit.", 0, 1_000_000
    )
    rate_limit_burst: int = _setting(
        50, "Requests that one address may make at once before that rate applies.", 1, 1_000_000
    )
    creates_per_minute: int = _setting(
        1200, "Sessions per minute that one address may create on one web process; 0 means no limit.", 0, 1_000_000
    )
    address_store_bytes_per_hour: int = _setting(
        67_108_864,
        "Bytes per hour that one address may add to Redis (sessions, metadata, idempotency keys) through one web "
        "process; 0 means no limit.",
        0,
    )
    self_commits_per_hour: int = _setting(
        72_000,
        "Commits per hour that the sessions of one address may make by themselves (`skip_cycle`), per web process; "
        "0 means no limit.",
        0,
    )

    # Limits per session, principal and tenant
    session_commands_per_s: float = _setting(
        20.0, "Commands per second that one session accepts, from all clients; 0 means no limit.", 0, 1_000_000
    )
    session_commands_burst: int = _setting(
        40, "Commands that one session accepts at once before that rate applies.", 1, 1_000_000
    )
    principal_commands_per_s: float = _setting(
        100.0, "Commands per second that one principal may send, to all sessions; 0 means no limit.", 0, 1_000_000
    )
    principal_commands_burst: int = _setting(
        200, "Commands that one principal may send at once before that rate applies.", 1, 1_000_000
    )
    principal_creates_per_minute: int = _setting(
        1200, "Sessions per minute that one principal may create; 0 means no limit.", 0, 1_000_000
    )
    tenant_live_sessions: int = _setting(
        100_000, "Live sessions (`pending`, `running`, `paused`) that one tenant may have; 0 means no limit.", 0
    )
    tenant_store_bytes_per_hour: int = _setting(
        1_073_741_824,
        "Bytes per hour that one tenant may add to Redis (sessions, metadata, idempotency keys); 0 means no limit.",
        0,
    )
    tenant_self_commits_per_hour: int = _setting(
        720_000,
        "Commits per hour that the sessions of one tenant may make by themselves (`skip_cycle`); 0 means no limit.",
        0,
    )
    reads_per_s: float = _setting(
        20.0, "Lists and history reads per second from one address to one web process; 0 means no limit.", 0, 1_000_000
    )
    reads_burst: int = _setting(100, "Such reads from one address at once before that rate applies.", 1, 1_000_000)

    # The audit log
    worker_threads: int = _setting(4, "Threads of the worker process.", 1, 64)
    audit_batch: int = _setting(2000, "Maximum events per drain transaction.", 1, 10_000)
    audit_retries: int = _setting(5, "Number of retries of a failed drain before an alert.", 0, 100)
    audit_retry_delay_s: int = _setting(2, "Seconds before the first retry of a failed drain.", 1, 3600)
    audit_retry_backoff: float = _setting(2.0, "Factor by which the delay grows with each retry.", 1, 10)
    audit_claim_idle_s: float = _setting(
        30.0, "Seconds after which another drain takes over an event that was read but not acknowledged.", 0.1, 86_400
    )
    audit_backlog_limit: int = _setting(
        100_000, "Undrained events in a bucket at which new sessions are refused; 0 means no limit.", 0
    )
    audit_partition_months: int = _setting(
        3, "Number of months for which partitions of `sync_events` are created in advance.", 1, 60
    )

    # Alerts and logs
    audit_lag_alert_s: int = _setting(
        300, "Age in seconds of the oldest event not yet in PostgreSQL above which an alert is raised.", 1
    )
    alert_webhook_url: str = _setting(
        "", "URL to which alerts are posted as JSON (`http://`, `https://`).", is_secret=True
    )
    alert_interval_s: int = _setting(
        60, "Minimum seconds between two alerts of one kind; those in between are counted.", 0, 86_400
    )
    sentry_dsn: str = _setting("", "DSN of the Sentry project that receives alerts.", is_secret=True)
    log_level: str = _setting("INFO", "Lowest level that is logged: DEBUG, INFO, WARNING, ERROR or CRITICAL.")
    log_format: str = _setting("console", "Format of log lines: `console` for people, `json` for machines.")

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read the settings. An empty variable counts as absent, and `AUTH` must be set. Raises `SettingsError`."""
        return cls(**read_values(fields(cls), environ))


def load() -> Settings:
    """Return the settings of this process; exit if they are invalid."""
    with stop_if_wrong():
        return Settings.from_env()

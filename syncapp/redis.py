"""Connections to Redis or Valkey: one factory, explicit timeouts, no blind retries.

A command that is retried by the client library may run twice, so nothing here retries: a caller who
lost an answer comes back with the same idempotency key. Never wrap a call in `gevent.Timeout`, nor
kill a greenlet inside one: the next caller on that connection would read somebody else's reply.
"""

from __future__ import annotations

from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.exceptions import BusyLoadingError, ConnectionError, MaxConnectionsError, OutOfMemoryError, ReadOnlyError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

from syncapp.config import Settings

UNAVAILABLE = (
    ConnectionError,
    RedisTimeoutError,
    BusyLoadingError,
    ReadOnlyError,
    OutOfMemoryError,
    MaxConnectionsError,
)
"""What a client library raises when the server is away, loading, full or a replica."""


def connect(settings: Settings, *, decode: bool = True) -> redis.Redis:
    """Return a client with a pool of its own; no connection is made before the first command.

    A command waits at most `REDIS_TIMEOUT_S` for a free connection, as long to connect, and as long
    for its answer. Close it with `.close()`.
    """
    pool = redis.BlockingConnectionPool.from_url(
        settings.redis_url,
        max_connections=settings.redis_max_connections,
        timeout=settings.redis_timeout_s,
        **_connection_options(settings, settings.redis_timeout_s),
        decode_responses=decode,
    )
    return redis.Redis(connection_pool=pool)


def connect_pubsub(settings: Settings) -> redis.Redis:
    """Return a client for the one pub/sub connection of a process; its reads may wait for ever."""
    pool = redis.ConnectionPool.from_url(
        settings.redis_url, **_connection_options(settings, None), decode_responses=True, health_check_interval=0
    )
    return redis.Redis(connection_pool=pool)


def _connection_options(settings: Settings, timeout_s: float | None) -> dict[str, Any]:
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": settings.redis_timeout_s,
        "socket_keepalive": True,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "protocol": 2,
    }
    if settings.redis_url.startswith("rediss://") and not settings.redis_verify_tls:
        options["ssl_cert_reqs"] = "none"
        options["ssl_check_hostname"] = False
    return options

"""Connections to Redis or Valkey: one factory, explicit timeouts, no blind retries.

A command that is retried by the client library may run twice, so nothing here retries: a caller who
lost an answer comes back with the same idempotency key. Never wrap a call in `gevent.Timeout`, nor
kill a greenlet inside one: the next caller on that connection would read somebody else's reply.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

from syncapp.config import Settings
from syncapp.errors import StoreUnavailable
from syncapp.store import reply_errors
from syncapp.store.connection_pool import ConnectionPool
from syncapp.store.failover import server_at

_GONE = (exceptions.ConnectionError, exceptions.TimeoutError)
_NOT_NOW = (
    exceptions.BusyLoadingError,
    exceptions.MaxConnectionsError,
    exceptions.AuthenticationError,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
    exceptions.NoPermissionError,
    exceptions.ClusterDownError,
    exceptions.TryAgainError,
)
# Errors that the client library knows no class for, or not when they come from within a script.
_NOT_NOW_WORDS = tuple(
    f"{word} "
    for word in (
        "BUSY",
        "CLUSTERDOWN",
        "CROSSSLOT",
        "LOADING",
        "MASTERDOWN",
        "MISCONF",
        "MOVED",
        "NOPERM",
        "NOREPLICAS",
        "OOM",
        "READONLY",
        "TRYAGAIN",
        "WRONGTYPE",
    )
)

_NO_RIGHT = ("ACL failure in script", "The user executing the script can't")  # Valkey's words, and Redis 7.0's


class _Translation:
    """Makes what the client library raises `StoreUnavailable`, where that is what it means."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        away = _unavailable(error) if error else None
        if away:
            raise away from error


TRANSLATION = _Translation()
"""A context for calls of a client: `with TRANSLATION: client.time()`."""


def _unavailable(error: BaseException) -> StoreUnavailable | None:
    """Return the error of a server that is away, or not able to take commands now; None for any other error."""
    text = str(error).removeprefix("ERR ") if isinstance(error, exceptions.ResponseError) else ""
    if isinstance(error, _NOT_NOW) or text.startswith(_NOT_NOW_WORDS):
        return reply_errors.not_now(error)
    # A script that may not publish has written before: its effect is as unknown as when no answer came.
    if isinstance(error, _GONE) or text.startswith(_NO_RIGHT):
        return reply_errors.no_answer(error)
    return None


def connect(settings: Settings, *, decode: bool = True, max_connections: int | None = None) -> redis.Redis:
    """Return a client with its own pool, of `REDIS_MAX_CONNECTIONS` by default; does not connect yet.

    A command waits at most `REDIS_TIMEOUT_S` for a free connection, as long to connect, and as long
    for its answer. Close it with `.close()`.
    """
    # What is decided here counts for more than options of the URL.
    options = _url_options(settings.redis_url) | _connection_options(settings, settings.redis_timeout_s)
    options |= {
        "max_connections": max_connections or settings.redis_max_connections,
        "decode_responses": decode,
        "health_check_interval": 0,
    }
    pool = ConnectionPool(server=server_at(settings.redis_url), wait_s=settings.redis_timeout_s, **options)
    return redis.Redis.from_pool(pool)


def connect_pubsub(settings: Settings) -> redis.Redis:
    """Return a client for the one pub/sub connection of a process; whoever reads says how long to wait."""
    options = _url_options(settings.redis_url) | _connection_options(settings, settings.redis_timeout_s)
    pool = redis.ConnectionPool(**options | {"decode_responses": True, "health_check_interval": 0})
    return redis.Redis.from_pool(pool)


def _url_options(url: str) -> dict[str, Any]:
    options: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]  # redis-py leaves it untyped
    return options


def _connection_options(settings: Settings, timeout_s: float | None) -> dict[str, Any]:
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": settings.redis_timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "retry_on_timeout": False,
        "protocol": 2,
    }
    if not settings.redis_url.startswith("unix://"):
        options["socket_keepalive"] = True
    if settings.redis_url.startswith("rediss://") and not settings.redis_verify_tls:
        options["ssl_cert_reqs"] = "none"
        options["ssl_check_hostname"] = False
    return options

"""Connections to Redis or Valkey: one factory, explicit timeouts, no blind retries.

A command that is retried by the client library may run twice, so nothing here retries: a caller who
lost an answer comes back with the same idempotency key. Never wrap a call in `gevent.Timeout`, nor
kill a greenlet inside one: the next caller on that connection would read somebody else's reply.
"""

from __future__ import annotations

import contextlib
from types import TracebackType
from typing import Any

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from syncapp import refusals
from syncapp.config import Settings
from syncapp.errors import StoreUnavailable
from syncapp.keys import PROBE_CHANNEL

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
    for word in ("BUSY", "CLUSTERDOWN", "MASTERDOWN", "MISCONF", "NOPERM", "NOREPLICAS", "OOM", "READONLY", "TRYAGAIN")
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
        return refusals.not_now(error)
    # A script that may not publish has written before: its effect is as unknown as when no answer came.
    if isinstance(error, _GONE) or text.startswith(_NO_RIGHT):
        return refusals.no_answer(error)
    return None


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
    """Return a client for the one pub/sub connection of a process; whoever reads says how long to wait."""
    pool = redis.ConnectionPool.from_url(
        settings.redis_url,
        **_connection_options(settings, settings.redis_timeout_s),
        decode_responses=True,
        health_check_interval=0,
    )
    return redis.Redis(connection_pool=pool)


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


def check(client: redis.Redis) -> str | None:
    """Return None when the server is reachable and fit to be the primary store, or what is wrong with it."""
    try:
        info = client.info("everything")
        client.publish(PROBE_CHANNEL, "")  # a right of its own
    except redis.RedisError as error:
        return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if int(str(info["redis_version"]).split(".")[0]) < 7:
        return f"version {info['redis_version']} is older than 7.0"
    if info.get("role") != "master":
        return f"is a {info.get('role')}, not a primary"
    if str(info.get("maxmemory_policy", "noeviction")).startswith("allkeys"):
        return f"would evict live sessions (maxmemory-policy {info['maxmemory_policy']})"
    return None


def worries(client: redis.Redis) -> list[str]:
    """Return what an operator should know of a server that is fit: how it could lose what it was given."""
    found = []
    with contextlib.suppress(redis.RedisError):
        info = client.info("everything")
        if str(info.get("maxmemory_policy", "noeviction")) != "noeviction":
            found.append(f"redis may evict what retries need (maxmemory-policy {info['maxmemory_policy']})")
        if not info.get("aof_enabled") and client.config_get("save").get("save") == "":
            found.append("redis keeps nothing over a restart (no append-only file, no snapshots)")
    return found

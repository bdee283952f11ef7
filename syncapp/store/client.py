"""Connections to Redis or Valkey: one factory, explicit timeouts, no blind retries.

A command that the client library retries may run twice, so nothing here retries. A caller that gets no reply sends the
command again with the same idempotency key. Never wrap a call in `gevent.Timeout`, and never kill a greenlet during
one: the next user of that connection would read the reply to another caller's command.
"""

from __future__ import annotations

from collections.abc import Sequence
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

_NO_REPLY = (exceptions.ConnectionError, exceptions.TimeoutError)
_NOT_ACCEPTING = (
    exceptions.BusyLoadingError,
    exceptions.MaxConnectionsError,
    exceptions.AuthenticationError,
    exceptions.ReadOnlyError,
    exceptions.OutOfMemoryError,
    exceptions.NoPermissionError,
    exceptions.ClusterDownError,
    exceptions.TryAgainError,
)
# Errors for which the client library has no class, or none when they come from a script.
_NOT_ACCEPTING_CODES = tuple(
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

DENIED_IN_SCRIPT = ("ACL failure in script", "The user executing the script can't")
"""How an error begins when a script's command is denied by an ACL: in Valkey, and in Redis 7.0."""


def call_all(pool: ConnectionPool, commands: Sequence[bytes]) -> list[Any]:
    """Send commands in one round trip, and return the replies. Raises the first error among them, translated."""
    if not commands:
        return []
    with TRANSLATION:
        replies = pool.call(b"".join(commands), len(commands))
        for reply in replies:
            if isinstance(reply, Exception):
                raise reply
    return replies


class _Translation:
    """Translates errors of the client library into `StoreUnavailable` if the store is unavailable."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        unavailable = _unavailable(error) if error else None
        if unavailable:
            raise unavailable from error


TRANSLATION = _Translation()
"""A context manager for calls of a client: `with TRANSLATION: client.time()`."""


def _unavailable(error: BaseException) -> StoreUnavailable | None:
    """Return `StoreUnavailable` if the server does not reply or does not accept commands; None for any other error."""
    text = str(error).removeprefix("ERR ") if isinstance(error, exceptions.ResponseError) else ""
    if isinstance(error, _NOT_ACCEPTING) or text.startswith(_NOT_ACCEPTING_CODES):
        return reply_errors.not_accepting(error)
    # A script that is denied PUBLISH has already written, so its effect is unknown, as it is without a reply.
    if isinstance(error, _NO_REPLY) or text.startswith(DENIED_IN_SCRIPT):
        return reply_errors.no_reply(error)
    return None


def connect(settings: Settings, *, decode: bool = True, max_connections: int | None = None) -> redis.Redis:
    """Return a client with its own pool, of `REDIS_MAX_CONNECTIONS` by default; does not connect yet.

    A command waits up to `REDIS_TIMEOUT_S` each for a free connection, for the connection to open, and for its reply.
    Close the client with `.close()`.
    """
    # These options take precedence over those of the URL.
    options = _url_options(settings.redis_url) | _connection_options(settings, settings.redis_timeout_s)
    options |= {
        "max_connections": max_connections or settings.redis_max_connections,
        "decode_responses": decode,
        "health_check_interval": 0,
    }
    pool = ConnectionPool(server=server_at(settings.redis_url), wait_s=settings.redis_timeout_s, **options)
    return redis.Redis.from_pool(pool)


def connect_pubsub(settings: Settings) -> redis.Redis:
    """Return a client for the one pub/sub connection of a process. The reader sets the timeout of each read."""
    options = _url_options(settings.redis_url) | _connection_options(settings, settings.redis_timeout_s)
    pool = redis.ConnectionPool(**options | {"decode_responses": True, "health_check_interval": 0})
    return redis.Redis.from_pool(pool)


def _url_options(url: str) -> dict[str, Any]:
    options: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]  # untyped in redis-py
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

"""Connections to Redis or Valkey: one factory, explicit timeouts, no blind retries.

A command that the client library retries may run twice, so nothing here retries. A caller that gets no reply sends the
command again with the same idempotency key. Never wrap a call in `gevent.Timeout`, and never kill a greenlet during
one: the next user of that connection would read the reply to another caller's command.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from types import TracebackType
from typing import Any

import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from syncapp.config import Settings
from syncapp.errors import StoreUnavailable
from syncapp.redis_url import RedisUrl, parse
from syncapp.store import reply_errors
from syncapp.store.cluster_pool import ClusterPool
from syncapp.store.connection_pool import ConnectionPool
from syncapp.store.failover import NoPrimaryNamed, Server, asks_sentinels
from syncapp.store.replication import TooFewReplicas
from syncapp.store.sentinels import Sentinels
from syncapp.store.topology import Address, Topology

_NO_REPLY = (exceptions.ConnectionError, exceptions.TimeoutError)
_NOT_ACCEPTING = (
    NoPrimaryNamed,
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
        "ASK",
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
        replies = pool.call(*commands)
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
    if isinstance(error, TooFewReplicas):
        return reply_errors.not_replicated(error.replicas, error.required)
    text = str(error).removeprefix("ERR ") if isinstance(error, exceptions.ResponseError) else ""
    if isinstance(error, _NOT_ACCEPTING) or text.startswith(_NOT_ACCEPTING_CODES):
        return reply_errors.not_accepting(error)
    # A script that is denied PUBLISH has already written, so its effect is unknown, as it is without a reply.
    if isinstance(error, _NO_REPLY) or text.startswith(DENIED_IN_SCRIPT):
        return reply_errors.no_reply(error)
    return None


def connect(
    settings: Settings, *, url: str = "", decode: bool = True, max_connections: int | None = None
) -> redis.Redis:
    """Return a client with its own pool, of `REDIS_MAX_CONNECTIONS` by default; does not connect yet.

    url: of another server than the store. A command waits up to `REDIS_TIMEOUT_S` each for a free connection, for the
    connection to open, and for its reply. Close the client with `.close()`.
    """
    address = parse(url or settings.redis_url)
    options = _connection_options(settings, address) | {
        "max_connections": max_connections or settings.redis_max_connections,
        "decode_responses": decode,
        "health_check_interval": 0,
    }
    wait_s = settings.redis_timeout_s
    if address.nodes:
        return redis.Redis.from_pool(ClusterPool(topology_of(settings), wait_s=wait_s, **options))
    return redis.Redis.from_pool(ConnectionPool(server=server_of(settings, url), wait_s=wait_s, **options))


def pubsub_connection(settings: Settings, node: Address | None = None) -> Any:
    """Return redis-py's connection for the pub/sub of a process, not connected yet. The reader sets the timeouts.

    node: of a cluster.
    Raises `NoPrimaryNamed`.
    """
    place = {"host": node[0], "port": node[1]} if node else server_of(settings).endpoint()
    options = {**_connection_options(settings, parse(settings.redis_url)), **place}
    return redis.ConnectionPool(**options | {"decode_responses": True, "health_check_interval": 0}).make_connection()


def topology_of(settings: Settings) -> Topology:
    """Return the topology of the cluster that `REDIS_URL` names; all pools of this process share it."""
    return _topology(settings.redis_url, settings.redis_timeout_s, settings.redis_verify_tls)


def server_of(settings: Settings, url: str = "") -> Server:
    """Return the server behind `REDIS_URL`, or another URL; all pools of this process share it."""
    return _server(url or settings.redis_url, settings.redis_timeout_s, settings.redis_verify_tls)


def servers_of(settings: Settings) -> list[Server]:
    """Return the store's server, and that of the tasks if it is another one."""
    urls = dict.fromkeys(filter(None, (settings.redis_url, settings.tasks_redis_url)))
    return [server_of(settings, url) for url in urls]


def has_tasks_server(settings: Settings) -> bool:
    """Return whether the queue of tasks is on another server than the store."""
    return len(servers_of(settings)) > 1


def server_loops(settings: Settings) -> Mapping[str, Callable[[], float]]:
    """Return the turns of the loops that follow servers which may be replaced, by the names of the loops."""
    turns: dict[str, Callable[[], float]] = {}
    if ask_sentinels := asks_sentinels(servers_of(settings)):
        turns["sentinels"] = ask_sentinels
    if parse(settings.redis_url).nodes:
        turns["topology"] = topology_of(settings).turn
    return turns


@cache
def _topology(url: str, timeout_s: float, verify_tls: bool) -> Topology:
    address = parse(url)
    options = {**address.options, **_safe_options(address, timeout_s, verify_tls)}
    if options.pop("connection_class", None):
        options["ssl"] = True
    return Topology(address.nodes, options)


@cache
def _server(url: str, timeout_s: float, verify_tls: bool) -> Server:
    address = parse(url)
    if not address.sentinels:
        return Server()
    options = {**_safe_options(address, timeout_s, verify_tls), **address.sentinel_options}
    if address.has_tls:
        of_tls = {name: value for name, value in address.options.items() if name.startswith("ssl_")}
        options = {"ssl": True, **of_tls, **options}
    return Server(Sentinels(address.sentinels, address.name, options))


def _connection_options(settings: Settings, address: RedisUrl) -> dict[str, Any]:
    """Return the arguments of a connection to the server; these take precedence over options of the URL."""
    safe = _safe_options(address, settings.redis_timeout_s, settings.redis_verify_tls)
    return {**address.options, **safe, "retry_on_timeout": False}


def _safe_options(address: RedisUrl, timeout_s: float, verify_tls: bool) -> dict[str, Any]:
    options: dict[str, Any] = {
        "socket_timeout": timeout_s,
        "socket_connect_timeout": timeout_s,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
    }
    if not address.is_socket:
        options["socket_keepalive"] = True
    if address.has_tls and not verify_tls:
        options |= {"ssl_cert_reqs": "none", "ssl_check_hostname": False}
    return options

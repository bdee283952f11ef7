"""URLs of Redis and Valkey: of one server, or of Sentinels that name it.

    redis://user:password@host:6379/0       one server; `rediss://` with TLS, `unix://` for a socket
    redis+cluster://user:password@h1:6379,h2,h3      a cluster, and some of its nodes
    redis+sentinel://user:password@h1:26379,h2,h3/name/0?sentinel_username=u&sentinel_password=p

User, password and database are those of the server, in both forms. Sentinels may have a user and password of their own.
With `rediss+sentinel://`, connections to the server and to the Sentinels use TLS.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from redis.connection import Connection, SSLConnection, parse_url

SCHEMES = (
    *("redis://", "rediss://", "unix://"),
    *("redis+sentinel://", "rediss+sentinel://", "redis+cluster://", "rediss+cluster://"),
)
_PORT = 6379
_SENTINEL_PORT = 26379
_OWN_OPTIONS = ("sentinel_username", "sentinel_password")
_OF_SENTINELS = re.compile(r"(rediss?)\+sentinel://(?:([^/?#@]*)@)?([^/?#@]*)(?:/([^/?#@]*)(?:/([^?#@]*))?)?(\?[^#]*)?")
_OF_CLUSTER = re.compile(r"(rediss?)\+cluster://(?:([^/?#@]*)@)?([^/?#@]*)/?(\?[^#]*)?")
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_.-]+)(?::(\d{1,5}))?")


class UrlFault(ValueError):
    """A URL that cannot be used; the message follows the name of its setting, and does not contain the URL."""


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """A parsed URL.

    options: arguments of redis-py's connections to the server, without host and port if Sentinels name it. sentinels:
    host and port of each. nodes: host and port of some nodes of a cluster. name: what the Sentinels call the server.
    sentinel_options: arguments of connections to them.
    """

    options: Mapping[str, Any]
    sentinels: Sequence[tuple[str, int]] = ()
    nodes: Sequence[tuple[str, int]] = ()
    name: str = ""
    sentinel_options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_tls(self) -> bool:
        """Whether connections use TLS."""
        return issubclass(self.options.get("connection_class", Connection), SSLConnection)

    @property
    def is_socket(self) -> bool:
        """Whether the server is reached by a Unix socket."""
        return "path" in self.options


def parse(url: str) -> RedisUrl:
    """Return the parts of a URL. Raises `UrlFault`."""
    if not url.startswith(SCHEMES):
        raise UrlFault(f"must start with {', '.join(SCHEMES[:-1])} or {SCHEMES[-1]}")
    if "+cluster://" in url:
        return _cluster(url)
    if "+sentinel://" not in url:
        return RedisUrl(_options(url))
    match = _OF_SENTINELS.fullmatch(url)
    if not match:
        raise UrlFault("is not a URL; percent-encode special characters in its user and password")
    scheme, user, hosts, name, database, query = match.groups(default="")
    if not name:
        raise UrlFault("needs the name that the Sentinels know the server by: redis+sentinel://h1,h2,h3/name")
    if not re.fullmatch("[0-9]*", database):
        raise UrlFault("needs a number as the database after the name: redis+sentinel://h1,h2,h3/name/0")
    sentinels = [_host_and_port(each, "Sentinels", _SENTINEL_PORT) for each in hosts.split(",")]
    options = _options(f"{scheme}://{user}@-/{database}{query}" if user else f"{scheme}://-/{database}{query}")
    del options["host"]
    own = {key.removeprefix("sentinel_"): options.pop(key) for key in _OWN_OPTIONS if key in options}
    return RedisUrl(options, tuple(sentinels), (), unquote(name), own)


def _cluster(url: str) -> RedisUrl:
    match = _OF_CLUSTER.fullmatch(url)
    if not match:
        raise UrlFault("must be redis+cluster://host:port,host:port,… without a database: a cluster has only one")
    scheme, user, hosts, query = match.groups(default="")
    nodes = [_host_and_port(each, "nodes", _PORT) for each in hosts.split(",")]
    options = _options(f"{scheme}://{user}@-{query}" if user else f"{scheme}://-{query}")
    del options["host"]
    if options.pop("db", 0):
        raise UrlFault("must not name a database: a cluster has only one")
    return RedisUrl(options, (), tuple(nodes))


def _options(url: str) -> dict[str, Any]:
    try:
        options: dict[str, Any] = parse_url(url)  # type: ignore[no-untyped-call]  # untyped in redis-py
    except ValueError as error:
        raise UrlFault("is not a URL; percent-encode special characters in its user and password") from error
    return options


def _host_and_port(text: str, what: str, default_port: int) -> tuple[str, int]:
    match = _HOST.fullmatch(text)
    port = int(match[2] or default_port) if match else 0
    if not match or not 0 < port < 65_536:
        raise UrlFault(f"needs the {what} as host or host:port, separated by commas")
    return match[1].strip("[]"), port

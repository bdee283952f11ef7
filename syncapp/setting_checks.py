"""Checks of settings beyond their types: choices, access, origins, hosts and URLs."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from syncapp.access import origins

_KEYS = ("auth_secrets", "auth_public_keys", "auth_jwks_url")
_METRICS_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]{16,}\Z")


def check_and_normalize(values: dict[str, Any]) -> list[str]:
    """Return one message for each error; normalize choices, the host and URLs in place."""
    faults = [*_access_faults(values), *_url_faults(values)]
    for name, choices in (
        ("log_level", {"DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"}),
        ("log_format", {"console", "json"}),
        ("recovery_clock", {"run", "freeze", "credit"}),
    ):
        if name in values:
            choice = values[name].upper() if name == "log_level" else values[name].lower()
            values[name] = choice
            if choice not in choices:
                faults.append(f"{name.upper()} must be one of {', '.join(sorted(choices))}")
    if fault := origins.fault(values.get("allowed_origins", "")):
        faults.append(f"ALLOWED_ORIGINS {fault}")
    if "host" in values:
        values["host"] = host = re.sub(r"^\[(.*:.*)\]$", r"\1", values["host"])
        if not _is_host(host):
            faults.append("HOST must be an IP address or a host name, without a port")
    return faults


def _access_faults(values: dict[str, Any]) -> Iterator[str]:
    """Yield a message for each fault of the settings of access; normalize `AUTH`."""
    auth = values["auth"] = values.get("auth", "").lower()
    if not auth:
        yield (
            "AUTH must be set: required, with AUTH_SECRETS, AUTH_PUBLIC_KEYS or AUTH_JWKS_URL; or off, which lets "
            "everyone who reaches the port do everything"
        )
    elif auth not in ("required", "off"):
        yield "AUTH must be required or off"
    elif auth == "required" and not any(values.get(name) for name in _KEYS):
        yield "AUTH is required, so AUTH_SECRETS, AUTH_PUBLIC_KEYS or AUTH_JWKS_URL must be set"
    yield from _key_faults(values)
    if "auth_jwks_url" in values and not _is_jwks_url(values["auth_jwks_url"]):
        yield "AUTH_JWKS_URL must be a URL that starts with https:// (http:// only for an address of this machine)"
    if not _METRICS_TOKEN.match(values.get("metrics_token", "a" * 16)):
        yield "METRICS_TOKEN must have at least 16 characters, of A-Z a-z 0-9 . _ ~ + / - ="


def _key_faults(values: dict[str, Any]) -> Iterator[str]:
    if not any(values.get(name) for name in ("auth_secrets", "auth_public_keys")):
        return
    # Imported here: cryptography takes a while to load, and only this needs it.
    from syncapp.access.token_keys import public_keys, secret_keys

    for name, keys_of in (("auth_secrets", secret_keys), ("auth_public_keys", public_keys)):
        try:
            if name in values and not keys_of(values[name]):
                yield f"{name.upper()} holds no key"
        except ValueError as error:
            yield f"{name.upper()} {error}"


def _is_jwks_url(url: str) -> bool:
    if not _is_web_url(url):
        return False
    scheme, host = urlsplit(url).scheme, urlsplit(url).hostname or ""
    if scheme == "http":
        try:
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        except ValueError:
            return False
    return scheme == "https"


def _is_host(text: str) -> bool:
    """Return whether a text is a host name, or an IP address without brackets and zone."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_.])?", text) is not None
    return "%" not in text


def _url_faults(values: dict[str, Any]) -> Iterator[str]:
    """Yield a message for each invalid URL. The messages do not contain the URLs, because those contain passwords."""
    hint = "is not a URL; percent-encode special characters in its user and password"
    yield from _redis_url_faults(values)
    url = values.get("database_url", "postgresql://")
    if url.startswith("postgres://"):
        values["database_url"] = url = "postgresql://" + url.removeprefix("postgres://")
    if not url.startswith("postgresql://"):
        yield "DATABASE_URL must start with postgres:// or postgresql://"
    elif not _is_database_url(url):
        yield f"DATABASE_URL {hint}"
    for name in ("public_url", "alert_webhook_url", "sentry_dsn"):
        if name in values and not values[name].startswith(("http://", "https://")):
            yield f"{name.upper()} must start with http:// or https://"
        elif name in values and not _is_web_url(values[name]):
            yield f"{name.upper()} {hint}"
        elif name == "sentry_dsn" and name in values and not re.search(r"://[^/@]+@.*/\d+$", values[name]):
            yield "SENTRY_DSN must have a key and a project: https://key@host/project"


def _redis_url_faults(values: dict[str, Any]) -> Iterator[str]:
    for name in ("redis_url", "tasks_redis_url"):
        if name in values and (fault := _redis_url_fault(values[name])):
            yield f"{name.upper()} {fault}"
    if "+cluster://" in values.get("tasks_redis_url", ""):
        yield "TASKS_REDIS_URL must name one server, or Sentinels: the queue of tasks cannot be in a cluster"
    elif "+cluster://" in values.get("redis_url", "") and "tasks_redis_url" not in values:
        yield "TASKS_REDIS_URL is needed with a cluster: the queue of tasks must be on one server, or behind Sentinels"


def _redis_url_fault(url: str) -> str | None:
    """Return why redis-py cannot use this URL, or None. Does not connect."""
    from redis import ConnectionPool, RedisError

    from syncapp.redis_url import UrlFault, parse

    try:
        ConnectionPool(**parse(url).options).make_connection()
    except UrlFault as fault:
        return str(fault)
    except (TypeError, ValueError, RedisError):
        return "has an option that Redis connections do not support"
    return None


def _is_database_url(url: str) -> bool:
    """Return whether psycopg2 can parse this URL."""
    from psycopg2 import ProgrammingError
    from psycopg2.extensions import parse_dsn

    try:
        _ = [int(port) for port in parse_dsn(url).get("port", "").split(",") if port]
    except (ProgrammingError, ValueError):
        return False
    return True


def _is_web_url(url: str) -> bool:
    """Return whether this URL has a host, and a valid port if any."""
    try:
        return bool(urlsplit(url).hostname) and urlsplit(url).port != 0
    except ValueError:
        return False

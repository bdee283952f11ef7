"""Readiness: whether the store accepts commands, in texts without internal details.

Errors of redis-py contain hosts, ports and users. They are logged, once for each new reason; `/ready` shows one of the
texts below.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import redis
import structlog
from redis import exceptions

from syncapp.errors import StoreUnavailable, one_line
from syncapp.store.client import DENIED_IN_SCRIPT

log = structlog.get_logger(__name__)

_BY_CODE = {
    "READONLY": "is a replica, not a primary",
    "MASTERDOWN": "is a replica that has lost its primary",
    "LOADING": "is loading its data",
    "OOM": "is out of memory and refuses writes",
    "MISCONF": "cannot save to its disk and refuses writes",
    "NOREPLICAS": "has too few replicas connected and refuses writes",
    "NOPERM": "denies this user commands or keys that are needed (docs/keys.md)",
    "NOAUTH": "requires a password",
    "WRONGPASS": "refuses the user or the password",
    "BUSY": "is busy with a script",
    "WRONGTYPE": "has a key of another type where one of ours belongs (docs/keys.md)",
    "CLUSTERDOWN": "is a node of a cluster that is down",
    "CROSSSLOT": "is a node of a cluster, which needs another kind of URL",
    "MOVED": "is a node of a cluster, which needs another kind of URL",
    "ASK": "is a node of a cluster, which needs another kind of URL",
}
"""What an error reply with each code means."""
_BY_CLASS: tuple[tuple[type[BaseException], str], ...] = (
    (exceptions.MaxConnectionsError, "has no free connection for this process (REDIS_MAX_CONNECTIONS)"),
    (exceptions.AuthenticationError, "refuses the user or the password"),
    (exceptions.TimeoutError, "does not answer in time"),
    (exceptions.ConnectionError, "does not answer"),
)


def reason_of(error: BaseException) -> str:
    """Return what is wrong with the server, from an error of redis-py but without its text."""
    cause = error.__cause__ if isinstance(error, StoreUnavailable) and error.__cause__ else error
    text = str(cause).removeprefix("ERR ")
    code = getattr(cause, "status_code", None) or text.split(" ", 1)[0]
    if text.startswith(DENIED_IN_SCRIPT):
        code = "NOPERM"
    if code in _BY_CODE:
        return _BY_CODE[code]
    if "max number of clients" in text:
        return "accepts no more connections"
    for kind, text in _BY_CLASS:
        if isinstance(cause, kind):
            return text
    return f"answers with an error ({code})" if code.isupper() and code.isalpha() else "answers with an error"


@dataclass(frozen=True, slots=True)
class StoreHealth:
    """reason: why the store does not accept commands, or None; worries: risks to the data."""

    reason: str | None
    worries: tuple[str, ...] = ()


class StoreCheck:
    """Checks whether the store accepts commands.

    probe() writes what a commit writes, and raises the error of any refused write. This finds missing rights, memory
    and disk space. It returns the commands that are denied to the worker.
    """

    def __init__(self, client: redis.Redis, probe: Callable[[], list[str]]) -> None:
        self._client = client
        self._probe = probe
        self._lock = threading.Lock()
        self._logged: str | None = None

    def health(self) -> StoreHealth:
        """Return the health of the store; never raises."""
        try:
            info = self._info()
            reason = _problem(info)
            missing = self._probe() if reason is None else []
            worries = _worries(info, self._save())
            if missing:
                worries.append(f"redis denies this user {', '.join(missing)}: audit events wait (docs/keys.md)")
            health = StoreHealth(reason, tuple(worries))
            self._log(reason)
        except Exception as error:  # noqa: BLE001 any error means that the store is not ready
            health = StoreHealth(reason_of(error))
            self._log(health.reason, error)
        return health

    def _info(self) -> Mapping[str, Any]:
        """Return the server's INFO; empty if it is denied to this user."""
        try:
            info: Mapping[str, Any] = self._client.info("everything")
        except exceptions.NoPermissionError:
            return {}
        return info

    def _save(self) -> str | None:
        """Return the server's `save` setting; None if CONFIG is refused, as it is by managed servers."""
        try:
            settings: Any = self._client.config_get("save")
        except exceptions.ResponseError:
            return None
        return settings.get("save") if isinstance(settings, dict) else None

    def _log(self, reason: str | None, error: BaseException | None = None) -> None:
        with self._lock:
            if reason == self._logged:
                return
            self._logged = reason
        if reason:
            log.warning("store_unfit", reason=reason, error=one_line(error) if error else None)
        else:
            log.info("store_fit")


def _problem(info: Mapping[str, Any]) -> str | None:
    """Return what is wrong with a reachable server: its version, kind or configuration; None if nothing is."""
    # A Valkey Sentinel sends only server_mode.
    if "sentinel" in (info.get("redis_mode"), info.get("server_mode")):
        return "is a Sentinel, not a data server; name the primary's address"
    if info.get("cluster_enabled"):
        return "is a node of a cluster, which needs another kind of URL"
    version = str(info.get("redis_version", "7"))
    if int(version.split(".", maxsplit=1)[0]) < 7:
        return f"version {version} is older than 7.0"
    if info.get("role", "master") != "master":
        return "is a replica, not a primary"
    policy = str(info.get("maxmemory_policy", "noeviction"))
    return f"would evict live sessions (maxmemory-policy {policy})" if policy.startswith("allkeys") else None


def _worries(info: Mapping[str, Any], save: str | None) -> list[str]:
    worries = []
    if not info:
        return ["redis does not allow this user INFO: its eviction policy and persistence are unknown"]
    policy = str(info.get("maxmemory_policy", "noeviction"))
    if policy not in ("noeviction",) and not policy.startswith("allkeys"):
        worries.append(f"redis may evict keys that retries need (maxmemory-policy {policy})")
    if not info.get("aof_enabled") and save == "":
        worries.append("redis loses its data at a restart (no append-only file, no snapshots)")
    for name, what in (("rdb_last_bgsave_status", "snapshot"), ("aof_last_write_status", "append-only file")):
        if info.get(name, "ok") != "ok":
            worries.append(f"redis could not write its {what}")
    return worries

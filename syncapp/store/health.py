"""Readiness: whether the store accepts commands, in texts without internal details.

Errors of redis-py contain hosts, ports and users. They are logged, once for each new reason; `/ready` shows one of the
texts below.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import redis
import structlog
from redis import exceptions

from syncapp.errors import StoreUnavailable, one_line
from syncapp.store.bucket_record import WrongBuckets
from syncapp.store.client import DENIED_IN_SCRIPT
from syncapp.store.connection_pool import ConnectionPool, pool_of
from syncapp.store.failover import NoPrimaryNamed
from syncapp.store.replication import TooFewReplicas

log = structlog.get_logger(__name__)

_ANOTHER_URL = "is a node of a cluster, which needs another kind of URL: redis+cluster://"
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
    **dict.fromkeys(("CROSSSLOT", "MOVED", "ASK"), _ANOTHER_URL),
}
"""What an error reply with each code means."""
_BY_CLASS: tuple[tuple[type[BaseException], str], ...] = (
    (NoPrimaryNamed, "is not named by any Sentinel"),
    (exceptions.MaxConnectionsError, "has no free connection for this process (REDIS_MAX_CONNECTIONS)"),
    (exceptions.AuthenticationError, "refuses the user or the password"),
    (exceptions.TimeoutError, "does not answer in time"),
    (exceptions.ConnectionError, "does not answer"),
)


def reason_of(error: BaseException) -> str:
    """Return what is wrong with the server, from an error of redis-py but without its text."""
    cause = error.__cause__ if isinstance(error, StoreUnavailable) and error.__cause__ else error
    if isinstance(error, WrongBuckets):
        return error.reason
    if isinstance(cause, TooFewReplicas):
        return f"has {cause.replicas} of the {cause.required} replicas that changes wait for (REDIS_MIN_REPLICAS)"
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
    """reason: why the store does not accept commands, or None; worries: risks to the data.

    nodes: of a cluster, by address: what is wrong with each master, or `ok`.
    """

    reason: str | None
    worries: tuple[str, ...] = ()
    nodes: Mapping[str, str] = field(default_factory=dict)


class StoreCheck:
    """Checks whether the store accepts commands.

    probe(node) writes to a server what a commit writes, and raises the error of any refused write. This finds missing
    rights, memory, disk space and replicas. It returns the commands that are denied to the worker.
    """

    def __init__(self, client: redis.Redis, probe: Callable[[ConnectionPool], list[str]]) -> None:
        self._client = client
        self._probe = probe
        self._lock = threading.Lock()
        self._logged: str | None = None

    def health(self) -> StoreHealth:
        """Return the health of the store; never raises.

        A cluster accepts commands if at least one of its masters does: only its own sessions need a master.
        """
        try:
            pool = pool_of(self._client)
            found = {node.name: self._health_of(node) for node in pool.nodes()}
        except Exception as error:  # noqa: BLE001 any error means that the store is not ready
            found, pool = {"": (StoreHealth(reason_of(error)), error)}, None
        health = _together(found, is_cluster=pool is not None and pool.is_cluster)
        self._log(health.reason, next((error for each, error in found.values() if each.reason), None))
        return health

    def _health_of(self, node: ConnectionPool) -> tuple[StoreHealth, Exception | None]:
        """Return the health of one server, and the error that it is about, if there was one."""
        try:
            if pool_of(self._client).is_silent(node):
                return StoreHealth("does not answer"), None
            client = redis.Redis(connection_pool=node)  # `from_pool` would close the pool with the client
            info = _info(client)
            reason = _problem(info, is_cluster=pool_of(self._client).is_cluster)
            missing = self._probe(node) if reason is None else []
            worries = _worries(info, _save(client))
            if missing:
                worries.append(f"redis denies this user {', '.join(missing)}: audit events wait (docs/keys.md)")
            return StoreHealth(reason, tuple(worries)), None
        except Exception as error:  # noqa: BLE001 any error means that the server is not ready
            return StoreHealth(reason_of(error)), error

    def _log(self, reason: str | None, error: BaseException | None = None) -> None:
        with self._lock:
            if reason == self._logged:
                return
            self._logged = reason
        if reason:
            log.warning("store_unfit", reason=reason, error=one_line(error) if error else None)
        else:
            log.info("store_fit")


def _info(client: redis.Redis) -> Mapping[str, Any]:
    """Return a server's INFO; empty if it is denied to this user."""
    try:
        info: Mapping[str, Any] = client.info("everything")
    except exceptions.NoPermissionError:
        return {}
    return info


def _save(client: redis.Redis) -> str | None:
    """Return a server's `save` setting; None if CONFIG is refused, as it is by managed servers."""
    try:
        settings: Any = client.config_get("save")
    except exceptions.ResponseError:
        return None
    return settings.get("save") if isinstance(settings, dict) else None


def _together(found: Mapping[str, tuple[StoreHealth, Exception | None]], *, is_cluster: bool) -> StoreHealth:
    """Return the health of a store from that of its servers."""
    if not is_cluster:
        ((health, _),) = found.values()
        return health
    nodes = {name: health.reason or "ok" for name, (health, _) in found.items()}
    worries = [f"node {name}: {worry}" for name, (health, _) in found.items() for worry in health.worries]
    reasons = [health.reason for health, _ in found.values() if health.reason]
    if len(reasons) == len(found):
        return StoreHealth(reasons[0], tuple(worries), nodes)
    lost = [f"the redis node {name} {each}: its sessions are not available" for name, each in nodes.items()]
    return StoreHealth(None, tuple(each for each in lost if " ok: " not in each) + tuple(worries), nodes)


def _problem(info: Mapping[str, Any], *, is_cluster: bool = False) -> str | None:
    """Return what is wrong with a reachable server: its version, kind or configuration; None if nothing is."""
    # A Valkey Sentinel sends only server_mode.
    if "sentinel" in (info.get("redis_mode"), info.get("server_mode")):
        return "is a Sentinel, not a data server, and needs another kind of URL: redis+sentinel://"
    if info.get("cluster_enabled") and not is_cluster:
        return _ANOTHER_URL
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

"""A primary, its replicas, and Sentinels that watch them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import redis

from syncapp.dev.ports import free_port
from syncapp.dev.processes import Process
from syncapp.dev.servers import Valkey
from tests.support.types import Redis
from tests.support.web_clients import wait_until

NAME = "clocks"
PROMOTED_WITHIN_S = 120
"""Limit for a promotion: Sentinels do nothing for 30 s after their machine stood still for 2 s."""
_TIMES = {"down-after-milliseconds": 2000, "failover-timeout": 6000}


class SentinelServer(Process):
    """One Sentinel. `more` are lines of its configuration."""

    def __init__(self, directory: Path, data: Path, *, more: Sequence[str] = ()) -> None:
        data.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        config = data / "sentinel.conf"  # the Sentinel writes to it
        config.write_text("".join(f"{line}\n" for line in (f"dir {data}", *more)))
        program = Valkey(directory, data / "unused").argv[0]
        argv = [program, str(config), "--sentinel", "--port", str(self.port), "--bind", "127.0.0.1"]
        argv += ["--set-proc-title", "no"]
        super().__init__("Sentinel", argv, directory=directory, output=data.with_suffix(".log"))

    def is_ready(self) -> bool:
        """Return whether it answers."""
        try:
            self.ask("PING")
        except redis.AuthenticationError:
            pass
        except (redis.ConnectionError, redis.TimeoutError):
            return False
        return True

    def ask(self, *words: str, password: str | None = None) -> Any:
        """Return its reply to a command, with text instead of bytes. Raises redis-py's errors."""
        url = f"redis://127.0.0.1:{self.port}"
        with Redis.from_url(url, password=password, decode_responses=True, socket_timeout=20) as client:
            return client.execute_command(*words)

    def names(self, password: str | None = None) -> int | None:
        """Return the port of the primary that it names; None if it knows none."""
        found = self.ask("SENTINEL GET-MASTER-ADDR-BY-NAME", NAME, password=password)
        return int(found[1]) if found else None

    def state(self, password: str | None = None) -> dict[str, Any]:
        """Return what it knows about the primary."""
        state: dict[str, Any] = self.ask("SENTINEL MASTER", NAME, password=password)
        return state


class SentinelGroup:
    """Servers, of which the first is the primary, and Sentinels that know each other and all servers."""

    def __init__(self, servers: Sequence[Valkey], sentinels: Sequence[SentinelServer], passwords: dict[str, str]):
        self.servers, self.sentinels, self._passwords = list(servers), list(sentinels), passwords

    @property
    def hosts(self) -> str:
        """The Sentinels' addresses, as they stand in a URL."""
        return ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)

    @property
    def url(self) -> str:
        """The URL for SyncApp, without users and passwords."""
        return f"redis+sentinel://{self.hosts}/{NAME}"

    @property
    def primary(self) -> Valkey:
        """The server that the first Sentinel names."""
        port = self.sentinels[0].names(self._passwords.get("sentinel"))
        return next(each for each in self.servers if each.port == port)

    def client_of(self, server: Valkey) -> Redis:
        """Return a client of one of the servers."""
        return Redis.from_url(server.url, password=self._passwords.get("server"), socket_timeout=60)

    def wait_until_named(self, other_than: Valkey) -> tuple[Valkey, float]:
        """Wait until all Sentinels name another server; return it, and when the first one did (monotonic s)."""
        first_s: list[float] = []

        def moved() -> bool:
            for sentinel in self.sentinels:
                if sentinel.names(self._passwords.get("sentinel")) == other_than.port:
                    return False
                first_s.append(time.monotonic())
            return True

        wait_until(moved, within_s=PROMOTED_WITHIN_S)
        return self.primary, first_s[0]

    def fail_over(self, *options: str) -> tuple[Valkey, float]:
        """Have a replica promoted while the primary works; return it, and when it was first named (monotonic s)."""
        before = self.primary

        def is_begun() -> bool:
            with contextlib.suppress(redis.ResponseError):  # no replica is suitable yet
                self.sentinels[0].ask("SENTINEL FAILOVER", NAME, *options, password=self._passwords.get("sentinel"))
                return True
            return self.primary is not before

        wait_until(is_begun, within_s=PROMOTED_WITHIN_S)
        return self.wait_until_named(before)

    def wait_until_demoted(self, server: Valkey) -> None:
        """Wait until a server is a replica; the Sentinel that makes it one closes all connections to it."""

        def is_replica() -> bool:
            with contextlib.suppress(redis.ConnectionError), self.client_of(server) as client:
                return bool(client.info("replication")["role"] == "slave")
            return False

        wait_until(is_replica, within_s=PROMOTED_WITHIN_S)

    def wait_in_step(self) -> None:
        """Wait until every replica has what the primary has now."""
        with self.client_of(self.primary) as client:
            end = int(client.info("replication")["master_repl_offset"])
            wait_until(lambda: min(_offsets(client.info("replication"))) >= end, within_s=60)


def _offsets(info: dict[str, Any]) -> list[int]:
    """Return how far each replica is."""
    replicas = [each for name, each in info.items() if name.startswith("slave") and isinstance(each, dict)]
    return [int(each["offset"]) for each in replicas]


@contextmanager
def sentinel_group(
    run_directory: Path,
    directory: Path,
    *,
    replicas: int = 2,
    server_options: Sequence[str] = (),
    passwords: dict[str, str] | None = None,
    more: Sequence[str] = (),
    times: dict[str, int] | None = None,
) -> Iterator[SentinelGroup]:
    """Start a primary, its replicas and three Sentinels.

    passwords: of the Sentinels (`sentinel`) and of the servers' default user (`server`). more: further lines of the
    Sentinels' configuration.
    """
    passwords = passwords or {}
    with ExitStack() as stack:
        options = ("--repl-diskless-sync-delay", "0", *server_options)
        servers = [Valkey(run_directory, directory / f"server-{n}", options=options) for n in range(1 + replicas)]
        _start(servers, stack)
        for replica in servers[1:]:
            with Redis.from_url(replica.url) as client:
                client.replicaof("127.0.0.1", str(servers[0].port))
                wait_until(lambda: client.info("replication").get("master_link_status") == "up", within_s=60)
        lines = [f"sentinel monitor {NAME} 127.0.0.1 {servers[0].port} 2"]
        lines += [f"sentinel {key} {NAME} {value}" for key, value in (_TIMES | (times or {})).items()]
        if password := passwords.get("server"):
            lines.append(f"sentinel auth-pass {NAME} {password}")
            for server in servers:
                with Redis.from_url(server.url) as client:
                    client.config_set("masterauth", password)
                    client.config_set("requirepass", password)
        if password := passwords.get("sentinel"):
            more = [*more, f"requirepass {password}", f"sentinel sentinel-pass {password}"]
        sentinels = [SentinelServer(run_directory, directory / f"sentinel-{n}", more=[*lines, *more]) for n in range(3)]
        _start(sentinels, stack)
        group = SentinelGroup(servers, sentinels, passwords)
        for sentinel in sentinels:
            wait_until(lambda: _knows(sentinel.state(password), replicas, len(sentinels) - 1), within_s=60)  # noqa: B023 as above
        yield group


def _knows(state: dict[str, Any], replicas: int, others: int) -> bool:
    return (int(state["num-slaves"]), int(state["num-other-sentinels"])) == (replicas, others)


def _start(processes: Sequence[Process], stack: ExitStack) -> None:
    for process in processes:
        process.spawn()
        stack.callback(process.stop)
        stack.callback(process.unpause)
    for process in processes:
        process.wait_ready()

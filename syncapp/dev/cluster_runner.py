"""`make run-cluster`: a Valkey Cluster of six nodes, two web processes and two workers, to see failovers.

Its data is in the directory `cluster` of DATA_DIR, because a session belongs to one store: `make run` has another one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping

from syncapp.config import Settings
from syncapp.dev.greeting import greeting
from syncapp.dev.processes import StartError
from syncapp.dev.runner import (
    App,
    Web,
    alone,
    app_env,
    data_directory,
    for_this_machine,
    main,
    prefixed,
    release,
    serve,
    start_again,
)
from syncapp.dev.servers import Servers
from syncapp.dev.valkey_cluster import ValkeyCluster
from syncapp.dev.valkey_node import ValkeyNode
from syncapp.server.listen_address import ListenAddress

_AWAY_S = 15
"""Longer than a failover takes, so that a node that ended finds its replica in its place."""


class FallenNodes:
    """Nodes of a cluster that ended; each is started again after a while, as a replica of the one in its place."""

    def __init__(self, cluster: ValkeyCluster, away_s: float = _AWAY_S) -> None:
        self._cluster = cluster
        self._away_s = away_s
        self._ended_s: dict[ValkeyNode, float] = {}

    def tend(self) -> None:
        """Report the nodes that ended since the last call, and start those again that were away for long enough."""
        for node in self._cluster.nodes:
            if not node.alive and node not in self._ended_s:
                self._ended_s[node] = time.monotonic()
                print(f"{node.name} ended, and starts again in {self._away_s:.0f} s.", flush=True)
        for node, ended_s in list(self._ended_s.items()):
            if time.monotonic() - ended_s >= self._away_s:
                del self._ended_s[node]
                node.spawn()
                print(f"{node.name} starts again (pid {node.pid}). {masters_now(self._cluster)}", flush=True)


def masters_now(cluster: ValkeyCluster) -> str:
    """Return which nodes are masters now."""
    return "Masters: " + ", ".join(f"port {node.port} (pid {node.pid})" for node in cluster.masters())


def run(environ: Mapping[str, str]) -> None:
    """Start everything, print what to try, and wait.

    Raises `SettingsError`, and `StartError` if something fails or something other than a node stops unexpectedly.
    """
    if environ.get("REDIS_URL"):
        raise StartError("REDIS_URL is set, but this run starts its own Valkey Cluster: unset it")
    directory = data_directory(environ) / "cluster"
    environ = for_this_machine(environ)
    environ["WEB_CONCURRENCY"] = environ.get("WEB_CONCURRENCY", "").strip() or "1"
    settings = Settings.from_env(environ)
    port = ListenAddress.of(settings).port
    ports = [{"PORT": str(each)} for each in (port, port + 1)]
    listening = [ListenAddress.of(Settings.from_env({**environ, **each})) for each in ports]
    with (
        alone(directory, *listening),
        # Tasks have a Valkey of their own, because Huey's queue cannot be spread over a cluster.
        Servers(directory, environ.get("TASKS_REDIS_URL", ""), environ.get("DATABASE_URL", "")) as servers,
        ValkeyCluster(directory, directory / "nodes") as cluster,
    ):
        stores = {"REDIS_URL": cluster.url, "TASKS_REDIS_URL": servers.redis_url, "DATABASE_URL": servers.database_url}
        text = greeting(settings, listening[0], directory, stores, start_again("run-cluster", environ))
        env, show = app_env(environ, servers, **stores), prefixed()
        release(env, directory, show)
        webs = [Web(env | each, directory=directory, output=show(f"web-{n}")) for n, each in enumerate(ports, 1)]
        for web in webs:
            web.name = f"web on port {web.port}"
        workers = [App("worker", env, directory=directory, output=show(f"work-{n}")) for n in (1, 2)]
        serve(
            [*workers, *webs],
            servers.processes,
            text + _second(cluster, listening),
            each_turn=FallenNodes(cluster).tend,
        )


def _second(cluster: ValkeyCluster, listening: list[ListenAddress]) -> str:
    """Return the part of the greeting about what this run has more than one of."""
    shards = "".join(
        f"  master on port {node.port} (pid {node.pid}), replica on port "
        f"{', '.join(str(each.port) for each in cluster.replicas_of(node))}\n"
        for node in cluster.masters()
    )
    return f"""
Two web processes serve the same sessions: {" and ".join(each.url for each in listening)}. The Valkey Cluster:

{shards}
To see a failover, kill a master:  kill -9 {cluster.masters()[0].pid}
Its replica takes over within about 8 s. Until then a third of the sessions answers 503; the others go on. The killed
node starts again after {_AWAY_S} s, as a replica.
"""


if __name__ == "__main__":
    sys.exit(main(run, "make run-cluster"))

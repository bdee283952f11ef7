"""`make run-cluster`: two web processes and two workers on a Valkey Cluster whose nodes may be killed."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import uuid
from functools import partial

import pytest
import requests

from syncapp.dev import cluster_runner
from syncapp.dev.cluster_runner import FallenNodes
from syncapp.dev.ports import free_port, port_is_free
from syncapp.dev.processes import StartError
from syncapp.dev.servers import Servers
from syncapp.dev.valkey_cluster import ValkeyCluster
from tests.support.make_run import runs_on_one_directory
from tests.support.web_clients import wait_until


def two_free_ports() -> int:
    """Return the first of two neighbouring ports that are free."""
    while not port_is_free("127.0.0.1", (port := free_port()) + 1):
        pass
    return port


def is_found(url: str) -> bool:
    return requests.get(url, timeout=60).status_code == 200


def test_a_node_that_ended_is_reported_once_and_starts_again_after_a_while(
    valkey_cluster: ValkeyCluster, capsys: pytest.CaptureFixture[str]
) -> None:
    node = valkey_cluster.nodes[0]
    patient, quick = FallenNodes(valkey_cluster), FallenNodes(valkey_cluster, away_s=0)
    patient.tend()
    assert capsys.readouterr().out == ""

    node.kill()
    patient.tend()
    patient.tend()
    assert capsys.readouterr().out == f"Valkey node on port {node.port} ended, and starts again in 15 s.\n"
    assert not node.alive

    quick.tend()
    assert f"Valkey node on port {node.port} starts again (pid {node.pid})." in capsys.readouterr().out
    valkey_cluster.wait_ok()


def test_a_store_of_ones_own_is_refused() -> None:
    with pytest.raises(StartError, match="REDIS_URL is set, but this run starts its own Valkey Cluster: unset it"):
        cluster_runner.run({"REDIS_URL": "redis://127.0.0.1:1/0"})


def test_a_run_survives_the_death_of_a_master_and_leaves_no_process_behind(servers: Servers) -> None:
    if not servers.valkey:
        pytest.skip("REDIS_URL is given")
    with runs_on_one_directory(servers) as start:
        run = start(port=two_free_ports(), argv=("make", "run-cluster"))
        run.wait_until_announced()
        urls = re.search(r"Two web processes serve the same sessions: (\S+) and (\S+)\.", run.output)
        assert urls
        first, second = urls.groups()
        names = [str(uuid.uuid4()) for _ in range(12)]
        for name in names:
            session = {"session_id": name, "sync_mode": "global", "total_time_ms": 60_000}
            assert requests.post(f"{first}/v1/sessions", json=session, timeout=60).status_code == 201

        kill = re.search(r"^To see a failover, kill a master:  (kill -9 \d+)$", run.output, re.MULTILINE)
        assert kill
        subprocess.run(["bash", "-c", kill[1]], check=True)
        wait_until(lambda: " ended, and starts again in 15 s." in run.output)
        for name in names:
            wait_until(partial(is_found, f"{second}/v1/sessions/{name}"))
        wait_until(lambda: " starts again (pid " in run.output)

        os.killpg(run.process.pid, signal.SIGINT)
        run.wait()
        assert "Stopped." in run.output
        assert run.processes() == []

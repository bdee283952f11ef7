"""deploy/healthcheck.py says whether a restart of a container's processes would help."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
import redis as redis_py

from syncapp.dev.servers import Valkey
from tests.support.cluster import Cluster, MakeCluster
from tests.support.web_clients import wait_until

SCRIPT = Path(__file__).parents[2] / "deploy" / "healthcheck.py"


def checked(env: Mapping[str, str], *arguments: str) -> tuple[int, str]:
    """Exit code and last line of the check."""
    done = subprocess.run(
        [sys.executable, SCRIPT, *arguments], env=env, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def running(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    with redis_py.Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(web=1, REDIS_TIMEOUT_S="2")


def test_processes_that_work_are_healthy(running: Cluster) -> None:
    for process, kind in zip(running.processes, ("web", "worker"), strict=True):
        wait_until(lambda: checked(process.env, kind) == (0, "healthy"))  # noqa: B023 called before the next turn


def test_a_web_process_that_does_not_answer_is_unhealthy(running: Cluster) -> None:
    (web,) = running.web
    web.pause()
    try:
        code, line = checked(web.env, "web")
        assert (code, line[:20]) == (1, "GET /health failed: ")
    finally:
        web.unpause()
    wait_until(lambda: checked(web.env, "web")[0] == 0)


def test_a_worker_that_no_longer_reports_is_unhealthy(running: Cluster) -> None:
    running.worker.pause()
    try:
        time.sleep(5.5)
        assert checked(running.worker.env, "worker") == (1, "0 of 1 worker processes reported within 5 s")
    finally:
        running.worker.unpause()
    wait_until(lambda: checked(running.worker.env, "worker")[0] == 0)


def test_a_missing_web_process_is_noticed(running: Cluster) -> None:
    more = {**running.web[0].env, "WEB_CONCURRENCY": "2"}
    assert checked(more, "web") == (1, "1 of 2 web processes reported within 5 s")


def test_a_store_that_does_not_answer_is_no_reason_for_a_restart(running: Cluster, valkey: Valkey) -> None:
    valkey.pause()
    try:
        for process, kind in zip(running.processes, ("web", "worker"), strict=True):
            assert checked(process.env, kind) == (0, "healthy")
    finally:
        valkey.unpause()


def test_without_an_argument_process_1_says_what_to_check(running: Cluster) -> None:
    # Here it is neither of the two; commands such as a migration are never unhealthy.
    command = Path("/proc/1/cmdline").read_bytes()
    if b"gunicorn" in command or b"huey_consumer" in command:
        pytest.skip("process 1 is one of ours")
    assert checked(running.worker.env) == (0, "nothing to check: neither a web process nor a worker")
    assert checked(running.worker.env, "database")[0] == 2


def test_a_server_that_requires_tokens_is_checked_without_one(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(web=1, worker=False, AUTH="required", AUTH_SECRETS="a secret of 32 bytes or even more")
    wait_until(lambda: checked(cluster.web[0].env, "web") == (0, "healthy"))

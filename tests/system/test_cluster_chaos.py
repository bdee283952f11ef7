"""The short forms of tests/system/cluster_chaos.py, and a loss of acknowledged commits that replicas did not have."""

from __future__ import annotations

import itertools
import random
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests

from syncapp.dev.processes import end_leftovers
from tests.support.cluster_rig import ClusterRig
from tests.support.flask_commands import run_flask
from tests.support.web_clients import RestClient, wait_until
from tests.system import cluster_chaos
from tests.system.chaos import wait_drained
from tests.system.cluster_chaos import VersionWatcher


@pytest.fixture
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="syncapp-cluster-chaos-"))  # other users cannot enter pytest's own
    yield path
    end_leftovers(path)
    shutil.rmtree(path)


@pytest.mark.timeout(600)
def test_when_masters_die_every_acknowledged_command_is_stored_once(directory: Path) -> None:
    done = cluster_chaos.run(directory, seed=20_261_129, commits=300, kills=2, node_timeout_ms=3000)
    print(done)
    done.check()
    assert len(done.failovers) == 2


@pytest.mark.timeout(600)
def test_when_slots_of_live_sessions_move_no_command_fails_and_each_is_stored_once(directory: Path) -> None:
    done = cluster_chaos.run(directory, seed=20_261_129, commits=300, reshard_s=(6, 3), node_timeout_ms=20_000)
    print(done)
    done.check()
    assert done.outcome.harms["atomic"]
    assert done.outcome.harms["classic"]


def test_without_required_replicas_a_loss_is_found_and_recovered(directory: Path) -> None:
    """A master dies with commits that its replica lacks, and that are in PostgreSQL already."""
    with ClusterRig(directory, node_timeout_ms=3000, REDIS_MIN_REPLICAS="0") as rig, ExitStack() as stack:
        apis = [RestClient(url) for url in rig.urls]
        master = rig.nodes.masters()[0]
        (replica,) = rig.nodes.replicas_of(master)
        old, new = itertools.islice(rig.ids_of(master, random.Random(1)), 2)
        apis[0].running(session_id=old)
        watchers = [VersionWatcher(url, old) for url in rig.urls]
        for watcher in watchers:
            stack.callback(watcher.close)
        rig.nodes.wait_ok()  # the replica has what was committed by now
        replica.pause()
        # What a replica has not read yet stays in its socket, unless the connection is gone.
        master.ask("CLIENT", "KILL", "TYPE", "replica")
        for _ in range(3):
            apis[1].command(old, "switch")
        apis[1].running(session_id=new)
        for watcher in watchers:
            watcher.wait_for({old: 5})
        wait_until(lambda: rig.stored() == {old: 5, new: 2})
        master.kill()
        replica.unpause()
        wait_until(lambda: _status(apis, f"/{old}") == {200})
        master.start()  # as a replica
        rig.nodes.wait_ok()

        for watcher in watchers:
            watcher.wait_for({old: 2})  # the older state
        assert _status(apis, f"/{new}") == {404}
        found = run_flask(rig.settings, "audit", "verify")
        assert found.exit_code == 1, found.output
        assert re.search(f"{old}, epoch .*, version 5: the store is behind: .*, version 2\n", found.output)
        assert re.search(f"{new}, epoch .*: the store does not have this session, which has not ended\n", found.output)
        repaired = run_flask(rig.settings, "sessions", "recover", "--all")
        assert repaired.exit_code == 0, repaired.output
        assert f"{old} replaced" in repaired.output
        assert f"{new} restored" in repaired.output

        for session_id in (old, new):
            assert {api.state(session_id)["version"] for api in apis} == {1}  # of a new epoch
            assert [api.command(session_id, "switch")["version"] for api in apis] == [2, 3]
        for watcher in watchers:
            watcher.wait_for({old: 3})
        wait_until(lambda: rig.stored() == {old: 8, new: 5})
        wait_drained(rig.settings)
        checked = run_flask(rig.settings, "audit", "verify")
        assert checked.exit_code == 0, checked.output


def _status(apis: list[RestClient], path: str) -> set[int]:
    """Return what the web processes answer to a request of a session."""
    return {requests.get(f"{api.url}/v1/sessions{path}", timeout=60).status_code for api in apis}

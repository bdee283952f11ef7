"""The private Valkey Cluster: it forms, survives kills and restarts, and moves slots."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from redis.crc import key_slot
from redis.exceptions import MovedError

from syncapp.dev.processes import MARK, StartError, runs
from syncapp.dev.valkey_cluster import SLOTS, ValkeyCluster
from syncapp.dev.valkey_node import NodeView
from tests.support.web_clients import wait_until

THIRDS = (100, SLOTS // 2, SLOTS - 100)
"""A slot of each master of a new cluster."""
KEYS = {key_slot(key.encode()): key for key in map(str, range(200_000))}
"""A key of each slot."""


def write(cluster: ValkeyCluster, slot: int, value: str) -> None:
    """Set a key of a slot, wherever the slot is."""
    cluster.node_of_slot(slot).ask("SET", KEYS[slot], value)


def read(cluster: ValkeyCluster, slot: int) -> str | None:
    value: str | None = cluster.node_of_slot(slot).ask("GET", KEYS[slot])
    return value


def test_each_third_of_the_slots_has_a_master_of_its_own(valkey_cluster: ValkeyCluster) -> None:
    assert valkey_cluster.masters() == valkey_cluster.nodes[:3]
    assert [valkey_cluster.node_of_slot(slot) for slot in THIRDS] == valkey_cluster.nodes[:3]
    for slot in THIRDS:
        write(valkey_cluster, slot, "written")
        assert read(valkey_cluster, slot) == "written"
    valkey_cluster.flush()
    assert [read(valkey_cluster, slot) for slot in THIRDS] == [None] * 3


def test_each_master_has_a_replica(valkey_cluster: ValkeyCluster) -> None:
    replicas = [valkey_cluster.replicas_of(master) for master in valkey_cluster.masters()]
    assert replicas == [[node] for node in valkey_cluster.nodes[3:]]


def test_the_url_names_all_nodes(valkey_cluster: ValkeyCluster) -> None:
    scheme, _, hosts = valkey_cluster.url.partition("://")
    assert scheme == "redis+cluster"
    assert hosts.split(",") == [f"127.0.0.1:{node.port}" for node in valkey_cluster.nodes]


def test_the_replica_of_a_killed_master_serves_its_slots_and_the_master_comes_back_as_a_replica(
    valkey_cluster: ValkeyCluster,
) -> None:
    slot = THIRDS[1]
    master = valkey_cluster.node_of_slot(slot)
    (replica,) = valkey_cluster.replicas_of(master)
    write(valkey_cluster, slot, "kept")
    valkey_cluster.wait_ok()  # the replica has it

    master.kill()
    wait_until(lambda: replica in valkey_cluster.masters())
    assert valkey_cluster.node_of_slot(slot) is replica
    assert read(valkey_cluster, slot) == "kept"
    with pytest.raises(StartError):
        valkey_cluster.wait_ok(within_s=0)

    master.start()
    valkey_cluster.wait_ok()
    assert valkey_cluster.replicas_of(replica) == [master]


def test_a_replica_and_its_master_change_places(valkey_cluster: ValkeyCluster) -> None:
    master = valkey_cluster.node_of_slot(THIRDS[2])
    (replica,) = valkey_cluster.replicas_of(master)
    valkey_cluster.fail_over(replica)
    assert valkey_cluster.node_of_slot(THIRDS[2]) is replica
    assert valkey_cluster.replicas_of(replica) == [master]


def test_slots_whose_nodes_are_all_dead_have_no_node_and_the_others_are_served(valkey_cluster: ValkeyCluster) -> None:
    gone = valkey_cluster.node_of_slot(THIRDS[0])
    for node in (*valkey_cluster.replicas_of(gone), gone):
        node.kill()
    with pytest.raises(LookupError, match="no live node serves slot 100"):
        valkey_cluster.node_of_slot(THIRDS[0])
    with pytest.raises(StartError, match="is not ready after 0 s: no live node serves slot 0"):
        valkey_cluster.wait_ok(within_s=0)
    for slot in THIRDS[1:]:
        write(valkey_cluster, slot, "served")


def test_slots_move_with_their_keys_and_back(valkey_cluster: ValkeyCluster) -> None:
    slot = THIRDS[0]
    source, target = valkey_cluster.node_of_slot(slot), valkey_cluster.node_of_slot(THIRDS[1])
    write(valkey_cluster, slot, "moved")
    valkey_cluster.migrate_slots(slot - 10, slot + 10, source, target)
    assert valkey_cluster.node_of_slot(slot) is target
    assert valkey_cluster.node_of_slot(slot + 11) is source
    assert read(valkey_cluster, slot) == "moved"
    with pytest.raises(MovedError):
        source.ask("GET", KEYS[slot])
    valkey_cluster.migrate_slots(slot - 10, slot + 10, target, source)
    assert valkey_cluster.node_of_slot(slot) is source
    assert read(valkey_cluster, slot) == "moved"


def test_a_master_without_slots_stays_a_master(valkey_cluster: ValkeyCluster) -> None:
    source, target, _ = valkey_cluster.masters()
    ((first, last),) = source.view()[0].slots
    valkey_cluster.migrate_slots(first, last, source, target)
    assert source not in valkey_cluster.masters()
    assert "master" in source.view()[0].flags
    valkey_cluster.migrate_slots(first, last, target, source)
    assert valkey_cluster.node_of_slot(first) is source


def test_a_restart_with_other_ports_keeps_keys_roles_and_slots_and_leaves_no_process(tmp_path: Path) -> None:
    with ValkeyCluster(tmp_path, tmp_path / "nodes") as first:
        first.migrate_slots(100, 100, first.nodes[0], first.nodes[1])
        first.fail_over(first.nodes[5])
        for slot in THIRDS:
            write(first, slot, "kept")
    assert not any(map(runs, processes_of(tmp_path)))

    with ValkeyCluster(tmp_path, tmp_path / "nodes") as second:
        assert not {node.port for node in first.nodes} & {node.port for node in second.nodes}
        assert [node.id for node in second.nodes] == [node.id for node in first.nodes]
        assert [read(second, slot) for slot in THIRDS] == ["kept"] * 3
        assert second.masters() == [second.nodes[number] for number in (0, 1, 5)]
        assert second.node_of_slot(100) is second.nodes[1]
    assert not any(map(runs, processes_of(tmp_path)))


def test_a_cluster_whose_formation_was_interrupted_is_formed_anew(tmp_path: Path) -> None:
    data = tmp_path / "nodes"
    with ValkeyCluster(tmp_path, data, masters=1, replicas=1) as first:
        write(first, 100, "old")
    (data / "formed").unlink()
    with ValkeyCluster(tmp_path, data, masters=1, replicas=1) as second:
        assert read(second, 100) is None
        assert len(second.masters()) == 1


def test_data_of_a_cluster_of_another_shape_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nodes").mkdir()
    (tmp_path / "nodes" / "formed").write_text("3 masters, 1 replicas of each\n")
    cluster = ValkeyCluster(tmp_path, tmp_path / "nodes", masters=1, replicas=0)
    with pytest.raises(StartError, match="has the data of a cluster of 3 masters, 1 replicas of each"):
        cluster.__enter__()
    assert not any(node.alive for node in cluster.nodes)


def test_a_line_of_cluster_nodes_is_read_with_slots_that_move() -> None:
    line = "a1 127.0.0.1:1@2,, myself,master - 0 0 7 connected 0-5 9 [10->-b2]"
    assert NodeView.of(line) == NodeView("a1", frozenset({"myself", "master"}), "", 7, True, ((0, 5), (9, 9)))


def processes_of(directory: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(MARK) == str(directory):
                found.append(process)
    return found

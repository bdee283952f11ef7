"""The primary is killed while games are played; the Sentinels promote a replica."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from syncapp.audit.verify import VerifyResult, verify
from tests.support.cluster import MakeCluster
from tests.support.sentinels import SentinelGroup, sentinel_group
from tests.support.web_clients import OpenWebSocket, RestClient, metric_value, wait_until


@pytest.fixture
def group(run_directory: Path, tmp_path: Path) -> Iterator[SentinelGroup]:
    with sentinel_group(run_directory, tmp_path / "group") as found:
        yield found


class Player(threading.Thread):
    """Switches a session until it is told to stop; keeps what was acknowledged."""

    def __init__(self, url: str, session_id: str) -> None:
        super().__init__(daemon=True)
        self._url = f"{url}/v1/sessions/{session_id}/switch"
        self._stopped = threading.Event()
        self.version = 0
        self.statuses: set[int] = set()
        self.resumed_s = 0.0
        """When a command was accepted for the first time after a refused one."""

    def run(self) -> None:
        refused = False
        with requests.Session() as http:
            while not self._stopped.wait(0.02):
                answer = http.post(self._url, timeout=60)
                self.statuses.add(answer.status_code)
                if answer.status_code == 200:
                    self.version = answer.json()["data"]["version"]
                    self.resumed_s = self.resumed_s or (time.monotonic() if refused else 0.0)
                else:
                    refused = True
                    assert "Retry-After" in answer.headers

    def stop(self) -> None:
        self._stopped.set()
        self.join(60)


def test_play_goes_on_at_the_replica_that_the_sentinels_promote(
    group: SentinelGroup, make_cluster: MakeCluster, database_url: str, open_websocket: OpenWebSocket
) -> None:
    cluster = make_cluster(REDIS_URL=group.url, REDIS_TIMEOUT_S="5")
    try:
        apis = [RestClient(url) for url in cluster.urls]
        sessions = [api.running() for api in apis]
        watchers = [open_websocket(url, sessions[0]) for url in cluster.urls]
        players = [Player(url, session_id) for url, session_id in zip(cluster.urls, sessions, strict=True)]
        _play_while_the_primary_is_killed(group, players)
        for session_id, player in zip(sessions, players, strict=True):
            assert {api.state(session_id)["version"] for api in apis} == {player.version}
        last = apis[1].command(sessions[0], "switch")
        for watcher in watchers:
            wait_until(lambda watcher=watcher: watcher.next().get("version") == last["version"])  # type: ignore[misc]  # the default binds it
        # What the killed server took with it may have reached the log; a session that began later is complete there.
        versions = {apis[0].running(): 2 for _ in range(3)}
        wait_until(lambda: _stored(database_url, versions))
        for url in cluster.urls:
            wait_until(lambda url=url: requests.get(f"{url}/ready", timeout=60).status_code == 200)  # type: ignore[misc]  # as above
            assert metric_value(url, "syncapp_redis_promotions_total") >= 1
        assert all("primary_changed" in process.output() for process in cluster.processes)
        for sentinel in group.sentinels:
            sentinel.kill()
        for url in cluster.urls:
            wait_until(lambda url=url: "3 of 3 Sentinels do not answer" in _worries(url))  # type: ignore[misc]  # as above
        assert apis[0].command(sessions[0], "switch")["version"] == last["version"] + 1
    finally:
        for process in cluster.processes:
            process.stop()


def _play_while_the_primary_is_killed(group: SentinelGroup, players: list[Player]) -> None:
    """Return when the players have moved at the new primary, which has what the replicas had before."""
    for player in players:
        player.start()
    for player in players:
        wait_until(lambda player=player: player.version >= 5)  # type: ignore[misc]  # the default binds it
    replicated = [player.version for player in players]
    group.wait_in_step()
    before = group.primary
    before.kill()
    _, named_s = group.wait_until_named(before)
    for player in players:
        wait_until(lambda player=player: player.resumed_s)  # type: ignore[misc]  # as above
    took = ", ".join(f"{player.resumed_s - named_s:.2f} s" for player in players)
    print(f"moves were accepted again {took} after a Sentinel named the new primary")
    for player, least in zip(players, replicated, strict=True):
        player.stop()
        assert player.version > least
        assert player.statuses == {200, 503}


def _worries(url: str) -> list[str]:
    worries: list[str] = requests.get(f"{url}/ready", timeout=60).json().get("worries", [])
    return worries


def _stored(database_url: str, versions: dict[str, int]) -> bool:
    checked = VerifyResult()
    faults = [fault for session_id in versions for fault in verify(database_url, checked, session_id)]
    return not faults and checked.events == sum(versions.values())

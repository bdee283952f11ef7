"""SyncApp on a Valkey Cluster: every part of it works when the sessions are spread over several masters."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from syncapp.dev.ports import free_port
from syncapp.dev.processes import end_leftovers
from syncapp.dev.runner import NO_LIMITS, Web
from tests.support.cluster_rig import ClusterRig
from tests.support.event_streams import Events
from tests.support.flask_commands import run_flask
from tests.support.tokens import SECRET, bearer
from tests.support.web_clients import OpenWebSocket, RestClient, metric_value, wait_until

COUNT = 40
LIMITS = dict.fromkeys(NO_LIMITS, "")
"""The defaults."""


@pytest.fixture(scope="module")
def rig() -> Iterator[ClusterRig]:
    directory = Path(tempfile.mkdtemp(prefix="syncapp-cluster-"))  # other users cannot enter pytest's own
    try:
        # Nothing happens to a node here, so a machine that stands still causes no failover.
        with ClusterRig(directory, node_timeout_ms=20_000, REDIS_TIMEOUT_S="10", AUDIT_LAG_ALERT_S="5") as rig:
            yield rig
    finally:
        end_leftovers(directory)
        shutil.rmtree(directory)


@pytest.fixture(scope="module")
def apis(rig: ClusterRig) -> list[RestClient]:
    return [RestClient(url) for url in rig.urls]


@pytest.fixture(scope="module")
def guarded(rig: ClusterRig) -> Iterator[RestClient]:
    """A third web process, which requires tokens and has the default limits."""
    env = rig.env | LIMITS | {"AUTH": "required", "AUTH_SECRETS": SECRET, "PORT": str(free_port())}
    web = Web(env, directory=rig.directory, output=rig.directory / "guarded.log")
    web.start()
    yield RestClient(web.url, bearer("back-end"))
    web.stop()


def get(api: RestClient, path: str, query: Mapping[str, Any] | None = None, *, code: int = 200) -> Any:
    """Return the data of an answer, whose status is `code`."""
    answer = requests.get(f"{api.url}{path}", params=query, headers=api.headers, timeout=60)
    assert answer.status_code == code, answer.text
    return answer.json().get("data")


def listed(api: RestClient, **query: Any) -> list[str]:
    """Return the ids on all pages of a list, in order."""
    found, cursor = list[str](), ""
    while True:
        page = get(api, "/v1/sessions", query | ({"cursor": cursor} if cursor else {}))
        assert page["complete"]
        found += [each["session_id"] for each in page["sessions"]]
        cursor = page["next_cursor"]
        if not cursor:
            return found


def next_version(events: Events) -> int:
    """Return the version of the next state of a stream."""
    while "state" not in (message := events.next()):
        pass
    return int(message["state"]["version"])


def wait_stored(rig: ClusterRig, names: list[str], count: int) -> None:
    """Wait until each of these sessions has this many stored events."""
    wait_until(lambda: {rig.stored()[name] for name in names} == {count})


def test_web_processes_are_ready(apis: list[RestClient]) -> None:
    for api in apis:
        answer = requests.get(f"{api.url}/ready", timeout=60)
        assert (answer.status_code, answer.json()["redis"]) == (200, "ok"), answer.text
        assert not answer.json().get("worries"), answer.text


def test_sessions_of_all_masters_are_played_and_listed_and_stored(rig: ClusterRig, apis: list[RestClient]) -> None:
    names = [apis[number % 2].running(metadata={"hall": "all"}) for number in range(COUNT)]
    assert rig.masters_of(names) == set(rig.nodes.masters())
    for number, name in enumerate(names):
        one, other = apis[number % 2], apis[1 - number % 2]
        one.command(name, "pause")
        other.command(name, "resume")
        assert other.command(name, "switch")["version"] == one.state(name)["version"] == 5
    for api in apis:
        assert listed(api, limit=7, **{"metadata.hall": "all"}) == names[::-1]
        assert set(names) <= set(listed(api, status="running"))
    batch = {"session_ids": names, "command": "pause"}
    answer = requests.post(f"{apis[0].url}/v1/sessions/batch", json=batch, timeout=60)
    assert answer.status_code == 200, answer.text
    assert {apis[1].state(name)["status"] for name in names} == {"paused"}
    wait_stored(rig, names, 6)
    for name in names:
        events = get(apis[1], f"/v1/sessions/{name}/events")["events"]
        assert [each["version"] for each in events] == [1, 2, 3, 4, 5, 6]
    assert get(apis[0], f"/v1/sessions/{names[0]}/at", {"version": 2})["status"] == "running"
    assert get(apis[0], f"/v1/sessions/{names[0]}/statistics")
    assert set(names) <= {each["session_id"] for each in get(apis[0], "/v1/history", {"limit": 100})["sessions"]}


def test_timeouts_of_all_masters_are_pushed(
    rig: ClusterRig, apis: list[RestClient], open_websocket: OpenWebSocket
) -> None:
    body = {
        "sync_mode": "global",
        "total_time_ms": 1000,
        "participants": [{"participant_id": "a"}],
        "warn_at_ms": [500],
    }
    names = [apis[0].running(**body) for _ in range(12)]
    while rig.masters_of(names) != set(rig.nodes.masters()):  # ids are random
        names.append(apis[0].running(**body))
    watchers = [open_websocket(apis[number % 2].url, name) for number, name in enumerate(names)]
    for watcher in watchers:
        state = watcher.next("STATE_SYNC")["state"]
        while state["status"] == "running":
            state = watcher.next("STATE_UPDATE")["state"]
        assert state["version"] == 4  # created, started, warned, expired
    wait_stored(rig, names, 4)


def test_event_streams_and_long_polls_follow_sessions_of_all_masters(apis: list[RestClient]) -> None:
    for number in range(8):
        one, other = apis[number % 2], apis[1 - number % 2]
        name = one.running()
        with Events(one, name) as events:
            assert next_version(events) == 2
            tag = requests.get(f"{one.url}/v1/sessions/{name}", timeout=60).headers["ETag"]
            options: dict[str, Any] = {"params": {"wait_ms": 20_000}, "headers": {"If-None-Match": tag}, "timeout": 60}
            with ThreadPoolExecutor(1) as pool:
                poll = pool.submit(requests.get, f"{one.url}/v1/sessions/{name}", **options)
                other.command(name, "switch")
                assert next_version(events) == 3
                assert poll.result(60).json()["data"]["version"] == 3


def test_the_queue_and_the_metrics_count_all_masters(rig: ClusterRig, apis: list[RestClient]) -> None:
    before = get(apis[0], "/v1/audit/queue")["completed"]
    names = [apis[0].running() for _ in range(10)]
    wait_until(lambda: get(apis[1], "/v1/audit/queue")["completed"] >= before + 20)
    counts = get(apis[1], "/v1/audit/queue")
    assert counts["failed"] == counts["delayed"] == 0
    for api in apis:
        assert metric_value(api.url, 'syncapp_audit_queue{state="completed"}') >= before + 20
    for worker in rig.workers:
        worker.pause()
    for name in names:
        apis[0].command(name, "switch")
    assert get(apis[0], "/v1/audit/queue")["waiting"] >= 10
    for worker in rig.workers:
        worker.unpause()
    wait_until(lambda: get(apis[0], "/v1/audit/queue")["waiting"] == 0)


def test_a_killed_worker_and_a_killed_server_of_tasks_stop_no_drain(rig: ClusterRig, apis: list[RestClient]) -> None:
    names = [apis[0].running() for _ in range(10)]
    rig.workers[0].kill()
    for version, disturb in enumerate((lambda: None, rig.tasks_server.kill, rig.tasks_server.start), 3):
        disturb()
        for name in names:
            assert apis[1].command(name, "switch")["version"] == version
        wait_stored(rig, names, version)
    rig.workers[0].start()
    rig.workers[1].kill()
    for name in names:
        apis[1].command(name, "switch")
    wait_stored(rig, names, 6)
    rig.workers[1].start()


def test_flask_commands_reach_all_masters(rig: ClusterRig, apis: list[RestClient]) -> None:
    names = [apis[0].running(metadata={"who": "Ada"}) for _ in range(12)]
    while rig.masters_of(names) != set(rig.nodes.masters()):  # ids are random
        names.append(apis[0].running(metadata={"who": "Ada"}))
    listing = run_flask(rig.settings, "sessions", "list")
    assert set(names) <= set(listing.output.split()), listing.output
    drained = run_flask(rig.settings, "audit", "drain")
    assert drained.exit_code == 0, drained.output
    assert {rig.stored()[name] for name in names} == {2}
    status = run_flask(rig.settings, "audit", "status")
    assert status.exit_code == 0, status.output
    recovered = run_flask(rig.settings, "sessions", "recover", "--all")
    assert recovered.exit_code == 0, recovered.output
    assert "current" in recovered.output
    for name in names[:6]:
        erased = run_flask(rig.settings, "sessions", "erase", name)
        assert erased.exit_code == 0, erased.output
        get(apis[1], f"/v1/sessions/{name}", code=404)
    for name in names[6:]:
        apis[1].delete(name)
        get(apis[0], f"/v1/sessions/{name}", code=404)
    assert not set(names) & set(listed(apis[0]))
    run_flask(rig.settings, "audit", "drain")
    checked = run_flask(rig.settings, "audit", "verify")
    assert checked.exit_code == 0, checked.output
    assert "6 sessions were erased" in checked.output
    assert get(apis[0], "/v1/audit/verification")["last"]["outcome"] == "as_committed"


def test_tokens_links_and_limits_work_on_all_masters(rig: ClusterRig, guarded: RestClient) -> None:
    names = [guarded.running()]
    while rig.masters_of(names) != set(rig.nodes.masters()):
        names.append(guarded.running())
    for name in names:
        links = f"{guarded.url}/v1/sessions/{name}/links"
        made = requests.post(links, json={"scope": "session:act"}, headers=guarded.headers, timeout=60)
        assert made.status_code == 201, made.text
        guest = RestClient(guarded.url, {"Authorization": f"Bearer {made.json()['data']['token']}"})
        assert get(guest, f"/v1/sessions/{name}")["version"] == 2
        assert requests.delete(links, headers=guarded.headers, timeout=60).status_code == 204
        wait_until(lambda guest=guest, name=name: _status(guest, name) == 401)  # type: ignore[misc]  # the defaults bind them
        guarded.command(name, "switch")
    assert _status(RestClient(guarded.url), names[0]) == 401
    guarded.command(names[0], "switch")
    statuses = [
        requests.post(f"{guarded.url}/v1/sessions/{names[0]}/switch", headers=guarded.headers, timeout=60).status_code
        for _ in range(100)
    ]
    assert set(statuses) <= {200, 429}


def _status(api: RestClient, name: str) -> int:
    return requests.get(f"{api.url}/v1/sessions/{name}", headers=api.headers, timeout=60).status_code

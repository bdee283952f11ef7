"""docs/migrating.md is true of this service, as a client of the TypeScript service sees it."""

from __future__ import annotations

import re
import time
import uuid
from pathlib import Path
from typing import Any

import pytest
import requests

from syncapp.dev.runner import ROOT
from syncapp.dev.servers import Postgres, Valkey
from tests.support.cluster import MakeCluster
from tests.support.raw_websocket import RawWebSocket
from tests.support.web_clients import wait_until

DOCUMENT = ROOT / "docs" / "migrating.md"
WHITE, BLACK = (str(uuid.UUID(int=number)) for number in (1, 2))


def body(**more: Any) -> dict[str, Any]:
    """What a client of SyncKairos sends to create a session."""
    people = [
        {"participant_id": name, "participant_index": place, "total_time_ms": 60_000}
        for place, name in enumerate((WHITE, BLACK))
    ]
    whole = {"session_id": str(uuid.uuid4()), "sync_mode": "per_participant", "participants": people}
    return whole | {"total_time_ms": 100_000, "increment_ms": 1000} | more


def post(base: str, path: str, document: Any = None) -> requests.Response:
    return requests.post(f"{base}/v1/sessions{path}", json=document, timeout=60)


def data(answer: requests.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json()["data"]


def code(answer: requests.Response, status: int) -> str:
    assert answer.status_code == status, answer.text
    found: str = answer.json()["error"]["code"]
    return found


def test_a_client_of_synckairos_plays_a_game(web_url: str) -> None:
    state = data(post(web_url, "", body(metadata={"round": 1})), 201)
    path = f"/{state['session_id']}"
    assert (state["version"], state["status"], state["total_time_ms"]) == (1, "pending", 100_000)
    assert state["metadata"] == {"round": 1}
    started = data(post(web_url, f"{path}/start"))
    assert (started["active_participant_id"], started["version"]) == (WHITE, 2)
    switched = data(post(web_url, f"{path}/switch", {}))
    assert {"session_id", "active_participant_id", "cycle_started_at", "participants", "status"} <= switched.keys()
    white = switched["participants"][0]
    assert (switched["active_participant_id"], white["total_time_ms"], white["cycle_count"]) == (BLACK, 60_000, 1)
    assert white["time_remaining_ms"] == 61_000 - white["time_used_ms"]
    assert data(post(web_url, f"{path}/switch", {"next_participant_id": WHITE}))["active_participant_id"] == WHITE
    paused = data(post(web_url, f"{path}/pause"))
    assert (paused["status"], paused["cycle_started_at"]) == ("paused", None)
    assert data(post(web_url, f"{path}/resume"))["status"] == "running"
    assert data(post(web_url, f"{path}/complete"))["active_participant_id"] is None
    assert data(post(web_url, f"{path}/complete"))["status"] == "completed"
    assert requests.delete(f"{web_url}/v1/sessions{path}", timeout=60).status_code == 204
    assert requests.delete(f"{web_url}/v1/sessions{path}", timeout=60).status_code == 204
    assert code(requests.get(f"{web_url}/v1/sessions{path}", timeout=60), 404) == "SESSION_NOT_FOUND"


def test_a_create_does_not_overwrite_and_makes_an_id_itself(web_url: str) -> None:
    asked = body()
    data(post(web_url, "", asked), 201)
    again = post(web_url, "", asked)
    assert code(again, 409) == "SESSION_EXISTS"
    assert again.json()["error"]["details"]["current"]["session_id"] == asked["session_id"]
    del asked["session_id"]
    assert data(post(web_url, "", asked), 201)["session_id"]


@pytest.mark.parametrize(
    ("change", "fields"),
    [
        ({"sync_mode": "global", "increment_ms": 0}, {"participants.0.total_time_ms", "participants.1.total_time_ms"}),
        ({"sync_mode": "per_cycle"}, {"participants.0.total_time_ms", "participants.1.total_time_ms",
                                      "time_per_cycle_ms", "increment_ms"}),
        ({"sync_mode": "count_up"}, {"participants.0.total_time_ms", "participants.1.total_time_ms", "increment_ms"}),
        ({"sync_mode": "per_group"}, {"participants.0.group_id", "participants.1.group_id"}),
        ({"time_per_cycle_ms": 5000}, {"time_per_cycle_ms"}),
        ({"max_time_ms": 5000}, {"max_time_ms"}),
        ({"unknown": 1}, {"unknown"}),
        ({"participants": [{"participant_id": WHITE, "participant_index": 5, "total_time_ms": 1000}]},
         {"participants"}),
        ({"participants": [{"participant_id": WHITE, "group_id": WHITE, "total_time_ms": 1000}]},
         {"participants.0.group_id"}),
        ({"participants": [{"participant_id": WHITE, "total_time_ms": 1000}] * 2},
         {"participants.0.participant_id", "participants.1.participant_id"}),
    ],
)  # fmt: skip
def test_what_a_create_of_synckairos_has_too_much_is_named(
    web_url: str, change: dict[str, Any], fields: set[str]
) -> None:
    answer = post(web_url, "", body(**change))
    assert code(answer, 400) == "VALIDATION_ERROR"
    assert {fault["field"] for fault in answer.json()["error"]["details"]} == fields
    assert all(fault.keys() == {"field", "message", "code"} for fault in answer.json()["error"]["details"])


def test_commands_check_their_bodies_and_versions(web_url: str) -> None:
    path = f"/{data(post(web_url, '', body()), 201)['session_id']}"
    refused = post(web_url, f"{path}/switch", {})
    assert code(refused, 400) == "INVALID_STATE_TRANSITION"
    assert refused.json()["error"]["details"].keys() == {"status", "command", "current"}
    data(post(web_url, f"{path}/start"))
    assert code(post(web_url, f"{path}/start"), 400) == "INVALID_STATE_TRANSITION"
    assert code(post(web_url, f"{path}/pause", {"why": 1}), 400) == "VALIDATION_ERROR"
    assert code(post(web_url, f"{path}/switch", {"next_participant_id": str(uuid.uuid4())}), 400) == "VALIDATION_ERROR"
    stale = post(web_url, f"{path}/switch", {"expected_version": 1})
    assert code(stale, 409) == "CONFLICT"
    assert stale.json()["error"]["details"].keys() == {"expected_version", "actual_version", "current"}
    tagged = requests.post(f"{web_url}/v1/sessions{path}/switch", headers={"If-Match": '"1-1"'}, timeout=60)
    assert code(tagged, 412) == "PRECONDITION_FAILED"
    data(post(web_url, f"{path}/cancel"))
    assert code(post(web_url, f"{path}/complete"), 400) == "INVALID_STATE_TRANSITION"


def test_a_clock_ends_the_session_at_zero_unless_told_otherwise(web_url: str) -> None:
    people = [{"participant_id": name, "total_time_ms": 1000} for name in (WHITE, BLACK)]
    ended, goes_on = (
        data(post(web_url, "", body(participants=people, **more)), 201)["session_id"]
        for more in ({}, {"action_on_timeout": {"type": "notify"}})
    )
    for session_id in (ended, goes_on):
        data(post(web_url, f"/{session_id}/start"))
    time.sleep(1.01)  # the clock itself
    state = data(requests.get(f"{web_url}/v1/sessions/{ended}", timeout=60))
    assert (state["status"], state["participants"][0]["has_expired"]) == ("expired", True)
    assert code(post(web_url, f"/{ended}/complete"), 400) == "INVALID_STATE_TRANSITION"
    switched = data(post(web_url, f"/{goes_on}/switch", {}))
    assert (switched["status"], switched["participants"][0]["has_expired"]) == ("running", True)
    assert data(post(web_url, f"/{goes_on}/switch", {"next_participant_id": WHITE}))["active_participant_id"] == WHITE


def test_failures_have_their_own_status(web_url: str) -> None:
    url = f"{web_url}/v1/sessions"
    as_json = {"Content-Type": "application/json"}
    assert code(requests.post(url, data="{", headers=as_json, timeout=60), 400) == "INVALID_JSON"
    assert code(requests.post(url, data={"a": 1}, timeout=60), 415) == "UNSUPPORTED_MEDIA_TYPE"
    assert code(requests.get(f"{web_url}/nothing", timeout=60), 404) == "NOT_FOUND"
    assert code(requests.put(url, timeout=60), 405) == "METHOD_NOT_ALLOWED"
    bad_id = requests.get(f"{url}/x", timeout=60)
    assert code(bad_id, 400) == "VALIDATION_ERROR"
    assert bad_id.json()["error"]["details"][0]["field"] == "session_id"
    large = requests.post(url, data=b" " * (1 << 20) + b"{}", headers=as_json, timeout=60)
    assert code(large, 413) == "PAYLOAD_TOO_LARGE"


def test_a_socket_is_told_more_than_before(web_url: str) -> None:
    asked = body()
    data(post(web_url, "", asked), 201)
    with RawWebSocket(web_url, asked["session_id"]) as raw:
        assert raw.message().keys() == {"type", "sessionId", "timestamp", "epoch", "version"}
        assert raw.message()["type"] == "STATE_SYNC"
        raw.send({"type": "PING"})
        assert raw.message().keys() == {"type", "sessionId", "timestamp"}
        raw.send({"type": "RECONNECT"})
        assert [raw.message()["type"], raw.message()["type"]] == ["CONNECTED", "STATE_SYNC"]
        raw.send({"type": "REQUEST_SYNC"})
        assert raw.message()["code"] == "VALIDATION_ERROR"
        raw.send("no JSON")
        assert raw.message()["code"] == "INVALID_JSON"
        data(post(web_url, f"/{asked['session_id']}/start"))
        assert {"epoch", "version", "event", "state"} <= raw.message("STATE_UPDATE").keys()
        requests.delete(f"{web_url}/v1/sessions/{asked['session_id']}", timeout=60)
        assert {"epoch", "version", "event"} <= raw.message("SESSION_DELETED").keys()
        assert raw.close_code() == 1000
    with RawWebSocket(web_url, "x") as refused:
        assert refused.status == 400
    asked = body()
    with RawWebSocket(web_url, asked["session_id"]) as waiting:
        waiting.message()  # what it begins with
        data(post(web_url, "", asked), 201)
        assert waiting.message("STATE_UPDATE")["state"]["status"] == "pending"


def test_probes_and_metrics_are_as_the_page_says(web_url: str) -> None:
    assert requests.get(f"{web_url}/health", timeout=60).json() == {"status": "ok"}
    assert requests.get(f"{web_url}/ready", timeout=60).json()["status"] == "ready"
    assert requests.get(f"{web_url}/v1/time", timeout=60).json()["drift_tolerance_ms"] == 50
    text = requests.get(f"{web_url}/metrics", timeout=60).text
    assert re.search(r'syncapp_http_requests_total\{method="GET",route="/health",status="200"\}', text)
    assert "syncapp_http_request_seconds_bucket" in text


def test_a_missing_store_is_a_503_and_a_missing_database_is_none(
    make_cluster: MakeCluster, valkey: Valkey, postgres: Postgres
) -> None:
    base = make_cluster(web=1, worker=False, REDIS_TIMEOUT_S="0.5").urls[0]
    postgres.kill()
    try:
        wait_until(lambda: requests.get(f"{base}/ready", timeout=60).json()["postgresql"] != "ok")
        ready = requests.get(f"{base}/ready", timeout=60)
        assert (ready.status_code, ready.json()["status"]) == (200, "ready")
        assert ready.json()["worries"]
    finally:
        postgres.start()
    valkey.pause()
    try:
        answer = post(base, "", body())
    finally:
        valkey.unpause()
    assert code(answer, 503) == "STORE_UNAVAILABLE"
    assert answer.headers["Retry-After"]
    wait_until(lambda: requests.get(f"{base}/ready", timeout=60).status_code == 200)


def test_the_page_is_linked_and_its_links_lead_somewhere() -> None:
    assert "docs/migrating.md" in Path(ROOT, "README.md").read_text()
    links = re.findall(r"\]\(([^)#]+)", DOCUMENT.read_text())
    assert links
    assert all((DOCUMENT.parent / link).exists() for link in links)

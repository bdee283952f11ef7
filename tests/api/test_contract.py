"""What the API promises about input and the form of answers, over real HTTP."""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import quote

import pytest
import requests

from syncapp.dev.servers import Valkey
from tests.support.cluster import Cluster, MakeCluster
from tests.support.raw_websocket import RawWebSocket
from tests.support.web_clients import wait_until


def created(base: str, body: dict[str, Any]) -> dict[str, Any]:
    """Create a session, and return its state."""
    answer = requests.post(f"{base}/v1/sessions", json=body, timeout=60)
    assert answer.status_code == 201, answer.text
    state: dict[str, Any] = answer.json()["data"]
    return state


def refused(answer: requests.Response) -> dict[str, str]:
    """Return what a validation error says of each field."""
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "VALIDATION_ERROR")
    return {fault["field"]: fault["message"] for fault in answer.json()["error"]["details"]}


def people(*names: str, **more: Any) -> list[dict[str, Any]]:
    return [{"participant_id": name} | more for name in names]


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({"sync_mode": "per_participant", "participants": people("a", "b", total_time_ms=60_000)}, 300_000),
        ({"sync_mode": "per_group", "participants": people("a", "b", group_id="g", total_time_ms=60_000)}, 300_000),
        ({"sync_mode": "global"}, 300_000),
        ({"sync_mode": "per_cycle", "time_per_cycle_ms": 5000}, None),
        ({"sync_mode": "count_up"}, None),
    ],
    ids=lambda value: value["sync_mode"] if isinstance(value, dict) else "",
)
def test_a_total_of_the_session_is_accepted_in_every_mode(
    web_url: str, body: dict[str, Any], shown: int | None
) -> None:
    state = created(web_url, body | {"total_time_ms": 300_000})
    assert state["total_time_ms"] == shown
    again = requests.get(f"{web_url}/v1/sessions/{state['session_id']}", timeout=60).json()["data"]
    assert again["total_time_ms"] == shown
    if body["sync_mode"] in ("per_participant", "per_group"):
        assert again["clock"]["remaining_ms"] == 60_000 * (2 if body["sync_mode"] == "per_group" else 1)
        assert created(web_url, body)["total_time_ms"] == 120_000


@pytest.mark.parametrize(
    "body",
    [
        {"sync_mode": "global", "total_time_ms": 60_000},
        {"sync_mode": "per_cycle", "time_per_cycle_ms": 60_000},
        {"sync_mode": "count_up", "max_time_ms": 60_000},
    ],
    ids=lambda body: body["sync_mode"],
)
def test_a_budget_of_a_participant_is_refused_where_all_share_one_clock(web_url: str, body: dict[str, Any]) -> None:
    whole = body | {"participants": [*people("a"), *people("b", total_time_ms=60_000)]}
    answer = requests.post(f"{web_url}/v1/sessions", json=whole, timeout=60)
    assert refused(answer) == {"participants.1.total_time_ms": "is allowed in per_participant and per_group only"}


def test_unknown_fields_are_refused_by_name(web_url: str) -> None:
    body = {"sync_mode": "global", "total_time_ms": 60_000, "participants": people("a", has_gone=True), "color": 1}
    answer = requests.post(f"{web_url}/v1/sessions", json=body, timeout=60)
    assert refused(answer) == dict.fromkeys(("color", "participants.0.has_gone"), "is not a known field")


def test_ids_may_hold_a_plus_everywhere(web_url: str) -> None:
    names = ("anna+1@example.org", "+491234", "c++")
    groups = ("a+b", "+", "c")
    members = [{"participant_id": name, "group_id": group} for name, group in zip(names, groups, strict=True)]
    body = {"sync_mode": "per_group", "participants": members,
            "groups": [{"group_id": group, "total_time_ms": 60_000} for group in groups]}  # fmt: skip
    state = created(web_url, body)
    url = f"{web_url}/v1/sessions/{state['session_id']}"
    assert [person["participant_id"] for person in state["participants"]] == list(names)
    for path, args in (
        ("start", {"participant_id": names[1]}),
        ("switch", {"participant_id": names[1], "next_participant_id": names[2]}),
        ("switch", {"next_participant_id": names[0]}),
        ("adjust", {"op": "add", "ms": 1000, "group_id": "+"}),
        ("adjust", {"op": "add", "ms": 1000, "participant_id": names[0]}),
    ):
        answer = requests.post(f"{url}/{path}", json=args, timeout=60)
        assert answer.status_code == 200, answer.text
    state = requests.get(url, timeout=60).json()["data"]
    assert state["active_participant_id"] == names[0]
    assert {group["group_id"]: group["total_time_ms"] for group in state["groups"]} == dict.fromkeys(groups, 60_000)


def test_a_refused_adjustment_names_the_field_that_is_at_fault(web_url: str) -> None:
    state = created(web_url, {"sync_mode": "global", "total_time_ms": 60_000, "participants": people("a")})
    url = f"{web_url}/v1/sessions/{state['session_id']}/adjust"
    for args, field in (
        ({"participant_id": "a"}, "participant_id"),
        ({"participant_id": "x"}, "participant_id"),
        ({"group_id": "g"}, "group_id"),
    ):
        answer = requests.post(url, json={"op": "add", "ms": 1000} | args, timeout=60)
        assert list(refused(answer)) == [field]
        assert answer.json()["error"]["message"].startswith(f"{field}: ")
    stopwatch = created(web_url, {"sync_mode": "count_up"})
    answer = requests.post(
        f"{web_url}/v1/sessions/{stopwatch['session_id']}/adjust", json={"op": "add", "ms": 1000}, timeout=60
    )
    assert refused(answer) == {"op": "a stopwatch without max_time_ms has no budget to adjust"}


def test_a_fault_is_told_in_the_words_that_belong_to_it(web_url: str) -> None:
    member = {"participant_id": "a", "group_id": "g", "participant_index": 3}
    groups = [{"group_id": "g"}, {"group_id": "h"}]
    body = {"sync_mode": "per_group", "participants": [member], "groups": groups, "warn_at_ms": [], "metadata": []}
    assert refused(requests.post(f"{web_url}/v1/sessions", json=body, timeout=60)) == {
        "participants": "must all have a participant_index, each from 0 to 0 once, or none",
        "participants.0.total_time_ms": "is required if the group has no total_time_ms",
        "groups.1.total_time_ms": "is required for a group without members",
        "warn_at_ms": "must have at least 1 item, not 0",
        "metadata": "must be an object",
    }
    unknown = f"{web_url}/v1/sessions/{uuid.uuid4()}/events?type={quote('{A}')}"
    answer = requests.get(unknown, timeout=60)
    assert refused(answer) == {"type": "must match pattern '^[a-z_]{1,40}$'"}
    assert answer.json()["error"]["message"] == "type: must match pattern '^[a-z_]{1,40}$'"


def test_probes_and_time_clients_get_bare_objects(web_url: str) -> None:
    assert requests.get(f"{web_url}/health", timeout=60).json() == {"status": "ok"}
    ready = requests.get(f"{web_url}/ready", timeout=60).json()
    assert {"status": "ready", "redis": "ok", "postgresql": "ok"}.items() <= ready.items()
    assert ready.keys() <= {"status", "redis", "postgresql", "worries"}
    assert requests.get(f"{web_url}/v1/time", timeout=60).json().keys() == {
        "timestamp_ms",
        "server_version",
        "drift_tolerance_ms",
    }


def test_a_process_that_is_not_ready_says_so_as_a_bare_object(make_cluster: MakeCluster, valkey: Valkey) -> None:
    base = make_cluster(web=1, worker=False, REDIS_TIMEOUT_S="0.5").urls[0]
    valkey.pause()
    try:
        answer = requests.get(f"{base}/ready", timeout=60)
    finally:
        valkey.unpause()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
    told = answer.json()
    assert (told["status"], told["postgresql"]) == ("unavailable", "ok")
    assert told["problems"] == [f"redis {told['redis']}"]
    wait_until(lambda: requests.get(f"{base}/ready", timeout=60).status_code == 200)


def test_an_error_without_details_has_none(web_url: str) -> None:
    session = f"{web_url}/v1/sessions/{uuid.uuid4()}"
    for answer in (
        requests.get(session, timeout=60),
        requests.get(f"{web_url}/nothing", timeout=60),
        requests.put(session, timeout=60),
        requests.post(f"{web_url}/v1/sessions", data="{", headers={"Content-Type": "application/json"}, timeout=60),
        requests.post(f"{web_url}/v1/sessions", data="{}", headers={"Content-Type": "text/plain"}, timeout=60),
        requests.get(
            f"{web_url}/health", headers={"Accept": "a" * 9000}, timeout=60
        ),  # refused before it reaches a route
    ):
        assert answer.status_code >= 400
        assert answer.json()["error"].keys() == {"code", "message"}


def test_a_socket_is_told_an_error_without_details_the_same_way(web_url: str) -> None:
    state = created(web_url, {"sync_mode": "global", "total_time_ms": 60_000})
    with RawWebSocket(web_url, state["session_id"]) as raw:
        raw.send('{"type": "PING", "t0": 1')
        told = raw.message("ERROR")
    assert told["code"] == "INVALID_JSON"
    assert "details" not in told


def test_routes_answer_with_a_trailing_slash_as_they_do_without(one_web: Cluster, web_url: str) -> None:
    """Every route and method of the application, asked for a session that is not there."""
    from syncapp import create_app

    rules = [rule for rule in create_app().url_map.iter_rules() if not rule.websocket]
    assert len(rules) > 20
    for rule in rules:
        path = rule.rule.replace("<session>", str(uuid.uuid4())).replace("<path:path>", "swagger-ui.css")
        path = path.rstrip("/")
        for method in [*sorted(rule.methods or ()), "PUT"]:
            plain, slashed = told(method, web_url + path), told(method, f"{web_url}{path}/")
            assert slashed == plain, (method, path)
            assert slashed[0] not in (301, 302, 307, 308)


def told(method: str, url: str) -> tuple[int, str | None, list[str], str | None]:
    """Return the status, type and allowed methods of an answer, and the code of its error; a stream is not read."""
    with requests.request(method, url, timeout=60, allow_redirects=False, stream=True) as answer:
        kind = answer.headers.get("Content-Type")
        code = answer.json().get("error", {}).get("code") if kind == "application/json" and method != "HEAD" else None
        return answer.status_code, kind, sorted(answer.headers.get("Allow", "").split(", ")), code


def test_a_trailing_slash_does_not_change_what_a_command_does(web_url: str) -> None:
    body = {"sync_mode": "per_participant", "participants": people("a", "b", total_time_ms=60_000)}
    made = requests.post(f"{web_url}/v1/sessions/", json=body, timeout=60)
    assert made.status_code == 201
    url = web_url + made.headers["Location"]
    assert requests.post(f"{url}/start/", timeout=60).json()["data"]["version"] == 2
    assert requests.post(f"{url}/switch/", timeout=60).json()["data"]["active_participant_id"] == "b"
    assert requests.patch(f"{url}/", json={"metadata": {"a": 1}}, timeout=60).json()["data"]["metadata"] == {"a": 1}
    assert requests.get(f"{url}/", timeout=60).json()["data"]["version"] == 4
    assert requests.delete(f"{url}/", timeout=60).status_code == 204
    assert requests.get(url, timeout=60).status_code == 404
    text = requests.get(f"{web_url}/metrics/", timeout=60).text
    assert 'route="/v1/sessions/<session>/start"' in text
    assert 'start/"' not in text


def test_a_parameter_that_is_not_known_is_refused_by_name_wherever_somebody_waits(web_url: str) -> None:
    # With a typo, a poll would return at once for ever, and a WebSocket would wait for a session that it did not name.
    session = created(web_url, {"sync_mode": "count_up"})["session_id"]
    for path, known in (
        (f"/v1/sessions/{session}?waitMs=20000", "wait_ms"),
        (f"/v1/sessions/{session}/stream?waitMs=1", "token, epoch, version, format"),
        (f"/v1/sessions/{session}/events?waitMs=1", "type, principal, from, to, order, limit, cursor"),
    ):
        answer = requests.get(web_url + path, timeout=60)
        assert refused(answer) == {"waitMs": f"is not a known parameter; known: {known}"}
    handshake = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
    }
    answer = requests.get(f"{web_url}/ws?session_id={session}", headers=handshake, timeout=60)
    message = "is not a known parameter; known: sessionId, token, epoch, version, format"
    assert refused(answer) == {"session_id": message}


def test_a_field_that_does_not_belong_to_the_mode_has_one_fault(web_url: str) -> None:
    body = {"sync_mode": "per_cycle", "time_per_cycle_ms": 5000, "participants": people("a", total_time_ms=5)}
    answer = requests.post(f"{web_url}/v1/sessions", json=body, timeout=60)
    message = "is allowed in per_participant and per_group only"
    assert refused(answer) == {"participants.0.total_time_ms": message}
    assert answer.json()["error"]["message"] == f"participants.0.total_time_ms: {message}"


def test_a_tag_that_is_none_of_ours_is_told_as_such(web_url: str) -> None:
    state = created(web_url, {"sync_mode": "count_up"})
    start = f"{web_url}/v1/sessions/{state['session_id']}/start"
    answer = requests.post(start, headers={"If-Match": '"abc"'}, timeout=60)
    assert answer.status_code == 412
    message = f'If-Match does not name a version of this session, which is at "{state["epoch"]}-1"'
    assert answer.json()["error"]["message"] == message
    assert "expected_version" not in answer.json()["error"]["details"]

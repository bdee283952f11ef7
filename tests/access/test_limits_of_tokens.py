"""Limits of commands where callers have tokens: over two web processes, REST and WebSockets."""

from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import http_sf
import pytest
import requests
from websockets.sync.client import connect

from tests.support.cluster import Cluster, MakeCluster
from tests.support.tokens import SECRET, bearer, token
from tests.support.web_clients import CHESS, WebSocketClient

PER_S, BURST = 1, 30  # slow, so that the rate refuses commands of a slow machine, too


@pytest.fixture(scope="module")
def cluster(make_cluster: MakeCluster) -> Cluster:
    return make_cluster(
        web=2,
        worker=False,
        AUTH="required",
        AUTH_SECRETS=SECRET,
        SESSION_COMMANDS_PER_S=str(PER_S),
        SESSION_COMMANDS_BURST=str(BURST),
        PRINCIPAL_COMMANDS_PER_S="1000",
        PRINCIPAL_COMMANDS_BURST="2000",
        TENANT_LIVE_SESSIONS="2",
        READS_PER_S="1",
        READS_BURST="5",
        PROXY_HOPS="1",
    )


def running(url: str, tenant: str) -> tuple[str, dict[str, str]]:
    """A session that was started, and the header of its tenant's token."""
    headers = bearer(tenant=tenant)
    answer = requests.post(f"{url}/v1/sessions", json=CHESS, headers=headers, timeout=60)
    assert answer.status_code == 201, answer.text
    session_id: str = answer.json()["data"]["session_id"]
    assert requests.post(f"{url}/v1/sessions/{session_id}/start", headers=headers, timeout=60).status_code == 200
    return session_id, headers


def limited(url: str) -> float:
    """How many commands a process has refused by the limit of a session."""
    text = requests.get(f"{url}/metrics", headers=bearer(), timeout=60).text
    name = 'syncapp_limited_total{reason="session_commands_per_s"} '
    return sum(float(line.removeprefix(name)) for line in text.splitlines() if line.startswith(name))


def test_two_processes_together_accept_no_more_than_the_rate_of_a_session(cluster: Cluster) -> None:
    session_id, headers = running(cluster.urls[0], "race")

    def press(number: int) -> list[requests.Response]:
        with requests.Session() as session:
            url = f"{cluster.urls[number % 2]}/v1/sessions/{session_id}/switch"
            return [session.post(url, headers=headers, timeout=30) for _ in range(40)]

    def server_ms() -> int:
        answer = requests.get(f"{cluster.urls[0]}/v1/time", headers=headers, timeout=60)
        return int(answer.json()["timestamp_ms"])

    counted = sum(map(limited, cluster.urls))
    began_ms = server_ms()
    with ThreadPoolExecutor(4) as pool:
        answers = [answer for found in pool.map(press, range(4)) for answer in found]
    elapsed_s = (server_ms() - began_ms) / 1000
    accepted = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(accepted) + len(refused) == len(answers)
    assert len(accepted) <= BURST + PER_S * elapsed_s
    assert refused
    error = refused[0].json()["error"]
    assert (error["code"], error["details"]["reason"]) == ("RATE_LIMITED", "session_commands_per_s")
    assert refused[0].headers["Retry-After"] == "1"
    parse: Any = http_sf.parse
    assert dict(parse(refused[0].headers["RateLimit"].encode(), tltype="list")) == {"session": {"r": 0, "t": 1}}
    names = dict(parse(accepted[0].headers["RateLimit-Policy"].encode(), tltype="list"))
    assert names == {"session": {"q": BURST, "w": BURST}, "principal": {"q": 2000, "w": 2}}
    assert sum(map(limited, cluster.urls)) - counted == len(refused)


def test_a_command_over_a_websocket_counts_too_and_its_error_has_the_details(cluster: Cluster) -> None:
    session_id, headers = running(cluster.urls[0], "sockets")
    url = f"ws{cluster.urls[1].removeprefix('http')}/ws?sessionId={session_id}&token={token(tenant='sockets')}"
    with connect(url) as socket:
        client = WebSocketClient(socket)
        for number in range(2 * BURST):
            client.send(type="COMMAND", id=number, command="switch")
        answers: dict[int, dict[str, Any]] = {}
        while len(answers) < 2 * BURST:
            answer = client.next()
            if "id" in answer:
                answers[answer["id"]] = answer
    errors = [each for each in answers.values() if each["type"] == "ERROR"]
    assert errors
    assert errors[0]["code"] == "RATE_LIMITED"
    assert errors[0]["details"] == {"reason": "session_commands_per_s", "limit": PER_S, "retry_after_s": 1}
    over_rest = requests.post(f"{cluster.urls[0]}/v1/sessions/{session_id}/switch", headers=headers, timeout=60)
    assert "RateLimit" in over_rest.headers


def test_live_sessions_of_a_tenant_are_limited_and_other_tenants_are_not_affected(cluster: Cluster) -> None:
    headers = bearer(tenant="quota")
    answers = [
        requests.post(f"{url}/v1/sessions", json=CHESS, headers=headers, timeout=60)
        for url in (*cluster.urls, cluster.urls[0])
    ]
    assert [answer.status_code for answer in answers] == [201, 201, 429]
    assert answers[2].json()["error"]["details"]["reason"] == "tenant_live_sessions"
    running(cluster.urls[0], "other-quota")


def test_guesses_are_limited_by_principal_and_lists_by_address(cluster: Cluster) -> None:
    url, headers = cluster.urls[0], bearer("guesser") | {"X-Forwarded-For": "203.0.113.77"}
    unknown = f"{url}/v1/sessions/{uuid.uuid4()}"
    statuses = [requests.get(unknown, headers=headers, timeout=60).status_code for _ in range(5)]
    assert statuses[:3] == [404] * 3
    assert statuses[-1] == 429
    refused = requests.get(f"{url}/v1/sessions", headers=headers, timeout=60)
    assert refused.json()["error"]["details"]["reason"] == "reads_per_s"
    others = bearer("reader") | {"X-Forwarded-For": "203.0.113.77"}
    statuses = [requests.get(f"{url}/v1/sessions", headers=others, timeout=60).status_code for _ in range(6)]
    assert statuses[:3] == [200] * 3
    assert statuses[-1] == 429
    elsewhere = others | {"X-Forwarded-For": "203.0.113.78"}
    assert requests.get(f"{url}/v1/sessions", headers=elsewhere, timeout=60).status_code == 200

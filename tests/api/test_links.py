"""Links: who may make which, what they open, and what ends them."""

from __future__ import annotations

import re
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jwt
import pytest
import requests
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from syncapp.api.reference.examples import REQUEST_BODIES
from syncapp.api.reference.link_schemas import LinkAnswer, LinksAnswer
from tests.support.cluster import Cluster, MakeCluster
from tests.support.event_streams import Events
from tests.support.raw_websocket import RawWebSocket
from tests.support.tokens import SECRET, bearer
from tests.support.types import Redis
from tests.support.web_clients import OpenWebSocket, RestClient, metric_value, wait_until

pytestmark = pytest.mark.usefixtures("no_errors_logged")

SCOPES = ["session:watch", "session:act", "session:control", "history:read"]


@pytest.fixture(scope="module")
def guarded(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    """Two web processes that require tokens."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(web=2, worker=False, AUTH="required", AUTH_SECRETS=SECRET, SESSION_TTL_S="2")


@pytest.fixture
def apis(guarded: Cluster) -> list[RestClient]:
    return [RestClient(url, bearer("back-end")) for url in guarded.urls]


@pytest.fixture
def api(apis: list[RestClient]) -> RestClient:
    return apis[0]


def links_path(api: RestClient, session_id: str) -> str:
    return f"{api.url}/v1/sessions/{session_id}/links"


def make(api: RestClient, session_id: str, **body: Any) -> dict[str, Any]:
    answer = requests.post(
        links_path(api, session_id), json={"scope": "session:watch"} | body, headers=api.headers, timeout=60
    )
    assert answer.status_code == 201, answer.text
    LinkAnswer.model_validate_json(answer.content)
    made: dict[str, Any] = answer.json()["data"]
    assert answer.headers["Location"] == f"/v1/sessions/{session_id}/links/{made['jti']}"
    return made


def listed(api: RestClient, session_id: str) -> list[dict[str, Any]]:
    answer = requests.get(links_path(api, session_id), headers=api.headers, timeout=60)
    LinksAnswer.model_validate_json(answer.content)
    found: list[dict[str, Any]] = answer.json()["data"]["links"]
    return found


def refusal(answer: requests.Response) -> tuple[int, str, Any]:
    error = answer.json()["error"]
    return answer.status_code, error["code"], error.get("details")


def with_link(url: str, link: dict[str, Any]) -> RestClient:
    return RestClient(url, {"Authorization": f"Bearer {link['token']}"})


def status_of(api: RestClient, session_id: str) -> int:
    return requests.get(f"{api.url}/v1/sessions/{session_id}", headers=api.headers, timeout=60).status_code


def test_a_link_opens_its_session_and_no_other(apis: list[RestClient], open_websocket: OpenWebSocket) -> None:
    session_id, other = apis[0].create(), apis[0].create()
    link = make(apis[0], session_id, label="spectators")
    assert link["url"] == f"{apis[0].url}/watch#token={link['token']}"
    claims = jwt.decode(link["token"], SECRET, ["HS256"])
    assert claims["sub"] == f"link:{link['jti']}"
    for api in apis:
        guest = with_link(api.url, link)
        assert guest.state(session_id)["version"] == 1
        assert status_of(guest, other) == 403
        assert open_websocket(api.url, session_id, token=link["token"]).next("STATE_SYNC")
        refused = requests.post(f"{api.url}/v1/sessions/{session_id}/start", json={}, headers=guest.headers, timeout=60)
        assert refusal(refused) == (403, "FORBIDDEN", {"missing_scope": "session:control"})


@pytest.mark.parametrize("page", ["play", "stage", "quiz", "auction", "exam"])
def test_a_link_can_open_a_page_that_is_made_for_its_use(api: RestClient, page: str) -> None:
    session_id = api.create()
    link = make(api, session_id, page=page)
    assert link["url"] == f"{api.url}/{page}/{session_id}#token={link['token']}"
    with_fragment = requests.get(link["url"], timeout=60)
    assert (with_fragment.status_code, with_fragment.headers["Content-Type"]) == (200, "text/html; charset=utf-8")


def test_a_link_opens_no_page_that_does_not_exist(api: RestClient) -> None:
    session_id = api.create()
    answer = requests.post(
        links_path(api, session_id),
        json={"scope": "session:watch", "page": "../watch"},
        headers=api.headers,
        timeout=60,
    )
    status, code, details = refusal(answer)
    assert (status, code, details[0]["field"]) == (400, "VALIDATION_ERROR", "page")
    assert listed(api, session_id) == []


def test_a_links_token_is_short_enough_for_a_qr_code(api: RestClient) -> None:
    link = make(api, api.create(), scope=" ".join(SCOPES), participant_id="white")
    assert len(link["token"]) < 512
    assert re.fullmatch(r"[A-Za-z0-9_-]{24}", link["jti"])


def test_links_are_listed_without_their_tokens(api: RestClient) -> None:
    session_id = api.create()
    assert listed(api, session_id) == []
    first = make(api, session_id, label="spectators")
    second = make(api, session_id, scope="session:act", participant_id="white", expires_in_s=60)
    found = listed(api, session_id)
    assert [each["jti"] for each in found] == [first["jti"], second["jti"]]
    by_id = {each["jti"]: each for each in found}
    assert by_id[first["jti"]] == {name: value for name, value in first.items() if name not in ("token", "url")}
    assert by_id[second["jti"]]["participant_id"] == "white"
    assert by_id[second["jti"]]["created_by"] == "back-end"


def test_links_of_the_same_second_are_listed_in_their_order(api: RestClient) -> None:
    session_id = api.create()
    made = [make(api, session_id) for _ in range(12)]
    assert [each["jti"] for each in listed(api, session_id)] == [each["jti"] for each in made]
    assert [each["created_at"] for each in made] == sorted(each["created_at"] for each in made)


@pytest.mark.parametrize("example", REQUEST_BODIES["create_link"])
def test_every_example_of_a_link_works(api: RestClient, example: str) -> None:
    assert make(api, api.create(), **REQUEST_BODIES["create_link"][example]["value"])


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "scope"),
        ({"scope": ""}, "scope"),
        ({"scope": "admin"}, "scope"),
        ({"scope": "session:watch  session:act"}, "scope"),
        ({"scope": ["session:watch"]}, "scope"),
        ({"scope": "session:create"}, "scope"),
        ({"scope": "session:act", "participant_id": "nobody"}, "participant_id"),
        ({"scope": "session:watch", "participant_id": "white"}, "participant_id"),
        ({"scope": "session:watch", "expires_in_s": 59}, "expires_in_s"),
        ({"scope": "session:watch", "expires_in_s": 30 * 86_400 + 1}, "expires_in_s"),
        ({"scope": "session:watch", "label": ""}, "label"),
        ({"scope": "session:watch", "label": "x" * 101}, "label"),
        ({"scope": "session:watch", "more": 1}, "more"),
    ],
)
def test_an_invalid_link_is_refused(api: RestClient, body: dict[str, Any], field: str) -> None:
    answer = requests.post(links_path(api, api.create()), json=body, headers=api.headers, timeout=60)
    status, code, details = refusal(answer)
    assert (status, code, [each["field"] for each in details]) == (400, "VALIDATION_ERROR", [field])


def test_an_idempotency_key_is_refused(api: RestClient) -> None:
    headers = api.headers | {"Idempotency-Key": str(uuid.uuid4())}
    answer = requests.post(links_path(api, api.create()), json={"scope": "session:watch"}, headers=headers, timeout=60)
    assert refusal(answer)[2][0]["field"] == "Idempotency-Key"


def test_a_link_cannot_allow_more_than_its_creator_may(api: RestClient) -> None:
    session_id = api.create()

    def ask(creator: dict[str, str], **body: Any) -> tuple[int, str, Any]:
        return refusal(requests.post(links_path(api, session_id), json=body, headers=creator, timeout=60))

    control = bearer(scope="session:control")
    assert ask(control, scope="history:read") == (403, "FORBIDDEN", {"missing_scope": "history:read"})
    assert ask(bearer(scope="session:act"), scope="session:watch") == (
        403, "FORBIDDEN", {"missing_scope": "session:control"},
    )  # fmt: skip
    white = bearer(scope="session:control", participant_id="white")
    body = {"scope": "session:act", "participant_id": "black"}
    assert ask(white, **body) == (403, "FORBIDDEN", {"reason": "participant_id"})
    assert make(RestClient(api.url, white), session_id, scope="session:act")["participant_id"] == "white"
    elsewhere = bearer(scope="session:control", session_id=str(uuid.uuid4()))
    assert ask(elsewhere, scope="session:watch") == (403, "FORBIDDEN", {"reason": "session_id"})


def test_a_link_cannot_manage_links(api: RestClient) -> None:
    session_id = api.create()
    link = make(api, session_id, scope="session:control")
    headers = with_link(api.url, link).headers
    path = links_path(api, session_id)
    for answer in (
        requests.post(path, json={"scope": "session:watch"}, headers=headers, timeout=60),
        requests.get(path, headers=headers, timeout=60),
        requests.delete(path, headers=headers, timeout=60),
        requests.delete(f"{path}/{link['jti']}", headers=headers, timeout=60),
    ):
        assert refusal(answer) == (403, "FORBIDDEN", {"reason": "link"})


def test_links_of_a_session_that_does_not_exist_or_is_another_tenants_are_404(api: RestClient) -> None:
    session_id, missing = api.create(), str(uuid.uuid4())
    link = make(api, session_id)
    theirs = bearer(tenant="acme")
    answers = []
    for asked in (session_id, missing):
        path = links_path(api, asked)
        answers.append([
            (answer.status_code, answer.text)
            for answer in (
                requests.post(path, json={"scope": "session:watch"}, headers=theirs, timeout=60),
                requests.get(path, headers=theirs, timeout=60),
                requests.delete(path, headers=theirs, timeout=60),
                requests.delete(f"{path}/{link['jti']}", headers=theirs, timeout=60),
            )
        ])  # fmt: skip
    assert answers[0] == answers[1]
    assert {status for status, _ in answers[0]} == {404}
    assert status_of(with_link(api.url, link), session_id) == 200


def test_revoking_closes_everything_on_every_process(apis: list[RestClient], open_websocket: OpenWebSocket) -> None:
    session_id = apis[0].running()
    link, kept = make(apis[0], session_id), make(apis[0], session_id)
    sockets = [open_websocket(api.url, session_id, token=link["token"]) for api in apis]
    late = [open_websocket(api.url) for api in apis]
    for one in late:
        one.next()
        one.send(type="AUTH", token=link["token"])
        assert one.next("AUTHENTICATED")["sub"] == f"link:{link['jti']}"
    others = [open_websocket(api.url, session_id, token=kept["token"]) for api in apis]
    streams = [Events(with_link(api.url, link), session_id) for api in apis]
    for stream in streams:
        assert stream.next()["type"] == "CONNECTED"
        assert stream.next()["type"] == "STATE_SYNC"
    path = f"{links_path(apis[0], session_id)}/{link['jti']}"
    assert requests.delete(path, headers=apis[0].headers, timeout=60).status_code == 204
    revoked_s = time.monotonic()
    for one in [*sockets, *late]:
        assert one.close_code() == 4401
        assert one.connection.close_reason == "the link was revoked"
    for stream in streams:
        last = stream.next()
        assert (last["type"], last["code"], last["message"]) == ("ERROR", "UNAUTHORIZED", "the link was revoked")
        with pytest.raises(EOFError):
            stream.next()
    print(f"closed after {time.monotonic() - revoked_s:.3f} s")
    for api in apis:
        assert status_of(with_link(api.url, link), session_id) == 401
        with pytest.raises(InvalidStatus), connect(f"ws{api.url[4:]}/ws?token={link['token']}"):
            pass
        assert status_of(with_link(api.url, kept), session_id) == 200
    for one in others:
        one.next("STATE_SYNC")
        assert one.ask(type="PING", t0=1)["type"] == "PONG"
    assert [each["jti"] for each in listed(apis[1], session_id)] == [kept["jti"]]
    again = requests.delete(path, headers=apis[0].headers, timeout=60)
    assert refusal(again)[:2] == (404, "NOT_FOUND")


def test_revoking_ends_a_long_poll_on_the_other_process(apis: list[RestClient]) -> None:
    session_id = apis[0].create()
    link = make(apis[0], session_id)
    guest = with_link(apis[1].url, link)
    path = f"{guest.url}/v1/sessions/{session_id}"
    tag = requests.get(path, headers=guest.headers, timeout=60).headers["ETag"]
    headers = guest.headers | {"If-None-Match": tag}
    with ThreadPoolExecutor(1) as pool:
        poll = pool.submit(requests.get, f"{path}?wait_ms=25000", headers=headers, timeout=60)
        wait_until(lambda: metric_value(guest.url, "syncapp_ws_connections", bearer()) == 1)
        assert requests.delete(links_path(apis[0], session_id), headers=apis[0].headers, timeout=60).status_code == 204
        answer = poll.result(60)
    assert (answer.status_code, answer.json()["error"]["message"]) == (401, "the link was revoked")


def test_a_client_that_does_not_read_is_disconnected_when_its_link_is_revoked(
    make_cluster: MakeCluster,
) -> None:
    # Without the revocation, it would stay for ten minutes.
    patient = make_cluster(web=1, worker=False, AUTH="required", AUTH_SECRETS=SECRET, WS_SLOW_CLOSE_S="600")
    api = RestClient(patient.urls[0], bearer())
    session_id = api.running(metadata={"text": "x" * 16_000})
    link = make(api, session_id)
    with RawWebSocket(api.url, session_id, with_link(api.url, link).headers, receive_bytes=4096):
        for _ in range(60):  # a megabyte of states: far more than the sockets buffer
            api.command(session_id, "switch")
        assert requests.delete(links_path(api, session_id), headers=api.headers, timeout=60).status_code == 204
        wait_until(lambda: metric_value(api.url, "syncapp_ws_connections", api.headers) == 0)


def test_all_links_of_a_session_are_revoked_at_once(apis: list[RestClient]) -> None:
    session_id, other = apis[0].create(), apis[0].create()
    links = [make(apis[0], session_id) for _ in range(5)]
    theirs = make(apis[0], other)
    assert requests.delete(links_path(apis[1], session_id), headers=apis[1].headers, timeout=60).status_code == 204
    assert listed(apis[0], session_id) == []
    for link in links:
        wait_until(lambda link=link: status_of(with_link(apis[0].url, link), session_id) == 401)  # type: ignore[misc]  # a lambda with a default
    assert status_of(with_link(apis[0].url, theirs), other) == 200


def test_a_link_does_not_open_a_later_session_with_the_same_id(
    apis: list[RestClient], open_websocket: OpenWebSocket
) -> None:
    session_id = apis[0].running()
    link = make(apis[0], session_id, scope="session:control history:read")
    guest = with_link(apis[1].url, link)
    assert guest.state(session_id)["status"] == "running"
    waiting = open_websocket(apis[1].url, token=link["token"])
    waiting.next()
    apis[0].delete(session_id)
    waiting.send(type="SUBSCRIBE", session_id=session_id)
    assert waiting.next("CONNECTED")["version"] is None
    apis[0].create(session_id=session_id)
    assert waiting.close_code() == 4401
    assert waiting.connection.close_reason == "the link is for an earlier session with this id"
    path = f"{guest.url}/v1/sessions/{session_id}"
    for method, suffix, body in (
        ("GET", "", None),
        ("GET", "/text", None),
        ("POST", "/start", {}),
        ("POST", "/start", {"expected_version": 1}),
        ("POST", "/cancel", {"expected_epoch": apis[0].state(session_id)["epoch"]}),
        ("POST", "/complete", {}),
        ("PATCH", "", {"metadata": {"a": 1}}),
        ("GET", "/events", None),
        ("GET", "/statistics", None),
        ("GET", "/export", None),
        ("GET", "/at?version=1", None),
    ):
        answer = requests.request(method, path + suffix, json=body, headers=guest.headers, timeout=60)
        assert refusal(answer)[:2] == (404, "SESSION_NOT_FOUND"), (method, suffix)
        assert "current" not in answer.text
    one = open_websocket(apis[0].url, session_id, token=link["token"])
    assert one.close_code() == 4401
    with Events(guest, session_id) as stream:
        assert stream.next()["message"] == "the link is for an earlier session with this id"
    assert apis[0].state(session_id)["version"] == 1
    assert listed(apis[0], session_id) == []
    assert status_of(with_link(apis[0].url, make(apis[0], session_id)), session_id) == 200


def test_a_link_reads_a_finished_session_until_it_is_gone(api: RestClient) -> None:
    session_id = api.running()
    link = make(api, session_id)
    guest = with_link(api.url, link)
    api.command(session_id, "cancel")
    assert guest.state(session_id)["status"] == "cancelled"
    assert [each["jti"] for each in listed(api, session_id)] == [link["jti"]]
    wait_until(lambda: status_of(guest, session_id) == 404)


def test_with_auth_off_there_are_no_links(one_web: Cluster) -> None:
    api = RestClient(one_web.urls[0])
    session_id = api.create()
    for method in ("POST", "GET", "DELETE"):
        answer = requests.request(method, links_path(api, session_id), json={"scope": "session:watch"}, timeout=60)
        status, code, _ = refusal(answer)
        assert (status, code) == (501, "TOKENS_NOT_CONFIGURED")


def test_erasing_a_session_forgets_its_links(api: RestClient, redis_url: str) -> None:
    session_id = api.create()
    make(api, session_id, label="for Carol")
    address = f"{api.url}/v1/sessions/{session_id}?erase=true"
    assert requests.delete(f"{address}&erase=true", headers=api.headers, timeout=60).status_code == 400
    assert requests.delete(address, headers=api.headers, timeout=60).status_code == 204
    with Redis.from_url(redis_url) as client:
        assert list(client.scan_iter(f"*links:{session_id}")) == []


def test_links_of_a_principal_are_limited(make_cluster: MakeCluster, redis_url: str) -> None:
    server = make_cluster(web=1, worker=False, AUTH="required", AUTH_SECRETS=SECRET, PRINCIPAL_CREATES_PER_MINUTE="3")
    ada, ben = (RestClient(server.urls[0], bearer(name)) for name in ("ada", "ben"))
    session_id = ada.create()
    for _ in range(3):
        make(ada, session_id)
    refused = requests.post(
        links_path(ada, session_id), json={"scope": "session:watch"}, headers=ada.headers, timeout=60
    )
    assert refusal(refused)[:2] == (429, "RATE_LIMITED")
    make(ben, session_id)
    assert len(listed(ada, session_id)) == 4


def test_a_host_that_cannot_be_decoded_stays_as_it_is_in_the_address_of_a_link(api: RestClient) -> None:
    session_id = api.create()
    headers = api.headers | {"Host": "xn--a"}
    made = requests.post(links_path(api, session_id), json={"scope": "session:watch"}, headers=headers, timeout=60)
    assert made.status_code == 201, made.text
    assert made.json()["data"]["url"].startswith("http://xn--a/watch#token=")

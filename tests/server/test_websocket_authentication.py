"""Tokens on WebSockets, with `AUTH=required`: at the handshake, in `AUTH`, renewed, expired, and what each allows."""

from __future__ import annotations

import json
import time
import uuid
from contextlib import suppress
from typing import Any

import pytest
from flask import Flask
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from syncapp.access.revocations import Revocations
from syncapp.access.tokens import Authenticator
from syncapp.config import Settings
from syncapp.domain.principal import ANYONE
from syncapp.errors import Unauthorized
from syncapp.server import authentication
from syncapp.server.admission import WatchRequest
from syncapp.server.authentication import Gate, TokenAccess
from tests.support.cluster import Cluster, MakeCluster
from tests.support.revoked_tokens import NothingRevoked
from tests.support.tokens import SECRET, bearer, token
from tests.support.web_clients import CHESS, OpenWebSocket, RestClient, WebSocketClient, metric_value, wait_until

pytestmark = pytest.mark.usefixtures("no_errors_logged")

ADMIN = "admin"
COMMANDS: dict[str, tuple[str, dict[str, Any]]] = {
    "create": ("session:create", CHESS),
    "start": ("session:control", {}),
    "switch": ("session:act", {}),
    "pause": ("session:control", {}),
    "resume": ("session:control", {}),
    "adjust": ("session:control", {"op": "add", "ms": 1000}),
    "update": ("session:control", {"metadata": {"a": 1}}),
    "complete": ("session:control", {}),
    "cancel": ("session:control", {}),
    "delete": ("session:delete", {}),
}
GIVES = {
    "session:create": {"session:create"},
    "session:watch": set(),
    "session:act": {"session:act"},
    "session:control": {"session:act", "session:control"},
    "session:delete": {"session:delete"},
    "session:time": set(),
    "history:read": set(),
    "webhook:manage": set(),
    "admin": {"session:create", "session:act", "session:control", "session:delete"},
}
"""What each scope allows of the commands, besides watching."""


@pytest.fixture
def url(guarded: Cluster) -> str:
    return guarded.urls[0]


@pytest.fixture
def api(url: str) -> RestClient:
    return RestClient(url, bearer(scope=ADMIN))


def refused(url: str, query: str = "", **headers: str) -> tuple[int, dict[str, Any], str]:
    """Return status, error and `WWW-Authenticate` of a handshake that is refused."""
    with pytest.raises(InvalidStatus) as refusal, connect(f"ws{url[4:]}/ws{query}", additional_headers=headers):
        pass
    response = refusal.value.response
    return response.status_code, json.loads(response.body)["error"], response.headers.get("WWW-Authenticate", "")


def test_a_token_comes_in_the_header_or_in_the_query(api: RestClient, open_websocket: OpenWebSocket) -> None:
    session_id = api.create()
    by_query = open_websocket(api.url, session_id, token=token(scope="session:watch"))
    assert by_query.next()["version"] == 1
    assert by_query.next("STATE_SYNC")["state"]["session_id"] == session_id
    address = f"ws{api.url[4:]}/ws?sessionId={session_id}"
    with connect(address, additional_headers=bearer(scope="session:watch")) as raw:
        assert WebSocketClient(raw).next("STATE_SYNC")["state"]["version"] == 1


@pytest.mark.parametrize(
    "bad",
    ["nonsense", token(secret="another secret, of 32 bytes or more"), token(expires_in_s=-1)],
    ids=["nonsense", "another secret", "expired"],
)
def test_a_bad_token_is_refused_before_the_upgrade(url: str, bad: str) -> None:
    for query, headers in ((f"?token={bad}", {}), ("", {"Authorization": f"Bearer {bad}"})):
        status, error, challenge = refused(url, query, **headers)
        assert (status, error["code"]) == (401, "UNAUTHORIZED")
        assert challenge.startswith('Bearer realm="SyncApp", error="invalid_token"')
        assert bad not in json.dumps(error) + challenge


def test_two_tokens_are_refused(url: str) -> None:
    assert refused(url, f"?token={token()}", **bearer())[0] == 400
    assert refused(url, f"?token={token()}&token={token()}")[0] == 400


def test_a_handshake_for_a_session_that_the_token_does_not_allow_is_refused(api: RestClient) -> None:
    session_id = api.create()
    status, error, _ = refused(api.url, f"?sessionId={session_id}&token={token(scope='session:create')}")
    assert (status, error["code"], error["details"]) == (403, "FORBIDDEN", {"missing_scope": "session:watch"})
    other = token(scope="session:watch", session_id=str(uuid.uuid4()))
    assert refused(api.url, f"?sessionId={session_id}&token={other}")[0] == 403


def test_without_a_token_only_auth_and_ping_are_answered(api: RestClient, open_websocket: OpenWebSocket) -> None:
    session_id = api.create()
    one = open_websocket(api.url, session_id)
    hello = one.next()
    assert (hello["type"], hello["sessionId"], hello["epoch"], hello["version"]) == ("CONNECTED", None, None, None)
    assert one.ask(type="PING", t0=1)["type"] == "PONG"
    for message in (
        {"type": "COMMAND", "id": 1, "command": "start"},
        {"type": "SUBSCRIBE", "id": 1, "session_id": session_id},
        {"type": "UNSUBSCRIBE", "id": 1, "session_id": session_id},
        {"type": "RECONNECT", "id": 1} | {"session_id": session_id},
    ):
        if message["type"] == "RECONNECT":
            del message["id"]
        error = one.ask(**message)
        assert (error["type"], error["code"]) == ("ERROR", "UNAUTHORIZED")
        assert error["details"] == {"reason": "missing_token"}
    api.command(session_id, "start")
    assert one.silent()
    assert api.state(session_id)["version"] == 2
    answer = one.ask(type="AUTH", id="a", token=token("ada", "session:watch"))
    assert (answer["type"], answer["id"], answer["sub"]) == ("AUTHENTICATED", "a", "ada")
    assert answer["sessionId"] == session_id
    assert answer["expires_at_ms"] > time.time() * 1000
    assert one.next()["type"] == "CONNECTED"
    assert one.next()["state"]["version"] == 2
    api.delete(session_id)  # it is the connection's own session, as if the token had come with the handshake
    assert one.close_code() == 1000


def test_a_connection_that_sends_no_token_is_closed(url: str, open_websocket: OpenWebSocket) -> None:
    one = open_websocket(url)
    assert one.close_code() == 4401
    assert one.connection.close_reason == "authentication is required"


def test_an_auth_for_another_session_than_that_of_the_url_closes(
    api: RestClient, open_websocket: OpenWebSocket
) -> None:
    one = open_websocket(api.url, api.create())
    one.next()
    one.send(type="AUTH", token=token(scope="session:watch", session_id=str(uuid.uuid4())))
    assert one.next()["code"] == "FORBIDDEN"
    assert one.close_code() == 4403


def test_three_bad_tokens_close(url: str, open_websocket: OpenWebSocket) -> None:
    counted = 'syncapp_auth_refused_total{reason="invalid_token"}'
    before = metric_value(url, counted, bearer())
    one = open_websocket(url)
    one.next()
    for number, bad in enumerate(("x", "x" * 60_000, token(expires_in_s=-1))):
        error = one.ask(type="AUTH", id=number, token=bad)
        assert (error["code"], error["id"], error["details"]) == ("UNAUTHORIZED", number, {"reason": "invalid_token"})
    assert one.close_code() == 4401
    assert metric_value(url, counted, bearer()) == before + 3


@pytest.mark.parametrize("message", [{}, {"token": 1}, {"token": None}, {"token": "x", "more": 1}, {"token": ["x"]}])
def test_a_malformed_auth_is_refused(url: str, open_websocket: OpenWebSocket, message: dict[str, Any]) -> None:
    one = open_websocket(url)
    one.next()
    assert one.ask(type="AUTH", **message)["code"] == "VALIDATION_ERROR"


def test_a_flood_of_auth_is_closed_like_any_other(url: str, open_websocket: OpenWebSocket) -> None:
    one = open_websocket(url)
    good = token()
    text = json.dumps({"type": "AUTH", "token": good})
    for _ in range(400):
        with suppress(ConnectionClosed):
            one.connection.send(text)
    assert one.close_code() == 1008


def test_a_token_ends_its_connection_when_it_expires(api: RestClient, open_websocket: OpenWebSocket) -> None:
    session_id = api.create()
    one = open_websocket(api.url, session_id, token=token(scope="session:watch", expires_in_s=2))
    assert one.next("STATE_SYNC")
    assert one.close_code() == 4401
    assert one.connection.close_reason == "the token has expired"


def test_auth_renews_a_token_for_the_same_principal_only(api: RestClient, open_websocket: OpenWebSocket) -> None:
    session_id = api.create()
    expires_s = int(time.time()) + 3
    one = open_websocket(api.url, session_id, token=token("ada", "session:watch", exp=expires_s))
    one.next("STATE_SYNC")
    for other in (token("eve", "admin"), token("ada", "admin", tenant="acme")):
        error = one.ask(type="AUTH", id=1, token=other)
        assert (error["code"], error["details"]) == ("FORBIDDEN", {"reason": "principal"})
    error = one.ask(type="COMMAND", id=2, command="start")
    assert (error["code"], error["details"]) == ("FORBIDDEN", {"missing_scope": "session:control"})
    assert one.ask(type="AUTH", id=3, token=token("ada", "session:control"))["type"] == "AUTHENTICATED"
    one.send(type="COMMAND", id=4, command="start")
    assert one.next("ACK")["version"] == 2
    wait_until(lambda: time.time() > expires_s + 0.5)
    assert one.ask(type="PING", t0=1)["type"] == "PONG"


def test_a_renewal_that_takes_a_watched_session_away_closes(api: RestClient, open_websocket: OpenWebSocket) -> None:
    session_id, other = api.create(), api.create()
    one = open_websocket(api.url, session_id, token=token(scope="session:watch"))
    one.next("STATE_SYNC")
    one.send(type="SUBSCRIBE", session_id=other)
    one.next("STATE_SYNC")
    one.send(type="AUTH", token=token(scope="session:watch", session_id=session_id))
    assert one.next()["details"] == {"reason": "session_id"}
    assert one.close_code() == 4403


@pytest.mark.parametrize("scope", GIVES)
def test_each_scope_allows_its_commands_and_no_other(
    api: RestClient, open_websocket: OpenWebSocket, scope: str
) -> None:
    given = token(scope=f"session:watch {scope}")
    for command, (needed, args) in COMMANDS.items():
        session_id = str(uuid.uuid4()) if command == "create" else api.create()
        if command in ("switch", "pause", "resume"):
            api.command(session_id, "start")
        if command == "resume":
            api.command(session_id, "pause")
        one = open_websocket(api.url, session_id, token=given)
        one.next()
        one.send(type="COMMAND", id=command, command=command, args=args)
        if needed in GIVES[scope]:
            assert one.next("ACK")["id"] == command
        else:
            error = one.next("ERROR")
            assert (error["code"], error["id"]) == ("FORBIDDEN", command)
            assert error["details"] == {"missing_scope": needed}
        one.connection.close()


@pytest.mark.parametrize(
    "scope", ["session:create", "session:delete", "session:time", "history:read", "webhook:manage"]
)
def test_without_session_watch_nothing_is_watched(api: RestClient, open_websocket: OpenWebSocket, scope: str) -> None:
    session_id = api.create()
    one = open_websocket(api.url, token=token(scope=scope))
    one.next()
    for message in ({"type": "SUBSCRIBE"}, {"type": "RECONNECT"}):
        error = one.ask(**message, session_id=session_id)
        assert (error["code"], error["details"]) == ("FORBIDDEN", {"missing_scope": "session:watch"})
    assert one.ask(type="UNSUBSCRIBE", session_id=session_id)["type"] == "UNSUBSCRIBED"


def test_a_token_for_one_session_cannot_subscribe_to_another(api: RestClient, open_websocket: OpenWebSocket) -> None:
    session_id, other = api.create(), api.create()
    one = open_websocket(api.url, token=token(scope="session:control", session_id=session_id))
    one.next()
    error = one.ask(type="SUBSCRIBE", id=1, session_id=other)
    assert (error["code"], error["id"], error["details"]) == ("FORBIDDEN", 1, {"reason": "session_id"})
    assert one.ask(type="SUBSCRIBE", id=2, session_id=session_id.upper())["type"] == "SUBSCRIBED"


def test_a_participants_token_switches_in_its_turn_and_never_for_another(
    api: RestClient, open_websocket: OpenWebSocket
) -> None:
    session_id = api.running()
    black, white = (
        open_websocket(
            api.url, session_id, token=token(name, "session:act", session_id=session_id, participant_id=name)
        )
        for name in ("black", "white")
    )
    for each in (black, white):
        each.next("STATE_SYNC")
    assert black.ask(type="COMMAND", id=1, command="switch")["code"] == "NOT_ACTIVE_PARTICIPANT"
    error = black.ask(type="COMMAND", id=2, command="switch", args={"participant_id": "white"})
    assert (error["code"], error["details"]) == ("FORBIDDEN", {"reason": "participant_id"})
    error = white.ask(type="COMMAND", id=3, command="switch", args={"next_participant_id": "white"})
    assert error["details"] == {"missing_scope": "session:control"}
    white.send(type="COMMAND", id=4, command="switch")
    assert white.next("ACK")["id"] == 4


def test_another_tenants_session_looks_like_one_that_does_not_exist(
    api: RestClient, open_websocket: OpenWebSocket
) -> None:
    session_id = api.running()
    theirs = open_websocket(api.url, session_id, token=token(scope="admin", tenant="acme"))
    hello = theirs.next()
    assert (hello["sessionId"], hello["epoch"], hello["version"]) == (session_id, None, None)
    answers = {}
    for asked in (session_id, str(uuid.uuid4())):
        if asked != session_id:
            theirs.send(type="SUBSCRIBE", session_id=asked)
            theirs.next("CONNECTED")
        for command in ("start", "switch", "pause", "cancel", "complete", "update"):
            args = COMMANDS[command][1]
            error = theirs.ask(type="COMMAND", id=command, command=command, session_id=asked, args=args)
            answers[asked, command] = (error["code"], error["message"], error.get("details"))
            assert answers[asked, command] == answers[session_id, command]
            assert error["code"] == "SESSION_NOT_FOUND"
    api.command(session_id, "switch")
    assert theirs.silent()
    theirs.send(type="COMMAND", id=1, command="create", args=CHESS, session_id=session_id)
    assert theirs.next("STATE_UPDATE")["state"]["status"] == "pending"
    assert api.state(session_id)["status"] == "running"


def test_connections_that_have_sent_no_token_count(make_cluster: MakeCluster, open_websocket: OpenWebSocket) -> None:
    strict = make_cluster(
        web=1, worker=False, AUTH="required", AUTH_SECRETS=SECRET, WS_MAX_CONNECTIONS_PER_ADDRESS="2",
        WS_MAX_CONNECTIONS_PER_SESSION="1",
    )  # fmt: skip
    url = strict.urls[0]
    session_id = RestClient(url, bearer()).create()
    one, two = open_websocket(url, session_id), open_websocket(url, session_id)
    assert refused(url)[0] == 429
    for each in (one, two):
        each.next()
    one.send(type="AUTH", token=token())
    one.next("STATE_SYNC")
    assert two.ask(type="AUTH", token=token())["type"] == "AUTHENTICATED"
    assert two.next()["code"] == "TOO_MANY_CONNECTIONS"
    one.connection.close()
    wait_until(lambda: metric_value(url, "syncapp_ws_subscriptions", bearer()) == 0)
    assert two.ask(type="SUBSCRIBE", session_id=session_id)["type"] == "SUBSCRIBED"


def test_with_auth_off_a_token_is_refused_and_nothing_else_changes(
    one_web: Cluster, open_websocket: OpenWebSocket
) -> None:
    api = RestClient(one_web.urls[0])
    one = open_websocket(api.url, api.create())
    one.next("STATE_SYNC")
    error = one.ask(type="AUTH", id=1, token="x")
    assert (error["code"], error["details"][0]["code"]) == ("VALIDATION_ERROR", "not_needed")
    one.send(type="COMMAND", id=2, command="start")
    assert one.next("ACK")["version"] == 2


# Without a server.


@pytest.fixture
def gate() -> Gate:
    settings = Settings(auth="required", auth_secrets=SECRET, auth_leeway_s=0)
    revocations = Revocations(NothingRevoked())
    return Gate(Authenticator(settings, revocations.is_revoked), revocations, 0)


def access_of(gate: Gate, text: str = "") -> TokenAccess:
    access = TokenAccess(gate, WatchRequest("", (0, 0), patches=False))
    if text:
        access.authenticate(text)
    return access


def test_a_connection_without_a_token_ends_when_its_time_is_up(gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authentication, "AUTH_WITHIN_S", 0.01)
    access = access_of(gate)
    wait_until(lambda: access.end_reason() == "authentication is required")
    with pytest.raises(Unauthorized):
        access.check("watch", "")


def test_a_revoked_token_ends_the_access_at_once_and_admits_no_command(gate: Gate) -> None:
    access = access_of(gate, token(jti="j1"))
    ended: list[bool] = []
    access.begin(lambda: ended.append(True))
    gate.revocations.add("j2", time.time() + 60)
    assert not ended
    gate.revocations.add("j1", time.time() + 60)
    assert ended
    assert access.end_reason() == "the link was revoked"
    with pytest.raises(Unauthorized):
        access.check("switch", "s")


def test_a_token_revoked_before_the_connection_begins_ends_it(gate: Gate) -> None:
    access = access_of(gate, token(jti="j1"))
    gate.revocations.add("j1", time.time() + 60)
    access.begin(lambda: None)
    assert access.end_reason() == "the link was revoked"


def test_a_renewal_listens_to_its_own_token_only(gate: Gate) -> None:
    access = access_of(gate, token(jti="j1"))
    access.begin(lambda: None)
    access.authenticate(token(jti="j2"))
    gate.revocations.add("j1", time.time() + 60)
    assert access.end_reason() is None
    gate.revocations.add("j2", time.time() + 60)
    assert access.end_reason()
    access.end()
    assert not gate.revocations._listeners


def test_without_authentication_all_connections_share_one_access() -> None:
    open_gate = Gate(Authenticator(Settings()), Revocations(NothingRevoked()), 0)
    with Flask("x").test_request_context("/ws?token=x&token=y"):
        first, second = (open_gate.access(WatchRequest("", (0, 0), patches=False)) for _ in range(2))
    assert first is second
    assert first.principal is ANYONE


def test_commands_keep_the_rights_of_the_token_under_which_they_came(
    api: RestClient, open_websocket: OpenWebSocket
) -> None:
    session_id = api.create()
    client = open_websocket(api.url, session_id, token=token(scope="session:watch"))
    client.next("STATE_SYNC")
    for number in range(30):
        client.send(type="COMMAND", id=number, command="start")
    client.send(type="AUTH", token=token(scope="session:control"))
    refusals = [client.next("ERROR") for _ in range(30)]
    assert {each["code"] for each in refusals} == {"FORBIDDEN"}
    assert api.state(session_id)["status"] == "pending"
    client.send(type="COMMAND", id=30, command="start")
    assert client.next("ACK")["id"] == 30


def test_a_connection_without_a_token_leaves_no_line_in_the_log(
    guarded: Cluster, open_websocket: OpenWebSocket
) -> None:
    def opened() -> int:
        return sum("websocket opened" in line for line in guarded.web[0].output().splitlines())

    before = opened()
    for _ in range(5):
        open_websocket(guarded.urls[0]).connection.close()
    client = open_websocket(guarded.urls[0])
    client.send(type="AUTH", token=token(scope="session:watch"))
    client.next("AUTHENTICATED")
    wait_until(lambda: opened() > before)
    assert opened() == before + 1

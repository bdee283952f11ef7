"""Every route, with every kind of token: what is allowed, and what is refused and changes nothing."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest
import redis as redis_py
from flask import Flask
from flask.testing import FlaskClient

from syncapp import create_app
from syncapp.access.permissions import ACTIONS, FIELD_SCOPES
from syncapp.api.route_actions import EACH_COMMAND, OPEN, OPEN_IN_PART, ROUTE_ACTIONS, permissions_table
from syncapp.domain.link_ids import new_link_id
from syncapp.domain.principal import RESERVED_SCOPES, SCOPES
from syncapp.store.sessions import SessionStore
from tests.support.paths import ROOT
from tests.support.permissions import (
    ACTIVE,
    CALLS,
    OF_COMMANDS,
    OTHER_SESSION,
    REQUIRED,
    WAITING,
    Call,
    Cell,
    cells,
    dump_all,
)
from tests.support.rest import CHESS, expect_error
from tests.support.store import NOON_MS, PARTIALS, ManualClock, chess_request, make_settings
from tests.support.tokens import bearer, token


@pytest.fixture
def app(redis_url: str, database_url: str, clock: ManualClock) -> Flask:
    return create_app(make_settings(redis_url, database_url=database_url, **REQUIRED), partials=PARTIALS)


def prepare(store: SessionStore, status: str) -> str:
    """Return a new session in a status."""
    if status == "missing":
        return str(uuid.uuid4())
    session_id = store.create(chess_request(takeback_cycles=1)).found.session_id
    if status != "pending":
        store.start(session_id)
    if status == "paused":
        store.pause(session_id)
    elif status == "switched":  # white has moved, and black, so it is white's turn again
        store.switch(session_id)
        store.switch(session_id)
    elif status == "completed":
        store.complete(session_id)
    return session_id


def send(client: FlaskClient, call: Call, session_id: str, headers: dict[str, str]) -> tuple[int, Any]:
    """Return the status and the error of an answer; a stream is not read."""
    body = call.body
    if call.status == "missing":
        body = (body or {}) | {"session_id": session_id}
    with client.open(call.path.format(id=session_id), method=call.method, json=body, headers=headers) as answer:
        return answer.status_code, answer.get_json()["error"] if answer.status_code >= 400 else None


def test_every_route_has_an_action_or_is_open(app: Flask) -> None:
    endpoints = {rule.endpoint for rule in app.url_map.iter_rules()}
    assert endpoints <= set(ROUTE_ACTIONS) | OPEN | OPEN_IN_PART
    assert set(ROUTE_ACTIONS) <= endpoints
    assert set(CALLS) | {"batches.batch"} == set(ROUTE_ACTIONS)
    assert set(ROUTE_ACTIONS.values()) - {EACH_COMMAND} <= set(ACTIONS)


@pytest.mark.parametrize("endpoint", CALLS)
def test_a_route_is_allowed_with_its_scope_and_otherwise_refused_and_changes_nothing(
    client: FlaskClient, store: SessionStore, redis: redis_py.Redis, endpoint: str
) -> None:
    call, action = CALLS[endpoint], ROUTE_ACTIONS[endpoint]
    kept = prepare(store, call.status)
    before = dump_all(redis)
    for cell in cells():
        refusal = cell.refusal(action)
        if refusal is None:
            continue
        status, error = send(client, call, kept, cell.header(kept))
        assert (status, error["code"], error["details"]) == (403, "FORBIDDEN", refusal), cell
        assert refusal.get("missing_scope", "") in error["message"]
    assert dump_all(redis) == before
    for cell in cells():
        if cell.refusal(action) is None:
            session_id = prepare(store, call.status)
            status, error = send(client, call, session_id, cell.header(session_id))
            out_of_turn = action == "switch" and cell.participant == WAITING
            assert status in ((409,) if out_of_turn else call.answer), (cell, error)


@pytest.mark.parametrize("command", OF_COMMANDS)
def test_a_batch_checks_each_session_by_itself(
    client: FlaskClient, store: SessionStore, redis: redis_py.Redis, command: str
) -> None:
    call = OF_COMMANDS[command]
    kept, second = prepare(store, call.status), prepare(store, call.status)
    before = dump_all(redis)
    for cell in cells():
        if cell.session == "this":
            continue
        body = {"command": command, "session_ids": [kept, second], "args": call.body}
        if refusal := cell.refusal(command):
            answer = client.post("/v1/sessions/batch", json=body, headers=cell.header(kept))
            assert answer.status_code == 200
            for item in answer.get_json()["data"]["results"]:
                assert (item["status"], item["error"]["details"]) == (403, refusal), cell
    assert dump_all(redis) == before
    mixed = Cell("admin", "this", ACTIVE).header(kept)
    body = {"command": command, "session_ids": [second, kept], "args": call.body}
    first, last = client.post("/v1/sessions/batch", json=body, headers=mixed).get_json()["data"]["results"]
    assert (first["status"], first["error"]["details"]) == (403, {"reason": "session_id"})
    assert last["status"] in call.answer


@pytest.mark.parametrize("endpoint", CALLS)
def test_a_link_does_only_what_links_may(
    client: FlaskClient, store: SessionStore, redis: redis_py.Redis, endpoint: str
) -> None:
    call, action = CALLS[endpoint], ROUTE_ACTIONS[endpoint]
    session_id = prepare(store, call.status)
    before = dump_all(redis)
    link = Cell("admin", "this", None, is_link=True)
    epoch = 0 if call.status == "missing" else store.get(session_id).found.epoch
    status, error = send(client, call, session_id, link.header(session_id, jti=new_link_id(epoch)))
    if refusal := link.refusal(action):
        assert (status, error["details"]) == (403, refusal)
        assert dump_all(redis) == before
    else:
        assert status in call.answer


def test_a_batch_acts_as_the_participant_of_the_token(client: FlaskClient, store: SessionStore) -> None:
    session_id = prepare(store, "running")
    body: dict[str, Any] = {"command": "switch", "session_ids": [session_id]}
    for participant, args, status in (
        (WAITING, {}, 409),
        (WAITING, {"participant_id": ACTIVE}, 403),
        (ACTIVE, {"next_participant_id": WAITING}, 403),
        (ACTIVE, {}, 200),
    ):
        headers = Cell("session:act", "all", participant).header(session_id)
        answer = client.post("/v1/sessions/batch", json=body | {"args": args}, headers=headers)
        assert answer.get_json()["data"]["results"][0]["status"] == status


@pytest.mark.parametrize(
    ("command", "cell", "body", "details"),
    [
        ("switch", Cell("session:act", "this", ACTIVE), {"participant_id": WAITING}, {"reason": "participant_id"}),
        ("switch", Cell("session:control", "this", ACTIVE), {"participant_id": WAITING}, {"reason": "participant_id"}),
        (
            "switch",
            Cell("session:act", "this", ACTIVE),
            {"next_participant_id": ACTIVE},
            {"missing_scope": "session:control"},
        ),
        ("start", Cell("session:control", "this", ACTIVE), {"participant_id": WAITING}, {"reason": "participant_id"}),
        (
            "adjust",
            Cell("session:control", "this", ACTIVE),
            {"op": "add", "ms": 1000, "participant_id": WAITING},
            {"reason": "participant_id"},
        ),
        *(
            (
                "adjust",
                Cell("session:control", "this", ACTIVE),
                {"op": "add", "ms": 1000, "targets": targets},
                {"reason": "participant_id"},
            )
            for targets in ([WAITING], [ACTIVE, WAITING], "all")
        ),
        ("switch", Cell("session:act", "this", ACTIVE), {"acted_at_ms": 1}, {"missing_scope": "session:time"}),
        ("switch", Cell("session:control", "this", None), {"acted_at_ms": 1}, {"missing_scope": "session:time"}),
    ],
)
def test_a_token_for_one_participant_acts_as_no_other(
    client: FlaskClient,
    store: SessionStore,
    redis: redis_py.Redis,
    command: str,
    cell: Cell,
    body: dict[str, Any],
    details: dict[str, str],
) -> None:
    session_id = prepare(store, OF_COMMANDS[command].status)
    before = dump_all(redis)
    answer = client.post(f"/v1/sessions/{session_id}/{command}", json=body, headers=cell.header(session_id))
    assert expect_error(answer, 403, "FORBIDDEN")["details"] == details
    assert dump_all(redis) == before


def test_a_participant_with_control_may_say_who_is_next(client: FlaskClient, store: SessionStore) -> None:
    session_id = prepare(store, "running")
    headers = Cell("session:control", "this", ACTIVE).header(session_id)
    answer = client.post(f"/v1/sessions/{session_id}/switch", json={"next_participant_id": WAITING}, headers=headers)
    assert answer.get_json()["data"]["active_participant_id"] == WAITING


def test_a_participant_with_control_may_adjust_its_own_budget_as_a_target(
    client: FlaskClient, store: SessionStore
) -> None:
    session_id = prepare(store, "running")
    headers = Cell("session:control", "this", ACTIVE).header(session_id)
    body = {"op": "set", "ms": 1000, "targets": [ACTIVE]}
    answer = client.post(f"/v1/sessions/{session_id}/adjust", json=body, headers=headers)
    assert [each["time_remaining_ms"] for each in answer.get_json()["data"]["participants"]] == [1000, 300_000]


def test_the_time_of_an_act_may_be_stated_with_its_scope(client: FlaskClient, store: SessionStore) -> None:
    session_id = prepare(store, "running")
    headers = bearer(scope="session:act session:time", session_id=session_id, participant_id=ACTIVE)
    answer = client.post(f"/v1/sessions/{session_id}/switch", json={"acted_at_ms": NOON_MS}, headers=headers)
    assert answer.get_json()["data"]["active_participant_id"] == WAITING


def test_a_token_for_one_session_creates_this_one_only(client: FlaskClient, redis: redis_py.Redis) -> None:
    own = str(uuid.uuid4())
    headers = bearer(scope="session:create", session_id=own)
    before = dump_all(redis)
    nameless = expect_error(client.post("/v1/sessions", json=CHESS, headers=headers), 403, "FORBIDDEN")
    assert "send its id as session_id" in nameless["message"]
    other = client.post("/v1/sessions", json=CHESS | {"session_id": OTHER_SESSION}, headers=headers)
    expect_error(other, 403, "FORBIDDEN")
    assert dump_all(redis) == before
    assert client.post("/v1/sessions", json=CHESS | {"session_id": own.upper()}, headers=headers).status_code == 201


def test_a_refusal_shows_the_state_only_to_who_may_read_it(client: FlaskClient, store: SessionStore) -> None:
    session_id = prepare(store, "running")
    path, body, stale = f"/v1/sessions/{session_id}", CHESS | {"session_id": session_id}, {"If-Match": '"1-1"'}
    for scopes, shown in (
        ("session:create session:delete", False),
        ("session:create session:delete session:watch", True),
    ):
        headers = bearer(scope=scopes)
        exists = expect_error(client.post("/v1/sessions", json=body, headers=headers), 409, "SESSION_EXISTS")
        assert ("current" in exists.get("details", {})) is shown
        failed = expect_error(client.delete(path, headers=headers | stale), 412, "PRECONDITION_FAILED")
        assert ("current" in failed["details"]) is shown
        for version in (1, 99):
            old = client.delete(path, json={"expected_version": version}, headers=headers)
            assert ("current" in expect_error(old, 409, "CONFLICT")["details"]) is shown


def test_who_may_not_do_it_learns_nothing_of_the_body(client: FlaskClient, store: SessionStore) -> None:
    session_id = prepare(store, "running")
    for endpoint, call in CALLS.items():
        path, body = call.path.format(id=session_id), '{"not": "valid"'
        options: dict[str, Any] = {"method": call.method, "data": body, "content_type": "application/json"}
        expect_error(client.open(path, **options), 401, "UNAUTHORIZED")
        for bad in ("/v1/sessions/not-a-uuid/switch", path + "?unknown=1"):
            expect_error(client.open(bad, **options | {"method": call.method}), 401, "UNAUTHORIZED")
        scope = "webhook:manage"
        answer = client.open(path + "?unknown=1", headers=bearer(scope=scope), **options)
        assert expect_error(answer, 403, "FORBIDDEN")["details"].keys() == {"missing_scope"}, endpoint


@pytest.mark.parametrize(
    "bad",
    ["", "x", "a.b.c", token(secret="another secret of 32 bytes or more"), token(exp=1)],
    ids=["empty", "a letter", "three parts", "another secret", "expired"],
)
def test_every_route_refuses_a_bad_token_and_none(
    app: Flask, client: FlaskClient, redis: redis_py.Redis, bad: str
) -> None:
    before = dump_all(redis)
    for rule in app.url_map.iter_rules():
        if rule.endpoint in OPEN | OPEN_IN_PART:
            continue
        path = re.sub(r"<\w+>", OTHER_SESSION, rule.rule)
        for method in sorted((rule.methods or set()) - {"OPTIONS"}):
            answer = client.open(path, method=method)
            assert answer.status_code == 401
            assert answer.headers["WWW-Authenticate"] == 'Bearer realm="SyncApp"'
            answer = client.open(path, method=method, headers={"Authorization": f"Bearer {bad}"})
            assert answer.status_code == 401, (method, path)
            assert answer.headers["WWW-Authenticate"].startswith('Bearer realm="SyncApp", error="invalid_token"')
    assert dump_all(redis) == before


def test_scopes_that_no_action_needs_are_called_reserved() -> None:
    needed = {action.scope for action in ACTIONS.values()} | set(FIELD_SCOPES.values())
    assert set(RESERVED_SCOPES) == SCOPES.keys() - needed
    rows = dict(re.findall(r"^\| `([a-z]+(?::[a-z]+)?)` \| (.*) \|$", security_page(), re.MULTILINE))
    assert SCOPES.keys() <= rows.keys()
    words = "reserved for later; allows nothing yet"
    assert {scope for scope, text in SCOPES.items() if words in text.lower()} == set(RESERVED_SCOPES)
    assert {name for name, text in rows.items() if words in text} == set(RESERVED_SCOPES)


def security_page() -> str:
    return (ROOT / "docs/security.md").read_text()


def test_the_security_page_has_the_table(app: Flask) -> None:
    table = security_page().split("<!-- permissions -->\n")[1].split("\n<!-- /permissions -->")[0]
    assert table.strip() == permissions_table(app)

"""Another tenant's session is answered exactly as one that does not exist, over every route."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest
import redis as redis_py
from flask import Flask
from flask.testing import FlaskClient

from syncapp import create_app
from syncapp.api.route_actions import ROUTE_ACTIONS
from tests.support.permissions import CALLS, OF_COMMANDS, REQUIRED, dump_all
from tests.support.rest import CHESS
from tests.support.store import PARTIALS, ManualClock, make_settings
from tests.support.tokens import bearer

TENANTS = [("default", "acme"), ("acme", "default"), ("acme", "globex")]
OF_SESSIONS = [endpoint for endpoint, call in CALLS.items() if "{id}" in call.path]
VARYING = ("X-Request-Id", "Content-Length")
both_ways = pytest.mark.parametrize(("own", "other"), TENANTS)


@pytest.fixture
def app(redis_url: str, database_url: str, clock: ManualClock) -> Flask:
    return create_app(make_settings(redis_url, database_url=database_url, **REQUIRED), partials=PARTIALS)


def create(client: FlaskClient, tenant: str, **more: Any) -> str:
    """Return the id of a new session, which runs."""
    made = client.post("/v1/sessions", json=CHESS | more, headers=bearer(tenant=tenant))
    assert made.status_code == 201, made.text
    assert client.post(f"{made.headers['Location']}/start", headers=bearer(tenant=tenant)).status_code == 200
    session_id: str = made.get_json()["data"]["session_id"]
    return session_id


def begin(stream: Any) -> str:
    """Return the beginning of a stream, up to its first message, without numbers and ids that always differ."""
    pieces = [next(stream), next(stream)]
    text = "".join(each.decode() if isinstance(each, bytes) else each for each in pieces)
    return re.sub(r'(retry: |_ms":|timestamp":|connectionId":)("[^"]*"|[0-9]+)', r"\1N", text)


def answer(client: FlaskClient, endpoint: str, session_id: str, tenant: str, **more: Any) -> tuple[Any, ...]:
    """Return all that a caller sees of an answer, without ids; of a stream, its first piece."""
    call = CALLS[endpoint]
    path, headers = call.path.format(id=session_id), bearer(tenant=tenant) | more
    with client.open(path, method=call.method, json=call.body, headers=headers) as found:
        body = begin(found.response) if endpoint == "streams.stream" else found.data
        shown = sorted((name, value) for name, value in found.headers if name not in VARYING)
        text = body.decode() if isinstance(body, bytes) else body
        # A session's own bucket is full in both cases, but the principal's is not.
        shown = [(name, re.sub(r"\br=\d+;t=\d+", "", value)) for name, value in shown]
        return found.status_code, shown, text.replace(session_id, "ID")


def test_every_route_of_a_session_is_compared() -> None:
    assert set(OF_SESSIONS) >= {
        endpoint for endpoint in ROUTE_ACTIONS if endpoint.startswith(("sessions.", "history."))
    } - {
        "sessions.create",
        "history.sessions",
    }


@both_ways
@pytest.mark.parametrize("endpoint", OF_SESSIONS)
def test_another_tenants_session_is_answered_as_a_missing_one(
    client: FlaskClient, redis: redis_py.Redis, endpoint: str, own: str, other: str
) -> None:
    session_id = create(client, other)
    before = dump_all(redis)
    for headers in ({}, {"Idempotency-Key": str(uuid.uuid4())}, {"If-Match": '"1-1"'}, {"Prefer": "return=minimal"}):
        theirs = answer(client, endpoint, session_id, own, **headers)
        missing = answer(client, endpoint, str(uuid.uuid4()), own, **headers)
        assert theirs == missing
        assert theirs[0] in (404, 204, 503) or endpoint == "streams.stream" or "Idempotency-Key" in headers
    left = {key: value for key, value in dump_all(redis).items() if key in before}
    assert left == before


@both_ways
@pytest.mark.parametrize("command", OF_COMMANDS)
def test_a_batch_answers_for_another_tenants_session_as_for_a_missing_one(
    client: FlaskClient, redis: redis_py.Redis, command: str, own: str, other: str
) -> None:
    theirs, missing = create(client, other), str(uuid.uuid4())
    before = dump_all(redis)
    body = {"command": command, "session_ids": [theirs, missing], "args": OF_COMMANDS[command].body}
    found = client.post("/v1/sessions/batch", json=body, headers=bearer(tenant=own)).get_json()["data"]["results"]
    first, second = ({name: value for name, value in item.items() if name != "session_id"} for item in found)
    assert first == second
    assert dump_all(redis) == before


@both_ways
def test_one_id_is_another_session_in_each_tenant(client: FlaskClient, own: str, other: str) -> None:
    session_id = create(client, other, metadata={"of": "theirs"})
    made = client.post(
        "/v1/sessions", json=CHESS | {"session_id": session_id, "metadata": {"of": "ours"}}, headers=bearer(tenant=own)
    )
    assert (made.status_code, made.headers["Location"]) == (201, f"/v1/sessions/{session_id}")
    for tenant, metadata in ((own, "ours"), (other, "theirs")):
        state = client.get(f"/v1/sessions/{session_id}", headers=bearer(tenant=tenant)).get_json()["data"]
        assert (state["session_id"], state["metadata"]) == (session_id, {"of": metadata})
    assert client.delete(f"/v1/sessions/{session_id}", headers=bearer(tenant=own)).status_code == 204
    assert client.get(f"/v1/sessions/{session_id}", headers=bearer(tenant=other)).status_code == 200


@both_ways
def test_a_key_and_the_id_that_is_made_of_it_belong_to_tenant_and_caller(
    client: FlaskClient, own: str, other: str
) -> None:
    key = {"Idempotency-Key": str(uuid.uuid4())}
    callers = [bearer("ada", tenant=own), bearer("ada", tenant=other), bearer("bob", tenant=own)]
    made = [client.post("/v1/sessions", json=CHESS, headers=key | each) for each in callers]
    assert [each.status_code for each in made] == [201, 201, 201]
    assert not any("Idempotency-Replayed" in each.headers for each in made)
    assert len({each.get_json()["data"]["session_id"] for each in made}) == 3
    again = client.post("/v1/sessions", json=CHESS, headers=key | callers[0])
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.headers["Location"] == made[0].headers["Location"]


@both_ways
def test_a_list_has_the_sessions_of_its_tenant_only(client: FlaskClient, own: str, other: str) -> None:
    ours, _ = create(client, own), create(client, other)
    listed = client.get("/v1/sessions", headers=bearer(tenant=own)).get_json()["data"]["sessions"]
    assert [each["session_id"] for each in listed] == [ours]


@both_ways
def test_no_answer_shows_a_qualified_id(client: FlaskClient, own: str, other: str) -> None:
    session_id = create(client, own)
    path, caller = f"/v1/sessions/{session_id}", bearer(tenant=own)
    minimal = client.post(f"{path}/switch", headers=caller | {"Prefer": "return=minimal"})
    assert minimal.get_json()["data"]["session_id"] == session_id
    stale = client.post(f"{path}/switch", json={"expected_version": 1}, headers=caller)
    wrong = client.post(f"{path}/start", headers=caller)
    exists = client.post("/v1/sessions", json=CHESS | {"session_id": session_id}, headers=caller)
    refused = client.post(f"{path}/switch", json={"participant_id": "nobody"}, headers=caller)
    for found in (minimal, stale, wrong, exists, refused, client.get(path, headers=caller)):
        assert f"{own}/" not in found.text
    assert [each.status_code for each in (stale, wrong, exists, refused)] == [409, 400, 409, 400]

"""What a token without a scope must not reach by other ways, and input that must not end in an error of the server."""

from __future__ import annotations

import uuid

import pytest
from flask import Flask
from flask.testing import FlaskClient

from syncapp import create_app
from tests.support.permissions import REQUIRED
from tests.support.rest import CHESS, expect_faults
from tests.support.store import PARTIALS, ManualClock, make_settings
from tests.support.tokens import bearer

ADMIN = bearer(scope="admin")


@pytest.fixture
def app(redis_url: str, database_url: str, clock: ManualClock) -> Flask:
    return create_app(make_settings(redis_url, database_url=database_url, **REQUIRED), partials=PARTIALS)


def test_a_replayed_create_shows_what_it_created_and_nothing_later_without_the_scope_to_watch(
    client: FlaskClient,
) -> None:
    creator = bearer("creator", scope="session:create") | {"Idempotency-Key": str(uuid.uuid4())}
    first = client.post("/v1/sessions", json=CHESS, headers=creator)
    assert first.status_code == 201
    path = first.headers["Location"]
    assert client.get(path, headers=creator).status_code == 403
    assert client.patch(path, json={"metadata": {"note": "SECRET"}}, headers=ADMIN).status_code == 200
    replay = client.post("/v1/sessions", json=CHESS, headers=creator)
    assert (replay.status_code, replay.headers["Idempotency-Replayed"]) == (201, "true")
    assert "SECRET" not in replay.text
    assert replay.get_json()["data"]["version"] == 1
    assert replay.headers["ETag"] == first.headers["ETag"]


@pytest.mark.parametrize("path", ["/v1/history", f"/v1/sessions/{uuid.UUID(int=5)}/events"])
def test_a_principal_with_nul_is_refused_by_name(client: FlaskClient, path: str) -> None:
    assert "principal" in expect_faults(client.get(f"{path}?principal=%00", headers=ADMIN))


def test_an_erase_is_asked_for_once(client: FlaskClient) -> None:
    created = client.post("/v1/sessions", json=CHESS, headers=ADMIN).headers["Location"]
    assert "erase" in expect_faults(client.delete(f"{created}?erase=true&erase=false", headers=ADMIN))
    assert client.get(created, headers=ADMIN).status_code == 200

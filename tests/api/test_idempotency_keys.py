"""Idempotency keys over REST."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from syncapp.api.reference.schemas import StateAnswer
from tests.support.rest import CHESS, UNKNOWN, expect_error, expect_faults
from tests.support.store import NOON_MS, ManualClock

pytestmark = pytest.mark.usefixtures("both_ways")


def test_a_retry_with_its_key_is_a_replay_and_another_command_a_mismatch(
    client: FlaskClient, clock: ManualClock, url: str
) -> None:
    headers = {"Idempotency-Key": "move-17"}
    first = client.post(f"{url}/switch", headers=headers)
    clock.advance_ms(100)
    again = client.post(f"{url}/switch", headers=headers)
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.get_json()["data"]["server_time_ms"] == clock.now_ms
    assert again.headers["ETag"] == first.headers["ETag"]
    assert client.get(url).get_json() == again.get_json()
    expect_error(client.post(f"{url}/pause", headers=headers), 422, "IDEMPOTENCY_MISMATCH")


def test_a_replay_for_a_session_that_is_gone_is_a_404_that_says_so(client: FlaskClient, url: str) -> None:
    headers = {"Idempotency-Key": "move-17"}
    client.post(f"{url}/switch", headers=headers)
    deleted = [client.delete(url, headers={"Idempotency-Key": "over"}) for _ in range(2)]
    assert [answer.status_code for answer in deleted] == [204, 204]
    assert ["Idempotency-Replayed" in answer.headers for answer in deleted] == [False, True]
    gone = expect_error(client.post(f"{url}/switch", headers=headers), 404, "SESSION_NOT_FOUND")
    assert "took effect" in gone["message"]
    assert gone["details"] == {"replayed": True}


def test_a_replay_has_the_first_event_and_patch_if_they_were_kept_and_else_the_state(
    client: FlaskClient, url: str
) -> None:
    def post(key: str, **body: Any) -> TestResponse:
        headers = {"Idempotency-Key": key, "Prefer": "return=minimal"}
        return client.post(f"{url}/adjust", json={"op": "add", "ms": 1} | body, headers=headers)

    first = post("short")
    long = post("long", reason="é" * 400)
    again = post("short")
    assert (again.get_json(), again.headers["ETag"]) == (first.get_json(), first.headers["ETag"])
    assert again.headers["Preference-Applied"] == "return=minimal"
    assert set(long.get_json()["data"]) == {"session_id", "epoch", "version", "event", "patch"}
    whole = post("long", reason="é" * 400)
    assert whole.headers["Idempotency-Replayed"] == "true"
    assert "Preference-Applied" not in whole.headers
    StateAnswer.model_validate_json(whole.data)
    assert whole.headers["ETag"] == f'"{NOON_MS}-4"'


@pytest.mark.parametrize("key", ["", "with space", "x" * 129, "é"])
def test_an_idempotency_key_that_is_none_is_refused(client: FlaskClient, url: str, key: str) -> None:
    assert expect_faults(client.post(f"{url}/switch", headers={"Idempotency-Key": key})) == {
        "Idempotency-Key": "idempotency_key"
    }


def test_a_create_with_a_key_is_made_once(client: FlaskClient) -> None:
    headers = {"Idempotency-Key": str(uuid.uuid4())}
    answers = [client.post("/v1/sessions", json=CHESS, headers=headers) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 201]
    assert answers[0].get_json() == answers[1].get_json()


def test_a_create_with_a_key_that_others_may_use_too_needs_an_id(client: FlaskClient) -> None:
    headers = {"Idempotency-Key": "1"}
    refused = client.post("/v1/sessions", json=CHESS, headers=headers)
    assert expect_faults(refused) == {"Idempotency-Key": "random_uuid"}
    assert client.post("/v1/sessions", json=CHESS | {"session_id": UNKNOWN}, headers=headers).status_code == 201

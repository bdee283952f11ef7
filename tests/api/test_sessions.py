"""Sessions over REST: creating, reading and commanding them."""

from __future__ import annotations

import uuid

import pytest
import redis as redis_py
from flask.testing import FlaskClient

from syncapp.api.reference.schemas import StateAnswer
from syncapp.api.reference.system_schemas import TimeAnswer
from tests.support.rest import CHESS, MODES, expect_error, expect_faults
from tests.support.store import NOON_MS, ManualClock

pytestmark = pytest.mark.usefixtures("both_ways")


def test_a_created_session_is_at_its_location(client: FlaskClient) -> None:
    made = client.post("/v1/sessions", json=CHESS)
    assert made.status_code == 201
    assert made.headers["ETag"] == f'"{NOON_MS}-1"'
    StateAnswer.model_validate_json(made.data)
    read = client.get(made.headers["Location"])
    StateAnswer.model_validate_json(read.data)
    assert read.get_json() == made.get_json()


def test_a_session_id_of_ones_own_is_taken_in_lower_case(client: FlaskClient) -> None:
    own = str(uuid.uuid4()).upper()
    made = client.post("/v1/sessions", json=CHESS | {"session_id": own})
    assert made.get_json()["data"]["session_id"] == own.lower()
    assert client.get(f"/v1/sessions/{own}").status_code == 200
    current = expect_error(client.post("/v1/sessions", json=CHESS | {"session_id": own}), 409, "SESSION_EXISTS")[
        "details"
    ]["current"]
    assert current["session_id"] == own.lower()


@pytest.mark.parametrize("command", ["switch", "pause", "complete", "cancel"])
def test_every_command_answers_with_a_state_that_fits_the_document(
    client: FlaskClient, clock: ManualClock, url: str, command: str
) -> None:
    clock.advance_ms(1000)
    answer = client.post(f"{url}/{command}")
    assert answer.status_code == 200
    StateAnswer.model_validate_json(answer.data)
    assert answer.headers["ETag"] == f'"{NOON_MS}-3"'


def test_a_game_from_start_to_finish(client: FlaskClient, clock: ManualClock, url: str) -> None:
    clock.advance_ms(5000)
    assert (
        client.post(f"{url}/switch", json={"participant_id": "white"}).get_json()["data"]["active_participant_id"]
        == "black"
    )
    assert client.post(f"{url}/pause").get_json()["data"]["status"] == "paused"
    assert client.post(f"{url}/resume").get_json()["data"]["status"] == "running"
    assert client.patch(url, json={"metadata": {"round": 2}}).get_json()["data"]["metadata"] == {"round": 2}
    assert client.post(f"{url}/complete").get_json()["data"]["status"] == "completed"
    deleted = client.delete(url)
    assert (deleted.status_code, deleted.data) == (204, b"")
    expect_error(client.get(url), 404, "SESSION_NOT_FOUND")
    assert client.delete(url).status_code == 204


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_answers_with_a_state_that_fits_the_document(
    client: FlaskClient, clock: ManualClock, mode: str
) -> None:
    made = client.post("/v1/sessions", json=MODES[mode])
    assert made.status_code == 201, made.text
    url = made.headers["Location"]
    for path in ("start", "switch", "pause", "resume", "adjust", "complete"):
        clock.advance_ms(1000)
        body = {"op": "add", "ms": 5000} if path == "adjust" else None
        answer = client.post(f"{url}/{path}", json=body)
        assert answer.status_code == 200, answer.text
        StateAnswer.model_validate_json(answer.data)
    state = answer.get_json()["data"]
    assert state["sync_mode"] == mode
    assert state["cycle_count"] == 1
    assert state.get("warn_at_ms") == ([60_000, 1000] if mode == "count_up" else None)


def test_limits_themselves_are_allowed(client: FlaskClient) -> None:
    people = [{"participant_id": "x" * 60 + str(i).zfill(4), "total_time_ms": 86_400_000} for i in range(1000)]
    body = CHESS | {
        "participants": people,
        "increment_ms": 60_000,
        "metadata": {"a": "x" * 16_376},
        "total_time_ms": 86_400_000_000,
    }
    made = client.post("/v1/sessions", json=body)
    assert made.status_code == 201
    assert len(made.get_json()["data"]["participants"]) == 1000
    assert client.post(f"{made.headers['Location']}/start").status_code == 200


def test_metadata_survives_as_it_was_sent(client: FlaskClient) -> None:
    metadata = {
        "empty": [],
        "object": {},
        "float": 1e14,
        "big": 9007199254740993,
        "text": 'é☃"\\/\n',
        "null": None,
        "deep": [[[[]]]],
    }
    made = client.post("/v1/sessions", json=CHESS | {"metadata": metadata})
    assert made.get_json()["data"]["metadata"] == metadata
    assert client.get(made.headers["Location"]).get_json()["data"]["metadata"] == metadata


def test_further_keys_of_the_timeout_action_are_echoed_in_its_event(
    client: FlaskClient, clock: ManualClock, redis: redis_py.Redis
) -> None:
    action = {"type": "end_session", "action": "fold", "penalty": [1, {}]}
    url = client.post("/v1/sessions", json=CHESS | {"action_on_timeout": action}).headers["Location"]
    client.post(f"{url}/start")
    clock.advance_ms(300_000)
    refused = expect_error(client.post(f"{url}/switch"), 400, "INVALID_STATE_TRANSITION")
    assert refused["message"] == "cannot switch a session that is expired"
    assert refused["details"]["expired_participant_id"] == "white"
    assert client.get(url).get_json()["data"]["action_on_timeout"] == action


def test_only_a_command_tells_whom_it_found_out_of_time(client: FlaskClient, clock: ManualClock) -> None:
    body = CHESS | {"action_on_timeout": {"type": "skip_cycle"}}
    url = f"/v1/sessions/{client.post('/v1/sessions', json=body).get_json()['data']['session_id']}"
    client.post(f"{url}/start")
    clock.advance_ms(300_000)
    assert "expired_participant_id" not in client.get(url).get_json()["data"]


def test_unknown_participants_are_named_by_field(client: FlaskClient, url: str) -> None:
    assert expect_faults(client.post(f"{url}/switch", json={"participant_id": "x"})) == {
        "participant_id": "unknown_participant"
    }
    assert expect_faults(client.post(f"{url}/switch", json={"next_participant_id": "x"})) == {
        "next_participant_id": "unknown_participant"
    }
    assert (
        expect_error(client.post(f"{url}/switch", json={"participant_id": "black"}), 409, "NOT_ACTIVE_PARTICIPANT")[
            "details"
        ]["active_participant_id"]
        == "white"
    )


def test_the_servers_clock_is_the_sessions_clock(client: FlaskClient, redis: redis_py.Redis) -> None:
    answer = client.get("/v1/time")
    TimeAnswer.model_validate_json(answer.data)
    data = answer.get_json()
    assert abs(data["timestamp_ms"] - redis.time()[0] * 1000) < 5000
    assert data["drift_tolerance_ms"] == 50

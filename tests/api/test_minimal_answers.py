"""Answers that hold the event and the patch only, for clients that prefer them."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from syncapp.api.reference.schemas import CommandAnswer, StateAnswer
from tests.support.store import ManualClock

pytestmark = pytest.mark.usefixtures("both_ways")


def test_who_prefers_it_gets_the_event_and_the_patch_only(client: FlaskClient, clock: ManualClock, url: str) -> None:
    clock.advance_ms(1500)
    answer = client.post(f"{url}/switch", headers={"Prefer": "respond-async, return=minimal"})
    CommandAnswer.model_validate_json(answer.data)
    assert answer.headers["Preference-Applied"] == "return=minimal"
    data = answer.get_json()["data"]
    assert set(data) == {"session_id", "epoch", "version", "event", "patch"}
    assert data["patch"]["updated_at"] == data["patch"]["cycle_started_at"] == "2100-01-01T12:00:01.500Z"
    assert data["patch"]["participants"]["white"]["time_used_ms"] == 1500
    assert data["patch"]["active_participant_id"] == "black"


def test_a_read_is_whole_whatever_is_preferred(client: FlaskClient, url: str) -> None:
    read = client.get(url, headers={"Prefer": "return=minimal"})
    StateAnswer.model_validate_json(read.data)
    assert "Preference-Applied" not in read.headers


def test_an_answer_without_a_body_has_no_content_type(client: FlaskClient, url: str) -> None:
    gone = client.delete(url)
    assert (gone.status_code, gone.data, gone.headers.get("Content-Type")) == (204, b"", None)


def test_a_minimal_answer_has_the_version_of_its_patch_though_the_command_made_more_due(
    client: FlaskClient, clock: ManualClock, url: str
) -> None:
    client.post(f"{url}/adjust", json={"op": "set", "ms": 0, "participant_id": "black"})
    answer = client.post(f"{url}/switch", headers={"Prefer": "return=minimal"})
    data = answer.get_json()["data"]
    assert data["event"]["type"] == "cycle_switched"
    assert data["expired_participant_id"] == "black"
    assert answer.headers["ETag"] == f'"{data["epoch"]}-{data["version"]}"'
    after = client.get(url).get_json()["data"]
    assert (after["status"], after["version"]) == ("expired", data["version"] + 1)


def test_the_patch_of_a_minimal_answer_folds_to_the_state(client: FlaskClient, clock: ManualClock, url: str) -> None:
    state = client.get(url).get_json()["data"]
    for path in ("switch", "pause", "resume", "switch", "complete"):
        clock.advance_ms(70)
        patch = client.post(f"{url}/{path}", headers={"Prefer": "return=minimal"}).get_json()["data"]["patch"]
        people = patch.pop("participants", {})
        state |= patch
        for person in state["participants"]:
            person.update(people.get(person["participant_id"], {}))
        fresh = client.get(url).get_json()["data"]
        for live in ("clock", "server_time_ms"):
            state[live] = fresh[live]
        assert state == fresh

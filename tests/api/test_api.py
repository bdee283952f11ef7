"""REST as clients see it: statuses, codes, headers and documents, against the application itself."""

from __future__ import annotations

import re
import time
import uuid
from typing import Any

import orjson
import pytest
import redis as redis_py
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from syncapp import create_app
from syncapp.api.reference.schemas import CommandAnswer, ErrorAnswer, StateAnswer
from syncapp.api.reference.system_schemas import HealthAnswer, TimeAnswer
from syncapp.token_bucket import TokenBuckets
from tests.support.store import NOON_MS, PARTIALS, SetClock, dump, settings

CHESS: dict[str, Any] = {
    "sync_mode": "per_participant",
    "participants": [{"participant_id": name, "total_time_ms": 300_000} for name in ("white", "black")],
    "increment_ms": 3000,
}
UNKNOWN = str(uuid.UUID(int=0))


@pytest.fixture
def clock(redis: redis_py.Redis) -> SetClock:
    return SetClock(redis)


@pytest.fixture
def app(redis_url: str, database_url: str, clock: SetClock) -> Flask:
    return create_app(settings(redis_url, database_url=database_url), partials=PARTIALS)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def url(client: FlaskClient) -> str:
    """A running session's path."""
    made = client.post("/v1/sessions", json=CHESS)
    client.post(f"{made.headers['Location']}/start")
    return made.headers["Location"]


def error(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    """Check the form of a failure and return its error."""
    assert response.status_code == status
    assert response.content_type == "application/json"
    ErrorAnswer.model_validate_json(response.data)
    found: dict[str, Any] = response.get_json()["error"]
    assert found["code"] == code
    return found


def faults(response: TestResponse) -> dict[str, str]:
    return {item["field"]: item["code"] for item in error(response, 400, "VALIDATION_ERROR")["details"]}


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
    current = error(client.post("/v1/sessions", json=CHESS | {"session_id": own}), 409, "SESSION_EXISTS")["details"][
        "current"
    ]
    assert current["session_id"] == own.lower()


@pytest.mark.parametrize("command", ["switch", "pause", "complete", "cancel"])
def test_every_command_answers_with_a_state_that_fits_the_document(
    client: FlaskClient, clock: SetClock, url: str, command: str
) -> None:
    clock.pass_ms(1000)
    answer = client.post(f"{url}/{command}")
    assert answer.status_code == 200
    StateAnswer.model_validate_json(answer.data)
    assert answer.headers["ETag"] == f'"{NOON_MS}-3"'


def test_a_game_from_start_to_finish(client: FlaskClient, clock: SetClock, url: str) -> None:
    clock.pass_ms(5000)
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
    error(client.get(url), 404, "SESSION_NOT_FOUND")
    assert client.delete(url).status_code == 204


FLOODS: dict[str, dict[str, Any]] = {
    "participants": CHESS | {"participants": [{}] * 300_000},
    "groups": CHESS | {"sync_mode": "per_group", "groups": [{}] * 300_000},
    "warnings": CHESS | {"warn_at_ms": [1] * 400_000},
    "unknown fields": CHESS | {f"k{i}": 1 for i in range(80_000)},
    "one long field": CHESS | {"k" * 900_000: 1},
    "participants of unknown fields": CHESS | {"participants": [{f"k{i}": 1 for i in range(80)}] * 1000},
    "equal participants": CHESS | {"participants": [{"participant_id": "p" * 64}] * 1000},
    "equal long ids": CHESS | {"participants": [{"participant_id": "p" * 400_000}] * 2},
    "metadata": CHESS | {"metadata": {f"k{i}": "\x00" for i in range(50_000)}},
    "action": CHESS | {"action_on_timeout": {f"k{i}": 1 for i in range(80_000)}},
}


@pytest.mark.parametrize("name", FLOODS)
@pytest.mark.parametrize("method", ["POST", "PATCH"])
def test_a_body_of_countless_faults_gets_a_short_answer_soon(
    client: FlaskClient, url: str, method: str, name: str
) -> None:
    target = "/v1/sessions" if method == "POST" else url
    body = orjson.dumps(FLOODS[name])
    assert len(body) < 1_048_576
    began_s = time.thread_time()  # this thread's own work: others may keep it waiting
    answer = client.open(target, method=method, data=body, content_type="application/json")
    assert time.thread_time() - began_s < 2
    found = error(answer, 400, "VALIDATION_ERROR")
    assert 1 <= len(found["details"]) <= 50
    assert len(answer.data) < 20_000


def test_more_than_50_faults_are_not_all_named(client: FlaskClient) -> None:
    body = CHESS | {"participants": [{"participant_id": f"p{i}"} for i in range(60)]}
    found = error(client.post("/v1/sessions", json=body), 400, "VALIDATION_ERROR")
    assert len(found["details"]) == 50
    assert found["message"].startswith("more than 50 faults in the request: participants.0.total_time_ms, ")
    body = CHESS | {"participants": [{"participant_id": f"p{i}"} for i in range(50)]}
    found = error(client.post("/v1/sessions", json=body), 400, "VALIDATION_ERROR")
    assert len(found["details"]) == 50
    assert found["message"].startswith("50 faults in the request: participants.0.total_time_ms, ")


def test_an_unknown_mode_is_not_told_what_belongs_to_another(client: FlaskClient) -> None:
    body = CHESS | {"sync_mode": "blitz", "groups": [], "time_per_cycle_ms": 1000, "max_time_ms": 1000}
    assert faults(client.post("/v1/sessions", json=body)) == {"sync_mode": "literal_error"}


def test_every_fault_is_named_at_once(client: FlaskClient) -> None:
    body = {
        "sync_mode": "per_participant",
        "surprise": 1,
        "total_time_ms": 5,
        "increment_ms": 60_001,
        "idle_timeout_s": "soon",
        "session_id": "not-a-uuid",
        "metadata": [],
        "participants": [
            {"participant_id": "a b", "total_time_ms": 999},
            {"participant_id": "c", "total_time_ms": True, "extra": 1},
            {"participant_id": "c", "total_time_ms": 86_400_001},
            "d",
        ],
    }
    assert faults(client.post("/v1/sessions", json=body)) == {
        "surprise": "extra_forbidden",
        "total_time_ms": "greater_than_equal",
        "increment_ms": "less_than_equal",
        "idle_timeout_s": "int_type",
        "session_id": "uuid",
        "metadata": "dict_type",
        "participants.0.participant_id": "id",
        "participants.0.total_time_ms": "greater_than_equal",
        "participants.1.participant_id": "duplicate",
        "participants.1.total_time_ms": "int_type",
        "participants.1.extra": "extra_forbidden",
        "participants.2.participant_id": "duplicate",
        "participants.2.total_time_ms": "less_than_equal",
        "participants.3": "model_type",
    }


@pytest.mark.parametrize(
    ("change", "field", "code"),
    [
        ({"participants": []}, "participants", "too_short"),
        ({"participants": None}, "participants", "list_type"),
        ({"sync_mode": "blitz"}, "sync_mode", "literal_error"),
        ({"time_per_cycle_ms": 1000}, "time_per_cycle_ms", "not_in_mode"),
        ({"max_time_ms": 1000}, "max_time_ms", "not_in_mode"),
        ({"groups": []}, "groups", "not_in_mode"),
        ({"max_cycles": 0}, "max_cycles", "greater_than_equal"),
        ({"warn_at_ms": []}, "warn_at_ms", "too_short"),
        ({"warn_at_ms": [1000, 1000]}, "warn_at_ms", "duplicate"),
        ({"warn_at_ms": list(range(1, 10))}, "warn_at_ms", "too_long"),
        ({"action_on_timeout": {"type": "explode"}}, "action_on_timeout.type", "literal_error"),
        ({"action_on_timeout": {"type": "end_session", "x": "\x00"}}, "action_on_timeout", "nul_character"),
        ({"action_on_timeout": {"type": "end_session", "x": "y" * 5000}}, "action_on_timeout", "too_large"),
        ({"total_time_ms": 999}, "total_time_ms", "greater_than_equal"),
        ({"metadata": {"a": ["\x00"]}}, "metadata", "nul_character"),
        ({"metadata": {"\x00": 1}}, "metadata", "nul_character"),
        ({"metadata": {"a": "x" * 17_000}}, "metadata", "too_large"),
        ({"increment_ms": 1.5}, "increment_ms", "int_type"),
        ({"participants": [{"participant_id": f"p{i}", "total_time_ms": 1000} for i in range(1001)]}, "participants",
         "too_long"),
    ],
)  # fmt: skip
def test_input_that_does_not_fit_is_refused_by_field(
    client: FlaskClient, change: dict[str, Any], field: str, code: str
) -> None:
    assert faults(client.post("/v1/sessions", json=CHESS | change)) == {field: code}


MODES: dict[str, dict[str, Any]] = {
    "per_participant": CHESS,
    "per_cycle": {"sync_mode": "per_cycle", "time_per_cycle_ms": 30_000, "participants": [{"participant_id": "a"}]},
    "per_group": {
        "sync_mode": "per_group",
        "participants": [
            {"participant_id": name, "group_id": name[0], "total_time_ms": 60_000} for name in ("r1", "b1", "r2")
        ],
    },
    "global": {"sync_mode": "global", "total_time_ms": 600_000},
    "count_up": {"sync_mode": "count_up", "max_time_ms": 600_000, "warn_at_ms": [1000, 60_000], "max_cycles": 3},
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_answers_with_a_state_that_fits_the_document(
    client: FlaskClient, clock: SetClock, mode: str
) -> None:
    made = client.post("/v1/sessions", json=MODES[mode])
    assert made.status_code == 201, made.text
    url = made.headers["Location"]
    for path in ("start", "switch", "pause", "resume", "adjust", "complete"):
        clock.pass_ms(1000)
        body = {"op": "add", "ms": 5000} if path == "adjust" else None
        answer = client.post(f"{url}/{path}", json=body)
        assert answer.status_code == 200, answer.text
        StateAnswer.model_validate_json(answer.data)
    state = answer.get_json()["data"]
    assert state["sync_mode"] == mode
    assert state["cycle_count"] == 1
    assert state.get("warn_at_ms") == ([60_000, 1000] if mode == "count_up" else None)


@pytest.mark.parametrize(
    ("mode", "change", "field", "code"),
    [
        ("per_participant", {"participants": [{"participant_id": "a"}]}, "participants.0.total_time_ms", "missing"),
        ("per_cycle", {"time_per_cycle_ms": None}, "time_per_cycle_ms", "missing"),
        ("per_cycle", {"increment_ms": 1}, "increment_ms", "not_in_mode"),
        ("global", {"total_time_ms": None}, "total_time_ms", "missing"),
        ("global", {"total_time_ms": 86_400_001}, "total_time_ms", "less_than_equal"),
        ("global", {"participants": [{"participant_id": "a", "total_time_ms": 1000}]},
         "participants.0.total_time_ms", "not_in_mode"),
        ("per_cycle", {"participants": [{"participant_id": "a", "total_time_ms": 1000}]},
         "participants.0.total_time_ms", "not_in_mode"),
        ("count_up", {"participants": [{"participant_id": "a", "total_time_ms": 1000}]},
         "participants.0.total_time_ms", "not_in_mode"),
        ("global", {"participants": [{"participant_id": "a", "group_id": "g"}]},
         "participants.0.group_id", "not_in_mode"),
        ("per_group", {"participants": [{"participant_id": "a", "total_time_ms": 1000}]},
         "participants.0.group_id", "missing"),
        ("per_group", {"participants": [{"participant_id": "a", "group_id": "g"}]},
         "participants.0.total_time_ms", "missing"),
        ("per_group", {"groups": [{"group_id": "r"}]}, "participants.1.group_id", "unknown_group"),
        ("per_group", {"groups": [{"group_id": name} for name in "rbx"]}, "groups.2.total_time_ms", "missing"),
        ("per_group", {"groups": [{"group_id": name, "total_time_ms": 5000} for name in "rbxx"]},
         "groups.2.group_id", "duplicate"),
    ],
)  # fmt: skip
def test_a_mode_names_what_it_lacks_and_what_is_not_its_own(
    client: FlaskClient, mode: str, change: dict[str, Any], field: str, code: str
) -> None:
    assert faults(client.post("/v1/sessions", json=MODES[mode] | change)).get(field) == code


def test_an_adjustment_names_its_faults(client: FlaskClient, url: str) -> None:
    for body, found in (
        ({}, {"op": "missing", "ms": "missing"}),
        ({"op": "halve", "ms": 1}, {"op": "literal_error"}),
        ({"op": "set", "ms": -1}, {"ms": "negative"}),
        ({"op": "add", "ms": 1, "participant_id": "white", "group_id": "g"}, {"group_id": "contradiction"}),
        ({"op": "add", "ms": 1, "participant_id": "x"}, {"participant_id": "unknown_participant"}),
        ({"op": "add", "ms": 1, "group_id": "x"}, {"group_id": "no_budget"}),
    ):
        assert faults(client.post(f"{url}/adjust", json=body)) == found


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


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b"[1,", 400, "INVALID_JSON"),
        (b"\xff\xfe", 400, "INVALID_JSON"),
        (b'{"metadata": NaN}', 400, "INVALID_JSON"),
        (b'{"metadata": "\\ud800"}', 400, "INVALID_JSON"),
        (b"[" * 100_000, 400, "INVALID_JSON"),
        (b'{"metadata":' + b'{"a":' * 32 + b"1" + b"}" * 33, 400, "INVALID_JSON"),
        (b'{"metadata":' + b"[" * 32 + b"]" * 32 + b"}", 400, "INVALID_JSON"),
        (b"null", 400, "VALIDATION_ERROR"),
        (b'"text"', 400, "VALIDATION_ERROR"),
        (b"", 400, "VALIDATION_ERROR"),
        (b" " * 1_048_577, 413, "PAYLOAD_TOO_LARGE"),
    ],
)
def test_bodies_that_are_no_session_are_refused(client: FlaskClient, body: bytes, status: int, code: str) -> None:
    error(client.post("/v1/sessions", data=body, content_type="application/json"), status, code)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""])
def test_a_body_must_be_json_by_its_type(client: FlaskClient, content_type: str) -> None:
    error(
        client.post("/v1/sessions", data=orjson.dumps(CHESS), content_type=content_type), 415, "UNSUPPORTED_MEDIA_TYPE"
    )


def test_a_body_must_not_be_encoded(client: FlaskClient) -> None:
    for coding in ("gzip", "gzip, identity"):
        refused = client.post("/v1/sessions", json=CHESS, headers={"Content-Encoding": coding})
        error(refused, 415, "UNSUPPORTED_MEDIA_TYPE")
    for plain in ("identity", "Identity"):
        assert client.post("/v1/sessions", json=CHESS, headers={"Content-Encoding": plain}).status_code == 201


@pytest.mark.parametrize("digits", [str(2**64), str(-(2**63) - 1), str(10**30), "1" * 300])
def test_a_whole_number_that_cannot_be_kept_is_refused_by_field(client: FlaskClient, url: str, digits: str) -> None:
    text = f'{{"metadata": {{"a": [1, {{"b c": {digits}}}], "d": "{"9" * 30}"}}}}'
    for method, target in (("POST", "/v1/sessions"), ("PATCH", url)):
        refused = client.open(target, method=method, data=text, content_type="application/json")
        assert faults(refused) == {"metadata.a.1.b c": "number_too_large"}


@pytest.mark.parametrize(
    "text",
    ["18446744073709551615", "-9223372036854775808", "1e30", "0.1234567890123456789", '"9999999999999999999999"'],
)
def test_a_number_that_can_be_kept_is(client: FlaskClient, url: str, text: str) -> None:
    body = '{"metadata": {"a": %s}}' % text  # noqa: UP031  # braces
    kept = client.patch(url, data=body, content_type="application/json").get_json()["data"]["metadata"]["a"]
    assert kept == orjson.loads(text)
    assert type(kept) is type(orjson.loads(text))


@pytest.mark.parametrize("path", ["/v1//sessions", "//v1/sessions", "/api-docs//x", "/v1/sessions//"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_nothing_is_redirected(client: FlaskClient, method: str, path: str) -> None:
    answer = client.open(path, method=method, json=CHESS, headers={"Host": "elsewhere.example"})
    assert answer.status_code in (404, 405)
    assert answer.content_type == "application/json"
    assert b"elsewhere" not in answer.data + str(answer.headers).encode()


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
    client: FlaskClient, clock: SetClock, redis: redis_py.Redis
) -> None:
    action = {"type": "end_session", "action": "fold", "penalty": [1, {}]}
    url = client.post("/v1/sessions", json=CHESS | {"action_on_timeout": action}).headers["Location"]
    client.post(f"{url}/start")
    clock.pass_ms(300_000)
    refused = error(client.post(f"{url}/switch"), 400, "INVALID_STATE_TRANSITION")
    assert refused["message"] == "cannot switch a session that is expired"
    assert refused["details"]["expired_participant_id"] == "white"
    assert client.get(url).get_json()["data"]["action_on_timeout"] == action


def test_an_expected_version_is_compared_in_the_body_and_in_if_match(client: FlaskClient, url: str) -> None:
    conflict = error(client.post(f"{url}/switch", json={"expected_version": 1}), 409, "CONFLICT")
    assert (conflict["details"]["expected_version"], conflict["details"]["actual_version"]) == (1, 2)
    assert conflict["details"]["current"]["version"] == 2
    stale = client.post(f"{url}/switch", headers={"If-Match": f'"{NOON_MS}-1"'})
    assert error(stale, 412, "PRECONDITION_FAILED")["details"]["current"]["version"] == 2
    other_epoch = client.post(f"{url}/switch", headers={"If-Match": f'"{NOON_MS - 1}-2"'})
    assert error(other_epoch, 412, "PRECONDITION_FAILED")["details"]["actual_epoch"] == NOON_MS
    assert client.post(f"{url}/switch", headers={"If-Match": f'"{NOON_MS}-2"'}).status_code == 200
    assert client.post(f"{url}/switch", headers={"If-Match": "*"}).status_code == 200
    assert client.post(f"{url}/switch", json={"expected_version": 4, "expected_epoch": NOON_MS}).status_code == 200
    error(client.delete(url, headers={"If-Match": f'"{NOON_MS}-1"'}), 412, "PRECONDITION_FAILED")


@pytest.mark.parametrize("tag", ["x-y", 'W/"1-2"', '"2"', '"x", W/"y"'])
def test_an_entity_tag_of_somebody_else_matches_nothing(client: FlaskClient, url: str, tag: str) -> None:
    sent = tag if '"' in tag else f'"{tag}"'
    refused = error(client.post(f"{url}/switch", headers={"If-Match": sent}), 412, "PRECONDITION_FAILED")
    assert refused["details"]["current"]["version"] == 2


def test_any_version_in_if_match_leaves_the_body_to_claim_one(client: FlaskClient, url: str) -> None:
    stale = client.post(f"{url}/switch", json={"expected_version": 1}, headers={"If-Match": "*"})
    error(stale, 409, "CONFLICT")
    of_two = client.post(f"{url}/switch", headers={"If-Match": f'"{NOON_MS}-2", W/"x"'})
    assert of_two.status_code == 200


@pytest.mark.parametrize("tag", ["", "2", "1-2", f'"{NOON_MS}-2", "1-1"', '"x', 'w/"x"'])
def test_an_entity_tag_that_is_none_is_refused_and_changes_nothing(
    client: FlaskClient, redis: redis_py.Redis, url: str, tag: str
) -> None:
    before = dump(redis, url.rsplit("/", 1)[1])
    assert faults(client.post(f"{url}/switch", headers={"If-Match": tag})) == {"If-Match": "etag"}
    assert dump(redis, url.rsplit("/", 1)[1]) == before


@pytest.mark.parametrize("tag", ['W/"{}"', '"{}-gzip"', '"{}--gzip"', 'W/"{}-br"', '"{};gzip"', '"{}:zstd", "{}-df"'])
def test_a_tag_that_a_proxy_has_rewritten_still_names_its_version(client: FlaskClient, url: str, tag: str) -> None:
    def sent(version: int) -> str:
        return tag.replace("{}", f"{NOON_MS}-{version}")

    error(client.post(f"{url}/switch", headers={"If-Match": sent(1)}), 412, "PRECONDITION_FAILED")
    assert client.post(f"{url}/switch", headers={"If-Match": sent(2)}).get_json()["data"]["version"] == 3
    assert client.get(f"{url}?wait_ms=0", headers={"If-None-Match": sent(2)}).status_code == 200
    assert client.get(f"{url}?wait_ms=0", headers={"If-None-Match": sent(3)}).status_code == 304


def test_a_plain_read_answers_with_the_state_whatever_the_client_has(client: FlaskClient, url: str) -> None:
    tag = client.get(url).headers["ETag"]
    for sent in (tag, f"W/{tag}", "*", '"x"', "x"):
        read = client.get(url, headers={"If-None-Match": sent})
        assert (read.status_code, read.headers["ETag"]) == (200, tag)
        assert read.get_json()["data"]["version"] == 2


def test_nothing_that_moves_is_kept_by_a_cache(client: FlaskClient, url: str) -> None:
    moving = ["/health", "/ready", "/metrics", "/v1/time", "/v1/audit/queue", "/v1/history", url, f"{url}/events"]
    moving += [f"{url}/at?version=1", f"{url}/statistics", f"{url}/export", f"{url}?wait_ms=0", "/nothing", "/ws"]
    for path in moving:
        answer = client.get(path, headers={"If-None-Match": "*"})
        assert answer.headers.getlist("Cache-Control") == ["no-store"], path
    for answer in (client.post(f"{url}/switch"), client.post(f"{url}/resume"), client.delete(url)):
        assert answer.headers["Cache-Control"] == "no-store"
    for path in ("/api-docs/swagger-ui.css", "/api-docs.json", "/asyncapi.json"):
        with client.get(path) as document:
            assert document.headers["Cache-Control"] == "no-cache"


def test_what_is_current_is_not_sent_again_to_who_may_wait(client: FlaskClient, url: str) -> None:
    tag = client.get(url).headers["ETag"]
    for sent in (tag, f'"{NOON_MS}-1", W/{tag}', "*"):
        saved = client.get(f"{url}?wait_ms=0", headers={"If-None-Match": sent})
        assert (saved.status_code, saved.data, saved.headers["ETag"]) == (304, b"", tag)
    assert client.get(f"{url}?wait_ms=0").status_code == 200
    assert client.get(f"{url}?wait_ms=0", headers={"If-None-Match": '"1-1"'}).status_code == 200


@pytest.mark.parametrize("tag", ['"x"', "x", "2", '"2"', '"1-2-3"', '"1-2', '"1-2" "1-3"', '"1-2", "x"', '*, "1-2"'])
def test_nobody_waits_for_another_version_than_one_that_is_none(client: FlaskClient, url: str, tag: str) -> None:
    for wait_ms in (0, 20_000):
        refused = client.get(f"{url}?wait_ms={wait_ms}", headers={"If-None-Match": tag})
        assert faults(refused) == {"If-None-Match": "etag"}


def test_a_retry_with_its_key_is_a_replay_and_another_command_a_mismatch(
    client: FlaskClient, clock: SetClock, url: str
) -> None:
    headers = {"Idempotency-Key": "move-17"}
    first = client.post(f"{url}/switch", headers=headers)
    clock.pass_ms(100)
    again = client.post(f"{url}/switch", headers=headers)
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.get_json()["data"]["server_time_ms"] == clock.now_ms
    assert again.headers["ETag"] == first.headers["ETag"]
    assert client.get(url).get_json() == again.get_json()
    error(client.post(f"{url}/pause", headers=headers), 422, "IDEMPOTENCY_MISMATCH")


def test_a_replay_for_a_session_that_is_gone_is_a_404_that_says_so(client: FlaskClient, url: str) -> None:
    headers = {"Idempotency-Key": "move-17"}
    client.post(f"{url}/switch", headers=headers)
    deleted = [client.delete(url, headers={"Idempotency-Key": "over"}) for _ in range(2)]
    assert [answer.status_code for answer in deleted] == [204, 204]
    assert ["Idempotency-Replayed" in answer.headers for answer in deleted] == [False, True]
    gone = error(client.post(f"{url}/switch", headers=headers), 404, "SESSION_NOT_FOUND")
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
    assert faults(client.post(f"{url}/switch", headers={"Idempotency-Key": key})) == {
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
    assert faults(refused) == {"Idempotency-Key": "random_uuid"}
    assert client.post("/v1/sessions", json=CHESS | {"session_id": UNKNOWN}, headers=headers).status_code == 201


def test_who_prefers_it_gets_the_event_and_the_patch_only(client: FlaskClient, clock: SetClock, url: str) -> None:
    clock.pass_ms(1500)
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


def test_only_a_command_tells_whom_it_found_out_of_time(client: FlaskClient, clock: SetClock) -> None:
    body = CHESS | {"action_on_timeout": {"type": "skip_cycle"}}
    url = f"/v1/sessions/{client.post('/v1/sessions', json=body).get_json()['data']['session_id']}"
    client.post(f"{url}/start")
    clock.pass_ms(300_000)
    assert "expired_participant_id" not in client.get(url).get_json()["data"]


def test_an_answer_without_a_body_has_no_content_type(client: FlaskClient, url: str) -> None:
    gone = client.delete(url)
    assert (gone.status_code, gone.data, gone.headers.get("Content-Type")) == (204, b"", None)


def test_a_minimal_answer_has_the_version_of_its_patch_though_the_command_made_more_due(
    client: FlaskClient, clock: SetClock, url: str
) -> None:
    client.post(f"{url}/adjust", json={"op": "set", "ms": 0, "participant_id": "black"})
    answer = client.post(f"{url}/switch", headers={"Prefer": "return=minimal"})
    data = answer.get_json()["data"]
    assert data["event"]["type"] == "cycle_switched"
    assert data["expired_participant_id"] == "black"
    assert answer.headers["ETag"] == f'"{data["epoch"]}-{data["version"]}"'
    after = client.get(url).get_json()["data"]
    assert (after["status"], after["version"]) == ("expired", data["version"] + 1)


def test_the_patch_of_a_minimal_answer_folds_to_the_state(client: FlaskClient, clock: SetClock, url: str) -> None:
    state = client.get(url).get_json()["data"]
    for path in ("switch", "pause", "resume", "switch", "complete"):
        clock.pass_ms(70)
        patch = client.post(f"{url}/{path}", headers={"Prefer": "return=minimal"}).get_json()["data"]["patch"]
        people = patch.pop("participants", {})
        state |= patch
        for person in state["participants"]:
            person.update(people.get(person["participant_id"], {}))
        fresh = client.get(url).get_json()["data"]
        for live in ("clock", "server_time_ms"):
            state[live] = fresh[live]
        assert state == fresh


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", f"/v1/sessions/{UNKNOWN}", 404, "SESSION_NOT_FOUND"),
        ("POST", f"/v1/sessions/{UNKNOWN}/start", 404, "SESSION_NOT_FOUND"),
        ("PATCH", f"/v1/sessions/{UNKNOWN}", 400, "VALIDATION_ERROR"),
        ("GET", "/v1/sessions/17", 400, "VALIDATION_ERROR"),
        ("GET", f"/v1/sessions/{UNKNOWN}%0A", 400, "VALIDATION_ERROR"),
        ("GET", "/v1/sessions/%00%ff", 400, "VALIDATION_ERROR"),
        ("GET", "/v1/nothing", 404, "NOT_FOUND"),
        ("POST", f"/v1/sessions/{UNKNOWN}/adjourn", 404, "NOT_FOUND"),
        ("PUT", "/v1/sessions", 405, "METHOD_NOT_ALLOWED"),
        ("GET", f"/v1/sessions/{UNKNOWN}/start", 405, "METHOD_NOT_ALLOWED"),
    ],
)
def test_paths_that_lead_nowhere_say_so(client: FlaskClient, method: str, path: str, status: int, code: str) -> None:
    error(client.open(path, method=method), status, code)


def test_unknown_participants_are_named_by_field(client: FlaskClient, url: str) -> None:
    assert faults(client.post(f"{url}/switch", json={"participant_id": "x"})) == {
        "participant_id": "unknown_participant"
    }
    assert faults(client.post(f"{url}/switch", json={"next_participant_id": "x"})) == {
        "next_participant_id": "unknown_participant"
    }
    assert (
        error(client.post(f"{url}/switch", json={"participant_id": "black"}), 409, "NOT_ACTIVE_PARTICIPANT")["details"][
            "active_participant_id"
        ]
        == "white"
    )


def test_the_servers_clock_is_the_sessions_clock(client: FlaskClient, redis: redis_py.Redis) -> None:
    answer = client.get("/v1/time")
    TimeAnswer.model_validate_json(answer.data)
    data = answer.get_json()
    assert abs(data["timestamp_ms"] - redis.time()[0] * 1000) < 5000
    assert data["drift_tolerance_ms"] == 50


def test_health_needs_nobody_and_readiness_names_who_is_missing(
    app: Flask, client: FlaskClient, redis_url: str, database_url: str
) -> None:
    HealthAnswer.model_validate_json(client.get("/health").data)
    assert client.get("/ready").get_json() == {"status": "ready", "redis": "ok", "postgresql": "ok"}
    away = create_app(settings("redis://127.0.0.1:1/0", redis_timeout_s=0.2, database_url=database_url)).test_client()
    assert away.get("/health").status_code == 200
    refused = away.get("/ready")
    assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
    assert refused.get_json() == {
        "status": "unavailable",
        "problems": ["redis does not answer"],
        "redis": "does not answer",
        "postgresql": "ok",
    }
    assert "127.0.0.1" not in away.get("/ready").text
    away = create_app(settings(redis_url, database_url="postgresql://127.0.0.1:1/nothing")).test_client()
    data = away.get("/ready").get_json()
    assert data["redis"] == "ok"
    assert data["postgresql"] != "ok"
    assert any("postgresql" in worry and "audit events wait" in worry for worry in data["worries"])


def test_readiness_tells_what_may_lose_data_later(client: FlaskClient, redis: redis_py.Redis) -> None:
    assert "worries" not in client.get("/ready").get_json()
    redis.config_set("maxmemory-policy", "volatile-lru")
    try:
        (worry,) = client.get("/ready").get_json()["worries"]
        assert "volatile-lru" in worry
        redis.config_set("maxmemory-policy", "allkeys-lru")
        refused = client.get("/ready")
        assert refused.status_code == 503
        assert "would evict live sessions" in refused.get_json()["problems"][0]
    finally:
        redis.config_set("maxmemory-policy", "noeviction")


def test_a_store_that_is_away_is_a_503_that_says_when_to_come_back(redis_url: str, database_url: str) -> None:
    away = create_app(settings("redis://127.0.0.1:1/0", redis_timeout_s=0.2, database_url=database_url)).test_client()
    for answer in (away.post("/v1/sessions", json=CHESS), away.get(f"/v1/sessions/{UNKNOWN}"), away.get("/v1/time")):
        error(answer, 503, "STORE_UNAVAILABLE")
        assert answer.headers["Retry-After"] == "1"


def test_a_fault_of_ours_shows_no_traceback_and_an_id_to_ask_about(
    client: FlaskClient, redis: redis_py.Redis, url: str
) -> None:
    redis.hset(redis.keys("*session:*")[0], "scalars", "no numbers")
    answer = client.get(url, headers={"X-Request-Id": "abc-1"})
    assert error(answer, 500, "INTERNAL_ERROR")["details"] == {"request_id": "abc-1"}
    assert answer.headers["X-Request-Id"] == "abc-1"
    assert b"lua" not in answer.data.lower()


def test_a_request_id_that_is_none_is_replaced(client: FlaskClient) -> None:
    for bad in ("x" * 65, "a b", '"', "é"):
        assert re.fullmatch(
            "[0-9a-f]{32}", client.get("/health", headers={"X-Request-Id": bad}).headers["X-Request-Id"]
        )


def test_metrics_count_requests_and_times_by_route(client: FlaskClient, url: str) -> None:
    client.get(url)
    client.get("/x" + uuid.uuid4().hex)
    text = client.get("/metrics").get_data(as_text=True)
    assert 'syncapp_http_requests_total{method="GET",route="/v1/sessions/<session>",status="200"}' in text
    assert 'syncapp_http_request_seconds_count{method="POST",route="/v1/sessions"}' in text
    assert 'route="unmatched"' in text
    assert "syncapp_ws_connections" in text


def test_a_rate_limit_is_per_address_and_spares_health_checks(
    redis_url: str, database_url: str, clock: SetClock
) -> None:
    app = create_app(
        settings(redis_url, database_url=database_url, rate_limit_per_s=0.5, rate_limit_burst=3), partials=PARTIALS
    )
    client = app.test_client()
    statuses = [client.get(f"/v1/sessions/{UNKNOWN}").status_code for _ in range(5)]
    assert statuses == [404, 404, 404, 429, 429]
    refused = client.get(f"/v1/sessions/{UNKNOWN}")
    error(refused, 429, "RATE_LIMIT_EXCEEDED")
    assert 1 <= int(refused.headers["Retry-After"]) <= 3
    assert client.get("/health").status_code == 200
    other = client.get(f"/v1/sessions/{UNKNOWN}", environ_base={"REMOTE_ADDR": "192.0.2.1"})
    assert other.status_code == 404


def test_a_bucket_of_tokens_fills_with_time_and_forgets_old_addresses() -> None:
    limit = TokenBuckets(2.0, 1)
    assert limit.take("a", 0.0) == 0
    assert limit.take("a", 0.1) == pytest.approx(0.4)
    assert limit.take("a", 0.6) == 0
    for i in range(20_000):
        limit.take(str(i), 1.0)
    assert len(limit._buckets) == 10_000


def test_the_trusted_proxys_word_is_the_address(redis_url: str, database_url: str, clock: SetClock) -> None:
    app = create_app(
        settings(redis_url, database_url=database_url, rate_limit_per_s=0.001, rate_limit_burst=1, proxy_hops=1),
        partials=PARTIALS,
    )
    client = app.test_client()
    for number in range(3):
        headers = {"X-Forwarded-For": f"203.0.113.1, 192.0.2.{number}"}
        assert client.get(f"/v1/sessions/{UNKNOWN}", headers=headers).status_code == 404


def test_the_openapi_document_lists_every_route_and_the_page_asks_no_other_host(
    app: Flask, client: FlaskClient
) -> None:
    document = client.get("/api-docs.json").get_json()
    listed = {(path, method) for path, methods in document["paths"].items() for method in methods}
    undocumented = {
        "/metrics",
        "/api-docs.json",
        "/api-docs",
        "/api-docs/",
        "/api-docs/<path:path>",
        "/ws",
        "/asyncapi.json",
    }
    routes = {
        (rule.rule.replace("<session>", "{session_id}"), method.lower())
        for rule in app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.rule not in undocumented
    }
    assert listed == routes
    page = client.get("/api-docs").get_data(as_text=True)
    assert not re.findall(r"(?:src|href)=\"(?:https?:)?//", page)
    for asset in re.findall(r"(?:src|href)=\"([^\"]+)\"", page):
        with client.get(asset) as answer:
            assert answer.status_code == 200


def test_the_openapi_document_says_which_bodies_may_be_absent(client: FlaskClient) -> None:
    paths = client.get("/api-docs.json").get_json()["paths"]
    required = {
        operation["operationId"]: operation["requestBody"]["required"]
        for operations in paths.values()
        for operation in operations.values()
        if "requestBody" in operation
    }
    assert {name for name, needed in required.items() if needed} == {"create", "adjust", "update", "batch"}
    assert set(required) == {
        "create",
        "batch",
        "adjust",
        "update",
        "start",
        "switch",
        "pause",
        "resume",
        "complete",
        "cancel",
    } | {"delete"}


def test_the_openapi_document_states_the_limits_that_are_enforced(client: FlaskClient) -> None:
    schemas = client.get("/api-docs.json").get_json()["components"]["schemas"]
    assert schemas["CreateSession"]["properties"]["increment_ms"]["maximum"] == 60_000
    assert schemas["CreateSession"]["properties"]["participants"]["maxItems"] == 1000
    assert schemas["NewParticipant"]["properties"]["total_time_ms"]["anyOf"][0]["maximum"] == 86_400_000
    assert schemas["CreateSession"]["additionalProperties"] is False
    assert schemas["CreateSession"]["properties"]["sync_mode"]["enum"] == list(MODES)
    assert {"groups", "warn_at_ms", "max_cycles"} <= set(schemas["CreateSession"]["properties"])
    assert schemas["Adjust"]["properties"]["op"]["enum"] == ["add", "set", "at_least"]
    assert {"participant_id", "group_id", "not_after_ms", "reason"} <= set(schemas["Adjust"]["properties"])


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
near_bodies = st.fixed_dictionaries(
    {},
    optional=dict.fromkeys((
        "session_id", "sync_mode", "participants", "total_time_ms", "increment_ms", "metadata", "action_on_timeout",
        "participant_id", "next_participant_id", "expected_version", "expected_epoch", "reason", "idle_timeout_s",
        "groups", "group_id", "op", "ms", "warn_at_ms", "max_cycles", "time_per_cycle_ms", "max_time_ms",
        "not_after_ms",
    ), json_values),
)  # fmt: skip


@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    method=st.sampled_from(["POST", "PATCH", "DELETE", "GET", "PUT"]),
    path=st.sampled_from(["", "/start", "/switch", "/pause", "/resume", "/complete", "/cancel", "/adjust", "?create"])
    | st.text(max_size=5),
    body=st.one_of(near_bodies, json_values).map(
        lambda value: orjson.dumps(value, default=str) if _fits(value) else b"1e999"
    )
    | st.binary(max_size=40),
    header=st.sampled_from(
        ["If-Match", "If-None-Match", "Idempotency-Key", "Prefer", "X-Request-Id", "Accept", "Content-Type"]
    ),
    value=st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=20),
)
def test_nothing_a_client_sends_is_a_500(
    client: FlaskClient, url: str, method: str, path: str, body: bytes, header: str, value: str
) -> None:
    target = "/v1/sessions" if path == "?create" else f"{url}{path}"
    headers = {"Content-Type": "application/json"} | {header: value}
    answer = client.open(target, method=method, data=body, headers=headers)
    assert answer.status_code < 500
    assert b"Traceback" not in answer.data
    if answer.status_code >= 400:
        ErrorAnswer.model_validate_json(answer.data)


def _fits(value: Any) -> bool:
    try:
        orjson.dumps(value)
    except (TypeError, orjson.JSONEncodeError):
        return False
    return True

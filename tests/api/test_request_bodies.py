"""Request bodies: every fault is named by its field, in a short answer."""

from __future__ import annotations

import time
from typing import Any

import orjson
import pytest
from flask.testing import FlaskClient

from tests.support.rest import CHESS, MODES, expect_error, expect_faults

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
    began_s = time.thread_time()  # CPU time of this thread, because others may delay it
    answer = client.open(target, method=method, data=body, content_type="application/json")
    assert time.thread_time() - began_s < 2
    found = expect_error(answer, 400, "VALIDATION_ERROR")
    assert 1 <= len(found["details"]) <= 50
    assert len(answer.data) < 20_000


def test_more_than_50_faults_are_not_all_named(client: FlaskClient) -> None:
    body = CHESS | {"participants": [{"participant_id": f"p{i}"} for i in range(60)]}
    found = expect_error(client.post("/v1/sessions", json=body), 400, "VALIDATION_ERROR")
    assert len(found["details"]) == 50
    assert found["message"].startswith("more than 50 errors in the request: participants.0.total_time_ms, ")
    body = CHESS | {"participants": [{"participant_id": f"p{i}"} for i in range(50)]}
    found = expect_error(client.post("/v1/sessions", json=body), 400, "VALIDATION_ERROR")
    assert len(found["details"]) == 50
    assert found["message"].startswith("50 errors in the request: participants.0.total_time_ms, ")


def test_an_unknown_mode_is_not_told_what_belongs_to_another(client: FlaskClient) -> None:
    body = CHESS | {"sync_mode": "blitz", "groups": [], "time_per_cycle_ms": 1000, "max_time_ms": 1000}
    assert expect_faults(client.post("/v1/sessions", json=body)) == {"sync_mode": "literal_error"}


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
    assert expect_faults(client.post("/v1/sessions", json=body)) == {
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
    assert expect_faults(client.post("/v1/sessions", json=CHESS | change)) == {field: code}


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
    assert expect_faults(client.post("/v1/sessions", json=MODES[mode] | change)).get(field) == code


def test_an_adjustment_names_its_faults(client: FlaskClient, url: str) -> None:
    for body, found in (
        ({}, {"op": "missing", "ms": "missing"}),
        ({"op": "halve", "ms": 1}, {"op": "literal_error"}),
        ({"op": "set", "ms": -1}, {"ms": "negative"}),
        ({"op": "add", "ms": 1, "participant_id": "white", "group_id": "g"}, {"group_id": "contradiction"}),
        ({"op": "add", "ms": 1, "participant_id": "x"}, {"participant_id": "unknown_participant"}),
        ({"op": "add", "ms": 1, "group_id": "x"}, {"group_id": "no_budget"}),
    ):
        assert expect_faults(client.post(f"{url}/adjust", json=body)) == found


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
    expect_error(client.post("/v1/sessions", data=body, content_type="application/json"), status, code)


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""])
def test_a_body_must_be_json_by_its_type(client: FlaskClient, content_type: str) -> None:
    expect_error(
        client.post("/v1/sessions", data=orjson.dumps(CHESS), content_type=content_type), 415, "UNSUPPORTED_MEDIA_TYPE"
    )


def test_a_body_must_not_be_encoded(client: FlaskClient) -> None:
    for coding in ("gzip", "gzip, identity"):
        refused = client.post("/v1/sessions", json=CHESS, headers={"Content-Encoding": coding})
        expect_error(refused, 415, "UNSUPPORTED_MEDIA_TYPE")
    for plain in ("identity", "Identity"):
        assert client.post("/v1/sessions", json=CHESS, headers={"Content-Encoding": plain}).status_code == 201


@pytest.mark.parametrize("digits", [str(2**64), str(-(2**63) - 1), str(10**30), "1" * 300])
def test_a_whole_number_that_cannot_be_kept_is_refused_by_field(client: FlaskClient, url: str, digits: str) -> None:
    text = f'{{"metadata": {{"a": [1, {{"b c": {digits}}}], "d": "{"9" * 30}"}}}}'
    for method, target in (("POST", "/v1/sessions"), ("PATCH", url)):
        refused = client.open(target, method=method, data=text, content_type="application/json")
        assert expect_faults(refused) == {"metadata.a.1.b c": "number_too_large"}


@pytest.mark.parametrize(
    "text",
    ["18446744073709551615", "-9223372036854775808", "1e30", "0.1234567890123456789", '"9999999999999999999999"'],
)
def test_a_number_that_can_be_kept_is(client: FlaskClient, url: str, text: str) -> None:
    body = '{"metadata": {"a": %s}}' % text  # noqa: UP031  # braces
    kept = client.patch(url, data=body, content_type="application/json").get_json()["data"]["metadata"]["a"]
    assert kept == orjson.loads(text)
    assert type(kept) is type(orjson.loads(text))

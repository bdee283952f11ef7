"""`GET /v1/sessions`: filters, and errors that name every fault of a query."""

from __future__ import annotations

import json
from typing import Any

import pytest
from flask.testing import FlaskClient

from syncapp.api.reference.history_schemas import ListAnswer
from tests.support.rest import CHESS, expect_faults


@pytest.fixture
def variety(client: FlaskClient) -> dict[str, str]:
    """Sessions by name."""
    bodies: dict[str, dict[str, Any]] = {
        "chess": CHESS | {"metadata": {"hall": "3", "round": 7, "rated": True, "a.b": "x", "rate": 1.5, "none": None}},
        "exam": {"sync_mode": "global", "total_time_ms": 5000, "metadata": {"hall": 3, "round": "seven"}},
        "watch": {"sync_mode": "count_up", "participants": [{"participant_id": "white"}], "metadata": {"rated": False}},
        "rounds": {"sync_mode": "per_cycle", "time_per_cycle_ms": 1000, "metadata": {"hall": [3], "rated": "true"}},
    }
    found = {
        name: client.post("/v1/sessions", json=body).get_json()["data"]["session_id"] for name, body in bodies.items()
    }
    client.post(f"/v1/sessions/{found['exam']}/start")
    client.post(f"/v1/sessions/{found['watch']}/start")
    client.post(f"/v1/sessions/{found['watch']}/pause")
    client.post(f"/v1/sessions/{found['rounds']}/complete")
    return found


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "chess exam watch rounds"),
        ("status=running", "exam"),
        ("status=running,paused", "exam watch"),
        ("status=pending&status=completed", "chess rounds"),
        ("status=cancelled", ""),
        ("sync_mode=global", "exam"),
        ("sync_mode=count_up,per_cycle", "watch rounds"),
        ("participant_id=white", "chess watch"),
        ("participant_id=nobody", ""),
        ("participant_id=white&status=paused", "watch"),
        ("metadata.hall=3", "chess exam"),
        ("metadata.hall=3.0", "exam"),
        ("metadata.round=7", "chess"),
        ("metadata.round=7e0", "chess"),
        ("metadata.round=seven", "exam"),
        ("metadata.rated=true", "chess rounds"),
        ("metadata.rated=false", "watch"),
        ("metadata.rated=1", ""),
        ("metadata.a.b=x", "chess"),
        ("metadata.rate=1.5", "chess"),
        ("metadata.none=null", ""),
        ("metadata.missing=", ""),
        ("metadata.hall=3&metadata.rated=true", "chess"),
    ],
)
def test_filters_find_what_fits_and_nothing_else(
    client: FlaskClient, variety: dict[str, str], query: str, expected: str
) -> None:
    answer = client.get(f"/v1/sessions?{query}")
    assert answer.status_code == 200, answer.text
    ListAnswer.model_validate_json(answer.data)
    assert answer.headers["Cache-Control"] == "no-store"
    names = {session_id: name for name, session_id in variety.items()}
    found = [names[each["session_id"]] for each in answer.get_json()["data"]["sessions"]]
    assert sorted(found) == sorted(expected.split())


@pytest.mark.parametrize(
    ("written", "asked", "found"),
    [
        ("1234567890123456789", "1234567890123456789", True),
        ("1234567890123456789", "1234567890123456788", False),
        ("1234567890123456789", "1234567890123456789.0", True),
        ("123456789012345678", "123456789012345678", True),
        ("123456789012345678", "123456789012345679", False),
        (str(2**53 + 1), str(2**53 + 1), True),
        (str(2**53 + 1), str(2**53), False),
        (str(2**53), str(2**53 + 1), False),
        (str(2**63 - 1), str(2**63 - 1), True),
        (str(2**63 - 1), str(2**63), False),
        (str(2**64 - 1), str(2**64 - 1), True),
        (str(-(2**63)), str(-(2**63)), True),
        (str(-(2**63)), str(-(2**63) + 1), False),
        ("-1234567890123456789", "-1234567890123456789", True),
        ("-1234567890123456789", "1234567890123456789", False),
        ("1", "1", True),
        ("1", "1.0", True),
        ("1", "true", False),
        ("1", "1e999", False),
        ("1.0", "1", True),
        ("1.0", "1.0", True),
        ("true", "true", True),
        ("true", "1", False),
        ("0.1", "0.1", True),
        ("0.1", "0.10000000000000002", False),
        ("1e25", "1e25", True),
        ("1e25", "1" + 25 * "0", True),
    ],
)
def test_whole_numbers_are_compared_exactly_and_others_as_doubles(
    client: FlaskClient, written: str, asked: str, found: bool
) -> None:
    # As text, because decoding and encoding may change how a number is written.
    body = json.dumps({"sync_mode": "count_up", "metadata": {"order": None}}).replace("null", written)
    assert client.post("/v1/sessions", data=body, content_type="application/json").status_code == 201
    data = client.get(f"/v1/sessions?metadata.order={asked}").get_json()["data"]
    assert len(data["sessions"]) == found


def test_a_plus_that_became_a_space_is_explained(client: FlaskClient) -> None:
    body = {"sync_mode": "per_participant", "participants": [{"participant_id": "p+1", "total_time_ms": 5000}]}
    session_id = client.post("/v1/sessions", json=body).get_json()["data"]["session_id"]
    text = f"/v1/sessions/{session_id}/text"
    for path in ("/v1/sessions?participant_id", f"{text}?participant_id", f"{text}?group_id"):
        refused = client.get(f"{path}=p+1")
        assert refused.status_code == 400
        (detail,) = refused.get_json()["error"]["details"]
        assert detail["message"].endswith("; in a URL, + is written as %2B")
        (plain,) = client.get(f"{path}=p!1").get_json()["error"]["details"]
        assert "%2B" not in plain["message"]
    assert len(client.get("/v1/sessions?participant_id=p%2B1").get_json()["data"]["sessions"]) == 1
    assert client.get(f"{text}?participant_id=p%2B1").text == "00:05"


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("limit=0", {"limit": "greater_than_equal"}),
        ("limit=101", {"limit": "less_than_equal"}),
        ("limit=x", {"limit": "int_type"}),
        ("limit=1&limit=2", {"limit": "repeated"}),
        ("status=running,ended", {"status": "literal_error"}),
        ("status=", {"status": "literal_error"}),
        ("sync_mode=chess", {"sync_mode": "literal_error"}),
        ("participant_id=%20", {"participant_id": "id"}),
        ("cursor=x", {"cursor": "cursor"}),
        ("metadata=x", {"metadata": "members"}),
        ("metadata.a=1&metadata.a=2", {"metadata.a": "repeated"}),
        ("&".join(f"metadata.{i}=1" for i in range(9)), {"metadata": "too_long"}),
        ("mode=global&limit=-1", {"mode": "extra_forbidden", "limit": "greater_than_equal"}),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_naming_every_fault(
    client: FlaskClient, query: str, fault: dict[str, str]
) -> None:
    assert expect_faults(client.get(f"/v1/sessions?{query}")) == fault

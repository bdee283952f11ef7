"""Queries of the history that make no sense are refused, with every fault named."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from tests.support.played_game import play_game
from tests.support.rest import UNKNOWN, expect_error, expect_faults
from tests.support.store import ManualClock


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("events?limit=0&from=soon&cursor=x&type=A&colour=red", {
            "limit": "greater_than_equal", "from": "instant", "cursor": "cursor", "type": "string_pattern_mismatch",
            "colour": "extra_forbidden"}),
        ("events?limit=1001&limit=2", {"limit": "repeated"}),
        ("events?limit=1001&to=2&to=3", {"limit": "less_than_equal", "to": "repeated"}),
        ("events?from=2&to=1", {"from": "backwards"}),
        ("events?from=2026-01-01T00:00:00", {"from": "instant"}),
        ("events?from=2026-02-30T00:00:00Z", {"from": "instant"}),
        ("events?from=-1", {"from": "greater_than_equal"}),
        ("events?limit=1e2", {"limit": "int_type"}),
        ("events?since=1", {"since": "extra_forbidden"}),
        ("at", {"time": "one_of"}),
        ("at?time=1&version=1", {"time": "one_of"}),
        ("at?time=1&epoch=1", {"epoch": "needs_version"}),
        ("at?version=0", {"version": "greater_than_equal"}),
        ("at?version=white", {"version": "int_type"}),
        ("at?time=99999999999999999", {"time": "less_than_equal"}),
        ("statistics?limit=1", {"limit": "extra_forbidden"}),
        ("export?format=xml", {"format": "literal_error"}),
    ],
)  # fmt: skip
def test_a_question_that_makes_no_sense_is_refused_by_every_name(
    client: FlaskClient, path: str, found: dict[str, str]
) -> None:
    assert expect_faults(client.get(f"/v1/sessions/{UNKNOWN}/{path}")) == found


def test_a_list_of_sessions_names_its_faults_too(client: FlaskClient) -> None:
    query = "status=asleep&sync_mode=chess&created_from=2&created_to=1&updated_from=x&limit=&cursor=1_2"
    assert expect_faults(client.get(f"/v1/history?{query}")) == {
        "status": "literal_error", "sync_mode": "literal_error", "created_from": "backwards",
        "updated_from": "instant", "limit": "int_type", "cursor": "cursor",
    }  # fmt: skip


@hypothesis_settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    path=st.sampled_from(["events", "at", "statistics", "export", "history"]),
    query=st.lists(
        st.tuples(
            st.sampled_from(["type", "from", "to", "limit", "cursor", "time", "version", "epoch", "format", "status",
                             "sync_mode", "created_from", "updated_to", "updated_from"]) | st.text(max_size=5),
            st.integers(-(2**70), 2**70).map(str)
            | st.sampled_from(["1-1", "999999999999999-1", "json", "csv", "running", "global", "2026-01-01T00:00:00Z",
                               "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+14:00", "session_created", "\0",
                               f"253402300799999_{UNKNOWN}", f"99999999999999_{UNKNOWN}"])
            | st.text(max_size=8),
        ),
        max_size=4,
    ),
)  # fmt: skip
def test_nothing_a_client_asks_is_a_500(
    client: FlaskClient, played: str, path: str, query: list[tuple[str, str]]
) -> None:
    target = "/v1/history" if path == "history" else f"{played}/{path}"
    answer = client.get(target, query_string=query)
    assert answer.status_code < 500, answer.text
    assert answer.status_code != 404 or path == "at"
    if answer.status_code >= 400:
        expect_error(
            answer, answer.status_code, "VALIDATION_ERROR" if answer.status_code == 400 else "SESSION_NOT_FOUND"
        )


@pytest.fixture
def played(client: FlaskClient, clock: ManualClock, logged: Callable[[], int]) -> str:
    url, _ = play_game(client, clock)
    logged()
    return url

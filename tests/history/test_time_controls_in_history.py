"""Sessions with time controls in the log: events, past states, exports and statistics."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from typing import Any

from flask.testing import FlaskClient

from syncapp.api.reference.history_schemas import EventsAnswer, ExportAnswer, PastAnswer, StatisticsAnswer
from syncapp.audit.verify import VerifyResult, verify
from tests.support.played_game import answer_data
from tests.support.store import NOON_MS, ManualClock

MINUTE_MS = 60_000
BYO_YOMI = {
    "sync_mode": "per_participant",
    "participants": [{"participant_id": "black"}, {"participant_id": "white"}],
    "time_control": "sgf:60 3x30 byo-yomi",
    "takeback_cycles": 2,
}


def play(client: FlaskClient, clock: ManualClock, *steps: tuple[int, str, dict[str, Any]]) -> tuple[str, list[Any]]:
    """Create a game and run commands, each after some ms; return its path and the states."""
    made = client.post("/v1/sessions", json=BYO_YOMI)
    url, said = made.headers["Location"], [made.get_json()["data"]]
    for wait_ms, command, body in steps:
        clock.advance_ms(wait_ms)
        said.append(answer_data(client.post(f"{url}/{command}", json=body)))
    return url, said


def test_events_of_periods_are_in_the_log_with_their_members(
    client: FlaskClient, clock: ManualClock, logged: Callable[[], int]
) -> None:
    url, _ = play(client, clock, (0, "start", {}), (MINUTE_MS + 35_000, "switch", {}), (1000, "takeback", {}))
    logged()
    answer = client.get(f"{url}/events")
    EventsAnswer.model_validate_json(answer.data)
    events = answer_data(answer)["events"]
    types = [
        "session_created",
        "session_started",
        "period_started",
        "period_lost",
        "cycle_switched",
        "cycles_taken_back",
    ]
    assert [event["type"] for event in events] == types
    lost = events[3]
    assert (lost["at_ms"], lost["participant_id"], lost["remaining_ms"]) == (NOON_MS + 90_000, "black", 0)
    assert (lost["event"]["periods_left"], lost["event"]["period_remaining_ms"]) == (2, 30_000)
    assert lost["patch"]["participants"]["black"]["periods_left"] == 2
    assert events[4]["event"]["spent_ms"] == MINUTE_MS + 35_000
    only = answer_data(client.get(f"{url}/events?type=period_lost&type=cycles_taken_back"))["events"]
    assert [event["version"] for event in only] == [4, 6]


def test_every_past_state_is_told_as_it_was(
    client: FlaskClient, clock: ManualClock, logged: Callable[[], int], database_url: str
) -> None:
    url, said = play(
        client,
        clock,
        (0, "start", {}),
        (MINUTE_MS + 5000, "switch", {}),
        (1000, "takeback", {}),
        (1000, "adjust", {"targets": "all", "op": "add", "ms": 5000}),
        (1000, "complete", {"reason": "checkmate"}),
        (1000, "reopen", {}),
    )
    logged()
    for state in said:
        answer = client.get(f"{url}/at?version={state['version']}")
        PastAnswer.model_validate_json(answer.data)
        told = answer_data(answer)
        assert {name: told[name] for name in state} == state
        assert told.keys() - state.keys() == {"event", "clocks"}
    assert list(verify(database_url, VerifyResult(), url.rsplit("/", 1)[1])) == []
    answer = client.get(f"{url}/at?time={NOON_MS + MINUTE_MS + 2000}")
    told = answer_data(answer)
    assert told["clock"]["phase"] == "period"
    black, white = told["clocks"]["participants"]
    assert (black["used_ms"], black["remaining_ms"], black["period_remaining_ms"]) == (62_000, 0, 28_000)
    assert (white["used_ms"], white["remaining_ms"], white["period_remaining_ms"]) == (0, 60_000, None)


def test_exports_have_the_members_of_clocks(client: FlaskClient, clock: ManualClock, logged: Callable[[], int]) -> None:
    url, _ = play(client, clock, (0, "start", {}), (MINUTE_MS, "switch", {}))
    logged()
    answer = client.get(f"{url}/export")
    ExportAnswer.model_validate_json(answer.data)
    period = answer_data(answer)["events"][2]
    assert period["event"]["period_remaining_ms"] == 30_000
    snapshot = answer_data(answer)["events"][0]["snapshot"]
    assert snapshot["time_control_notation"] == BYO_YOMI["time_control"]
    assert [person["periods_left"] for person in snapshot["participants"]] == [3, 3]
    rows = list(
        csv.DictReader(io.StringIO(client.get(f"{url}/export?format=csv").get_data(as_text=True).lstrip("\ufeff")))
    )
    assert json.loads(rows[2]["event"]) == period["event"]
    assert json.loads(rows[2]["patch"]) == period["patch"]
    lines = client.get(f"{url}/export?format=ndjson").get_data(as_text=True).splitlines()
    assert json.loads(lines[2])["event"] == period["event"]


def test_statistics_are_without_what_was_taken_back(
    client: FlaskClient, clock: ManualClock, logged: Callable[[], int]
) -> None:
    url, said = play(
        client,
        clock,
        (0, "start", {}),
        (1000, "switch", {}),
        (2000, "switch", {}),
        (4000, "switch", {}),
        (8000, "takeback", {"cycles": 2}),
        (16_000, "adjust", {"op": "add", "ms": 1, "participant_id": "black"}),
        (32_000, "switch", {}),
        (5000, "adjust", {"op": "add", "ms": 1, "participant_id": "white"}),
    )
    logged()
    answer = client.get(f"{url}/statistics")
    StatisticsAnswer.model_validate_json(answer.data)
    found = answer_data(answer)
    black, white = found["participants"]
    assert (black["cycles"], black["total_ms"], black["open_ms"]) == (1, 6000, 5000)
    assert (white["cycles"], white["total_ms"], white["longest_ms"]) == (1, 48_000, 48_000)
    assert (found["cycles"], found["total_ms"]) == (2, 54_000)
    for person, told in zip(said[-1]["participants"], found["participants"], strict=True):
        assert (person["cycle_count"], person["time_used_ms"]) == (told["cycles"], told["total_ms"])


def test_a_session_has_ended_when_it_ended_last(
    client: FlaskClient, clock: ManualClock, logged: Callable[[], int], database_url: str
) -> None:
    url, said = play(client, clock, (0, "start", {}), (1000, "complete", {}))
    for command in ("reopen", "metadata", "complete"):
        logged()
        clock.advance_ms(1000)
        if command == "metadata":
            answer_data(client.patch(url, json={"metadata": {"a": 1}}))
        else:
            said.append(answer_data(client.post(f"{url}/{command}")))
        logged()
        shown = answer_data(client.get("/v1/history"))["sessions"][0]
        assert shown["completed_at"] == said[-1]["session_completed_at"]
        assert list(verify(database_url, VerifyResult(), url.rsplit("/", 1)[1])) == []

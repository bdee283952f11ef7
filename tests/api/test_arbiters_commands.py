"""What an arbiter may do over REST: adjust several clocks and their stages, take cycles back, reopen a session."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
import redis as redis_py
from flask.testing import FlaskClient

from syncapp.api.reference.schemas import CommandAnswer
from tests.support.controlled_games import BYO_YOMI, CANADIAN, MINUTE_MS, TOURNAMENT, command, create
from tests.support.rest import CHESS, MODES, expect_error, expect_faults
from tests.support.store import NOON_MS, ManualClock, dump_session

Dump = Callable[[str], dict[bytes, object]]


@pytest.fixture
def dump(redis: redis_py.Redis) -> Dump:
    """Returns all that the store holds of the session at a path."""
    return lambda url: dump_session(redis, url.rsplit("/", 1)[1])


def started(client: FlaskClient, **more: Any) -> str:
    """Return the path of a running session with a control of two stages, if no other is given."""
    url, _ = create(client, **{"time_control": TOURNAMENT, "takeback_cycles": 3} | more)
    command(client, url, "start")
    return url


def clocks(state: dict[str, Any]) -> list[int]:
    return [each["time_remaining_ms"] for each in state["participants"]]


def minimal(client: FlaskClient, url: str, name: str, **body: Any) -> dict[str, Any]:
    """Run a command, and return its event and patch."""
    answer = client.post(f"{url}/{name}", json=body, headers={"Prefer": "return=minimal"})
    assert answer.status_code == 200, answer.text
    CommandAnswer.model_validate_json(answer.data)
    data: dict[str, Any] = answer.get_json()["data"]
    assert answer.headers["ETag"] == f'"{data["epoch"]}-{data["version"]}"'
    return data


# Adjusting.


def test_everybody_gets_time_in_one_commit(client: FlaskClient, clock: ManualClock) -> None:
    url = started(client)
    clock.advance_ms(10_000)
    data = minimal(client, url, "adjust", op="add", ms=60_000, targets="all", reason="fire alarm")
    assert data["version"] == 3
    assert data["event"] == {
        "type": "time_adjusted",
        "at_ms": NOON_MS + 10_000,
        "reason": "fire alarm",
        "adjusted": {
            "white": {"remaining_ms": 5_450_000, "adjusted_ms": 60_000},
            "black": {"remaining_ms": 5_460_000, "adjusted_ms": 60_000},
        },
    }
    assert data["patch"]["participants"].keys() == {"white", "black"}
    assert clocks(client.get(url).get_json()["data"]) == [5_450_000, 5_460_000]


@pytest.mark.parametrize("mode", MODES)
def test_all_means_every_budget_that_the_mode_has(client: FlaskClient, clock: ManualClock, mode: str) -> None:
    url = client.post("/v1/sessions", json=MODES[mode]).headers["Location"]
    before = client.get(url).get_json()["data"]["clock"]["remaining_ms"]
    state = command(client, url, "adjust", op="add", ms=1000, targets="all")
    assert state["clock"]["remaining_ms"] == before + 1000


def test_targets_are_owners_of_budgets(client: FlaskClient, clock: ManualClock, dump: Dump) -> None:
    people = [{"participant_id": name, "group_id": name[0]} for name in ("r1", "b1", "r2")]
    url = started(client, sync_mode="per_group", participants=people)
    before = dump(url)
    for targets in (["r1"], ["r", "x"]):
        answer = client.post(f"{url}/adjust", json={"op": "set", "ms": 1000, "targets": targets})
        assert expect_faults(answer) == {"targets": "unknown_target"}
    assert dump(url) == before
    state = command(client, url, "adjust", op="set", ms=1000, targets=["b"])
    assert [group["time_remaining_ms"] for group in state["groups"]] == [5_400_000, 1000]


def test_an_arbiter_puts_a_clock_into_a_stage(client: FlaskClient, clock: ManualClock) -> None:
    url = started(client)
    state = command(client, url, "adjust", participant_id="black", stage=2, op="set", ms=MINUTE_MS)
    black = state["participants"][1]
    assert (black["stage"], black["moves_to_next_stage"], black["time_remaining_ms"]) == (2, None, MINUTE_MS)
    state = command(client, url, "adjust", targets=["white", "black"], stage=1, moves_to_next_stage=7)
    assert [(each["stage"], each["moves_to_next_stage"]) for each in state["participants"]] == [(1, 7), (1, 7)]
    assert clocks(state) == [5_400_000, MINUTE_MS]


def test_an_arbiter_changes_periods_and_blocks(client: FlaskClient, clock: ManualClock) -> None:
    url = started(client, time_control={"stages": [BYO_YOMI]})
    clock.advance_ms(MINUTE_MS + 1000)
    state = command(client, url, "adjust", periods_left=2, period_remaining_ms=5000)
    white = state["participants"][0]
    assert (white["periods_left"], white["period_remaining_ms"]) == (2, 5000)
    assert state["clock"]["deadline_ms"] == clock.now_ms + 35_000
    url = started(client, time_control={"stages": [CANADIAN]})
    clock.advance_ms(MINUTE_MS + 1000)
    white = command(client, url, "adjust", block_moves_left=1)["participants"][0]
    assert (white["block_moves_left"], white["period_remaining_ms"]) == (1, 29_000)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({}, {"op": "missing", "ms": "missing"}),
        ({"op": "add"}, {"ms": "missing"}),
        ({"ms": 1}, {"op": "missing"}),
        ({"ms": 1, "stage": 1}, {"op": "missing"}),
        ({"op": "set", "ms": -1}, {"ms": "negative"}),
        ({"op": "add", "ms": 2_592_000_001}, {"ms": "less_than_equal"}),
        ({"op": "add", "ms": 1, "targets": ["x"]}, {"targets": "unknown_target"}),
        ({"op": "add", "ms": 1, "targets": ["white"] * 1001}, {"targets": "too_long"}),
        ({"op": "add", "ms": 1, "targets": "all", "participant_id": "white"}, {"targets": "contradiction"}),
        ({"op": "add", "ms": 1, "participant_id": "white", "group_id": "g"}, {"group_id": "contradiction"}),
        ({"stage": 0}, {"stage": "greater_than_equal"}),
        ({"stage": 10}, {"stage": "less_than_equal"}),
        ({"stage": 3}, {"stage": "no_such_stage"}),
        ({"moves_to_next_stage": 41}, {"moves_to_next_stage": "no_moves"}),
        ({"stage": 2, "moves_to_next_stage": 1}, {"moves_to_next_stage": "no_moves"}),
        ({"periods_left": 1}, {"periods_left": "no_periods"}),
        ({"periods_left": 101}, {"periods_left": "less_than_equal"}),
        ({"period_remaining_ms": 1}, {"period_remaining_ms": "no_period"}),
        ({"block_moves_left": 1}, {"block_moves_left": "no_block"}),
        ({"stage": 2, "periods_left": 100}, {"periods_left": "no_periods"}),
        ({"stage": 2, "targets": ["black", "white"], "periods_left": 1}, {"periods_left": "no_periods"}),
    ],
)
def test_a_refused_adjustment_names_its_field_and_changes_nothing(
    client: FlaskClient, clock: ManualClock, dump: Dump, body: dict[str, Any], found: dict[str, str]
) -> None:
    url = started(client)
    clock.advance_ms(1000)
    shown, before = client.get(url).get_json(), dump(url)
    answer = client.post(f"{url}/adjust", json=body)
    assert expect_faults(answer) == found
    assert dump(url) == before
    assert client.get(url).get_json() == shown


def test_a_fault_of_one_target_leaves_the_others_as_they_were(
    client: FlaskClient, clock: ManualClock, dump: Dump
) -> None:
    people = [{"participant_id": "white"}, {"participant_id": "black", "time_control": "minutes:5+0"}]
    url = started(client, participants=people, time_control={"stages": [BYO_YOMI]})
    clock.advance_ms(1000)
    shown, before = client.get(url).get_json(), dump(url)
    body = {"op": "set", "ms": 1000, "targets": ["white", "black"], "periods_left": 1}
    assert expect_faults(client.post(f"{url}/adjust", json=body)) == {"periods_left": "no_periods"}
    assert dump(url) == before
    assert client.get(url).get_json() == shown


def test_stages_cannot_be_adjusted_without_a_time_control(client: FlaskClient, url: str, dump: Dump) -> None:
    before = dump(url)
    for fields in ({"stage": 1}, {"periods_left": 1}, {"stage": 2, "block_moves_left": 3}):
        found = expect_faults(client.post(f"{url}/adjust", json=fields))
        assert found == dict.fromkeys(fields, "no_time_control")
    assert dump(url) == before


# Taking cycles back.


def test_cycles_are_taken_back_with_their_clocks(client: FlaskClient, clock: ManualClock) -> None:
    url = started(client)
    for ms in (10_000, 20_000):
        clock.advance_ms(ms)
        command(client, url, "switch")
    clock.advance_ms(5000)
    data = minimal(client, url, "takeback", cycles=2, reason="agreed")
    assert data["event"] == {
        "type": "cycles_taken_back",
        "at_ms": NOON_MS + 35_000,
        "participant_id": "white",
        "remaining_ms": 5_400_000,
        "cycles": 2,
        "reason": "agreed",
    }
    assert (data["patch"]["cycle_count"], data["patch"]["active_participant_id"]) == (0, "white")
    state = client.get(url).get_json()["data"]
    assert clocks(state) == [5_400_000, 5_400_000]
    assert [each["moves_to_next_stage"] for each in state["participants"]] == [40, 40]
    assert (state["status"], state["clock"]["elapsed_ms"]) == ("running", 0)


def test_one_cycle_is_taken_back_by_default_and_a_paused_session_stays_paused(
    client: FlaskClient, clock: ManualClock
) -> None:
    url = started(client)
    clock.advance_ms(10_000)
    command(client, url, "switch")
    command(client, url, "pause")
    state = command(client, url, "takeback")
    assert (state["status"], state["active_participant_id"], state["cycle_count"]) == ("paused", "white", 0)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"cycles": 0}, {"cycles": "greater_than_equal"}),
        ({"cycles": 101}, {"cycles": "less_than_equal"}),
        ({"cycles": "1"}, {"cycles": "int_type"}),
        ({"cycles": 2}, {"cycles": "too_few_turns"}),
        ({"reason": ""}, {"reason": "string_too_short"}),
        ({"turns": 1}, {"turns": "extra_forbidden"}),
    ],
)
def test_a_refused_takeback_names_its_field_and_changes_nothing(
    client: FlaskClient, clock: ManualClock, dump: Dump, body: dict[str, Any], found: dict[str, str]
) -> None:
    url = started(client)
    command(client, url, "switch")
    clock.advance_ms(1000)
    shown, before = client.get(url).get_json(), dump(url)
    assert expect_faults(client.post(f"{url}/takeback", json=body)) == found
    assert dump(url) == before
    assert client.get(url).get_json() == shown


def test_only_a_session_made_for_it_takes_cycles_back_and_only_while_it_is_live(
    client: FlaskClient, url: str, dump: Dump
) -> None:
    before = dump(url)
    assert expect_faults(client.post(f"{url}/takeback")) == {"cycles": "no_takebacks"}
    assert dump(url) == before
    url, _ = create(client, time_control=TOURNAMENT, takeback_cycles=1)
    for _ in range(2):
        before = dump(url)
        details = expect_error(client.post(f"{url}/takeback"), 400, "INVALID_STATE_TRANSITION")["details"]
        assert details["command"] == "takeback"
        assert dump(url) == before
        command(client, url, "complete")


def test_no_turn_before_an_adjustment_is_taken_back(client: FlaskClient, clock: ManualClock, dump: Dump) -> None:
    url = started(client)
    command(client, url, "switch")
    command(client, url, "adjust", op="add", ms=1000)
    before = dump(url)
    assert expect_faults(client.post(f"{url}/takeback")) == {"cycles": "too_few_turns"}
    assert dump(url) == before


# Reopening.


def test_a_completed_session_is_reopened_without_its_completion(client: FlaskClient, clock: ManualClock) -> None:
    url = started(client)
    clock.advance_ms(10_000)
    command(client, url, "complete", reason="checkmate", result={"winner": "white"})
    clock.advance_ms(60_000)
    data = minimal(client, url, "reopen", reason="the wrong board")
    assert data["event"] == {
        "type": "session_reopened",
        "at_ms": NOON_MS + 70_000,
        "participant_id": "white",
        "remaining_ms": 5_390_000,
        "reason": "the wrong board",
    }
    assert data["patch"]["session_completed_at"] is None
    assert data["patch"]["status"] == "paused"
    state = client.get(url).get_json()["data"]
    assert "completion" not in state
    assert (state["status"], state["active_participant_id"]) == ("paused", "white")
    assert clocks(state) == [5_390_000, 5_400_000]
    state = command(client, url, "resume")
    assert state["clock"]["remaining_ms"] == 5_390_000


@pytest.mark.parametrize("end", ["complete", "cancel"])
def test_a_session_that_never_began_is_pending_again(client: FlaskClient, end: str) -> None:
    url, _ = create(client, time_control=TOURNAMENT)
    command(client, url, end)
    assert command(client, url, "reopen")["status"] == "pending"
    assert command(client, url, "start")["status"] == "running"


def test_a_flag_that_fell_by_mistake_is_undone_with_time(client: FlaskClient, clock: ManualClock) -> None:
    url = started(client, time_control={"stages": [{"time_ms": MINUTE_MS}]})
    clock.advance_ms(MINUTE_MS)
    assert client.get(url).get_json()["data"]["status"] == "expired"
    state = command(client, url, "reopen")
    assert (state["status"], clocks(state)) == ("paused", [0, MINUTE_MS])
    command(client, url, "adjust", op="set", ms=30_000, participant_id="white")
    state = command(client, url, "resume")
    assert (state["status"], state["clock"]["remaining_ms"]) == ("running", 30_000)


def test_a_session_in_every_mode_is_reopened(client: FlaskClient, clock: ManualClock) -> None:
    for body in MODES.values():
        url = client.post("/v1/sessions", json=body).headers["Location"]
        command(client, url, "start")
        clock.advance_ms(1000)
        before = command(client, url, "pause")
        command(client, url, "cancel")
        after = command(client, url, "reopen")
        changing = ("version", "updated_at", "idle_at", "server_time_ms")
        assert {name: value for name, value in after.items() if name not in changing} == {
            name: value for name, value in before.items() if name not in changing
        }


def test_a_live_session_and_one_that_has_had_all_its_cycles_cannot_be_reopened(client: FlaskClient, dump: Dump) -> None:
    url = started(client, max_cycles=1)
    for status in ("running", "completed"):
        before = dump(url)
        details = expect_error(client.post(f"{url}/reopen"), 400, "INVALID_STATE_TRANSITION")["details"]
        assert (details["status"], details["command"]) == (status, "reopen")
        assert dump(url) == before
        if status == "running":
            assert command(client, url, "switch")["status"] == "completed"


# What holds for both.


@pytest.mark.parametrize("name", ["takeback", "reopen"])
def test_a_stale_version_changes_nothing(client: FlaskClient, dump: Dump, name: str) -> None:
    url = ready(client, name)
    tag = client.get(url).headers["ETag"]
    before = dump(url)
    expect_error(client.post(f"{url}/{name}", headers={"If-Match": '"1-1"'}), 412, "PRECONDITION_FAILED")
    expect_error(client.post(f"{url}/{name}", json={"expected_version": 1}), 409, "CONFLICT")
    assert dump(url) == before
    answer = client.post(f"{url}/{name}", headers={"If-Match": tag})
    assert answer.status_code == 200
    assert answer.headers["ETag"] == client.get(url).headers["ETag"] != tag


@pytest.mark.parametrize("name", ["takeback", "reopen"])
def test_a_repeated_command_takes_effect_once(client: FlaskClient, name: str) -> None:
    url, key = ready(client, name), {"Idempotency-Key": str(uuid.uuid4())}
    first = client.post(f"{url}/{name}", json={"reason": "a"}, headers=key)
    again = client.post(f"{url}/{name}", json={"reason": "a"}, headers=key)
    assert (first.status_code, again.status_code) == (200, 200)
    assert again.headers["Idempotency-Replayed"] == "true"
    assert again.get_json() == first.get_json()
    shown = client.post(f"{url}/{name}", json={"reason": "a"}, headers=key | {"Prefer": "return=minimal"})
    assert shown.get_json()["data"]["event"]["reason"] == "a"
    other = client.post(f"{url}/{name}", json={"reason": "b"}, headers=key)
    expect_error(other, 422, "IDEMPOTENCY_MISMATCH")


def ready(client: FlaskClient, name: str) -> str:
    """Return the path of a session that the command may change."""
    url = started(client)
    command(client, url, "switch")
    command(client, url, "switch")
    if name == "reopen":
        command(client, url, "complete", result=1)
    return url


def test_a_plain_budget_takes_cycles_back_too(client: FlaskClient, clock: ManualClock) -> None:
    url = client.post("/v1/sessions", json=CHESS | {"takeback_cycles": 1}).headers["Location"]
    command(client, url, "start")
    clock.advance_ms(10_000)
    command(client, url, "switch")
    state = command(client, url, "takeback")
    assert (clocks(state), state["cycle_count"]) == ([300_000, 300_000], 0)

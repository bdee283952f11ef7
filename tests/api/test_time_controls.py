"""Time controls over REST: what a create takes and refuses, and what states, lists and answers show."""

from __future__ import annotations

from typing import Any

import pytest
import redis as redis_py
from flask.testing import FlaskClient

from syncapp.api.reference.history_schemas import ListAnswer
from syncapp.api.reference.schemas import CommandAnswer
from tests.support.controlled_games import (
    BYO_YOMI,
    CANADIAN,
    GAME,
    MINUTE_MS,
    MONTH_MS,
    PLAYERS,
    TOURNAMENT,
    command,
    create,
)
from tests.support.rest import expect_error, expect_faults
from tests.support.store import NOON_MS, ManualClock
from tests.support.time_controls import RULES, document

HOURGLASS = {"stages": [{"time_ms": 1000, "hourglass": True}]}


def faults(client: FlaskClient, stage: Any = None, **more: Any) -> dict[str, str]:
    """Return field and code of each fault of a create with one stage."""
    control = {"stages": [stage]} if stage is not None else None
    return expect_faults(client.post("/v1/sessions", json=GAME | ({"time_control": control} if control else {}) | more))


def test_a_control_is_shown_in_its_canonical_form_with_its_notation(client: FlaskClient) -> None:
    stages = [TOURNAMENT["stages"][0], TOURNAMENT["stages"][1] | {"repeat": None}]
    url, state = create(client, time_control={"stages": stages})
    assert state["time_control"] == TOURNAMENT
    assert state["time_control_notation"] == "pgn:40/5400+30:1800+30"
    assert client.get(url).get_json()["data"] == state
    assert state["total_time_ms"] == 180 * MINUTE_MS
    for person in state["participants"]:
        assert person["total_time_ms"] == person["time_remaining_ms"] == 90 * MINUTE_MS
        assert (person["stage"], person["moves_to_next_stage"], person["turn_ms"]) == (1, 40, 0)
        assert "time_control" not in person
        assert "lag_left_ms" not in person


@pytest.mark.parametrize(
    ("notation", "shown"),
    [
        ("pgn:40/5400+30:1800+30", TOURNAMENT),
        ("minutes:15+10", document({"time_ms": 15 * MINUTE_MS, "increment_ms": 10_000})),
        ("sgf:60 3x30 byo-yomi", document(BYO_YOMI)),
        ("uscf:G/90;d5", document({"time_ms": 90 * MINUTE_MS, "delay_ms": 5000, "delay": "simple"})),
    ],
)
def test_a_notation_is_the_same_as_its_object(client: FlaskClient, notation: str, shown: dict[str, Any]) -> None:
    _, by_text = create(client, time_control=notation)
    assert by_text["time_control"] == shown
    _, by_object = create(client, time_control=shown)
    _, again = create(client, time_control=by_object["time_control_notation"])
    for state in (by_object, again):
        for name in ("time_control", "time_control_notation", "participants"):
            assert state[name] == by_text[name]


def test_a_participant_may_have_a_control_of_its_own(client: FlaskClient, clock: ManualClock) -> None:
    people = [{"participant_id": "white", "time_control": "minutes:1+0"}, {"participant_id": "black"}]
    url, state = create(client, participants=people, time_control={"stages": [BYO_YOMI]})
    white, black = state["participants"]
    assert white["time_control"] == document({"time_ms": MINUTE_MS})
    assert white["time_control_notation"] == "pgn:60"
    assert (white["periods_left"], black["periods_left"]) == (None, 3)
    assert "time_control" not in black
    assert state["time_control"]["stages"] == [BYO_YOMI]
    command(client, url, "start")
    clock.advance_ms(MINUTE_MS)
    assert client.get(url).get_json()["data"]["status"] == "expired"


def test_an_own_control_beside_plain_budgets_leaves_those_a_stage_with_increments(client: FlaskClient) -> None:
    people = [
        {"participant_id": "white", "time_control": "minutes:1+0"},
        {"participant_id": "b", "total_time_ms": 5000},
    ]
    _, state = create(client, participants=people, increment_ms=2000)
    assert "time_control" not in state
    assert state["participants"][1]["time_control"] == document({"time_ms": 5000, "increment_ms": 2000})


def test_groups_own_the_clocks_of_their_mode(client: FlaskClient, clock: ManualClock) -> None:
    people = [{"participant_id": name, "group_id": name[0]} for name in ("r1", "b1", "r2")]
    groups = [{"group_id": "r", "time_control": {"stages": [CANADIAN]}}, {"group_id": "b"}]
    url, state = create(
        client, sync_mode="per_group", participants=people, groups=groups, time_control={"stages": [BYO_YOMI]}
    )
    assert all("stage" not in person for person in state["participants"])
    red, blue = state["groups"]
    assert (red["time_control"]["stages"], red["total_time_ms"]) == ([CANADIAN], MINUTE_MS)
    assert (blue["periods_left"], "time_control" in blue) == (3, False)
    command(client, url, "start")
    clock.advance_ms(MINUTE_MS + 1000)
    state = client.get(url).get_json()["data"]
    assert (state["clock"]["phase"], state["clock"]["phase_remaining_ms"]) == ("block", 29_000)
    assert (state["groups"][0]["block_moves_left"], state["groups"][0]["period_remaining_ms"]) == (2, 30_000)


def test_plain_budgets_have_no_members_of_time_controls(client: FlaskClient) -> None:
    people = [{"participant_id": "white", "total_time_ms": 5000}]
    _, state = create(client, participants=people)
    new = {"time_control", "time_control_notation", "warn_scope", "lag_compensation", "takeback_cycles"}
    assert not new & state.keys()
    assert not {"phase", "phase_remaining_ms", "next_at_ms"} & state["clock"].keys()
    assert not {"stage", "turn_ms", "periods_left"} & state["participants"][0].keys()


def test_compensated_lag_gives_plain_budgets_a_clock_with_a_quota(client: FlaskClient) -> None:
    people = [{"participant_id": name, "total_time_ms": 5000} for name in ("white", "black")]
    quota = {"per_move_ms": 100, "quota_ms": 1000}
    _, state = create(client, participants=people, lag_compensation=quota, takeback_cycles=3, increment_ms=1000)
    assert (state["lag_compensation"], state["takeback_cycles"], state["warn_scope"]) == (quota, 3, "main")
    assert {person["lag_left_ms"] for person in state["participants"]} == {1000}


@pytest.mark.parametrize(
    ("stage", "field", "code"),
    [
        ({}, "time_ms", "missing"),
        ({"time_ms": -1}, "time_ms", "greater_than_equal"),
        ({"time_ms": MONTH_MS + 1}, "time_ms", "less_than_equal"),
        ({"time_ms": 1.5}, "time_ms", "int_type"),
        ({"time_ms": 0}, "time_ms", "no_time"),
        ({"time_ms": 0, "increment_ms": 1000}, "time_ms", "no_time"),
        ({"time_ms": 1000, "per_move_ms": 1000}, "time_ms", "contradiction"),
        ({"time_ms": 1000, "moves": 40}, "moves", "contradiction"),
        ({"time_ms": 1000, "repeat": True}, "moves", "missing"),
        ({"time_ms": 1000, "moves": 1001, "repeat": True}, "moves", "less_than_equal"),
        ({"time_ms": 1000, "increment_ms": MONTH_MS + 1}, "increment_ms", "less_than_equal"),
        ({"time_ms": 1000, "cap_ms": 2000}, "cap_ms", "missing"),
        ({"time_ms": 1000, "delay_ms": 5000}, "delay_ms", "missing"),
        ({"time_ms": 1000, "delay": "simple"}, "delay", "missing"),
        ({"time_ms": 1000, "delay": "bronson", "delay_ms": 1}, "delay", "literal_error"),
        ({"time_ms": 1000, "increment_ms": 1, "delay": "simple", "delay_ms": 1}, "delay_ms", "contradiction"),
        ({"time_ms": 1000, "periods": 101, "period_ms": 1}, "periods", "less_than_equal"),
        ({"time_ms": 1000, "periods": 0, "period_ms": 1}, "periods", "greater_than_equal"),
        ({"time_ms": 1000, "periods": 3}, "periods", "missing"),
        ({"time_ms": 1000, "period_ms": 3}, "period_ms", "missing"),
        ({"time_ms": 1000, "periods": 3, "period_ms": 0}, "period_ms", "greater_than_equal"),
        ({"time_ms": 1000, "periods": 1, "period_moves": 1, "period_ms": 1}, "period_moves", "contradiction"),
        ({"time_ms": 1000, "hourglass": 1}, "hourglass", "bool_type"),
        ({"time_ms": 0, "hourglass": True}, "time_ms", "no_time"),
        ({"time_ms": 1000, "color": "red"}, "color", "extra_forbidden"),
    ],
)
def test_a_fault_of_a_stage_names_its_field(
    client: FlaskClient, redis: redis_py.Redis, stage: dict[str, Any], field: str, code: str
) -> None:
    found = faults(client, stage)
    assert found.get(f"time_control.stages.0.{field}") == code, found
    owned = [{"participant_id": "white", "time_control": {"stages": [stage]}}, {"participant_id": "black"}]
    found = faults(client, {"time_ms": 1000}, participants=owned)
    assert found.get(f"participants.0.time_control.stages.0.{field}") == code, found
    assert not list(redis.scan_iter("*:session:*"))


def test_a_stage_after_one_with_a_time_for_each_move_needs_time_of_its_own(client: FlaskClient) -> None:
    first = {"per_move_ms": 1000, "moves": 1}
    found = faults(client, time_control={"stages": [first, {"time_ms": 0}]})
    assert found == {"time_control.stages.1.time_ms": "no_time"}
    create(client, time_control={"stages": [first, {"time_ms": 0, "periods": 1, "period_ms": 1000}]})
    create(client, time_control={"stages": [{"time_ms": 1000, "moves": 1}, {"time_ms": 0}]})


def test_a_fault_of_a_later_stage_is_told_with_those_of_the_first(client: FlaskClient) -> None:
    control = {"stages": [{"time_ms": 1000}, {"moves": 3}], "margin_ms": -1, "charge_unit_ms": 0}
    answer = client.post("/v1/sessions", json=GAME | {"time_control": control})
    assert expect_faults(answer) == {
        "time_control.stages.0.moves": "missing",
        "time_control.stages.1.moves": "contradiction",
        "time_control.stages.1.time_ms": "missing",
        "time_control.margin_ms": "greater_than_equal",
        "time_control.charge_unit_ms": "greater_than_equal",
    }


@pytest.mark.parametrize(
    ("text", "code"),
    [("10+0", "notation"), ("pgn:", "notation"), ("pgn:?", "notation"), ("go:1", "notation"), ("x" * 1001, "too_long")],
)
def test_a_notation_that_says_nothing_certain_is_refused(client: FlaskClient, text: str, code: str) -> None:
    assert faults(client, time_control=text) == {"time_control": code}
    people = [*PLAYERS, {"participant_id": "third", "time_control": text}]
    assert faults(client, {"time_ms": 1000}, participants=people) == {"participants.2.time_control": code}


@pytest.mark.parametrize("value", [5, True, ["pgn:60"]])
def test_a_control_is_a_notation_or_an_object(client: FlaskClient, value: Any) -> None:
    assert faults(client, time_control=value) == {"time_control": "model_type"}


def test_a_notation_without_a_dialect_is_refused_with_a_hint(client: FlaskClient) -> None:
    answer = client.post("/v1/sessions", json=GAME | {"time_control": "10+0"})
    message = expect_error(answer, 400, "VALIDATION_ERROR")["message"]
    assert message.startswith("time_control: needs a dialect, such as ")
    assert "pgn:10+0" in message
    assert "minutes:10+0" in message


def test_the_limits_themselves_are_allowed(client: FlaskClient, clock: ManualClock) -> None:
    first = {"time_ms": MONTH_MS, "moves": 1000, "increment_ms": MONTH_MS}
    last = {"time_ms": 0, "periods": 100, "period_ms": MONTH_MS}
    stages = [first, *[first] * 7, last]
    url, state = create(client, time_control={"stages": stages, "margin_ms": MONTH_MS}, takeback_cycles=100)
    assert state["time_control"]["stages"] == stages
    assert len(state["time_control"]["stages"]) == 9
    assert create(client, time_control=state["time_control_notation"])[1]["time_control"] == state["time_control"]
    state = command(client, url, "start")
    assert state["clock"]["deadline_ms"] == NOON_MS + 2 * MONTH_MS
    assert faults(client, time_control={"stages": [*stages, last]})["time_control.stages"] == "too_long"
    assert faults(client, time_control={"stages": []})["time_control.stages"] == "too_short"


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({"time_control": "pgn:60", "increment_ms": 1000}, {"increment_ms": "contradiction"}),
        (
            {"time_control": "pgn:60", "participants": [{"participant_id": "a", "total_time_ms": 5000}]},
            {"participants.0.total_time_ms": "contradiction"},
        ),
        ({"time_control": "pgn:60", "sync_mode": "global", "total_time_ms": 5000}, {"time_control": "not_in_mode"}),
        (
            {"sync_mode": "count_up", "takeback_cycles": 1, "lag_compensation": {"per_move_ms": 0, "quota_ms": 1}},
            {"takeback_cycles": "not_in_mode", "lag_compensation": "not_in_mode"},
        ),
        (
            {"warn_scope": "period", "participants": [{"participant_id": "a", "total_time_ms": 5000}]},
            {"warn_scope": "missing"},
        ),
        ({"time_control": "pgn:60", "takeback_cycles": 101}, {"takeback_cycles": "less_than_equal"}),
        (
            {"time_control": "pgn:60", "lag_compensation": {"per_move_ms": -1, "quota_ms": 10_001}},
            {"lag_compensation.per_move_ms": "greater_than_equal", "lag_compensation.quota_ms": "less_than_equal"},
        ),
        ({"time_control": HOURGLASS, "participants": PLAYERS[:1]}, {"time_control": "too_short"}),
        (
            {"time_control": HOURGLASS, "participants": [{"participant_id": f"p{each}"} for each in range(17)]},
            {"time_control": "too_long"},
        ),
        (
            {"time_control": HOURGLASS, "participants": [*PLAYERS, {"participant_id": "c", "time_control": "pgn:60"}]},
            {"time_control": "contradiction"},
        ),
        (
            {"time_control": HOURGLASS, "action_on_timeout": {"type": "skip_cycle"}},
            {"action_on_timeout.type": "contradiction"},
        ),
        (
            {"time_control": "pgn:60", "participants": [*PLAYERS, {"participant_id": "c", "time_control": "pgn:*60"}]},
            {"participants.2.time_control": "contradiction"},
        ),
        (
            {
                "sync_mode": "global",
                "total_time_ms": 5000,
                "participants": [{"participant_id": "a", "time_control": "pgn:60"}],
            },
            {"participants.0.time_control": "not_in_mode"},
        ),
        (
            {
                "sync_mode": "per_group",
                "time_control": "pgn:60",
                "participants": [{"participant_id": "a", "group_id": "team", "time_control": "pgn:30"}],
            },
            {"participants.0.time_control": "not_in_mode"},
        ),
    ],
)
def test_a_control_that_contradicts_other_fields_is_refused(
    client: FlaskClient, body: dict[str, Any], found: dict[str, str]
) -> None:
    assert faults(client, **body) == found


def test_a_state_shows_the_phase_that_runs(client: FlaskClient, clock: ManualClock) -> None:
    stage = {"time_ms": MINUTE_MS, "delay_ms": 5000, "delay": "simple"}
    url, state = create(client, time_control={"stages": [stage]})
    assert state["clock"]["phase"] == "delay"
    assert state["clock"]["next_at_ms"] is None
    command(client, url, "start")
    clock.advance_ms(1000)
    shown = client.get(url).get_json()["data"]["clock"]
    assert shown == {
        "scope": "participant",
        "direction": "down",
        "running": True,
        "remaining_ms": MINUTE_MS,
        "elapsed_ms": 1000,
        "deadline_ms": NOON_MS + 65_000,
        "phase": "delay",
        "phase_remaining_ms": 4000,
        "next_at_ms": NOON_MS + 5000,
    }
    clock.advance_ms(5000)
    shown = client.get(url).get_json()["data"]["clock"]
    assert (shown["phase"], shown["phase_remaining_ms"], shown["remaining_ms"]) == ("main", 59_000, 59_000)
    assert shown["next_at_ms"] == shown["deadline_ms"] == NOON_MS + 65_000


def test_periods_begin_and_are_lost_at_their_own_instants(client: FlaskClient, clock: ManualClock) -> None:
    url, _ = create(client, time_control={"stages": [BYO_YOMI]}, warn_at_ms=[10_000], warn_scope="period")
    command(client, url, "start")
    clock.advance_ms(MINUTE_MS + 35_000)
    state = client.get(url).get_json()["data"]
    white = state["participants"][0]
    assert (white["time_remaining_ms"], white["periods_left"], white["period_remaining_ms"]) == (0, 2, 30_000)
    assert (state["clock"]["phase"], state["clock"]["phase_remaining_ms"]) == ("period", 25_000)
    assert state["cycle_started_at"] == "2100-01-01T12:01:30.000Z"
    assert state["version"] == 6  # two warnings, the start of the first period and its loss
    after = command(client, url, "switch")["participants"][0]
    assert (after["periods_left"], after["period_remaining_ms"], after["turn_ms"]) == (2, 30_000, 0)


def test_a_switch_tells_what_it_charged_and_paid(client: FlaskClient, clock: ManualClock) -> None:
    url, _ = create(client, time_control="minutes:1+2", lag_compensation={"per_move_ms": 100, "quota_ms": 1000})
    command(client, url, "start")
    clock.advance_ms(5000)
    answer = client.post(f"{url}/switch", headers={"Prefer": "return=minimal"}, json={"acted_at_ms": NOON_MS + 4700})
    CommandAnswer.model_validate_json(answer.data)
    data = answer.get_json()["data"]
    assert data["event"] == {
        "type": "cycle_switched",
        "at_ms": NOON_MS + 5000,
        "participant_id": "white",
        "next_participant_id": "black",
        "remaining_ms": 57_300,
        "spent_ms": 4700,
        "bonus_ms": 2000,
        "lag_ms": 300,
    }
    assert data["patch"]["participants"]["white"] == {
        "time_used_ms": 4700,
        "time_remaining_ms": 57_300,
        "cycle_count": 1,
        "is_active": False,
        "has_expired": False,
        "stage": 1,
        "moves_to_next_stage": None,
        "periods_left": None,
        "period_remaining_ms": None,
        "block_moves_left": None,
        "turn_ms": 0,
        "lag_left_ms": 800,
    }


def test_the_time_of_an_act_is_given_once(client: FlaskClient) -> None:
    url, _ = create(client, time_control="minutes:1+2")
    command(client, url, "start")
    answer = client.post(f"{url}/switch", json={"spent_ms": 1, "acted_at_ms": 1})
    assert expect_faults(answer) == {"acted_at_ms": "contradiction"}
    assert expect_faults(client.post(f"{url}/switch", json={"spent_ms": -1})) == {"spent_ms": "greater_than_equal"}


def test_a_list_shows_the_phase_of_each_clock(client: FlaskClient, clock: ManualClock) -> None:
    plain = [{"participant_id": "white", "total_time_ms": 5000}]
    create(client, participants=plain)
    url, _ = create(client, time_control={"stages": [BYO_YOMI]})
    command(client, url, "start")
    clock.advance_ms(MINUTE_MS + 1000)
    answer = client.get("/v1/sessions")
    ListAnswer.model_validate_json(answer.data)
    listed = {each["status"]: each["clock"] for each in answer.get_json()["data"]["sessions"]}
    assert "phase" not in listed["pending"]
    assert listed["running"] == client.get(url).get_json()["data"]["clock"]
    assert listed["running"]["phase"] == "period"


def test_a_batch_runs_the_new_commands(client: FlaskClient, clock: ManualClock) -> None:
    urls = [create(client, time_control="minutes:1+2", takeback_cycles=1)[0] for _ in range(2)]
    ids = [url.rsplit("/", 1)[1] for url in urls]
    for url in urls:
        command(client, url, "start")
    command(client, urls[0], "switch")

    def statuses(name: str, **args: Any) -> list[int]:
        answer = client.post("/v1/sessions/batch", json={"command": name, "session_ids": ids, "args": args})
        return [each["status"] for each in answer.get_json()["data"]["results"]]

    assert statuses("takeback", reason="agreed") == [200, 400]
    assert statuses("adjust", op="add", ms=1000, targets="all") == [200, 200]
    assert statuses("reopen") == [400, 400]
    assert statuses("complete") == [200, 200]
    assert statuses("reopen") == [200, 200]
    refused = client.post("/v1/sessions/batch", json={"command": "takeback", "session_ids": ids, "args": {"cycles": 0}})
    assert expect_faults(refused) == {"args.cycles": "greater_than_equal"}


def test_rules_of_the_whole_control_are_shown_as_given(client: FlaskClient) -> None:
    rules = {"first_bonus": "before_move", "margin_ms": 500, "charge_unit_ms": 1000, "min_charge_ms": 1000}
    stage = {"time_ms": MINUTE_MS, "increment_ms": 1000, "cap_ms": 2 * MINUTE_MS}
    _, state = create(client, time_control={"stages": [stage], **rules})
    assert state["time_control"] == document(stage, **rules)
    assert state["time_control"].keys() == {"stages", *RULES}
    assert state["participants"][0]["time_remaining_ms"] == MINUTE_MS + 1000

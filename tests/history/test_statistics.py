"""Statistics of a session's cycles."""

from __future__ import annotations

import uuid
from collections.abc import Callable

from flask.testing import FlaskClient

from syncapp.api.reference.history_schemas import StatisticsAnswer
from tests.support.played_game import answer_data, play_game
from tests.support.rest import CHESS, MODES
from tests.support.store import ManualClock


def test_statistics_count_each_cycle_with_what_was_charged_to_it(
    client: FlaskClient, clock: ManualClock, logged: Callable[[], int]
) -> None:
    url, said = play_game(client, clock)
    logged()
    answer = client.get(f"{url}/statistics")
    StatisticsAnswer.model_validate_json(answer.data)
    found = answer_data(answer)
    white, black = found["participants"]
    # White: 2000; then 250 before the pause and 3000 after it. Black: 1500; and 710 that were not ended by a switch.
    assert white == {
        "participant_id": "white", "cycles": 2, "total_ms": 5250, "mean_ms": 2625, "longest_ms": 3250, "open_ms": 0,
    }  # fmt: skip
    assert black == {
        "participant_id": "black", "cycles": 1, "total_ms": 2210, "mean_ms": 1500, "longest_ms": 1500, "open_ms": 710,
    }  # fmt: skip
    assert (found["cycles"], found["total_ms"], found["mean_ms"]) == (3, 7460, 2250)
    for person, told in zip(said[-1]["participants"], found["participants"], strict=True):
        assert (person["cycle_count"], person["time_used_ms"]) == (told["cycles"], told["total_ms"])


def test_statistics_of_a_session_without_turns_or_without_cycles(
    client: FlaskClient, clock: ManualClock, logged: Callable[[], int]
) -> None:
    url = client.post("/v1/sessions", json=MODES["global"]).headers["Location"]
    pending = client.post("/v1/sessions", json=CHESS).headers["Location"]
    for command in ("start", "switch", "pause"):
        client.post(f"{url}/{command}")
        clock.advance_ms(1000)
    logged()
    found = answer_data(client.get(f"{url}/statistics"))
    assert found["participants"] == []
    assert (found["cycles"], found["total_ms"], found["longest_ms"], found["open_ms"]) == (1, 2000, 1000, 1000)
    found = answer_data(client.get(f"{pending}/statistics"))
    assert [(person["cycles"], person["mean_ms"]) for person in found["participants"]] == [(0, None), (0, None)]


def test_statistics_are_of_the_newest_life(client: FlaskClient, clock: ManualClock, logged: Callable[[], int]) -> None:
    session_id = str(uuid.uuid4())
    url, _ = play_game(client, clock, session_id=session_id)
    client.delete(url)
    clock.advance_ms(1)
    client.post("/v1/sessions", json=CHESS | {"session_id": session_id})
    client.post(f"{url}/start")
    clock.advance_ms(5)
    client.post(f"{url}/switch")
    logged()
    found = answer_data(client.get(f"{url}/statistics"))
    assert (found["cycles"], found["total_ms"], found["epoch"]) == (1, 5, clock.now_ms - 5)

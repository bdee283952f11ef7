"""A game played over REST."""

from __future__ import annotations

from typing import Any

from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from tests.support.rest import CHESS
from tests.support.store import ManualClock


def answer_data(answer: TestResponse) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.get_json()["data"]


def play_game(client: FlaskClient, clock: ManualClock, **more: Any) -> tuple[str, list[dict[str, Any]]]:
    """Play a game; return its path, and its state after each commit."""
    made = client.post("/v1/sessions", json=CHESS | more)
    url = made.headers["Location"]
    said = [made.get_json()["data"]]
    moves = ("start", "switch", "switch", "pause", "resume", "switch", "adjust", "complete")
    for wait_ms, command in zip((5, 2000, 1500, 250, 60_000, 3000, 10, 700), moves, strict=True):
        clock.advance_ms(wait_ms)
        body = {"op": "add", "ms": 5000} if command == "adjust" else None
        said.append(answer_data(client.post(f"{url}/{command}", json=body)))
    return url, said

"""Games with time controls, over REST."""

from __future__ import annotations

from typing import Any

from flask.testing import FlaskClient

from syncapp.api.reference.schemas import StateAnswer
from tests.support.time_controls import document

MINUTE_MS = 60_000
MONTH_MS = 30 * 24 * 60 * MINUTE_MS
PLAYERS = [{"participant_id": name} for name in ("white", "black")]
GAME = {"sync_mode": "per_participant", "participants": PLAYERS}
TOURNAMENT = document(
    {"time_ms": 90 * MINUTE_MS, "moves": 40, "increment_ms": 30_000},
    {"time_ms": 30 * MINUTE_MS, "increment_ms": 30_000},
)
BYO_YOMI = {"time_ms": MINUTE_MS, "periods": 3, "period_ms": 30_000}
CANADIAN = {"time_ms": MINUTE_MS, "period_moves": 2, "period_ms": 30_000}


def create(client: FlaskClient, **more: Any) -> tuple[str, dict[str, Any]]:
    """Create a session, and return its path and its state."""
    made = client.post("/v1/sessions", json=GAME | more)
    assert made.status_code == 201, made.text
    StateAnswer.model_validate_json(made.data)
    return made.headers["Location"], made.get_json()["data"]


def command(client: FlaskClient, url: str, name: str, **body: Any) -> dict[str, Any]:
    """Run a command, and return the state."""
    answer = client.post(f"{url}/{name}", json=body)
    assert answer.status_code == 200, answer.text
    StateAnswer.model_validate_json(answer.data)
    state: dict[str, Any] = answer.get_json()["data"]
    return state

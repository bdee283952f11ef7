"""Request bodies, and checks of error answers."""

from __future__ import annotations

import uuid
from typing import Any

from werkzeug.test import TestResponse

from syncapp.api.reference.schemas import ErrorAnswer

CHESS: dict[str, Any] = {
    "sync_mode": "per_participant",
    "participants": [{"participant_id": name, "total_time_ms": 300_000} for name in ("white", "black")],
    "increment_ms": 3000,
}
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
UNKNOWN = str(uuid.UUID(int=0))


def expect_error(response: TestResponse, status: int, code: str) -> dict[str, Any]:
    """Check the form of an error answer, and return its error."""
    assert response.status_code == status
    assert response.content_type == "application/json"
    ErrorAnswer.model_validate_json(response.data)
    found: dict[str, Any] = response.get_json()["error"]
    assert found["code"] == code
    return found


def expect_faults(response: TestResponse) -> dict[str, str]:
    return {item["field"]: item["code"] for item in expect_error(response, 400, "VALIDATION_ERROR")["details"]}

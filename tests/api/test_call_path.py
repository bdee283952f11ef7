"""The path of a command from its view to its script: at most five calls."""

from __future__ import annotations

import inspect
from pathlib import Path
from types import CodeType
from typing import Any

import pytest
from flask.testing import FlaskClient

from syncapp.api import sessions
from syncapp.store.scripts import Scripts
from tests.support.paths import ROOT

MAX_CALLS = 5
GAME = {
    "sync_mode": "per_participant",
    "participants": [{"participant_id": name, "total_time_ms": 300_000} for name in ("white", "black")],
}


def frames_above(view: CodeType) -> list[str]:
    """Return our package's frames from a view (left out) to the caller of this function's caller, outermost first."""
    names: list[str] = []
    for frame in inspect.stack()[2:]:
        if frame.frame.f_code is view:
            return names[::-1]
        if Path(frame.filename).is_relative_to(ROOT / "syncapp"):
            names.append(frame.function)
    raise AssertionError("the view is not on the stack")


def test_a_view_reaches_its_script_in_at_most_five_calls(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    paths: list[list[str]] = []
    url = client.post("/v1/sessions", json=GAME).headers["Location"]
    assert client.post(f"{url}/start").status_code == 200
    call = Scripts.commit

    def recorded(self: Scripts, name: str, *arguments: Any) -> Any:
        if name == "switch_session":
            paths.append(frames_above(sessions.switch.__code__))
        return call(self, name, *arguments)

    monkeypatch.setattr(Scripts, "commit", recorded)
    assert client.post(f"{url}/switch").status_code == 200
    (path,) = paths
    assert len(path) + 1 <= MAX_CALLS, path  # the last call is that of the script

"""The numbers in app.json fit into the plans it names, twice: during a deployment two releases overlap."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from syncapp import capacity
from syncapp.config import Settings

APP: dict[str, Any] = json.loads((Path(__file__).parent.parent / "app.json").read_text())
ENV = {name: each["value"] for name, each in APP["env"].items()}
SETTINGS = Settings.from_env(ENV)
WEB_PROCESSES = APP["formation"]["web"]["quantity"] * int(ENV["WEB_CONCURRENCY"])
WORKERS = APP["formation"]["worker"]["quantity"]
RELEASES = 2


def test_postgresql_has_room_for_two_releases_a_migration_and_an_operator() -> None:
    assert "heroku-postgresql:essential-0" in APP["addons"]
    one = WEB_PROCESSES * capacity.postgresql_of_web(SETTINGS) + WORKERS * capacity.postgresql_of_worker(SETTINGS)
    more = capacity.POSTGRESQL_OF_A_RELEASE + capacity.POSTGRESQL_OF_A_COMMAND
    assert RELEASES * one + more <= 20

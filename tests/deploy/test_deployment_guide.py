"""docs/deployment.md says what the code does; its rights and its backups are tried in files of their own."""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from syncapp import connection_limits
from syncapp.config import Settings
from syncapp.dev.runner import procfile

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "deployment.md").read_text()
SETTINGS = {each.name.upper(): each.default for each in fields(Settings)}
GENERATED = secrets.token_hex()
"""In place of the secret that Heroku generates."""
OTHERS = {
    # of compose
    "POSTGRES_PASSWORD",
    "PUBLISHED_PORT",
    "VALKEY_MAXMEMORY",
    "VALKEY_APPENDFSYNC",
    # words of SQL, ACLs and error replies, and what a reader fills in
    "OWNER_PASSWORD",
    # error codes
    "NOT_REPLICATED",
    "STORE_UNAVAILABLE",
}


def section(name: str) -> str:
    return TEXT.split(f"\n## {name}\n", 1)[1].split("\n## ", 1)[0]


def test_every_setting_that_is_named_exists_with_the_default_beside_it() -> None:
    named = set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", TEXT))
    assert named - OTHERS <= set(SETTINGS)
    for name, value in re.findall(r"`([A-Z_]+)` \((\d+)(?: s| MiB)?\)", TEXT):
        assert float(value) == SETTINGS[name], name


def test_processes_have_the_commands_of_the_procfile() -> None:
    table = dict(re.findall(r"^\| (web|worker|release) \| `(.+)` \| ", TEXT.split("\n## ")[0], re.MULTILINE))
    assert table == procfile()


def test_numbers_of_connections_are_those_of_the_code() -> None:
    def both(settings: Settings, webs: int) -> tuple[int, int]:
        return (
            webs * connection_limits.postgresql_of_web(settings) + connection_limits.postgresql_of_worker(settings),
            webs * connection_limits.redis_of_web(settings) + connection_limits.redis_of_worker(settings),
        )

    app: dict[str, Any] = json.loads((ROOT / "app.json").read_text())["env"]
    text = " ".join(section("Connections").split())
    small = both(Settings.from_env({name: each.get("value", GENERATED) for name, each in app.items()}), 2)
    assert f"take {small[0]} connections to PostgreSQL and {small[1]} to Redis" in text
    usual = both(Settings(), Settings().web_concurrency)
    assert f"With the defaults they take {usual[0]} and {usual[1]}:" in text


def test_heroku_by_hand_sets_what_the_button_sets() -> None:
    app: dict[str, Any] = json.loads((ROOT / "app.json").read_text())
    lines = " ".join(re.findall(r"heroku config:set (.*)", TEXT)).replace('"$(openssl rand -hex 32)"', GENERATED)
    given = {name: each.get("value", GENERATED) for name, each in app["env"].items()}
    assert dict(word.split("=") for word in lines.split()) == given
    assert re.findall(r"heroku addons:create (\S+)", TEXT) == app["addons"]


def test_files_that_are_named_exist() -> None:
    for name in [*re.findall(r"`((?:deploy/)[\w.-]+)`", TEXT), "Dockerfile", "compose.yaml", "app.json"]:
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(#([\w-]+)\)", TEXT))))
def test_links_within_the_guide_lead_somewhere(target: str) -> None:
    headings = {
        re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-")
        for line in re.findall(r"^##+ (.+)$", TEXT, re.MULTILINE)
    }
    assert target in headings

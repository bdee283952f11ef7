"""The version and the licence are stated once, and everything else shows the same."""

from __future__ import annotations

import re
from pathlib import Path

from syncapp import __version__
from syncapp.api.reference.openapi import INFO

ROOT = Path(__file__).parents[2]


def test_the_changelog_knows_the_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    released = re.findall(r"^## \[(\d+\.\d+\.\d+)\]", text, re.MULTILINE)
    assert __version__ in released[:1] or f"Version {__version__} is not released yet" in text


def test_only_the_package_states_the_version() -> None:
    assert INFO["version"] == __version__
    stated = [path for path in (ROOT / "syncapp").rglob("*.py") if f'"{__version__}"' in path.read_text()]
    assert [path.name for path in stated] == ["__init__.py"]


def test_the_api_names_the_licence_of_the_repository() -> None:
    name = (ROOT / "LICENSE").read_text().splitlines()[0]
    assert INFO["license"] == {"name": name, "identifier": "MIT"}

"""The package of the Python client: what it depends on, and what its README says."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import syncapp_client
from syncapp_client import Client, Game
from tests.support.paths import ROOT

FOLDER = ROOT / "clients/python"
MODULES = sorted((FOLDER / "syncapp_client").glob("*.py"))
README = (FOLDER / "README.md").read_text()
MAX_LINES = 300


def imported(path: Path) -> set[str]:
    """Return the packages that a file imports."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def test_the_client_imports_its_dependencies_and_nothing_of_the_service() -> None:
    project = tomllib.loads((FOLDER / "pyproject.toml").read_text())["project"]
    depends = {re.split(r"\W", each)[0] for each in project["dependencies"]}
    used = set().union(*map(imported, MODULES)) - set(sys.stdlib_module_names) - {"syncapp_client"}
    assert used == depends == {"requests", "websockets"}


def test_the_service_does_not_import_the_client() -> None:
    assert not [path for path in (ROOT / "syncapp").rglob("*.py") if "syncapp_client" in imported(path)]
    installed = (ROOT / "requirements.txt").read_text()
    assert not re.search(r"^requests\b", installed, re.MULTILINE)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_no_module_of_the_client_is_too_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_the_package_is_typed_and_exports_what_it_lists() -> None:
    assert (FOLDER / "syncapp_client/py.typed").exists()
    assert all(hasattr(syncapp_client, name) for name in syncapp_client.__all__)


def test_the_readme_names_every_member() -> None:
    for section, kind, own in (("connect", Game, {"id", "base"}), ("Client", Client, {"base", "links"})):
        (text,) = re.findall(rf"^## [^\n]*`{section}`\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)
        members = own | {name for name in vars(kind) if not name.startswith("_")}
        commands = {"switch", "pause", "resume", "adjust", "takeback", "reopen", "complete", "cancel", "update"}
        expected = members - (commands if kind is Client else set())
        missing = [name for name in expected if not re.search(rf"`[^`\n]*\b{name}\b", text)]
        assert missing == [], section


def test_the_program_of_the_readme_runs(web_url: str) -> None:
    (program,) = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", program.replace("http://127.0.0.1:8000", web_url)],
        cwd=FOLDER,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["pending", "running", "running", "completed"]
    assert all(int(time_ms) > 170_000 for line in done.stdout.splitlines() for time_ms in line.split()[1:])

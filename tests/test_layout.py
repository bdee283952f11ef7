"""The tests mirror the packages of syncapp, in files that one can read at a sitting."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.paths import ROOT

TESTS = ROOT / "tests"
FILES = sorted(path for path in TESTS.rglob("*.py") if "node_modules" not in path.parts)
MOST_LINES = 500
NO_PACKAGE = {"browser", "clients", "deploy", "docs", "lua", "support", "system"}
"""Directories for what is not in one package: scripts, documents, files of deployments, several processes, helpers."""


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_no_file_of_the_tests_is_longer_than_500_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MOST_LINES


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_helpers_of_several_files_are_in_support(path: Path) -> None:
    assert not re.search(r"^ *(from|import) (tests\.([\w.]+\.)?)?(test_\w+|conftest)\b", path.read_text(), re.MULTILINE)


def test_every_package_has_a_directory_of_tests_and_every_such_directory_a_package() -> None:
    assert {path.parent.name for path in TESTS.glob("*/__init__.py")} - NO_PACKAGE == {
        path.parent.name for path in (ROOT / "syncapp").glob("*/__init__.py")
    }

"""docs/libraries.md is about the versions that are pinned, and names modules and scripts that there are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = next(each for each in Path(__file__).parents if (each / "pyproject.toml").exists())
PAGE = (ROOT / "docs/libraries.md").read_text()


def pinned() -> dict[str, str]:
    lines = "\n".join((ROOT / name).read_text() for name in ("requirements.txt", "requirements-dev.txt"))
    found = re.findall(r"^([\w-]+)(?:\[\w+\])?==([\w.]+)", lines, re.MULTILINE)
    return {name.lower(): version for name, version in found} | {"redis-py": dict(found)["redis"]}


def test_the_libraries_that_we_override_are_named_with_the_versions_that_are_pinned() -> None:
    table = PAGE.split("| library | we depend on |")[1].split("\n\n")[0]
    named = re.findall(r"(?:^\| |, )([A-Za-z][\w-]*) (\d[\d.]*)(?=[, ]| \|)", table, re.MULTILINE)
    assert len(named) >= 7
    assert dict(named) == {name: pinned()[name.lower()] for name, _ in named}


def test_every_module_and_script_that_is_named_is_there() -> None:
    packages = sorted(each.name for each in (ROOT / "syncapp").iterdir() if (each / "__init__.py").exists())
    modules = re.findall(rf"`((?:{'|'.join(packages)})/\w+)`", PAGE)
    assert len(modules) > 30
    assert not [module for module in modules if not (ROOT / f"syncapp/{module}.py").exists()]
    assert not [path for path in re.findall(r"findings/[\w.-]+\.sh", PAGE) if not (ROOT / path).exists()]

"""The packages of `syncapp`: imports go in one direction, and some things are done in one module only.

Also what holds for every Python file.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from syncapp.domain.modes import MODES
from tests.support.paths import ROOT

PACKAGE = ROOT / "syncapp"
MODULES = sorted(PACKAGE.rglob("*.py"))
BASE = {"config", "errors", "logs", "loops", "metrics", "redis_url", "token_bucket"}
"""Top modules that every package but `domain` may import."""
MAY_IMPORT = {
    "domain": {"errors"},
    "access": BASE | {"domain"},
    "store": BASE | {"domain"},
    "realtime": BASE | {"domain", "store"},
    "postgres": BASE,
    "audit": BASE | {"domain", "store", "postgres"},
    "history": BASE | {"domain", "store", "postgres", "audit"},
    "server": BASE | {"domain", "access", "store", "realtime"},
    "api": BASE | {"domain", "access", "store", "realtime", "postgres", "audit", "history", "server"},
    # Top modules.
    "errors": set(),
    "loops": {"errors", "metrics"},
    "metrics": set(),
    "redis_url": set(),
    "token_bucket": set(),
    "config": {"environment", "domain.limits"},
    "environment": {"setting_checks"},
    "setting_checks": {"access.origins", "access.token_keys", "redis_url"},
    "logs": {"config"},
    "alerts": {"config", "metrics"},
    "connection_limits": {"config", "store"},
    "task_queue": {"config", "errors", "store"},
    "queue_server": {"config", "errors", "store"},
    "tasks": BASE | {"alerts", "audit", "connection_limits", "postgres", "queue_server", "store", "task_queue"},
    "cli": BASE
    | {"access", "alerts", "audit", "dev", "domain", "history", "postgres", "queue_server", "store", "task_queue"},
    "dev": {"access", "config", "errors", "server"},
    "__main__": {"config"},
    "__init__": {"*"},
}
FLASK = {"server", "api", "cli", "__init__"}
FRAMEWORKS = {
    "flask": FLASK,
    "flask_sock": FLASK,
    "werkzeug": FLASK,
    "websockets": {"server"},
    "gunicorn": {"server"},
    "httptools": {"server"},
    "huey": {"queue_server", "task_queue", "tasks"},
    "jwt": {"access"},
    "cryptography": {"access"},
    "psycopg2": {"postgres", "audit", "history", "cli", "dev", "setting_checks", "tasks"},
}
MAX_LINES = 300


def name_of(path: Path) -> str:
    """Return a module's name in the package: `store.keys`, `errors`, `__init__`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def place(path: Path) -> str:
    """Return the package or the top module that a file belongs to."""
    return name_of(path).split(".")[0]


NAMES = {name_of(path) for path in MODULES}


def imported(path: Path) -> Iterator[str]:
    """Yield the dotted name of everything that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def ours(path: Path) -> Iterator[str]:
    """Yield the modules of the package that a file imports."""
    for name in imported(path):
        parts = name.removeprefix("syncapp.").split(".")
        if name.startswith("syncapp.") and parts[0] in {each.split(".")[0] for each in NAMES}:
            yield next(".".join(parts[:size]) for size in range(len(parts), 0, -1) if ".".join(parts[:size]) in NAMES)


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_in_the_direction_of_the_table(path: Path) -> None:
    allowed = MAY_IMPORT[place(path)]
    for name in ours(path):
        package = name.split(".")[0]
        assert {package, name, "*"} & (allowed | {place(path)}), f"{name_of(path)} imports {name}"


def test_no_module_imports_itself_in_a_circle() -> None:
    graph = {name_of(path): set(ours(path)) - {name_of(path)} for path in MODULES}
    # `create_app` imports what it wires together when it is called.
    graph["__init__"] = set()
    assert list(TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_frameworks_stay_where_they_belong(path: Path) -> None:
    for name in imported(path):
        assert place(path) in FRAMEWORKS.get(name.split(".")[0], {place(path)}), name


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_module_is_too_long(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_every_silenced_check_has_its_reason_beside_it() -> None:
    directive = r"# (noqa|type: ignore|pragma: no cover)"
    bare = re.compile(rf"{directive}(\[[^]]*\]|: [A-Z]+\d+(, ?[A-Z]+\d+)*)?\s*($|{directive})")
    listed = subprocess.check_output(["git", "ls-files", "-z", "*.py"], cwd=ROOT, text=True).split("\0")
    found = [
        f"{name}:{number}"
        for name in filter(None, listed)
        for number, line in enumerate((ROOT / name).read_text().splitlines(), 1)
        if bare.search(line)
    ]
    assert found == []


def test_no_two_classes_have_one_name() -> None:
    names = Counter(
        node.name
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    )
    assert not [name for name, count in names.items() if count > 1]


@pytest.mark.parametrize(
    ("pattern", "only"),
    [
        (
            r"\bos\.(environ|getenv)\b",
            {"environment", "metrics", "dev.runner", "dev.processes", "dev.servers"},
        ),
        (r"\"sync:|'sync:|\bf\"\{[^}]*\}session:", {"store.keys"}),
        (r"\b(Counter|Gauge|Histogram)\(\s*\"", {"metrics"}),
    ],
)
def test_some_things_are_done_in_one_module_only(pattern: str, only: set[str]) -> None:
    users = {name_of(path) for path in MODULES if re.search(pattern, path.read_text())}
    assert users <= only


def test_only_the_table_of_modes_names_a_mode() -> None:
    tables = {"domain.modes", "api.reference.examples", "api.reference.response_examples"}
    for path in MODULES:
        named = {
            node.value
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and node.value in MODES
        }
        assert not named or name_of(path) in tables, f"{name_of(path)} names {named}"


def test_a_store_can_be_used_without_flask() -> None:
    code = "import sys, syncapp.store.sessions; sys.exit('flask' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

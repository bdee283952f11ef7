"""Evidence for the validation report: a run of two processes, coverage, a search of the source, tests."""

from __future__ import annotations

import ast
import io
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path

import coverage

from bench import relay
from bench.acceptance import Row
from bench.rig import Rig
from syncapp.dev.processes import end_leftovers

ROOT = Path(__file__).resolve().parent.parent
_CHANGING = frozenset(
    {"append", "add", "update", "pop", "popitem", "clear", "extend", "setdefault", "remove", "insert", "discard"}
)


def two_processes() -> relay.Relay:
    """Let two processes take turns, on private servers."""
    directory = Path(tempfile.mkdtemp(prefix="syncapp-validate-"))
    try:
        with Rig(directory) as rig:
            return relay.run(rig)
    finally:
        end_leftovers(directory)
        shutil.rmtree(directory, ignore_errors=True)


def covered(components: Iterable[tuple[str, Sequence[str]]]) -> dict[str, float]:
    """Return the coverage, by name, of the last complete run of the suite; run it if there is none."""
    data = ROOT / ".coverage"
    if not data.exists():
        print("No coverage yet: running the whole suite.", flush=True)
        subprocess.run([sys.executable, "-m", "pytest", "-q", "--cov"], cwd=ROOT, check=False)
    found = coverage.Coverage(data_file=str(data), config_file=str(ROOT / "pyproject.toml"))
    found.load()
    return {name: _share(found, paths) for name, paths in components}


def _share(found: coverage.Coverage, include: Sequence[str]) -> float:
    try:
        with redirect_stdout(io.StringIO()):
            return found.report(include=[str(ROOT / each) for each in include], file=io.StringIO())
    except coverage.exceptions.NoDataError:  # a run that covered none of these
        return 0.0


def local_state() -> list[str]:
    """Return the state that modules keep between requests: `global` statements, module-level values that change."""
    found: list[str] = []
    for path in sorted((ROOT / "syncapp").rglob("*.py")):
        tree = ast.parse(path.read_text())
        names = {name for node in tree.body for name in _assigned(node)}
        for node in ast.walk(tree):
            where = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Global):
                found.append(f"{where}: global {', '.join(node.names)}")
            found += [f"{where}: {name} is changed" for name in _changed(node) if name in names]
    return found


def _targets(node: ast.AST) -> list[ast.expr]:
    if isinstance(node, ast.Assign | ast.Delete):
        return node.targets
    return [node.target] if isinstance(node, ast.AnnAssign | ast.AugAssign) else []


def _assigned(node: ast.AST) -> Iterator[str]:
    """Yield the names that a statement assigns to."""
    yield from (target.id for target in _targets(node) if isinstance(target, ast.Name))


def _changed(node: ast.AST) -> Iterator[str]:
    """Yield the names whose values a node changes in place."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGING:
        values = [node.func.value]
    else:
        values = [target.value for target in _targets(node) if isinstance(target, ast.Subscript)]
    yield from (value.id for value in values if isinstance(value, ast.Name))


def run_tests(rows: Iterable[Row]) -> dict[str, bool]:
    """Run the tests that rows name; return whether all of each name passed."""
    names = sorted({name for row in rows for name in row.tests})
    ids = [f"tests/{name}" for name in names]
    with tempfile.NamedTemporaryFile(suffix=".xml") as file:
        command = [sys.executable, "-m", "pytest", "-q", "--no-cov", f"--junitxml={file.name}", *ids]
        subprocess.run(command, cwd=ROOT, check=False)
        cases = [
            (str(case.get("classname")), str(case.get("name")), len(case) == 0)
            for case in ElementTree.parse(file.name).iter("testcase")
        ]
    return {name: _passed(name, cases) for name in names}


def _passed(name: str, cases: Sequence[tuple[str, str, bool]]) -> bool:
    path, _, test = name.partition("::")
    module = "tests." + path.removesuffix(".py").replace("/", ".")
    mine = [
        ok
        for where, called, ok in cases
        if f"{where}.".startswith(f"{module}.") and (not test or called.split("[")[0] == test)
    ]
    return bool(mine) and all(mine)


def goes_through(*command: str) -> bool:
    """Return whether `python -m` with these arguments succeeds."""
    done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, capture_output=True, check=False)
    return done.returncode == 0

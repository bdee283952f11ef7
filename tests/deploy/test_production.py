"""Production: an environment made of requirements.txt alone runs every line of the Procfile.

The development environment has more installed, which hides what requirements.txt lacks. NO_NETWORK=1 skips the tests
that install packages, on a machine without access to a package index.
"""

from __future__ import annotations

import ast
import importlib.metadata
import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import psycopg2
import pytest
import redis as redis_py
import requests
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from syncapp.dev.ports import free_port
from syncapp.dev.processes import Process
from syncapp.dev.runner import ROOT, App, Web, app_env
from syncapp.dev.servers import Servers
from tests.support.cluster import scratch_database

DEVELOPMENT = ROOT / "syncapp" / "dev"
"""The package that only `make run` and the tests use."""
PRODUCTION = sorted(path for path in (ROOT / "syncapp").rglob("*.py") if not path.is_relative_to(DEVELOPMENT))
PYTHONS = ("3.11.0", "3.11.14", "3.12.0", "3.13.0", "3.14.0")

pytestmark = pytest.mark.timeout(600)  # pip installs 40 packages: 8 s, and minutes on a busy machine


class Environment(NamedTuple):
    """A virtual environment that has what requirements.txt says, and no pip."""

    directory: Path

    @property
    def path(self) -> str:
        """PATH of its processes: its own commands, and the system's shell."""
        return os.pathsep.join((str(self.directory / "bin"), "/usr/bin", "/bin"))

    def run(self, *argv: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command at the top of the repository, with nothing from the tests' own environment."""
        return subprocess.run(
            [self.directory / "bin" / argv[0], *argv[1:]],
            cwd=ROOT,
            env={"PATH": self.path, "AUTH": "off", **env},
            capture_output=True,
            text=True,
            check=False,
        )

    def distributions(self) -> dict[str, importlib.metadata.Distribution]:
        """Return what is installed, by normalised name."""
        (site,) = self.directory.glob("lib/python*/site-packages")
        return {canonicalize_name(found.name): found for found in importlib.metadata.distributions(path=[str(site)])}


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    if os.environ.get("NO_NETWORK"):
        pytest.skip("NO_NETWORK is set: packages cannot be installed")
    directory = tmp_path_factory.mktemp("production") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", directory], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(directory / "bin" / "python"), "--disable-pip-version-check"]
    done = subprocess.run(
        [*pip, "install", "--quiet", "-r", ROOT / "requirements.txt"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"pip could not install requirements.txt (offline? set NO_NETWORK=1):\n{done.stderr}"
    return Environment(directory)


class Pins(NamedTuple):
    """The lines of requirements.txt: what SyncApp imports itself, and what these need."""

    ours: list[Requirement]
    theirs: list[Requirement]

    def names(self, python: str) -> set[str]:
        """Return the normalised names of what is installed on a version of Python."""
        return {canonicalize_name(pin.name) for pin in (*self.ours, *self.theirs) if applies(pin, python)}


def pins(name: str = "requirements.txt") -> Pins:
    ours, theirs = (ROOT / name).read_text().split("# Needed by these.\n")
    return Pins(*([Requirement(line) for line in part.splitlines() if line[:1].isalpha()] for part in (ours, theirs)))


def applies(requirement: Requirement, python: str, extra: str = "") -> bool:
    where = {"python_full_version": python, "python_version": python.rpartition(".")[0], "extra": extra}
    return requirement.marker is None or requirement.marker.evaluate(where)


def imports(path: Path) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield each import statement of a module that runs, those within functions too, unless it is expected to fail."""
    todo: list[ast.AST] = [ast.parse(path.read_text())]
    while todo:
        node = todo.pop()
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.Try) and "ImportError" in [
            each.type and ast.unparse(each.type) for each in node.handlers
        ]:
            continue
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            todo += ast.iter_child_nodes(node)


def production_imports() -> list[ast.Import | ast.ImportFrom]:
    files = (*PRODUCTION, ROOT / "wsgi.py", ROOT / "gunicorn.conf.py")
    return [
        each for path in files for each in imports(path) if ast.unparse(each) != "from __future__ import annotations"
    ]


def test_requirements_for_production_come_first_and_no_other_file_repeats_them() -> None:
    everywhere = PYTHONS[-1]
    production_names = pins().names(everywhere)
    assert not production_names & pins("requirements-dev.txt").names(everywhere)
    bench = (ROOT / "requirements-bench.txt").read_text().splitlines()
    assert not production_names & {canonicalize_name(Requirement(line).name) for line in bench if line[:1].isalpha()}


def test_every_import_of_production_works_with_requirements_txt_alone(production: Environment) -> None:
    statements = "\n".join(dict.fromkeys(map(ast.unparse, production_imports())))
    done = production.run("python", "-c", f"from gevent import monkey\nmonkey.patch_all()\n{statements}")
    assert done.returncode == 0, done.stderr


def test_what_syncapp_imports_is_what_requirements_txt_begins_with(production: Environment) -> None:
    told = production.run(
        "python", "-c", "import importlib.metadata as m, json; print(json.dumps(m.packages_distributions()))"
    )
    distributions: dict[str, list[str]] = json.loads(told.stdout)
    modules: set[str] = set()
    for statement in production_imports():
        names = [alias.name for alias in statement.names]
        if isinstance(statement, ast.ImportFrom):
            assert statement.module, "an import relative to its package"
            names = [statement.module]
        modules |= {name.split(".")[0] for name in names}
    modules -= {"syncapp", *sys.stdlib_module_names}
    imported = {canonicalize_name(name) for module in modules for name in distributions[module]}
    assert imported == {canonicalize_name(pin.name) for pin in pins().ours}


@pytest.mark.parametrize("python", PYTHONS)
def test_the_rest_of_requirements_txt_is_what_these_declare_to_need(production: Environment, python: str) -> None:
    installed = production.distributions()
    needed: set[str] = set()
    todo = [pin for pin in pins().ours if applies(pin, python)]
    while todo:
        requirement = todo.pop()
        name = canonicalize_name(requirement.name)
        if name in needed and not requirement.extras:
            continue
        needed.add(name)
        # A package for another version of Python is not installed here; those that are pinned like this need nothing.
        declared = (installed[name].requires or []) if name in installed else []
        todo += [
            each
            for each in map(Requirement, declared)
            if any(applies(each, python, extra) for extra in ("", *requirement.extras))
        ]
    assert needed == pins().names(python)


def test_pip_installs_what_is_pinned_and_nothing_more(production: Environment) -> None:
    python = sys.version.split()[0]
    wanted = [pin for pin in (*pins().ours, *pins().theirs) if applies(pin, python)]
    installed = {name: found.version for name, found in production.distributions().items()}
    assert installed == {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in wanted}


def test_the_configuration_of_gunicorn_is_valid_with_requirements_txt_alone(production: Environment) -> None:
    done = production.run("gunicorn", "--check-config", "wsgi:app")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_each_line_of_the_procfile_starts_works_and_stops_with_requirements_txt_alone(
    production: Environment, servers: Servers, redis: redis_py.Redis, run_directory: Path
) -> None:
    with scratch_database(servers.database_url) as database_url, closing(psycopg2.connect(database_url)) as database:
        own = {"DATABASE_URL": database_url, "HOST": "127.0.0.1", "WEB_CONCURRENCY": "1", "TMPDIR": str(run_directory)}
        env = app_env({}, servers, PATH=production.path, PORT=str(free_port()), **own)
        release = App("release", env, directory=run_directory, output=run_directory / "production-release.log")
        web = Web(env, directory=run_directory, output=run_directory / "production-web.log")
        worker = App("worker", env, directory=run_directory, output=run_directory / "production-worker.log")

        release.spawn()
        assert release.wait() == 0, release.output()

        processes: list[Process] = [web, worker]
        try:
            worker.spawn()
            web.start()
            session_id = str(uuid.uuid4())
            body = {"session_id": session_id, "sync_mode": "count_up", "participants": [{"participant_id": "one"}]}
            made = requests.post(f"{web.url}/v1/sessions", json=body, timeout=30)
            assert made.status_code == 201, made.text
            for process in processes:
                assert {Path(each.cmdline()[0]).parent for each in process.tree()} == {production.directory / "bin"}
            with database.cursor() as cursor:
                while not stored(cursor, session_id):
                    assert worker.alive, worker.output()
                    time.sleep(0.05)
            database.commit()
        finally:
            for process in processes:
                process.ask_to_stop()
            for process in processes:
                process.stop()
        for process in processes:
            assert process.exit_code == 0, process.output()
            assert "Traceback" not in process.output()
            assert "No module named" not in process.output()

        given = {"REDIS_URL": servers.redis_url, "DATABASE_URL": database_url}
        verified = production.run("flask", "--app", "wsgi", "audit", "verify", **given)
        assert verified.returncode == 0, verified.stdout + verified.stderr


def stored(cursor: psycopg2.extensions.cursor, session_id: str) -> int:
    cursor.execute("SELECT count(*) FROM sync_events WHERE session_id = %s", (session_id,))
    cursor.connection.commit()
    (found,) = cursor.fetchone() or (0,)
    return int(found)


def test_the_environment_of_production_lacks_what_only_development_needs(production: Environment) -> None:
    done = production.run("python", "-c", "import honcho")
    assert done.returncode == 1
    assert "No module named 'honcho'" in done.stderr

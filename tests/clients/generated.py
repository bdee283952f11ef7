"""Generated clients play a game against a real server, and a fuzzer finds no fault: `make test-clients`.

Not part of `make test`: the tools have environments of their own (tests/clients/requirements.txt, tests/api-lint).
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cluster import Cluster, MakeCluster

HERE = Path(__file__).parent
TOOLS = HERE.parent / "api-lint"
BIN = HERE.parent.parent / ".venv/clients/bin"
EXAMPLES = os.environ.get("FUZZ_EXAMPLES", "25")
SEED = os.environ.get("FUZZ_SEED", "1")


@pytest.fixture(scope="module")
def server(make_cluster: MakeCluster) -> Cluster:
    return make_cluster(web=1)


def run(*command: str | Path, cwd: Path) -> str:
    """Run a program, and return its output; a failure shows the output."""
    env = os.environ | {"PATH": f"{BIN}:{os.environ['PATH']}", "SYNCAPP_RULES": str(HERE / "rules.py")}
    env |= {"PYTHONPATH": str(cwd)}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, f"{Path(command[0]).name}:\n{done.stdout}{done.stderr}"
    return done.stdout


def test_a_typescript_client_compiles_and_plays_a_game(server: Cluster) -> None:
    run(sys.executable, TOOLS / "lint.py", cwd=HERE.parent.parent)
    assert "played" in run("node", "generated/out/game.js", server.urls[0], cwd=TOOLS)


def test_a_python_client_passes_mypy_and_plays_a_game(server: Cluster, tmp_path: Path) -> None:
    document = f"{server.urls[0]}/api-docs.json"
    generate = (BIN / "openapi-python-client", "generate", "--url", document, "--output-path", "client")
    run(*generate, "--meta", "none", "--fail-on-warning", cwd=tmp_path)
    (tmp_path / "game.py").write_bytes((HERE / "game.py").read_bytes())
    # client.py belongs to the generator, is the same for every API, and does not pass.
    (tmp_path / "mypy.ini").write_text("[mypy]\nstrict = true\n[mypy-client.client]\nignore_errors = true\n")
    run(BIN / "mypy", "game.py", cwd=tmp_path)
    assert "played" in run(BIN / "python", "game.py", server.urls[0], cwd=tmp_path)


def test_schemathesis_finds_nothing(server: Cluster, tmp_path: Path) -> None:
    config = ("--config-file", HERE / "schemathesis.toml")
    chosen = ("--seed", SEED, "-n", EXAMPLES, "--warnings", "off")
    said = run(BIN / "st", *config, "run", f"{server.urls[0]}/api-docs.json", *chosen, cwd=tmp_path)
    print("\n".join(line for line in said.splitlines() if "generated" in line or "Tested" in line))

"""Every tutorial runs as it is written, and prints what it shows; so do the commands of the README."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import jwt
import pytest

from tests.support.cluster import Cluster, MakeCluster
from tests.support.paths import ROOT
from tests.support.types import Redis

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
TOKENS = ROOT / "docs" / "tutorials" / "tokens.md"
"""The tutorial for a server with `AUTH=required`."""
SECRET = "0f" * 32
SERVER = "127.0.0.1:8000"
"""Where the documents expect `make run`."""

LONGEST_S = 240
FENCE = re.compile(r"^```(?P<info>[^\n]*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
BEGIN, END = "@@begin", "@@end"


@dataclass
class Block:
    """A shell block of a document, and the output that is shown below it (None if there is none)."""

    line: int
    text: str
    needs_node: bool
    shown: str | None = None


def blocks_of(document: str, directory: Path, server: str) -> list[Block]:
    """Return the shell blocks (`sh`, or `sh node`), and save the scripts (`js` or `py`, with a file name)."""
    found: list[Block] = []
    end = 0
    for match in FENCE.finditer(document):
        kind, _, option = match["info"].partition(" ")
        text = match["text"].replace(SERVER, server)
        if kind == "sh":
            found.append(Block(document.count("\n", 0, match.start()) + 1, text, option == "node"))
        elif kind in ("js", "py") and option:
            (directory / option).write_text(text)
        elif kind == "text" and found and not document[end : match.start()].strip():
            found[-1].shown = text
        end = match.end()
    return found


def run(blocks: list[Block], directory: Path) -> dict[int, str]:
    """Run the blocks in one shell, in order, and return what each printed, by its line in the document."""
    script = "".join(
        f"echo {BEGIN} {block.line}\n{block.text}printf '\\n%s\\n' '{END} {block.line}'\n" for block in blocks
    )
    with subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=directory,
        # `python3` is the one that runs the tests, which has their packages.
        env={
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(directory),
            "NODE_OPTIONS": node_options() or "",
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            output, errors = shell.communicate(timeout=LONGEST_S)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)  # with the programs that it runs in the background
            output, errors = shell.communicate()
    begun = re.findall(rf"^{BEGIN} (\d+)$", output, re.MULTILINE)
    assert shell.returncode == 0, f"the block in line {begun[-1]} failed:\n{output[-3000:]}{errors[-3000:]}"
    printed = re.findall(rf"^{BEGIN} (\d+)\n(.*?)\n{END} \1\n", output, re.MULTILINE | re.DOTALL)
    return {int(line): text for line, text in printed}


def node_options() -> str | None:
    """Return the options with which this Node.js has `WebSocket` (none from 22 on), or None if it can't have it."""
    path = shutil.which("node")
    if not path:
        return None
    version = subprocess.run([path, "--version"], capture_output=True, text=True, check=True).stdout
    major, minor = (int(part) for part in version.removeprefix("v").split(".")[:2])
    if (major, minor) >= (22, 0):
        return ""
    return "--experimental-websocket --no-warnings" if (major, minor) >= (20, 10) else None


def expected(shown: str) -> re.Pattern[str]:
    """Return what output fits: `…` stands for anything within a line, and a number after `≈` for any number."""
    pattern = re.escape(shown).replace("…", r"[^\n]*")
    return re.compile(re.sub(r"≈\\ \\?-?\d+", r"[=≈] -?\\d+", pattern))


@pytest.mark.parametrize("path", [each for each in TUTORIALS if each != TOKENS], ids=lambda each: each.stem)
def test_a_tutorial_runs_as_written_and_prints_what_it_shows(path: Path, cluster: Cluster, tmp_path: Path) -> None:
    expect_as_written(path, cluster, tmp_path)


def test_the_tutorial_about_tokens_runs_as_written(make_cluster: MakeCluster, redis_url: str, tmp_path: Path) -> None:
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    cluster = make_cluster(web=1, AUTH="required", AUTH_SECRETS=SECRET)
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    expect_as_written(TOKENS, cluster, tmp_path)


@pytest.mark.parametrize(("program", "script"), [("python3", "mint.py"), ("node", "mint.mjs")])
def test_a_back_end_mints_tokens_in_ten_lines(program: str, script: str, tmp_path: Path) -> None:
    if program == "node" and not shutil.which("node"):
        pytest.skip("no Node.js here")
    blocks_of(TOKENS.read_text(), tmp_path, SERVER)
    assert len([line for line in (tmp_path / script).read_text().splitlines() if line.strip()]) <= 10
    (tmp_path / "secret").write_text(f"{SECRET}\n")
    game = "3e1f8e1a-3f44-4c55-9d0b-0f6f2b8f5a10"
    bound = {"session_id": game, "participant_id": "white"}
    for given, claims, lives_s in (
        (["anna", "session:act", game, "white"], bound, 600),
        (["anna", "session:act", game, "white", "7200"], bound, 7200),
        (["Ben Ö. 🎲", "session:create session:control"], {}, 600),
    ):
        done = subprocess.run(
            [*([sys.executable] if program == "python3" else [program]), script, *given],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=True,
        )
        token = done.stdout.removesuffix("\n")
        assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+", token)
        found = jwt.decode(token, SECRET, algorithms=["HS256"], options={"require": ["exp", "sub"]})
        assert lives_s - 10 <= found.pop("exp") - time.time() <= lives_s
        assert found == {"sub": given[0], "scope": given[1], **claims}


def expect_as_written(path: Path, cluster: Cluster, tmp_path: Path) -> None:
    """Run a tutorial's blocks, and compare what they print with what it shows."""
    every = blocks_of(path.read_text(), tmp_path, cluster.urls[0].removeprefix("http://"))
    blocks = [block for block in every if not block.needs_node or node_options() is not None]
    printed = run(blocks, tmp_path)
    for block in blocks:
        shown = block.shown or ""
        assert expected(shown).fullmatch(printed[block.line]), (
            f"{path.name}:{block.line} shows\n{shown}\nbut prints\n{printed[block.line]}"
        )


def test_the_commands_of_the_readme_run(cluster: Cluster, tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    server = cluster.urls[0].removeprefix("http://")
    blocks = blocks_of(text, tmp_path, server)
    printed = run(blocks, tmp_path)
    commands = "".join(text for line, text in printed.items() if line)
    assert re.findall(r'"error":\{"code":"(\w+)"', commands) in (["CONFLICT"], ["CONFLICT", "SESSION_NOT_FOUND"])
    assert '"cycle_count":1,' in commands


def test_every_tutorial_is_linked_from_the_readme_and_says_what_to_read_next() -> None:
    readme = (ROOT / "README.md").read_text()
    for path in TUTORIALS:
        assert f"(docs/tutorials/{path.name})" in readme
        assert re.search(r"^## What to read next\n\n- ", path.read_text(), re.MULTILINE)

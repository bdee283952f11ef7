"""`make run` as a developer uses it, and the processes that it starts."""

from __future__ import annotations

import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psutil
import psycopg2
import pytest
import requests
from redis import Redis

from syncapp.access.tokens import Authenticator
from syncapp.config import Settings
from syncapp.dev import runner
from syncapp.dev.ports import free_port, port_is_free
from syncapp.dev.processes import SUSPENDED, Process, StartError, runs
from syncapp.dev.runner import ROOT, Web, app_env, procfile
from syncapp.dev.servers import Postgres, Servers, Valkey
from syncapp.domain.principal import SCOPES
from tests.support.cluster import MakeCluster
from tests.support.make_run import Run, RunIt, runs_on_one_directory
from tests.support.network import has_ipv6

SESSION = {
    "session_id": str(uuid.uuid4()),
    "sync_mode": "per_participant",
    "participants": [{"participant_id": name, "total_time_ms": 300_000} for name in ("white", "black")],
}

RUNNER = (sys.executable, "-m", "syncapp.dev")
"""The program of `make run`, whose exit code is not make's."""


@pytest.fixture
def make_run(servers: Servers) -> Iterator[RunIt]:
    """Starts runs, all of them on one new data directory with a space in its name."""
    with runs_on_one_directory(servers) as start:
        yield start


@pytest.fixture(scope="module")
def running(servers: Servers) -> Iterator[Run]:
    """A run that has announced itself."""
    with runs_on_one_directory(servers) as start:
        run = start()
        run.wait_until_announced()
        yield run


def run_curls(run: Run) -> list[str]:
    """Run the greeting's commands in one shell; return the answers."""
    commands = re.findall(r"^  (TOKEN=.*|curl .*(?:\n    .*)*)", run.output, re.MULTILINE)
    script = "\n".join(f"{command}; echo" if command.startswith("curl") else command for command in commands)
    return subprocess.check_output(["bash", "-c", script], text=True).splitlines()


def test_the_commands_of_the_greeting_work_as_they_stand(running: Run) -> None:
    answers = [json.loads(line) for line in run_curls(running)]
    assert [answer["data"]["status"] for answer in answers] == ["pending", "running", "running"]
    flask = re.search(r"^Commands +(.*\\\n.*)$", running.output, re.MULTILINE)
    assert flask
    if ":...@" not in flask[1]:  # the password of a given server
        assert subprocess.run(["bash", "-c", flask[1]], cwd=ROOT, capture_output=True, check=False).returncode == 0
    docs = re.search(r"^API docs +(http\S+)$", running.output, re.MULTILINE)
    assert docs
    assert requests.get(docs[1], timeout=60).status_code == 200


@pytest.mark.skipif(not has_ipv6(), reason="this machine has no IPv6 loopback address")
def test_pages_of_every_origin_may_use_a_run(running: Run) -> None:
    url = re.search(r"runs at (\S+)", running.output)
    assert url
    answer = requests.get(f"{url[1]}/v1/time", headers={"Origin": "http://localhost:5173"}, timeout=60)
    assert answer.headers["Access-Control-Allow-Origin"] == "*"


def test_a_run_on_every_ipv6_address_is_announced_at_loopback(make_run: RunIt) -> None:
    run = make_run(argv=("make", "run", "HOST=[::]"))
    run.wait_until_announced()
    assert f"SyncApp runs at http://[::1]:{run.port} " in run.output
    assert f"ws://[::1]:{run.port}/ws" in run.output
    assert requests.get(f"http://[::1]:{run.port}/ready", timeout=30).status_code == 200


def test_a_run_says_who_may_do_what_and_how_to_try_it_with_tokens(running: Run) -> None:
    assert "Everyone on this machine may do everything (AUTH=off, 127.0.0.1)." in running.output
    export, create, again = running.output.split("stop it, and:\n\n")[1].splitlines()[:3]
    assert again.strip() == f"make run PORT={running.port} DATA_DIR='{running.directory}'"
    assert "ignored" not in running.output
    done = subprocess.run(
        ["bash", "-c", f'{export}; {create}; test "$AUTH" = required'],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert re.fullmatch(r"[\w-]+\.[\w-]+\.[\w-]+\n", done.stdout)


def test_a_run_on_other_addresses_without_tokens_warns(make_run: RunIt) -> None:
    run = make_run(argv=("make", "run", "HOST=0.0.0.0"))
    run.wait_until_announced()
    said = f"WARNING: everyone who reaches 0.0.0.0:{run.port} may do everything (AUTH=off, not only on this machine)."
    assert said in run.output


def test_a_run_with_tokens_is_honoured_and_its_commands_carry_one(make_run: RunIt) -> None:
    secret = secrets.token_hex(32)
    run = make_run(argv=("make", "run", "AUTH=required", f"AUTH_SECRETS={secret}"))
    run.wait_until_announced()
    web = run.child("gunicorn").environ()
    assert (web["AUTH"], web["AUTH_SECRETS"]) == ("required", secret)
    assert "Callers need a token (AUTH=required)." in run.output
    assert secret not in run.output
    (text,) = re.findall(r"^  TOKEN=(.*)$", run.output, re.MULTILINE)
    principal = Authenticator(Settings(auth="required", auth_secrets=secret)).principal(text)
    assert (principal.sub, principal.scopes) == ("make-run", frozenset(SCOPES))
    answers = [json.loads(line) for line in run_curls(run)]
    assert [answer["data"]["status"] for answer in answers] == ["pending", "running", "running"]


def test_a_run_without_auth_says_that_its_keys_are_ignored(make_run: RunIt) -> None:
    secret = secrets.token_hex(32)
    run = make_run(argv=("make", "run", f"AUTH_SECRETS={secret}"))
    run.wait_until_announced()
    assert (
        "\nWith AUTH=off, AUTH_SECRETS is ignored. To require tokens, stop it, and give AUTH=required, too:\n\n"
        f"  make run PORT={run.port} DATA_DIR='{run.directory}' AUTH=required ...\n"
    ) in run.output
    assert secret not in run.output


def test_a_run_with_tokens_needs_a_key(make_run: RunIt) -> None:
    run = make_run(argv=("make", "run", "AUTH=required"))
    assert run.wait() != 0
    assert run.output.startswith(
        "SyncApp cannot start: AUTH is required, so AUTH_SECRETS, AUTH_PUBLIC_KEYS or AUTH_JWKS"
    )


def test_a_directory_in_use_is_refused(running: Run, servers: Servers) -> None:
    second = Run(running.directory, servers, argv=["make", "run"])
    assert second.wait() != 0
    assert re.match(r"make run: .* in use .*\nmake: .*\n$", second.output)
    assert requests.get(f"{running.url}/ready", timeout=60).status_code == 200


def test_make_run_serves_until_sigterm_and_leaves_no_process_behind(make_run: RunIt) -> None:
    run = make_run()
    run.wait_until_announced()
    assert requests.get(f"{run.url}/ready", timeout=60).status_code == 200
    started = psutil.Process(run.process.pid).children(recursive=True)
    assert any("huey_consumer" in " ".join(process.cmdline()) for process in started)

    run.process.terminate()
    run.wait()
    assert "Stopped." in run.output
    assert not any(map(runs, started))
    assert run.processes() == []
    assert port_is_free("127.0.0.1", run.port)


def test_a_run_after_ctrl_c_finds_the_sessions_of_the_first(make_run: RunIt) -> None:
    first = make_run()
    first.wait_until_announced()
    made = requests.post(f"{first.url}/v1/sessions", json=SESSION, timeout=60)
    assert made.status_code == 201, made.text
    os.killpg(
        first.process.pid, signal.SIGINT
    )  # as a terminal does: to make, the runner, and the rest of their process group
    first.wait()
    assert first.processes() == []

    second = make_run()
    second.wait_until_announced()
    found = requests.get(f"{second.url}/v1/sessions/{SESSION['session_id']}", timeout=60)
    assert found.json()["data"]["epoch"] == made.json()["data"]["epoch"]


def test_a_run_recovers_from_a_killed_one(make_run: RunIt) -> None:
    killed = make_run(argv=RUNNER)
    killed.wait_until_announced()
    left = killed.processes()
    killed.process.kill()
    killed.process.wait()

    run = make_run(port=killed.port, argv=RUNNER)
    run.wait_until_announced()
    assert not any(map(runs, left))
    assert requests.get(f"{run.url}/ready", timeout=60).status_code == 200


@pytest.mark.parametrize("word", ["huey_consumer", "valkey-server"])
def test_a_process_that_dies_ends_the_run_with_an_error(make_run: RunIt, servers: Servers, word: str) -> None:
    if word == "valkey-server" and not servers.valkey:
        pytest.skip("REDIS_URL is given")
    run = make_run(argv=RUNNER)
    run.wait_until_announced()
    run.child(word).kill()
    assert run.wait() == 1
    assert "stopped unexpectedly (exit code -9)" in run.output
    assert run.processes() == []


def test_a_taken_port_is_one_line_and_starts_nothing(make_run: RunIt) -> None:
    with socket.create_server(("127.0.0.1", free_port())) as taken:
        run = make_run(port=taken.getsockname()[1], argv=RUNNER)
        assert run.wait() == 1
    assert re.fullmatch(r"make run: cannot listen on 127\.0\.0\.1:\d+ .*\n", run.output)
    assert [path.name for path in run.directory.iterdir()] == ["lock"]


def test_a_killed_valkey_keeps_what_it_acknowledged(redis: Redis, valkey: Valkey) -> None:
    redis.set("acknowledged", 1)
    valkey.kill()
    valkey.start()
    assert redis.get("acknowledged") == b"1"


def test_a_killed_postgres_keeps_what_it_committed(postgres: Postgres) -> None:
    with closing(psycopg2.connect(postgres.url)) as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE committed AS SELECT 1")
        connection.commit()
    postgres.kill()
    postgres.start()
    with closing(psycopg2.connect(postgres.url)) as connection, connection.cursor() as cursor:
        cursor.execute("DROP TABLE committed")
        connection.commit()


def test_a_paused_server_answers_again_when_it_is_let_go(valkey: Valkey) -> None:
    valkey.pause()
    try:
        assert not valkey.is_ready()
    finally:
        valkey.unpause()
    valkey.wait_ready()


def test_a_command_that_fails_at_start_says_why(tmp_path: Path) -> None:
    class Never(Process):
        def is_ready(self) -> bool:
            return False

    process = Never("it", ["sh", "-c", "echo because; exit 3"], directory=tmp_path, output=tmp_path / "log")
    with pytest.raises(StartError, match=r"it did not start \(exit code 3\):\n  because"):
        process.start()


def test_a_web_process_that_is_not_ready_says_what_is_missing_and_logs_it_once(
    servers: Servers, run_directory: Path
) -> None:
    nowhere = f"redis://127.0.0.1:{free_port()}/0"
    env = app_env(os.environ, servers, HOST="127.0.0.1", PORT=str(free_port()), WEB_CONCURRENCY="1", REDIS_URL=nowhere)
    web = Web(env, directory=run_directory, output=run_directory / "unready.log")
    try:
        web.spawn()
        while not web.unready:
            assert web.alive, web.output()
            web.is_ready()
        web.ready_timeout_s = 1
        with pytest.raises(StartError, match=r"web is not ready after 1 s: .*unavailable.*redis does not answer"):
            web.wait_ready()
        assert web.output().count("not ready: redis") == 1
    finally:
        web.stop()


def test_a_file_of_settings_is_read_and_the_environment_counts_for_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "ROOT", tmp_path)
    assert runner.dotenv() == {}
    (tmp_path / ".env").write_text("# a comment\nSESSION_TTL_S=7\nLOG_FORMAT='json'\n")
    assert runner.dotenv() == {"SESSION_TTL_S": "7", "LOG_FORMAT": "json"}


def test_a_stopped_process_takes_its_descendants_with_it(tmp_path: Path) -> None:
    process = Process("it", ["sh", "-c", "sleep 60 & wait"], directory=tmp_path, output=tmp_path / "log")
    process.start()
    while len(process.tree()) < 2:
        time.sleep(0.01)
    descendants = process.tree()
    process.stop()
    assert not any(map(runs, descendants))
    assert process.exit_code == -signal.SIGTERM


def test_a_process_is_paused_as_a_whole_while_its_descendants_come_and_go(tmp_path: Path) -> None:
    argv = ["sh", "-c", "while :; do sleep 0 & sleep 0; done"]
    process = Process("it", argv, directory=tmp_path, output=tmp_path / "log")
    process.start()
    try:
        for _ in range(50):
            process.pause()
            assert {each.status() for each in process.tree()} <= SUSPENDED
            process.unpause()
    finally:
        process.stop()


def test_a_web_process_stops_at_once_though_a_client_keeps_its_connection_open(make_cluster: MakeCluster) -> None:
    cluster = make_cluster(web=1, worker=False)
    with requests.Session() as client:
        assert client.get(f"{cluster.urls[0]}/health", timeout=60).ok
        begun = time.monotonic()
        cluster.web[0].stop()
        assert time.monotonic() - begun < 14  # after 15 s gunicorn kills
    assert cluster.web[0].exit_code == 0


def test_the_procfile_names_every_process_type() -> None:
    assert list(procfile()) == ["release", "web", "worker"]


def test_every_requirement_is_pinned() -> None:
    for name in ("requirements.txt", "requirements-dev.txt"):
        for line in (ROOT / name).read_text().splitlines():
            assert re.fullmatch(r"#.*|-r requirements\.txt|[\w.-]+(\[\w+\])?==[\w.]+(; .+)?|", line), line


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony
    listed = re.findall(
        r"^  make ([\w-]+)", subprocess.check_output(["make", "help"], cwd=ROOT, text=True), re.MULTILINE
    )
    assert listed == phony[1].split()

"""Two processes share the buckets of a session and of a principal."""

from __future__ import annotations

import subprocess
import sys

import pytest
import redis as redis_py

from syncapp.store.client import connect
from syncapp.store.sessions import SessionStore
from tests.support.paths import ROOT
from tests.support.store import chess_request, make_settings

PER_S, BURST = 50, 30
HAMMER = """
import sys
from syncapp.config import Settings
from syncapp.domain.principal import Principal
from syncapp.domain.results import Claim
from syncapp.errors import RateLimited
from syncapp.store.client import connect
from syncapp.store.sessions import SessionStore

url, limit, *ids = sys.argv[1:]
rates = {"session_commands_per_s": 0, "principal_commands_per_s": 0, f"{limit}_commands_per_s": 50}
settings = Settings(redis_url=url, **rates, **{f"{limit}_commands_burst": 30})
store, claim = SessionStore(connect(settings), settings), Claim(principal=Principal(sub="ada"))
instants, refused = [], 0
print("ready", flush=True)
sys.stdin.readline()
while len(instants) < 60:
    for each in ids:
        try:
            instants.append(store.switch(each, claim).now_ms)
        except RateLimited:
            refused += 1
print(len(instants), refused, instants[0], instants[-1])
"""


@pytest.fixture(params=["one_server", "cluster"])
def url(request: pytest.FixtureRequest, redis: redis_py.Redis, redis_url: str) -> str:
    return str(request.getfixturevalue("valkey_cluster").url) if request.param == "cluster" else redis_url


def assert_shared(redis_url: str, limit: str, sessions: int) -> None:
    """Let two processes send 60 commands each, as fast as they can, and compare with the server's clock."""
    settings = make_settings(redis_url)
    store = SessionStore(connect(settings), settings)
    ids = [store.create(chess_request()).found.session_id for _ in range(sessions)]
    for each in ids:
        store.start(each)
    command = [sys.executable, "-c", HAMMER, redis_url, limit, *ids]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    found = [list(map(int, process.communicate(timeout=120)[0].split())) for process in processes]
    accepted, refused = sum(each[0] for each in found), sum(each[1] for each in found)
    elapsed_ms = max(each[3] for each in found) - min(each[2] for each in found)
    assert accepted <= BURST + PER_S * elapsed_ms / 1000 + 1
    assert refused > 0


def test_two_processes_together_get_no_more_from_a_session_than_its_rate(url: str) -> None:
    assert_shared(url, "session", 1)


def test_two_processes_together_get_no_more_for_a_principal_than_its_rate(url: str) -> None:
    assert_shared(url, "principal", 5)

"""No two servers that development and tests start get the same port."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from syncapp.dev.ports import free_port

ANOTHER = """
import random, sys
from syncapp.dev.ports import free_port
tried, anything = list(map(int, sys.argv[1:])), random.randrange
random.randrange = lambda *bounds: tried.pop() if tried else anything(*bounds)
print(free_port())
assert not tried
"""


def free_port_after(monkeypatch: pytest.MonkeyPatch, *tried: int) -> int:
    """Return the free port that is found if these are tried before."""
    left, anything = list(tried), random.randrange
    monkeypatch.setattr(random, "randrange", lambda *bounds: left.pop() if left else anything(*bounds))
    port = free_port()
    assert not left
    return port


def free_port_of_another_process(*tried: int) -> int:
    argv = [sys.executable, "-c", ANOTHER, *map(str, tried)]
    done = subprocess.run(argv, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2], timeout=60)
    return int(done.stdout)


def test_a_port_is_given_once_in_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    given = free_port(), free_port()
    assert free_port_after(monkeypatch, *given) not in given


def test_a_port_on_which_somebody_listens_is_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert free_port_after(monkeypatch, taken.getsockname()[1]) != taken.getsockname()[1]


def test_another_process_is_not_given_a_port_while_this_one_runs() -> None:
    port = free_port()
    assert free_port_of_another_process(port) != port


def test_a_port_is_free_again_when_the_process_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    def is_given_again() -> bool:
        port = free_port_of_another_process()
        return free_port_after(monkeypatch, port) == port

    assert any(is_given_again() for _ in range(5))  # somebody else may be faster

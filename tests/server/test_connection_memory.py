"""What a WebSocket costs while it is idle, and that nothing is left of it."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
from gevent import monkey

monkey.patch_all()
import sys
from tests.support.many_connections import main

main(sys.argv[1])
"""


def test_connections_are_few_objects_and_go_without_a_garbage_collection(redis_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, redis_url], capture_output=True, text=True, timeout=120, check=True
    )
    found = json.loads(done.stdout)
    assert found["ended"] == 100
    assert found["left"] == 0
    assert found["visited"] <= 15  # both sides

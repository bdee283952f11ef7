"""Whatever fails in a WebSocket, it ends, is counted no longer, and does not keep others from being served."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
from gevent import monkey

monkey.patch_all()
import sys
from tests.support.failing_connections import main

main(sys.argv[1])
"""


def test_a_connection_that_fails_leaves_nothing_and_the_next_one_is_served(redis_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, redis_url], capture_output=True, text=True, timeout=240, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert len(found) == 9
    assert not [rule for rule, holds in found.items() if not holds]

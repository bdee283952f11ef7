"""The loop that serves WebSockets."""

from __future__ import annotations

import json
import subprocess
import sys

PROGRAM = """
from gevent import monkey

monkey.patch_all()
from tests.support.stepped_connections import main

main()
"""


def test_steps_follow_input_plans_and_wakes_and_never_overlap_nor_hold_others_up() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True)
    found = json.loads(done.stdout)
    assert len(found) == 10
    assert not [rule for rule, holds in found.items() if not holds]

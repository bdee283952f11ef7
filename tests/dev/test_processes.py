"""What development and tests start ends with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from syncapp.dev.processes import _setpriv
from tests.support.web_clients import wait_until

PARENT = """
import os, signal, sys
from pathlib import Path
from syncapp.dev.processes import Process
child = Process("child", ["sleep", "600"], directory=Path(sys.argv[1]), output=Path(sys.argv[1], "log"))
child.spawn()
print(child.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(_setpriv() is None, reason="util-linux's setpriv is missing")
def test_a_process_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PARENT, tmp_path],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        timeout=60,
    )
    assert done.returncode == -9, done.stderr
    pid = int(done.stdout)

    def has_ended() -> bool:
        return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE

    wait_until(has_ended)

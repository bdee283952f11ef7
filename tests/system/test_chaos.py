"""The short form of tests/system/chaos.py; `make chaos` is the long one."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import pytest

from syncapp.dev.processes import end_leftovers
from tests.system import chaos


@pytest.mark.timeout(600)
def test_whatever_dies_the_log_has_every_acknowledged_command_once() -> None:
    directory = Path(
        tempfile.mkdtemp(prefix="syncapp-chaos-")
    )  # not under pytest's own, which other users cannot enter
    try:
        outcome = chaos.run(directory, seed=20_261_126, commits=300, clients=6)
        print(outcome)
        outcome.check()
        assert len(outcome.harms) == 11
    finally:
        end_leftovers(directory)
        shutil.rmtree(directory)

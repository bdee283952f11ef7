"""The store and the model of time controls, side by side: the same commands at the same instants, the same outcome.

MODEL_EXAMPLES is how many sequences are run in each mode (default 20):
`MODEL_EXAMPLES=2000 pytest tests/lua/test_control_machine.py`.
"""

from __future__ import annotations

import pytest
import redis as redis_py

from tests.support.clock_machine import EXAMPLES, run_machine
from tests.support.control_machine import ControlMachine


@pytest.mark.timeout(300 + 3 * EXAMPLES)
@pytest.mark.parametrize("mode", ["per_participant", "per_group"])
def test_the_store_does_what_the_model_of_time_controls_does(redis: redis_py.Redis, redis_url: str, mode: str) -> None:
    run_machine(ControlMachine, redis, redis_url, mode)

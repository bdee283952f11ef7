"""The store and the model of time controls, side by side, with an arbiter: adjustments, takebacks, reopenings.

MODEL_EXAMPLES is how many sequences are run in each mode (default 20):
`MODEL_EXAMPLES=2000 pytest tests/lua/test_arbiter_machine.py`.
"""

from __future__ import annotations

import pytest
import redis as redis_py

from tests.support.arbiter_machine import ArbiterMachine
from tests.support.clock_machine import EXAMPLES, run_machine


@pytest.mark.timeout(300 + 3 * EXAMPLES)
@pytest.mark.parametrize("mode", ["per_participant", "per_group"])
def test_the_store_does_what_the_model_does_with_an_arbiter(redis: redis_py.Redis, redis_url: str, mode: str) -> None:
    run_machine(ArbiterMachine, redis, redis_url, mode)

"""The store and the model of docs/clock.md, side by side: the same commands at the same instants, the same outcome.

MODEL_EXAMPLES is how many sequences are run in each mode (default 20):
`MODEL_EXAMPLES=2000 pytest tests/lua/test_model.py`.
"""

from __future__ import annotations

import pytest
import redis as redis_py

from tests.support.clock_machine import EXAMPLES, MODES, ClockMachine, run_machine


@pytest.mark.timeout(300 + 3 * EXAMPLES)
@pytest.mark.parametrize("mode", MODES)
def test_the_store_does_what_the_model_does(redis: redis_py.Redis, redis_url: str, mode: str) -> None:
    run_machine(ClockMachine, redis, redis_url, mode)

"""Random sequences, stored in the log: past states are replayed exactly, and lost sessions are restored exactly.

REPLAY_EXAMPLES is how many sequences are run in each mode (default 6).
"""

from __future__ import annotations

import pytest
import redis as redis_py
from hypothesis.stateful import run_state_machine_as_test

from tests.support.audit_log import AuditServices
from tests.support.clock_machine import MAX_UNATTENDED, MODES, machine_settings
from tests.support.replay_machine import REPLAY_EXAMPLES, REPLAY_STEPS, ReplayMachine
from tests.support.store import make_store


@pytest.mark.timeout(300 + 6 * REPLAY_EXAMPLES)
@pytest.mark.parametrize("mode", MODES)
def test_the_log_tells_what_was_and_brings_it_back_as_it_was(
    log: AuditServices, redis: redis_py.Redis, redis_url: str, mode: str
) -> None:
    stores = [make_store(redis_url, max_unattended_cycles=MAX_UNATTENDED) for _ in range(2)]
    run_state_machine_as_test(
        lambda: ReplayMachine(log, redis, stores, redis_url, mode),  # type: ignore[arg-type]  # anything that makes one
        settings=machine_settings(REPLAY_EXAMPLES, REPLAY_STEPS),
    )

"""The estimate of the server's time."""

from __future__ import annotations

import time

from syncapp.realtime.server_clock import ServerClock


def test_a_clock_believes_the_quickest_answer_until_it_is_contradicted() -> None:
    clock = ServerClock()
    assert abs(clock.now_ms() - time.time() * 1000) < 1000
    now_s = time.monotonic()
    clock.observe(now_s, now_s + 0.002, 5_000_000)
    exact = clock.now_ms()
    clock.observe(now_s, now_s + 1.0, 5_000_900)
    assert 0 <= clock.now_ms() - exact <= (time.monotonic() - now_s) * 1000 + 1
    clock.observe(now_s, now_s + 0.002, 9_000_000)
    assert clock.now_ms() - exact > 3_999_000

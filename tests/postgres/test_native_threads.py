"""Calls in native threads: their results and errors, how many run at once, and that greenlets go on meanwhile."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref

import pytest

from syncapp.postgres.native_threads import NativeThreads
from tests.support.web_clients import wait_until


def test_a_call_has_its_result_or_its_error() -> None:
    threads, ended = NativeThreads(2), list[str]()
    call = threads.submit(lambda: threading.current_thread().name, lambda: ended.append("a"))
    assert call.result(60) == call.result(0) == "native"
    assert call.done()
    failing = threads.submit(lambda: int("a"), lambda: ended.append("b"))
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            failing.result(60)
    wait_until(lambda: ended == ["a", "b"])


def test_a_call_that_takes_too_long_is_no_longer_waited_for_and_keeps_its_thread() -> None:
    threads, go_on = NativeThreads(1), threading.Event()
    slow, next_one = threads.submit(lambda: go_on.wait(60)), threads.submit(lambda: 2)
    for call in (slow, next_one):
        with pytest.raises(TimeoutError):
            call.result(0.05)
        assert not call.done()
    go_on.set()
    assert slow.result(60)
    assert next_one.result(60) == 2


def test_as_many_calls_run_at_once_as_there_are_threads() -> None:
    threads, together = NativeThreads(3), threading.Barrier(3)
    for _ in range(5):
        calls = [threads.submit(lambda: together.wait(60)) for _ in range(3)]
        assert sorted(call.result(60) for call in calls) == [0, 1, 2]


def test_the_threads_end_when_nobody_needs_them() -> None:
    def native() -> int:
        return sum(each.name == "native" for each in threading.enumerate())

    before = native()
    threads = NativeThreads(3)
    kept = [threads.submit(lambda: None) for _ in range(3)]
    assert [call.result(60) for call in kept] == [None] * 3
    gone = weakref.ref(threads)
    del threads
    gc.collect()
    assert gone() is None
    wait_until(lambda: native() <= before)


_UNDER_GEVENT = """
from gevent import monkey; monkey.patch_all()
import gevent, threading
from syncapp.postgres.native_threads import NativeThreads
block = monkey.get_original("time", "sleep")
threads, ticks, ends = NativeThreads(4), [], []
def tick():
    while len(ends) < 240:
        ticks.append(1)
        gevent.sleep(0.001)
def ask(number):
    for _ in range(10):
        call = threads.submit(lambda: (block(0.01), threading.get_ident())[1])
        ends.append((call.result(60), threading.get_ident()))
gevent.joinall([gevent.spawn(tick), *[gevent.spawn(ask, number) for number in range(24)]], raise_error=True)
assert len({thread for thread, _ in ends}) == 4, ends
assert not {thread for thread, _ in ends} & {own for _, own in ends}
assert len(ticks) > 50, len(ticks)
print("done")
"""


def test_under_gevent_greenlets_go_on_while_threads_block() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _UNDER_GEVENT], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr

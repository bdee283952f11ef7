"""Native threads for a driver that blocks: under gevent, only the greenlet that waits for the result does.

gevent's own thread pool is not used. On a busy machine it lost a result, whose caller waited until its time was up, and
another caller waited for a free thread for ever. Here no thread wakes a greenlet: whoever waits looks for the result.
"""

from __future__ import annotations

import sys
import threading
import time
import weakref
from _queue import SimpleQueue  # the one of the standard library, which gevent replaces in `queue`
from collections.abc import Callable
from typing import Any, Generic, TypeVar

_MIN_POLL_S, _MAX_POLL_S = 0.0005, 0.005
_T = TypeVar("_T")


class NativeCall(Generic[_T]):
    """A call in a native thread, which has ended or will; `on_end` is called there at its end, and must not raise."""

    def __init__(self, function: Callable[[], _T], on_end: Callable[[], None]) -> None:
        self._function = function
        self._on_end = on_end
        self._results: list[_T] = []
        self._error: Exception | None = None
        self._is_done = False

    def run(self) -> None:
        """Make the call, on a native thread."""
        try:
            self._results.append(self._function())
        except Exception as error:  # noqa: BLE001  # the caller gets it
            self._error = error
        finally:
            self._is_done = True
            self._on_end()

    def done(self) -> bool:
        """Return whether it has ended."""
        return self._is_done

    def result(self, timeout_s: float) -> _T:
        """Return the result, or raise the error of the call. Raises `TimeoutError` if it does not end in time."""
        end_s, poll_s = time.monotonic() + timeout_s, _MIN_POLL_S
        while not self._is_done:
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            time.sleep(min(poll_s, left_s))
            poll_s = min(2 * poll_s, _MAX_POLL_S)
        if self._error:
            raise self._error
        return self._results[0]


class NativeThreads:
    """Up to `count` threads, each started with one of the first calls. They end when this object is collected."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._started = 0
        self._calls: SimpleQueue[NativeCall[Any] | None] = SimpleQueue()
        weakref.finalize(self, _end, self._calls, count).atexit = False

    def submit(self, function: Callable[[], _T], on_end: Callable[[], None] = lambda: None) -> NativeCall[_T]:
        """Have a function called as soon as a thread is free. Raises `RuntimeError` if no thread can be started."""
        call = NativeCall(function, on_end)
        if self._started < self._count:
            _start(self._calls)
            self._started += 1
        self._calls.put(call)
        return call


def _start(calls: SimpleQueue[NativeCall[Any] | None]) -> None:
    monkey = sys.modules.get("gevent.monkey")
    if monkey is not None and monkey.is_module_patched("threading"):
        monkey.get_original("_thread", "start_new_thread")(_serve, (calls,))
    else:
        threading.Thread(target=_serve, args=[calls], name="native", daemon=True).start()


def _serve(calls: SimpleQueue[NativeCall[Any] | None]) -> None:
    while call := calls.get():
        call.run()
        del call  # it is not kept while this waits


def _end(calls: SimpleQueue[NativeCall[Any] | None], count: int) -> None:
    for _ in range(count):
        calls.put(None)

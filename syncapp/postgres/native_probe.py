"""Runs checks in native threads, so that a blocking driver does not block greenlets."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import Generic, TypeVar

_T = TypeVar("_T")


class NativeProbe(Generic[_T]):
    """Runs one check for all callers: one at a time, and at most once every `keep_s` seconds."""

    def __init__(self, ask: Callable[[], _T], *, keep_s: float = 1.0) -> None:
        self._ask = ask
        self._keep_s = keep_s
        self._asked_at = float("-inf")
        self._answer: Future[_T] | None = None
        self._executor: Executor | None = None
        self._lock = threading.Lock()

    def answer(self, timeout_s: float) -> _T:
        """Return the latest result, after running the check again if that is too old.

        Raises `concurrent.futures.TimeoutError` after `timeout_s`.
        """
        with self._lock:
            answer = self._answer
            if answer is None or (answer.done() and time.monotonic() > self._asked_at + self._keep_s):
                self._asked_at = time.monotonic()
                self._executor = self._executor or native_threads(1)
                answer = self._answer = self._executor.submit(self._ask)
        return answer.result(timeout_s)


def native_threads(count: int) -> Executor:
    """Return an executor with native threads: gevent's, if gevent has patched the standard threads."""
    monkey = sys.modules.get("gevent.monkey")
    kind: Callable[[int], Executor] = ThreadPoolExecutor
    if monkey is not None and monkey.is_module_patched("threading"):
        from gevent.threadpool import ThreadPoolExecutor as GeventExecutor

        kind = GeventExecutor
    return kind(count)

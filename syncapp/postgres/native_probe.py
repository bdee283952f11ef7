"""Runs a check in a native thread, so that a blocking driver does not block greenlets."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from syncapp.postgres.native_threads import NativeCall, NativeThreads

_T = TypeVar("_T")


class NativeProbe(Generic[_T]):
    """Runs one check for all callers: one at a time, and at most once every `keep_s` seconds."""

    def __init__(self, ask: Callable[[], _T], *, keep_s: float = 1.0) -> None:
        self._ask = ask
        self._keep_s = keep_s
        self._asked_at = float("-inf")
        self._answer: NativeCall[_T] | None = None
        self._threads: NativeThreads | None = None
        self._lock = threading.Lock()

    def answer(self, timeout_s: float) -> _T:
        """Return the latest result, after running the check again if that is too old.

        Raises `TimeoutError` after `timeout_s`.
        """
        with self._lock:
            answer = self._answer
            if answer is None or (answer.done() and time.monotonic() > self._asked_at + self._keep_s):
                self._asked_at = time.monotonic()
                self._threads = self._threads or NativeThreads(1)
                answer = self._answer = self._threads.submit(self._ask)
        return answer.result(timeout_s)

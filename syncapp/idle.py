"""Idle connections are given back: whoever keeps some has them looked at each second."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

IDLE_S = 5.0
"""How long a connection may be kept without use."""
_LOOK_S = 1.0


class IdleCloser:
    """Calls a method of its owner each second, on a thread that ends with the owner and never keeps a process alive.

    Under gevent the thread is a greenlet: start it from a greenlet, not from a native thread.
    """

    def __init__(self, close_idle: Callable[[], None]) -> None:
        self._method = weakref.WeakMethod(close_idle)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def start(self) -> None:
        """Start the thread unless it runs; a thread does not survive a fork, so callers ask before each use."""
        if self._thread is not None and self._thread.is_alive():
            return
        with self._starting:
            if self._thread is None or not self._thread.is_alive():
                thread = threading.Thread(target=_look_for_ever, args=[self._method], name="idle", daemon=True)
                with contextlib.suppress(RuntimeError):  # no thread to be had now; the next use asks again
                    thread.start()
                    self._thread = thread


def _look_for_ever(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    while True:
        time.sleep(_LOOK_S)
        close_idle = method()
        if close_idle is None:
            return
        try:
            close_idle()
        except Exception as error:  # noqa: BLE001 whatever it is, the next look comes
            log.warning("idle_close_failed", error=f"{type(error).__name__}: {error}")
        del close_idle  # it would keep the owner alive

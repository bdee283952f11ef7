"""Closes idle connections: a thread of each pool checks them every second."""

from __future__ import annotations

import contextlib
import threading
import time
import weakref
from collections.abc import Callable

import structlog

log = structlog.get_logger(__name__)

IDLE_S = 5.0
"""How long an unused connection stays open."""
_INTERVAL_S = 1.0


class IdleCloser:
    """Calls a method every second, in a daemon thread that ends when the method's object is collected.

    Under gevent the thread is a greenlet: start it from a greenlet, not from a native thread.
    """

    def __init__(self, close_idle: Callable[[], None]) -> None:
        self._method = weakref.WeakMethod(close_idle)
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    def start(self) -> None:
        """Start the thread unless it runs. Call it before each use, because a thread does not survive a fork."""
        if self._is_running() or not self._starting.acquire(blocking=False):
            return  # or somebody else is starting it, which need not be waited for
        try:
            if not self._is_running():
                thread = threading.Thread(target=_run, args=[self._method], name="idle", daemon=True)
                with contextlib.suppress(RuntimeError):  # the thread could not be started; the next use tries again
                    thread.start()
                    self._thread = thread
        finally:
            self._starting.release()

    def _is_running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()


def _run(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    while True:
        time.sleep(_INTERVAL_S)
        close_idle = method()
        if close_idle is None:
            return
        try:
            close_idle()
        except Exception as error:  # noqa: BLE001 the next check must come, whatever the error
            log.warning("idle_close_failed", error=f"{type(error).__name__}: {error}")
        del close_idle  # a reference would keep its object alive

"""Log lines of a test's own code."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import structlog
from structlog.testing import capture_logs


@contextmanager
def capture_own_logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """Collect log lines, except those of threads that were running before; earlier tests may have left some."""
    here, earlier = threading.current_thread(), set(threading.enumerate())

    def own(_logger: Any, _name: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        thread = threading.current_thread()
        if thread in earlier and thread is not here:
            raise structlog.DropEvent
        return event

    with capture_logs([own]) as lines:
        yield lines


@contextmanager
def kept_log_handlers() -> Iterator[None]:
    """Give the root logger back the handlers and the level that it has now."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers = handlers
    root.setLevel(level)

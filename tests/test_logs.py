"""Log handlers of the process that runs the tests."""

from __future__ import annotations

import io
import logging
import sys

import pytest

from syncapp import logs
from tests.support.captured_logs import kept_log_handlers
from tests.support.store import make_settings


def test_a_closed_stream_of_one_test_is_not_written_to_by_the_next(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = logging.getLogger()
    before = list(root.handlers), root.level
    with kept_log_handlers():
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", stream)
        logs.configure(make_settings(redis_url, log_level="DEBUG"))
        logging.getLogger("test").debug("seen")
        assert "seen" in stream.getvalue()
    assert (root.handlers, root.level) == before

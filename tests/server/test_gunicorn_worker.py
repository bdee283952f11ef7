"""The web worker's own answers: errors outside of the application have the same form and headers as all others."""

from __future__ import annotations

import logging
import socket
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest

from syncapp.access.origins import Origins
from syncapp.errors import RequestTimeout, StoreUnavailable, SyncError
from syncapp.server.gunicorn_worker import GunicornWorker


def answered(error: Exception) -> tuple[bytes, dict[bytes, bytes], Any]:
    """Return the status line, the headers and the document with which a worker answers an error."""
    services = SimpleNamespace(guards=SimpleNamespace(origins=Origins("")))
    worker = SimpleNamespace(wsgi=SimpleNamespace(extensions={"syncapp": services}), log=logging.getLogger(__name__))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.shutdown(socket.SHUT_WR)
        GunicornWorker.handle_error(cast("GunicornWorker", worker), None, ours, None, error)
        head, _, body = theirs.recv(65_536).partition(b"\r\n\r\n")
    status, *lines = head.split(b"\r\n")
    headers = {name: value for name, _, value in (line.partition(b": ") for line in lines)}
    return status, headers, orjson.loads(body)


@pytest.mark.parametrize(
    ("error", "retry_after"),
    [
        (StoreUnavailable("away"), b"1"),
        (StoreUnavailable("away", {"retry_after_s": 30}), b"30"),
        (RequestTimeout("late"), None),
    ],
)
def test_an_error_has_the_retry_after_header_that_belongs_to_it(error: SyncError, retry_after: bytes | None) -> None:
    status, headers, document = answered(error)
    assert status.startswith(b"HTTP/1.1 %d " % error.status)
    assert headers.get(b"Retry-After") == retry_after
    assert document == {"error": error.document()}


def test_an_unexpected_error_shows_nothing_of_itself() -> None:
    status, _, document = answered(RuntimeError("a secret"))
    assert status == b"HTTP/1.1 500 Internal Server Error"
    assert document["error"]["code"] == "INTERNAL_ERROR"
    assert "secret" not in str(document)

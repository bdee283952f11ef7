"""Streamed response bodies: one that fails halfway must not look complete."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from typing import Any

import structlog

log = structlog.get_logger(__name__)


class BodyFailed(ConnectionAbortedError):
    """A response that cannot be completed: the web server resets the connection (`server/gunicorn_worker`).

    A client or proxy that uses HTTP/1.0 would otherwise take a closed connection for the end of a complete response.
    """


def complete_or_reset(pieces: Iterable[Any], route: str, request_id: str) -> Iterator[Any]:
    """Yield the pieces, bytes or text. Raises `BodyFailed` in place of their exceptions, except `OSError`."""
    try:
        yield from pieces
    except OSError:
        raise
    except Exception as error:
        log.warning("answer cut off", route=route, request_id=request_id, error=f"{type(error).__name__}: {error}")
        raise BodyFailed(errno.ECONNABORTED, "an answer could not be sent to its end") from error

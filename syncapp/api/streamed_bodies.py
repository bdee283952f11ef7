"""Answers that are sent in pieces: one that fails on the way does not look whole."""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator
from typing import Any

import structlog

log = structlog.get_logger(__name__)


class BodyFailed(ConnectionAbortedError):
    """An answer that can't be sent to its end: the web server resets the connection (`worker`).

    Its end would otherwise look like that of a whole answer to a client or proxy that speaks HTTP/1.0.
    """


def unbroken(pieces: Iterable[Any], route: str, request_id: str) -> Iterator[Any]:
    """Yield the pieces, bytes or text. Raises `BodyFailed` instead of what they raise, other than `OSError`."""
    try:
        yield from pieces
    except OSError:
        raise
    except Exception as error:
        log.warning("answer cut off", route=route, request_id=request_id, error=f"{type(error).__name__}: {error}")
        raise BodyFailed(errno.ECONNABORTED, "an answer could not be sent to its end") from error

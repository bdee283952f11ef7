"""Instants as text (ISO 8601 UTC) and as numbers (milliseconds since the Unix epoch)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

_UNIX_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@lru_cache(maxsize=4096)
def iso(ms: int | None) -> str | None:
    """Return an instant as ISO 8601 UTC with milliseconds and `Z`."""
    if ms is None:
        return None
    return f"{_iso_second(ms // 1000)}.{ms % 1000:03d}Z"


@lru_cache(maxsize=4096)
def _iso_second(second: int) -> str:
    return f"{datetime.fromtimestamp(second, UTC):%Y-%m-%dT%H:%M:%S}"


def ms_of(instant: str | None) -> int | None:
    """Return an ISO 8601 instant as ms since the Unix epoch, rounded down to whole milliseconds."""
    if instant is None:
        return None
    return (datetime.fromisoformat(instant) - _UNIX_EPOCH) // timedelta(milliseconds=1)

"""The libraries of functions of a server."""

from __future__ import annotations

from typing import Any

from syncapp.store import functions
from tests.support.types import Redis


def libraries(redis: Redis) -> set[str]:
    listed: Any = redis.function_list(library=f"{functions.PREFIX}*")
    return {each[each.index(b"library_name") + 1].decode() for each in listed}


def forget(redis: Redis) -> None:
    redis.function_flush("SYNC")
    redis.script_flush()
    redis.config_resetstat()

"""The task queue: Huey on Redis, with JSON messages; a task is queued only once.

A full server also accepts these writes, because drains free its memory. The queue and the schedule cannot grow, because
each task waits only once.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import orjson
from huey import RedisHuey
from huey.registry import Message
from huey.serializer import Serializer
from huey.storage import RedisStorage
from redis import Redis

from syncapp.config import Settings
from syncapp.store.client import connect as connect_store

NAME = "syncapp"
_PUSH_UNLESS_QUEUED = """#!lua flags=allow-oom
if redis.call('LPOS', KEYS[1], ARGV[1]) then return 0 end
return redis.call('LPUSH', KEYS[1], ARGV[1])
"""
_SCHEDULE = """#!lua flags=allow-oom
return redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
"""


class JsonSerializer(Serializer):  # type: ignore[misc]  # huey carries no types
    """Writes Huey's messages as JSON. Unlike pickle, reading one can only make the types below, never run code."""

    def _serialize(self, data: Any) -> bytes:
        return orjson.dumps(_packed(data))

    def _deserialize(self, data: bytes) -> Any:
        return _unpacked(orjson.loads(data))


class OnceStorage(RedisStorage):  # type: ignore[misc]  # huey carries no types
    """A queue without equal messages, so that it cannot grow while no worker runs."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._push = self.conn.register_script(_PUSH_UNLESS_QUEUED)
        self._schedule = self.conn.register_script(_SCHEDULE)

    def enqueue(self, data: bytes, priority: int | None = None) -> None:
        """Add a message to the queue, unless an equal one waits in it."""
        self._push(keys=[self.queue_key], args=[data])

    def add_to_schedule(self, data: bytes, ts: datetime) -> None:
        """Schedule a message for an instant (UTC, naive)."""
        self._schedule(keys=[self.schedule_key], args=[self.convert_ts(ts), data])


def connect(settings: Settings, client: Redis | None = None) -> RedisHuey:
    """Return the queue. It does not connect before its first use.

    client: shares its connections with the queue, and does not decode replies; by default the queue makes a client.
    """
    client = client or connect_store(settings, decode=False)
    return RedisHuey(
        NAME,
        results=False,
        serializer=JsonSerializer(),
        storage_class=OnceStorage,
        connection_pool=client.connection_pool,
        # A blocking read of a task must end before the connection's timeout.
        read_timeout=min(1.0, settings.redis_timeout_s / 2),
    )


def _packed(value: Any) -> Any:
    """Return a value as JSON; types that JSON lacks become an object with one member, named after the type."""
    match value:
        case Message():
            # Huey's registry checks the name when it makes the task. Members that are None are left out.
            return {"message": {name: _packed(item) for name, item in value._asdict().items() if item is not None}}
        case tuple():
            return {"tuple": [_packed(item) for item in value]}
        case list():
            return [_packed(item) for item in value]
        case Mapping():
            return {"dict": {name: _packed(item) for name, item in value.items()}}
        case datetime():
            return {"datetime": value.isoformat()}
        case timedelta():
            return {"timedelta": [value.days, value.seconds, value.microseconds]}
        case _:
            return value


def _unpacked(value: Any) -> Any:
    """Return the value that `_packed` was called with. Raises `ValueError` for other JSON."""
    match value:
        case list():
            return [_unpacked(item) for item in value]
        case {"message": dict(members)}:
            return Message(**{name: _unpacked(item) for name, item in members.items()})
        case {"tuple": list(items)}:
            return tuple(_unpacked(item) for item in items)
        case {"dict": dict(members)}:
            return {name: _unpacked(item) for name, item in members.items()}
        case {"datetime": str(text)}:
            return datetime.fromisoformat(text)
        case {"timedelta": [int(days), int(seconds), int(micros)]}:
            return timedelta(days, seconds, micros)
        case dict():
            raise ValueError(f"not a message of this queue: {value!r}")
        case _:
            return value

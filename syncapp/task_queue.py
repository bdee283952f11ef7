"""The task queue: Huey on Redis, with JSON messages, and no task queued twice.

A full server accepts Huey's writes, too: drains make room in it, and neither the queue nor the schedule can grow,
because each task waits only once.
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
    """Huey's messages as JSON: reading one can only make the values named here, never run code."""

    def _serialize(self, data: Any) -> bytes:
        return orjson.dumps(_packed(data))

    def _deserialize(self, data: bytes) -> Any:
        return _unpacked(orjson.loads(data))


class OnceStorage(RedisStorage):  # type: ignore[misc]  # huey carries no types
    """A queue that holds no two equal messages, so that it cannot grow while no worker is there to empty it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._push = self.conn.register_script(_PUSH_UNLESS_QUEUED)
        self._schedule = self.conn.register_script(_SCHEDULE)

    def enqueue(self, data: bytes, priority: int | None = None) -> None:
        """Put a message into the queue, unless it is waiting there."""
        self._push(keys=[self.queue_key], args=[data])

    def add_to_schedule(self, data: bytes, ts: datetime) -> None:
        """Schedule a message for an instant (UTC, naive)."""
        self._schedule(keys=[self.schedule_key], args=[self.convert_ts(ts), data])


def connect(settings: Settings, client: Redis | None = None) -> RedisHuey:
    """Return the queue; no connection is made before its first use.

    client: whose connections it uses, one that does not decode; without one it has its own.
    """
    client = client or connect_store(settings, decode=False)
    return RedisHuey(
        NAME,
        results=False,
        serializer=JsonSerializer(),
        storage_class=OnceStorage,
        connection_pool=client.connection_pool,
        # A wait for a task must end before the connection gives up on the answer.
        read_timeout=min(1.0, settings.redis_timeout_s / 2),
    )


def _packed(value: Any) -> Any:
    """Return a value as JSON that tells its type: what JSON has none for is an object of one member."""
    match value:
        case Message():
            # The registry checks the name and makes the task; defaults are left out.
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
    """Return the value that `_packed` was given. Raises `ValueError` for JSON that it did not make."""
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
            raise ValueError(f"no message of ours: {value!r}")
        case _:
            return value

"""The task queue: Huey on Redis, with JSON messages; a task is queued only once.

It is in the store, or on the server of `TASKS_REDIS_URL`; `syncapp.queue_server` tells whether that can be used.

A full server also accepts these writes, because drains free its memory. The queue and the schedule cannot grow, because
each task waits only once.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import orjson
import structlog
from huey import RedisHuey
from huey.registry import Message
from huey.serializer import Serializer
from huey.storage import RedisStorage
from redis import Redis
from redis.exceptions import RedisError

from syncapp.config import Settings
from syncapp.errors import one_line
from syncapp.store.client import connect as connect_store
from syncapp.store.client import has_tasks_server

log = structlog.get_logger(__name__)

NAME = "syncapp"
MAX_WAIT_S = 5.0
"""`REDIS_TIMEOUT_S` is at most this for the queue's own server: loops that wait for it must not look stuck."""
_READ_AGAIN_S = 1.0
_PUSH_UNLESS_QUEUED = """#!lua flags=allow-oom
if redis.call('LPOS', KEYS[1], ARGV[1]) then return 0 end
return redis.call('LPUSH', KEYS[1], ARGV[1])
"""
_SCHEDULE = """#!lua flags=allow-oom
return redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
"""
_PROBE = """#!lua flags=allow-oom
for _, command in ipairs({{'LPOS', KEYS[1], ''}, {'BRPOP', KEYS[1], 1}, {'ZADD', KEYS[2], 0, ''}, {'ZCARD', KEYS[2]},
    {'ZRANGEBYSCORE', KEYS[2], 0, 0}, {'ZREMRANGEBYSCORE', KEYS[2], 0, 0}, {'HMGET', KEYS[3], ''},
    {'HDEL', KEYS[3], ''}}) do
  if not redis.acl_check_cmd(unpack(command)) then return redis.error_reply('NOPERM no right to ' .. command[1]) end
end
redis.call('LPUSH', KEYS[1], '')
return redis.call('LREM', KEYS[1], 1, '')
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
        self._probe = self.conn.register_script(_PROBE)

    def enqueue(self, data: bytes, priority: int | None = None) -> None:
        """Add a message to the queue, unless an equal one waits in it."""
        self._push(keys=[self.queue_key], args=[data])

    def add_to_schedule(self, data: bytes, ts: datetime) -> None:
        """Schedule a message for an instant (UTC, naive)."""
        self._schedule(keys=[self.schedule_key], args=[self.convert_ts(ts), data])

    def probe(self) -> None:
        """Check the rights that the queue needs; write what `enqueue` writes, and remove it in the same step.

        Raises what redis raises.
        """
        self._probe(keys=[self.queue_key, self.schedule_key, self.result_key])


class SeparateStorage(OnceStorage):
    """A queue on its own server, which a worker can do without: reading from it raises no error of redis.

    Huey would log each with a traceback, and then read less and less often.
    """

    def dequeue(self) -> bytes | None:
        """Return the next message; None if there is none yet, or, a second later, if the server does not give it."""
        try:
            message: bytes | None = super().dequeue()
        except RedisError as error:
            log.debug("tasks_not_read", error=one_line(error))
            time.sleep(_READ_AGAIN_S)  # a worker reads again at once
            return None
        return message

    def read_schedule(self, ts: datetime) -> list[bytes]:
        """Remove and return the messages that are due; none if the server does not give them."""
        try:
            due: list[bytes] = super().read_schedule(ts)
        except RedisError as error:
            log.debug("tasks_not_read", error=one_line(error))
            return []
        return due


def connect(settings: Settings, client: Redis | None = None, *, max_connections: int | None = None) -> RedisHuey:
    """Return the queue. It does not connect before its first use.

    client: of the store, and does not decode replies; a queue in the store shares its connections. Otherwise the queue
    has its own pool, of `max_connections`.
    """
    is_apart = has_tasks_server(settings)
    if is_apart:
        settings = replace(settings, redis_timeout_s=min(settings.redis_timeout_s, MAX_WAIT_S))
        url = settings.tasks_redis_url
        client = connect_store(settings, url=url, decode=False, max_connections=max_connections)
    client = client or connect_store(settings, decode=False, max_connections=max_connections)
    return RedisHuey(
        NAME,
        results=False,
        serializer=JsonSerializer(),
        storage_class=SeparateStorage if is_apart else OnceStorage,
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

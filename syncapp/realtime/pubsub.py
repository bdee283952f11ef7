"""The one pub/sub connection of a process: subscribed to what is wanted, again after every loss.

One thread reads and one sends, so that no two ever wait on the same side of the socket. The client library's
own `PubSub` is not used: it connects again by itself and hides that messages were lost.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

import structlog
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from syncapp.config import Settings
from syncapp.loops import Loops
from syncapp.store.client import connect_pubsub
from syncapp.store.failover import says_wrong_server, server_at

log = structlog.get_logger(__name__)

PING_S = 1.5
SILENT_S = 4.0
"""A server that has said nothing for so long, two pings unanswered, is not there any more."""
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0
_CHANNELS_AT_ONCE = 500


class PubSub:
    """Keeps subscriptions; after `start()` its callbacks run on its own thread, and must not block.

    on_subscribed(channel): the server has confirmed; what is published from now on arrives.
    on_message(channel, text). on_lost(): nothing is subscribed any more, messages may have been missed.
    """

    def __init__(
        self,
        settings: Settings,
        loops: Loops | None = None,
        *,
        on_subscribed: Callable[[str], None],
        on_message: Callable[[str, str], None],
        on_lost: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._server = server_at(settings.redis_url)
        self._loops = loops or Loops()
        self._on_subscribed = on_subscribed
        self._on_message = on_message
        self._on_lost = on_lost
        self._changed = threading.Condition(threading.Lock())
        self._wanted: dict[str, None] = {}
        self._changes: list[tuple[str, str]] = []
        # SUBSCRIBEs not confirmed yet: only the last one's confirmation says that the channel is subscribed.
        self._awaited: Counter[str] = Counter()
        self._connection: Any = None
        self._failures = 0  # connections in a row that were lost soon
        self._pinged_s = 0.0
        self.is_down = False  # known to be; not before the first attempt to connect has failed
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start connecting, for good; not before a fork."""
        for name, turn in (("pubsub_read", self._read), ("pubsub_send", self._send)):
            self._threads.append(self._loops.start(name, turn, self._stopped))

    def stop(self) -> None:
        """Close the connection and end the threads."""
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()
            connection = self._connection
        if connection:
            connection.disconnect()
        for thread in self._threads:
            thread.join(self._settings.redis_timeout_s + 1)

    def add(self, channel: str) -> None:
        """Subscribe; `on_subscribed` follows, and again after every loss."""
        with self._changed:
            self._wanted[channel] = None
            self._awaited[channel] += 1
            self._changes.append(("SUBSCRIBE", channel))
            self._changed.notify_all()

    def remove(self, channel: str) -> None:
        """Unsubscribe."""
        with self._changed:
            self._wanted.pop(channel, None)
            self._changes.append(("UNSUBSCRIBE", channel))
            self._changed.notify_all()

    def is_subscribed(self, channel: str) -> bool:
        """Tell whether the latest SUBSCRIBE of the channel is confirmed."""
        return self._connection is not None and channel in self._wanted and not self._awaited[channel]

    def _read(self) -> float:
        """Keep one connection until it is lost; return how long to wait (s) before the next."""
        began_s = time.monotonic()
        try:
            self._connect_and_read()
        except (RedisError, OSError) as error:
            self._note_loss(error)
        except Exception as error:  # a new connection starts afresh
            self._note_loss(error)
            raise
        self._failures = 1 if time.monotonic() - began_s > SILENT_S else self._failures + 1
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(self._failures, 10))
        return float(pause_s * random.uniform(0.5, 1))

    def _note_loss(self, error: Exception) -> None:
        if not self.is_down and not self._stopped.is_set():
            self.is_down = True
            log.warning("pub/sub connection lost", error=f"{type(error).__name__}: {error}")
            self._on_lost()

    def _connect_and_read(self) -> None:
        """Connect, subscribe to all that is wanted, and read until the connection is lost."""
        generation = self._server.generation
        connection: Any = connect_pubsub(self._settings).connection_pool.make_connection()
        try:
            connection.connect()
            # One that is loading its file accepts connections, and serves none.
            connection.send_command("PING", check_health=False)
            connection.read_response(timeout=SILENT_S)
            with self._changed:
                self._awaited = Counter(dict.fromkeys(self._wanted, 1))
                self._changes = [("SUBSCRIBE", channel) for channel in self._wanted]
                self._connection = connection
                self.is_down = False
                self._changed.notify_all()
            log.info("pub/sub connected", channels=len(self._wanted))
            for reply in self._replies(connection, generation):
                self._take(reply)
        except RedisError as error:
            if says_wrong_server(error):
                self._server.leave(generation)
            raise
        finally:
            with self._changed:
                self._connection = None
            connection.disconnect()

    def _replies(self, connection: Any, generation: int) -> Iterator[Any]:
        heard_s = time.monotonic()
        while not self._stopped.is_set():
            self._loops.beat("pubsub_read")
            if generation != self._server.generation:
                raise RedisConnectionError("the server was found to be the wrong one")
            try:
                reply = connection.read_response(disconnect_on_error=False, timeout=PING_S)
            except RedisTimeoutError:
                if time.monotonic() - heard_s > SILENT_S:
                    raise RedisConnectionError("the server has not answered two pings") from None
                continue
            heard_s = time.monotonic()
            yield reply

    def _take(self, reply: Any) -> None:
        if not isinstance(reply, list) or len(reply) < 3:
            return  # the answer to a ping
        kind, channel, payload = reply
        if kind == "message":
            self._on_message(channel, payload)
        elif kind == "subscribe":
            with self._changed:
                self._awaited[channel] -= 1
                confirmed = not self._awaited[channel]
                if confirmed:
                    del self._awaited[channel]
            if confirmed:
                self._on_subscribed(channel)

    def _send(self) -> None:
        """Send pending subscriptions and unsubscriptions, and a ping now and then."""
        with self._changed:
            if not self._changes and not self._stopped.is_set():
                self._changed.wait(PING_S)
            connection, changes, self._changes = self._connection, self._changes, []
        if connection is None:
            return  # a new connection subscribes to every wanted channel
        if time.monotonic() - self._pinged_s >= PING_S:
            self._pinged_s = time.monotonic()
            changes.append(("PING", "alive"))
        try:
            for command, arguments in _batches(changes):
                if connection.is_connected:  # otherwise redis-py would connect by itself
                    connection.send_command(command, *arguments, check_health=False)
        except Exception as error:
            connection.disconnect()  # the reader notices, and connects again
            if not isinstance(error, RedisError | OSError):
                raise
        if self._connection is not connection:
            connection.disconnect()


def _batches(changes: list[tuple[str, str]]) -> Iterator[tuple[str, list[str]]]:
    """Yield runs of the same command, of not too many channels each."""
    for command, run in groupby(changes, key=lambda change: change[0]):
        channels = [channel for _, channel in run]
        for first in range(0, len(channels), _CHANNELS_AT_ONCE):
            yield command, channels[first : first + _CHANNELS_AT_ONCE]

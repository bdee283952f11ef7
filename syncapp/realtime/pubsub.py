"""A pub/sub connection of a process, which subscribes to all its channels again after every loss.

One thread reads and another sends, so that two threads never wait on the same side of the socket. redis-py's own
`PubSub` is not used: it reconnects by itself and hides that messages were lost.
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
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError

from syncapp.config import Settings
from syncapp.loops import Loops
from syncapp.store.client import pubsub_connection, server_of
from syncapp.store.failover import Server, says_wrong_server
from syncapp.store.keys import slot_tag
from syncapp.store.topology import Address

log = structlog.get_logger(__name__)

PING_S = 1.5
MAX_SILENCE_S = 4.0
"""A server that has sent nothing for this long, and has left two pings unanswered, is treated as gone."""
_MIN_PAUSE_S = 0.05
_MAX_PAUSE_S = 1.0
_MAX_CHANNELS_PER_COMMAND = 500


class PubSub:
    """Keeps subscriptions; after `start()` its callbacks run on its own thread, and must not block.

    on_subscribed(channel): the server has confirmed the subscription; messages arrive from now on.
    on_message(channel, text): a message. on_lost(): all subscriptions are lost, and messages may have been missed.

    node: in a cluster, the address of the node whose channels these are. on_moved(slot, channel): another node has this
    slot now, with all its channels, or at least this channel's; one of the two is None.
    """

    def __init__(
        self,
        settings: Settings,
        loops: Loops | None = None,
        *,
        on_subscribed: Callable[[str], None],
        on_message: Callable[[str, str], None],
        on_lost: Callable[[], None],
        node: Address | None = None,
        on_moved: Callable[[MovedError | None, str | None], None] = lambda error, channel: None,
    ) -> None:
        self._settings = settings
        self._node = node
        self._loop_names = [f"pubsub_{each}{f'@{node[0]}:{node[1]}' if node else ''}" for each in ("read", "send")]
        self._place = {"node": f"{node[0]}:{node[1]}"} if node else {}
        self._words = ("SSUBSCRIBE", "SUNSUBSCRIBE") if node else ("SUBSCRIBE", "UNSUBSCRIBE")
        self._on_moved = on_moved
        self._server = Server() if node else server_of(settings)
        self._loops = loops or Loops()
        self._on_subscribed = on_subscribed
        self._on_message = on_message
        self._on_lost = on_lost
        self._changed = threading.Condition(threading.Lock())
        self._channels: dict[str, None] = {}
        self._changes: list[tuple[str, str]] = []
        # SUBSCRIBEs not confirmed yet, by channel: it is subscribed when the last one is confirmed.
        self._unconfirmed: Counter[str] = Counter()
        self._connection: Any = None
        self._failures = 0  # connections in a row that were lost within MAX_SILENCE_S
        self._pinged_s = 0.0
        self.is_down = False  # True from the first failed attempt to connect, or the loss of the connection
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Start the threads, which connect until `stop()`; call it only after a fork."""
        for name, turn in zip(self._loop_names, (self._read, self._send), strict=True):
            self._threads.append(self._loops.start(name, turn, self._stopped))

    def stop(self, *, wait: bool = True) -> None:
        """Close the connection and end the threads; wait until they have ended."""
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()
            connection = self._connection
        if connection:
            connection.disconnect()
        for thread in self._threads if wait else ():
            thread.join(self._settings.redis_timeout_s + 1)

    def add(self, channel: str) -> None:
        """Subscribe to a channel; `on_subscribed` follows, and again after every loss."""
        with self._changed:
            self._channels[channel] = None
            self._unconfirmed[channel] += 1
            self._changes.append((self._words[0], channel))
            self._changed.notify_all()

    def remove(self, channel: str) -> None:
        """Unsubscribe from a channel."""
        with self._changed:
            self._channels.pop(channel, None)
            self._changes.append((self._words[1], channel))
            self._changed.notify_all()

    def is_lost(self, channel: str) -> bool:
        """Tell whether messages of the channel are missed now, because there is no connection."""
        return self.is_down

    def is_subscribed(self, channel: str) -> bool:
        """Tell whether the latest SUBSCRIBE of the channel is confirmed."""
        return self._connection is not None and channel in self._channels and not self._unconfirmed[channel]

    def _read(self) -> float:
        """Keep one connection until it is lost; return how long to wait (s) before the next attempt."""
        began_s = time.monotonic()
        try:
            self._connect_and_read()
        except (RedisError, OSError) as error:
            self._record_loss(error)
        except Exception as error:  # the loop logs it and calls this again, which opens a new connection
            self._record_loss(error)
            raise
        self._failures = 1 if time.monotonic() - began_s > MAX_SILENCE_S else self._failures + 1
        pause_s = min(_MAX_PAUSE_S, _MIN_PAUSE_S * 2 ** min(self._failures, 10))
        return float(pause_s * random.uniform(0.5, 1))

    def _record_loss(self, error: Exception) -> None:
        self._server.suspect()
        if not self.is_down and not self._stopped.is_set():
            self.is_down = True
            log.warning("pub/sub connection lost", error=f"{type(error).__name__}: {error}", **self._place)
            self._on_lost()

    def _connect_and_read(self) -> None:
        """Connect, subscribe to all channels, and read until the connection is lost."""
        generation = self._server.generation
        connection = pubsub_connection(self._settings, self._node)
        try:
            connection.connect()
            # A server that is loading its data accepts connections, but refuses commands.
            connection.send_command("PING", check_health=False)
            connection.read_response(timeout=MAX_SILENCE_S)
            with self._changed:
                self._unconfirmed = Counter(dict.fromkeys(self._channels, 1))
                self._changes = [(self._words[0], channel) for channel in self._channels]
                self._connection = connection
                self.is_down = False
                self._changed.notify_all()
            log.info("pub/sub connected", channels=len(self._channels), **self._place)
            for reply in self._replies(connection, generation):
                self._handle(reply)
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
            self._loops.heartbeat(self._loop_names[0])
            if generation != self._server.generation:
                raise RedisConnectionError("the server was found to be the wrong one")
            try:
                reply = connection.read_response(disconnect_on_error=False, timeout=PING_S)
            except RedisTimeoutError:
                if time.monotonic() - heard_s > MAX_SILENCE_S:
                    raise RedisConnectionError("the server has not answered two pings") from None
                continue
            except MovedError as error:
                if not self._node:
                    raise
                with self._changed:  # no confirmation follows
                    for channel in [each for each in self._unconfirmed if key_slot(each.encode()) == error.slot_id]:
                        del self._unconfirmed[channel]
                self._on_moved(error, None)
                continue
            heard_s = time.monotonic()
            yield reply

    def _handle(self, reply: Any) -> None:
        if not isinstance(reply, list) or len(reply) < 3:
            return  # the reply to a ping
        kind, channel, payload = reply
        if kind in ("message", "smessage"):
            self._on_message(channel, payload)
        elif kind == "sunsubscribe":
            if self.is_subscribed(channel):  # the node says so, because the slot has moved
                self._on_moved(None, channel)
        elif kind in ("subscribe", "ssubscribe"):
            with self._changed:
                self._unconfirmed[channel] = max(0, self._unconfirmed[channel] - 1)
                confirmed = not self._unconfirmed[channel]
                if confirmed:
                    del self._unconfirmed[channel]
            if confirmed:
                self._on_subscribed(channel)

    def _send(self) -> None:
        """Send pending subscriptions and unsubscriptions, and a ping every `PING_S`."""
        with self._changed:
            if not self._changes and not self._stopped.is_set():
                self._changed.wait(PING_S)
            connection, changes, self._changes = self._connection, self._changes, []
        if connection is None:
            return  # a new connection subscribes to every channel
        if time.monotonic() - self._pinged_s >= PING_S:
            self._pinged_s = time.monotonic()
            changes.append(("PING", "alive"))
        try:
            for command, arguments in _batches(changes, by_slot=self._node is not None):
                if connection.is_connected:  # otherwise redis-py would connect by itself
                    connection.send_command(command, *arguments, check_health=False)
        except Exception as error:
            connection.disconnect()  # the reading thread notices, and connects again
            if not isinstance(error, RedisError | OSError):
                raise
        if self._connection is not connection:
            connection.disconnect()


def _batches(changes: list[tuple[str, str]], *, by_slot: bool) -> Iterator[tuple[str, list[str]]]:
    """Yield runs of the same command, each with a bounded number of channels; by_slot: all of one hash slot."""

    def kind(change: tuple[str, str]) -> tuple[str, str]:
        return change[0], slot_tag(change[1]) if by_slot else ""

    for (command, _), run in groupby(changes, key=kind):
        channels = [channel for _, channel in run]
        for first in range(0, len(channels), _MAX_CHANNELS_PER_COMMAND):
            yield command, channels[first : first + _MAX_CHANNELS_PER_COMMAND]

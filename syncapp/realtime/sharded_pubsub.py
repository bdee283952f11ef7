"""The pub/sub connections of a process to a cluster: one to each master, for the channels of its slots.

A channel moves when the topology says so: after a failover, or when a slot moves to another node. It is subscribed to
at the new node, which is reported like a subscription after a loss.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from functools import partial

from redis.exceptions import MovedError, RedisError

from syncapp.config import Settings
from syncapp.loops import Loops
from syncapp.realtime.pubsub import PubSub
from syncapp.store.client import topology_of
from syncapp.store.topology import Address

_CONFIRM_S = 1.0  # a subscription that is not confirmed for this long counts as lost
_ROUTE_S = 0.25
"""Maximum time until a channel follows the topology."""


class ShardedPubSub:
    """Keeps subscriptions in a cluster; used like `PubSub`.

    on_lost(channels): the subscriptions of one node are lost, and their messages may have been missed.
    """

    def __init__(
        self,
        settings: Settings,
        loops: Loops,
        *,
        on_subscribed: Callable[[str], None],
        on_message: Callable[[str, str], None],
        on_lost: Callable[[Iterable[str]], None],
    ) -> None:
        self._settings = settings
        self._topology = topology_of(settings)
        self._loops = loops
        self._on_subscribed = on_subscribed
        self._on_message = on_message
        self._on_lost = on_lost
        self._lock = threading.RLock()
        self._places: dict[str, Address | None] = {}
        self._placed_s: dict[str, float] = {}
        self._nodes: dict[Address, PubSub] = {}
        self._is_lost = False  # whether the topology has never been read
        self._hurry = threading.Event()
        self._stopped = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start the threads, which connect until `stop()`; call it only after a fork."""
        self._thread = self._loops.start("pubsub_route", self._route, self._stopped)

    def stop(self) -> None:
        """Close the connections and end the threads."""
        self._stopped.set()
        self._hurry.set()
        with self._lock:
            nodes = list(self._nodes.values())
        for node in nodes:
            node.stop(wait=False)
        for node in nodes:
            node.stop()
        if self._thread:
            self._thread.join(self._settings.redis_timeout_s + 1)

    def add(self, channel: str) -> None:
        """Subscribe to a channel; `on_subscribed` follows, and again after every loss and move."""
        with self._lock:
            self._places[channel] = None
            self._place(channel)

    def remove(self, channel: str) -> None:
        """Unsubscribe from a channel."""
        with self._lock:
            place = self._places.pop(channel, None)
            self._placed_s.pop(channel, None)
            if place in self._nodes:
                self._nodes[place].remove(channel)

    def is_subscribed(self, channel: str) -> bool:
        """Tell whether the latest subscription of the channel is confirmed."""
        node = self._node_of(channel)
        return node is not None and node.is_subscribed(channel)

    def is_lost(self, channel: str) -> bool:
        """Tell whether messages of the channel are missed now, because there is no connection to its node."""
        node = self._node_of(channel)
        if node is None or node.is_down:
            return node is not None or self._is_lost
        placed_s = self._placed_s.get(channel, float("inf"))
        return not node.is_subscribed(channel) and time.monotonic() > placed_s + _CONFIRM_S

    @property
    def is_down(self) -> bool:
        """Whether there is no connection at all."""
        with self._lock:
            return all(node.is_down for node in self._nodes.values()) if self._nodes else self._is_lost

    def _node_of(self, channel: str) -> PubSub | None:
        with self._lock:
            place = self._places.get(channel)
            return self._nodes.get(place) if place else None

    def _route(self) -> None:
        """Move the channels whose slot is on another node now; close connections without channels."""
        self._hurry.wait(_ROUTE_S)
        self._hurry.clear()
        if None in self._places.values():
            try:
                self._topology.refresh()
            except RedisError:  # the topology logs it
                self._is_lost = True
            else:
                self._is_lost = False
        with self._lock:
            moved = [channel for channel in list(self._places) if self._place(channel)]
            lost = [channel for channel in moved if (node := self._node_of(channel)) and node.is_down]
            used = set(self._places.values())
            unused = [self._nodes.pop(address) for address in list(self._nodes) if address not in used]
        for node in unused:
            node.stop(wait=False)
        if lost:  # a connection that is down already reports nothing
            self._on_lost(lost)

    def _place(self, channel: str) -> bool:
        """Subscribe to a channel at the node that has its slot now; return False if it is there. The lock is held."""
        owner = self._topology.known_owner(self._topology.slot_of(channel.encode()))
        before = self._places[channel]
        if owner is None or owner == before or self._stopped.is_set():
            return False
        if before in self._nodes:
            self._nodes[before].remove(channel)
        self._places[channel] = owner
        self._placed_s[channel] = time.monotonic()
        node = self._nodes.get(owner)
        if node is None:
            node = self._nodes[owner] = PubSub(
                self._settings,
                self._loops,
                on_subscribed=self._on_subscribed,
                on_message=self._on_message,
                on_lost=partial(self._lose, owner),
                node=owner,
                on_moved=self._move,
            )
            node.start()
        node.add(channel)
        return True

    def _lose(self, address: Address) -> None:
        """Report the channels of a node whose connection is lost."""
        with self._lock:
            channels = [channel for channel, place in self._places.items() if place == address]
        self._hurry.set()
        self._on_lost(channels)

    def _move(self, error: MovedError | None, channel: str | None) -> None:
        """Follow a slot that a node says it does not have."""
        if error:
            self._topology.moved(error)
        with self._lock:
            moved = (
                [channel]
                if channel
                else [each for each in self._places if error and self._topology.slot_of(each.encode()) == error.slot_id]
            )
            for each in moved:
                if place := self._places.get(each):
                    if place in self._nodes:
                        self._nodes[place].remove(each)
                    self._places[each] = None
        self._hurry.set()

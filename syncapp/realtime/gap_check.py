"""Comparing what this process knows of watched sessions with the store: a lost message may have no successor."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import redis

from syncapp.domain.order import Order
from syncapp.domain.session_layout import order_of
from syncapp.realtime.topic import Topic
from syncapp.store.keys import Keyspace

ROUND_S = 2.0
"""Each session is looked at once in this time."""


class _Look(NamedTuple):
    topic: Topic
    before: Order
    found: Order | None


class GapCheck:
    """Looks at a few sessions in each step, all in one round trip; believes what it sees when it sees it twice.

    For a moment after a commit its message is on the way: that is no contradiction a step later.
    """

    def __init__(self, client: redis.Redis, keys: Keyspace, *, step_s: float) -> None:
        self._client = client
        self._keys = keys
        self._steps = math.ceil(ROUND_S / step_s)
        self._step = 0
        self._left: list[Topic] = []
        self._size = 1
        self._suspects: list[_Look] = []

    def choose(self, topics: Iterable[Topic]) -> list[tuple[Topic, Order]]:
        """Return whom to look at in this step, and the order that is known now."""
        if self._step == 0:
            self._left = list(topics)
            self._size = math.ceil(len(self._left) / self._steps) or 1
        self._step = (self._step + 1) % self._steps
        chosen, self._left = self._left[: self._size], self._left[self._size :]
        return [(topic, topic.order) for topic in chosen if topic.current]

    def look(self, chosen: list[tuple[Topic, Order]]) -> list[_Look]:
        """Ask the store; raises `RedisError`."""
        if not chosen:
            return []
        with self._client.pipeline(transaction=False) as pipe:
            for topic, _ in chosen:
                pipe.hget(self._keys.session(topic.session_id), "scalars")
            replies: list[Any] = pipe.execute()
        return [
            _Look(topic, before, order_of(scalars) if scalars else None)
            for (topic, before), scalars in zip(chosen, replies, strict=True)
        ]

    def missed(self, looks: list[_Look]) -> list[Topic]:
        """Return the sessions of which something was missed: seen in the last step, and still so."""
        missed = [each.topic for each in self._suspects if each.topic.contradicts(each.before, each.found)]
        self._suspects = [each for each in looks if each.topic.contradicts(each.before, each.found)]
        return missed

"""The gap check: compares watched sessions with the store, because no message follows the last one if it is lost."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import redis

from syncapp.domain.session_layout import order_of
from syncapp.domain.version_order import Order
from syncapp.realtime.topic import Topic
from syncapp.store.connection_pool import packed, pool_of
from syncapp.store.keys import Keyspace

ROUND_S = 2.0
"""Each session is compared once in this time."""


class _Comparison(NamedTuple):
    topic: Topic
    before: Order
    found: Order | None


class GapCheck:
    """Compares a few sessions in each step, in one round trip. A session counts as behind if it is so in two steps.

    Right after a commit its message may still be on the way; one step later it has arrived.
    """

    def __init__(self, client: redis.Redis, keys: Keyspace, *, step_s: float) -> None:
        self._pool = pool_of(client)
        self._keys = keys
        self._steps = math.ceil(ROUND_S / step_s)
        self._step = 0
        self._remaining: list[Topic] = []
        self._batch_size = 1
        self._suspects: list[_Comparison] = []

    def choose(self, topics: Iterable[Topic]) -> list[tuple[Topic, Order]]:
        """Return the sessions to compare in this step, each with the order that is known now."""
        if self._step == 0:
            self._remaining = list(topics)
            self._batch_size = math.ceil(len(self._remaining) / self._steps) or 1
        self._step = (self._step + 1) % self._steps
        chosen, self._remaining = self._remaining[: self._batch_size], self._remaining[self._batch_size :]
        return [(topic, topic.order) for topic in chosen if topic.current]

    def compare(self, chosen: list[tuple[Topic, Order]]) -> list[_Comparison]:
        """Read the order of each session from the store; leave out those that cannot be read."""
        if not chosen:
            return []
        reads = (packed("HGET", self._keys.session(topic.session_id), "scalars") for topic, _ in chosen)
        replies: list[Any] = self._pool.call_each(*reads)
        return [
            _Comparison(topic, before, order_of(scalars) if scalars else None)
            for (topic, before), scalars in zip(chosen, replies, strict=True)
            if not isinstance(scalars, Exception)
        ]

    def missed(self, compared: list[_Comparison]) -> list[Topic]:
        """Return the sessions that have missed a message: the previous step found it, and it is still so."""
        missed = [each.topic for each in self._suspects if each.topic.contradicts(each.before, each.found)]
        self._suspects = [each for each in compared if each.topic.contradicts(each.before, each.found)]
        return missed

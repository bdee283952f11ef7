"""A watcher that records what the hub sends, and a store whose reads are counted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

from syncapp.domain.session import Session
from syncapp.domain.version_order import Order
from syncapp.realtime.hub import Hub
from syncapp.realtime.topic import SessionUpdate
from syncapp.store.sessions import SessionStore

Read = Callable[[str], tuple[Session, int]]
SOON_S = 20
"""Limit (s) for what takes 5 s by its own timers, on a busy machine."""


class Recorder:
    """A watcher that records its updates."""

    def __init__(self) -> None:
        self.updates: list[SessionUpdate] = []
        self._changed = threading.Condition()

    def offer(self, update: SessionUpdate) -> None:
        with self._changed:
            self.updates.append(update)
            self._changed.notify_all()

    def wait(self, check: Callable[[], bool], within_s: float = 60) -> None:
        with self._changed:
            assert self._changed.wait_for(check, within_s), f"was told {self.kinds} {self.orders}"

    def wait_for_order(self, order: Order, within_s: float = 60) -> SessionUpdate:
        self.wait(lambda: order in self.orders, within_s)
        return next(update for update in self.updates if update.order == order)

    @property
    def orders(self) -> list[Order]:
        return [update.order for update in self.updates if not update.error]

    @property
    def kinds(self) -> list[str]:
        return [update.error.code if update.error else update.kind for update in self.updates]


class CountedReads:
    """The store's `read`, counted, and delayed for the sessions in `held_up`."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self.count = 0
        self.held_up: dict[str, threading.Event] = {}

    def __call__(self, session_id: str) -> tuple[Session, int]:
        self.count += 1
        if session_id in self.held_up:
            self.held_up[session_id].wait(60)
        return self._store.read(session_id)


@contextmanager
def stopping(hub: Hub) -> Iterator[Hub]:
    try:
        yield hub
    finally:
        hub.stop()


def is_rising(orders: list[Order]) -> bool:
    return all(earlier < later for earlier, later in pairwise(orders))

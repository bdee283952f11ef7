"""Reads watched sessions from the store, on threads of its own: a slow read does not delay messages or other sessions.

A read that fails is tried again after a pause. What a read finds goes to the watchers that it concerns.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

import structlog

from syncapp.domain.session import Session
from syncapp.domain.version_order import Order
from syncapp.errors import InternalError, SessionNotFound, StoreUnavailable, SyncError
from syncapp.metrics import HUB_RESYNCS
from syncapp.realtime.outage_notices import unavailable
from syncapp.realtime.server_clock import ServerClock
from syncapp.realtime.topic import SessionUpdate, Topic, Watcher

log = structlog.get_logger(__name__)

READERS = 4
"""Number of threads that read."""
_QUEUE_WAIT_S = 5.0
_MIN_PAUSE_S = 0.1
_MAX_PAUSE_S = 2.0


class SessionReader:
    """Reads sessions in the order of the requests, each session once at a time.

    read(session_id) returns a session and the server's time (ms); it raises `SessionNotFound` and `StoreUnavailable`.
    lock: the hub's. The caller of `request` holds it; the other methods take it themselves. No lock is held during a
    read. clock: gets its first sample from a read.
    """

    def __init__(self, read: Callable[[str], tuple[Session, int]], lock: threading.Lock, clock: ServerClock) -> None:
        self._read = read
        self._lock = lock
        self._clock = clock
        self._queue: queue.SimpleQueue[Topic | None] = queue.SimpleQueue()
        self._retries: list[tuple[float, Topic]] = []

    def request(self, topic: Topic, reason: str = "") -> None:
        """Have a session read, unless a read is already requested; reason: label of the resync metric, '' for none."""
        if not topic.reading:
            topic.reading = True
            self._queue.put(topic)
            if reason:
                HUB_RESYNCS.labels(reason).inc()

    def stop(self) -> None:
        """Wake the threads, so that they notice that the hub has stopped."""
        for _ in range(READERS):
            self._queue.put(None)

    def retry_due(self) -> None:
        """Queue the sessions whose failed read is due to be tried again."""
        with self._lock:
            now_s = time.monotonic()
            due = [topic for when_s, topic in self._retries if when_s <= now_s]
            self._retries = [item for item in self._retries if item[0] > now_s]
        for topic in due:
            self._queue.put(topic)

    def read_next(self) -> None:
        """Read the session that has waited longest, if there is one; waits at most 5 s for it."""
        with suppress(queue.Empty):
            if (topic := self._queue.get(timeout=_QUEUE_WAIT_S)) is not None:
                self._read_once(topic)

    def _read_once(self, topic: Topic) -> None:
        """Read a session and apply what was found; schedule a retry if the read failed."""
        with self._lock:
            if not topic.watchers or not topic.subscribed:
                topic.reading = False  # it is read when it is subscribed again
                return
            asked, before, generation = dict(topic.waiting), topic.order, topic.generation
        session: Session | None = None
        failure: SyncError | None = None
        sent_s = time.monotonic()
        try:
            session, now_ms = self._read(topic.session_id)
            if not self._clock.is_known:
                self._clock.observe(sent_s, time.monotonic(), now_ms)
        except SessionNotFound:
            pass
        except StoreUnavailable:
            failure = unavailable()
        except Exception:  # one session that cannot be read must not stop the reading of others
            log.exception("a session could not be read", session_id=topic.session_id)
            failure = InternalError("the session could not be read; its state follows when it can")
        with self._lock:
            if failure:
                self._retry_later(topic, failure)
                return
            topic.reading, topic.failures = False, 0
            if not topic.watchers:
                return
            is_still_subscribed = generation == topic.generation
            if session and topic.current and is_still_subscribed and session.order > topic.order:
                self._apply_ahead(topic, session, asked)
                return
            topic.current = is_still_subscribed
            self._apply(topic, session, before, asked)

    # The lock is held from here on.

    def _apply(self, topic: Topic, session: Session | None, before: Order, asked: Mapping[Watcher, Order]) -> None:
        """Apply what a read found: send changes to all watchers, and answer those that asked before it began.

        asked: the order that each of them knew then.
        """
        now_ms = self._clock.now_ms()
        change = topic.apply_read(session, before, now_ms)
        if change:
            topic.offer(list(topic.watchers), change)
        answered = _asked_before(topic, asked) | {
            watcher for watcher, known in topic.waiting.items() if known <= topic.order
        }
        ahead = [watcher for watcher in answered if topic.waiting[watcher] > topic.order]
        for watcher in answered:
            del topic.waiting[watcher]
        if ahead:
            topic.offer(ahead, topic.corrected_state(now_ms))
        if not change:
            topic.offer(answered.difference(ahead), topic.current_state(now_ms))
        for update in topic.apply_early(now_ms):
            topic.offer(list(topic.watchers), update)
        if topic.subscribed and (topic.waiting or not topic.current):
            self.request(topic, "" if topic.current else "gap")

    def _apply_ahead(self, topic: Topic, session: Session, asked: Mapping[Watcher, Order]) -> None:
        """Answer watchers that asked, with a state whose messages have not arrived yet.

        The other watchers get those messages when they arrive, so that they get every event.
        """
        now_ms = self._clock.now_ms()
        answered = {watcher: topic.waiting.pop(watcher) for watcher in _asked_before(topic, asked)}
        for went_back in (False, True):
            watchers = [watcher for watcher, known in answered.items() if (known > session.order) == went_back]
            if watchers:
                update = SessionUpdate(topic.session_id, now_ms, session=session, went_back=went_back)
                topic.offer(watchers, update)
        if topic.waiting:
            self.request(topic, "asked")

    def _retry_later(self, topic: Topic, failure: SyncError) -> None:
        """Report the failure to the watchers that wait, and schedule another read."""
        topic.offer(list(topic.waiting), topic.error_update(self._clock.now_ms(), failure))
        pause_s = min(_MAX_PAUSE_S, _MIN_PAUSE_S * 2 ** min(topic.failures, 10)) * random.uniform(0.5, 1)
        topic.failures += 1
        self._retries.append((time.monotonic() + pause_s, topic))


def _asked_before(topic: Topic, asked: Mapping[Watcher, Order]) -> set[Watcher]:
    """Return the watchers that a read answers: those that asked before it, and know of nothing later since."""
    return {watcher for watcher, known in topic.waiting.items() if watcher in asked and known <= asked[watcher]}

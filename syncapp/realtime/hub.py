"""The hub: tells whoever watches a session of every change, for the price of one subscription a session.

Subscribe, wait for the confirmation, read, then fold each message into the copy held (`topics`); a gap in
versions is read anew. Who reads Redis never waits for a watcher, nor one session for another.
"""

from __future__ import annotations

import queue
import random
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress

import orjson
import redis
import structlog
from redis.exceptions import RedisError, ResponseError

from syncapp.config import Settings
from syncapp.domain.order import NEVER, Order
from syncapp.domain.session import Session
from syncapp.errors import InternalError, SessionNotFound, StoreUnavailable, SyncError
from syncapp.loops import Loops
from syncapp.metrics import HUB_RESYNCS, WATCHED
from syncapp.realtime.attendance import Attendance
from syncapp.realtime.gap_check import GapCheck
from syncapp.realtime.pubsub import PubSub
from syncapp.realtime.server_clock import ServerClock
from syncapp.realtime.topic import SessionUpdate, Topic, Watcher
from syncapp.store.client import connect
from syncapp.store.keys import Keyspace

log = structlog.get_logger(__name__)

READERS = 4
CLOCK_S = 5.0
OUTAGE_S = 1.0
"""Shorter outages are not reported to clients."""
_TEND_S = 0.1
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 2.0
_BEAT_S = 5.0


class Hub:
    """Watches sessions for anybody who wants to know; nothing starts before the first `watch`.

    read(session_id) returns a session and the server's time (ms); it raises `SessionNotFound` and
    `StoreUnavailable`. It runs on the hub's own threads. attend(session_ids) tells the store that somebody watches
    them (`attendance`). seen(session_id) returns the last state that this process has answered with. client: one to
    look after what is watched with, or one of its own. clock: the server's, to be read at any time.
    """

    def __init__(
        self,
        settings: Settings,
        read: Callable[[str], tuple[Session, int]],
        *,
        attend: Callable[[Sequence[str]], Sequence[ResponseError | None]] | None = None,
        seen: Callable[[str], Session | None] = lambda _: None,
        client: redis.Redis | None = None,
        loops: Loops | None = None,
    ) -> None:
        self.clock = ServerClock()
        self._loops = loops or Loops()
        self._settings = settings
        self._read = read
        self._seen = seen
        self._keys = Keyspace(settings.sync_buckets)
        self._lock = threading.Lock()
        self._topics: dict[str, Topic] = {}
        self._by_channel: dict[str, Topic] = {}
        self._attendance = Attendance(attend, self._held) if attend else None
        self._to_read: queue.SimpleQueue[Topic | None] = queue.SimpleQueue()
        self._later: list[tuple[float, Topic]] = []
        self._tell_outage_s = float("inf")
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._client = client or connect(settings, max_connections=1)
        self._clock_due_s = 0.0
        self._inspection = GapCheck(self._client, self._keys, step_s=_TEND_S)
        self._pubsub = PubSub(
            settings,
            self._loops,
            on_subscribed=self._subscribed,
            on_message=self._message,
            on_lost=self._lost,
        )

    def watch(self, session_id: str, watcher: Watcher, known: Order = NEVER) -> None:
        """Tell a watcher what is now, as soon as that is known, and then of every change; known: as of `ask`."""
        with self._lock:
            if not self._threads:
                self._start()
            topic = self._topics.get(session_id)
            if topic is None:
                topic = Topic(session_id, self._keys.channel(session_id))
                self._topics[session_id] = self._by_channel[topic.channel] = topic
                WATCHED.inc()
                self._pubsub.add(topic.channel)
                if self._attendance:
                    self._attendance.begin(session_id)
            topic.watchers[watcher] = None
            self._answer(topic, watcher, known)

    def ask(self, session_id: str, watcher: Watcher, known: Order) -> None:
        """Tell a watcher once more what is now; when it knows of a later version than the hub, read anew first."""
        with self._lock:
            topic = self._topics.get(session_id)
            if topic and watcher in topic.watchers:
                self._answer(topic, watcher, known)

    def unwatch(self, session_id: str, watcher: Watcher) -> None:
        """Tell a watcher no more; does nothing for one that is not told."""
        with self._lock:
            topic = self._topics.get(session_id)
            if topic is None or watcher not in topic.watchers:
                return
            del topic.watchers[watcher]
            topic.waiting.pop(watcher, None)
            if not topic.watchers:
                del self._topics[session_id], self._by_channel[topic.channel]
                WATCHED.dec()
                self._pubsub.remove(topic.channel)

    def stop(self) -> None:
        """End the threads and the connections; the hub can't be used again."""
        self._stopped.set()
        if self._threads:
            self._pubsub.stop()
        for _ in range(READERS):
            self._to_read.put(None)
        for thread in self._threads:
            thread.join(self._settings.redis_timeout_s + 1)
        WATCHED.dec(len(self._topics))
        self._topics.clear()
        self._by_channel.clear()

    def _start(self) -> None:
        turns = {"hub_tend": self._tend} | {f"hub_read_{number}": self._read_next for number in range(READERS)}
        self._threads = [self._loops.start(name, turn, self._stopped) for name, turn in turns.items()]
        self._pubsub.start()

    # Up to the threads, the lock is held.

    def _answer(self, topic: Topic, watcher: Watcher, known: Order) -> None:
        """Tell a watcher what is now, or let it wait until that is known.

        What this process has answered since is newer than what the hub was told: its caller may be the watcher.
        """
        now_ms = self.clock.now_ms()
        if topic.current and (seen := self._seen(topic.session_id)):
            known = max(known, seen.order)
        is_due = topic.is_due(now_ms, self._settings.session_ttl_s * 1000)
        reason = "asked" if known > topic.order else "due" if is_due else ""
        if topic.current and not reason:
            self._offer(topic, [watcher], topic.shown(now_ms))
            return
        topic.waiting[watcher] = known
        if topic.subscribed:
            self._want(topic, reason)
        elif self._pubsub.is_down:
            self._offer(topic, [watcher], topic.failure(now_ms, _unavailable()))

    def _offer(self, topic: Topic, watchers: Iterable[Watcher], update: SessionUpdate) -> None:
        for watcher in watchers:
            try:
                watcher.offer(update)
            except Exception:  # whatever is wrong with one watcher, the others are told
                log.exception("a watcher failed", session_id=topic.session_id)

    def _want(self, topic: Topic, reason: str = "") -> None:
        """Have a session read; once at a time."""
        if not topic.reading:
            topic.reading = True
            self._to_read.put(topic)
            if reason:
                HUB_RESYNCS.labels(reason).inc()

    def _found(self, topic: Topic, session: Session | None, before: Order, asked: set[Watcher]) -> None:
        """Take what a read found, tell all whom it is news to, and those who asked before it began."""
        now_ms = self.clock.now_ms()
        news = topic.found(session, before, now_ms)
        if news:
            self._offer(topic, list(topic.watchers), news)
        answered = {watcher for watcher, known in topic.waiting.items() if known <= topic.order or watcher in asked}
        doubters = [watcher for watcher in answered if topic.waiting[watcher] > topic.order]
        for watcher in answered:
            del topic.waiting[watcher]
        if doubters:
            self._offer(topic, doubters, topic.shown_to_doubters(now_ms))
        if not news:
            self._offer(topic, answered.difference(doubters), topic.shown(now_ms))
        for update in topic.take_early(now_ms):
            self._offer(topic, list(topic.watchers), update)
        if topic.subscribed and (topic.waiting or not topic.current):
            self._want(topic, "" if topic.current else "gap")

    def _found_ahead(self, topic: Topic, session: Session, asked: set[Watcher]) -> None:
        """Answer those who asked with a state ahead of its messages, which tell the others, with each event."""
        answered = asked & topic.waiting.keys()
        for watcher in answered:
            del topic.waiting[watcher]
        self._offer(topic, answered, SessionUpdate(topic.session_id, self.clock.now_ms(), session=session))
        if topic.waiting:
            self._want(topic, "asked")

    def _failed(self, topic: Topic, failure: SyncError) -> None:
        """Tell those who wait, and try again later."""
        self._offer(topic, list(topic.waiting), topic.failure(self.clock.now_ms(), failure))
        pause_s = min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(topic.failures, 10)) * random.uniform(0.5, 1)
        topic.failures += 1
        self._later.append((time.monotonic() + pause_s, topic))

    # On the thread that reads the pub/sub connection.

    def _subscribed(self, channel: str) -> None:
        with self._lock:
            topic = self._by_channel.get(channel)
            # This may come late: the channel may have been left and joined again since.
            if topic and self._pubsub.is_subscribed(channel):
                topic.confirmed()
                self._want(topic, "reconnect" if topic.order > NEVER else "")

    def _message(self, channel: str, text: str) -> None:
        with self._lock:
            topic = self._by_channel.get(channel)
            if topic is None:
                return
            try:
                update = topic.take(orjson.loads(text), self.clock.now_ms())
            except (ValueError, KeyError, TypeError):
                log.exception("a message is not one of ours", session_id=topic.session_id)
                return
            if update:
                self._offer(topic, list(topic.watchers), update)
            elif topic.subscribed and not topic.current:
                self._want(topic, "gap")

    def _lost(self) -> None:
        with self._lock:
            self._tell_outage_s = time.monotonic() + OUTAGE_S
            now_ms = self.clock.now_ms()
            for topic in self._topics.values():
                topic.lost()
                if topic.waiting:
                    self._offer(topic, list(topic.waiting), topic.failure(now_ms, _unavailable()))

    # On the hub's own threads.

    def _read_next(self) -> None:
        """Read the session that has waited longest, if there is one."""
        with suppress(queue.Empty):
            if (topic := self._to_read.get(timeout=_BEAT_S)) is not None:
                self._read_once(topic)

    def _read_once(self, topic: Topic) -> None:
        """Read a session and take what is found; a read that failed is tried again later."""
        with self._lock:
            if not topic.watchers or not topic.subscribed:
                topic.reading = False  # it is read when it is subscribed again
                return
            asked, before, generation = set(topic.waiting), topic.order, topic.generation
        session: Session | None = None
        failure: SyncError | None = None
        sent_s = time.monotonic()
        try:
            session, now_ms = self._read(topic.session_id)
            if not self.clock.is_known:
                self.clock.observe(sent_s, time.monotonic(), now_ms)
        except SessionNotFound:
            pass
        except StoreUnavailable:
            failure = _unavailable()
        except Exception:  # a session that can't be read must not end the reading of others
            log.exception("a session could not be read", session_id=topic.session_id)
            failure = InternalError("the session could not be read; its state follows when it can")
        with self._lock:
            if failure:
                self._failed(topic, failure)
                return
            topic.reading, topic.failures = False, 0
            if not topic.watchers:
                return
            is_subscribed_still = generation == topic.generation
            if session and topic.current and is_subscribed_still and session.order > topic.order:
                self._found_ahead(topic, session, asked)
                return
            topic.current = is_subscribed_still
            self._found(topic, session, before, asked)

    def _tend(self) -> float:
        """Do the work that no message triggers; return how long to wait (s) before the next time."""
        with self._lock:
            now_s = time.monotonic()
            due = [topic for when_s, topic in self._later if when_s <= now_s]
            self._later = [item for item in self._later if item[0] > now_s]
        for topic in due:
            self._to_read.put(topic)
        if self._pubsub.is_down:
            self._tell_outage()
        else:
            if time.monotonic() >= self._clock_due_s:
                self._clock_due_s = time.monotonic() + (CLOCK_S if self.clock.is_settled else _TEND_S)
                self._ask_time()
            self._inspect()
            if self._attendance:
                self._attendance.run_once()
        return _TEND_S

    def _tell_outage(self) -> None:
        """Tell everybody that the store is away, once; and let everybody be told when it is back."""
        with self._lock:
            if time.monotonic() < self._tell_outage_s or not self._pubsub.is_down:
                return
            self._tell_outage_s = float("inf")
            now_ms = self.clock.now_ms()
            for topic in self._topics.values():
                topic.waiting = dict.fromkeys(topic.watchers, NEVER) | topic.waiting
                self._offer(topic, list(topic.watchers), topic.failure(now_ms, _unavailable()))

    def _held(self, session_id: str) -> Session | None:
        """Return the cached state of a watched session; raises `KeyError` if it is not watched."""
        with self._lock:
            return self._topics[session_id].session

    def _inspect(self) -> None:
        """Read what was missed without anything that followed to show it."""
        with self._lock:
            chosen = self._inspection.choose(self._topics.values())
        try:
            looks = self._inspection.look(chosen)
        except RedisError:
            log.debug("watched sessions could not be inspected")
            return
        with self._lock:
            for topic in self._inspection.missed(looks):
                log.warning("a message was lost", session_id=topic.session_id, known=topic.order)
                topic.current = False
                self._want(topic, "inspection")

    def _ask_time(self) -> None:
        sent_s = time.monotonic()
        try:
            seconds, micros = self._client.time()
        except RedisError:
            log.debug("the server's time could not be read")
        else:
            self.clock.observe(sent_s, time.monotonic(), int(seconds) * 1000 + int(micros) / 1000)


def _unavailable() -> StoreUnavailable:
    return StoreUnavailable("the store does not answer; the state follows when it does", {"retry_after_s": 1})

"""The hub: sends every change of a session to all its watchers in this process, over one subscription per session.

It subscribes, waits for the confirmation, reads the session, and then applies each message to its own copy (`topic`).
After a gap in the versions it reads the session again (`session_reader`). Neither thread that uses the store's
connections ever waits for a watcher, and no session waits for another.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence

import orjson
import redis
import structlog
from redis.exceptions import RedisError

from syncapp.config import Settings
from syncapp.domain.session import Session
from syncapp.domain.version_order import NEVER, Order
from syncapp.loops import Loops
from syncapp.metrics import WATCHED
from syncapp.realtime.attendance import Attendance
from syncapp.realtime.gap_check import GapCheck
from syncapp.realtime.outage_notices import OutageNotices, unavailable
from syncapp.realtime.pubsub import PubSub
from syncapp.realtime.server_clock import ServerClock
from syncapp.realtime.session_reader import READERS, SessionReader
from syncapp.realtime.sharded_pubsub import ShardedPubSub
from syncapp.realtime.topic import Topic, Watcher
from syncapp.store.client import connect
from syncapp.store.connection_pool import pool_of
from syncapp.store.keys import Keyspace

log = structlog.get_logger(__name__)

CLOCK_S = 5.0
"""Time between two samples of the server's clock, once there are enough of them."""
_MAINTAIN_S = 0.1


class Hub:
    """Watches sessions for connections, streams and long polls; nothing starts before the first `watch`.

    read(session_id) returns a session and the server's time (ms); it raises `SessionNotFound` and
    `StoreUnavailable`. It runs on the hub's own threads. attend(session_ids) tells the store that these sessions are
    watched (`attendance`). cached(session_id) returns the last state that this process has answered with. client: used
    to check watched sessions and to read the server's clock; by default a new one. clock: the server's; any thread may
    read it at any time.
    """

    def __init__(
        self,
        settings: Settings,
        read: Callable[[str], tuple[Session, int]],
        *,
        attend: Callable[[Sequence[str]], Sequence[Exception | None]] | None = None,
        cached: Callable[[str], Session | None] = lambda _: None,
        client: redis.Redis | None = None,
        loops: Loops | None = None,
    ) -> None:
        self.clock = ServerClock()
        self._loops = loops or Loops()
        self._settings = settings
        self._cached = cached
        self._keys = Keyspace(settings.sync_buckets)
        self._lock = threading.Lock()
        self._topics: dict[str, Topic] = {}
        self._by_channel: dict[str, Topic] = {}
        self._attendance = Attendance(attend, self._session_of) if attend else None
        self._reader = SessionReader(read, self._lock, self.clock)
        self._outages = OutageNotices(self.clock)
        self._stopped = threading.Event()
        self._threads: list[threading.Thread] = []
        self._client = client or connect(settings, max_connections=1)
        self._clock_due_s = 0.0
        self._gap_check = GapCheck(self._client, self._keys, step_s=_MAINTAIN_S)
        self._pubsub = (ShardedPubSub if pool_of(self._client).is_cluster else PubSub)(
            settings,
            self._loops,
            on_subscribed=self._on_subscribed,
            on_message=self._on_message,
            on_lost=self._on_lost,
        )

    def watch(self, session_id: str, watcher: Watcher, known: Order = NEVER) -> None:
        """Send a watcher the current state as soon as it is known, and then every change.

        known: the order that the watcher has; it never gets an older state, unless the store has lost commits.
        """
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

    def resend(self, session_id: str, watcher: Watcher, known: Order) -> None:
        """Send a watcher the current state again; if it knows a later version than the hub, after another read."""
        with self._lock:
            topic = self._topics.get(session_id)
            if topic and watcher in topic.watchers:
                self._answer(topic, watcher, known)

    def unwatch(self, session_id: str, watcher: Watcher) -> None:
        """Send a watcher nothing more about a session; does nothing if it does not watch it."""
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
        """End the threads and the connections; the hub cannot be used again."""
        self._stopped.set()
        if self._threads:
            self._pubsub.stop()
        self._reader.stop()
        for thread in self._threads:
            thread.join(self._settings.redis_timeout_s + 1)
        WATCHED.dec(len(self._topics))
        self._topics.clear()
        self._by_channel.clear()

    def _start(self) -> None:
        turns = {"hub_tend": self._maintain} | {
            f"hub_read_{number}": self._reader.read_next for number in range(READERS)
        }
        self._threads = [self._loops.start(name, turn, self._stopped) for name, turn in turns.items()]
        self._pubsub.start()

    def _answer(self, topic: Topic, watcher: Watcher, known: Order) -> None:
        """Send a watcher the current state, or let it wait until that is known. The lock is held.

        A state that this process has answered with may be newer than the hub's, and the watcher may know it.
        """
        now_ms = self.clock.now_ms()
        if topic.current and (cached := self._cached(topic.session_id)):
            known = max(known, cached.order)
        is_due = topic.is_due(now_ms, self._settings.session_ttl_s * 1000)
        reason = "asked" if known > topic.order else "due" if is_due else ""
        if topic.current and not reason:
            topic.offer([watcher], topic.current_state(now_ms))
            return
        topic.waiting[watcher] = known
        if topic.subscribed:
            self._reader.request(topic, reason)
        elif self._pubsub.is_lost(topic.channel):
            topic.offer([watcher], topic.error_update(now_ms, unavailable()))

    # On the thread that reads the pub/sub connection.

    def _on_subscribed(self, channel: str) -> None:
        with self._lock:
            topic = self._by_channel.get(channel)
            # A confirmation may be late: the channel may have been unsubscribed and subscribed again since.
            if topic and self._pubsub.is_subscribed(channel):
                topic.mark_subscribed()
                self._reader.request(topic, "reconnect" if topic.order > NEVER else "")

    def _on_message(self, channel: str, text: str) -> None:
        with self._lock:
            topic = self._by_channel.get(channel)
            if topic is None:
                return
            try:
                update = topic.apply(orjson.loads(text), self.clock.now_ms())
            except (ValueError, KeyError, TypeError):
                log.exception("a message is not one of ours", session_id=topic.session_id)
                return
            if update:
                topic.offer(list(topic.watchers), update)
            elif topic.subscribed and not topic.current:
                self._reader.request(topic, "gap")

    def _on_lost(self, channels: Iterable[str] | None = None) -> None:
        """Note that subscriptions were lost: those of some channels, or all."""
        with self._lock:
            topics = self._topics.values() if channels is None else map(self._by_channel.get, channels)
            self._outages.begin(topic for topic in topics if topic)

    # On the hub's own thread.

    def _maintain(self) -> float:
        """Do the work that no message triggers; return how long to wait (s) before the next time."""
        self._reader.retry_due()
        with self._lock:
            self._outages.report(self._is_lost)
        if not self._pubsub.is_down:
            if time.monotonic() >= self._clock_due_s:
                self._clock_due_s = time.monotonic() + (CLOCK_S if self.clock.is_settled else _MAINTAIN_S)
                self._sample_clock()
            self._check_gaps()
            if self._attendance:
                self._attendance.run_once()
        return _MAINTAIN_S

    def _is_lost(self, topic: Topic) -> bool:
        return topic.session_id in self._topics and self._pubsub.is_lost(topic.channel)

    def _session_of(self, session_id: str) -> Session | None:
        """Return the cached state of a watched session; raises `KeyError` if it is not watched."""
        with self._lock:
            return self._topics[session_id].session

    def _check_gaps(self) -> None:
        """Find sessions whose last message was lost, and have them read again."""
        with self._lock:
            chosen = self._gap_check.choose(self._topics.values())
        try:
            compared = self._gap_check.compare(chosen)
        except RedisError:
            log.debug("watched sessions could not be inspected")
            return
        with self._lock:
            for topic in self._gap_check.missed(compared):
                log.warning("a message was lost", session_id=topic.session_id, known=topic.order)
                topic.current = False
                self._reader.request(topic, "inspection")

    def _sample_clock(self) -> None:
        sent_s = time.monotonic()
        try:
            seconds, micros = self._client.time()
        except RedisError:
            log.debug("the server's time could not be read")
        else:
            self.clock.observe(sent_s, time.monotonic(), int(seconds) * 1000 + int(micros) / 1000)

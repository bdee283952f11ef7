"""The hub: who watches a session is told every version, in order, once, whatever happens to the connection."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import islice, pairwise
from urllib.parse import urlsplit

import orjson
import pytest
import redis as redis_py
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from syncapp.config import Settings
from syncapp.dev.servers import Valkey
from syncapp.domain.order import NEVER, Order
from syncapp.domain.session import Session
from syncapp.errors import SessionNotFound, StoreUnavailable
from syncapp.realtime.hub import READERS, Hub
from syncapp.realtime.protocol import Outgoing
from syncapp.realtime.pubsub import PubSub
from syncapp.realtime.send_queue import MOST_BYTES, MOST_FRAMES, QueuedItem, SendQueue
from syncapp.realtime.server_clock import ServerClock
from syncapp.realtime.topic import SessionUpdate, Topic
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from tests.support.store import chess, make_store, messages, settings
from tests.support.web_clients import eventually

Redis = redis_py.Redis
Read = Callable[[str], tuple[Session, int]]
SOON_S = 20
"""What is over after 5 s, by its own timers, on a machine that is busy with other things."""


class Recorder:
    """A watcher that remembers."""

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


class Counting:
    """The store's `read`, counted, and held up where a test wants that."""

    def __init__(self, store: SessionStore) -> None:
        self._store = store
        self.count = 0
        self.held_up: dict[str, threading.Event] = {}

    def __call__(self, session_id: str) -> tuple[Session, int]:
        self.count += 1
        if session_id in self.held_up:
            self.held_up[session_id].wait(20)
        return self._store.read(session_id)


@pytest.fixture
def store(redis: Redis, redis_url: str) -> SessionStore:
    return make_store(redis_url, set_clock=False)


@pytest.fixture
def read(store: SessionStore) -> Counting:
    return Counting(store)


@pytest.fixture
def make_hub(redis_url: str, read: Counting) -> Iterator[Callable[[], Hub]]:
    with ExitStack() as stack:

        def make(chosen: Settings | None = None, using: Read = read) -> Hub:
            hub = Hub(chosen or settings(redis_url), using)
            stack.callback(hub.stop)
            return hub

        yield make


@contextmanager
def closing_hub(hub: Hub) -> Iterator[Hub]:
    try:
        yield hub
    finally:
        hub.stop()


@pytest.fixture
def hub(make_hub: Callable[[], Hub]) -> Hub:
    return make_hub()


@pytest.fixture
def running(store: SessionStore) -> Session:
    session_id = store.create(chess()).found.session_id
    return store.start(session_id).found


def rising(orders: list[Order]) -> bool:
    return all(earlier < later for earlier, later in pairwise(orders))


def test_nothing_starts_before_the_first_watch(hub: Hub) -> None:
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith(("hub", "pubsub"))]


def test_a_watcher_is_told_the_state_and_then_every_commit_as_the_store_has_it(
    hub: Hub, store: SessionStore, running: Session
) -> None:
    watcher = Recorder()
    hub.watch(running.session_id, watcher)
    watcher.wait_for_order(running.order)
    made = [store.switch(running.session_id) for _ in range(5)]
    made.append(store.update(running.session_id, {"round": 2}))
    made.append(store.pause(running.session_id))
    watcher.wait_for_order(made[-1].found.order)
    assert watcher.orders == [running.order, *[result.found.order for result in made]]
    for update, result in zip(watcher.updates[1:], made, strict=True):
        assert update.session == result.found
        assert update.event == result.event
        assert update.at_ms >= result.found.updated_ms
    assert watcher.kinds == [Outgoing.STATE_SYNC, *[Outgoing.STATE_UPDATE] * 7]


def test_any_number_of_watchers_of_a_session_cost_one_read_and_one_encoding(
    hub: Hub, read: Counting, store: SessionStore, running: Session
) -> None:
    watchers = [Recorder() for _ in range(500)]
    for watcher in watchers:
        hub.watch(running.session_id, watcher)
    for watcher in watchers:
        watcher.wait_for_order(running.order)
    late = Recorder()
    hub.watch(running.session_id, late)
    assert late.orders == [running.order]
    assert read.count == 1
    switched = store.switch(running.session_id).found
    frames = [watcher.wait_for_order(switched.order).frame(Outgoing.STATE_UPDATE) for watcher in [*watchers, late]]
    assert len({id(frame) for frame in frames}) == 1
    assert read.count == 1


def test_who_watches_an_unknown_session_is_told_so_and_then_of_its_making(hub: Hub, store: SessionStore) -> None:
    session_id, watcher = str(uuid.uuid4()), Recorder()
    hub.watch(session_id, watcher)
    watcher.wait(lambda: watcher.kinds == [SessionNotFound.code])
    made = store.create(chess(session_id=session_id)).found
    assert watcher.wait_for_order(made.order).kind is Outgoing.STATE_UPDATE


def test_who_stays_after_a_delete_is_told_of_the_next_session_of_that_id(
    hub: Hub, read: Counting, store: SessionStore, running: Session
) -> None:
    watcher = Recorder()
    hub.watch(running.session_id, watcher)
    watcher.wait_for_order(running.order)
    store.delete(running.session_id)
    deleted = (running.epoch, running.version + 1)
    assert watcher.wait_for_order(deleted).kind is Outgoing.SESSION_DELETED
    late = Recorder()
    hub.watch(running.session_id, late)
    assert late.kinds == [SessionNotFound.code]
    made = store.create(chess(session_id=running.session_id)).found
    assert made.epoch > running.epoch
    assert watcher.wait_for_order(made.order).kind is Outgoing.STATE_UPDATE
    assert late.wait_for_order(made.order).kind is Outgoing.STATE_UPDATE
    assert read.count == 1


def test_leaving_and_joining_at_once_misses_nothing(hub: Hub, store: SessionStore, running: Session) -> None:
    for _ in range(60):
        gone, watcher = Recorder(), Recorder()
        hub.watch(running.session_id, gone)
        hub.unwatch(running.session_id, gone)
        hub.watch(running.session_id, watcher)
        newest = store.switch(running.session_id).found
        watcher.wait_for_order(newest.order)
        assert watcher.updates[-1].session == newest
        assert rising(watcher.orders)
        hub.unwatch(running.session_id, watcher)


def test_only_watched_sessions_are_subscribed_to(hub: Hub, redis: Redis, running: Session) -> None:
    channel = Keyspace().channel(running.session_id).encode()
    watcher = Recorder()
    hub.watch(running.session_id, watcher)
    eventually(lambda: channel in redis.pubsub_channels())
    hub.unwatch(running.session_id, watcher)
    hub.unwatch(running.session_id, watcher)
    eventually(lambda: channel not in redis.pubsub_channels())


def test_a_watcher_that_fails_does_no_harm_to_others(hub: Hub, store: SessionStore, running: Session) -> None:
    class Broken(Recorder):
        def offer(self, update: SessionUpdate) -> None:
            raise RuntimeError("broken")

    watcher = Recorder()
    hub.watch(running.session_id, Broken())
    hub.watch(running.session_id, watcher)
    newest = store.switch(running.session_id).found
    watcher.wait_for_order(newest.order)


def test_a_session_whose_read_hangs_does_not_hold_up_others(
    hub: Hub, read: Counting, store: SessionStore, running: Session
) -> None:
    stuck = [store.create(chess()).found.session_id for _ in range(READERS - 1)]
    read.held_up = {session_id: threading.Event() for session_id in stuck}
    hung = [Recorder() for _ in stuck]
    for session_id, watcher in zip(stuck, hung, strict=True):
        hub.watch(session_id, watcher)
    eventually(lambda: read.count == len(stuck))
    watcher = Recorder()
    hub.watch(running.session_id, watcher)
    watcher.wait_for_order(running.order)
    newest = [store.start(session_id).found for session_id in stuck]
    for event in read.held_up.values():
        event.set()
    for watcher, session in zip(hung, newest, strict=True):
        watcher.wait_for_order(session.order)
        assert rising(watcher.orders)


def test_a_read_that_fails_is_tried_again(make_hub: Callable[..., Hub], store: SessionStore, running: Session) -> None:
    failures: list[Exception] = [StoreUnavailable("away"), ValueError("odd"), StoreUnavailable("away")]

    def failing(session_id: str) -> tuple[Session, int]:
        if failures:
            raise failures.pop(0)
        return store.read(session_id)

    watcher = Recorder()
    make_hub(using=failing).watch(running.session_id, watcher)
    watcher.wait_for_order(running.order)
    assert watcher.kinds == ["STORE_UNAVAILABLE", "INTERNAL_ERROR", "STORE_UNAVAILABLE", Outgoing.STATE_SYNC]


def test_messages_that_are_not_ours_are_let_be(hub: Hub, redis: Redis, store: SessionStore, running: Session) -> None:
    watcher = Recorder()
    hub.watch(running.session_id, watcher)
    watcher.wait_for_order(running.order)
    channel = Keyspace().channel(running.session_id)
    strange = {"epoch": running.epoch, "version": running.version + 1, "status": "running", "event": {}, "patch": 7}
    for text in (b"", b"no", b"[]", b"{}", b'"x"', b'{"epoch":"a","version":1}', b"\xff\xfe", orjson.dumps(strange)):
        redis.publish(channel, text)
    newest = store.switch(running.session_id).found
    watcher.wait_for_order(newest.order)
    assert watcher.updates[-1].session == newest
    assert rising(watcher.orders)


def test_a_missed_message_is_noticed_at_the_next_and_repaired(
    hub: Hub, redis: Redis, store: SessionStore, running: Session
) -> None:
    watcher = Recorder()
    hub.watch(running.session_id, watcher)
    watcher.wait_for_order(running.order)
    store.switch(running.session_id)
    watcher.wait(lambda: len(watcher.orders) == 2)
    # What is published from here on does not come from a commit: the hub must look, and find nothing new.
    message = messages(redis, running.session_id)[-1] | {"version": running.version + 9}
    redis.publish(Keyspace().channel(running.session_id), orjson.dumps(message))
    newest = store.switch(running.session_id).found
    watcher.wait_for_order(newest.order)
    assert rising(watcher.orders)


def test_asking_with_a_later_version_than_the_hub_holds_reads_anew(hub: Hub, read: Counting, running: Session) -> None:
    watcher = Recorder()
    hub.watch(running.session_id, watcher)
    watcher.wait_for_order(running.order)
    hub.ask(running.session_id, watcher, running.order)
    assert (len(watcher.updates), read.count) == (2, 1)
    hub.ask(running.session_id, watcher, (running.epoch, running.version + 1))
    watcher.wait(lambda: len(watcher.updates) == 3)
    assert read.count == 2
    hub.ask(str(uuid.uuid4()), watcher, running.order)


def test_who_comes_after_the_deadline_is_told_that_the_time_is_up(hub: Hub, store: SessionStore) -> None:
    session_id = store.create(chess(budget_ms=1000)).found.session_id
    started = store.start(session_id).found
    early, late = Recorder(), Recorder()
    hub.watch(session_id, early)
    early.wait_for_order(started.order)
    time.sleep(1.2)
    hub.watch(session_id, late)
    late.wait(lambda: bool(late.updates))
    assert late.updates[0].session
    assert late.updates[0].session.status == "expired"


def test_the_hub_knows_the_servers_time(hub: Hub, redis: Redis, running: Session) -> None:
    hub.watch(running.session_id, Recorder())
    eventually(lambda: hub.clock.is_settled)
    before_ms = hub.clock.now_ms()
    seconds, micros = redis.time()
    assert before_ms - 50 < seconds * 1000 + micros / 1000 < hub.clock.now_ms() + 50


def test_a_clock_believes_the_quickest_answer_until_it_is_contradicted() -> None:
    clock = ServerClock()
    assert abs(clock.now_ms() - time.time() * 1000) < 1000
    now_s = time.monotonic()
    clock.observe(now_s, now_s + 0.002, 5_000_000)
    exact = clock.now_ms()
    clock.observe(now_s, now_s + 1.0, 5_000_900)
    assert 0 <= clock.now_ms() - exact <= (time.monotonic() - now_s) * 1000 + 1
    clock.observe(now_s, now_s + 0.002, 9_000_000)
    assert clock.now_ms() - exact > 3_999_000


def test_nothing_is_missed_while_the_connection_is_killed_over_and_over(
    hub: Hub, redis: Redis, store: SessionStore, running: Session
) -> None:
    watcher = Recorder()
    hub.watch(running.session_id, watcher)
    for _ in range(10):
        redis.client_kill_filter(_type="pubsub")
        newest = store.switch(running.session_id).found
        time.sleep(0.05)
    watcher.wait_for_order(newest.order)
    assert rising(watcher.orders)
    assert watcher.updates[-1].session == newest


def test_a_restart_of_the_server_is_survived_by_every_watched_session(
    hub: Hub, store: SessionStore, valkey: Valkey
) -> None:
    sessions = [store.create(chess()).found for _ in range(50)]
    watchers = [Recorder() for _ in sessions]
    for session, watcher in zip(sessions, watchers, strict=True):
        hub.watch(session.session_id, watcher)
    for session, watcher in zip(sessions, watchers, strict=True):
        watcher.wait_for_order(session.order)
    valkey.restart()
    with suppress(StoreUnavailable):  # the store's own connection is gone, too
        store.get(sessions[0].session_id)
    newest = [store.start(session.session_id).found for session in sessions]
    for session, watcher in zip(newest, watchers, strict=True):
        watcher.wait_for_order(session.order)
        assert rising(watcher.orders)
        assert "SESSION_NOT_FOUND" not in watcher.kinds


def test_who_comes_while_the_server_is_away_is_told_so_and_then_the_state(
    hub: Hub, store: SessionStore, running: Session, valkey: Valkey
) -> None:
    first, second = Recorder(), Recorder()
    hub.watch(running.session_id, first)
    first.wait_for_order(running.order)
    valkey.stop()
    eventually(lambda: hub._pubsub.is_down)
    hub.watch(running.session_id, second)
    assert second.kinds == ["STORE_UNAVAILABLE"]
    valkey.start()
    second.wait_for_order(running.order)


def test_a_server_that_falls_silent_is_given_up_within_5_s(hub: Hub, running: Session, valkey: Valkey) -> None:
    watcher = Recorder()
    hub.watch(running.session_id, watcher)
    watcher.wait_for_order(running.order)
    valkey.pause()
    try:
        eventually(lambda: hub._pubsub.is_down, SOON_S)
    finally:
        valkey.unpause()
    eventually(lambda: not hub._pubsub.is_down)


class Proxy:
    """Stands between a hub and the server; connections can be frozen: open, and nothing gets through."""

    def __init__(self, url: str) -> None:
        self._target = (urlsplit(url).hostname, urlsplit(url).port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self._frozen = [threading.Event()]
        self.swallows = False  # what is opened from now on is frozen from its first byte
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """Freeze what is open now; what is opened later works."""
        self._frozen[-1].set()
        self._frozen.append(threading.Event())

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                ours, theirs = self._listener.accept()[0], socket.create_connection(self._target)
                frozen = self._frozen[-1]
                if self.swallows:
                    frozen = threading.Event()
                    frozen.set()
                for pair in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=self._pass_on, args=(*pair, frozen), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, frozen: threading.Event) -> None:
        with source, suppress(OSError):
            while data := source.recv(65536):
                if not frozen.is_set():
                    target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)  # wakes the thread that reads it, which closes it


def test_a_connection_that_is_cut_half_way_is_noticed_and_repaired_within_5_s(
    make_hub: Callable[..., Hub], redis_url: str, store: SessionStore, running: Session
) -> None:
    with closing(Proxy(redis_url)) as proxy:
        watcher = Recorder()
        make_hub(settings(proxy.url)).watch(running.session_id, watcher)
        watcher.wait_for_order(running.order)
        proxy.freeze()
        newest = store.switch(running.session_id).found
        watcher.wait_for_order(newest.order, SOON_S)
        newest = store.switch(running.session_id).found
        watcher.wait_for_order(newest.order)
    assert rising(watcher.orders)


def test_a_connection_that_is_never_answered_is_given_up_and_made_again(
    make_hub: Callable[..., Hub], redis_url: str, store: SessionStore, running: Session
) -> None:
    with closing(Proxy(redis_url)) as proxy:
        watcher = Recorder()
        hub = make_hub(settings(proxy.url, redis_timeout_s=1))
        hub.watch(running.session_id, watcher)
        watcher.wait_for_order(running.order)
        proxy.swallows = True
        proxy.freeze()
        eventually(lambda: hub._pubsub.is_down)
        time.sleep(1.5)
        newest = store.switch(running.session_id).found
        proxy.swallows = False
        watcher.wait_for_order(newest.order)


def test_a_store_that_lost_commits_is_believed(hub: Hub, redis: Redis, store: SessionStore, running: Session) -> None:
    key = Keyspace().session(running.session_id)
    old = redis.dump(key)
    assert old
    for _ in range(3):
        newest = store.switch(running.session_id).found
    watcher = Recorder()
    hub.watch(running.session_id, watcher)
    watcher.wait_for_order(newest.order)
    redis.restore(key, 0, old, replace=True)
    redis.client_kill_filter(_type="pubsub")
    told = watcher.wait_for_order(running.order)
    assert told.went_back
    later = store.switch(running.session_id).found
    watcher.wait(lambda: watcher.orders[-1] == later.order)
    assert watcher.updates[-1].session == later


def test_a_session_that_was_restored_is_told_in_its_new_epoch_from_the_first_version_on(
    hub: Hub, store: SessionStore, running: Session
) -> None:
    watcher = Recorder()
    hub.watch(running.session_id, watcher)
    watcher.wait_for_order(running.order)
    renewed = store.renew(running.session_id, running.order, running.epoch + 1000).found
    update = watcher.wait_for_order(renewed.order)
    assert renewed.order > (running.epoch + 1000, 0)
    assert (update.kind, update.session) == (Outgoing.STATE_UPDATE, renewed)
    for patches in (True, False):
        backlog = SendQueue(running.order, patches=patches)
        backlog.put(update)
        assert [item.kind for item in iter(backlog.take, None)] == ["CONNECTED", "STATE_SYNC"]
    switched = store.switch(running.session_id).found
    assert watcher.wait_for_order(switched.order).session == switched
    assert rising(watcher.orders)


class History:
    """What happened to one session id: messages in order, and what a read finds after each."""

    def __init__(self, store: SessionStore, redis: Redis) -> None:
        session_id = store.create(chess()).found.session_id
        self.session_id = session_id
        self.found: list[Session | None] = [store.get(session_id).found]
        for command in ("start", "switch", "switch", "pause", "delete", "create", "start", "switch", "complete"):
            if command == "create":
                store.create(chess(session_id=session_id))
            else:
                getattr(store, command)(session_id)
            self.found.append(None if command == "delete" else store.get(session_id).found)
        self.messages = messages(redis, session_id)
        assert len(self.messages) == len(self.found)


@pytest.fixture
def history(store: SessionStore, redis: Redis) -> History:
    return History(store, redis)


@given(data=st.data())
@hypothesis_settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_is_lost_repeated_or_late_orders_rise_and_the_end_is_the_newest(
    history: History, data: st.DataObject
) -> None:
    topic = Topic(history.session_id, "channel")
    told: list[SessionUpdate | None] = []
    done = data.draw(st.integers(0, len(history.found) - 1), "commits before the subscription")
    topic.confirmed()
    for step in data.draw(st.lists(st.sampled_from(["commit", "lost", "again", "lose link", "read"])), "steps"):
        if step in ("commit", "lost"):
            done = min(done + 1, len(history.found) - 1)
        if step in ("commit", "again"):
            told.append(topic.take(history.messages[done], 0))
        if step == "lose link":
            topic.lost()
            topic.confirmed()
        if step == "read":
            told += read_and_take(topic, history, data.draw(st.integers(max(0, done - 2), done), "found"), done)
    told += read_and_take(topic, history, done, done)
    updates = [update for update in told if update and not update.error]
    assert rising([update.order for update in updates])
    for update in updates:
        index = next(i for i, each in enumerate(history.messages) if (each["epoch"], each["version"]) == update.order)
        assert update.session == history.found[index]
    shown = topic.shown(0)
    assert shown.session == history.found[done]


def read_and_take(topic: Topic, history: History, at: int, done: int) -> list[SessionUpdate | None]:
    """Read as of commit `at`; the messages up to `done` come before its answer is taken."""
    before = topic.order
    if (history.messages[at]["epoch"], history.messages[at]["version"]) < before:
        at = done  # a store does not go back by itself
    told: list[SessionUpdate | None] = [topic.take(message, 0) for message in history.messages[at + 1 : done + 1]]
    topic.current = True
    told.append(topic.found(history.found[at], before, 0))
    return [*told, *topic.take_early(0)]


@pytest.fixture
def many(store: SessionStore) -> list[SessionUpdate]:
    """The updates of a session's first 150 versions."""
    session_id = store.create(chess()).found.session_id
    results = [store.start(session_id), *[store.switch(session_id) for _ in range(148)]]
    return [SessionUpdate(session_id, 0, session=result.found, event=result.event) for result in results]


@given(data=st.data())
@hypothesis_settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_however_slow_a_client_is_versions_rise_gaps_are_whole_states_and_the_newest_arrives(
    many: list[SessionUpdate], data: st.DataObject
) -> None:
    steps = data.draw(st.lists(st.sampled_from(["put", "pass", "burst", "skip", "take", "expect", "expect current"])))
    told, newest = played(many, steps, burst=data.draw(st.integers(1, 100)))
    assert told[-1].update.order == newest
    known = NEVER
    for kind, update in told:
        if kind is Outgoing.CONNECTED:
            known = NEVER  # it asked where it stands
            continue
        if kind is Outgoing.STATE_UPDATE:
            assert known in (NEVER, (update.order[0], update.order[1] - 1))
        assert update.order > known
        known = update.order


def played(many: list[SessionUpdate], steps: list[str], burst: int) -> tuple[list[QueuedItem], Order]:
    """Return what a client is told, and the newest order it was to be told of."""
    backlog, updates, told = SendQueue(), iter(many), []
    latest = many[0]
    for step in steps:
        for update in islice(updates, {"put": 1, "pass": 1, "burst": burst, "skip": 1}.get(step, 0)):
            latest = update
            if step == "pass" and (kind := backlog.passes(update)):
                told.append(QueuedItem(kind, update))
                backlog.passed(update)
            elif step != "skip":
                backlog.put(update)
        if step == "take" and (item := backlog.take()):
            told.append(item)
        if step.startswith("expect"):
            backlog.expect(latest.order if step == "expect current" else NEVER)
        assert len(backlog) <= MOST_FRAMES
    backlog.put(latest)
    return [*told, *iter(backlog.take, None)], latest.order


def test_states_that_wait_are_bounded_in_bytes_and_give_way_to_the_newest(store: SessionStore) -> None:
    session_id = store.create(chess(metadata={"text": "x" * 16_000})).found.session_id
    results = [store.start(session_id), *[store.switch(session_id) for _ in range(40)]]
    backlog = SendQueue()
    for result in results:
        backlog.put(SessionUpdate(session_id, 0, session=result.found, event=result.event))
        waiting = [QueuedItem(*item) for item in backlog._items]
        assert sum(len(item.frame) for item in waiting) <= MOST_BYTES
    assert waiting[-1].update.order == results[-1].found.order
    assert backlog.skipped > 10


def test_an_error_is_told_once_for_each_outage_and_a_delete_is_the_last_word(many: list[SessionUpdate]) -> None:
    session_id = many[0].session_id
    away = SessionUpdate(session_id, 0, error=StoreUnavailable("away"))
    deleted = SessionUpdate(
        session_id, 0, order=(many[2].order[0], many[2].order[1] + 1), event={"type": "session_deleted"}
    )
    backlog = SendQueue()
    for update in (away, away, many[0], many[0], many[1], many[2], deleted, many[3]):
        backlog.put(update)
    kinds = [item.kind for item in iter(backlog.take, None)]
    assert kinds == ["ERROR", "CONNECTED", "STATE_SYNC", "STATE_UPDATE", "STATE_UPDATE", "SESSION_DELETED"]
    assert backlog.is_ended


# What no message tells.


@pytest.fixture
def unheard(redis: Redis, store: SessionStore, running: Session) -> Callable[[], Session]:
    """What makes a commit of which no message comes: the session is put back, and then forward again."""
    key = Keyspace().session(running.session_id)
    old = redis.dump(key)
    newer = store.switch(running.session_id).found
    new = redis.dump(key)
    assert old
    assert new
    redis.restore(key, 0, old, replace=True)

    def commit() -> Session:
        redis.restore(key, 0, new, replace=True)
        return newer

    return commit


def test_a_message_that_is_lost_with_none_after_it_is_noticed_within_5_s(
    hub: Hub, running: Session, unheard: Callable[[], Session]
) -> None:
    watcher = Recorder()
    hub.watch(running.session_id, watcher)
    watcher.wait_for_order(running.order)
    newest = unheard()
    assert watcher.wait_for_order(newest.order).kind is Outgoing.STATE_SYNC
    assert watcher.orders == [running.order, newest.order]


def test_an_end_that_nobody_tells_of_is_noticed_within_5_s(hub: Hub, redis: Redis, running: Session) -> None:
    watcher = Recorder()
    hub.watch(running.session_id, watcher)
    watcher.wait_for_order(running.order)
    redis.delete(Keyspace().session(running.session_id))
    watcher.wait(lambda: "SESSION_NOT_FOUND" in watcher.kinds, 5)


def test_who_knows_of_a_version_that_the_hub_has_not_heard_of_is_never_shown_the_older_one(
    hub: Hub, running: Session, unheard: Callable[[], Session]
) -> None:
    first = Recorder()
    hub.watch(running.session_id, first)
    first.wait_for_order(running.order)
    newest = unheard()
    second = Recorder()
    hub.watch(running.session_id, second, newest.order)
    second.wait_for_order(newest.order)
    assert second.orders == [newest.order]
    first.wait_for_order(newest.order)


def test_who_comes_after_an_answer_of_this_process_is_never_shown_an_older_version(
    redis_url: str,
    read: Counting,
    store: SessionStore,
    running: Session,
    unheard: Callable[[], Session],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with closing_hub(Hub(settings(redis_url), read, seen=store.known)) as hub:
        monkeypatch.setattr(hub._inspection, "missed", lambda _: [])
        first, second = Recorder(), Recorder()
        hub.watch(running.session_id, first)
        first.wait_for_order(running.order)
        newest = unheard()
        assert store.get(running.session_id).found.order == newest.order
        hub.watch(running.session_id, second)
        second.wait_for_order(newest.order)
        assert second.orders == [newest.order]
        assert first.orders == [running.order]  # the message, with its event, is what it is told by


def test_who_claims_what_the_store_does_not_know_is_told_what_is_so(hub: Hub, running: Session) -> None:
    first, second = Recorder(), Recorder()
    hub.watch(running.session_id, first)
    first.wait_for_order(running.order)
    hub.watch(running.session_id, second, (running.epoch, 99))
    assert second.wait_for_order(running.order).went_back
    assert len(first.updates) == 1


def test_many_watched_sessions_are_inspected_in_small_steps_and_sessions_in_use_are_not_suspected(
    hub: Hub, read: Counting, store: SessionStore
) -> None:
    sessions = [store.create(chess()).found for _ in range(300)]
    watcher = Recorder()
    for session in sessions:
        hub.watch(session.session_id, watcher)
    watcher.wait(lambda: len(watcher.updates) == len(sessions))
    count, end_s = read.count, time.monotonic() + 3
    busy = store.start(sessions[0].session_id).found
    while time.monotonic() < end_s:
        busy = store.switch(busy.session_id).found
    watcher.wait_for_order(busy.order)
    assert read.count == count


def test_everybody_is_told_when_the_store_is_away_for_more_than_a_moment_and_when_it_is_back(
    hub: Hub, redis: Redis, running: Session, valkey: Valkey
) -> None:
    watcher = Recorder()
    hub.watch(running.session_id, watcher)
    watcher.wait_for_order(running.order)
    killed_s = time.monotonic()
    redis.client_kill_filter(_type="pubsub")
    eventually(lambda: not hub._pubsub.is_down)
    time.sleep(0.5)
    # A machine that took longer to connect again had an outage that is told.
    assert watcher.kinds == [Outgoing.STATE_SYNC] or time.monotonic() - killed_s > 1
    watcher.wait(lambda: watcher.kinds[-1] == Outgoing.STATE_SYNC)
    told = len(watcher.kinds)
    valkey.stop()
    watcher.wait(lambda: watcher.kinds[told:] == ["STORE_UNAVAILABLE"])
    valkey.start()
    watcher.wait(lambda: watcher.kinds[told + 1 :] == [Outgoing.STATE_SYNC])
    assert watcher.updates[-1].order == running.order


class Loading(socketserver.StreamRequestHandler):
    """A server that is loading its file: it takes connections and refuses commands, until the fourth."""

    taken = 0

    def handle(self) -> None:
        Loading.taken += 1
        answers = {b"CLIENT": b"+OK", b"PING": b"+PONG", b"SUBSCRIBE": b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1"}
        if Loading.taken < 4:
            answers |= dict.fromkeys((b"PING", b"SUBSCRIBE"), b"-LOADING the dataset in memory")
        while line := self.rfile.readline():
            if answer := answers.get(line.strip()):
                self.wfile.write(answer + b"\r\n")


def test_a_server_that_loads_its_file_is_one_outage_until_it_serves() -> None:
    lost, subscribed = [], threading.Event()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Loading) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        pubsub = PubSub(
            settings(f"redis://127.0.0.1:{server.server_address[1]}/0"),
            on_subscribed=lambda channel: subscribed.set(),
            on_message=lambda channel, text: None,
            on_lost=lambda: lost.append(pubsub.is_down),
        )
        pubsub.add("a")
        pubsub.start()
        try:
            assert subscribed.wait(10)
            assert (lost, pubsub.is_down, Loading.taken) == ([True], False, 4)
        finally:
            pubsub.stop()
            server.shutdown()

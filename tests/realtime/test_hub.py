"""The hub sends each watcher of a session every version, in order, once."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable

import orjson

from syncapp.domain.session import Session
from syncapp.errors import SessionNotFound, StoreUnavailable
from syncapp.realtime.hub import Hub
from syncapp.realtime.protocol import Outgoing
from syncapp.realtime.session_reader import READERS
from syncapp.realtime.topic import SessionUpdate
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from tests.support.store import chess_request, outbox_messages
from tests.support.types import Redis
from tests.support.watchers import CountedReads, Recorder, is_rising
from tests.support.web_clients import wait_until


def test_nothing_starts_before_the_first_watch(make_hub: Callable[[], Hub]) -> None:
    before = set(threading.enumerate())  # hubs of earlier tests may still run
    make_hub()
    assert set(threading.enumerate()) <= before


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
    hub: Hub, read: CountedReads, store: SessionStore, running: Session
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
    made = store.create(chess_request(session_id=session_id)).found
    assert watcher.wait_for_order(made.order).kind is Outgoing.STATE_UPDATE


def test_who_stays_after_a_delete_is_told_of_the_next_session_of_that_id(
    hub: Hub, read: CountedReads, store: SessionStore, running: Session
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
    made = store.create(chess_request(session_id=running.session_id)).found
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
        assert is_rising(watcher.orders)
        hub.unwatch(running.session_id, watcher)


def test_only_watched_sessions_are_subscribed_to(hub: Hub, redis: Redis, running: Session) -> None:
    channel = Keyspace().channel(running.session_id).encode()
    watcher = Recorder()
    hub.watch(running.session_id, watcher)
    wait_until(lambda: channel in redis.pubsub_channels())
    hub.unwatch(running.session_id, watcher)
    hub.unwatch(running.session_id, watcher)
    wait_until(lambda: channel not in redis.pubsub_channels())


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
    hub: Hub, read: CountedReads, store: SessionStore, running: Session
) -> None:
    stuck = [store.create(chess_request()).found.session_id for _ in range(READERS - 1)]
    read.held_up = {session_id: threading.Event() for session_id in stuck}
    hung = [Recorder() for _ in stuck]
    for session_id, watcher in zip(stuck, hung, strict=True):
        hub.watch(session_id, watcher)
    wait_until(lambda: read.count == len(stuck))
    watcher = Recorder()
    hub.watch(running.session_id, watcher)
    watcher.wait_for_order(running.order)
    newest = [store.start(session_id).found for session_id in stuck]
    for event in read.held_up.values():
        event.set()
    for watcher, session in zip(hung, newest, strict=True):
        watcher.wait_for_order(session.order)
        assert is_rising(watcher.orders)


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
    assert is_rising(watcher.orders)


def test_a_missed_message_is_noticed_at_the_next_and_repaired(
    hub: Hub, redis: Redis, store: SessionStore, running: Session
) -> None:
    watcher = Recorder()
    hub.watch(running.session_id, watcher)
    watcher.wait_for_order(running.order)
    store.switch(running.session_id)
    watcher.wait(lambda: len(watcher.orders) == 2)
    # From here on, messages come without a commit: the hub must look, and find nothing new.
    message = outbox_messages(redis, running.session_id)[-1] | {"version": running.version + 9}
    redis.publish(Keyspace().channel(running.session_id), orjson.dumps(message))
    newest = store.switch(running.session_id).found
    watcher.wait_for_order(newest.order)
    assert is_rising(watcher.orders)


def test_asking_with_a_later_version_than_the_hub_holds_reads_anew(
    hub: Hub, read: CountedReads, running: Session
) -> None:
    watcher = Recorder()
    hub.watch(running.session_id, watcher)
    watcher.wait_for_order(running.order)
    hub.resend(running.session_id, watcher, running.order)
    assert (len(watcher.updates), read.count) == (2, 1)
    hub.resend(running.session_id, watcher, (running.epoch, running.version + 1))
    watcher.wait(lambda: len(watcher.updates) == 3)
    assert read.count == 2
    hub.resend(str(uuid.uuid4()), watcher, running.order)


def test_who_comes_after_the_deadline_is_told_that_the_time_is_up(hub: Hub, store: SessionStore) -> None:
    session_id = store.create(chess_request(budget_ms=1000)).found.session_id
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
    wait_until(lambda: hub.clock.is_settled)
    before_ms = hub.clock.now_ms()
    seconds, micros = redis.time()
    assert before_ms - 50 < seconds * 1000 + micros / 1000 < hub.clock.now_ms() + 50

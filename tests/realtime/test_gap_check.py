"""Commits whose messages were lost are noticed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest

from syncapp.domain.session import Session
from syncapp.domain.version_order import Order
from syncapp.realtime.hub import Hub
from syncapp.realtime.protocol import Outgoing
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from tests.support.store import chess_request, make_settings
from tests.support.types import Redis
from tests.support.watchers import CountedReads, Recorder, stopping


@pytest.fixture
def unheard(redis: Redis, store: SessionStore, running: Session) -> Callable[[], Session]:
    """Makes a commit without a message: the session's hash goes back, and then forward again."""
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


@pytest.fixture
def lagging(
    redis_url: str,
    read: CountedReads,
    store: SessionStore,
    running: Session,
    unheard: Callable[[], Session],
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[tuple[Hub, Recorder, Session]]:
    """A hub that has not heard of the newest commit, one of its watchers, and the session after that commit."""
    with stopping(Hub(make_settings(redis_url), read, cached=store.cached)) as hub:
        monkeypatch.setattr(hub._gap_check, "missed", lambda _: [])
        watcher = Recorder()
        hub.watch(running.session_id, watcher)
        watcher.wait_for_order(running.order)
        yield hub, watcher, unheard()


def test_who_comes_after_an_answer_of_this_process_is_never_shown_an_older_version(
    lagging: tuple[Hub, Recorder, Session], store: SessionStore, running: Session
) -> None:
    hub, first, newest = lagging
    assert store.get(running.session_id).found.order == newest.order
    second = Recorder()
    hub.watch(running.session_id, second)
    second.wait_for_order(newest.order)
    assert second.orders == [newest.order]
    assert first.orders == [running.order]  # it comes from the message, with its event


def test_a_watcher_that_asks_again_during_a_read_is_never_sent_what_was_read_before(
    redis_url: str, store: SessionStore, running: Session, unheard: Callable[[], Session]
) -> None:
    begun, go_on = threading.Event(), threading.Event()
    reads: list[Order] = []

    def read(session_id: str) -> tuple[Session, int]:
        found = store.read(session_id)
        reads.append(found[0].order)
        begun.set()
        assert go_on.wait(60)
        return found

    with stopping(Hub(make_settings(redis_url), read)) as hub:
        watcher = Recorder()
        hub.watch(running.session_id, watcher)
        assert begun.wait(60)
        newest = unheard()
        hub.resend(running.session_id, watcher, newest.order)  # its command was answered by the store meanwhile
        go_on.set()
        watcher.wait_for_order(newest.order)
        assert reads == [running.order, newest.order]
        assert not [update for update in watcher.updates if update.went_back]


def test_who_claims_what_the_store_does_not_know_is_told_so_even_before_the_messages_of_others_arrive(
    lagging: tuple[Hub, Recorder, Session], running: Session
) -> None:
    hub, first, newest = lagging
    second = Recorder()
    hub.watch(running.session_id, second, (running.epoch, 99))
    assert second.wait_for_order(newest.order).went_back
    assert first.orders == [running.order]


def test_who_claims_what_the_store_does_not_know_is_told_what_is_so(hub: Hub, running: Session) -> None:
    first, second = Recorder(), Recorder()
    hub.watch(running.session_id, first)
    first.wait_for_order(running.order)
    hub.watch(running.session_id, second, (running.epoch, 99))
    assert second.wait_for_order(running.order).went_back
    assert len(first.updates) == 1


def test_many_watched_sessions_are_inspected_in_small_steps_and_sessions_in_use_are_not_suspected(
    hub: Hub, read: CountedReads, store: SessionStore
) -> None:
    sessions = [store.create(chess_request()).found for _ in range(300)]
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

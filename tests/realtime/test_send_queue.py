"""Send queues: slow clients skip to the newest state, in bounded memory."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from syncapp.domain.version_order import NEVER, Order
from syncapp.errors import StoreUnavailable
from syncapp.realtime.protocol import Outgoing
from syncapp.realtime.send_queue import MAX_BYTES, MAX_FRAMES, QueuedAnswer, QueuedItem, SendQueue
from syncapp.realtime.topic import SessionUpdate
from syncapp.store.sessions import SessionStore
from tests.support.store import chess_request

STEPS = ("put", "pass", "burst", "skip", "take", "answer", "expect", "expect current")


@pytest.fixture
def many(store: SessionStore) -> list[SessionUpdate]:
    """The updates of a session's first 150 versions."""
    session_id = store.create(chess_request()).found.session_id
    results = [store.start(session_id), *[store.switch(session_id) for _ in range(148)]]
    return [SessionUpdate(session_id, 0, session=result.found, event=result.event) for result in results]


@given(data=st.data())
@hypothesis_settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_however_slow_a_client_is_versions_rise_gaps_are_whole_states_and_the_newest_arrives(
    many: list[SessionUpdate], data: st.DataObject
) -> None:
    steps = data.draw(st.lists(st.sampled_from(STEPS)))
    told, newest = played(many, steps, burst=data.draw(st.integers(1, 100)))
    assert max(item.update.order for item in told) == newest
    known = seen = NEVER
    for kind, update in told:
        if kind is Outgoing.CONNECTED:
            known = NEVER  # it asked for its position
            seen = max(seen, update.order)
            continue
        if kind is Outgoing.ACK:
            assert update.order <= seen
            continue
        if kind is Outgoing.STATE_UPDATE:
            assert known in (NEVER, (update.order[0], update.order[1] - 1))
        assert update.order > known
        known = seen = update.order


def played(many: list[SessionUpdate], steps: list[str], burst: int) -> tuple[list[QueuedItem], Order]:
    """Return a client's updates, and the newest order that was put into its queue."""
    backlog, updates, told = SendQueue(), iter(many), []
    latest = many[0]
    for step in steps:
        for update in islice(updates, {"put": 1, "pass": 1, "burst": burst, "skip": 1}.get(step, 0)):
            latest = update
            if step == "pass" and (kind := backlog.direct_kind(update)):
                told.append(QueuedItem(kind, update))
                backlog.mark_sent(update)
            elif step != "skip":
                backlog.put(update)
        if step == "take" and (item := backlog.take()):
            told.append(item)
        if step.startswith("expect"):
            backlog.restart(latest.order if step == "expect current" else NEVER)
        if step == "answer":
            backlog.answer("", Outgoing.ACK, QueuedAnswer(b"ack", latest.order, due_s=10))
        assert len([item for item in backlog.waiting if item.kind is not Outgoing.ACK]) <= MAX_FRAMES
    backlog.put(latest)
    return [*told, *iter(backlog.take, None)], latest.order


def test_a_client_that_asks_again_gets_no_older_version_than_it_was_sent(many: list[SessionUpdate]) -> None:
    # A read may be ahead of the messages: those that come after it are older than what the client has.
    backlog = SendQueue()
    backlog.put(many[6])
    assert [item.kind for item in iter(backlog.take, None)] == [Outgoing.CONNECTED, Outgoing.STATE_SYNC]
    assert backlog.restart(NEVER) == many[6].order
    for older in many[3:6]:
        backlog.put(older)
    assert backlog.take() is None
    backlog.put(many[6])
    assert [item.update.order for item in iter(backlog.take, None)] == [many[6].order] * 2


def test_states_that_wait_are_bounded_in_bytes_and_give_way_to_the_newest(store: SessionStore) -> None:
    session_id = store.create(chess_request(metadata={"text": "x" * 16_000})).found.session_id
    results = [store.start(session_id), *[store.switch(session_id) for _ in range(40)]]
    backlog = SendQueue()
    for result in results:
        backlog.put(SessionUpdate(session_id, 0, session=result.found, event=result.event))
        waiting = [QueuedItem(*item) for item in backlog._items]
        assert sum(len(item.frame) for item in waiting) <= MAX_BYTES
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

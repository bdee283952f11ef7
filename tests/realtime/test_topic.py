"""A topic's versions rise, whatever messages are lost, repeated or late."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from syncapp.domain.session import Session
from syncapp.realtime.topic import SessionUpdate, Topic
from syncapp.store.sessions import SessionStore
from tests.support.store import chess_request, outbox_messages
from tests.support.types import Redis
from tests.support.watchers import is_rising


class History:
    """The messages of one session id, and the result of a read after each."""

    def __init__(self, store: SessionStore, redis: Redis) -> None:
        session_id = store.create(chess_request()).found.session_id
        self.session_id = session_id
        self.found: list[Session | None] = [store.get(session_id).found]
        for command in ("start", "switch", "switch", "pause", "delete", "create", "start", "switch", "complete"):
            if command == "create":
                store.create(chess_request(session_id=session_id))
            else:
                getattr(store, command)(session_id)
            self.found.append(None if command == "delete" else store.get(session_id).found)
        self.messages = outbox_messages(redis, session_id)
        assert len(self.messages) == len(self.found)


@pytest.fixture
def history(store: SessionStore, redis: Redis) -> History:
    return History(store, redis)


@given(data=st.data())
@hypothesis_settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_whatever_is_lost_repeated_or_late_orders_rise_and_the_end_is_the_newest(
    history: History, data: st.DataObject
) -> None:
    topic = Topic(history.session_id, "channel")
    told: list[SessionUpdate | None] = []
    done = data.draw(st.integers(0, len(history.found) - 1), "commits before the subscription")
    topic.mark_subscribed()
    for step in data.draw(st.lists(st.sampled_from(["commit", "lost", "again", "lose link", "read"])), "steps"):
        if step in ("commit", "lost"):
            done = min(done + 1, len(history.found) - 1)
        if step in ("commit", "again"):
            told.append(topic.apply(history.messages[done], 0))
        if step == "lose link":
            topic.mark_lost()
            topic.mark_subscribed()
        if step == "read":
            told += read_and_take(topic, history, data.draw(st.integers(max(0, done - 2), done), "found"), done)
    told += read_and_take(topic, history, done, done)
    if not topic.current:
        told += read_and_take(topic, history, done, done)
    updates = [update for update in told if update and not update.error]
    assert is_rising([update.order for update in updates])
    for update in updates:
        index = next(i for i, each in enumerate(history.messages) if (each["epoch"], each["version"]) == update.order)
        assert update.session == history.found[index]
    shown = topic.current_state(0)
    assert shown.session == history.found[done]


def read_and_take(topic: Topic, history: History, at: int, done: int) -> list[SessionUpdate | None]:
    """Read as of commit `at`; the messages up to `done` arrive before the answer."""
    before = topic.order
    if (history.messages[at]["epoch"], history.messages[at]["version"]) < before:
        at = done  # a store does not go back without a reason
    told: list[SessionUpdate | None] = [topic.apply(message, 0) for message in history.messages[at + 1 : done + 1]]
    topic.current = True
    told.append(topic.apply_read(history.found[at], before, 0))
    return [*told, *topic.apply_early(0)]


def test_early_messages_of_a_session_whose_deletion_was_lost_do_not_bring_it_back(history: History) -> None:
    topic = Topic(history.session_id, "channel")
    topic.mark_subscribed()
    for message in history.messages[:5]:
        assert topic.apply(message, 0) is None
    read_and_take(topic, history, 5, 5)  # the message of the deletion never comes
    was_current = topic.current
    read_and_take(topic, history, 5, 5)
    assert (was_current, topic.current) == (False, True)
    assert topic.current_state(0).session is None

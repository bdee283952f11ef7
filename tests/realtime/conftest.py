"""A hub on a store that uses the server's own clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from syncapp.config import Settings
from syncapp.domain.session import Session
from syncapp.realtime.hub import Hub
from syncapp.store.sessions import SessionStore
from tests.support.store import chess_request, make_settings, make_store
from tests.support.types import Redis
from tests.support.watchers import CountedReads, Read


@pytest.fixture
def store(redis: Redis, redis_url: str) -> SessionStore:
    return make_store(redis_url, set_clock=False)


@pytest.fixture
def read(store: SessionStore) -> CountedReads:
    return CountedReads(store)


@pytest.fixture
def make_hub(redis_url: str, read: CountedReads) -> Iterator[Callable[[], Hub]]:
    with ExitStack() as stack:

        def make(chosen: Settings | None = None, using: Read = read) -> Hub:
            hub = Hub(chosen or make_settings(redis_url), using)
            stack.callback(hub.stop)
            return hub

        yield make


@pytest.fixture
def hub(make_hub: Callable[[], Hub]) -> Hub:
    return make_hub()


@pytest.fixture
def running(store: SessionStore) -> Session:
    session_id = store.create(chess_request()).found.session_id
    return store.start(session_id).found

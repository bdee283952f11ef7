"""The cache of sessions in a process."""

from __future__ import annotations

import redis as redis_py

from tests.support.store import ManualClock, chess_request, crowd_request, make_store


def test_what_a_process_remembers_is_bounded_by_participants(redis_url: str, clock: ManualClock) -> None:
    store = make_store(redis_url)
    for _ in range(60):
        store.create(crowd_request(1000))
    cache = store._runner._cache
    assert cache._participants == sum(cached.size for cached in cache._sessions.values()) == 50_000


def test_a_session_written_by_a_release_that_knew_fewer_scalars_is_read_and_goes_on(
    redis: redis_py.Redis, redis_url: str
) -> None:
    store = make_store(redis_url, set_clock=False)
    session_id = store.create(chess_request()).found.session_id
    store.start(session_id)
    key = store._runner._keys.session(session_id)
    scalars = redis.hget(key, "scalars")
    assert isinstance(scalars, bytes)
    redis.hset(key, "scalars", scalars.rsplit(b" ", 1)[0])
    assert make_store(redis_url, set_clock=False).get(session_id).found.version == 2
    assert store.switch(session_id).found.version == 3


def test_a_reply_that_says_the_same_again_is_not_read_again_and_one_that_differs_is(
    redis: redis_py.Redis, redis_url: str
) -> None:
    store, other = make_store(redis_url), make_store(redis_url)
    clock = ManualClock(redis)
    session_id = store.create(chess_request()).found.session_id
    store.get(session_id)
    first = store.get(session_id)
    clock.advance_ms(5)
    again = store.get(session_id)
    assert again.found is first.found
    assert again.now_ms == first.now_ms + 5
    other.start(session_id)
    assert store.get(session_id).found == other.get(session_id).found != first.found

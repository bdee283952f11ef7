"""The list is kept complete, also beside processes of earlier releases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import requests

from syncapp.errors import StoreUnavailable
from syncapp.store.client import connect
from syncapp.store.deadline_rebuild import CHECK_S, SCANNING
from syncapp.store.keys import COMPLETE, SENTINEL, Keyspace
from syncapp.store.list_query import SessionsQuery
from syncapp.store.list_upkeep import CLEAN_S, ListUpkeep
from syncapp.store.session_list import SessionList
from syncapp.store.sessions import SessionStore
from tests.support.cluster import MakeCluster
from tests.support.listed_sessions import LISTS, create_listed, finish_upkeep, ids_in_redis, listed_ids
from tests.support.step_clock import StepClock
from tests.support.store import NOON_MS, ManualClock, chess_request, make_settings, make_store
from tests.support.types import Redis
from tests.support.web_clients import wait_until

KEYS = Keyspace()


def test_sessions_of_an_earlier_release_come_into_the_list(
    store: SessionStore, clock: ManualClock, live: SessionList, upkeep: ListUpkeep, redis: Redis
) -> None:
    expected = create_listed(store, clock, 200)
    store.complete(expected[0])
    store.delete(expected[1])
    redis.delete(*LISTS)
    assert listed_ids(live) == []
    finish_upkeep(upkeep)
    assert listed_ids(live) == [expected[0], *expected[2:]]
    assert {redis.zscore(key, SENTINEL) for key in LISTS} == {float(COMPLETE)}


def test_a_page_says_whether_sessions_may_be_missing(
    store: SessionStore, clock: ManualClock, live: SessionList, upkeep: ListUpkeep, minutes: StepClock, redis: Redis
) -> None:
    def answers() -> set[bool]:
        """Return `complete` of pages with and without a cursor, a filter, and results."""
        first = live.page(SessionsQuery(limit=5))
        second = live.page(SessionsQuery.from_args({"limit": ["5"], "cursor": [first.next_cursor or ""]}))
        filtered = live.page(SessionsQuery(status=["running"]))
        return {first.complete, second.complete, filtered.complete}

    create_listed(store, clock, 30)
    assert answers() == {False}
    finish_upkeep(upkeep)
    assert answers() == {True}
    redis.zadd(LISTS[3], {SENTINEL: float(SCANNING)})  # as during a scan
    assert answers() == {False}
    redis.delete(LISTS[3])
    assert answers() == {False}
    minutes.now_s += CHECK_S
    finish_upkeep(upkeep)
    assert answers() == {True}


def unlist(client: Redis, session_ids: list[str]) -> None:
    """Remove sessions from their lists, as if an earlier release had created them."""
    for each in session_ids:
        client.zrem(KEYS.listed(KEYS.bucket(each)), each)


def test_sessions_that_an_earlier_release_makes_later_come_into_the_list_soon(
    store: SessionStore, clock: ManualClock, live: SessionList, upkeep: ListUpkeep, minutes: StepClock, redis: Redis
) -> None:
    finish_upkeep(upkeep)
    expected = create_listed(store, clock, 60)
    for each in expected[:20]:
        store.start(each)
    scores = {each: redis.zscore(KEYS.listed(KEYS.bucket(each)), each) for each in expected}
    unlist(redis, expected[:40])
    finish_upkeep(upkeep)
    assert listed_ids(live) == expected[40:]
    minutes.now_s += CHECK_S
    finish_upkeep(upkeep)
    assert listed_ids(live) == expected
    assert scores == {each: redis.zscore(KEYS.listed(KEYS.bucket(each)), each) for each in expected}


def test_a_session_that_is_gone_or_fails_is_not_listed_and_holds_up_no_other(
    store: SessionStore, clock: ManualClock, upkeep: ListUpkeep, minutes: StepClock, redis: Redis
) -> None:
    finish_upkeep(upkeep)
    expected = create_listed(store, clock, 40)
    gone, deleted, broken, *rest = expected
    unlist(redis, expected)
    redis.delete(KEYS.session(gone))
    store.delete(deleted)
    for each in (deleted, SENTINEL):
        redis.zadd(KEYS.deadlines(KEYS.bucket(each)), {each: NOON_MS * 2})
    redis.hset(KEYS.session(broken), "scalars", "nonsense")
    minutes.now_s += CHECK_S
    finish_upkeep(upkeep)
    assert ids_in_redis(redis) == set(rest)


def test_a_session_that_is_deleted_or_made_again_while_it_is_added_is_not_listed_as_it_was(
    store: SessionStore,
    clock: ManualClock,
    live: SessionList,
    upkeep: ListUpkeep,
    minutes: StepClock,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finish_upkeep(upkeep)
    again, deleted, *rest = create_listed(store, clock, 10)
    unlist(redis, [again, deleted, *rest])
    call = upkeep._pool.call

    def overtaken(*sent: bytes) -> Any:
        """Let another client write between the read and the write."""
        commands = b"".join(sent)
        if b"NX" in commands and redis.exists(KEYS.session(deleted)) and deleted.encode() in commands:
            store.delete(deleted)
        if b"NX" in commands and again.encode() in commands:
            store.delete(again)
            store.create(chess_request(session_id=again))
        return call(*sent)

    clock.advance_ms(1000)
    monkeypatch.setattr(upkeep._pool, "call", overtaken)
    minutes.now_s += CHECK_S
    finish_upkeep(upkeep)
    assert ids_in_redis(redis) == {again, *rest}
    assert redis.zscore(KEYS.listed(KEYS.bucket(again)), again) == clock.now_ms
    assert listed_ids(live) == [again, *rest]


def test_many_sessions_are_compared_and_listed_in_short_steps(
    redis_url: str, clock: ManualClock, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, one = make_store(redis_url, sync_buckets=1), Keyspace(1)
    expected = set(create_listed(store, clock, 1200))
    redis.zremrangebyrank(one.listed(0), 0, -1)
    redis.zadd(one.listed(0), {SENTINEL: float(COMPLETE)})
    seconds = iter(range(10_000))
    upkeep = ListUpkeep(connect(make_settings(redis_url)), store, one, lambda: 0.01 * next(seconds))
    sizes: list[int] = []
    add = upkeep._add

    def counted(some: Sequence[str]) -> int:
        sizes.append(len(some))
        return add(some)

    monkeypatch.setattr(upkeep, "_add", counted)
    steps = 0
    while redis.zcard(one.listed(0)) <= len(expected):
        upkeep.step(held=True)
        steps += 1
        assert steps < 100
    assert set(redis.zrange(one.listed(0), 0, -1)) - {SENTINEL.encode()} == {each.encode() for each in expected}
    assert steps > 2
    assert sum(sizes) == 1200
    assert max(sizes) < 1000


def test_a_list_that_is_deleted_is_filled_again_soon(
    store: SessionStore, clock: ManualClock, live: SessionList, upkeep: ListUpkeep, minutes: StepClock, redis: Redis
) -> None:
    expected = create_listed(store, clock, 50)
    finish_upkeep(upkeep)
    redis.delete(*(KEYS.listed(KEYS.bucket(each)) for each in expected[:2]))
    finish_upkeep(upkeep)
    assert len(listed_ids(live)) < 50
    minutes.now_s += CHECK_S
    finish_upkeep(upkeep)
    assert listed_ids(live) == expected


def test_a_new_status_lists_a_session_that_was_not(
    store: SessionStore, clock: ManualClock, live: SessionList, redis: Redis
) -> None:
    (session_id,) = create_listed(store, clock, 1)
    redis.delete(*LISTS)
    store.start(session_id)
    assert listed_ids(live) == [session_id]


def test_what_has_expired_is_taken_off_the_list_within_a_minute(
    store: SessionStore, clock: ManualClock, upkeep: ListUpkeep, minutes: StepClock, redis: Redis
) -> None:
    found = create_listed(store, clock, 60)
    finish_upkeep(upkeep)
    redis.delete(*map(KEYS.session, found[:40]))
    finish_upkeep(upkeep)
    assert ids_in_redis(redis) == set(found)
    minutes.now_s += CLEAN_S
    finish_upkeep(upkeep)
    assert ids_in_redis(redis) == set(found[40:])


def test_without_the_lease_of_the_first_bucket_nothing_is_done(
    upkeep: ListUpkeep, minutes: StepClock, redis: Redis
) -> None:
    finish_upkeep(upkeep, held=False)
    minutes.now_s += CHECK_S
    finish_upkeep(upkeep, held=False)
    assert not any(map(redis.exists, LISTS))


def test_upkeep_that_ends_with_the_lease_begins_anew_with_it(
    store: SessionStore, clock: ManualClock, live: SessionList, upkeep: ListUpkeep, redis: Redis
) -> None:
    first = create_listed(store, clock, 20)
    redis.delete(*LISTS)
    upkeep.step(held=True)
    upkeep.step(held=False)
    finish_upkeep(upkeep)
    assert listed_ids(live) == first


def test_a_store_that_is_away_does_not_end_the_upkeep(
    store: SessionStore, upkeep: ListUpkeep, minutes: StepClock, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(upkeep._pool, "call", fail)
        upkeep.step(held=True)
    minutes.now_s += CHECK_S
    finish_upkeep(upkeep)
    assert all(redis.zscore(key, SENTINEL) for key in LISTS)


def test_an_upgraded_service_lists_everything_over_http(
    make_cluster: MakeCluster, redis: Redis, redis_url: str
) -> None:
    old = make_store(redis_url, set_clock=False)
    expected = {old.create(chess_request()).found.session_id for _ in range(30)}
    redis.delete(*LISTS)
    api = make_cluster(web=1, worker=False).urls[0]

    def found() -> set[str]:
        data = requests.get(f"{api}/v1/sessions?limit=100", timeout=60).json()["data"]
        assert not data["complete"] or len(data["sessions"]) == 30
        return {each["session_id"] for each in data["sessions"]}

    wait_until(lambda: found() == expected)
    wait_until(lambda: requests.get(f"{api}/v1/sessions", timeout=60).json()["data"]["complete"] is True)


def test_after_a_rollback_and_an_upgrade_everything_that_runs_is_listed_over_http(
    make_cluster: MakeCluster, redis: Redis, redis_url: str
) -> None:
    for key in LISTS:
        redis.zadd(key, {SENTINEL: float(COMPLETE)})
    old = make_store(redis_url, set_clock=False)
    expected = [old.create(chess_request()).found.session_id for _ in range(30)]
    unlist(redis, expected)
    api = make_cluster(web=1, worker=False).urls[0]

    def found() -> set[str]:
        data = requests.get(f"{api}/v1/sessions?limit=100", timeout=60).json()["data"]
        return {each["session_id"] for each in data["sessions"]}

    wait_until(lambda: found() == set(expected))

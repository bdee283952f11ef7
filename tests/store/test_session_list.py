"""`GET /v1/sessions`: every session in the store, once, newest first."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from syncapp import create_app
from syncapp.domain.results import Claim
from syncapp.domain.schemas import CreateSession
from syncapp.store.client import connect
from syncapp.store.keys import Keyspace
from syncapp.store.list_query import SessionsQuery
from syncapp.store.session_list import SessionList
from syncapp.store.sessions import SessionStore
from tests.support.listed_sessions import create_listed, ids_in_redis, listed_ids
from tests.support.store import NOON_MS, ManualClock, chess_request, make_settings, make_store
from tests.support.types import Redis
from tests.support.web_clients import wait_until

KEYS = Keyspace()


@pytest.mark.parametrize("limit", [1, 7, 50, 100])
@pytest.mark.parametrize("every", [1, 40])
def test_every_session_is_listed_once_newest_first(
    store: SessionStore, clock: ManualClock, live: SessionList, limit: int, every: int
) -> None:
    expected = create_listed(store, clock, 120, every)
    assert listed_ids(live, limit=[str(limit)]) == expected


@pytest.mark.parametrize("buckets", [1, 64])
def test_any_number_of_buckets_makes_the_same_list(
    redis_url: str, clock: ManualClock, buckets: int, redis: Redis
) -> None:
    store = make_store(redis_url, sync_buckets=buckets)
    live = SessionList(connect(make_settings(redis_url)), Keyspace(buckets), store)
    expected = create_listed(store, clock, 150, 50)
    assert listed_ids(live, limit=["10"]) == expected


def test_pages_go_on_where_they_ended_while_sessions_come_and_go(
    store: SessionStore, clock: ManualClock, live: SessionList
) -> None:
    first = create_listed(store, clock, 30)
    page = live.page(SessionsQuery(limit=10))
    create_listed(store, clock, 20)
    store.delete(first[9])
    store.delete(first[12])
    rest, cursor = [], page.next_cursor
    while cursor:
        page = live.page(SessionsQuery.from_args({"limit": ["10"], "cursor": [cursor]}))
        rest += [each.session_id for each in page.sessions]
        cursor = page.next_cursor
    assert rest == [each for each in first[10:] if each != first[12]]


def test_a_deleted_session_is_not_listed_and_a_finished_one_is_until_it_is_gone(
    store: SessionStore, clock: ManualClock, live: SessionList, redis: Redis
) -> None:
    kept, ended, deleted = reversed(create_listed(store, clock, 3))
    store.complete(ended)
    store.delete(deleted)
    assert listed_ids(live) == [ended, kept]
    assert ids_in_redis(redis) == {kept, ended}
    redis.delete(KEYS.session(ended))  # as if it had expired
    assert listed_ids(live) == [kept]


def test_a_session_that_is_made_again_is_listed_by_its_new_life(
    store: SessionStore, clock: ManualClock, live: SessionList
) -> None:
    one, two = reversed(create_listed(store, clock, 2))
    store.delete(one)
    clock.advance_ms(10)
    store.create(chess_request(session_id=one))
    assert listed_ids(live) == [one, two]


def test_a_refused_create_and_a_replay_leave_the_list_as_it_is(
    store: SessionStore, clock: ManualClock, redis: Redis
) -> None:
    session_id = store.create(chess_request(session_id=str(uuid.uuid4())), Claim(idempotency_key="k")).found.session_id
    before = redis.zrange(KEYS.listed(KEYS.bucket(session_id)), 0, -1, withscores=True)
    clock.advance_ms(1000)
    store.create(chess_request(session_id=session_id), Claim(idempotency_key="k"))
    with pytest.raises(Exception, match="already exists"):
        store.create(chess_request(session_id=session_id))
    store.start(session_id)
    assert redis.zrange(KEYS.listed(KEYS.bucket(session_id)), 0, -1, withscores=True) == before


def test_an_item_shows_what_a_read_shows_in_every_mode(
    store: SessionStore, clock: ManualClock, live: SessionList
) -> None:
    people = [{"participant_id": f"p{i}"} for i in range(200)]
    timed = [{**person, "total_time_ms": 5000 + i} for i, person in enumerate(people)]
    notify = {"action_on_timeout": {"type": "notify"}}
    bodies: list[dict[str, Any]] = [
        {"sync_mode": "per_participant", "participants": timed},
        {"sync_mode": "per_participant", "participants": timed[:2]} | notify,
        {"sync_mode": "per_group", "participants": [{**each, "group_id": f"g{i}"} for i, each in enumerate(timed)]},
        {"sync_mode": "per_cycle", "time_per_cycle_ms": 4000, "participants": people[:2]},
        {"sync_mode": "global", "total_time_ms": 9000, "metadata": {"hall": 3}},
        {"sync_mode": "count_up"},
        {"sync_mode": "count_up", "max_time_ms": 3000} | notify,
    ]
    for body in bodies:
        for commands in ("", "start", "start switch pause", "start complete"):
            session_id = store.create(CreateSession.parse(body)).found.session_id
            for command in commands.split():
                clock.advance_ms(100)
                many = command == "start" and len(body.get("participants", [])) == 200
                more = {"participant_id": "p150"} if many else {}
                if command == "complete":
                    more = {"reason": "over"}
                getattr(store, command)(session_id, **more)
    clock.advance_ms(3500)
    page = live.page(SessionsQuery(limit=100))
    assert len(page.sessions) == 28
    for each in page.sessions:
        shown = each.document(page.now_ms)
        whole = store.get(each.session_id).found.state(page.now_ms)
        assert shown.pop("participant_count") == len(whole["participants"])
        assert {name: whole.get(name) for name in shown} == shown
        assert ("completion" in shown) == (whole["status"] == "completed")


def test_what_was_due_has_happened_before_it_is_listed(
    store: SessionStore, clock: ManualClock, live: SessionList
) -> None:
    session_id = store.create(chess_request(1000)).found.session_id
    store.start(session_id)
    clock.advance_ms(5000)
    (found,) = live.page(SessionsQuery()).sessions
    assert (found.status, found.session_completed_ms) == ("expired", NOON_MS + 1000)


def test_a_due_session_is_found_by_the_status_it_comes_to_have(redis_url: str, redis: Redis) -> None:
    store = make_store(redis_url, set_clock=False)
    live = SessionList(connect(make_settings(redis_url)), KEYS, store)
    session_id = store.create(chess_request(1000)).found.session_id
    store.start(session_id)
    assert listed_ids(live, status=["running"]) == [session_id]
    wait_until(lambda: listed_ids(live, status=["expired"]) == [session_id])
    assert listed_ids(live, status=["running"]) == []


def test_one_request_looks_at_a_bounded_number_of_sessions_and_says_where_to_go_on(
    store: SessionStore, clock: ManualClock, live: SessionList, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncapp.store.session_list.MAX_EXAMINED", 30)
    (oldest,) = create_listed(store, clock, 1, metadata={"hall": 3})
    create_listed(store, clock, 70)
    sizes, cursor, found = [], None, []
    while True:
        given = {"metadata.hall": ["3"], "limit": ["20"]} | ({"cursor": [cursor]} if cursor else {})
        page = live.page(SessionsQuery.from_args(given))
        sizes.append(len(page.sessions))
        found += [each.session_id for each in page.sessions]
        cursor = page.next_cursor
        if cursor is None:
            break
    assert (sizes, found) == ([0, 0, 1], [oldest])


def test_a_page_takes_a_handful_of_round_trips(
    store: SessionStore, clock: ManualClock, live: SessionList, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_listed(store, clock, 300)
    trips: list[int] = []

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def made_call(*commands: bytes) -> Any:
            trips.append(len(commands))
            return call(*commands)

        return made_call

    for pool in (live._pool, store._runner._scripts._pool):
        monkeypatch.setattr(pool, "call", counted(pool.call))
    assert len(live.page(SessionsQuery(limit=100)).sessions) == 100
    assert len(trips) <= 6
    trips.clear()
    assert len(live.page(SessionsQuery(limit=100, status=["pending"])).sessions) == 100
    assert len(trips) <= 12


def test_sessions_are_found_by_the_beginning_of_their_ids(
    store: SessionStore, clock: ManualClock, live: SessionList
) -> None:
    expected = create_listed(store, clock, 60)
    for prefix in (expected[7][:1], expected[7][:9], expected[7], expected[7][:9].upper()):
        fitting = [each for each in expected if each.startswith(prefix.lower())]
        assert listed_ids(live, id_prefix=[prefix]) == fitting
    assert listed_ids(live, id_prefix=[expected[7]], status=["running"]) == []
    assert listed_ids(live, id_prefix=["-"]) == []


def test_an_empty_store_has_an_empty_list(client: FlaskClient) -> None:
    data = client.get("/v1/sessions").get_json()["data"]
    assert (data["sessions"], data["next_cursor"]) == ([], None)


def test_a_store_that_does_not_answer_is_a_503(database_url: str) -> None:
    away = create_app(make_settings("redis://127.0.0.1:1/0", database_url=database_url)).test_client()
    assert away.get("/v1/sessions").status_code == 503

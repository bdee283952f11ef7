"""`GET /v1/sessions`: every session that the store holds, once, newest first, whatever is asked for."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import redis as redis_py
import requests
from flask.testing import FlaskClient
from redis.lock import Lock

from syncapp import create_app
from syncapp.api.reference.history_schemas import ListAnswer
from syncapp.domain.results import Claim
from syncapp.domain.schemas import CreateSession
from syncapp.errors import StoreUnavailable
from syncapp.store.client import connect
from syncapp.store.deadline_rebuild import LOOK_S, WALKED
from syncapp.store.keys import COMPLETE, SENTINEL, Keyspace
from syncapp.store.list_query import SessionsQuery
from syncapp.store.list_upkeep import CLEAN_S, ListUpkeep
from syncapp.store.session_list import SessionList
from syncapp.store.sessions import SessionStore
from syncapp.store.sweeper import Lease
from tests.api.test_api import CHESS, faults
from tests.conftest import MakeCluster
from tests.support.store import NOON_MS, SetClock, chess, make_store, settings
from tests.support.web_clients import eventually

KEYS = Keyspace()
LISTS = [KEYS.listed(bucket) for bucket in range(KEYS.buckets)]
Redis = redis_py.Redis


@pytest.fixture
def clock(redis: Redis) -> SetClock:
    return SetClock(redis)


@pytest.fixture
def store(redis_url: str, clock: SetClock) -> SessionStore:
    return make_store(redis_url)


@pytest.fixture
def live(redis_url: str, store: SessionStore) -> SessionList:
    return SessionList(connect(settings(redis_url)), KEYS, store)


@pytest.fixture
def client(redis_url: str, database_url: str, redis: Redis) -> FlaskClient:
    return create_app(settings(redis_url, database_url=database_url)).test_client()


class Minutes:
    """A clock that only goes on when told."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def minutes() -> Minutes:
    return Minutes()


@pytest.fixture
def upkeep(redis_url: str, store: SessionStore, minutes: Minutes) -> ListUpkeep:
    return ListUpkeep(connect(settings(redis_url)), store, KEYS, minutes)


def finish(upkeep: ListUpkeep, *, held: bool = True) -> None:
    """Let everything happen that is to be done now."""
    for _ in range(10_000):
        upkeep.step(held=held)
        if upkeep._work is None:
            upkeep.step(held=held)
            if upkeep._work is None:
                return
    raise AssertionError("the upkeep never ends")


def ids(live: SessionList, **asked: Any) -> list[str]:
    """Read all pages; return the ids in order."""
    found: list[str] = []
    cursor = None
    for _ in range(10_000):
        given = asked | ({"cursor": [cursor]} if cursor else {})
        page = live.page(SessionsQuery.from_args(given))
        assert len(page.sessions) <= int(asked.get("limit", ["50"])[0])
        found += [each.session_id for each in page.sessions]
        cursor = page.next_cursor
        if cursor is None:
            return found
    raise AssertionError("the pages never end")


def listed(client: Redis) -> set[str]:
    found: set[str] = set()
    for key in LISTS:
        members: Any = client.zrange(key, 0, -1)
        found |= {name.decode() for name in members} - {SENTINEL}
    return found


def made(store: SessionStore, clock: SetClock, count: int, every: int = 1, **more: Any) -> list[str]:
    """Create sessions, `every` so many of them at one instant; return their ids in the order of the list."""
    found = []
    for number in range(count):
        clock.pass_ms(1 if number % every == 0 else 0)
        found.append((clock.now_ms, store.create(chess(**more)).found.session_id))
    return [session_id for _, session_id in sorted(found, reverse=True)]


@pytest.mark.parametrize("limit", [1, 7, 50, 100])
@pytest.mark.parametrize("every", [1, 40])
def test_every_session_is_listed_once_newest_first(
    store: SessionStore, clock: SetClock, live: SessionList, limit: int, every: int
) -> None:
    expected = made(store, clock, 120, every)
    assert ids(live, limit=[str(limit)]) == expected


@pytest.mark.parametrize("buckets", [1, 64])
def test_any_number_of_buckets_makes_the_same_list(redis_url: str, clock: SetClock, buckets: int, redis: Redis) -> None:
    store = make_store(redis_url, sync_buckets=buckets)
    live = SessionList(connect(settings(redis_url)), Keyspace(buckets), store)
    expected = made(store, clock, 150, 50)
    assert ids(live, limit=["10"]) == expected


def test_pages_go_on_where_they_ended_while_sessions_come_and_go(
    store: SessionStore, clock: SetClock, live: SessionList
) -> None:
    first = made(store, clock, 30)
    page = live.page(SessionsQuery(limit=10))
    made(store, clock, 20)
    store.delete(first[9])
    store.delete(first[12])
    rest, cursor = [], page.next_cursor
    while cursor:
        page = live.page(SessionsQuery.from_args({"limit": ["10"], "cursor": [cursor]}))
        rest += [each.session_id for each in page.sessions]
        cursor = page.next_cursor
    assert rest == [each for each in first[10:] if each != first[12]]


def test_a_deleted_session_is_not_listed_and_a_finished_one_is_until_it_is_gone(
    store: SessionStore, clock: SetClock, live: SessionList, redis: Redis
) -> None:
    kept, ended, deleted = reversed(made(store, clock, 3))
    store.complete(ended)
    store.delete(deleted)
    assert ids(live) == [ended, kept]
    assert listed(redis) == {kept, ended}
    redis.delete(KEYS.session(ended))  # as if its time were over
    assert ids(live) == [kept]


def test_a_session_that_is_made_again_is_listed_by_its_new_life(
    store: SessionStore, clock: SetClock, live: SessionList
) -> None:
    one, two = reversed(made(store, clock, 2))
    store.delete(one)
    clock.pass_ms(10)
    store.create(chess(session_id=one))
    assert ids(live) == [one, two]


def test_a_refused_create_and_a_replay_leave_the_list_as_it_is(
    store: SessionStore, clock: SetClock, redis: Redis
) -> None:
    session_id = store.create(chess(session_id=str(uuid.uuid4())), Claim(idempotency_key="k")).found.session_id
    before = redis.zrange(KEYS.listed(KEYS.bucket(session_id)), 0, -1, withscores=True)
    clock.pass_ms(1000)
    store.create(chess(session_id=session_id), Claim(idempotency_key="k"))
    with pytest.raises(Exception, match="exists already"):
        store.create(chess(session_id=session_id))
    store.start(session_id)
    assert redis.zrange(KEYS.listed(KEYS.bucket(session_id)), 0, -1, withscores=True) == before


def test_an_item_shows_what_a_read_shows_in_every_mode(store: SessionStore, clock: SetClock, live: SessionList) -> None:
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
                clock.pass_ms(100)
                many = command == "start" and len(body.get("participants", [])) == 200
                more = {"participant_id": "p150"} if many else {}
                if command == "complete":
                    more = {"reason": "over"}
                getattr(store, command)(session_id, **more)
    clock.pass_ms(3500)
    page = live.page(SessionsQuery(limit=100))
    assert len(page.sessions) == 28
    for each in page.sessions:
        shown = each.document(page.now_ms)
        whole = store.get(each.session_id).found.state(page.now_ms)
        assert shown.pop("participant_count") == len(whole["participants"])
        assert {name: whole.get(name) for name in shown} == shown
        assert ("completion" in shown) == (whole["status"] == "completed")


def test_what_was_due_has_happened_before_it_is_listed(store: SessionStore, clock: SetClock, live: SessionList) -> None:
    session_id = store.create(chess(1000)).found.session_id
    store.start(session_id)
    clock.pass_ms(5000)
    (found,) = live.page(SessionsQuery()).sessions
    assert (found.status, found.session_completed_ms) == ("expired", NOON_MS + 1000)


def test_a_due_session_is_found_by_the_status_it_comes_to_have(redis_url: str, redis: Redis) -> None:
    store = make_store(redis_url, set_clock=False)
    live = SessionList(connect(settings(redis_url)), KEYS, store)
    session_id = store.create(chess(1000)).found.session_id
    store.start(session_id)
    assert ids(live, status=["running"]) == [session_id]
    eventually(lambda: ids(live, status=["expired"]) == [session_id])
    assert ids(live, status=["running"]) == []


@pytest.fixture
def variety(client: FlaskClient) -> dict[str, str]:
    """Sessions by what they are called."""
    bodies: dict[str, dict[str, Any]] = {
        "chess": CHESS | {"metadata": {"hall": "3", "round": 7, "rated": True, "a.b": "x", "rate": 1.5, "none": None}},
        "exam": {"sync_mode": "global", "total_time_ms": 5000, "metadata": {"hall": 3, "round": "seven"}},
        "watch": {"sync_mode": "count_up", "participants": [{"participant_id": "white"}], "metadata": {"rated": False}},
        "rounds": {"sync_mode": "per_cycle", "time_per_cycle_ms": 1000, "metadata": {"hall": [3], "rated": "true"}},
    }
    found = {
        name: client.post("/v1/sessions", json=body).get_json()["data"]["session_id"] for name, body in bodies.items()
    }
    client.post(f"/v1/sessions/{found['exam']}/start")
    client.post(f"/v1/sessions/{found['watch']}/start")
    client.post(f"/v1/sessions/{found['watch']}/pause")
    client.post(f"/v1/sessions/{found['rounds']}/complete")
    return found


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "chess exam watch rounds"),
        ("status=running", "exam"),
        ("status=running,paused", "exam watch"),
        ("status=pending&status=completed", "chess rounds"),
        ("status=cancelled", ""),
        ("sync_mode=global", "exam"),
        ("sync_mode=count_up,per_cycle", "watch rounds"),
        ("participant_id=white", "chess watch"),
        ("participant_id=nobody", ""),
        ("participant_id=white&status=paused", "watch"),
        ("metadata.hall=3", "chess exam"),
        ("metadata.hall=3.0", "exam"),
        ("metadata.round=7", "chess"),
        ("metadata.round=7e0", "chess"),
        ("metadata.round=seven", "exam"),
        ("metadata.rated=true", "chess rounds"),
        ("metadata.rated=false", "watch"),
        ("metadata.rated=1", ""),
        ("metadata.a.b=x", "chess"),
        ("metadata.rate=1.5", "chess"),
        ("metadata.none=null", ""),
        ("metadata.missing=", ""),
        ("metadata.hall=3&metadata.rated=true", "chess"),
    ],
)
def test_filters_find_what_fits_and_nothing_else(
    client: FlaskClient, variety: dict[str, str], query: str, expected: str
) -> None:
    answer = client.get(f"/v1/sessions?{query}")
    assert answer.status_code == 200, answer.text
    ListAnswer.model_validate_json(answer.data)
    assert answer.headers["Cache-Control"] == "no-store"
    names = {session_id: name for name, session_id in variety.items()}
    found = [names[each["session_id"]] for each in answer.get_json()["data"]["sessions"]]
    assert sorted(found) == sorted(expected.split())


@pytest.mark.parametrize(
    ("written", "asked", "found"),
    [
        ("1234567890123456789", "1234567890123456789", True),
        ("1234567890123456789", "1234567890123456788", False),
        ("1234567890123456789", "1234567890123456789.0", True),
        ("123456789012345678", "123456789012345678", True),
        ("123456789012345678", "123456789012345679", False),
        (str(2**53 + 1), str(2**53 + 1), True),
        (str(2**53 + 1), str(2**53), False),
        (str(2**53), str(2**53 + 1), False),
        (str(2**63 - 1), str(2**63 - 1), True),
        (str(2**63 - 1), str(2**63), False),
        (str(2**64 - 1), str(2**64 - 1), True),
        (str(-(2**63)), str(-(2**63)), True),
        (str(-(2**63)), str(-(2**63) + 1), False),
        ("-1234567890123456789", "-1234567890123456789", True),
        ("-1234567890123456789", "1234567890123456789", False),
        ("1", "1", True),
        ("1", "1.0", True),
        ("1", "true", False),
        ("1", "1e999", False),
        ("1.0", "1", True),
        ("1.0", "1.0", True),
        ("true", "true", True),
        ("true", "1", False),
        ("0.1", "0.1", True),
        ("0.1", "0.10000000000000002", False),
        ("1e25", "1e25", True),
        ("1e25", "1" + 25 * "0", True),
    ],
)
def test_whole_numbers_are_compared_exactly_and_others_as_doubles(
    client: FlaskClient, written: str, asked: str, found: bool
) -> None:
    # As text: a number that is decoded and encoded may be written in another way.
    body = json.dumps({"sync_mode": "count_up", "metadata": {"order": None}}).replace("null", written)
    assert client.post("/v1/sessions", data=body, content_type="application/json").status_code == 201
    data = client.get(f"/v1/sessions?metadata.order={asked}").get_json()["data"]
    assert len(data["sessions"]) == found


def test_a_plus_that_became_a_space_is_explained(client: FlaskClient) -> None:
    body = {"sync_mode": "per_participant", "participants": [{"participant_id": "p+1", "total_time_ms": 5000}]}
    session_id = client.post("/v1/sessions", json=body).get_json()["data"]["session_id"]
    text = f"/v1/sessions/{session_id}/text"
    for path in ("/v1/sessions?participant_id", f"{text}?participant_id", f"{text}?group_id"):
        refused = client.get(f"{path}=p+1")
        assert refused.status_code == 400
        (detail,) = refused.get_json()["error"]["details"]
        assert detail["message"].endswith("; in a URL, + is written as %2B")
        (plain,) = client.get(f"{path}=p!1").get_json()["error"]["details"]
        assert "%2B" not in plain["message"]
    assert len(client.get("/v1/sessions?participant_id=p%2B1").get_json()["data"]["sessions"]) == 1
    assert client.get(f"{text}?participant_id=p%2B1").text == "00:05"


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("limit=0", {"limit": "greater_than_equal"}),
        ("limit=101", {"limit": "less_than_equal"}),
        ("limit=x", {"limit": "int_type"}),
        ("limit=1&limit=2", {"limit": "repeated"}),
        ("status=running,ended", {"status": "literal_error"}),
        ("status=", {"status": "literal_error"}),
        ("sync_mode=chess", {"sync_mode": "literal_error"}),
        ("participant_id=%20", {"participant_id": "id"}),
        ("cursor=x", {"cursor": "cursor"}),
        ("metadata=x", {"metadata": "members"}),
        ("metadata.a=1&metadata.a=2", {"metadata.a": "repeated"}),
        ("&".join(f"metadata.{i}=1" for i in range(9)), {"metadata": "too_long"}),
        ("mode=global&limit=-1", {"mode": "extra_forbidden", "limit": "greater_than_equal"}),
    ],
)
def test_a_question_that_makes_no_sense_is_refused_naming_every_fault(
    client: FlaskClient, query: str, fault: dict[str, str]
) -> None:
    assert faults(client.get(f"/v1/sessions?{query}")) == fault


def test_one_request_looks_at_a_bounded_number_of_sessions_and_says_where_to_go_on(
    store: SessionStore, clock: SetClock, live: SessionList, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncapp.store.session_list.MOST_LOOKED_AT", 30)
    (oldest,) = made(store, clock, 1, metadata={"hall": 3})
    made(store, clock, 70)
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
    store: SessionStore, clock: SetClock, live: SessionList, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(store, clock, 300)
    trips: list[int] = []

    def counted(call: Callable[..., Any]) -> Callable[..., Any]:
        def made_call(commands: bytes, count: int = 1) -> Any:
            trips.append(count)
            return call(commands, count)

        return made_call

    for pool in (live._pool, store._calls._scripts._pool):
        monkeypatch.setattr(pool, "call", counted(pool.call))
    assert len(live.page(SessionsQuery(limit=100)).sessions) == 100
    assert len(trips) <= 6
    trips.clear()
    assert len(live.page(SessionsQuery(limit=100, status=["pending"])).sessions) == 100
    assert len(trips) <= 12


def test_an_empty_store_has_an_empty_list(client: FlaskClient) -> None:
    data = client.get("/v1/sessions").get_json()["data"]
    assert (data["sessions"], data["next_cursor"]) == ([], None)


def test_a_store_that_does_not_answer_is_a_503(database_url: str) -> None:
    away = create_app(settings("redis://127.0.0.1:1/0", database_url=database_url)).test_client()
    assert away.get("/v1/sessions").status_code == 503


def test_sessions_of_an_earlier_release_come_into_the_list(
    store: SessionStore, clock: SetClock, live: SessionList, upkeep: ListUpkeep, redis: Redis
) -> None:
    expected = made(store, clock, 200)
    store.complete(expected[0])
    store.delete(expected[1])
    redis.delete(*LISTS)
    assert ids(live) == []
    finish(upkeep)
    assert ids(live) == [expected[0], *expected[2:]]
    assert {redis.zscore(key, SENTINEL) for key in LISTS} == {float(COMPLETE)}


def test_a_page_says_whether_sessions_may_be_missing(
    store: SessionStore, clock: SetClock, live: SessionList, upkeep: ListUpkeep, minutes: Minutes, redis: Redis
) -> None:
    def answers() -> set[bool]:
        """What the pages say, with and without a cursor, a filter, and anything found."""
        first = live.page(SessionsQuery(limit=5))
        second = live.page(SessionsQuery.from_args({"limit": ["5"], "cursor": [first.next_cursor or ""]}))
        filtered = live.page(SessionsQuery(status=["running"]))
        return {first.complete, second.complete, filtered.complete}

    made(store, clock, 30)
    assert answers() == {False}
    finish(upkeep)
    assert answers() == {True}
    redis.zadd(LISTS[3], {SENTINEL: float(WALKED)})  # as during a walk
    assert answers() == {False}
    redis.delete(LISTS[3])
    assert answers() == {False}
    minutes.now_s += LOOK_S
    finish(upkeep)
    assert answers() == {True}


def left_out(client: Redis, session_ids: list[str]) -> None:
    """Make sessions as if an earlier release had created them, which does not know the lists."""
    for each in session_ids:
        client.zrem(KEYS.listed(KEYS.bucket(each)), each)


def test_sessions_that_an_earlier_release_makes_later_come_into_the_list_soon(
    store: SessionStore, clock: SetClock, live: SessionList, upkeep: ListUpkeep, minutes: Minutes, redis: Redis
) -> None:
    finish(upkeep)
    expected = made(store, clock, 60)
    for each in expected[:20]:
        store.start(each)
    scores = {each: redis.zscore(KEYS.listed(KEYS.bucket(each)), each) for each in expected}
    left_out(redis, expected[:40])
    finish(upkeep)
    assert ids(live) == expected[40:]
    minutes.now_s += LOOK_S
    finish(upkeep)
    assert ids(live) == expected
    assert scores == {each: redis.zscore(KEYS.listed(KEYS.bucket(each)), each) for each in expected}


def test_a_session_that_is_gone_or_fails_is_not_listed_and_holds_up_no_other(
    store: SessionStore, clock: SetClock, upkeep: ListUpkeep, minutes: Minutes, redis: Redis
) -> None:
    finish(upkeep)
    expected = made(store, clock, 40)
    gone, deleted, broken, *rest = expected
    left_out(redis, expected)
    redis.delete(KEYS.session(gone))
    store.delete(deleted)
    for each in (deleted, SENTINEL):
        redis.zadd(KEYS.deadlines(KEYS.bucket(each)), {each: NOON_MS * 2})
    redis.hset(KEYS.session(broken), "scalars", "nonsense")
    minutes.now_s += LOOK_S
    finish(upkeep)
    assert listed(redis) == set(rest)


def test_a_session_that_is_deleted_or_made_again_while_it_is_added_is_not_listed_as_it_was(
    store: SessionStore,
    clock: SetClock,
    live: SessionList,
    upkeep: ListUpkeep,
    minutes: Minutes,
    redis: Redis,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    finish(upkeep)
    again, deleted, *rest = made(store, clock, 10)
    left_out(redis, [again, deleted, *rest])
    call = upkeep._pool.call

    def overtaken(commands: bytes, count: int = 1) -> Any:
        """Let another client come between the look and the write."""
        if b"NX" in commands and redis.exists(KEYS.session(deleted)) and deleted.encode() in commands:
            store.delete(deleted)
        if b"NX" in commands and again.encode() in commands:
            store.delete(again)
            store.create(chess(session_id=again))
        return call(commands, count)

    clock.pass_ms(1000)
    monkeypatch.setattr(upkeep._pool, "call", overtaken)
    minutes.now_s += LOOK_S
    finish(upkeep)
    assert listed(redis) == {again, *rest}
    assert redis.zscore(KEYS.listed(KEYS.bucket(again)), again) == clock.now_ms
    assert ids(live) == [again, *rest]


def test_many_sessions_are_compared_and_listed_in_short_steps(
    redis_url: str, clock: SetClock, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, one = make_store(redis_url, sync_buckets=1), Keyspace(1)
    expected = set(made(store, clock, 1200))
    redis.zremrangebyrank(one.listed(0), 0, -1)
    redis.zadd(one.listed(0), {SENTINEL: float(COMPLETE)})
    seconds = iter(range(10_000))
    upkeep = ListUpkeep(connect(settings(redis_url)), store, one, lambda: 0.01 * next(seconds))
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
    store: SessionStore, clock: SetClock, live: SessionList, upkeep: ListUpkeep, minutes: Minutes, redis: Redis
) -> None:
    expected = made(store, clock, 50)
    finish(upkeep)
    redis.delete(LISTS[3], LISTS[4])
    finish(upkeep)
    assert len(ids(live)) < 50
    minutes.now_s += LOOK_S
    finish(upkeep)
    assert ids(live) == expected


def test_a_new_status_lists_a_session_that_was_not(
    store: SessionStore, clock: SetClock, live: SessionList, redis: Redis
) -> None:
    (session_id,) = made(store, clock, 1)
    redis.delete(*LISTS)
    store.start(session_id)
    assert ids(live) == [session_id]


def test_what_has_expired_is_taken_off_the_list_within_a_minute(
    store: SessionStore, clock: SetClock, upkeep: ListUpkeep, minutes: Minutes, redis: Redis
) -> None:
    found = made(store, clock, 60)
    finish(upkeep)
    redis.delete(*map(KEYS.session, found[:40]))
    finish(upkeep)
    assert listed(redis) == set(found)
    minutes.now_s += CLEAN_S
    finish(upkeep)
    assert listed(redis) == set(found[40:])


def test_without_the_lease_nothing_is_done(redis_url: str, upkeep: ListUpkeep, minutes: Minutes, redis: Redis) -> None:
    finish(upkeep, held=False)
    assert Lease(connect(settings(redis_url)), KEYS.sweeper()).hold()
    minutes.now_s += LOOK_S
    finish(upkeep, held=False)
    assert not any(map(redis.exists, LISTS))


def test_where_an_earlier_release_sweeps_another_process_keeps_the_lists(
    store: SessionStore, clock: SetClock, live: SessionList, upkeep: ListUpkeep, minutes: Minutes, redis: Redis
) -> None:
    assert Lock(redis, KEYS.sweeper(), timeout=60, thread_local=False).acquire(blocking=False)  # as it took it
    first = made(store, clock, 20)
    redis.delete(*LISTS)
    finish(upkeep, held=False)
    assert ids(live) == first
    assert live.page(SessionsQuery()).complete
    later = made(store, clock, 20)
    left_out(redis, later)
    minutes.now_s += LOOK_S
    finish(upkeep, held=False)
    assert ids(live) == [*later, *first]


def test_a_store_that_is_away_does_not_end_the_upkeep(
    store: SessionStore, upkeep: ListUpkeep, minutes: Minutes, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch:
        patch.setattr(upkeep._pool, "call", fail)
        upkeep.step(held=True)
    minutes.now_s += LOOK_S
    finish(upkeep)
    assert all(redis.zscore(key, SENTINEL) for key in LISTS)


def test_an_upgraded_service_lists_everything_over_http(
    make_cluster: MakeCluster, redis: Redis, redis_url: str
) -> None:
    old = make_store(redis_url, set_clock=False)
    expected = {old.create(chess()).found.session_id for _ in range(30)}
    redis.delete(*LISTS)
    api = make_cluster(web=1, worker=False).urls[0]

    def found() -> set[str]:
        data = requests.get(f"{api}/v1/sessions?limit=100", timeout=10).json()["data"]
        assert not data["complete"] or len(data["sessions"]) == 30
        return {each["session_id"] for each in data["sessions"]}

    eventually(lambda: found() == expected)
    eventually(lambda: requests.get(f"{api}/v1/sessions", timeout=10).json()["data"]["complete"] is True)


def test_after_a_rollback_and_an_upgrade_everything_that_runs_is_listed_over_http(
    make_cluster: MakeCluster, redis: Redis, redis_url: str
) -> None:
    for key in LISTS:
        redis.zadd(key, {SENTINEL: float(COMPLETE)})
    old = make_store(redis_url, set_clock=False)
    expected = [old.create(chess()).found.session_id for _ in range(30)]
    left_out(redis, expected)
    api = make_cluster(web=1, worker=False).urls[0]

    def found() -> set[str]:
        data = requests.get(f"{api}/v1/sessions?limit=100", timeout=10).json()["data"]
        return {each["session_id"] for each in data["sessions"]}

    eventually(lambda: found() == set(expected))

"""Tenants never meet: the same id is another session in another tenant."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from syncapp.domain.principal import DEFAULT_TENANT, SCOPES, Principal, is_tenant
from syncapp.domain.results import Claim
from syncapp.domain.session_ids import is_hashed, log_id, public_id, qualified, tenant_of
from syncapp.errors import SessionNotFound
from syncapp.realtime.hub import Hub
from syncapp.realtime.protocol import Outgoing
from syncapp.store.client import connect
from syncapp.store.deadline_rebuild import DeadlineRebuild
from syncapp.store.keys import Keyspace
from syncapp.store.list_query import SessionsQuery
from syncapp.store.list_upkeep import CLEAN_TENANTS_S, ListUpkeep
from syncapp.store.session_list import SessionList
from syncapp.store.sessions import SessionStore
from syncapp.store.sweeper import Sweeper
from tests.support.listed_sessions import finish_upkeep
from tests.support.step_clock import StepClock
from tests.support.store import PARTIALS, ManualClock, chess_request, make_settings, make_store
from tests.support.types import Redis
from tests.support.watchers import Recorder, stopping

ID = "3e1f8e1a-3f44-4c55-9d0b-0f6f2b8f5a10"
KEYS = Keyspace()
TENANTS = (DEFAULT_TENANT, "acme", "blue.chess-club_2")
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
uuids = st.uuids().map(str)


def caller(tenant: str, sub: str = "ada") -> Principal:
    return Principal(sub, tenant, frozenset(SCOPES))


def create(store: SessionStore, tenant: str, session_id: str | None = ID, key: str | None = None) -> str:
    """Create a session of a tenant, and return its qualified id."""
    claim = Claim(principal=caller(tenant), idempotency_key=key)
    return store.create(chess_request(session_id=session_id), claim).found.session_id


def contents(client: Redis, tenant: str) -> dict[bytes, object]:
    """Return what Redis holds of a tenant: the contents of its keys, and its members of shared sets."""
    marks = [qualified(tenant, ID).encode(), f"listed:{tenant}".encode()]
    if tenant == DEFAULT_TENANT:
        marks = [b":" + ID.encode(), b"listed"]
    found: dict[bytes, object] = {}
    for key in client.scan_iter():
        if any(key.endswith(mark) or mark + b":" in key for mark in marks) and client.type(key) != b"none":
            found[key] = client.dump(key) if client.type(key) != b"hash" else client.hgetall(key)
    name = qualified(tenant, ID)
    return found | {b"deadline": client.zscore(KEYS.deadlines(KEYS.bucket(name)), name)}


@given(tenant=names, session_id=uuids)
def test_a_qualified_id_gives_its_tenant_and_the_id_of_clients(tenant: str, session_id: str) -> None:
    name = qualified(tenant, session_id)
    assert is_tenant(tenant)
    assert (tenant_of(name), public_id(name)) == (tenant, session_id)
    assert KEYS.session_of(KEYS.session(name)) == name


@given(one=st.tuples(names | st.just(DEFAULT_TENANT), uuids), other=st.tuples(names | st.just(DEFAULT_TENANT), uuids))
def test_log_ids_are_uuids_and_differ_wherever_tenants_or_ids_do(one: tuple[str, str], other: tuple[str, str]) -> None:
    ids = [log_id(qualified(*each)) for each in (one, other)]
    assert (ids[0] == ids[1]) == (one == other)
    assert all(str(uuid.UUID(each)) == each for each in ids)
    assert is_hashed(ids[0]) == (one[0] != DEFAULT_TENANT or is_hashed(one[1]))


def test_another_tenants_log_id_is_no_session_of_the_default_tenant() -> None:
    hashed = log_id(qualified("acme", ID))
    assert log_id(hashed) != hashed
    assert is_hashed(log_id(hashed))


def test_the_same_id_is_another_session_in_each_tenant(store: SessionStore, clock: ManualClock) -> None:
    ids = [create(store, tenant) for tenant in TENANTS]
    store.start(ids[1])
    store.delete(ids[2])
    assert store.get(ids[0]).found.status == "pending"
    assert store.get(ids[1]).found.status == "running"
    with pytest.raises(SessionNotFound):
        store.get(ids[2])
    assert {store.get(each).found.state(clock.now_ms)["session_id"] for each in ids[:2]} == {ID}


@pytest.mark.parametrize("tenant", TENANTS)
def test_no_command_of_a_tenant_touches_another(tenant: str, store: SessionStore, redis: Redis) -> None:
    others = [each for each in TENANTS if each != tenant]
    for each in others:
        create(store, each)
    before = [contents(redis, each) for each in others]
    claim = Claim(principal=caller(tenant), idempotency_key="k")
    own = create(store, tenant)
    store.start(own, claim)
    store.switch(own)
    store.update(own, {"board": 7})
    store.adjust(own, op="add", ms=1000)
    store.attend([own])
    store.pause(own)
    store.resume(own)
    store.cancel(own)
    store.delete(own)
    assert [contents(redis, each) for each in others] == before


def test_messages_name_the_session_of_another_tenant_so_that_no_log_mixes_them(
    store: SessionStore, redis: Redis
) -> None:
    names = [create(store, tenant) for tenant in TENANTS[:2]]
    plain, acme = (outbox_message(redis, each) for each in names)
    assert plain["session_id"] == ID
    assert "tenant" not in plain
    assert acme["session_id"] == log_id(names[1]) != ID
    assert (acme["tenant"], acme["tenant_session_id"]) == ("acme", ID)


def outbox_message(client: Redis, session_id: str) -> dict[str, object]:
    """Return the first message of a session in its bucket's outbox."""
    entries: list[Any] = client.xrange(KEYS.outbox(KEYS.bucket(session_id)))  # type: ignore[assignment]  # as in support
    found: Iterator[dict[str, object]] = (orjson.loads(fields[b"message"].split(b"\n")[0]) for _, fields in entries)
    return next(each for each in found if each["session_id"] == log_id(session_id))


def test_idempotency_keys_and_the_ids_made_from_them_belong_to_a_principal(store: SessionStore) -> None:
    key = str(uuid.uuid4())
    made = {
        (tenant, sub): store.create(chess_request(), Claim(idempotency_key=key, principal=caller(tenant, sub)))
        for tenant in TENANTS
        for sub in ("ada", "bob")
    }
    assert not any(each.replayed for each in made.values())
    assert len({public_id(each.found.session_id) for each in made.values()}) == len(made)
    again = store.create(chess_request(), Claim(idempotency_key=key, principal=caller("acme", "bob")))
    assert again.replayed
    assert again.found.session_id == made["acme", "bob"].found.session_id
    session_id = create(store, "acme")
    first = store.start(session_id, Claim(idempotency_key="k", principal=caller("acme", "ada")))
    other = Claim(idempotency_key="k", principal=caller("acme", "bob"))
    assert not first.replayed
    assert not store.pause(session_id, other).replayed


def test_a_list_has_the_sessions_of_one_tenant_only(store: SessionStore, live: SessionList, clock: ManualClock) -> None:
    created: dict[str, list[str]] = {tenant: [] for tenant in TENANTS}
    for number in range(60):
        tenant = TENANTS[number % 3]
        clock.advance_ms(1)
        created[tenant].insert(0, public_id(create(store, tenant, str(uuid.uuid4()))))
    for tenant in TENANTS:
        listed, cursor, pages = [], None, 0
        while cursor or not pages:
            query = SessionsQuery.from_args({"limit": ["7"]} | ({"cursor": [cursor]} if cursor else {}))
            page = live.page(query, tenant)
            listed += [each.document(clock.now_ms)["session_id"] for each in page.sessions]
            cursor, pages = page.next_cursor, pages + 1
            assert cursor is None or "/" not in cursor
        assert listed == created[tenant]
        assert pages == 3
    assert live.page(SessionsQuery(), "nobody").sessions == []


def test_the_lists_of_all_tenants_are_filled_compared_and_cleaned(
    store: SessionStore, live: SessionList, upkeep: ListUpkeep, minutes: StepClock, clock: ManualClock, redis: Redis
) -> None:
    names = [create(store, tenant) for tenant in TENANTS]
    lists = [KEYS.listed(KEYS.bucket(name), tenant_of(name)) for name in names]
    finish_upkeep(upkeep)
    assert live.page(SessionsQuery(), "acme").complete
    redis.delete(*lists)  # with the sentinel of tenant `default`
    minutes.now_s += 60
    finish_upkeep(upkeep)
    for tenant in TENANTS:
        assert [each.session_id for each in live.page(SessionsQuery(), tenant).sessions] == [qualified(tenant, ID)]
    for name, key in zip(names[1:], lists[1:], strict=True):
        redis.zrem(key, name)
    minutes.now_s += 60
    finish_upkeep(upkeep)
    assert [redis.zscore(key, name) is not None for name, key in zip(names, lists, strict=True)] == [True] * 3
    redis.delete(*map(KEYS.session, names))
    minutes.now_s += CLEAN_TENANTS_S
    for _ in range(3):  # one kind of work at a time
        finish_upkeep(upkeep)
    assert [redis.zscore(key, name) for name, key in zip(names, lists, strict=True)] == [None] * 3


def test_sessions_of_every_tenant_time_out_and_lost_deadlines_are_rebuilt(
    store: SessionStore, clock: ManualClock, sweeper: Sweeper, redis: Redis, redis_url: str
) -> None:
    names = [create(store, tenant) for tenant in TENANTS]
    for name in names:
        store.start(name)
    redis.delete(*(KEYS.deadlines(KEYS.bucket(name)) for name in names))
    chosen = make_settings(redis_url)
    client = connect(chosen)
    rebuild = DeadlineRebuild(client, SessionStore(client, chosen, partials=PARTIALS), KEYS)
    for _ in range(20):
        rebuild.step(held=True)
    assert all(redis.zscore(KEYS.deadlines(KEYS.bucket(name)), name) for name in names)
    clock.advance_ms(300_000)
    while sweeper.run_once(clock.now_ms).sessions:
        pass
    assert {store.get(name).found.status for name in names} == {"expired"}
    listed = {redis.zscore(KEYS.listed(KEYS.bucket(name)), name) for name in names[1:]}
    assert listed == {None}  # the sweep must not list them in tenant `default`


def test_watchers_see_their_own_tenants_session_under_its_public_id(redis_url: str, redis: Redis) -> None:
    store = make_store(redis_url, set_clock=False)
    ours, theirs = create(store, "acme"), create(store, "blue.chess-club_2")
    settings = make_settings(redis_url)
    with stopping(Hub(settings, read=store.read)) as hub:
        watcher = Recorder()
        hub.watch(ours, watcher)
        watcher.wait(lambda: bool(watcher.updates))
        store.start(theirs)
        started = store.start(ours)
        update = watcher.wait_for_order(started.found.order)
        assert watcher.orders == [(started.found.epoch, 1), (started.found.epoch, 2)]
        assert b'"sessionId":"' + ID.encode() in update.payload(Outgoing.STATE_UPDATE)
        assert b"acme" not in update.payload(Outgoing.STATE_UPDATE)

"""The token buckets of sessions and principals, against a plain model, with a set clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import redis as redis_py
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from syncapp.domain.principal import Principal
from syncapp.domain.results import Claim
from syncapp.errors import Conflict, InvalidTransition, RateLimited
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from tests.support.store import ManualClock, chess_request, dump_session, make_store

pytestmark = pytest.mark.usefixtures("split_limits")

ADA, BEN = Principal(sub="ada"), Principal(sub="ben")
BY_ADA, BY_BEN = Claim(principal=ADA), Claim(principal=BEN)
EXAMPLES = 60


def running(store: SessionStore, count: int = 1) -> list[str]:
    """Ids of sessions that are started, by nobody: no bucket is charged."""
    ids = [store.create(chess_request(80_000_000)).found.session_id for _ in range(count)]
    for each in ids:
        store.start(each)
    return ids


def refused(command: Callable[[], Any]) -> dict[str, Any]:
    with pytest.raises(RateLimited) as failed:
        command()
    details: dict[str, Any] = failed.value.details
    return details


class Model:
    """A token bucket as a number of tokens that grows with time, in exact integers: tokens times 1,000,000."""

    def __init__(self, per_s: int, burst: int, now_ms: int) -> None:
        self.per_s, self.most, self.tokens, self.at_ms = per_s, burst * 1_000_000, burst * 1_000_000, now_ms

    def level(self, now_ms: int) -> int:
        self.tokens = min(self.most, self.tokens + (now_ms - self.at_ms) * self.per_s * 1000)
        self.at_ms = now_ms
        return self.tokens // 1_000_000


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from([ADA, BEN]), st.sampled_from([0, 0, 0, 1, 20, 49, 50, 333, 4000])),
        max_size=60,
    )
)
def test_buckets_hold_what_the_model_holds(
    redis: redis_py.Redis, redis_url: str, steps: list[tuple[int, Principal, int]]
) -> None:
    redis.flushdb()
    clock = ManualClock(redis)
    store = make_store(
        redis_url,
        session_commands_per_s=20,
        session_commands_burst=4,
        principal_commands_per_s=40,
        principal_commands_burst=6,
    )
    sessions = running(store, 3)
    own = {each: Model(20, 4, clock.now_ms) for each in sessions}
    of_principal = {each.sub: Model(40, 6, clock.now_ms) for each in (ADA, BEN)}
    for place, principal, wait_ms in steps:
        clock.advance_ms(wait_ms)
        session, caller = own[sessions[place]], of_principal[principal.sub]
        left, callers = session.level(clock.now_ms), caller.level(clock.now_ms)
        claim = Claim(principal=principal)
        if callers and left:
            session.tokens -= 1_000_000
            caller.tokens -= 1_000_000
            found = store.switch(sessions[place], claim).allowances
            assert [(each.name, each.left) for each in found] == [("session", left - 1), ("principal", callers - 1)]
        else:
            blamed = "session_commands_per_s" if callers else "principal_commands_per_s"
            assert refused(lambda: store.switch(sessions[place], claim))["reason"] == blamed  # noqa: B023 called at once


@pytest.fixture
def store(redis_url: str, clock: ManualClock) -> SessionStore:
    return make_store(
        redis_url,
        session_commands_per_s=20,
        session_commands_burst=2,
        principal_commands_per_s=40,
        principal_commands_burst=4,
    )


def buckets(redis: redis_py.Redis) -> dict[bytes, Any]:
    """The buckets of all principals, and until when they are kept; and the names of all keys."""
    held = {key: (redis.get(key), redis.pexpiretime(key)) for key in redis.scan_iter(match="sync:limits:*")}
    names = (key for key in redis.scan_iter() if not key.endswith(b":nudge"))  # it expires by itself
    return {**dict.fromkeys(names), **held}


@pytest.mark.parametrize("blamed", ["session_commands_per_s", "principal_commands_per_s"])
def test_a_refusal_changes_nothing_and_its_key_stays_unused(
    store: SessionStore, clock: ManualClock, redis: redis_py.Redis, blamed: str
) -> None:
    ids = running(store, 3)
    for each in [ids[0]] * 2 if blamed == "session_commands_per_s" else ids[1:] * 2:
        store.switch(each, BY_ADA)
    claim = Claim(idempotency_key="k", principal=ADA)
    clock.advance_ms(10)
    session, before = dump_session(redis, ids[0]), buckets(redis)
    details = refused(lambda: store.switch(ids[0], claim))
    assert details == {"reason": blamed, "limit": details["limit"], "retry_after_s": 1}
    assert dump_session(redis, ids[0]) == session
    assert buckets(redis) == before
    clock.advance_ms(1000)
    assert not store.switch(ids[0], claim).replayed
    assert store.switch(ids[0], claim).replayed


def test_what_is_due_is_not_applied_by_a_refused_command(store: SessionStore, clock: ManualClock) -> None:
    session_id = store.create(chess_request(1000, action_on_timeout={"type": "end_session"})).found.session_id
    store.start(session_id)
    clock.advance_ms(990)
    store.switch(session_id, BY_ADA)
    store.switch(session_id, BY_ADA)
    clock.advance_ms(20)
    before = store.position(session_id)
    refused(lambda: store.switch(session_id, BY_BEN))
    assert store.position(session_id) == before


def test_a_session_accepts_as_much_from_all_principals_together(store: SessionStore) -> None:
    (session_id,) = running(store)
    store.switch(session_id, BY_ADA)
    store.switch(session_id, BY_BEN)
    assert refused(lambda: store.switch(session_id, BY_BEN)) == {
        "reason": "session_commands_per_s",
        "limit": 20,
        "retry_after_s": 1,
    }


def test_a_principal_has_one_bucket_for_the_sessions_of_all_buckets_and_tenants_have_their_own(
    store: SessionStore,
) -> None:
    ids = running(store, 5)
    assert len({Keyspace().bucket(each) for each in ids}) > 1
    for each in ids[:4]:
        store.switch(each, BY_ADA)
    assert refused(lambda: store.switch(ids[4], BY_ADA))["reason"] == "principal_commands_per_s"
    store.switch(ids[4], Claim(principal=Principal(sub="ada", tenant="acme")))


def test_a_command_that_is_refused_otherwise_costs_the_principal_a_token_and_the_session_none(
    store: SessionStore,
) -> None:
    (session_id,) = running(store)
    for _ in range(3):
        with pytest.raises(Conflict):
            store.switch(session_id, Claim(expected_version=1, principal=ADA))
    found = store.switch(session_id, BY_ADA).allowances
    assert [each.left for each in found] == [1, 0]


def test_an_update_costs_one_token_of_each_bucket(store: SessionStore) -> None:
    (session_id,) = running(store)
    assert [each.left for each in store.update(session_id, {"a": 1}, BY_ADA).allowances] == [1, 3]


def test_a_create_and_a_delete_count_like_other_commands(store: SessionStore) -> None:
    created = store.create(chess_request(), BY_ADA)
    assert [each.left for each in created.allowances] == [1, 3]
    deleted = store.delete(created.found.session_id, BY_ADA)
    assert [each.left for each in deleted.allowances] == [0, 2]


def test_reads_and_commands_without_a_principal_are_not_limited(store: SessionStore, redis: redis_py.Redis) -> None:
    (session_id,) = running(store)
    for _ in range(10):
        assert store.switch(session_id).allowances == ()
        assert store.get(session_id).allowances == ()
    assert not redis.hexists(Keyspace().session(session_id), "limit_us")
    assert list(redis.scan_iter(match="sync:limits:*")) == []


def test_a_limit_of_0_is_none(redis_url: str, clock: ManualClock, redis: redis_py.Redis) -> None:
    store = make_store(redis_url, session_commands_per_s=0, principal_commands_per_s=10, principal_commands_burst=3)
    (session_id,) = running(store)
    for left in (2, 1, 0):
        assert [(each.name, each.left) for each in store.switch(session_id, BY_ADA).allowances] == [("principal", left)]
    assert refused(lambda: store.switch(session_id, BY_ADA))["reason"] == "principal_commands_per_s"
    free = make_store(redis_url, session_commands_per_s=0, principal_commands_per_s=0)
    assert free.switch(session_id, BY_ADA).allowances == ()


def test_a_bucket_is_usable_at_once_after_the_clock_was_set_back(store: SessionStore, clock: ManualClock) -> None:
    (session_id,) = running(store)
    store.switch(session_id, BY_ADA)
    clock.advance_ms(-3_600_000)
    store.switch(session_id, BY_ADA)
    store.switch(session_id, BY_ADA)
    assert refused(lambda: store.switch(session_id, BY_ADA))["reason"] == "session_commands_per_s"
    clock.advance_ms(50)
    store.switch(session_id, BY_ADA)


def test_a_principals_bucket_is_kept_until_it_is_full(
    store: SessionStore, clock: ManualClock, redis: redis_py.Redis
) -> None:
    (session_id,) = running(store)
    store.switch(session_id, BY_ADA)
    assert redis.pexpiretime(Keyspace().limits(ADA)) == clock.now_ms + 25 + 1


def test_a_finished_session_counts_too(store: SessionStore) -> None:
    (session_id,) = running(store)
    store.complete(session_id, BY_ADA)
    for _ in range(3):
        with pytest.raises(InvalidTransition):
            store.switch(session_id, BY_ADA)
    assert refused(lambda: store.switch(session_id, BY_ADA))["reason"] == "principal_commands_per_s"

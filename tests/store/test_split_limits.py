"""The limits of a cluster: buckets of several slots, charged before the command, and given back if it has no effect."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.exceptions import OutOfMemoryError
from redis.exceptions import TimeoutError as RedisTimeoutError

from syncapp.config import Settings
from syncapp.dev.valkey_cluster import ValkeyCluster
from syncapp.domain.commands import COMMANDS
from syncapp.domain.results import Claim
from syncapp.domain.schemas import CreateSession
from syncapp.errors import Conflict, InvalidTransition, RateLimited, SessionExists, StoreUnavailable, SyncError
from syncapp.store import reply_errors, scripts
from syncapp.store.connection_pool import ConnectionPool
from syncapp.store.keys import Keyspace
from tests.support.limited_service import ADA, BEN, EVE, ROUNDS, Service
from tests.support.store import ManualClock, chess_request
from tests.support.types import Redis

EXAMPLES = 40
IDS = [str(uuid.UUID(int=number)) for number in range(4)]
LIMITS: dict[str, Any] = {
    "session_commands_per_s": 20,
    "session_commands_burst": 5,
    "principal_commands_per_s": 10,
    "principal_commands_burst": 12,
    "principal_creates_per_minute": 5,
    "tenant_live_sessions": 3,
    "tenant_store_bytes_per_hour": 80_000,
    "tenant_self_commits_per_hour": 100,
}
KEYS = Keyspace(64)


@pytest.fixture
def split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ConnectionPool, "is_cluster", True)


def rounds(session_id: str) -> CreateSession:
    """A request for a session that makes commits by itself; in a test there are too few of them for two calls."""
    return ROUNDS.model_copy(update={"session_id": session_id, "time_per_cycle_ms": 60_000})


def tried(command: Callable[[], Any]) -> SyncError | None:
    try:
        command()
    except SyncError as error:
        return error
    return None


def held(redis: Redis, now_ms: int) -> dict[str, float]:
    """What buckets and quotas hold; a bucket that is full, or has no key, is at 0."""
    now_us, found = now_ms * 1000, {}
    for principal in (ADA, BEN, EVE):
        for key in (KEYS.limits(principal), KEYS.creates(principal)):
            found[key] = max(0.0, float(redis.get(key) or 0) - now_us)
    members: Any = redis.zrange(KEYS.tenants(), 0, -1, withscores=True)
    for name, score in members:
        found[name.decode()] = score if name.startswith(b"live:") else max(0.0, score - now_us)
    for session_id in IDS:
        for field in ("limit_us", "commits_paid_ms"):
            found[f"{session_id} {field}"] = float(redis.hget(KEYS.session(session_id), field) or 0)
    return {name: value for name, value in found.items() if value}


steps = st.lists(
    st.tuples(
        st.sampled_from(["create", "create", "start", "switch", "pause", "resume", "update", "cancel", "reopen"]),
        st.integers(0, 3),
        st.sampled_from([ADA, ADA, BEN]),
        st.sampled_from([None, "k1", "k2"]),
        st.sampled_from([0, 0, 0, 20, 500, 12_000, 100_000]),
    ),
    max_size=40,
)


def replay(redis: Redis, redis_url: str, chosen: Any) -> list[tuple[Any, dict[str, float]]]:
    """Run the steps in an empty store; return what each said, and what buckets and quotas held then."""
    redis.flushdb()
    clock, service, found = ManualClock(redis), Service(redis_url, **LIMITS), []
    for command, place, principal, key, wait_ms in chosen:
        clock.advance_ms(wait_ms)
        body = {"metadata": {"a": "b" * 500}} if command == "update" else {}

        def run(
            command: str = command, place: int = place, by: Any = principal, key: Any = key, body: Any = body
        ) -> None:
            if command == "create":
                new = rounds(IDS[place]) if place % 2 else chess_request(session_id=IDS[place])
                service.create(new, by, key)
            else:
                service.run(command, IDS[place], by, key, **body)

        error = tried(run)
        found.append(((type(error), error.document()) if error else None, held(redis, clock.now_ms)))
    return found


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps)
def test_quotas_and_answers_are_those_of_a_single_server(
    redis: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch, chosen: Any
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(ConnectionPool, "is_cluster", False)
        expected = replay(redis, redis_url, chosen)
        patch.setattr(ConnectionPool, "is_cluster", True)
        found = replay(redis, redis_url, chosen)
    for (answer, levels), (found_answer, found_levels) in zip(expected, found, strict=True):
        assert found_levels == levels
        if answer and answer[1]["code"] == "RATE_LIMITED":  # if several refuse, another one may be named
            assert found_answer
            assert found_answer[1]["code"] == "RATE_LIMITED"
        else:
            assert found_answer == answer


def together(count: int, *commands: Callable[[], Any]) -> int:
    """Run each command `count` times in 8 threads; return how many were accepted."""
    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(tried, list(commands) * count)).count(None)


@pytest.mark.usefixtures("split")
def test_threads_together_get_exactly_what_a_principals_bucket_holds(
    redis: Redis, redis_url: str, clock: ManualClock
) -> None:
    service = Service(redis_url, principal_commands_per_s=10, principal_commands_burst=30, session_commands_per_s=0)
    ids = [service.store.create(chess_request()).found.session_id for _ in range(5)]
    for each in ids:
        service.store.start(each)
    assert together(12, *(partial(service.run, "switch", each) for each in ids)) == 30


@pytest.mark.usefixtures("split")
def test_what_sessions_refuse_costs_the_principal_nothing_when_threads_race(
    redis: Redis, redis_url: str, clock: ManualClock
) -> None:
    service = Service(redis_url, **{**LIMITS, "principal_commands_burst": 100})
    ids = [service.store.create(chess_request()).found.session_id for _ in range(3)]
    for each in ids:
        service.store.start(each)
    assert together(15, *(partial(service.run, "switch", each) for each in ids)) == 15
    assert held(redis, clock.now_ms)[KEYS.limits(ADA)] == 15 * 100_000


@pytest.mark.usefixtures("split")
def test_quotas_count_each_session_that_exists_once_when_threads_race(
    redis: Redis, redis_url: str, clock: ManualClock
) -> None:
    free: dict[str, Any] = dict.fromkeys(("session_commands_per_s", "principal_commands_per_s"), 0)
    service = Service(redis_url, **free, principal_creates_per_minute=1000, tenant_live_sessions=20)
    ids = [str(uuid.UUID(int=number)) for number in range(12)]
    made = together(8, *(partial(service.create, chess_request(session_id=each)) for each in ids))
    assert made == 12  # the limit leaves room for eight that hold a place until they are refused
    levels = held(redis, clock.now_ms)
    assert levels["live:default"] == 12
    assert levels[KEYS.creates(ADA)] == 12 * 60_000
    assert levels["bytes:default"] == 12 * round(size_us(service, chess_request(session_id=ids[0])))
    assert together(36, partial(service.create, chess_request())) == 8
    assert held(redis, clock.now_ms)["live:default"] == 20


def size_us(service: Service, new: CreateSession) -> float:
    """What a create costs of the bytes of an hour."""
    charge = service.limits.charge("", "create", "", new, Claim(principal=ADA))
    return charge.claim.costs.size * 3_600_000_000 / Settings().tenant_store_bytes_per_hour


class Scripts:
    """Calls the scripts of buckets directly: a principal's, and a tenant's of bytes; each has room for 200 ms."""

    def __init__(self, redis_url: str) -> None:
        self._scripts = Service(redis_url).store._runner._scripts
        self._keys = (KEYS.limits(ADA), KEYS.creates(ADA))

    def charge(self, cost_us: int) -> tuple[Any, ...] | None:
        """Take from the principal's bucket; return what the refund takes, or None."""
        word, now_ms, *rest = self._scripts.call("charge_principal", self._keys, (cost_us, 200_000, 0, 0))
        return (now_ms, *rest[1:]) if word == "ok" else None

    def refund(self, taken: Any) -> None:
        self._scripts.call("refund_principal", self._keys, taken)

    def charge_tenant(self, cost_us: int) -> tuple[Any, ...]:
        """Take from the tenant's bucket; return what the refund takes."""
        args = ("acme", "", cost_us, 200_000, "0", "0", "0")
        _, _, _, *taken = self._scripts.call("charge_tenant", (KEYS.tenants(),), args)
        return ("acme", 0, *taken)

    def refund_tenant(self, taken: Any) -> None:
        self._scripts.call("refund_tenant", (KEYS.tenants(),), taken)


def test_a_bucket_that_is_full_without_a_refunded_cost_is_full_again(
    redis: Redis, redis_url: str, clock: ManualClock
) -> None:
    script = Scripts(redis_url)
    for wait_ms in (0, 20, 50, 100):
        taken, of_tenant = script.charge(50_000), script.charge_tenant(50_000)
        clock.advance_ms(wait_ms)
        script.refund(taken)
        script.refund_tenant(of_tenant)
        assert redis.exists(KEYS.limits(ADA)) == 0
        assert held(redis, clock.now_ms) == {}


def test_a_principal_gets_back_what_cannot_have_come_back_by_itself(
    redis: Redis, redis_url: str, clock: ManualClock
) -> None:
    script = Scripts(redis_url)
    script.charge(80_000)
    taken = script.charge(50_000)
    clock.advance_ms(20)
    script.refund(taken)
    assert held(redis, clock.now_ms) == {KEYS.limits(ADA): 80_000}
    script.charge(50_000)
    clock.advance_ms(60)
    script.charge(50_000)
    script.refund(taken)  # nothing of it is left
    assert held(redis, clock.now_ms) == {KEYS.limits(ADA): 120_000}
    taken = script.charge(50_000)
    clock.advance_ms(-10)  # the clock was set back
    script.refund(taken)
    assert held(redis, clock.now_ms) == {KEYS.limits(ADA): 130_000}


def test_a_tenant_gets_back_what_is_missing(redis: Redis, redis_url: str, clock: ManualClock) -> None:
    script = Scripts(redis_url)
    script.charge_tenant(80_000)
    taken = script.charge_tenant(50_000)
    clock.advance_ms(20)
    script.charge_tenant(50_000)
    script.refund_tenant(taken)
    assert held(redis, clock.now_ms) == {"bytes:acme": 110_000}
    clock.advance_ms(200)
    script.charge_tenant(50_000)
    script.refund_tenant(taken)  # nothing of it is left
    assert held(redis, clock.now_ms) == {"bytes:acme": 50_000}


moves = st.lists(
    st.tuples(st.sampled_from([0, 0, 10, 50, 60]), st.sampled_from([10, 50, 60]), st.booleans(), st.booleans()),
    max_size=30,
)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(moves)
def test_refunds_in_any_order_never_give_back_more_than_was_taken(redis: Redis, redis_url: str, moves: Any) -> None:
    redis.flushdb()
    clock, script = ManualClock(redis), Scripts(redis_url)
    outstanding: list[Any] = []
    full_us = 0  # of a bucket that never saw the refunded charges
    for wait_ms, cost_ms, is_refunded, refunds_one in moves:
        clock.advance_ms(wait_ms)
        if refunds_one and outstanding:
            script.refund(outstanding.pop(cost_ms % len(outstanding)))
        taken = script.charge(cost_ms * 1000)
        if taken and is_refunded:
            outstanding.append(taken)
        elif taken:
            full_us = max(full_us, clock.now_ms * 1000) + cost_ms * 1000
    for each in outstanding:
        script.refund(each)
    assert held(redis, clock.now_ms).get(KEYS.limits(ADA), 0) >= max(0, full_us - clock.now_ms * 1000)


@pytest.mark.usefixtures("split")
@pytest.mark.parametrize(
    ("error", "stays_charged"),
    [
        (reply_errors.no_reply(TimeoutError()), True),
        (reply_errors.not_replicated(0, 1), True),
        (reply_errors.not_accepting(OutOfMemoryError()), False),
    ],
)
def test_a_command_stays_charged_if_it_may_have_taken_effect(
    redis: Redis,
    redis_url: str,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
    error: StoreUnavailable,
    stays_charged: bool,
) -> None:
    service = Service(redis_url, **LIMITS)

    def failing(*args: Any) -> Any:
        raise error

    monkeypatch.setattr(service.store._runner._scripts, "commit", failing)
    with pytest.raises(type(error)):
        service.create(chess_request())
    levels = held(redis, clock.now_ms)
    assert levels.pop(KEYS.limits(ADA)) == 100_000
    assert levels.keys() == ({KEYS.creates(ADA), "live:default", "bytes:default"} if stays_charged else set())


@pytest.mark.usefixtures("split")
def test_an_unavailable_quota_refuses_the_command_and_gives_the_create_back(
    redis: Redis, redis_url: str, clock: ManualClock
) -> None:
    redis.set(KEYS.tenants(), "a string")
    with pytest.raises(StoreUnavailable):
        Service(redis_url, **LIMITS).create(chess_request(session_id=IDS[0]))
    assert redis.exists(KEYS.creates(ADA), KEYS.session(IDS[0])) == 0


def test_a_refused_start_costs_no_commits(
    redis: Redis, redis_url: str, clock: ManualClock, *, split_limits: bool
) -> None:
    service = Service(redis_url, **LIMITS)
    session_id, body = service.create(rounds(IDS[1])), COMMANDS["start"].body.parse({})
    with pytest.raises(Conflict):
        service.send("start", session_id, body, Claim(principal=ADA, expected_version=7))
    assert "commits:default" not in held(redis, clock.now_ms)
    service.run("start", session_id)
    assert held(redis, clock.now_ms)["commits:default"] > 0


@pytest.mark.usefixtures("split")
def test_a_refund_that_fails_does_not_hide_the_answer(
    redis: Redis, redis_url: str, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    service = Service(redis_url, **LIMITS)
    service.create(chess_request(session_id=IDS[0]))
    call = service.store._runner._scripts.call

    def failing(name: str, *args: Any) -> Any:
        if name.startswith("refund_"):
            raise OutOfMemoryError
        return call(name, *args)

    monkeypatch.setattr(service.store._runner._scripts, "call", failing)
    with pytest.raises(SessionExists):
        service.create(chess_request(session_id=IDS[0]))


@pytest.mark.usefixtures("split")
@pytest.mark.parametrize("away", ["charge_principal", "charge_tenant"])
def test_a_limit_whose_master_does_not_answer_is_not_enforced_and_the_others_are(
    redis: Redis, redis_url: str, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, away: str
) -> None:
    service = Service(redis_url, **LIMITS | {"principal_commands_per_s": 0.01, "tenant_live_sessions": 2})
    call = service.store._runner._scripts.call

    def without_reply(name: str, *args: Any) -> Any:
        if name == away:
            raise RedisTimeoutError
        return call(name, *args)

    monkeypatch.setattr(service.store._runner._scripts, "call", without_reply)
    made = 0
    while not isinstance(error := tried(lambda: service.create(chess_request())), RateLimited):
        assert error is None
        made += 1
        assert made < 100, "no limit refuses anything"
    reasons = {"charge_principal": "tenant_live_sessions", "charge_tenant": "principal_"}
    assert error.details["reason"].startswith(reasons[away])


class TestCluster:
    """On a real cluster, by its own clock."""

    @pytest.fixture
    def service(self, valkey_cluster: ValkeyCluster) -> Service:
        return Service(valkey_cluster.url, set_clock=False, **LIMITS | {"principal_commands_per_s": 0.01})

    def test_a_principal_gets_what_its_bucket_holds_for_sessions_on_all_nodes(self, service: Service) -> None:
        ids = [service.store.create(chess_request()).found.session_id for _ in range(12)]
        for each in ids:
            service.store.start(each)
        left = [[each.left for each in service.run("switch", session_id).allowances] for session_id in ids]
        assert left == [[4, number] for number in range(11, -1, -1)]
        error = tried(lambda: service.run("switch", ids[0]))
        assert isinstance(error, RateLimited)
        assert error.details["reason"] == "principal_commands_per_s"
        service.run("switch", ids[0], BEN)

    def test_quotas_of_creates_and_of_live_sessions_hold(self, service: Service) -> None:
        ids = [service.create(chess_request(), by) for by in (ADA, ADA, BEN)]
        error = tried(lambda: service.create(chess_request()))
        assert isinstance(error, RateLimited)
        assert error.details == {"reason": "tenant_live_sessions", "limit": 3, "retry_after_s": 20}
        others = [service.create(chess_request(), EVE) for _ in range(3)]
        for each in (*ids, *others):
            service.run("cancel", each)
        with suppress(RateLimited):
            service.create(chess_request())

    def test_a_replay_and_a_refused_command_cost_no_quota(
        self, service: Service, valkey_cluster: ValkeyCluster
    ) -> None:
        client = service.store._client
        created = service.create(chess_request(session_id=IDS[0]), key="k1")
        before = client.zrange(KEYS.tenants(), 0, -1, withscores=True)
        service.create(chess_request(session_id=IDS[0]), key="k1")
        with pytest.raises(SessionExists):
            service.create(chess_request(session_id=IDS[0]))
        with pytest.raises(InvalidTransition):
            service.run("pause", created, key="k2")
        assert client.zrange(KEYS.tenants(), 0, -1, withscores=True) == before

    def test_a_pause_and_a_resume_do_not_pay_twice_for_commits(self, service: Service) -> None:
        session_id = service.create(rounds(IDS[1]))
        service.run("start", session_id)
        (before,) = service.store._client.zmscore(KEYS.tenants(), ["commits:default"])
        service.run("pause", session_id)
        service.run("resume", session_id)
        (after,) = service.store._client.zmscore(KEYS.tenants(), ["commits:default"])
        assert before
        assert after
        assert 0 <= after - before < 60_000_000  # µs; half an hour's part would be 900 times as much


TRIPS = {
    "a command of nobody": (1, 1),
    "a read": (1, 1),
    "a command": (1, 2),
    "a key": (1, 3),
    "a create": (1, 3),
    "a start": (1, 4),
    "an update": (2, 7),
    "a replay": (1, 4),
    "a create that is a replay": (1, 5),
    "an invalid command": (1, 2),
    "refused by the session": (1, 3),
    "refused by the session, with a key": (1, 5),
    "refused by the tenant": (1, 3),
    "refused by the principal": (1, 1),
}
"""Round trips on one server, and in a cluster (docs/keys.md)."""


def test_a_command_takes_this_many_round_trips(
    redis: Redis, redis_url: str, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, *, split_limits: bool
) -> None:
    """Those of docs/keys.md."""
    limits = {"principal_commands_per_s": 1, "principal_commands_burst": 20, "session_commands_burst": 6}
    service = Service(redis_url, **LIMITS | limits | {"tenant_live_sessions": 2})
    calls, call = [], ConnectionPool.call

    def counted(pool: ConnectionPool, *commands: bytes, **options: Any) -> list[Any]:
        calls.append(commands)
        return call(pool, *commands, **options)

    def trips(command: Callable[[], Any]) -> int:
        calls.clear()
        tried(command)
        return len(calls)

    for name in scripts.names():  # otherwise the first call of each would take two
        redis.script_load(service.store._runner._scripts._texts[name])
    monkeypatch.setattr(ConnectionPool, "call", counted)
    game, new = chess_request(session_id=IDS[0]), rounds(IDS[1])
    found = {
        "a create": trips(lambda: service.create(game, key="k")),
        "a create that is a replay": trips(lambda: service.create(game, key="k")),
        "a start": (service.create(new), trips(lambda: service.run("start", IDS[1])))[1],
        "an invalid command": trips(lambda: service.run("switch", IDS[0])),
        "a key": trips(lambda: service.run("start", IDS[0], key="s")),
        "a replay": trips(lambda: service.run("start", IDS[0], key="s")),
        "a command": trips(lambda: service.run("switch", IDS[0])),
        "an update": trips(lambda: service.run("update", IDS[0], metadata={"a": 1})),
        "a command of nobody": trips(lambda: service.store.switch(IDS[0])),
        "a read": trips(lambda: service.store.get(IDS[0])),
        "refused by the tenant": trips(lambda: service.create(chess_request())),
        "refused by the session": (
            [tried(lambda: service.run("switch", IDS[0])) for _ in range(3)],
            trips(lambda: service.run("switch", IDS[0])),
        )[1],
        "refused by the session, with a key": trips(lambda: service.run("switch", IDS[0], key="n")),
        "refused by the principal": (
            [tried(lambda: service.run("pause", IDS[2])) for _ in range(20)],
            trips(lambda: service.run("pause", IDS[2])),
        )[1],
    }
    assert found == {name: each[split_limits] for name, each in TRIPS.items()}

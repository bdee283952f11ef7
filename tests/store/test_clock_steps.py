"""A step of the store's clock is detected; a process that sees a step alone doubts its own clock."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from typing import Any

import orjson
import psycopg2
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from syncapp import create_app
from syncapp.audit.drain import Drain
from syncapp.audit.log import AuditLog
from syncapp.audit.outbox import Outbox
from syncapp.loops import Loops
from syncapp.postgres.database import Database
from syncapp.store.client import connect
from syncapp.store.clock_steps import TURN_S, VOTE_S, ClockStepWatch, Step, agreed_steps, recorded_steps
from syncapp.store.connection_pool import ConnectionPool, pool_of
from syncapp.store.failover import Server
from syncapp.store.keys import Keyspace
from syncapp.store.process_registry import ProcessRegistry
from syncapp.store.sessions import SessionStore
from tests.support.store import NOON_MS, ManualClock, chess_request, make_settings, make_store
from tests.support.types import Redis

HOUR_MS = 3_600_000


class World:
    """Real time, and clocks that differ from it: the store's, and one for each process."""

    def __init__(self) -> None:
        self.real_s = 1000.0
        self.store_ahead_ms = float(NOON_MS)

    def pass_s(self, seconds: float) -> None:
        self.real_s += seconds

    def store_ms(self) -> float:
        return self.real_s * 1000 + self.store_ahead_ms


class Process:
    """A process that watches the clock of a real store, whose TIME is answered from a `World`."""

    def __init__(self, redis_url: str, world: World, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.alerts: list[tuple[str, dict[str, Any]]] = []
        self.behind_s = 0.0
        client = connect(make_settings(redis_url))
        pool = pool_of(client)
        monkeypatch.setattr(pool, "call", _set_time(pool, world))
        self.watch = ClockStepWatch(
            client,
            Keyspace(),
            ProcessRegistry(client, Keyspace(), kind="web", loops=Loops(), name=name),
            server=Server(),
            alert=lambda kind, **context: self.alerts.append((kind, context)),
            clock=lambda: world.real_s - self.behind_s,
        )


def _set_time(pool: ConnectionPool, world: World) -> Callable[..., list[Any]]:
    real = pool.call

    def call(*commands: bytes) -> list[Any]:
        replies = real(*commands)
        if b"TIME" in commands[0]:
            seconds, ms = divmod(world.store_ms(), 1000)
            replies[0] = [str(int(seconds)), str(int(ms * 1000))]
        return replies

    return call


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def processes(
    redis: Redis, redis_url: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> Callable[[int], list[Process]]:
    return lambda count: [Process(redis_url, world, f"web:host:{number}", monkeypatch) for number in range(count)]


def run_turns(world: World, processes: list[Process], seconds: float) -> None:
    """Let time pass; each process compares clocks once per turn."""
    for _ in range(int(seconds / TURN_S)):
        world.pass_s(TURN_S)
        for process in processes:
            process.watch.turn()


@pytest.mark.parametrize("by_ms", [HOUR_MS, -20_000, 300, -300])
def test_a_store_whose_clock_is_set_is_one_alert_and_everybodys_worry(
    world: World, processes: Callable[[int], list[Process]], by_ms: int, redis: Redis
) -> None:
    three = processes(3)
    run_turns(world, three, 10)
    world.store_ahead_ms += by_ms
    run_turns(world, three, VOTE_S + 3)
    alerts = [alert for process in three for alert in process.alerts]
    assert [(kind, abs(context["by_ms"] - by_ms) <= 2) for kind, context in alerts] == [("clock_step", True)]
    assert (alerts[0][1]["seen_by"], alerts[0][1]["processes"]) == (3, 3)
    for process in three:
        (worry,) = process.watch.worries()
        assert "the store's clock was set" in worry
        assert ("forward" if by_ms > 0 else "back") in worry
    (step,) = agreed_steps(recorded_steps(redis, Keyspace()))
    assert abs(step.amount_ms - by_ms) <= 2
    run_turns(world, three, 3600)
    assert not any(process.watch.worries() for process in three)


def test_a_process_whose_own_clock_stood_still_is_its_own_worry_and_nobodys_alert(
    world: World, processes: Callable[[int], list[Process]], redis: Redis
) -> None:
    three = processes(3)
    run_turns(world, three, 10)
    three[1].behind_s += 30
    run_turns(world, three, VOTE_S + 3)
    assert not any(process.alerts for process in three)
    assert [len(process.watch.worries()) for process in three] == [0, 1, 0]
    assert "the clock of this process" in three[1].watch.worries()[0]
    assert agreed_steps(recorded_steps(redis, Keyspace())) == []


def test_a_process_alone_cannot_tell_and_says_so(world: World, processes: Callable[[int], list[Process]]) -> None:
    alone = processes(1)
    run_turns(world, alone, 5)
    world.store_ahead_ms += HOUR_MS
    run_turns(world, alone, VOTE_S + 3)
    assert alone[0].alerts == []
    assert "the clock of this process" in alone[0].watch.worries()[0]


def test_slewing_and_a_slow_network_are_no_step(world: World, processes: Callable[[int], list[Process]]) -> None:
    three = processes(3)
    for _ in range(50):
        world.store_ahead_ms += 50  # much faster than a time daemon slews
        run_turns(world, three, 1)
    assert not any(process.alerts or process.watch.worries() for process in three)


def test_a_full_store_still_has_its_clock_watched(
    world: World, processes: Callable[[int], list[Process]], redis: Redis
) -> None:
    three = processes(3)
    run_turns(world, three, 3)
    redis.config_set("maxmemory", 1)
    try:
        run_turns(world, three, 3)
        world.store_ahead_ms += HOUR_MS
        run_turns(world, three, VOTE_S + 3)
        assert [len(process.alerts) for process in three] == [1, 0, 0]
        assert all("the store's clock" in process.watch.worries()[0] for process in three)
    finally:
        redis.config_set("maxmemory", 0)


@hypothesis_settings(max_examples=25, deadline=None)
@given(st.integers(1, 60_000), st.lists(st.integers(1, 30_000), min_size=1, max_size=12), st.integers(0, 11))
def test_a_step_back_gives_all_players_together_no_more_than_it_took_back(
    redis_url: str, back_ms: int, thoughts_ms: list[int], at: int
) -> None:
    with closing(Redis.from_url(redis_url)) as client:
        client.flushdb()
        clock = ManualClock(client)
        store: SessionStore = make_store(redis_url)
        session_id = store.create(chess_request(86_400_000)).found.session_id
        store.start(session_id)
        for number, thought_ms in enumerate(thoughts_ms):
            if number == at % len(thoughts_ms):
                part_ms = random.Random(back_ms).randint(0, thought_ms)
                clock.advance_ms(part_ms - back_ms)
                clock.advance_ms(thought_ms - part_ms)
            else:
                clock.advance_ms(thought_ms)
            store.switch(session_id)
        used_ms = sum(person.time_used_ms for person in store.get(session_id).found.participants)
        assert sum(thoughts_ms) - back_ms <= used_ms <= sum(thoughts_ms)


def test_what_a_step_forward_expired_can_be_found(
    redis: Redis, redis_url: str, database_url: str, db: psycopg2.extensions.connection
) -> None:
    store, clock = make_store(redis_url), ManualClock(redis)
    kept, lost = (store.create(chess_request(budget)).found.session_id for budget in (7_200_000, 600_000))
    for session_id in (kept, lost):
        store.start(session_id)
    before_ms = clock.now_ms + 1_000
    for process in ("web:one:1", "worker:two:2"):
        step = Step(process, before_ms, before_ms + HOUR_MS)
        redis.zadd(Keyspace().clock_steps(), {orjson.dumps(asdict(step)): step.after_ms})
    redis.zadd(Keyspace().clock_steps(), {orjson.dumps(asdict(Step("web:one:1", 5, 10_000_000))): 1})  # seen by one
    clock.set(before_ms + HOUR_MS)
    assert store.get(lost).found.status == "expired"
    assert store.get(kept).found.status == "running"
    outbox = Outbox(connect(make_settings(redis_url), decode=False), Keyspace())
    with closing(Database(database_url)) as database:
        for bucket in outbox.buckets:
            Drain(outbox, AuditLog(database), batch=100).run(bucket)
    runner = create_app(make_settings(redis_url, database_url=database_url)).test_cli_runner()
    told = runner.invoke(args=["sessions", "list", "--expired-by-step"])
    assert told.exit_code == 0, told.output
    heading, line, total = told.output.splitlines()
    assert "2100-01-01T12:00:01.000Z to 2100-01-01T13:00:01.000Z" in heading
    assert line.split()[0] == lost
    assert "participant_expired white" in line
    assert total.strip() == "1 timeout"
    by_hand = [
        "sessions",
        "list",
        "--expired-by-step",
        "--from",
        "2100-01-01T12:00:01Z",
        "--to",
        "2100-01-01T13:00:01Z",
    ]
    assert runner.invoke(args=by_hand).output == told.output
    assert runner.invoke(args=["sessions", "list"]).output.split() == [kept]
    assert runner.invoke(args=[*by_hand[:4], "noon"]).exit_code == 2
    assert runner.invoke(args=by_hand[:5]).exit_code == 2

"""Processes share the buckets evenly by leases, and no bucket is unswept for long."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import redis as redis_py
import structlog
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from redis.exceptions import RedisError
from structlog.testing import LogCapture

from syncapp.store import bucket_leases as leases_module
from syncapp.store.bucket_leases import LEASE_S, PATIENCE_S, RENEW_S, BucketLeases
from syncapp.store.client import connect
from syncapp.store.keys import Keyspace
from tests.support.cluster import MakeCluster
from tests.support.step_clock import StepClock
from tests.support.store import make_settings
from tests.support.web_clients import wait_until

KEYS = Keyspace(16)
ALL = list(range(16))
LEASE_KEYS = list(map(KEYS.lease, ALL))
LONG_MS = 600_000


class Service:
    """Processes that sweep, on one clock. `redis` sees what the server says."""

    def __init__(self, redis: redis_py.Redis, redis_url: str, keys: Keyspace = KEYS) -> None:
        self.redis = redis
        self.keys = keys
        self.clock = StepClock()
        self._url = redis_url

    def process(self, url: str = "") -> BucketLeases:
        return BucketLeases(connect(make_settings(url or self._url)), self.keys, self.clock)

    def attempt(self, *processes: BucketLeases) -> list[Sequence[int]]:
        """Let each process make its next attempt; return what each then sweeps."""
        self.clock.now_s += RENEW_S
        return [each.hold() for each in processes]

    def settle(self, *processes: BucketLeases) -> None:
        for _ in range(8):
            self.attempt(*random.sample(processes, len(processes)))

    def holders(self) -> list[bytes | None]:
        """The name in each lease's key."""
        found: Any = self.redis.mget([self.keys.lease(each) for each in range(self.keys.buckets)])
        return list(found)

    def held_by(self, process: BucketLeases) -> tuple[int, ...]:
        return tuple(bucket for bucket, name in enumerate(self.holders()) if name == process.name.encode())

    def end_of(self, process: BucketLeases) -> None:
        """Do at once what the server does after `LEASE_S` without a renewal."""
        for bucket in self.held_by(process):
            self.redis.delete(self.keys.lease(bucket))
        self.redis.zrem(self.keys.sweepers(), process.name)


@pytest.fixture
def service(redis: redis_py.Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Service:
    """Leases last for minutes, so that a busy machine does not lose them between two lines of a test."""
    monkeypatch.setattr(leases_module, "_LEASE_MS", LONG_MS)
    monkeypatch.setattr(leases_module, "_LONGEST_MS", 2 * LONG_MS)
    return Service(redis, redis_url)


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> LogCapture:
    capture = LogCapture()
    recorder = structlog.wrap_logger(None, processors=[capture], wrapper_class=structlog.make_filtering_bound_logger(0))
    monkeypatch.setattr(leases_module, "log", recorder)
    return capture


def even(buckets: int, processes: int) -> list[int]:
    """The most even shares, in order."""
    return sorted(buckets // processes + (place < buckets % processes) for place in range(processes))


# Shares


@pytest.mark.parametrize("count", [1, 2, 3, 5, 16, 20])
def test_processes_share_the_buckets_evenly(service: Service, count: int) -> None:
    processes = [service.process() for _ in range(count)]
    service.settle(*processes)
    assert sorted(len(each.held) for each in processes) == even(16, count)
    assert sorted(bucket for each in processes for bucket in each.held) == ALL
    assert all(each.held == service.held_by(each) for each in processes)
    assert max(len(each.held) for each in processes) <= -(-16 // count) + 1


def test_a_single_process_holds_all_buckets_after_its_first_attempt(service: Service) -> None:
    assert service.attempt(service.process()) == [ALL]


def test_when_a_process_joins_the_others_release_what_is_above_their_share_and_sweep_it_until_it_is_taken(
    service: Service,
) -> None:
    first, second, third = (service.process() for _ in range(3))
    service.settle(first, second)
    service.attempt(third)
    assert third.held == ()
    before = first.held + second.held
    swept = service.attempt(first, second)
    assert len(first.held) + len(second.held) < 16
    assert sorted(swept[0] + swept[1]) == sorted(before)  # type: ignore[operator]  # both are lists
    swept = service.attempt(third, first, second)
    assert sorted(bucket for each in swept for bucket in each) == ALL  # each by exactly one process
    service.settle(first, second, third)
    assert sorted(map(len, (first.held, second.held, third.held))) == even(16, 3)


def test_the_first_bucket_stays_where_it_is_when_others_join(service: Service) -> None:
    processes = [service.process()]
    service.attempt(*processes)
    holder = service.holders()[0]
    for _ in range(5):
        processes.append(service.process())
        service.settle(*processes)
        assert service.holders()[0] == holder


def test_a_process_that_stops_leaves_all_to_the_next_attempts_of_the_others(service: Service) -> None:
    first, second = service.process(), service.process()
    service.settle(first, second)
    first.release()
    assert (first.held, service.held_by(first)) == ((), ())
    assert service.redis.zrange(KEYS.sweepers(), 0, -1) == [second.name.encode()]
    assert service.attempt(second) == [ALL]
    second.release()
    assert not service.redis.exists(*LEASE_KEYS, KEYS.sweepers())
    assert service.attempt(first) == [ALL]


def test_a_process_that_was_killed_is_replaced_when_its_leases_have_ended(service: Service) -> None:
    first, second, third = (service.process() for _ in range(3))
    service.settle(first, second, third)
    service.end_of(first)
    service.attempt(second, third)
    service.attempt(second, third)
    assert sorted(second.held + third.held) == ALL
    assert len(second.held) == len(third.held) == 8


def test_takeover_is_due_within_two_seconds() -> None:
    assert LEASE_S + 2 * RENEW_S < 2.0


# What the server says


def test_leases_and_the_report_are_renewed_and_end_by_themselves(redis: redis_py.Redis, redis_url: str) -> None:
    service = Service(redis, redis_url)
    process = service.process()
    service.attempt(process)
    for key in (*LEASE_KEYS, KEYS.sweepers()):
        redis.pexpire(key, 100_000 if key == KEYS.sweepers() else 1)
    wait_until(lambda: not redis.exists(*LEASE_KEYS))
    service.attempt(process)
    assert all(500 < redis.pttl(key) <= LEASE_S * 1000 for key in LEASE_KEYS)
    assert redis.pttl(KEYS.sweepers()) <= 10_000
    wait_until(lambda: not redis.exists(*LEASE_KEYS))


def test_a_process_whose_leases_were_taken_notices_and_neither_renews_nor_removes_them(service: Service) -> None:
    first = service.process()
    service.attempt(first)
    for key in LEASE_KEYS[:4]:
        service.redis.set(key, "another", px=LONG_MS)
    service.redis.zadd(KEYS.sweepers(), {"another": 9e15})
    assert service.attempt(first) == [ALL[4:]]
    service.redis.set(LEASE_KEYS[4], "another", px=LONG_MS)  # not noticed before the release
    first.release()
    assert service.holders() == [b"another"] * 5 + [None] * 11


def test_a_process_that_was_suspended_sweeps_only_its_share_at_its_next_attempt(service: Service) -> None:
    first, second = service.process(), service.process()
    service.settle(first, second)
    service.end_of(first)
    service.settle(second)
    assert len(first.held) == 8  # as far as it knows
    assert service.attempt(first) == [[]]
    service.settle(first, second)
    assert len(first.held) == len(second.held) == 8


def test_leases_that_the_server_forgot_are_taken_again_at_the_next_attempt(service: Service) -> None:
    process = service.process()
    service.attempt(process)
    service.redis.flushdb()
    assert service.attempt(process) == [ALL]
    assert all(service.holders())


@pytest.mark.parametrize("made", ["list", "string that does not end", "string of before a clock was set back"])
def test_a_key_that_is_no_lease_is_replaced(service: Service, logs: LogCapture, made: str) -> None:
    match made:
        case "list":
            service.redis.lpush(LEASE_KEYS[7], "what")
        case "string that does not end":
            service.redis.set(LEASE_KEYS[7], "somebody")
        case _:
            service.redis.set(LEASE_KEYS[7], "somebody", px=3_600_000)
    process = service.process()
    assert service.attempt(process) == [ALL]
    assert service.held_by(process) == tuple(ALL)
    removed = [entry["bucket"] for entry in logs.entries if entry["event"] == "sweeper_lease_removed"]
    assert removed == [7]


def test_reports_from_before_the_clock_was_set_back_do_not_count(service: Service) -> None:
    service.redis.zadd(KEYS.sweepers(), {"later": 9e15, "earlier": 5.0})
    assert service.attempt(service.process()) == [ALL]
    assert service.redis.zcard(KEYS.sweepers()) == 1


def test_reports_in_a_key_of_another_type_replace_it(service: Service) -> None:
    service.redis.lpush(KEYS.sweepers(), "what")
    first, second = service.process(), service.process()
    service.settle(first, second)
    assert len(first.held) == len(second.held) == 8


def test_a_full_server_accepts_leases(service: Service) -> None:
    first, second = service.process(), service.process()
    service.redis.config_set("maxmemory", 1)
    try:
        service.settle(first, second)
        assert len(first.held) == len(second.held) == 8
        first.release()
        assert service.attempt(second) == [ALL]
    finally:
        service.redis.config_set("maxmemory", 0)


# What cannot be read


@pytest.fixture
def limited(redis: redis_py.Redis, redis_url: str) -> Iterator[str]:
    """URL of a user who may not report, nor touch the leases of buckets 10 to 15, if the test takes these rights."""
    redis.acl_setuser("limited", enabled=True, passwords=["+limited"], keys=["*"], categories=["+@all"])
    yield redis_url.replace("redis://", "redis://limited:limited@")
    redis.acl_deluser("limited")


def test_without_a_count_leases_are_kept_and_free_ones_are_taken_after_a_while(service: Service, limited: str) -> None:
    process, other = service.process(limited), service.process()
    service.settle(process, other)
    service.redis.acl_setuser("limited", enabled=True, commands=["-zadd"])
    held = process.held
    service.settle(process)
    assert process.held == held
    other.release()
    since_s = service.clock.now_s
    service.settle(process)
    while process.held == held and service.clock.now_s - since_s < 2 * PATIENCE_S:
        service.attempt(process)
    assert process.held == tuple(ALL)
    assert PATIENCE_S <= service.clock.now_s - since_s <= PATIENCE_S + 2 * RENEW_S


def test_a_lease_that_cannot_be_read_does_not_end_the_others(service: Service, limited: str, logs: LogCapture) -> None:
    service.redis.acl_setuser("limited", enabled=True, reset_keys=True, keys=["sync:{b0*}:*", "sync:sweepers"])
    process = service.process(limited)
    assert service.attempt(process, process) == [ALL[:10]] * 2
    assert [entry["buckets"] for entry in logs.entries if entry["event"] == "sweeper_leases_not_read"] == [ALL[10:]]


def test_a_store_without_any_lease_raises_and_the_leases_are_kept_until_they_are_known_to_be_lost(
    service: Service, limited: str
) -> None:
    process = service.process(limited)
    service.attempt(process)
    service.redis.acl_setuser("limited", enabled=True, commands=["-eval", "-pttl"])
    with pytest.raises(RedisError):
        service.attempt(process)
    assert process.held == tuple(ALL)
    service.redis.acl_setuser("limited", enabled=True, commands=["+eval", "+pttl"])
    assert service.attempt(process) == [ALL]


# Any order of events


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.data())
def test_whatever_happens_each_lease_has_one_holder_and_no_bucket_is_left(redis_url: str, data: st.DataObject) -> None:
    with pytest.MonkeyPatch.context() as patch, redis_py.Redis.from_url(redis_url) as redis:
        patch.setattr(leases_module, "_LEASE_MS", LONG_MS)
        patch.setattr(leases_module, "_LONGEST_MS", 2 * LONG_MS)
        redis.flushdb()
        buckets = data.draw(st.integers(1, 20), "buckets")
        service = Service(redis, redis_url, Keyspace(buckets))
        alive, away = [service.process()], list[BucketLeases]()
        swept = {id(alive[0]): set(service.attempt(*alive)[0])}
        for _ in range(data.draw(st.integers(1, 25), "steps")):
            move = data.draw(st.sampled_from(["attempt", "attempt", "attempt", "join", "stop", "end", "return"]))
            either = data.draw(st.sampled_from(alive))
            match move:
                case "attempt":
                    before = set[int]().union(*swept.values())
                    swept[id(either)] = set(service.attempt(either)[0])
                    # Whoever gives a bucket up sweeps it until another process has taken it.
                    assert set[int]().union(*swept.values()) >= before
                case "join":
                    alive.append(service.process())
                    swept[id(alive[-1])] = set(service.attempt(alive[-1])[0])
                case "return" if away:
                    alive.append(away.pop())
                    swept[id(alive[-1])] = set(service.attempt(alive[-1])[0])
                case "stop" | "end" if len(alive) > 1:
                    alive.remove(either)
                    del swept[id(either)]
                    if move == "stop":
                        either.release()
                    else:  # killed or suspended
                        service.end_of(either)
                        away.append(either)
            for process in alive:
                assert process.held == service.held_by(process)
        service.settle(*alive)
        assert sorted(bucket for each in alive for bucket in each.held) == list(range(buckets))
        assert sorted(len(each.held) for each in alive) == even(buckets, len(alive))


# Processes


def test_when_one_of_two_web_processes_is_killed_the_other_takes_all_its_buckets(
    make_cluster: MakeCluster, redis: redis_py.Redis
) -> None:
    cluster = make_cluster(worker=False, SYNC_BUCKETS="16")
    service = Service(redis, "")

    def shares() -> list[int]:
        found = [name for name in service.holders() if name]
        return sorted(map(found.count, set(found)))

    wait_until(lambda: shares() == [8, 8])
    gone = cluster.web[0]
    gone.kill()
    since_s = time.monotonic()
    wait_until(lambda: shares() == [16])
    print(f"killed: all buckets are held again after {time.monotonic() - since_s:.2f} s")
    gone.start()
    since_s = time.monotonic()
    wait_until(lambda: shares() == [8, 8])
    print(f"started again: evened out after {time.monotonic() - since_s:.2f} s")
    gone.stop()
    since_s = time.monotonic()
    wait_until(lambda: shares() == [16])
    print(f"stopped: all buckets are held again after {time.monotonic() - since_s:.2f} s")

"""`flask sessions rebucket`: sessions are moved to another number of buckets, and nothing else happens to them."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg2
import pytest
import redis as redis_py

from syncapp.cli import rebucket
from syncapp.cli.rebucket import PAUSE_S, NotBegun, Rebucket
from syncapp.dev.ports import free_port
from syncapp.dev.valkey_cluster import ValkeyCluster
from syncapp.domain.principal import NOBODY
from syncapp.domain.results import Claim
from syncapp.domain.session_ids import qualified, tenant_of
from syncapp.errors import SessionNotFound, StoreUnavailable
from syncapp.store import bucket_move, moved_sets
from syncapp.store.bucket_record import VALID_S, BucketCount, BucketGuard, BucketRecord, WrongBuckets
from syncapp.store.client import connect
from syncapp.store.keys import SENTINEL, Keyspace
from syncapp.store.links import Link, LinkStore
from syncapp.store.list_query import SessionsQuery
from syncapp.store.run_lease import LeaseLost
from syncapp.store.session_list import SessionList
from syncapp.store.sessions import SessionStore
from syncapp.store.sweeper import Sweeper
from tests.support.flask_commands import run_flask
from tests.support.moved_sessions import ADA, BucketService, states
from tests.support.paths import ROOT
from tests.support.store import NOON_MS, chess_request, make_settings
from tests.support.types import Db
from tests.support.web_clients import wait_until


class Killed(BaseException):
    """A run ended here, as by SIGKILL."""


@pytest.fixture
def service(redis: redis_py.Redis, redis_url: str, db: Db, database_url: str) -> BucketService:
    return BucketService(redis, redis_url, database_url)


def test_nothing_of_a_session_changes_when_it_is_moved(service: BucketService) -> None:
    made = service.fill(16, 8)
    before, sessions = states(service.store(16), made), service.dump()
    printed = service.rebucket(64)
    assert "The sessions are in 64 buckets now" in printed[-2]
    assert service.record.read() == BucketCount(64)
    assert states(service.store(64), made) == before
    moved = service.dump()
    names = {Keyspace(64).relocated(key.decode()): value for key, value in sessions.items()}
    names.pop(None)
    assert {key.decode(): value for key, value in moved.items() if Keyspace(64).relocated(key.decode())} == names
    for bucket in range(64):
        for kind in (Keyspace(64).deadlines, Keyspace(64).listed):
            assert service.redis.zscore(kind(bucket), SENTINEL) == float("inf")
    assert not list(service.redis.scan_iter("*:old:*")) + list(service.redis.scan_iter("*:new:*"))
    assert not service.redis.exists(Keyspace().rebucket_lease())
    links = LinkStore(connect(service.settings), Keyspace(64))
    assert all(links._read(each) for each in made["running"])


def test_a_move_back_gives_what_was_before(service: BucketService) -> None:
    service.fill(16, 8)
    before = service.dump()
    service.rebucket(64)
    assert service.dump() != before
    service.rebucket(16)
    assert service.dump() == before
    assert not list(service.redis.scan_iter("sync:{b16}:*"))


@pytest.mark.parametrize(("old", "new"), [(1, 7), (7, 3), (64, 1024)])
def test_any_number_can_become_any_other(service: BucketService, old: int, new: int) -> None:
    made = service.fill(old, 2)
    before = states(service.store(old), made)
    service.rebucket(new)
    assert states(service.store(new), made) == before


def test_what_became_due_during_the_move_is_applied_after_it_at_its_own_instant(service: BucketService) -> None:
    made = service.fill(16)
    printed: list[str] = []

    def say(line: str) -> None:
        printed.append(line)
        if line.startswith("Clients"):
            service.clock.set(NOON_MS + 400_000)

    service.rebucket(64, say=say)
    store = service.store(64)
    Sweeper(connect(service.settings), store, buckets=64).run_once(NOON_MS + 400_000)
    for each in made["running"]:
        session = store.get(each).found
        assert session.status == "expired"
        assert session.session_completed_ms == NOON_MS + 300_000


def test_a_command_that_is_repeated_after_the_move_is_replayed(service: BucketService) -> None:
    made = service.fill(16)
    service.rebucket(64)
    store = service.store(64)
    for number, each in enumerate(made["running"]):
        principal = NOBODY if "/" not in each else ADA
        assert store.start(each, Claim(idempotency_key=f"running:{number // 2}", principal=principal)).replayed


def test_lists_are_complete_after_the_move(service: BucketService) -> None:
    made = service.fill(16, 5)
    service.rebucket(64)
    live = SessionList(connect(service.settings), Keyspace(64), service.store(64))
    for tenant in ("default", "acme"):
        page = live.page(SessionsQuery.from_args({"limit": ["100"]}), tenant)
        expected = {
            each for kind, ids in made.items() if kind != "deleted" for each in ids if tenant_of(each) == tenant
        }
        assert page.complete
        assert {qualified(tenant, each.session_id.rpartition("/")[2]) for each in page.sessions} == expected


def test_incomplete_sets_stay_incomplete_so_that_a_sweeper_completes_them(service: BucketService) -> None:
    made = service.fill(16)
    lost = made["running"][0]
    service.redis.delete(Keyspace(16).deadlines(Keyspace(16).bucket(lost)))
    printed = service.rebucket(64)
    assert any("will add the missing deadlines of" in line for line in printed)
    assert service.redis.zscore(Keyspace(64).deadlines(0), SENTINEL) is None


def test_a_deadline_missing_from_a_complete_set_has_it_completed(service: BucketService) -> None:
    made = service.fill(16)
    lost = made["running"][0]
    service.redis.zrem(Keyspace(16).deadlines(Keyspace(16).bucket(lost)), lost)
    printed = service.rebucket(64)
    assert any("missing deadlines of 1 live session." in line for line in printed)
    assert service.redis.zscore(Keyspace(64).deadlines(0), SENTINEL) is None


def test_the_log_is_as_committed_after_moves(service: BucketService) -> None:
    made = service.fill(16)
    service.rebucket(64)
    store = service.store(64)
    for each in made["running"]:
        store.switch(each)
    service.rebucket(16)
    done = run_flask(service.with_buckets(16), "audit", "drain")
    assert done.exit_code == 0, done.output
    done = run_flask(service.with_buckets(16), "audit", "verify")
    assert (done.exit_code, "Everything is as committed." in done.output) == (0, True), done.output


def test_a_run_that_is_killed_anywhere_is_completed_by_the_next(
    service: BucketService, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (moved_sets, bucket_move):
        monkeypatch.setattr(module, "BATCH", 5)  # so that there are many steps
    service.fill(2, 1)
    keys = [key for key in service.redis.scan_iter("sync:*") if not key.endswith(b"nudge")]  # which expires soon
    saved: dict[Any, tuple[Any, int]] = {key: (service.redis.dump(key), service.redis.pexpiretime(key)) for key in keys}
    service.rebucket(3)
    expected = service.dump()
    places, is_killed = 0, True
    while is_killed:
        service.redis.delete(*service.redis.scan_iter("sync:*", count=1000))
        for key, (text, until_ms) in saved.items():
            service.redis.restore(key, max(until_ms, 0), text, absttl=until_ms > 0)
        places += 1
        is_killed = _kill_and_complete(service, places)
        assert service.dump() == expected, places
        assert service.record.read() == BucketCount(3)
    assert places > 50


def _kill_and_complete(service: BucketService, place: int) -> bool:
    """Kill a run at its nth step, and run it again; return whether it had so many steps."""
    steps = iter(range(place))

    def step() -> None:
        if next(steps, None) is None:
            raise Killed

    try:
        service.rebucket(3, step=step)
    except Killed:
        if service.record.read() != BucketCount(2):  # then nobody may use the sessions
            for buckets in (2, 3):
                with pytest.raises(WrongBuckets):
                    BucketGuard(connect(service.settings), buckets).require()
        service.rebucket(3)
        return True
    return False


@pytest.mark.parametrize("buckets", [3, 5])
def test_no_process_without_the_guard_commits_during_the_move(service: BucketService, buckets: int) -> None:
    made = service.fill(3, 1)
    straggler = service.store(buckets)
    commands: list[Callable[[], object]] = [
        lambda: straggler.create(chess_request()),
        *(lambda each=each: straggler.switch(each) for each in made["running"]),
        *(lambda each=each: straggler.delete(each) for each in made["paused"]),
        lambda: straggler.delete("00000000-0000-4000-8000-000000000000", erases=True),
    ]
    attempts, is_blocked = itertools.count(), False

    def step() -> None:
        nonlocal is_blocked
        is_blocked = is_blocked or service.redis.type(Keyspace().deadlines(2)) == b"string"
        record = service.record.read()
        if not is_blocked or record is None or record.is_finishing:
            return
        before = service.dump()
        with pytest.raises((StoreUnavailable, SessionNotFound)):
            commands[next(attempts) % len(commands)]()
        assert service.dump() == before

    service.rebucket(5, step=step)
    assert next(attempts) > 20


def test_a_process_notices_the_move_within_a_second_and_refuses_everything(service: BucketService) -> None:
    made = service.fill(16)
    now_s = 0.0
    guard = BucketGuard(connect(service.settings), 16, clock=lambda: now_s)
    store = service.store(16, guard)
    links = LinkStore(connect(service.settings), Keyspace(16), guard=guard)
    live = SessionList(connect(service.settings), Keyspace(16), store)
    (running, *_) = made["running"]
    store.switch(running)
    service.record.write(BucketCount(16, 64))
    store.switch(running)  # the last comparison is relied on
    guard.check()
    before = service.dump()
    for command in (
        lambda: store.switch(running),
        lambda: store.get(running),
        lambda: store.summaries([running]),
        lambda: store.expire([running]),
        lambda: store.attend([running]),
        lambda: links.add(running, Link("a", "watch", 1.0, 4_000_000_000)),
        lambda: links.revoke(running, [Link("jti", "watch", 1.0, 4_000_000_000)]),
        lambda: live.page(SessionsQuery.from_args({})),
        store.check,
    ):
        with pytest.raises(WrongBuckets, match="has its sessions moved from 16 to 64 buckets"):
            command()
    assert service.dump() == before
    service.record.write(BucketCount(16))
    guard.check()
    store.switch(running)


def test_a_process_that_was_suspended_compares_before_its_next_command(service: BucketService) -> None:
    made = service.fill(16)
    now_s = 0.0
    store = service.store(16, BucketGuard(connect(service.settings), 16, clock=lambda: now_s))
    store.switch(made["running"][0])
    service.rebucket(64)
    now_s = VALID_S
    with pytest.raises(WrongBuckets, match="keeps its sessions in 64 buckets, but SYNC_BUCKETS is 16"):
        store.create(chess_request())


def test_a_run_waits_for_longer_than_a_comparison_is_relied_on() -> None:
    assert PAUSE_S > VALID_S


def test_processes_that_go_on_serving_stop_the_run_before_anything_is_moved(service: BucketService) -> None:
    service.fill(16)
    seconds, micros = service.redis.time()
    service.redis.zadd(Keyspace().processes(), {"web:old-release:1": (int(seconds) + 3) * 1000 + micros // 1000})
    before = service.dump()
    with pytest.raises(NotBegun, match="web:old-release:1"):
        service.rebucket(64, patience_s=0.5)
    assert service.dump() == before
    assert service.record.read() == BucketCount(16)


def test_a_sweeper_touches_nothing_during_the_move(service: BucketService) -> None:
    service.fill(16)
    sweeper = Sweeper(
        connect(service.settings), service.store(16, BucketGuard(connect(service.settings), 16)), buckets=16
    )
    service.record.write(BucketCount(16, 64))
    service.redis.delete(Keyspace(16).listed(3), Keyspace(16).deadlines(3))
    service.clock.set(NOON_MS + 900_000)
    before = service.dump()
    for _ in range(5):
        sweeper._turn()
    assert service.dump() == before


def test_two_runs_do_not_work_at_once(service: BucketService) -> None:
    service.fill(16)
    refused = 0

    def step() -> None:
        nonlocal refused
        with pytest.raises(NotBegun, match="another run is active"):
            Rebucket(service.settings, 64, say=lambda line: None).run()
        refused += 1

    service.rebucket(64, step=step)
    assert refused > 10


def test_a_run_that_lost_its_lease_stops(service: BucketService) -> None:
    service.fill(16)
    with pytest.raises(LeaseLost):
        service.rebucket(64, step=lambda: _lose_lease(service))


def _lose_lease(service: BucketService) -> None:
    service.redis.set(Keyspace().rebucket_lease(), "another run")
    time.sleep(1.1)


def test_the_command_tells_what_it_did_and_what_it_refuses(
    service: BucketService, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.fill(16)
    settings = service.with_buckets(16)
    # No other process needs the pause, which is long with the timeout of tests.
    monkeypatch.setattr(rebucket, "PAUSE_S", -4 * settings.redis_timeout_s)
    dry = run_flask(settings, "sessions", "rebucket", "--to", "64", "--dry-run")
    assert dry.exit_code == 0, dry.output
    assert "The sessions are in 16 buckets." in dry.output
    assert "to 64 buckets." in dry.output
    assert BucketRecord(connect(settings)).read() == BucketCount(16)
    same = run_flask(settings, "sessions", "rebucket", "--to", "16")
    assert (same.exit_code, same.output) == (1, "Error: nothing was changed: the sessions are in 16 buckets already\n")
    away = make_settings(settings.redis_url, database_url=f"postgresql://127.0.0.1:{free_port()}/none")
    down = run_flask(away, "sessions", "rebucket", "--to", "64")
    assert down.exit_code == 1
    assert "nothing was changed: events can't be stored in PostgreSQL" in down.output
    assert BucketRecord(connect(settings)).read() == BucketCount(16)
    done = run_flask(settings, "sessions", "rebucket", "--to", "64")
    assert done.exit_code == 0, done.output
    assert "restart all web and worker processes" in done.output
    BucketRecord(connect(settings)).write(BucketCount(64, 128))
    other = run_flask(settings, "sessions", "rebucket", "--to", "16")
    assert "was not finished: run flask sessions rebucket --to 128 first" in other.output


@pytest.mark.parametrize(
    "words", [("sessions", "list"), ("sessions", "recover", "--all"), ("audit", "verify"), ("audit", "drain")]
)
def test_commands_of_flask_refuse_other_buckets(service: BucketService, words: tuple[str, ...]) -> None:
    service.fill(16)
    done = run_flask(service.with_buckets(64), *words)
    assert done.exit_code == 1
    assert "keeps its sessions in 16 buckets, but" in done.output
    assert run_flask(service.with_buckets(16), *words).exit_code == 0


def test_keys_that_are_in_no_bucket_of_theirs_stay_and_are_told(service: BucketService) -> None:
    service.fill(16)
    stray = "sync:{b03}:session:11111111-1111-4111-8111-111111111111"
    assert stray not in (Keyspace(16).relocated(stray), Keyspace(64).relocated(stray))
    service.redis.hset(stray, "scalars", "x")
    assert "1 key in no bucket of theirs stay" in service.rebucket(64)[-1]
    assert service.redis.exists(stray)


def test_events_that_wait_are_stored_before_the_move(
    service: BucketService, db: psycopg2.extensions.connection
) -> None:
    made = service.fill(16)
    waiting = sum(service.redis.xlen(Keyspace().outbox(each)) for each in range(16))
    assert waiting > len(made["running"])
    service.rebucket(64)
    with db.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM sync_events")
        assert cursor.fetchone() == (waiting,)


def test_a_process_that_is_killed_leaves_a_move_that_another_completes(service: BucketService) -> None:
    made = service.fill(16)
    before = states(service.store(16), made)
    env = os.environ | {
        "AUTH": "off",
        "REDIS_URL": service.settings.redis_url,
        "DATABASE_URL": service.settings.database_url,
    }
    words = [sys.executable, "-m", "flask", "--app", "wsgi", "sessions", "rebucket", "--to", "64"]
    with subprocess.Popen(words, env=env, cwd=ROOT, stdout=subprocess.DEVNULL) as running:
        wait_until(lambda: service.record.read() == BucketCount(16, 64), within_s=60)
        running.kill()
    with pytest.raises(NotBegun, match="another run is active, or was stopped less than 10 s ago"):
        service.rebucket(64)
    assert 0 < service.redis.pttl(Keyspace().rebucket_lease()) <= 10_000
    service.redis.delete(Keyspace().rebucket_lease())
    service.rebucket(64)
    assert states(service.store(64), made) == before


def test_a_user_without_the_rights_moves_nothing(service: BucketService, redis_url: str) -> None:
    service.fill(16)
    words = ["+@all", "-rename", "-dump"]
    service.redis.acl_setuser("mover", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=words)
    try:
        chosen = make_settings(redis_url.replace("//", "//mover:any@", 1), database_url=service.settings.database_url)
        with pytest.raises(NotBegun, match="redis denies this user DUMP, RENAME"):
            Rebucket(chosen, 64, say=lambda line: None).run()
    finally:
        service.redis.acl_deluser("mover")
    assert service.record.read() == BucketCount(16)


def test_sessions_of_a_cluster_move_between_its_nodes(valkey_cluster: ValkeyCluster, db: Db, database_url: str) -> None:
    chosen = {
        number: make_settings(valkey_cluster.url, database_url=database_url, redis_timeout_s=60.0, sync_buckets=number)
        for number in (16, 64)
    }
    client = connect(chosen[16], decode=False)
    stores = {number: SessionStore(connect(each), each) for number, each in chosen.items()}
    names = [stores[16].create(chess_request()).found.session_id for _ in range(40)]
    for each in names[:20]:
        stores[16].start(each, Claim(idempotency_key="start"))
    ended = names[0]
    stores[16].complete(ended)
    BucketRecord(client).write(BucketCount(16))
    before = {each: stores[16].get(each).found for each in names}
    until_ms: Any = client.pexpiretime(Keyspace(16).session(ended))
    for number in (64, 16, 64):
        steps = iter(range(60))

        def step(steps: Iterator[int] = steps) -> None:
            if next(steps, None) is None:
                raise Killed

        with pytest.raises(Killed):
            Rebucket(chosen[16], number, say=lambda line: None, step=step, pause_s=0.0).run()
        Rebucket(chosen[16], number, say=lambda line: None, pause_s=0.0).run()
        assert {each: stores[number].get(each).found for each in names} == before
        assert client.pexpiretime(Keyspace(number).session(ended)) == until_ms
    assert stores[64].start(names[1], Claim(idempotency_key="start")).replayed
    with pytest.raises(SessionNotFound):
        stores[16].get(next(each for each in names if Keyspace(64).bucket(each) > 15))

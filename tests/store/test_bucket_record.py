"""The record of the number of buckets, and processes that have another one."""

from __future__ import annotations

from typing import Any

import pytest
import redis as redis_py
import requests

from syncapp.audit.outbox import Outbox
from syncapp.cli.rebucket import Rebucket
from syncapp.dev.valkey_cluster import ValkeyCluster
from syncapp.errors import StoreUnavailable
from syncapp.loops import Loops
from syncapp.store.bucket_record import BucketCount, BucketGuard, BucketRecord, WrongBuckets, following
from syncapp.store.client import connect
from syncapp.store.keys import COMPLETE, SENTINEL, Keyspace
from syncapp.store.process_registry import ProcessRegistry
from syncapp.store.sessions import SessionStore
from syncapp.store.sweeper import Sweeper
from tests.support.cluster import MakeCluster
from tests.support.store import chess_request, make_settings, make_store
from tests.support.types import Db
from tests.support.web_clients import RestClient, wait_until


@pytest.fixture
def record(redis: redis_py.Redis, redis_url: str) -> BucketRecord:
    return BucketRecord(connect(make_settings(redis_url)))


@pytest.mark.parametrize("count", [BucketCount(16), BucketCount(16, 64), BucketCount(64, 16, is_finishing=True)])
def test_a_record_is_read_as_it_was_written(record: BucketRecord, count: BucketCount) -> None:
    record.write(count)
    assert record.read() == count


def test_the_first_start_with_an_empty_store_records_the_configured_number(
    record: BucketRecord, redis: redis_py.Redis
) -> None:
    redis.set("huey.redis.syncapp", "another key")
    assert record.find(7) == BucketCount(7)
    assert record.read() is None
    assert record.read_or_write(7) == BucketCount(7)
    assert record.read_or_write(64) == BucketCount(7)


@pytest.mark.parametrize("buckets", [1, 16, 64, 100])
@pytest.mark.parametrize("configured", [16, 64])
def test_a_store_that_was_swept_before_there_was_a_record_has_the_number_of_its_deadlines(
    record: BucketRecord, redis: redis_py.Redis, redis_url: str, buckets: int, configured: int
) -> None:
    make_store(redis_url, set_clock=False, sync_buckets=buckets).create(chess_request())
    for bucket in range(buckets):
        redis.zadd(Keyspace(buckets).deadlines(bucket), {SENTINEL: COMPLETE})
    assert record.read_or_write(configured) == BucketCount(buckets)


@pytest.mark.parametrize("buckets", [16, 64])
def test_a_store_that_was_never_swept_has_the_number_that_its_sessions_fit(
    record: BucketRecord, redis_url: str, buckets: int
) -> None:
    store = make_store(redis_url, set_clock=False, sync_buckets=buckets)
    for _ in range(40):
        store.create(chess_request())
    assert record.find(64) == BucketCount(buckets)


def test_streams_alone_show_how_many_buckets_there_were(record: BucketRecord, redis: redis_py.Redis) -> None:
    redis.xadd(Keyspace(64).outbox(40), {"message": "{}"})
    assert record.find(16) == BucketCount(41)
    redis.delete(Keyspace(64).outbox(40))
    redis.set(Keyspace(64).deadlines(3), "of another type")
    assert record.find(64) == BucketCount(64)


@pytest.mark.parametrize("text", ["", "many", "moving 16", "moving 16 x", "finished 16 64"])
def test_a_text_that_is_no_record_refuses_every_process(redis: redis_py.Redis, redis_url: str, text: str) -> None:
    redis.set(Keyspace().bucket_count(), text)
    with pytest.raises(WrongBuckets) as refused:
        BucketGuard(connect(make_settings(redis_url)), 64).require()
    assert refused.value.details["reason"] == "BUCKETS_UNKNOWN"


def test_a_process_without_the_setting_takes_the_recorded_number(
    record: BucketRecord, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SYNC_BUCKETS", raising=False)
    record.write(BucketCount(16))
    chosen = make_settings(redis_url)
    assert following(chosen).sync_buckets == 16
    monkeypatch.setenv("SYNC_BUCKETS", "64")
    assert following(chosen).sync_buckets == 64
    monkeypatch.delenv("SYNC_BUCKETS")
    assert following(make_settings("redis://127.0.0.1:1/0")).sync_buckets == 64
    late = BucketGuard.of(connect(chosen), chosen)
    with pytest.raises(WrongBuckets, match="this process started with 64: restart it"):
        late.require()


def test_a_worker_without_the_setting_goes_on_with_a_new_number(
    record: BucketRecord, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SYNC_BUCKETS", raising=False)
    chosen, adopted = make_settings(redis_url), list[int]()
    guard = BucketGuard.of(connect(chosen), chosen, adopt=adopted.append)
    for count in (BucketCount(16), BucketCount(16, 32), BucketCount(32), BucketCount(32)):
        record.write(count)
        guard.check()
        assert guard.is_moving == (count.target is not None)
    guard.require()
    assert adopted == [16, 32]


def test_empty_streams_of_a_worker_do_not_count(record: BucketRecord, redis: redis_py.Redis, redis_url: str) -> None:
    make_store(redis_url, set_clock=False, sync_buckets=16).create(chess_request())
    for bucket in range(16):
        redis.zadd(Keyspace(16).deadlines(bucket), {SENTINEL: COMPLETE})
    Outbox(connect(make_settings(redis_url), decode=False), Keyspace(64)).make_groups()
    assert record.find(64) == BucketCount(16)


def test_the_store_is_not_asked_for_each_command(record: BucketRecord, redis: redis_py.Redis, redis_url: str) -> None:
    now_s = 0.0
    guard = BucketGuard(connect(make_settings(redis_url)), 64, clock=lambda: now_s)
    guard.require()
    record.write(BucketCount(16))
    now_s = 2.9
    guard.require()
    now_s = 3.0
    with pytest.raises(WrongBuckets):
        guard.require()


def test_a_store_that_was_emptied_has_its_record_again(redis: redis_py.Redis, redis_url: str) -> None:
    guard = BucketGuard(connect(make_settings(redis_url)), 64)
    guard.require()
    redis.flushdb()
    guard.require_now()
    assert redis.get(Keyspace().bucket_count()) == b"64"


def test_a_process_that_leaves_the_sessions_alone_still_reports(redis: redis_py.Redis, redis_url: str) -> None:
    client, is_away = connect(make_settings(redis_url)), False
    registry = ProcessRegistry(
        client, Keyspace(), kind="web", loops=Loops(), name="web:here:1", is_away=lambda: is_away
    )
    registry.report(1_000_000)
    assert registry.serving_processes(1_000_000) == ["web:here:1"]
    is_away = True
    registry.report(1_001_000)
    assert registry.live_processes(1_001_000) == ["web:here:1"]
    assert registry.serving_processes(1_001_000) == []


def test_real_processes_refuse_other_buckets_and_follow_the_record_without_the_setting(
    redis: redis_py.Redis, redis_url: str, db: Db, database_url: str, make_cluster: MakeCluster, record: BucketRecord
) -> None:
    store = make_store(redis_url, set_clock=False, sync_buckets=16)
    session_id = store.create(chess_request()).found.session_id
    store.start(session_id)
    for _ in range(3):
        store.create(chess_request())
    Sweeper(connect(make_settings(redis_url)), store, buckets=16)._turn()
    record.write(BucketCount(16))
    following_cluster = make_cluster(web=1)
    (url,) = following_cluster.urls
    assert requests.get(f"{url}/ready", timeout=30).status_code == 200
    api = RestClient(url)
    api.command(session_id, "switch")
    before = redis.hgetall(Keyspace(16).session(session_id))
    lines: list[str] = []
    Rebucket(make_settings(redis_url, database_url=database_url), 64, say=lines.append).run()
    assert redis.hgetall(Keyspace(64).session(session_id)) == before

    def is_followed() -> bool:
        """Return whether gunicorn has replaced the process, and the new one uses the new number."""
        try:
            return requests.post(f"{url}/v1/sessions/{session_id}/switch", timeout=30).status_code == 200
        except requests.RequestException:
            return False

    wait_until(is_followed, within_s=60)
    api.create()
    assert "this process started with 16: restart it" in following_cluster.web[0].output()


def test_a_process_that_started_without_the_store_is_replaced_when_its_number_is_another(
    valkey_with: Any, make_cluster: MakeCluster
) -> None:
    with valkey_with() as server:
        server.wait_ready()
        settings = make_settings(server.url, sync_buckets=16)
        client = connect(settings)
        BucketRecord(client).write(BucketCount(16))
        session_id = SessionStore(client, settings).create(chess_request()).found.session_id
        (web,) = make_cluster(web=1, worker=False, REDIS_URL=server.url).web
        web.stop()
        server.kill()
        web.spawn()
        wait_until(lambda: _answers(web.url), within_s=60)
        server.start()
        wait_until(lambda: _answers(f"{web.url}/v1/sessions/{session_id}"), within_s=60)


def _answers(url: str) -> bool:
    try:
        return requests.get(f"{url}/health" if url.count("/") == 2 else url, timeout=30).status_code == 200
    except requests.RequestException:
        return False


class TestCluster:
    """Copies of the record on all masters."""

    @pytest.fixture
    def client(self, valkey_cluster: ValkeyCluster) -> redis_py.Redis:
        return connect(make_settings(valkey_cluster.url))

    def test_it_is_read_and_sessions_are_used_while_a_master_is_lost(
        self, client: redis_py.Redis, valkey_cluster: ValkeyCluster
    ) -> None:
        assert BucketRecord(client).read_or_write(64) == BucketCount(64)
        for node in valkey_cluster.masters():
            guard = BucketGuard(client, 64)
            node.kill()
            guard.require()
            assert BucketRecord(client).read() == BucketCount(64)
            node.start()
            valkey_cluster.wait_ok()

    def test_it_is_written_only_with_all_masters(self, client: redis_py.Redis, valkey_cluster: ValkeyCluster) -> None:
        record = BucketRecord(client)
        record.read_or_write(64)
        valkey_cluster.masters()[0].kill()
        with pytest.raises(StoreUnavailable):
            record.write(BucketCount(64, 16))
        with pytest.raises(WrongBuckets, match="moved from 64 to 16"):
            BucketGuard(client, 64).require()

    @pytest.mark.parametrize(
        ("texts", "found"),
        [
            (("16", "moving 16 64"), BucketCount(16, 64)),
            (("finishing 16 64", "moving 16 64"), BucketCount(16, 64)),
            (("64", "finishing 16 64"), BucketCount(16, 64, is_finishing=True)),
        ],
    )
    def test_of_copies_that_differ_the_earliest_stage_of_the_move_counts(
        self, client: redis_py.Redis, texts: tuple[str, str], found: BucketCount
    ) -> None:
        for number, name in enumerate(Keyspace().bucket_count_copies()):
            client.set(name, texts[number % 2])
        assert BucketRecord(client).read() == found

    def test_copies_of_two_numbers_refuse_every_process(self, client: redis_py.Redis) -> None:
        first, *others = Keyspace().bucket_count_copies()
        client.set(first, "16")
        client.set(others[-1], "64")
        for buckets in (16, 64):
            with pytest.raises(WrongBuckets):
                BucketGuard(client, buckets).require()

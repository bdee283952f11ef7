"""A store that went back to an older state is put right, and forks are kept as dead letters."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

import pytest
import redis as redis_py
import requests

from syncapp import create_app
from syncapp.dev.servers import Valkey
from syncapp.errors import SessionNotFound
from syncapp.history.recovery import Outcome, Recovery
from syncapp.store.sessions import SessionStore
from tests.support.audit_log import AuditServices, query_rows
from tests.support.cluster import MakeCluster
from tests.support.lost_sessions import ID, dump_hash, restore_hash, start_game
from tests.support.outboxes import KEYS
from tests.support.store import NOON_MS, ManualClock, make_settings
from tests.support.types import Db
from tests.support.web_clients import wait_until


def test_a_store_rolled_back_behind_the_log_is_put_forward_again(
    store: SessionStore, clock: ManualClock, log: AuditServices, recovery: Recovery, redis: redis_py.Redis
) -> None:
    start_game(store, clock)
    file = dump_hash(redis)
    clock.advance_ms(1000)
    store.switch(ID)
    last = store.get(ID).found
    log.store()
    restore_hash(redis, file)
    assert store.position(ID).version == last.version - 1  # type: ignore[union-attr]  # it is there
    assert recovery.recover(ID) is Outcome.REPLACED
    found = store.get(ID).found
    assert (found.epoch > last.epoch, found.version) == (True, 1)
    assert (found.cycle_count, found.active_participant_id) == (3, "black")
    assert recovery.recover(ID) is Outcome.CURRENT


def test_a_fork_is_kept_as_a_dead_letter_and_the_later_past_goes_on_in_a_new_epoch(
    store: SessionStore, clock: ManualClock, log: AuditServices, recovery: Recovery, redis: redis_py.Redis, db: Db
) -> None:
    start_game(store, clock)
    file = dump_hash(redis)
    for _ in range(2):
        clock.advance_ms(1000)
        store.switch(ID)
    log.store()
    restore_hash(redis, file)
    clock.advance_ms(500)
    store.pause(ID)  # a version 6 that differs from the log's
    log.store()
    assert query_rows(db, "SELECT kind FROM sync_dead_letters") == [("divergent",)]
    assert log.history.forks() == {(ID, NOON_MS)}
    assert recovery.recover(ID) is Outcome.REPLACED  # the log has more versions
    assert store.get(ID).found.cycle_count == 4
    log.store()
    assert recovery.recover(ID) is Outcome.CURRENT


def test_a_fork_that_is_further_than_the_log_goes_on_as_it_stands(
    store: SessionStore, clock: ManualClock, log: AuditServices, recovery: Recovery, redis: redis_py.Redis, db: Db
) -> None:
    start_game(store, clock)
    file = dump_hash(redis)
    clock.advance_ms(1000)
    store.switch(ID)
    log.store()
    restore_hash(redis, file)
    clock.advance_ms(500)
    store.pause(ID)
    store.update(ID, {"fork": True})
    log.store()
    here = store.get(ID).found
    assert recovery.recover(ID) is Outcome.RENEWED
    found = store.get(ID).found
    assert found.epoch > here.epoch
    assert (found.version, found.status, found.metadata) == (1, "paused", {"round": 1, "fork": True})
    assert found.metadata_version == 1
    assert found.participants == here.participants
    log.store()
    assert log.history.restore_point(ID).session == found  # type: ignore[union-attr]  # it is there
    assert recovery.recover(ID) is Outcome.CURRENT


def test_what_was_deleted_before_a_rollback_is_deleted_again(
    store: SessionStore, clock: ManualClock, log: AuditServices, recovery: Recovery, redis: redis_py.Redis, db: Db
) -> None:
    start_game(store, clock)
    file = dump_hash(redis)
    store.delete(ID)
    log.store()
    restore_hash(redis, file)
    assert recovery.recover(ID) is Outcome.DELETED
    with pytest.raises(SessionNotFound):
        store.get(ID)
    log.store()
    assert query_rows(db, "SELECT kind FROM sync_dead_letters") == []
    assert recovery.recover(ID) is Outcome.GONE


def test_a_session_that_the_log_does_not_know_yet_is_left_alone(
    store: SessionStore, clock: ManualClock, log: AuditServices, recovery: Recovery, redis: redis_py.Redis
) -> None:
    start_game(store, clock)
    assert recovery.recover(ID) is Outcome.CURRENT
    redis.delete(KEYS.outbox(KEYS.bucket(ID)))
    assert recovery.recover(ID) is Outcome.AHEAD


def test_a_store_put_back_from_an_old_copy_of_its_files_is_put_right_by_the_command(
    make_cluster: MakeCluster, valkey: Valkey, redis: redis_py.Redis, db: Db, redis_url: str, database_url: str,
    tmp_path: Path,
) -> None:  # fmt: skip
    cluster = make_cluster(web=1)
    base = f"{cluster.urls[0]}/v1/sessions"
    body = {"sync_mode": "count_up", "participants": [{"participant_id": name} for name in "ab"]}

    def post(session_id: str, command: str) -> dict[str, Any]:
        headers = {"Idempotency-Key": str(uuid.uuid4())}
        for _ in range(10):  # a connection from before the restart fails once
            answer = requests.post(f"{base}/{session_id}/{command}", headers=headers, timeout=60)
            if answer.status_code != 503:
                break
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()["data"]
        return found

    def drained() -> bool:
        return not any(redis.xlen(KEYS.outbox(bucket)) for bucket in range(KEYS.buckets))

    names = [requests.post(base, json=body, timeout=60).json()["data"]["session_id"] for _ in range(6)]
    for each in names:
        post(each, "start")
    wait_until(drained)
    data = Path(valkey.argv[valkey.argv.index("--dir") + 1])
    valkey.stop()
    shutil.copytree(data, tmp_path / "old")
    valkey.start()
    wait_until(lambda: requests.get(f"{cluster.urls[0]}/ready", timeout=60).status_code == 200)
    last = {each: [post(each, "switch") for _ in range(3)][-1] for each in names}
    newer = requests.post(base, json=body, timeout=60).json()["data"]["session_id"]
    post(names[5], "complete")
    wait_until(drained)

    valkey.stop()
    shutil.rmtree(data)
    shutil.copytree(tmp_path / "old", data)
    valkey.start()
    wait_until(lambda: requests.get(f"{cluster.urls[0]}/ready", timeout=60).status_code == 200)
    assert post(names[0], "switch")["cycle_count"] == 1  # this client does not wait
    runner = create_app(make_settings(redis_url, database_url=database_url)).test_cli_runner()
    drain = ["audit", "drain"]  # the worker's queue went back, too, so this may wait for the next sweep
    assert runner.invoke(args=drain).exit_code == 0
    assert query_rows(db, "SELECT kind FROM sync_dead_letters") == [("divergent",)]

    told = runner.invoke(args=["sessions", "recover", "--all"])
    assert (told.exit_code, told.output.splitlines()[-1]) == (0, "6 replaced, 1 restored"), told.output
    for each in names[:5]:
        state = requests.get(f"{base}/{each}", timeout=60).json()["data"]
        assert (state["cycle_count"], state["status"], state["version"]) == (3, "running", 1)
        assert state["epoch"] > last[each]["epoch"]
        assert post(each, "switch")["version"] == 2
    assert requests.get(f"{base}/{names[5]}", timeout=60).json()["data"]["status"] == "completed"
    assert requests.get(f"{base}/{newer}", timeout=60).json()["data"]["status"] == "pending"
    assert runner.invoke(args=drain).exit_code == 0
    checked = runner.invoke(args=["audit", "verify"])
    assert checked.exit_code == 0, checked.output
    assert runner.invoke(args=["sessions", "recover", "--all"]).output.splitlines()[-1] == "7 current"

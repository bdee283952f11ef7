"""A store with full memory refuses commands that need memory, and accepts those that free it."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import replace

import pytest

from syncapp.domain.results import Claim, Result
from syncapp.errors import StoreFull, StoreUnavailable
from syncapp.store.client import connect
from syncapp.store.sessions import SessionStore
from syncapp.store.sweeper import Sweeper
from tests.support.full_store import FullStore
from tests.support.store import chess_request
from tests.support.web_clients import wait_until

# Commands
NEW = "0b54a2a1-4f0e-4b9e-8d58-0e9f6a3f2c11"
COMMANDS: dict[str, Callable[[SessionStore, str, Claim], Result]] = {
    "create": lambda store, session, claim: store.create(chess_request(session_id=NEW), claim),
    "start": lambda store, session, claim: store.start(session, claim),
    "switch": lambda store, session, claim: store.switch(session, claim),
    "pause": lambda store, session, claim: store.pause(session, claim),
    "resume": lambda store, session, claim: store.resume(session, claim),
    "adjust": lambda store, session, claim: store.adjust(session, claim, op="add", ms=1000),
    "update": lambda store, session, claim: store.update(session, {"a": "b"}, claim),
    "complete": lambda store, session, claim: store.complete(session, claim),
    "cancel": lambda store, session, claim: store.cancel(session, claim, reason="full"),
    "delete": lambda store, session, claim: store.delete(session, claim),
}
STATUS_FOR = {"start": "pending", "resume": "paused"}


@pytest.mark.parametrize("key", [None, "k"], ids=["bare", "keyed"])
@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_store_takes_what_frees_memory_and_refuses_the_rest_unchanged(
    full: FullStore, name: str, key: str | None
) -> None:
    session = full.store.create(chess_request(3_600_000)).found.session_id
    if name != "start":
        full.store.start(session)
    if name == "resume":
        full.store.pause(session)
    claim = Claim(idempotency_key=key)
    full.redis.config_set("maxmemory", 1)
    before = full.dump()
    if name in ("complete", "cancel", "delete"):
        done = COMMANDS[name](full.store, session, claim)
        assert done.event_json
        if key:
            again = COMMANDS[name](full.store, session, claim)
            assert (again.replayed, again.event_json) == (True, done.event_json)
    else:
        with pytest.raises(StoreUnavailable, match="nothing was changed"):
            COMMANDS[name](full.store, session, claim)
        assert full.dump() == before
        assert full.store.get(session).found.version == {"start": 1, "resume": 3}.get(name, 2)
    full.no_limit()
    if name not in ("complete", "cancel", "delete"):
        assert not COMMANDS[name](full.store, session, claim).replayed
    full.check_commands_drains_and_log()


def test_what_frees_memory_and_finds_nothing_to_do_leaves_no_record_in_a_full_store(full: FullStore) -> None:
    completed, cancelled = (full.store.create(chess_request()).found.session_id for _ in range(2))
    full.store.complete(completed, Claim(idempotency_key="first"))
    full.store.cancel(cancelled)
    calls: list[Callable[[Claim], Result]] = [
        lambda claim: full.store.complete(completed, claim),
        lambda claim: full.store.cancel(cancelled, claim),
        lambda claim: full.store.delete(str(uuid.UUID(int=1)), claim),
    ]
    full.redis.config_set("maxmemory", 1)
    before = full.dump()
    for call in calls:
        with pytest.raises(StoreFull):
            call(Claim(idempotency_key="second"))
        assert call(Claim()).event_json == ""
    assert full.store.complete(completed, Claim(idempotency_key="first")).replayed
    assert full.dump() == before
    full.no_limit()
    for call in calls:
        assert call(Claim(idempotency_key="second")).event_json == ""
    full.check_commands_drains_and_log()


def test_sessions_that_are_there_can_all_be_ended_and_deleted_in_a_full_store(full: FullStore) -> None:
    sessions = [full.store.create(chess_request(3_600_000)).found.session_id for _ in range(100)]
    for session in sessions:
        full.store.start(session)
    before = full.used
    full.redis.config_set("maxmemory", before // 2)
    for number, session in enumerate(sessions):
        (full.store.complete if number % 2 else full.store.cancel)(session, Claim(idempotency_key="end"))
    print(f"ending a session in a full store added {(full.used - before) / len(sessions):.0f} bytes of it")
    for session in sessions:
        full.store.delete(session, Claim(idempotency_key="gone"))
    assert full.used < before + 100 * 10_000
    full.no_limit()
    full.check_commands_drains_and_log()


def test_what_is_due_shows_as_soon_as_there_is_memory_again(full: FullStore) -> None:
    sessions = [full.store.create(chess_request(3_600_000)).found.session_id for _ in range(30)]
    for session in sessions:
        full.store.start(session)
    sweeper = Sweeper(connect(full.chosen), full.store)
    later_ms = full.store.time_ms() + 3_700_000
    for session in sessions:
        full.store.adjust(session, op="set", ms=1)
    full.redis.config_set("maxmemory", 1)
    before = full.dump()
    for _ in range(3):
        with pytest.raises(StoreUnavailable, match="nothing was changed"):
            sweeper.run_once(later_ms)
    assert full.dump() == before
    with pytest.raises(StoreUnavailable):  # a read would have to write due events
        full.store.get(sessions[0])
    full.no_limit()
    wait_until(lambda: sweeper.run_once(later_ms).sessions == 0)  # no session was set aside
    assert {full.store.position(session).version for session in sessions} == {4}  # type: ignore[union-attr]  # each is there
    full.check_commands_drains_and_log()


# New sessions


def test_new_sessions_are_refused_by_a_share_of_memory_and_others_go_on(full: FullStore) -> None:
    store = SessionStore(connect(full.chosen), replace(full.chosen, memory_limit_percent=80))
    made = Claim(idempotency_key=str(uuid.uuid4()))
    running = store.create(chess_request(), made).found.session_id
    store.start(running)
    full.redis.config_set("maxmemory", int(full.used / 0.9))
    before = full.dump()
    for claim in (Claim(), Claim(idempotency_key=str(uuid.uuid4()))):
        with pytest.raises(StoreFull, match="nothing was changed") as refused:
            store.create(chess_request(), claim)
        assert refused.value.details == {"retry_after_s": 30}
    assert full.dump() == before
    assert store.create(chess_request(), made).replayed
    assert store.switch(running).found.cycle_count == 1
    full.store.create(chess_request())  # limit 0 means no limit
    full.redis.config_set("maxmemory", int(full.used / 0.7))
    store.create(chess_request())
    full.no_limit()
    store.create(chess_request())
    full.check_commands_drains_and_log()


def test_a_server_that_keeps_its_memory_to_itself_has_no_limit_of_ours(full: FullStore) -> None:
    full.redis.acl_setuser(
        "plain", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=["+@all", "-@dangerous", "-info"]
    )
    url = full.servers.redis_url.replace("redis://", "redis://plain:x@")
    chosen = replace(full.chosen, redis_url=url, memory_limit_percent=1)
    full.redis.config_set("maxmemory", full.used * 10)
    try:
        SessionStore(connect(chosen), chosen).create(chess_request())
        with pytest.raises(StoreFull):
            SessionStore(connect(full.chosen), replace(chosen, redis_url=full.servers.redis_url)).create(
                chess_request()
            )
    finally:
        full.redis.acl_deluser("plain")
    full.no_limit()
    full.check_commands_drains_and_log()

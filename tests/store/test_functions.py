"""Scripts run as functions of the server, and as scripts with the same effect wherever the server refuses that."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis as redis_py
from structlog.testing import capture_logs

from syncapp.domain.results import Claim
from syncapp.store import functions
from syncapp.store.sessions import SessionStore
from tests.support.store import ManualClock, chess_request, dump_session, make_store
from tests.support.types import Redis

SESSION = str(uuid.UUID(int=7))


@pytest.fixture
def store(redis: Redis, redis_url: str) -> SessionStore:
    return make_store(redis_url, set_clock=False)


@pytest.fixture
def user(redis: Redis, redis_url: str) -> Iterator[Callable[..., SessionStore]]:
    """Makes a store of a user with all rights but some."""

    def make(*revoked: str) -> SessionStore:
        everything: Any = {"keys": ["*"], "channels": ["*"], "commands": ["+@all", *revoked]}
        redis.acl_setuser("app", enabled=True, reset=True, passwords=["+secret"], **everything)
        return make_store(redis_url.replace("//", "//app:secret@", 1), set_clock=False)

    yield make
    redis.acl_deluser("app")


def calls(redis: Redis, command: str, count: str = "calls") -> int:
    stats: dict[str, dict[str, int]] = redis.info("commandstats")
    return stats.get(f"cmdstat_{command}", {}).get(count, 0)


def libraries(redis: Redis) -> set[str]:
    listed: Any = redis.function_list(library=f"{functions.PREFIX}*")
    return {each[each.index(b"library_name") + 1].decode() for each in listed}


def forget(redis: Redis) -> None:
    redis.function_flush("SYNC")
    redis.script_flush()
    redis.config_resetstat()


def play(store: SessionStore, redis: Redis, **more: Any) -> list[object]:
    """Run commands of many kinds on a new session with the clock set; return what the store holds after each."""
    redis.flushdb()
    clock = ManualClock(redis)
    store.create(chess_request(session_id=SESSION, warn_at_ms=[30_000], takeback_cycles=2, **more))
    held: list[object] = []

    def ran(result: object, advance_ms: int = 1_000) -> None:
        found = dump_session(redis, SESSION)
        del found[b"outbox"]  # entries have the server's own time, as have the instants at which keys expire
        held.append((result, [each[0] if isinstance(each, tuple) else each for each in found.values()]))
        clock.advance_ms(advance_ms)

    ran(store.start(SESSION).found)
    ran(store.switch(SESSION, Claim(idempotency_key="k")).found)
    ran(store.switch(SESSION, Claim(idempotency_key="k", request_id="again")).replayed)
    ran(store.takeback(SESSION, cycles=1).found)
    ran(store.pause(SESSION).found)
    ran(store.adjust(SESSION, op="add", ms=5).found)
    ran(store.resume(SESSION).found, 40_000)
    ran(store.get(SESSION).found, 40_000)
    ran(store.expire([SESSION]))
    return held


def test_commands_run_as_functions_and_no_script_is_loaded(redis: Redis, store: SessionStore) -> None:
    forget(redis)
    session_id = store.create(chess_request()).found.session_id
    for command in (store.start, store.switch, store.pause, store.resume, store.get):
        command(session_id)
    store.expire([session_id])
    assert calls(redis, "fcall") == 1 + 7  # the library is missing, is loaded, and the first call is repeated
    assert calls(redis, "evalsha") == calls(redis, "eval") == 0
    store.switch(session_id)
    assert calls(redis, "fcall") == 1 + 8


def test_functions_that_the_server_forgot_are_loaded_again(redis: Redis, store: SessionStore) -> None:
    session_id = store.create(chess_request()).found.session_id
    store.start(session_id)
    forget(redis)
    assert store.switch(session_id, Claim(idempotency_key="k")).found.version == 3
    assert store.switch(session_id, Claim(idempotency_key="k")).replayed


@pytest.mark.parametrize("more", [{}, {"budget_ms": None, "time_control": "syncapp:20s then 2x10s"}])
def test_a_function_has_the_effect_of_its_script(redis: Redis, redis_url: str, more: dict[str, Any]) -> None:
    functional, plain = make_store(redis_url), make_store(redis_url)
    plain._runner._scripts.functions._pause("a test")
    found = play(functional, redis, **more)
    redis.config_resetstat()
    assert play(plain, redis, **more) == found
    assert calls(redis, "fcall") == 0


@pytest.mark.parametrize("revoked", ["-fcall", "-function|load"])
def test_a_user_who_may_not_use_functions_runs_scripts(
    redis: Redis, user: Callable[..., SessionStore], revoked: str
) -> None:
    forget(redis)
    with capture_logs() as logged:
        store = user(revoked)
        session_id = store.create(chess_request()).found.session_id
        store.start(session_id)
        store.switch(session_id)
        assert store.expire([session_id, session_id])
    assert [each["event"] for each in logged] == ["functions_refused"]
    assert calls(redis, "fcall") + calls(redis, "fcall", "rejected_calls") == 1
    assert store.get(session_id).found.version == 3


def test_functions_are_tried_again_after_a_while(
    redis: Redis, user: Callable[..., SessionStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = user("-fcall")
    monkeypatch.setattr(functions, "PAUSE_S", -1.0)
    session_id = store.create(chess_request()).found.session_id
    redis.acl_setuser("app", enabled=True, commands=["+@all"])
    forget(redis)
    store.start(session_id)
    assert (calls(redis, "fcall"), calls(redis, "evalsha")) == (2, 0)


def test_a_server_that_refuses_functions_that_write_still_answers_reads(redis: Redis, store: SessionStore) -> None:
    session_id = store.create(chess_request()).found.session_id
    redis.config_set("min-replicas-to-write", 1)
    try:
        assert store.get(session_id).found.version == 1
    finally:
        redis.config_set("min-replicas-to-write", 0)
    assert store.start(session_id).found.version == 2


def test_a_call_that_failed_leaves_nothing_to_the_next_one(redis: Redis, store: SessionStore) -> None:
    session_id = store.create(chess_request()).found.session_id
    store.start(session_id)
    keys = store._runner._keys.commit(session_id)
    for _ in range(3):
        with pytest.raises(redis_py.ResponseError, match="a key is missing"):
            store._runner._scripts.call("switch_session", [], [])
        with pytest.raises(redis_py.ResponseError, match="an argument is missing"):
            store._runner._scripts.call("switch_session", keys, [session_id])
        version = store.get(session_id).found.version
        assert store.switch(session_id).found.version == version + 1

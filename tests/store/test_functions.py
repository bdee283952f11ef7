"""Scripts run as functions of the server, and as scripts with the same effect wherever the server refuses that."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
import redis as redis_py

from syncapp.domain.results import Claim
from syncapp.store import functions
from syncapp.store.connection_pool import ConnectionPool
from syncapp.store.sessions import SessionStore
from tests.support.captured_logs import capture_own_logs
from tests.support.function_libraries import forget
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
    plain._runner._scripts.functions.pause(None, 600)
    found = play(functional, redis, **more)
    redis.config_resetstat()
    assert play(plain, redis, **more) == found
    assert calls(redis, "fcall") == 0


@pytest.mark.parametrize("revoked", ["-fcall", "-function|load"])
def test_a_user_who_may_not_use_functions_runs_scripts(
    redis: Redis, user: Callable[..., SessionStore], revoked: str
) -> None:
    forget(redis)
    with capture_own_logs() as logged:
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


# Several calls at once


@pytest.fixture
def sent(store: SessionStore, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of commands of each round trip of the store."""
    numbers: list[int] = []
    pool = store._runner._scripts.pool
    call: Callable[..., list[Any]] = pool.call

    def counted(*commands: bytes) -> list[Any]:
        numbers.append(len(commands))
        return call(*commands)

    monkeypatch.setattr(pool, "call", counted)
    return numbers


def test_calls_that_were_not_run_are_sent_again_together(redis: Redis, store: SessionStore, sent: list[int]) -> None:
    sessions = [store.create(chess_request()).found.session_id for _ in range(20)]
    forget(redis)
    sent.clear()
    assert all(store.summaries(sessions)[0])
    assert sent == [20, 1, 20]  # the library is loaded in between
    sent.clear()
    assert all(store.summaries(sessions)[0])
    assert sent == [20]


def test_a_server_that_refuses_functions_gets_scripts_together_and_is_not_asked_again_at_once(
    redis: Redis, store: SessionStore, sent: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions, "SHORT_PAUSE_S", 600.0)
    sessions = [store.create(chess_request()).found.session_id for _ in range(20)]
    redis.script_flush()
    redis.config_set("min-replicas-to-write", 1)
    try:
        redis.config_resetstat()
        sent.clear()
        with capture_own_logs() as logged:
            assert all(store.summaries(sessions)[0])
        assert (sent, logged) == ([20, 20, 20], [])
        assert (calls(redis, "eval"), calls(redis, "evalsha")) == (1, 20 + 19)  # one call carries the text
        sent.clear()
        assert all(store.summaries(sessions)[0])
        assert sent == [20]
    finally:
        redis.config_set("min-replicas-to-write", 0)


def test_no_calls_need_no_round_trip_again(store: SessionStore) -> None:
    assert store._runner._scripts.call_all("get_session", []) == []


def test_a_refused_script_lengthens_the_pause(store: SessionStore) -> None:
    run, used = store._runner._scripts, store._runner._scripts.functions
    ends: list[float] = []

    def send(*commands: bytes) -> list[Any]:
        ends.append(used._paused_until_s.get(None, 0.0))
        return [redis_py.exceptions.OutOfMemoryError("OOM command not allowed")]

    for _ in range(2):
        (reply,) = run._run("switch_session", [(["k"], [])], send)
        assert "OOM" in str(reply)
        ends.append(used._paused_until_s[None])
    assert len(ends) == 3 + 2  # the second command is sent once
    assert 0.0 == ends[0] < ends[1] < ends[2] == ends[3] < ends[4]


def test_of_callers_that_miss_the_library_one_loads_it(redis: Redis, store: SessionStore) -> None:
    session_id = store.create(chess_request()).found.session_id
    run, pool, keys = store._runner._scripts, store._runner._scripts.pool, store._runner._keys.commit(session_id)
    forget(redis)
    barrier = threading.Barrier(8)

    def send(*commands: bytes) -> list[Any]:
        replies = pool.call(*commands)
        if run.functions.is_missing(replies[0]):
            barrier.wait(60)
        return replies

    def ask(_: int) -> Any:
        return run._run("check_store", [(keys, [])], send)[0]

    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(ask, range(8)))
    assert not any(run.functions.is_missing(each) for each in replies)
    assert calls(redis, "function|load") == 1
    forget(redis)
    store.get(session_id)
    assert calls(redis, "function|load") == 1


# What counts as a refusal


@pytest.mark.parametrize("error", [redis_py.ConnectionError("lost"), redis_py.TimeoutError("late")])
def test_a_connection_lost_while_loading_is_no_refusal(
    redis: Redis, store: SessionStore, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    session_id = store.create(chess_request()).found.session_id
    forget(redis)
    with capture_own_logs() as logged, monkeypatch.context() as patch:
        patch.setattr(ConnectionPool, "call_each", lambda self, *commands: [error])
        assert store.get(session_id).found.version == 1
    assert logged == []
    forget(redis)
    assert store.start(session_id).found.version == 2
    assert (calls(redis, "fcall"), calls(redis, "evalsha")) == (2, 0)


def test_a_full_server_that_cannot_take_the_library_is_tried_again_soon(
    redis: Redis, store: SessionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(functions, "SHORT_PAUSE_S", -1.0)
    session_id = store.create(chess_request()).found.session_id
    forget(redis)
    redis.config_set("min-replicas-to-write", 1)
    try:
        with capture_own_logs() as logged:
            assert store.get(session_id).found.version == 1
    finally:
        redis.config_set("min-replicas-to-write", 0)
    assert logged == []
    redis.config_resetstat()
    assert store.start(session_id).found.version == 2
    assert (calls(redis, "fcall"), calls(redis, "evalsha")) == (2, 0)


def test_a_refusal_after_a_success_is_logged_again(
    redis: Redis, user: Callable[..., SessionStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    store = user("-fcall")
    monkeypatch.setattr(functions, "PAUSE_S", -1.0)
    with capture_own_logs() as logged:
        session_id = store.create(chess_request()).found.session_id
        store.get(session_id)
        assert len(logged) == 1
        redis.acl_setuser("app", enabled=True, commands=["+fcall"])
        store.get(session_id)
        store.get(session_id)
        redis.acl_setuser("app", enabled=True, commands=["-fcall"])
        store.get(session_id)
        store.get(session_id)
    assert [each["event"] for each in logged] == ["functions_refused"] * 2


@pytest.mark.parametrize(
    ("text", "is_refusal"),
    [
        ("ERR unknown command 'FCALL', with args beginning with: 'f'", True),
        ("ERR unknown command `FCALL`, with args beginning with: `f`, ", True),
        ('unknown command "fcall"', True),
        ("ERR unknown command FCALL", True),
        ("NOPERM User app has no permissions to run the 'fcall' command", True),
        ("NOPERM this user has no permissions to run the `FCALL` command", True),
        ("NOPERM User fcall has no permissions to run the 'get' command", False),
        ("NOPERM this user has no permissions to access one of the keys used as arguments", False),
        ("ERR unknown command 'EVALSHA', with args beginning with: 'fcall'", False),
        ("ERR a script of a caller's 'fcall'", False),
    ],
)
def test_a_server_that_does_not_know_or_allow_functions_is_recognised(
    store: SessionStore, text: str, is_refusal: bool
) -> None:
    used = store._runner._scripts.functions
    with capture_own_logs() as logged:
        assert used.was_refused(["k"], redis_py.ResponseError(text)) == is_refusal
    assert bool(logged) == is_refusal
    assert used.are_used(["k"]) != is_refusal


def test_each_server_of_a_cluster_is_paused_by_itself() -> None:
    pool: Any = SimpleNamespace(home=lambda key: (key, 6379))
    used = functions.Functions(pool, ("library", "text"))
    with capture_own_logs() as logged:
        assert used.was_refused(["a"], redis_py.ResponseError("ERR unknown command 'fcall'"))
        assert used.was_refused(["b"], redis_py.ResponseError("OOM command not allowed"))
        used.ran(["c"])
        assert used.was_refused(["a"], redis_py.ResponseError("ERR unknown command 'fcall'"))
    assert [used.are_used([key]) for key in "abc"] == [False, False, True]
    assert len(logged) == 1

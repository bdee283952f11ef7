"""A pooled connection carries one command at a time, and no caller reads the reply to another's."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Iterator

import pytest
import redis as redis_py
from redis import exceptions

from syncapp.dev.servers import Valkey
from syncapp.store.client import connect
from syncapp.store.connection_pool import MAX_AGE_S, packed, pool_of
from syncapp.store.pooled_connection import PooledConnection
from tests.support.store import make_settings
from tests.support.web_clients import wait_until


@pytest.fixture
def client(redis: redis_py.Redis, redis_url: str) -> Iterator[redis_py.Redis]:
    with connect(make_settings(redis_url, redis_timeout_s=1.0, redis_max_connections=2)) as client:
        yield client


def test_replies_come_in_the_order_of_commands_and_an_error_stands_in_its_place(client: redis_py.Redis) -> None:
    words = (("ECHO", "first"), ("LPUSH", "a key", 1), ("GET", "a key"), ("ECHO", b"last"))
    first, length, error, last = pool_of(client).call(*(packed(*each) for each in words))
    assert (first, length, last) == ("first", 1, "last")
    assert isinstance(error, exceptions.ResponseError)
    assert str(error).startswith("WRONGTYPE")


def test_a_reply_that_is_not_text_is_an_error_in_its_place(client: redis_py.Redis) -> None:
    pool = pool_of(client)
    pool.call(packed("RPUSH", "list", b"\xff", "text", b"\xfe"), packed("SET", "key", b"a\xff"))
    words = (("LRANGE", "list", 0, -1), ("ECHO", "between"), ("GET", "key"), ("ECHO", "last"))
    items, between, value, last = pool.call(*(packed(*each) for each in words))
    assert isinstance(items, exceptions.ResponseError)
    assert isinstance(value, exceptions.ResponseError)
    assert (between, last) == ("between", "last")
    assert pool.call(packed("GET", "key"), raw=True) == [b"a\xff"]
    assert pool._open_count == 1  # the connection was kept


def test_after_a_reply_outside_of_the_protocol_it_is_unknown_what_took_effect(
    client: redis_py.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def call(*_: object, **__: object) -> None:
        raise exceptions.InvalidResponse("Protocol error")

    with monkeypatch.context() as patch:
        patch.setattr(PooledConnection, "call", call)
        with pytest.raises(exceptions.ConnectionError):
            pool_of(client).call(packed("ECHO", 1))
    assert pool_of(client).call(packed("ECHO", 2)) == ["2"]


def test_a_command_without_an_answer_fails_in_time_and_its_late_answer_reaches_nobody(client: redis_py.Redis) -> None:
    pool = pool_of(client)
    with pytest.raises(exceptions.TimeoutError):  # the answer would have come if the caller had waited
        pool.call(packed("BLPOP", "a list nobody fills", 2))
    for number in range(8):
        assert pool.call(packed("ECHO", number)) == [str(number)]
        time.sleep(0.2)


def test_no_more_lines_are_made_than_allowed_and_who_waits_gets_one_that_becomes_free(client: redis_py.Redis) -> None:
    pool = pool_of(client)
    answers: list[object] = []
    threads = [
        threading.Thread(target=lambda: answers.extend(pool.call(packed("BLPOP", "a list", "0.1")))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [None] * 4
    assert pool._open_count == 2


def test_who_waits_too_long_for_a_line_is_told(client: redis_py.Redis) -> None:
    pool = pool_of(client)
    taken = [pool._take(), pool._take()]
    with pytest.raises(exceptions.ConnectionError, match="no connection became free"):
        pool.call(packed("PING"))
    pool._idle.extend(taken)
    assert pool.call(packed("PING")) == ["PONG"]


def test_lines_that_the_server_closed_are_not_used_again(client: redis_py.Redis, redis: redis_py.Redis) -> None:
    pool = pool_of(client)
    pool.call(packed("PING"))
    redis.client_kill_filter(_type="normal", skipme=True)
    time.sleep(0.6)
    assert pool.call(packed("PING")) == ["PONG"]


def test_after_a_restart_one_failure_closes_all_idle_lines(client: redis_py.Redis, valkey: Valkey) -> None:
    pool = pool_of(client)
    taken = [pool._take(), pool._take()]
    pool._idle.extend(taken)
    pool.call(packed("PING"))
    valkey.restart()
    for pooled in taken:
        pooled.used_s = time.monotonic()  # as if they had just been used
    with pytest.raises(exceptions.ConnectionError):
        pool.call(packed("PING"))
    assert pool.call(packed("PING")) == ["PONG"]


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("NOSCRIPT No matching script.", exceptions.NoScriptError),
        ("LOADING is loading", exceptions.BusyLoadingError),
        ("READONLY a replica", exceptions.ReadOnlyError),
        ("OOM full", exceptions.OutOfMemoryError),
        ("ERR something else", exceptions.ResponseError),
    ],
)
def test_an_error_reply_becomes_the_exception_of_the_client_library(
    client: redis_py.Redis, text: str, kind: type[Exception]
) -> None:
    (error,) = pool_of(client).call(packed("EVAL", f"return redis.error_reply('{text}')", 0))
    assert type(error) is kind
    assert str(error) == text


def test_scripts_and_commands_share_one_bounded_number_of_connections(client: redis_py.Redis) -> None:
    pool = pool_of(client)
    client.ping()
    pool.call(packed("PING"))
    assert pool._open_count == 1
    lent = [pool.get_connection(), pool.get_connection()]
    with pytest.raises(exceptions.ConnectionError, match="no connection became free"):
        pool.call(packed("PING"))
    for connection in lent:
        pool.release(connection)
    assert pool.call(packed("PING")) == ["PONG"]
    assert pool._open_count == 2


def test_idle_connections_are_given_back(redis: redis_py.Redis, redis_url: str) -> None:
    with connect(make_settings(redis_url, redis_max_connections=8)) as client:
        pool = pool_of(client)
        pool._idle_s = 0.2
        client.client_setname("it")
        lent = [pool.get_connection() for _ in range(8)]
        for connection in lent:
            pool.release(connection)
        assert pool._open_count == 8
        wait_until(lambda: pool._open_count == 0, within_s=30)
        assert not [each for each in redis.client_list() if each["name"] == "it"]
        assert client.ping()


def test_a_connection_in_use_stays_and_its_pool_can_be_collected(redis_url: str) -> None:
    client = connect(make_settings(redis_url))
    pool = pool_of(client)
    pool._idle_s = 0.0
    (answer,) = pool.call(packed("BLPOP", "a list nobody fills", "1.5"))  # longer than idle connections are kept
    assert answer is None
    gone = weakref.ref(pool)
    del client, pool
    gc.collect()
    assert gone() is None


def test_a_connection_is_renewed_after_some_use_because_its_address_may_lead_elsewhere(client: redis_py.Redis) -> None:
    pool = pool_of(client)
    pool.call(packed("PING"))
    (pooled,) = pool._idle
    pool.call(packed("PING"))
    assert list(pool._idle) == [pooled]
    pooled.opened_s -= MAX_AGE_S
    assert pool.call(packed("PING")) == ["PONG"]
    assert not pool._idle
    assert pool._open_count == 0

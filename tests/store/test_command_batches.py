"""Commands that greenlets have ready at the same time are sent together; each caller gets its reply, or its error."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import pytest
from gevent.event import Event
from redis import exceptions

from syncapp.store.client import connect
from syncapp.store.command_batches import MAX_COMMANDS, CommandBatches
from syncapp.store.connection_pool import packed, pool_of
from tests.support.store import make_settings
from tests.support.types import Redis


class Server:
    """Replies `reply to <command>` to each command, once `go` is set; keeps what was sent together."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, ...]] = []
        self.go = Event()
        self.error: BaseException | None = None

    def send(self, *commands: bytes) -> list[Any]:
        self.sent.append(commands)
        self.go.wait()
        if self.error:
            raise self.error
        return [b"reply to " + each for each in commands]


@pytest.fixture
def server() -> Server:
    return Server()


@contextmanager
def callers(batches: CommandBatches, *names: bytes) -> Iterator[list[gevent.Greenlet]]:
    """Have a greenlet call each command, and wait until all are waiting for a reply; they are joined afterwards."""
    greenlets = [gevent.spawn(batches.call, name) for name in names]
    gevent.sleep(0.01)
    yield greenlets
    gevent.joinall(greenlets)


def test_the_first_caller_sends_at_once_and_those_behind_it_together(server: Server) -> None:
    with callers(CommandBatches(server.send), b"a", b"b", b"c", b"d") as greenlets:
        assert server.sent == [(b"a",), (b"b", b"c", b"d")]
        server.go.set()
    assert [each.value for each in greenlets] == [[b"reply to " + name] for name in (b"a", b"b", b"c", b"d")]


def test_a_batch_has_a_maximum_and_the_next_one_does_not_wait_for_it(server: Server) -> None:
    names = [b"%d" % number for number in range(2 * MAX_COMMANDS + 2)]
    batches = CommandBatches(server.send)
    with callers(batches, *names) as greenlets:
        assert [len(each) for each in server.sent] == [1, MAX_COMMANDS, MAX_COMMANDS, 1]
        server.go.set()
    assert [each.value for each in greenlets] == [[b"reply to " + name] for name in names]
    assert batches.call(b"later") == [b"reply to later"]
    assert server.sent[-1] == (b"later",)


def test_a_failure_is_that_of_all_in_the_batch_and_of_no_other(server: Server) -> None:
    batches = CommandBatches(server.send)
    with callers(batches, b"a", b"b", b"c") as greenlets:
        server.error = exceptions.TimeoutError("late")
        server.go.set()
    assert [type(each.exception) for each in greenlets] == [exceptions.TimeoutError] * 3
    assert greenlets[1].exception is not greenlets[2].exception
    server.error = None
    assert batches.call(b"d") == [b"reply to d"]


def test_to_those_that_joined_any_other_failure_means_that_the_outcome_is_unknown(server: Server) -> None:
    with callers(CommandBatches(server.send), b"first", b"leads", b"joins") as greenlets:
        server.error = ValueError("a bug")
        server.go.set()
    assert isinstance(greenlets[1].exception, ValueError)
    assert isinstance(greenlets[2].exception, exceptions.ConnectionError)


def test_callers_do_not_wait_for_ever_for_one_that_was_killed(server: Server) -> None:
    batches = CommandBatches(server.send)
    with callers(batches, b"first", b"leads", b"joins") as greenlets:
        greenlets[1].kill()
        gevent.sleep(0)
        assert isinstance(greenlets[2].exception, exceptions.ConnectionError)
        server.go.set()
    assert greenlets[0].value == [b"reply to first"]


def test_one_that_is_killed_before_it_sends_ends_its_batch(server: Server) -> None:
    batches = CommandBatches(server.send)
    first = gevent.spawn(batches.call, b"first")
    gevent.sleep(0)
    leads, joins = gevent.spawn(batches.call, b"leads"), gevent.spawn(batches.call, b"joins")
    gevent.sleep(0)
    leads.kill(block=False)
    with callers(batches, b"next"):
        server.go.set()
    gevent.joinall([first, leads, joins])
    assert joins.exception or joins.value == [b"reply to joins"]


def test_a_thread_of_its_own_sends_by_itself(server: Server) -> None:
    batches = CommandBatches(lambda *commands: [*commands])
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(batches.call(b"a")))
    thread.start()
    thread.join()
    assert found == [[b"a"]]


def test_replies_of_a_server_reach_their_callers(redis: Redis, redis_url: str) -> None:
    client = connect(make_settings(redis_url))
    pool = pool_of(client)
    pool.batch_calls()
    calls = [gevent.spawn(pool.call, packed("SETRANGE", "key", number, "x")) for number in range(30)]
    calls.append(gevent.spawn(pool.call, packed("HGET", "key", "a")))
    gevent.joinall(calls)
    assert sorted(each.value[0] for each in calls[:-1]) == list(range(1, 31))
    assert isinstance(calls[-1].value[0], exceptions.ResponseError)  # an error reply, which concerns no other command
    client.close()


def test_a_reply_that_is_not_text_fails_its_own_caller_only(redis: Redis, redis_url: str) -> None:
    redis.zadd("foreign", {b"\xff": 1, b"\xfe": 2})
    client = connect(make_settings(redis_url))
    pool = pool_of(client)
    pool.batch_calls()
    calls = [
        gevent.spawn(pool.call, packed("INCR", "key") if number % 5 else packed("ZRANGE", "foreign", 0, -1))
        for number in range(30)
    ]
    gevent.joinall(calls)
    replies = [each.value[0] for each in calls]
    assert all(isinstance(each, exceptions.ResponseError) for each in replies[::5])
    assert sorted(each for each in replies if isinstance(each, int)) == list(range(1, 25))
    client.close()

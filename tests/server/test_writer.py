"""The writer of a connection, on a pair of sockets: what it sends at once, and what it sends together."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress

import pytest

from syncapp.domain.results import Result
from syncapp.domain.version_order import NEVER
from syncapp.realtime.frames import text_frame
from syncapp.realtime.protocol import Outgoing
from syncapp.realtime.send_queue import QueuedAnswer
from syncapp.realtime.topic import SessionUpdate
from syncapp.server.frame_socket import FrameSocket
from syncapp.server.writer import Writer
from tests.support.store import chess_request, make_store
from tests.support.types import Redis

ACK = text_frame(b'{"type":"ACK"}')


class Woken:
    """In the place of a connection, which flushes when its command has ended."""

    def wake(self) -> None:
        """Do nothing."""


class Wire:
    """Both ends of a connection, whose client has the first of a session's versions."""

    def __init__(self, first: SessionUpdate) -> None:
        ours, self.client = socket.socketpair()
        self.client.setblocking(False)
        self.socket = FrameSocket(ours, 10)
        self.writer = Writer(self.socket, Woken(), first.session_id, NEVER, patches=False)
        self.writer.offer(first)
        assert self.arrived() == first.frame(Outgoing.CONNECTED) + first.frame(Outgoing.STATE_SYNC)

    def arrived(self) -> bytes:
        """Return what the client has not read yet."""
        with suppress(BlockingIOError):
            return self.client.recv(1 << 20)
        return b""

    def answer(self, result: Result) -> None:
        self.writer.answer(result.found.session_id, Outgoing.ACK, QueuedAnswer(ACK, result.found.order, 10, result))


@pytest.fixture
def results(redis: Redis, redis_url: str) -> list[Result]:
    """The results of a session's first versions."""
    store = make_store(redis_url, set_clock=False)
    created = store.create(chess_request())
    session_id = created.found.session_id
    return [created, store.start(session_id), *[store.switch(session_id) for _ in range(2)]]


@pytest.fixture
def wire(results: list[Result]) -> Iterator[Wire]:
    made = Wire(update_of(results[0]))
    yield made
    made.client.close()
    made.socket.close()


def update_of(result: Result, request_id: str = "") -> SessionUpdate:
    return SessionUpdate(result.found.session_id, 0, session=result.found, event=result.event, request_id=request_id)


def frame(result: Result) -> bytes:
    return update_of(result).frame(Outgoing.STATE_UPDATE)


def test_the_update_of_the_clients_own_command_is_sent_together_with_its_answer(
    wire: Wire, results: list[Result]
) -> None:
    wire.writer.running = "a.1"
    wire.writer.offer(update_of(results[1], "a.1"))
    assert not wire.arrived()
    assert wire.writer.has_unsent  # so that the connection flushes, whatever becomes of the command
    wire.answer(results[1])
    wire.writer.running = ""
    wire.writer.flush()
    assert wire.arrived() == frame(results[1]) + ACK
    assert wire.writer.sent == 4
    wire.writer.offer(update_of(results[2], "a.1"))
    assert wire.arrived() == frame(results[2])


@pytest.mark.parametrize("request_id", ["", "a.2"])
def test_the_update_of_another_command_is_sent_at_once(wire: Wire, results: list[Result], request_id: str) -> None:
    wire.writer.running = "a.1"
    wire.writer.offer(update_of(results[1], request_id))
    assert wire.arrived() == frame(results[1])


def test_what_comes_after_the_update_of_the_clients_own_command_takes_it_along(
    wire: Wire, results: list[Result]
) -> None:
    wire.writer.running = "a.1"
    wire.writer.offer(update_of(results[1], "a.1"))
    wire.writer.offer(update_of(results[2], "b.1"))
    assert wire.arrived() == frame(results[1]) + frame(results[2])

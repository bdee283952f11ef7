"""The order of messages: CONNECTED first, and nothing older after the answer to a command."""

from __future__ import annotations

import base64
import os
import random
import threading
import time
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import orjson
import pytest

from syncapp.dev.servers import Valkey
from syncapp.domain.results import Claim, Result
from syncapp.domain.version_order import NEVER, Order
from syncapp.errors import SessionNotFound, StoreUnavailable
from syncapp.realtime.protocol import Outgoing
from syncapp.realtime.send_queue import AFTER_DELETE, QueuedAnswer, SendQueue
from syncapp.realtime.topic import SessionUpdate
from tests.support.cluster import Cluster
from tests.support.patches import apply_patch
from tests.support.raw_websocket import CLOSE, TEXT, ConnectionEnded, RawWebSocket, client_frame
from tests.support.store import chess_request, make_store
from tests.support.types import Redis
from tests.support.web_clients import CHESS, RestClient

pytestmark = pytest.mark.usefixtures("no_errors_logged")

SOCKETS = 300


class Eager(RawWebSocket):
    """A client that sends its first messages in the packet of its handshake."""

    def __init__(self, url: str, session_id: str, messages: list[dict[str, Any]]) -> None:
        self._first = b"".join(client_frame(orjson.dumps(message)) for message in messages)
        super().__init__(url, session_id)

    def _shake_hands(self, address: tuple[str, int], session_id: str, headers: Any) -> None:
        self.socket.settimeout(60)
        self.socket.connect(address)
        key = base64.b64encode(os.urandom(16)).decode()
        head = (
            f"GET /ws?sessionId={session_id} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n"
        )
        self.socket.sendall(head.encode() + self._first)
        while b"\r\n\r\n" not in self._buffer:
            self._receive()
        answer, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 101")


def order_of(message: dict[str, Any]) -> Order | None:
    """Return the session's order in a message, if it has one."""
    found = message.get("state", message)
    return (found["epoch"], found["version"]) if found.get("version") else None


def check_order(told: list[dict[str, Any]], *, gaps: bool = False) -> tuple[int, int]:
    """Check one connection's messages: CONNECTED first, rising versions, nothing older after an answer.

    gaps: versions may be skipped, when messages take seconds; a whole state replaces them.
    Returns the number of the client's commits, and of those that came as updates.
    """
    assert told[0]["type"] in ("CONNECTED", "ERROR"), told[0]
    assert "id" not in told[0]
    newest: Order = NEVER
    own: list[Order] = []
    state: dict[str, Any] = {}
    for message in told:
        order = order_of(message)
        if message["type"] == "CONNECTED":
            assert order is None or order >= newest
        elif message["type"] in ("STATE_SYNC", "STATE_UPDATE", "STATE_PATCH"):
            assert order
            assert order >= newest, told
            newest = order
            if message["type"] == "STATE_PATCH":
                assert order == (state["epoch"], state["version"] + 1)
                state = apply_patch(state, message)
            else:
                state = message["state"]
        elif message["type"] == "ACK" and order:
            assert order <= newest, told  # the client knows its own command
            if not message.get("replayed"):
                own.append(order)
        elif message["type"] == "ERROR" and "id" in message and "current" in message.get("details", {}):
            current = message["details"]["current"]
            assert (current["epoch"], current["version"]) <= newest
    updates = [order_of(each) for each in told if each["type"] in ("STATE_UPDATE", "STATE_PATCH")]
    for order in own:
        assert updates.count(order) in ((0, 1) if gaps else (1,)), (order, told)
    return len(own), len([order for order in own if order in updates])


def hear(raw: RawWebSocket, until: Callable[[list[dict[str, Any]]], bool]) -> list[dict[str, Any]]:
    """Return a client's messages until `check` is true or the server closes."""
    told: list[dict[str, Any]] = []
    while not until(told):
        try:
            received = raw.next()
        except ConnectionEnded:
            break
        if received.opcode == CLOSE:
            break
        if received.opcode == TEXT:
            told.append(received.message)
    return told


def answers(told: list[dict[str, Any]]) -> list[Any]:
    return [message["id"] for message in told if message["type"] in ("ACK", "ERROR") and "id" in message]


def command(number: int, name: str = "switch", **more: Any) -> dict[str, Any]:
    return {"type": "COMMAND", "id": number, "command": name, **more}


def test_300_sockets_with_a_command_in_the_first_packet_are_told_everything_in_order(apis: list[RestClient]) -> None:
    sessions = [api.running() for api in apis for _ in range(4)]
    epochs = {session_id: apis[0].state(session_id)["epoch"] for session_id in sessions}
    failed: list[BaseException] = []
    counted = threading.Lock()
    kinds: list[str] = []
    own: list[tuple[int, int]] = []

    def play(number: int) -> None:
        session_id = sessions[number % len(sessions)]
        query = ("", "&format=patch", f"&epoch={epochs[session_id]}&version=2", "&epoch=1&version=1&format=patch")
        messages = [
            [command(1)],
            [command(1), {"type": "PING", "t0": 7}, command(2)],
            [{"type": "PING"}, {"type": "RECONNECT"}, command(1)],
            [command(1, idempotency_key=f"key-{number % 7}"), command(2, "pause", expected_version=1), command(3)],
        ][number // 4 % 4]
        expected = [message["id"] for message in messages if message["type"] == "COMMAND"]
        try:
            with Eager(apis[number % 2].url, session_id + query[number % 4], messages) as raw:
                told = hear(raw, lambda told: answers(told) == expected)
            assert sorted(answers(told)) == expected
            made = check_order(told, gaps=True)
            with counted:
                kinds.extend(message["type"] for message in told)
                own.append(made)
        except BaseException as error:
            failed.append(error)
            raise

    for first in range(0, SOCKETS, 50):
        threads = [threading.Thread(target=play, args=(number,)) for number in range(first, first + 50)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed
    assert sum(updated for _, updated in own) > sum(commits for commits, _ in own) / 2
    assert kinds.count("CONNECTED") >= SOCKETS
    assert kinds.count("ACK") >= SOCKETS
    assert {"STATE_UPDATE", "STATE_PATCH", "PONG", "ERROR"} <= set(kinds)


@pytest.mark.parametrize("form", ["state", "patch"])
def test_who_makes_plays_and_deletes_a_session_in_one_packet_is_told_each_step_before_its_answer(
    apis: list[RestClient], form: str
) -> None:
    for api in apis * 10:
        session_id = str(uuid.uuid4())
        messages = [
            command(1, "create", args=CHESS),
            command(2, "start"),
            command(3, "start"),
            command(4, "switch"),
            command(5, "delete"),
        ]
        with Eager(api.url, f"{session_id}&format={form}", messages) as raw:
            told = hear(raw, lambda told: False)
        check_order(told)
        update = "STATE_UPDATE" if form == "state" else "STATE_PATCH"
        assert [message["type"] for message in told] == [
            "CONNECTED",
            *("STATE_UPDATE", "ACK"),
            *(update, "ACK"),
            "ERROR",
            *(update, "ACK"),
            *("SESSION_DELETED", "ACK"),
        ]
        assert told[0]["version"] is None
        assert told[-1].keys() == {"type", "sessionId", "timestamp", "id"}


def test_a_delete_of_what_is_not_there_is_answered_and_the_connection_stays(apis: list[RestClient]) -> None:
    with Eager(apis[0].url, str(uuid.uuid4()), [command(1, "delete"), {"type": "PING"}]) as raw:
        assert [raw.message()["type"], raw.message()["type"]] == ["CONNECTED", "PONG"]
        assert raw.message()["type"] == "ACK"


def test_many_who_act_on_one_session_are_each_told_of_their_own_commits_once(apis: list[RestClient]) -> None:
    session_id = apis[0].running()
    count = 40
    told: dict[int, list[dict[str, Any]]] = {}

    def play(number: int) -> None:
        query = "&format=patch" if number % 2 else ""
        with RawWebSocket(apis[number // 2 % 2].url, session_id + query) as raw:
            for i in range(count):
                raw.send(command(i))
                if random.random() < 0.3:
                    raw.send({"type": "RECONNECT"})
            told[number] = hear(raw, lambda heard: len(answers(heard)) == count)

    threads = [threading.Thread(target=play, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 8
    for heard in told.values():
        assert answers(heard) == list(range(count))
        assert heard[0]["type"] == "CONNECTED"
        newest: Order = NEVER
        for message in heard:
            order = order_of(message)
            if message["type"] == "ACK":
                assert order
                assert order <= newest
            elif order:
                assert order >= newest
                newest = order


def test_a_connection_that_begins_while_the_store_is_away_begins_with_an_error(
    pair: Cluster, apis: list[RestClient], valkey: Valkey
) -> None:
    session_id = apis[0].running()
    with ExitStack() as stack:
        valkey.stop()
        try:
            time.sleep(0.5)
            raw = stack.enter_context(Eager(apis[0].url, session_id, [{"type": "PING"}, command(1, "pause")]))
            told = [raw.message()]
            assert (told[0]["type"], told[0]["code"], "id" in told[0]) == ("ERROR", "STORE_UNAVAILABLE", False)
            while 1 not in answers(told):
                told.append(raw.message())
        finally:
            valkey.start()
        number = 1
        while told[-1]["type"] != "ACK":  # the store may not be back yet
            number += 1
            raw.send(command(number))
            while number not in answers(told):
                told.append(raw.message())
    assert {"CONNECTED", "STATE_SYNC"} <= {message["type"] for message in told}
    newest = [order_of(message) for message in told if "state" in message][-1]
    assert order_of(told[-1]) == newest


# Without a network.


@pytest.fixture
def results(redis: Redis, redis_url: str) -> list[Result]:
    """The results of a session's first 60 versions."""
    store = make_store(redis_url, set_clock=False)
    session_id = store.create(chess_request()).found.session_id
    return [store.start(session_id), *[store.switch(session_id) for _ in range(58)]]


def update_of(result: Result, **more: Any) -> SessionUpdate:
    event = None if more else result.event
    return SessionUpdate(result.found.session_id, 0, session=result.found, event=event, **more)


def ack_of(result: Result, due_s: float = 10.0, **more: Any) -> QueuedAnswer:
    return QueuedAnswer(b"ack", result.found.order, due_s, result, **more)


def taken(backlog: SendQueue) -> list[str]:
    return [item.kind for item in iter(backlog.take, None)]


def test_an_answer_waits_for_its_news_and_goes_at_once_when_they_are_known(results: list[Result]) -> None:
    backlog = SendQueue()
    backlog.put(update_of(results[0]))
    assert taken(backlog) == ["CONNECTED", "STATE_SYNC"]
    backlog.answer("", Outgoing.ACK, ack_of(results[2]))
    assert not taken(backlog)
    assert backlog.due_s == 10
    assert backlog.direct_kind(update_of(results[1])) is None
    backlog.put(update_of(results[1]))
    backlog.put(update_of(results[2]))
    assert taken(backlog) == ["STATE_UPDATE", "STATE_UPDATE", "ACK"]
    backlog.answer("", Outgoing.ACK, ack_of(results[1]))
    backlog.answer("", Outgoing.ERROR, QueuedAnswer(b"no", NEVER, 10))
    assert taken(backlog) == ["ACK", "ERROR"]


def test_answers_keep_their_order_when_one_waits(results: list[Result]) -> None:
    backlog = SendQueue()
    backlog.put(update_of(results[0]))
    taken(backlog)
    backlog.answer("", Outgoing.ACK, ack_of(results[1]))
    backlog.answer("", Outgoing.ERROR, QueuedAnswer(b"no", NEVER, 10))
    assert not taken(backlog)
    backlog.put(update_of(results[1]))
    assert taken(backlog) == ["STATE_UPDATE", "ACK", "ERROR"]


def test_an_answer_whose_news_are_lost_brings_the_state_itself_and_the_news_that_come_late_are_not_told(
    results: list[Result],
) -> None:
    backlog = SendQueue()
    backlog.put(update_of(results[0]))
    taken(backlog)
    backlog.answer("", Outgoing.ACK, ack_of(results[3], 5.0))
    backlog.release_due(4.9)
    assert not taken(backlog)
    backlog.release_due(5.0)
    assert taken(backlog) == ["STATE_SYNC", "ACK"]
    for late in results[1:4]:
        backlog.put(update_of(late))
    assert not taken(backlog)
    backlog.put(update_of(results[4]))
    assert taken(backlog) == ["STATE_UPDATE"]


def test_a_read_that_is_older_than_an_answer_is_not_told_until_the_store_was_asked_again(
    results: list[Result],
) -> None:
    for truth in (results[3], results[1]):
        backlog = SendQueue()
        backlog.put(update_of(results[9]))
        taken(backlog)
        backlog.answer("", Outgoing.ACK, ack_of(results[3]))  # the store has lost commits
        assert taken(backlog) == ["ACK"]
        backlog.put(update_of(results[2], went_back=True))  # read before the command
        assert not taken(backlog)
        assert backlog.needs_resync
        assert backlog.take_resyncs() == [("", results[3].found.order)]
        backlog.put(update_of(results[2]))
        assert not taken(backlog)
        if truth is results[1]:
            backlog.put(update_of(truth, went_back=True))  # more of them
        else:
            backlog.put(update_of(truth))
        assert taken(backlog) == ["CONNECTED", "STATE_SYNC"]
        backlog.put(update_of(results[4]))
        assert taken(backlog)[-1:] in (["STATE_UPDATE"], ["STATE_SYNC"])


def test_an_older_position_than_an_answer_is_never_told(results: list[Result]) -> None:
    backlog = SendQueue()
    backlog.put(update_of(results[0]))
    backlog.put(update_of(results[1]))
    backlog.answer("", Outgoing.ACK, ack_of(results[1]))
    taken(backlog)
    assert backlog.restart(NEVER) == results[1].found.order
    backlog.put(SessionUpdate(results[0].found.session_id, 0, session=results[0].found))
    assert not taken(backlog)
    backlog.put(SessionUpdate(results[0].found.session_id, 0, session=results[1].found))
    assert taken(backlog) == ["CONNECTED", "STATE_SYNC"]


def test_a_replay_is_answered_at_once_where_its_version_is_known(redis: Redis, redis_url: str) -> None:
    store = make_store(redis_url, set_clock=False)
    session_id = store.create(chess_request()).found.session_id
    first = store.start(session_id, claim=Claim(idempotency_key="k"))
    later = store.switch(session_id)
    again = store.start(session_id, claim=Claim(idempotency_key="k"))
    assert again.replayed
    assert again.order == first.order
    backlog = SendQueue()
    backlog.put(update_of(later))
    backlog.answer("", Outgoing.ACK, ack_of(later))
    backlog.answer("", Outgoing.ACK, QueuedAnswer(b"again", again.order or NEVER, 10, again))
    assert taken(backlog) == ["CONNECTED", "STATE_SYNC", "ACK", "ACK"]
    assert backlog.restart(NEVER) == later.found.order


def test_the_answer_to_a_delete_comes_after_the_end_and_lets_all_others_go(results: list[Result]) -> None:
    session_id = results[0].found.session_id
    backlog = SendQueue()
    backlog.put(update_of(results[0]))
    taken(backlog)
    backlog.answer("", Outgoing.ACK, QueuedAnswer(b"deleted", AFTER_DELETE, 10))
    backlog.answer("", Outgoing.ACK, QueuedAnswer(b"made anew", (1 << 50, 1), 10))
    assert not taken(backlog)
    backlog.put(SessionUpdate(session_id, 0, order=(results[0].found.epoch, 3), event={"type": "session_deleted"}))
    assert taken(backlog) == ["SESSION_DELETED", "ACK", "ACK"]


def test_answers_are_kept_when_states_give_way_to_the_newest(results: list[Result]) -> None:
    backlog = SendQueue()
    for result in results:
        backlog.put(update_of(result))
        backlog.answer("", Outgoing.ACK, ack_of(result))
    kinds = taken(backlog)
    assert kinds.count("ACK") == len(results)
    assert backlog.skipped > 0
    # The newest state comes before the answers to all commands that it includes.
    assert kinds[:3] == ["CONNECTED", "STATE_SYNC", "ACK"]


def test_a_position_comes_before_the_answers_whose_states_it_replaces(results: list[Result]) -> None:
    backlog = SendQueue()
    backlog.put(update_of(results[0]))
    backlog.put(SessionUpdate("", 0, error=StoreUnavailable("away")))
    backlog.put(update_of(results[1]))
    backlog.answer("", Outgoing.ACK, ack_of(results[1]))
    backlog.restart(NEVER)
    backlog.put(update_of(results[2]))
    assert taken(backlog) == ["CONNECTED", "ERROR", "CONNECTED", "CONNECTED", "STATE_SYNC", "ACK"]


def test_an_unknown_session_and_one_that_is_gone_are_told_apart(results: list[Result]) -> None:
    session_id = results[0].found.session_id
    backlog = SendQueue((5, 5))
    backlog.put(SessionUpdate(session_id, 0, error=StoreUnavailable("away")))
    backlog.put(SessionUpdate(session_id, 0, error=SessionNotFound("no")))
    backlog.put(SessionUpdate(session_id, 0, error=SessionNotFound("no")))
    assert taken(backlog) == ["ERROR", "CONNECTED"]
    backlog.put(update_of(results[0]))
    assert taken(backlog) == ["STATE_SYNC"]
    backlog.put(SessionUpdate(session_id, 0, error=SessionNotFound("gone")))
    assert taken(backlog) == ["ERROR"]

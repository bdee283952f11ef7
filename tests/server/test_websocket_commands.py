"""Commands over WebSockets: the same rules as over REST, answered by id, in the order they were sent."""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
from typing import Any

import pytest
import requests

from syncapp.dev.servers import Valkey
from syncapp.domain.commands import COMMANDS, CREATE, START
from syncapp.domain.principal import Principal
from syncapp.errors import StoreUnavailable, SyncError
from syncapp.realtime.protocol import Close, Command, parse
from syncapp.server.command_queue import MAX_IN_FLIGHT, CommandPool, CommandQueue
from tests.support.cluster import Cluster, MakeCluster
from tests.support.raw_websocket import TEXT, RawWebSocket, client_frame
from tests.support.store import make_store, outbox_messages
from tests.support.types import Redis
from tests.support.web_clients import CHESS, OpenWebSocket, RestClient, WebSocketClient, metric_value, wait_until

pytestmark = pytest.mark.usefixtures("no_errors_logged")


@pytest.fixture(scope="module")
def pair(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(worker=False, WS_MESSAGES_PER_S="1000", WS_MESSAGES_BURST="2000", REDIS_TIMEOUT_S="5")


def command(one: WebSocketClient, name: str, *, id: str | int = "c", **more: Any) -> dict[str, Any]:  # noqa: A002 - the field's name
    """Send a command, and return its answer; other messages are skipped."""
    one.send(type="COMMAND", id=id, command=name, **more)
    while True:
        message = one.next()
        if message["type"] in ("ACK", "ERROR"):
            assert message["id"] == id
            return message


def test_every_command_does_what_it_does_over_rest(apis: list[RestClient], open_websocket: OpenWebSocket) -> None:
    session_id = str(uuid.uuid4())
    one = open_websocket(apis[0].url, session_id)
    assert one.next()["version"] is None
    steps: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
        ("create", CHESS | {"metadata": {"round": 1}, "takeback_cycles": 1}, "pending", {}),
        ("start", {"participant_id": "black"}, "running", {"active_participant_id": "black"}),
        ("switch", {"participant_id": "black"}, "running", {"active_participant_id": "white"}),
        ("switch", {"next_participant_id": "white"}, "running", {"active_participant_id": "white"}),
        ("takeback", {"cycles": 1}, "running", {"active_participant_id": "white", "cycle_count": 1}),
        ("pause", {}, "paused", {}),
        ("adjust", {"op": "set", "ms": 1000, "participant_id": "black", "reason": "late"}, "paused", {}),
        ("resume", {}, "running", {}),
        ("update", {"metadata": {"round": None, "hall": 2}}, "running", {"metadata": {"hall": 2}}),
        (
            "complete",
            {"reason": "mate", "result": [1, 0]},
            "completed",
            {"completion": {"reason": "mate", "result": [1, 0]}},
        ),
        ("reopen", {"reason": "not mate"}, "paused", {"session_completed_at": None}),
    ]
    for version, (name, args, status, more) in enumerate(steps, 1):
        ack = command(one, name, id=version, args=args)
        assert (ack["type"], ack["version"], "replayed" in ack) == ("ACK", version, False), ack
        state = apis[1].state(session_id)
        assert (state["epoch"], state["version"], state["status"]) == (ack["epoch"], version, status)
        assert state | more == state
    ack = command(one, "delete")
    assert ack.keys() == {"type", "sessionId", "timestamp", "id"}
    assert one.close_code() == Close.DONE
    assert {name for name, *_ in steps} | {"delete", "cancel"} == COMMANDS.keys()
    other = open_websocket(apis[0].url, apis[0].running())
    assert command(other, "cancel", args={"reason": "rain"})["version"] == 3


@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("start", {}),
        ("resume", {}),
        ("switch", {"participant_id": "black"}),
        ("switch", {"expected_version": 1}),
        ("switch", {"expected_version": 2, "expected_epoch": 1}),
        ("switch", {"next_participant_id": "nobody"}),
        ("switch", {"participant_id": "no spaces", "more": 1}),
        ("adjust", {"op": "add"}),
        ("adjust", {"op": "set", "ms": -5, "participant_id": "white", "group_id": "g"}),
        ("adjust", {"op": "add", "ms": 1000, "group_id": "g"}),
        ("cancel", {"reason": ""}),
        ("pause", {"expected_version": "2"}),
    ],
)
def test_a_refusal_has_the_code_and_the_details_of_rest(
    apis: list[RestClient], open_websocket: OpenWebSocket, name: str, body: dict[str, Any]
) -> None:
    session_id = apis[0].running()
    answer = requests.post(f"{apis[1].url}/v1/sessions/{session_id}/{name}", json=body, timeout=60)
    assert answer.status_code in (400, 409)
    expected = answer.json()["error"]
    one = open_websocket(apis[0].url, session_id)
    claims = {each: body[each] for each in ("expected_version", "expected_epoch") if each in body}
    args = {each: value for each, value in body.items() if each not in claims}
    found = command(one, name, args=args, **claims)
    assert (found["type"], found["code"], found["message"]) == ("ERROR", expected["code"], expected["message"])
    assert timeless(found.get("details")) == timeless(expected["details"])


def timeless(details: Any) -> Any:
    """Leave out the fields that change with time."""
    if isinstance(details, dict) and "current" in details:
        current = {name: value for name, value in details["current"].items() if name not in ("server_time_ms", "clock")}
        return details | {"current": current}
    return details


def test_a_switch_that_finds_the_mover_out_of_time_says_who(
    apis: list[RestClient], open_websocket: OpenWebSocket
) -> None:
    budgets = {"white": 1000, "black": 60_000, "red": 60_000}
    people = [{"participant_id": name, "total_time_ms": ms} for name, ms in budgets.items()]
    session_id = apis[0].create(participants=people, action_on_timeout={"type": "skip_cycle"})
    one = open_websocket(apis[0].url, session_id)
    command(one, "start")
    time.sleep(1.1)
    ack = command(one, "switch")
    # Either the sweeper or the switch has applied it.
    assert ack.get("expired_participant_id", "white") == "white"
    ended = apis[0].running(participants=people[:2])
    two = open_websocket(apis[0].url, ended)
    time.sleep(1.1)
    error = command(two, "switch")
    assert error["code"] == "INVALID_STATE_TRANSITION"
    assert error["details"]["current"]["status"] == "expired"


def test_a_key_brings_the_first_result_back_over_rest_too(
    apis: list[RestClient], open_websocket: OpenWebSocket
) -> None:
    session_id = apis[0].running()
    one, two = open_websocket(apis[0].url, session_id), open_websocket(apis[1].url, session_id)
    first = command(one, "switch", id=1, idempotency_key="k")
    again = command(two, "switch", id=2, idempotency_key="k")
    assert (first["version"], "replayed" in first) == (3, False)
    assert (again["version"], again["replayed"]) == (3, True)
    answer = requests.post(
        f"{apis[1].url}/v1/sessions/{session_id}/switch", headers={"Idempotency-Key": "k"}, timeout=10
    )
    assert answer.headers["Idempotency-Replayed"] == "true"
    assert answer.json()["data"]["version"] == 3
    assert command(two, "pause", idempotency_key="k")["code"] == "IDEMPOTENCY_MISMATCH"
    assert apis[0].state(session_id)["version"] == 3


def test_several_in_flight_are_answered_by_id_in_their_order_and_seen_once(
    apis: list[RestClient], open_websocket: OpenWebSocket
) -> None:
    session_id = apis[0].running()
    one = open_websocket(apis[0].url, session_id)
    one.next("STATE_SYNC")
    count = 300
    for i in range(count):
        one.send(type="COMMAND", id=i, command="update", args={"metadata": {"last": i}})
    acks: list[dict[str, Any]] = []
    versions: list[int] = []
    while len(acks) < count or versions[-1] < acks[-1]["version"]:
        message = one.next()
        if message["type"] == "ACK":
            acks.append(message)
        else:
            versions.append(message["state"]["version"])
            assert message["state"]["metadata"] == {"last": versions[-1] - 3}
    assert [ack["id"] for ack in acks] == list(range(count))
    assert [ack["version"] for ack in acks] == list(range(3, count + 3))
    assert versions == sorted(set(versions))
    assert one.silent(0.1)


def test_commands_of_many_connections_to_two_processes_all_count(
    apis: list[RestClient], open_websocket: OpenWebSocket
) -> None:
    session_id = apis[0].running()
    clients = [open_websocket(apis[i % 2].url, session_id) for i in range(8)]
    acked: list[int] = []

    def play(one: WebSocketClient) -> None:
        acked.extend(command(one, "switch", id=i)["version"] for i in range(25))

    threads = [threading.Thread(target=play, args=(one,)) for one in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    state = apis[0].state(session_id)
    assert sorted(acked) == list(range(3, 203))
    assert (state["version"], state["cycle_count"]) == (202, 200)
    assert metric_value(apis[0].url, 'syncapp_ws_commands_total{answer="ACK",command="switch"}') >= 100


def test_a_command_is_one_call_of_the_store(
    apis: list[RestClient], open_websocket: OpenWebSocket, redis_url: str
) -> None:
    one = open_websocket(apis[0].url, apis[0].running())
    command(one, "switch")
    with Redis.from_url(redis_url) as redis:
        redis.config_resetstat()
        for i in range(50):
            command(one, "switch", id=i)
        stats = redis.info("commandstats")
    assert stats["cmdstat_fcall"]["calls"] - 50 < 10  # the sweeper's, if any


def test_an_update_and_the_answer_to_its_command_arrive_together(apis: list[RestClient]) -> None:
    together = 0
    with RawWebSocket(apis[0].url, apis[0].running()) as raw:
        assert [raw.message()["type"] for _ in range(2)] == ["CONNECTED", "STATE_SYNC"]
        for number in range(20):
            raw.send({"type": "COMMAND", "id": number, "command": "switch", "args": {}})
            assert raw.message()["type"] == "STATE_UPDATE"
            together += raw.has_received
            assert raw.message()["id"] == number
    assert together > 10  # an answer that has waited for its update for 2 s goes without it


def test_a_ping_is_answered_while_the_store_is_silent(
    apis: list[RestClient], open_websocket: OpenWebSocket, valkey: Valkey
) -> None:
    session_id = apis[0].running()
    one = open_websocket(apis[0].url, session_id)
    one.next("STATE_SYNC")
    valkey.pause()
    try:
        for i in range(3):
            one.send(type="COMMAND", id=i, command="switch", idempotency_key=f"k{i}")
        assert one.ask(type="PING", t0=1)["t0"] == 1
        errors = [one.next("ERROR") for _ in range(3)]
    finally:
        valkey.unpause()
    assert [error["id"] for error in errors] == [0, 1, 2]
    assert {error["code"] for error in errors} == {"STORE_UNAVAILABLE"}
    assert "unknown" in errors[0]["message"]
    assert all("not sent" in error["message"] for error in errors[1:])
    wait_until(lambda: command(one, "switch", id=9, idempotency_key="k0")["type"] == "ACK")
    assert apis[0].state(session_id)["version"] == 3


def test_who_reads_no_answers_has_no_more_commands_run(apis: list[RestClient]) -> None:
    session_id = apis[0].create(metadata={"text": "x" * 16_000})
    refused = json.dumps({"type": "COMMAND", "id": 1, "command": "pause"}).encode()
    with RawWebSocket(apis[0].url, session_id, receive_bytes=4096) as raw:
        before = metric_value(apis[0].url, "syncapp_ws_commands_total")
        raw.socket.settimeout(1)
        for _ in range(1500):
            raw.socket.sendall(client_frame(refused))
        time.sleep(1)
        # Each answer is 17 kB; some fit into the sockets, 32 may be in flight, and the rest is not read.
        ran = metric_value(apis[0].url, "syncapp_ws_commands_total") - before
        assert ran < 200
        answers = 0
        raw.socket.settimeout(60)
        while answers < 1500:
            received = raw.next()
            if received.opcode == TEXT and received.message["type"] == "ERROR":
                answers += 1


def test_a_client_that_goes_after_its_commands_hurts_nobody(apis: list[RestClient]) -> None:
    session_id = apis[0].running()
    for _ in range(20):
        with RawWebSocket(apis[0].url, session_id) as raw:
            for i in range(20):
                raw.send({"type": "COMMAND", "id": i, "command": "switch"})
    wait_until(lambda: metric_value(apis[0].url, "syncapp_ws_connections") == 0)
    state = apis[0].state(session_id)
    assert state["version"] == state["cycle_count"] + 2


def test_the_audit_trail_names_the_connection_and_the_command(
    pair: Cluster, apis: list[RestClient], redis_url: str
) -> None:
    session_id = apis[0].running()
    with RawWebSocket(apis[0].url, session_id) as raw, Redis.from_url(redis_url) as redis:
        raw.send({"type": "COMMAND", "id": 1, "command": "switch"})
        raw.message("ACK")
        request_id = outbox_messages(redis, session_id)[-1]["request_id"]
    connection, number = request_id.split(".")
    assert number == "1"
    assert f"connection={connection}" in pair.web[0].output()


class Recorded:
    """A fake connection that records its commands and answers."""

    def __init__(self, store_is_away: bool = False) -> None:
        self.store_is_away = store_is_away
        self.accepts_answers = True
        self.done: list[Any] = []
        self.refused: list[Any] = []
        self.seen = threading.Event()

    def run(self, command: Command, principal: Principal) -> SyncError | None:
        self.done.append(command.id)
        return StoreUnavailable("away") if self.store_is_away else None

    def refuse(self, command: Command, fault: SyncError) -> None:
        self.refused.append(command.id)

    def command_finished(self) -> None:
        self.seen.set()


def asked(id: int) -> Command:  # noqa: A002 - the field's name
    found = parse(json.dumps({"type": "COMMAND", "id": id, "command": "pause"}))
    assert isinstance(found, Command)
    return found


def test_commands_of_a_connection_run_one_after_the_other_while_those_of_others_go_on() -> None:
    started: list[CommandQueue] = []
    crew, owners = CommandPool(4, started.append), [Recorded() for _ in range(10)]
    inboxes = [CommandQueue(crew, 5, owner) for owner in owners]
    for i in range(MAX_IN_FLIGHT):
        for inbox in inboxes:
            inbox.put(asked(i))
    progress: list[list[int]] = []
    while started:
        assert len(started) <= 4
        assert len(set(started)) == len(started)
        started.pop(random.randrange(len(started))).turn()
        progress.append([len(owner.done) for owner in owners])
    assert all(owner.done == list(range(MAX_IN_FLIGHT)) for owner in owners)
    assert max(max(counts) - min(counts) for counts in progress) < MAX_IN_FLIGHT


def run(started: list[CommandQueue]) -> None:
    while started:
        started.pop(0).turn()


def test_what_waits_behind_a_failure_of_the_store_or_too_long_is_not_run() -> None:
    started: list[CommandQueue] = []
    crew, owner = CommandPool(1, started.append), Recorded(store_is_away=True)
    owner.accepts_answers = False
    inbox = CommandQueue(crew, 1.0, owner)
    for i in range(4):
        inbox.put(asked(i))
    assert not owner.done
    owner.accepts_answers = True
    inbox.proceed()
    run(started)
    assert (owner.done, owner.refused) == ([0], [1, 2, 3])
    owner.store_is_away = owner.accepts_answers = False
    inbox.put(asked(5))
    time.sleep(1.2)
    owner.accepts_answers = True
    inbox.put(asked(6))
    run(started)
    assert (owner.done, owner.refused) == ([0, 6], [1, 2, 3, 5])


def test_a_store_answers_a_socket_as_it_answers_itself(redis: Redis, redis_url: str) -> None:
    from syncapp.domain.results import Claim

    store = make_store(redis_url, set_clock=False)
    assert all(hasattr(store, name) and command.name == name for name, command in COMMANDS.items())
    made = CREATE.run(store, "", CREATE.body.parse(CHESS), Claim())
    started = START.run(store, made.found.session_id, START.body.parse({}), Claim())
    assert started.found.status == "running"

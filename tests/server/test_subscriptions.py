"""Many sessions on one WebSocket: each receives the same messages as on its own connection."""

from __future__ import annotations

import random
import re
import threading
import time
import uuid
from contextlib import ExitStack
from typing import Any

import psutil
import pytest

from syncapp.domain.version_order import NEVER
from syncapp.realtime.protocol import Close, Outgoing
from syncapp.realtime.round_robin import MIN_SHARE_BYTES, RoundRobin
from syncapp.realtime.send_queue import MAX_BYTES, SendQueue
from syncapp.realtime.topic import SessionUpdate
from tests.support.cluster import Cluster, MakeCluster
from tests.support.patches import apply_patch
from tests.support.raw_websocket import TEXT, RawWebSocket
from tests.support.store import chess_request, make_store
from tests.support.types import Redis
from tests.support.web_clients import CHESS, OpenWebSocket, RestClient, WebSocketClient, metric_value, wait_until

pytestmark = pytest.mark.usefixtures("no_errors_logged")


@pytest.fixture(scope="module")
def pair(make_cluster: MakeCluster, redis_url: str) -> Cluster:
    with Redis.from_url(redis_url) as client:
        client.flushdb()
    return make_cluster(worker=False, WS_MESSAGES_PER_S="1000", WS_MESSAGES_BURST="2000")


@pytest.fixture(scope="module")
def patient(make_cluster: MakeCluster) -> Cluster:
    """A web process with very long timeouts for clients and for the store."""
    waits = {"REDIS_TIMEOUT_S": "60", "WS_SLOW_CLOSE_S": "600", "WS_PING_INTERVAL_S": "600"}
    return make_cluster(web=1, worker=False, WS_MESSAGES_PER_S="1000", WS_MESSAGES_BURST="2000", **waits)


@pytest.fixture(scope="module")
def strict(make_cluster: MakeCluster) -> Cluster:
    """A web process with small limits."""
    return make_cluster(
        web=1, worker=False, WS_MAX_SUBSCRIPTIONS="3", WS_MAX_CONNECTIONS_PER_SESSION="2", WS_MESSAGES_BURST="20"
    )


def bare(open_websocket: OpenWebSocket, api: RestClient) -> WebSocketClient:
    """Return a connection without a session of its own."""
    one = open_websocket(api.url)
    connected = one.next()
    assert (connected["type"], connected["sessionId"]) == ("CONNECTED", None)
    assert (connected["epoch"], connected["version"]) == (None, None)
    return one


def subscribed(one: WebSocketClient, session_id: str, **more: Any) -> list[dict[str, Any]]:
    """Subscribe, and return SUBSCRIBED and CONNECTED."""
    one.send(type="SUBSCRIBE", session_id=session_id, **more)
    told = [one.next("SUBSCRIBED"), one.next("CONNECTED")]
    assert {each["sessionId"] for each in told} == {session_id.lower()}
    return told


def test_each_session_begins_and_goes_on_as_on_a_connection_of_its_own(
    apis: list[RestClient], open_websocket: OpenWebSocket
) -> None:
    one = bare(open_websocket, apis[0])
    sessions = [apis[i % 2].running(metadata={"hall": i}) for i in range(5)]
    for i, session_id in enumerate(sessions):
        answer, connected = subscribed(one, session_id.upper() if i == 1 else session_id, id=f"s{i}")
        assert answer["id"] == f"s{i}"
        sync = one.next()
        assert (sync["type"], sync["sessionId"], connected["version"]) == ("STATE_SYNC", session_id, 2)
        assert sync["state"]["metadata"] == {"hall": i}
    for session_id in sessions:
        apis[1].command(session_id, "switch")
    told = [one.next() for _ in sessions]
    assert {each["type"] for each in told} == {"STATE_UPDATE"}
    assert sorted(each["sessionId"] for each in told) == sorted(sessions)
    assert one.silent(0.1)


def test_a_connection_of_a_session_may_watch_others_and_knows_what_it_had(
    apis: list[RestClient], open_websocket: OpenWebSocket
) -> None:
    own, other = apis[0].running(), apis[0].running()
    epoch = apis[0].state(other)["epoch"]
    one = open_websocket(apis[0].url, own, format="patch")
    one.next("STATE_SYNC")
    _, connected = subscribed(one, other, epoch=epoch, version=2)
    assert (connected["epoch"], connected["version"]) == (epoch, 2)
    assert one.silent(0.1)
    apis[1].command(own, "switch")
    assert one.next()["type"] == "STATE_PATCH"
    apis[1].command(other, "switch")
    patch = one.next()
    assert (patch["type"], patch["sessionId"]) == ("STATE_PATCH", other)


def test_commands_and_questions_name_their_session_or_mean_that_of_the_url(
    apis: list[RestClient], open_websocket: OpenWebSocket
) -> None:
    own, other, unknown = apis[0].running(), apis[0].running(), str(uuid.uuid4())
    one = open_websocket(apis[0].url, own)
    one.next("STATE_SYNC")
    subscribed(one, other)
    one.next("STATE_SYNC")
    for named, meant in ((None, own), (own, own), (other, other)):
        one.send(type="COMMAND", id=1, command="switch", **({"session_id": named} if named else {}))
        update, ack = one.next(), one.next()
        assert [update["type"], ack["type"]] == ["STATE_UPDATE", "ACK"]
        assert {update["sessionId"], ack["sessionId"]} == {meant}
        one.send(type="RECONNECT", **({"session_id": named} if named else {}))
        assert [one.next()["sessionId"], one.next()["sessionId"]] == [meant] * 2
    error = one.ask(type="COMMAND", id=2, command="switch", session_id=unknown)
    assert (error["code"], error["id"], error["sessionId"]) == ("VALIDATION_ERROR", 2, unknown)
    assert error["details"][0]["field"] == "session_id"
    assert one.ask(type="RECONNECT", session_id=unknown)["code"] == "VALIDATION_ERROR"
    subscribed(one, unknown)
    one.send(type="COMMAND", id=3, command="create", session_id=unknown, args=CHESS)
    assert [one.next()["type"], one.next()["type"]] == ["STATE_UPDATE", "ACK"]
    error = one.ask(type="COMMAND", id=4, command="create", session_id=unknown, args=CHESS | {"session_id": own})
    assert error["details"][0]["field"] == "session_id"


def test_without_a_session_of_its_own_a_connection_has_to_name_one(
    apis: list[RestClient], open_websocket: OpenWebSocket
) -> None:
    one = bare(open_websocket, apis[0])
    for asked in ({"type": "COMMAND", "id": 1, "command": "switch"}, {"type": "RECONNECT"}):
        error = one.ask(**asked)
        assert (error["code"], error["sessionId"]) == ("VALIDATION_ERROR", None)
        assert error["details"][0] == {
            "field": "session_id", "message": "is required: this connection was opened without a session",
            "code": "missing",
        }  # fmt: skip
    assert one.ask(type="PING", t0=1)["sessionId"] is None


@pytest.mark.parametrize(
    ("message", "field"),
    [
        ({"type": "SUBSCRIBE"}, "session_id"),
        ({"type": "SUBSCRIBE", "session_id": "x"}, "session_id"),
        ({"type": "SUBSCRIBE", "session_id": None}, "session_id"),
        ({"type": "SUBSCRIBE", "session_id": str(uuid.UUID(int=1)), "epoch": 1}, "version"),
        ({"type": "SUBSCRIBE", "session_id": str(uuid.UUID(int=1)), "sessionId": "x"}, "sessionId"),
        ({"type": "SUBSCRIBE", "session_id": str(uuid.UUID(int=1)), "id": ""}, "id"),
        ({"type": "UNSUBSCRIBE"}, "session_id"),
        ({"type": "UNSUBSCRIBE", "session_id": 7}, "session_id"),
        ({"type": "COMMAND", "id": 1, "command": "start", "session_id": "x"}, "session_id"),
    ],
)
def test_what_does_not_fit_is_named(
    apis: list[RestClient], open_websocket: OpenWebSocket, message: dict[str, Any], field: str
) -> None:
    one = bare(open_websocket, apis[0])
    error = one.ask(**message)
    assert (error["type"], error["code"]) == ("ERROR", "VALIDATION_ERROR")
    assert field in {detail["field"] for detail in error["details"]}
    assert one.ask(type="PING")["type"] == "PONG"


def test_nothing_of_a_session_follows_its_unsubscribing(apis: list[RestClient], open_websocket: OpenWebSocket) -> None:
    sessions = [apis[0].running() for _ in range(3)]
    one = bare(open_websocket, apis[0])
    for session_id in sessions:
        subscribed(one, session_id)
    stop = threading.Event()

    def play() -> None:
        while not stop.is_set():
            for session_id in sessions:
                apis[1].command(session_id, "switch")

    thread = threading.Thread(target=play)
    thread.start()
    try:
        for i in range(20):
            gone = random.choice(sessions)
            one.send(type="UNSUBSCRIBE", session_id=gone, id=i)
            while (message := one.next())["type"] != "UNSUBSCRIBED":
                pass
            assert (message["sessionId"], message["id"]) == (gone, i)
            for _ in range(10):
                assert one.next()["sessionId"] != gone
            _, connected = subscribed_among_others(one, gone)
            assert connected["version"]
    finally:
        stop.set()
        thread.join()
    one.send(type="UNSUBSCRIBE", session_id=str(uuid.uuid4()))
    assert "id" not in one.next("UNSUBSCRIBED")


def subscribed_among_others(one: WebSocketClient, session_id: str) -> list[dict[str, Any]]:
    one.send(type="SUBSCRIBE", session_id=session_id)
    told: list[dict[str, Any]] = []
    while len(told) < 2:
        if (message := one.next())["sessionId"] == session_id:
            told.append(message)
    assert [each["type"] for each in told] == ["SUBSCRIBED", "CONNECTED"]
    return told


def test_versions_of_each_session_follow_on_each_other_and_answers_on_their_news(apis: list[RestClient]) -> None:
    """Two processes, patches, commands to all sessions from two connections, and commands over REST."""
    sessions = [apis[i % 2].running() for i in range(20)]
    told: dict[int, list[dict[str, Any]]] = {}
    count = 200

    def play(number: int) -> None:
        chance = random.Random(number)
        with RawWebSocket(apis[number].url, sessions[0] + "&format=patch") as raw:
            for session_id in sessions[1:]:
                raw.send({"type": "SUBSCRIBE", "session_id": session_id})
            for i in range(count):
                chosen = chance.choice(sessions)
                raw.send({"type": "COMMAND", "id": i, "command": "switch", "session_id": chosen})
            heard: list[dict[str, Any]] = []
            while sum(message["type"] == "ACK" for message in heard) < count:
                heard.append(raw.message())
                assert heard[-1]["type"] != "ERROR", heard[-1]
            told[number] = heard

    threads = [threading.Thread(target=play, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    for i in range(60):
        apis[i % 2].command(sessions[i % 20], "switch")
    for thread in threads:
        thread.join()
    assert len(told) == 2
    for heard in told.values():
        assert followed(heard) == set(sessions)


def followed(heard: list[dict[str, Any]]) -> set[str]:
    """Check that versions rise in each session, patches fit, and answers follow their updates; return the sessions."""
    states: dict[str, dict[str, Any]] = {}
    for message in heard:
        session_id, kind = message["sessionId"], message["type"]
        before = states.get(session_id, {"version": 0})["version"]
        if kind == "STATE_SYNC":
            assert message["state"]["version"] > before
            states[session_id] = message["state"]
        elif kind == "STATE_PATCH":
            assert message["version"] == before + 1
            states[session_id] = apply_patch(states[session_id], message)
        elif kind == "ACK":
            assert message["version"] <= before
        else:
            assert kind in ("SUBSCRIBED", "CONNECTED")
    return set(states)


def test_a_deleted_session_ends_its_subscription_and_only_the_last_one_the_connection(
    apis: list[RestClient], open_websocket: OpenWebSocket
) -> None:
    own, other, third = (apis[0].running() for _ in range(3))
    one = open_websocket(apis[0].url, own)
    for session_id in (other, third):
        subscribed(one, session_id)
        one.next("STATE_SYNC")
    for session_id in (other, own):
        apis[1].delete(session_id)
        deleted = one.next()
        assert (deleted["type"], deleted["sessionId"]) == ("SESSION_DELETED", session_id)
    assert one.ask(type="COMMAND", id=1, command="start")["code"] == "VALIDATION_ERROR"
    one.send(type="COMMAND", id=2, command="delete", session_id=third)
    assert [one.next()["type"], one.next()["type"]] == ["SESSION_DELETED", "ACK"]
    assert one.ask(type="PING")["type"] == "PONG"
    subscribed(one, own)
    apis[1].create(session_id=own)
    assert one.next()["type"] == "STATE_UPDATE"
    subscribed(one, third)
    one.send(type="UNSUBSCRIBE", session_id=third)
    one.next("UNSUBSCRIBED")
    apis[1].delete(own)
    assert one.next()["type"] == "SESSION_DELETED"
    assert one.close_code() == Close.DONE


def test_limits_refuse_a_subscription_and_the_connection_stays(strict: Cluster, open_websocket: OpenWebSocket) -> None:
    api = RestClient(strict.urls[0])
    crowded = api.running()
    one = open_websocket(api.url, api.running())
    one.next("STATE_SYNC")
    others = [open_websocket(api.url, crowded) for _ in range(2)]
    for other in others:
        other.next("STATE_SYNC")
    error = one.ask(type="SUBSCRIBE", session_id=crowded, id=1)
    assert (error["code"], error["id"], error["sessionId"]) == ("TOO_MANY_CONNECTIONS", 1, crowded)
    others[0].connection.close()
    wait_until(lambda: one.ask(type="SUBSCRIBE", session_id=crowded)["type"] == "SUBSCRIBED")
    one.next("STATE_SYNC")
    with RawWebSocket(api.url, crowded) as refused:
        assert refused.status == 503
    subscribed(one, api.running())
    one.next("STATE_SYNC")
    error = one.ask(type="SUBSCRIBE", session_id=api.running(), id=2)
    assert (error["code"], error["id"], error["details"]) == ("TOO_MANY_SUBSCRIPTIONS", 2, {"limit": 3})
    assert metric_value(api.url, "syncapp_ws_subscriptions") == 2
    one.send(type="UNSUBSCRIBE", session_id=crowded)
    one.next("UNSUBSCRIBED")
    assert subscribed(one, crowded)
    others.append(open_websocket(api.url, api.running()))
    one.connection.close()
    wait_until(lambda: metric_value(api.url, "syncapp_ws_subscriptions") == 0)
    with RawWebSocket(api.url, crowded) as welcome:
        assert welcome.status == 101
    for other in others:
        other.connection.close()
    wait_until(lambda: metric_value(api.url, "syncapp_hub_sessions") == 0)
    assert re.search(rf"websocket subscribed .*connection=\w+ session_id={crowded}", strict.web[0].output())


def test_a_hundred_sessions_on_one_socket_are_told_and_let_go(patient: Cluster, open_websocket: OpenWebSocket) -> None:
    api = RestClient(patient.urls[0])
    sessions = [api.running() for _ in range(100)]
    watched = metric_value(api.url, "syncapp_hub_sessions")
    one = bare(open_websocket, api)
    for session_id in sessions:
        one.send(type="SUBSCRIBE", session_id=session_id)
    synced = {one.next("STATE_SYNC")["sessionId"] for _ in sessions}
    assert synced == set(sessions)
    assert metric_value(api.url, "syncapp_hub_sessions") == watched + 100
    for session_id in sessions:
        one.send(type="COMMAND", id=session_id, command="pause", session_id=session_id)
    acked = [one.next("ACK") for _ in sessions]
    assert [ack["id"] for ack in acked] == sessions
    one.connection.close()
    wait_until(lambda: metric_value(api.url, "syncapp_hub_sessions") == watched)


def test_a_subscription_keeps_a_session_from_being_idle(apis: list[RestClient], open_websocket: OpenWebSocket) -> None:
    session_id = apis[0].create(idle_timeout_s=2)
    one = bare(open_websocket, apis[0])
    subscribed(one, session_id)
    one.next("STATE_SYNC")
    time.sleep(4)
    assert apis[1].state(session_id)["status"] == "pending"
    one.send(type="UNSUBSCRIBE", session_id=session_id)
    wait_until(lambda: apis[1].state(session_id)["status"] == "cancelled")


def test_everybody_is_told_again_after_the_hub_has_lost_its_connection(
    apis: list[RestClient], open_websocket: OpenWebSocket, redis_url: str
) -> None:
    sessions = [apis[0].running() for _ in range(10)]
    one = bare(open_websocket, apis[0])
    for session_id in sessions:
        subscribed(one, session_id)
        one.next("STATE_SYNC")
    with Redis.from_url(redis_url) as redis:
        for connection in redis.client_list(_type="pubsub"):
            redis.client_kill_filter(_id=connection["id"])
    for session_id in sessions:
        apis[1].command(session_id, "switch")
    newest: dict[str, int] = {}
    while len(newest) < 10:
        message = one.next()
        if "state" in message:
            newest[message["sessionId"]] = message["state"]["version"]
    assert set(newest.values()) == {3}


def test_a_client_that_does_not_read_costs_a_bounded_amount_of_memory_and_a_lively_session_starves_none(
    patient: Cluster,
) -> None:
    api = RestClient(patient.urls[0])
    sessions = [api.running(metadata={"text": "x" * 4000}) for _ in range(40)]
    worker = psutil.Process(patient.web[0].pid).children()[0]
    with ExitStack() as stack:
        raw = RawWebSocket(api.url, sessions[0], receive_bytes=4096)
        stack.enter_context(raw)
        for session_id in sessions[1:]:
            raw.send({"type": "SUBSCRIBE", "session_id": session_id})
        wait_until(lambda: metric_value(api.url, "syncapp_ws_subscriptions") == 39)
        before = worker.memory_info().rss
        for _ in range(150):
            api.command(sessions[0], "switch")
        for session_id in sessions:
            for _ in range(20):
                api.command(session_id, "switch")
        assert worker.memory_info().rss - before < 30_000_000
        newest = {each: 172 if each == sessions[0] else 22 for each in sessions}
        seen: dict[str, int] = {}
        order: list[str] = []
        while seen != newest:
            received = raw.next()
            if received.opcode != TEXT or "state" not in received.message:
                continue
            message = received.message
            assert message["state"]["version"] > seen.get(message["sessionId"], 0)
            seen[message["sessionId"]] = message["state"]["version"]
            order.append(message["sessionId"])
    # In turns: a busy session does not delay the others.
    assert len(order) < 2000


def test_a_process_that_ends_closes_a_connection_of_many_sessions_after_answering(
    make_cluster: MakeCluster, open_websocket: OpenWebSocket
) -> None:
    cluster = make_cluster(web=1, worker=False, WS_DRAIN_S="0")
    api = RestClient(cluster.urls[0])
    one = bare(open_websocket, api)
    sessions = [api.running() for _ in range(5)]
    for session_id in sessions:
        subscribed(one, session_id)
        one.next("STATE_SYNC")
    for session_id in sessions:
        one.send(type="COMMAND", id=session_id, command="switch", session_id=session_id)
    acked = {one.next("ACK")["id"] for _ in sessions}
    assert acked == set(sessions)
    cluster.web[0].stop()
    assert one.close_code() == Close.RESTART


# Without a network.


def test_sessions_take_turns_and_share_the_room(redis: Redis, redis_url: str) -> None:
    store = make_store(redis_url, set_clock=False)
    ids = [store.create(chess_request(metadata={"text": "x" * 2000})).found.session_id for _ in range(3)]
    backlogs = RoundRobin({ids[0]: SendQueue(session_id=ids[0])}, ids[0], patches=False)
    for session_id in ids[1:]:
        backlogs.add(session_id, NEVER)
    for session_id in ids:
        result = store.start(session_id)
        backlogs.put(SessionUpdate(session_id, 0, session=result.found, event=result.event))
    for _ in range(20):
        result = store.switch(ids[0])
        backlogs.put(SessionUpdate(ids[0], 0, session=result.found, event=result.event))
    result = store.switch(ids[1])
    backlogs.put(SessionUpdate(ids[1], 0, session=result.found, event=result.event))
    expected = [(item.kind, item.update) for item in backlogs.waiting]
    first = backlogs.first
    assert first
    assert (first.kind, first.update) == expected[0]
    taken = [(item.kind, item.update) for item in iter(backlogs.take, None)]
    assert taken == expected
    names = [update.session_id for _, update in taken if isinstance(update, SessionUpdate)]
    assert names[:6] == [*ids, *ids]
    assert names[6:8] == ids[:2]
    assert len(backlogs) == 0
    for _ in range(200):
        result = store.switch(ids[0])
        backlogs.put(SessionUpdate(ids[0], 0, session=result.found, event=result.event))
    assert sum(len(item.frame) for item in backlogs.waiting) <= max(MIN_SHARE_BYTES, MAX_BYTES // 3)
    assert backlogs.skipped > 0
    first = backlogs.first
    assert first
    assert first.kind in (Outgoing.STATE_SYNC, Outgoing.STATE_UPDATE)
    backlogs.remove(ids[0])
    assert backlogs.first is None

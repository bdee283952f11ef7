"""The Python client against real web processes: watching, commands, clocks and the REST API."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress

import pytest

from syncapp_client import Change, Client, Done, Game, StatusChange, SyncAppError, connect
from tests.support.cluster import Cluster
from tests.support.controlled_games import BYO_YOMI, PLAYERS
from tests.support.python_client import SOON_S, client_of, connected
from tests.support.web_clients import CHESS, wait_until


@pytest.fixture
def client(web_url: str) -> Iterator[Client]:
    with client_of(web_url) as client:
        yield client


@pytest.fixture
def game(web_url: str, client: Client) -> Iterator[Game]:
    with connected(web_url, client.create(CHESS)["session_id"]) as game:
        yield game


def threads() -> set[str]:
    return {each.name for each in threading.enumerate() if each.name.startswith("syncapp ")}


def versions(changes: list[Change]) -> list[int]:
    return [each.state["version"] for each in changes]


def test_a_connected_game_has_a_state_and_the_servers_clock(game: Game) -> None:
    assert game.status == "live"
    assert game.reason is None
    assert game.state
    assert game.state["status"] == "pending"
    stats = game.clock.stats()
    assert stats.samples >= 1
    assert stats.error_ms is not None
    now_ms = game.clock.now()
    assert now_ms is not None
    assert abs(now_ms - time.time() * 1000) < stats.error_ms + 1000  # all on one machine


def test_the_effect_of_a_command_is_in_the_state_when_it_returns(game: Game) -> None:
    for count in range(1, 4):
        done = game.start() if count == 1 else game.switch()
        assert done == Done(1 + count, done.epoch, replayed=False, state=game.state)
        assert game.state
        assert game.state["version"] == done.version
    assert game.state
    assert game.state["cycle_count"] == 2


def test_every_command_can_be_called_by_its_name(game: Game) -> None:
    game.start(participant_id="black")
    game.switch(participant_id="black", next_participant_id="white")
    game.pause()
    game.adjust(op="add", ms=1000, participant_id="white", reason="a gift")
    game.update({"round": 3})
    game.resume()
    game.complete(reason="agreed", result={"draw": True})
    game.reopen(reason="a mistake")
    game.cancel(reason="rain")
    assert game.state
    assert (game.state["status"], game.state["metadata"]) == ("cancelled", {"round": 3})
    with pytest.raises(SyncAppError, match="VALIDATION_ERROR"):
        game.takeback(cycles=1)
    assert game.delete().version is None
    wait_until(lambda: game.status == "closed", SOON_S)


def test_each_of_several_watchers_gets_every_version_once_and_in_order(game: Game) -> None:
    found: list[list[Change]] = [[] for _ in range(3)]
    watches = [game.watch(SOON_S) for _ in found]

    def watch(place: int) -> None:
        found[place].extend(watches[place])

    watchers = [threading.Thread(target=watch, args=(place,)) for place in range(3)]
    for each in watchers:
        each.start()
    game.start()
    for _ in range(20):
        game.switch()
    game.delete()
    for each in watchers:
        each.join(SOON_S)
    assert [versions(each) for each in found] == [list(range(1, 23))] * 3
    assert all(each.skipped == 0 for each in found[0])
    assert [each.event and each.event["type"] for each in found[0][:3]] == [None, "session_started", "cycle_switched"]


def test_commands_of_several_threads_each_take_effect_once(game: Game) -> None:
    game.start()
    done: list[Done] = []
    workers = [threading.Thread(target=lambda: done.extend(game.switch() for _ in range(10))) for _ in range(4)]
    for each in workers:
        each.start()
    for each in workers:
        each.join(SOON_S)
    assert len({each.version for each in done}) == 40
    assert game.state
    assert game.state["cycle_count"] == 40


def test_watching_ends_when_the_session_is_deleted_by_another(game: Game, client: Client) -> None:
    watch = game.watch(SOON_S)
    client.delete(game.id)
    assert versions(list(watch)) == [1]
    wait_until(lambda: game.status == "closed", SOON_S)
    assert game.reason
    assert (game.reason.code, game.reason.final) == ("DELETED", True)


def test_watching_ends_when_the_game_is_closed(game: Game) -> None:
    found: list[Change] = []
    watch = game.watch()
    watcher = threading.Thread(target=lambda: found.extend(watch))
    watcher.start()
    wait_until(lambda: found, SOON_S)
    game.close()
    watcher.join(SOON_S)
    assert not watcher.is_alive()
    assert versions(list(game.watch())) == versions(found) == [1]
    with pytest.raises(SyncAppError, match="CLOSED"):
        game.start()


def test_a_closed_game_leaves_no_thread(web_url: str, client: Client) -> None:
    before = set(threading.enumerate())
    with connected(web_url, client.create(CHESS)["session_id"]) as game:
        game.on("change", lambda change: None)
        game.on("status", lambda change: None)
        assert threads()
    wait_until(lambda: set(threading.enumerate()) <= before, SOON_S)


def test_a_callback_gets_every_change_and_may_send_commands(game: Game) -> None:
    told: list[Change] = []

    def answer(change: Change) -> None:
        told.append(change)
        if change.event and change.event["type"] == "session_started":
            game.switch()
            raise ValueError("a callback that fails is called again all the same")

    leave = game.on("change", answer)
    game.start()
    wait_until(lambda: len(told) == 3, SOON_S)
    assert versions(told) == [1, 2, 3]
    leave()
    game.switch()
    assert game.state
    assert game.state["version"] == 4
    assert len(told) == 3


def test_a_status_callback_is_told_the_present_status_and_the_end(game: Game) -> None:
    told: list[StatusChange] = []
    game.on("status", told.append)
    game.delete()
    wait_until(lambda: told[-1:] and told[-1].status == "closed", SOON_S)
    assert [each.status for each in told] == ["live", "closed"]


def test_a_session_that_does_not_exist_is_an_error_or_is_waited_for(web_url: str, client: Client) -> None:
    session_id = str(uuid.uuid4())
    with pytest.raises(SyncAppError, match="SESSION_NOT_FOUND"):
        connected(web_url, session_id)
    with Game(web_url, session_id, wait=True) as game:
        wait_until(lambda: game.reason, SOON_S)
        assert (game.status, game.state, game.remaining()) == ("connecting", None, None)
        client.create({**CHESS, "session_id": session_id})
        game.wait_until_live(SOON_S)
        assert game.state


def test_a_server_that_cannot_be_reached_is_not_waited_for_for_ever() -> None:
    with pytest.raises(SyncAppError, match="TIMEOUT"):
        connect("http://127.0.0.1:9", str(uuid.uuid4()), timeout_s=0.5)


def test_a_base_that_is_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match="https"):
        Game("clock.example", str(uuid.uuid4()))


# Clocks


def test_a_running_clock_shows_the_time_left_by_the_servers_clock(game: Game, client: Client) -> None:
    game.start()
    before_ms = game.remaining("white")
    told_ms = client.get(game.id)["clock"]["remaining_ms"]
    after_ms = game.remaining("white")
    assert before_ms is not None
    assert told_ms is not None
    assert after_ms is not None
    error_ms = game.clock.stats().error_ms or 0
    assert before_ms + error_ms + 2 >= told_ms >= after_ms - error_ms - 2
    assert game.remaining("black") == 3_600_000
    elapsed_ms = game.elapsed()
    assert elapsed_ms is not None
    assert abs(3_600_000 - after_ms - elapsed_ms) < 1000
    with pytest.raises(KeyError):
        game.remaining("red")


def test_an_untimed_clock_has_no_remaining_time(web_url: str, client: Client) -> None:
    session_id = client.create({"sync_mode": "count_up", "participants": [{"participant_id": "a"}]})["session_id"]
    with connected(web_url, session_id) as game:
        game.start()
        assert (game.remaining(), game.remaining("a")) == (None, None)
        wait_until(lambda: (game.elapsed() or 0) > 0, SOON_S)
        found = game.reading("a")
        assert found
        assert found.used_ms > 0


def test_a_period_shows_what_is_left_of_it(web_url: str, client: Client) -> None:
    control = {"stages": [{**BYO_YOMI, "time_ms": 1}]}
    body = {"sync_mode": "per_participant", "participants": PLAYERS, "time_control": control}
    with connected(web_url, client.create(body)["session_id"]) as game:
        watch = game.watch(SOON_S)
        game.start()
        next(each for each in watch if each.event and each.event["type"] == "period_started")
        found = game.reading("white")
        assert found
        assert found.ms is not None
        assert 0 < found.ms <= 30_000
        assert (found.phase, found.periods_left, found.running) == ("period", 3, True)


# REST


def test_a_client_creates_reads_and_commands_sessions(client: Client) -> None:
    made = client.create({**CHESS, "metadata": {"round": 5, "rated": True}})
    session_id = made["session_id"]
    assert client.get(session_id)["version"] == 1
    done = client.start(session_id)
    assert (done.version, done.replayed) == (2, False)
    assert done.state
    assert done.state["status"] == "running"
    assert client.text(session_id, participant_id="black", format="h:mm:ss") == "1:00:00"
    with pytest.raises(SyncAppError, match="CONFLICT") as raised:
        client.switch(session_id, expected_version=1)
    assert raised.value.current["version"] == 2
    assert (raised.value.status, raised.value.outcome_unknown) == (409, False)
    found = client.list(metadata={"round": 5, "rated": True}, status=["running", "paused"])
    assert [each["session_id"] for each in found] == [session_id]
    assert client.delete(session_id) == Done(None, None, replayed=False)
    with pytest.raises(SyncAppError, match="SESSION_NOT_FOUND"):
        client.get(session_id)


def test_the_same_key_makes_one_session_and_one_change(client: Client) -> None:
    key = str(uuid.uuid4())
    made = [client.create(CHESS, idempotency_key=key)["session_id"] for _ in range(2)]
    assert len(set(made)) == 1
    again = [client.start(made[0], idempotency_key="begin").replayed for _ in range(2)]
    assert again == [False, True]


def test_a_list_is_read_page_by_page(client: Client) -> None:
    name = f"p{uuid.uuid4().hex[:8]}"
    made = [
        client.create({"sync_mode": "count_up", "participants": [{"participant_id": name}]})["session_id"]
        for _ in range(5)
    ]
    found = [each["session_id"] for each in client.list(participant_id=name, limit=2)]
    assert found == made[::-1]


def test_a_batch_has_a_result_for_each_session(client: Client) -> None:
    made = [client.create(CHESS)["session_id"] for _ in range(2)]
    found = client.batch("start", [*made, str(uuid.uuid4())])
    assert [each["status"] for each in found["results"]] == [200, 200, 404]
    assert (found["succeeded"], found["failed"]) == (2, 1)


def test_the_history_of_a_session_can_be_read(cluster: Cluster) -> None:
    with client_of(cluster.urls[0]) as client:
        session_id = client.create(CHESS)["session_id"]
        client.start(session_id)
        for _ in range(3):
            client.switch(session_id)

        def logged() -> list[str]:
            with suppress(SyncAppError):  # until its first event is in the log, there is no such session
                return [each["event"]["type"] for each in client.events(session_id, limit=2)]
            return []

        wait_until(lambda: len(logged()) == 5, SOON_S)
        assert logged() == ["session_created", "session_started", *["cycle_switched"] * 3]
        assert client.at(session_id, version=2)["status"] == "running"
        assert client.statistics(session_id)["cycles"] == 3
        assert session_id in [each["session_id"] for each in client.history(limit=1)]

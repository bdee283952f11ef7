"""The Python client over connections that are cut, processes that are killed, and networks without WebSockets."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Iterator

import pytest

from syncapp.dev.ports import free_port
from syncapp_client import Change, Client, Done, Game, SyncAppError, connect
from syncapp_client.rest import Rest
from syncapp_client.retries import Retries
from syncapp_client.supervisor import Supervisor
from syncapp_client.tokens import Tokens
from syncapp_client.values import Reason
from syncapp_client.watched import Watched
from tests.support.cluster import Cluster
from tests.support.python_client import SOON_S, client_of, connected
from tests.support.tcp_proxy import TcpProxy
from tests.support.web_clients import CHESS, wait_until


class WithoutWebSockets(TcpProxy):
    """Cuts connections that open a WebSocket, as some proxies of companies do."""

    refused = 0

    async def _there(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.read(65_536)
        if first.startswith(b"GET /ws"):
            self.refused += 1
            writer.transport.abort()
            return
        writer.write(first)
        await super()._there(reader, writer)


class Recorder:
    """Watches a game in a thread, up to its end."""

    def __init__(self, game: Game) -> None:
        self._changes: list[Change] = []
        watch = game.watch()
        self._thread = threading.Thread(target=lambda: self._changes.extend(watch))
        self._thread.start()

    def end(self) -> list[Change]:
        """Wait for the end of the session, and return all its changes."""
        self._thread.join(SOON_S)
        assert not self._thread.is_alive()
        return self._changes


@pytest.fixture
def proxy(pair: Cluster) -> Iterator[TcpProxy]:
    with TcpProxy(pair.web[0].port, random.Random(1)) as proxy:
        yield proxy


@pytest.fixture
def direct(pair: Cluster) -> Iterator[Client]:
    """A client of the second process, which no test stops."""
    with client_of(pair.urls[1]) as client:
        yield client


def url_of(proxy: TcpProxy) -> str:
    return f"http://127.0.0.1:{proxy.port}"


def wait_for_version(game: Game, version: int | None) -> None:
    wait_until(lambda: game.status == "live" and game.state and game.state["version"] == version, SOON_S)


def expect_every_version_once(changes: list[Change], last: int | None) -> None:
    """Compare the versions with 1 to `last`: each is told, or counted as skipped, and none is told twice."""
    expected = 0
    for change in changes:
        expected += change.skipped + 1
        assert change.state["version"] == expected
        assert change.event is None or change.skipped == 0
    assert expected == last


def test_a_cut_connection_is_opened_again_and_no_version_comes_twice(proxy: TcpProxy, direct: Client) -> None:
    session_id = direct.create(CHESS)["session_id"]
    with connected(url_of(proxy), session_id) as game:
        recorder = Recorder(game)
        done = direct.start(session_id)
        for _ in range(4):
            wait_for_version(game, done.version)
            assert proxy.cut(1)
            wait_until(lambda: game.status == "stale", SOON_S)
            direct.switch(session_id)
            done = direct.switch(session_id)
        wait_for_version(game, done.version)
        assert game.state
        assert direct.get(session_id)["participants"] == game.state["participants"]
        done = game.switch()  # a patch of the state that came after the cut
        assert game.state
        assert direct.get(session_id)["participants"] == game.state["participants"]
        game.delete()
        expect_every_version_once(recorder.end(), done.version)


def test_a_killed_process_is_replaced_by_another(proxy: TcpProxy, direct: Client, pair: Cluster) -> None:
    session_id = direct.create(CHESS)["session_id"]
    with connected(url_of(proxy), session_id) as game:
        recorder = Recorder(game)
        game.start()
        pair.web[0].kill()
        try:
            proxy.retarget(pair.web[1].port)
            done = game.switch()
            assert done.version == 3
            wait_for_version(game, direct.switch(session_id).version)
            assert game.remaining("black") == direct.get(session_id)["participants"][1]["time_remaining_ms"]
        finally:
            pair.web[0].start()
        game.delete()
        expect_every_version_once(recorder.end(), 4)


def test_a_silent_connection_is_given_up(
    proxy: TcpProxy, direct: Client, pair: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncapp_client.connection.PING_EVERY_S", 0.2)
    monkeypatch.setattr("syncapp_client.connection.SILENT_S", 0.5)
    session_id = direct.create(CHESS)["session_id"]
    with connected(url_of(proxy), session_id) as game:
        pair.web[0].pause()
        try:
            wait_until(lambda: game.status == "stale", SOON_S)
            assert game.reason
            assert game.reason.code == "OFFLINE"
            proxy.retarget(pair.web[1].port)
            wait_for_version(game, direct.start(session_id).version)
        finally:
            pair.web[0].unpause()


def test_a_lost_reply_does_not_make_a_command_take_effect_twice(proxy: TcpProxy, direct: Client) -> None:
    session_id = direct.create(CHESS)["session_id"]
    with connected(url_of(proxy), session_id) as game:
        recorder = Recorder(game)
        game.start()
        done: list[Done] = []
        while not any(each.replayed for each in done):
            deaf = threading.Thread(target=proxy.drop_replies, args=(0.5,))
            deaf.start()
            while deaf.is_alive():
                done.append(game.switch())
        assert direct.get(session_id)["cycle_count"] == len(done)
        game.delete()
        expect_every_version_once(recorder.end(), 2 + len(done))


def test_a_command_that_is_never_answered_times_out_with_an_unknown_outcome(proxy: TcpProxy, direct: Client) -> None:
    session_id = direct.create(CHESS)["session_id"]
    with connect(url_of(proxy), session_id, command_timeout_s=0.5) as game:
        proxy.retarget(free_port())
        proxy.cut(1)
        with pytest.raises(SyncAppError) as raised:
            game.start()
        assert (raised.value.code, raised.value.outcome_unknown) == ("TIMEOUT", True)


def test_a_session_that_was_deleted_while_the_client_was_away_has_ended(
    proxy: TcpProxy, direct: Client, pair: Cluster
) -> None:
    session_id = direct.create(CHESS)["session_id"]
    with connected(url_of(proxy), session_id) as game:
        watch = game.watch(SOON_S)
        proxy.retarget(free_port())
        proxy.cut(1)
        direct.delete(session_id)
        proxy.retarget(pair.web[1].port)
        assert [each.state["version"] for each in watch] == [1]
        assert game.reason
        assert game.reason.code == "DELETED"


def test_without_websockets_versions_come_by_long_polls(pair: Cluster, direct: Client) -> None:
    session_id = direct.create(CHESS)["session_id"]
    before = set(threading.enumerate())
    blocking = WithoutWebSockets(pair.web[0].port, random.Random(1))
    with blocking, connected(url_of(blocking), session_id) as game:
        assert blocking.refused == 2
        recorder = Recorder(game)
        assert game.clock.known
        done = game.start()
        # Whichever comes first, the answer or the poll: both are this version.
        assert game.state is not None
        assert (game.state["version"], done.version) == (2, 2)
        wait_for_version(game, direct.switch(session_id).version)
        left_ms = game.remaining("black")
        assert left_ms is not None
        assert left_ms <= 3_600_000
        direct.delete(session_id)
        expect_every_version_once(recorder.end(), 3)
        wait_until(lambda: game.status == "closed", SOON_S)
    wait_until(lambda: set(threading.enumerate()) <= before, SOON_S)


def test_a_client_that_polls_may_be_closed_at_any_time(
    pair: Cluster, direct: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("syncapp_client.polling.WAIT_MS", 500)
    session_id = direct.create(CHESS)["session_id"]
    with WithoutWebSockets(pair.web[0].port, random.Random(1)) as blocking:
        game = connected(url_of(blocking), session_id)
        game.close()
        assert game.status == "closed"
        assert not [each for each in threading.enumerate() if session_id in each.name]


class Unpaused(threading.Event):
    """An event that is waited for in no time."""

    def wait(self, timeout: float | None = None) -> bool:
        return self.is_set()


def test_pauses_between_connections_follow_the_random_numbers_and_start_anew_after_a_steady_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told: list[Reason | None] = []
    tokens = Tokens(None)
    watched = Watched("id", tokens, False, lambda is_current, reason: told.append(reason), stopped=Unpaused())
    rest = Rest(f"http://127.0.0.1:{free_port()}", tokens, Retries(1))
    supervisor, rng = Supervisor(rest, watched, told.append, random.Random(3)), random.Random(3)
    for _ in range(5):
        supervisor.run_once()
    monkeypatch.setattr("syncapp_client.supervisor.STEADY_S", 0.0)
    supervisor.run_once()  # a poll, which has been as steady as can be
    bounds_s = [0.5, 1, 2, 4, 8, 0.5]
    assert [each and each.retry_in_s for each in told] == [rng.uniform(0, bound_s) for bound_s in bounds_s]
    rest.close()

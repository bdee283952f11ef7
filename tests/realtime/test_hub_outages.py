"""The hub survives cut connections and store outages."""

from __future__ import annotations

import socket
import socketserver
import threading
import time
from collections.abc import Callable
from contextlib import closing, suppress
from urllib.parse import urlsplit

from syncapp.dev.servers import Valkey
from syncapp.domain.session import Session
from syncapp.errors import StoreUnavailable
from syncapp.realtime.hub import Hub
from syncapp.realtime.protocol import Outgoing
from syncapp.realtime.pubsub import PubSub
from syncapp.realtime.send_queue import SendQueue
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from tests.support.store import chess_request, make_settings
from tests.support.types import Redis
from tests.support.watchers import SOON_S, Recorder, is_rising
from tests.support.web_clients import wait_until


def test_nothing_is_missed_while_the_connection_is_killed_over_and_over(
    hub: Hub, redis: Redis, store: SessionStore, running: Session
) -> None:
    watcher = Recorder()
    hub.watch(running.session_id, watcher)
    for _ in range(10):
        redis.client_kill_filter(_type="pubsub")
        newest = store.switch(running.session_id).found
        time.sleep(0.05)
    watcher.wait_for_order(newest.order)
    assert is_rising(watcher.orders)
    assert watcher.updates[-1].session == newest


def test_a_restart_of_the_server_is_survived_by_every_watched_session(
    hub: Hub, store: SessionStore, valkey: Valkey
) -> None:
    sessions = [store.create(chess_request()).found for _ in range(50)]
    watchers = [Recorder() for _ in sessions]
    for session, watcher in zip(sessions, watchers, strict=True):
        hub.watch(session.session_id, watcher)
    for session, watcher in zip(sessions, watchers, strict=True):
        watcher.wait_for_order(session.order)
    valkey.restart()
    with suppress(StoreUnavailable):  # the store's own connection is gone, too
        store.get(sessions[0].session_id)
    newest = [store.start(session.session_id).found for session in sessions]
    for session, watcher in zip(newest, watchers, strict=True):
        watcher.wait_for_order(session.order)
        assert is_rising(watcher.orders)
        assert "SESSION_NOT_FOUND" not in watcher.kinds


def test_who_comes_while_the_server_is_away_is_told_so_and_then_the_state(
    hub: Hub, store: SessionStore, running: Session, valkey: Valkey
) -> None:
    first, second = Recorder(), Recorder()
    hub.watch(running.session_id, first)
    first.wait_for_order(running.order)
    valkey.stop()
    wait_until(lambda: hub._pubsub.is_down)
    hub.watch(running.session_id, second)
    assert second.kinds == ["STORE_UNAVAILABLE"]
    valkey.start()
    second.wait_for_order(running.order)


def test_a_server_that_falls_silent_is_given_up_within_5_s(hub: Hub, running: Session, valkey: Valkey) -> None:
    watcher = Recorder()
    hub.watch(running.session_id, watcher)
    watcher.wait_for_order(running.order)
    valkey.pause()
    try:
        wait_until(lambda: hub._pubsub.is_down, SOON_S)
    finally:
        valkey.unpause()
    wait_until(lambda: not hub._pubsub.is_down)


class Proxy:
    """A proxy between a hub and the server that can freeze connections: they stay open, but no byte passes."""

    def __init__(self, url: str) -> None:
        self._target = (urlsplit(url).hostname, urlsplit(url).port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self._frozen = [threading.Event()]
        self.swallows = False  # new connections are frozen from their first byte
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze(self) -> None:
        """Freeze the open connections; later ones work."""
        self._frozen[-1].set()
        self._frozen.append(threading.Event())

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                ours, theirs = self._listener.accept()[0], socket.create_connection(self._target)
                frozen = self._frozen[-1]
                if self.swallows:
                    frozen = threading.Event()
                    frozen.set()
                for pair in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=self._pass_on, args=(*pair, frozen), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, frozen: threading.Event) -> None:
        with source, suppress(OSError):
            while data := source.recv(65536):
                if not frozen.is_set():
                    target.sendall(data)
            target.shutdown(socket.SHUT_RDWR)  # wakes the reading thread, which closes it


def test_a_connection_that_is_cut_half_way_is_noticed_and_repaired_within_5_s(
    make_hub: Callable[..., Hub], redis_url: str, store: SessionStore, running: Session
) -> None:
    with closing(Proxy(redis_url)) as proxy:
        watcher = Recorder()
        make_hub(make_settings(proxy.url)).watch(running.session_id, watcher)
        watcher.wait_for_order(running.order)
        proxy.freeze()
        newest = store.switch(running.session_id).found
        watcher.wait_for_order(newest.order, SOON_S)
        newest = store.switch(running.session_id).found
        watcher.wait_for_order(newest.order)
    assert is_rising(watcher.orders)


def test_a_connection_that_is_never_answered_is_given_up_and_made_again(
    make_hub: Callable[..., Hub], redis_url: str, store: SessionStore, running: Session
) -> None:
    with closing(Proxy(redis_url)) as proxy:
        watcher = Recorder()
        hub = make_hub(make_settings(proxy.url, redis_timeout_s=1))
        hub.watch(running.session_id, watcher)
        watcher.wait_for_order(running.order)
        proxy.swallows = True
        proxy.freeze()
        wait_until(lambda: hub._pubsub.is_down)
        time.sleep(1.5)
        newest = store.switch(running.session_id).found
        proxy.swallows = False
        watcher.wait_for_order(newest.order)


def test_a_store_that_lost_commits_is_believed(hub: Hub, redis: Redis, store: SessionStore, running: Session) -> None:
    key = Keyspace().session(running.session_id)
    old = redis.dump(key)
    assert old
    for _ in range(3):
        newest = store.switch(running.session_id).found
    watcher = Recorder()
    hub.watch(running.session_id, watcher)
    watcher.wait_for_order(newest.order)
    redis.restore(key, 0, old, replace=True)
    redis.client_kill_filter(_type="pubsub")
    told = watcher.wait_for_order(running.order)
    assert told.went_back
    later = store.switch(running.session_id).found
    watcher.wait(lambda: watcher.orders[-1] == later.order)
    assert watcher.updates[-1].session == later


def test_a_session_that_was_restored_is_told_in_its_new_epoch_from_the_first_version_on(
    hub: Hub, store: SessionStore, running: Session
) -> None:
    watcher = Recorder()
    hub.watch(running.session_id, watcher)
    watcher.wait_for_order(running.order)
    renewed = store.renew(running.session_id, running.order, running.epoch + 1000).found
    update = watcher.wait_for_order(renewed.order)
    assert renewed.order > (running.epoch + 1000, 0)
    assert (update.kind, update.session) == (Outgoing.STATE_UPDATE, renewed)
    for patches in (True, False):
        backlog = SendQueue(running.order, patches=patches)
        backlog.put(update)
        assert [item.kind for item in iter(backlog.take, None)] == ["CONNECTED", "STATE_SYNC"]
    switched = store.switch(running.session_id).found
    assert watcher.wait_for_order(switched.order).session == switched
    assert is_rising(watcher.orders)


def test_everybody_is_told_when_the_store_is_away_for_more_than_a_moment_and_when_it_is_back(
    hub: Hub, redis: Redis, running: Session, valkey: Valkey
) -> None:
    watcher = Recorder()
    hub.watch(running.session_id, watcher)
    watcher.wait_for_order(running.order)
    killed_s = time.monotonic()
    redis.client_kill_filter(_type="pubsub")
    wait_until(lambda: not hub._pubsub.is_down)
    time.sleep(0.5)
    # On a machine that takes longer to reconnect, the outage is reported.
    assert watcher.kinds == [Outgoing.STATE_SYNC] or time.monotonic() - killed_s > 1
    watcher.wait(lambda: watcher.kinds[-1] == Outgoing.STATE_SYNC)
    told = len(watcher.kinds)
    valkey.stop()
    watcher.wait(lambda: watcher.kinds[told:] == ["STORE_UNAVAILABLE"])
    valkey.start()
    watcher.wait(lambda: watcher.kinds[told + 1 :] == [Outgoing.STATE_SYNC])
    assert watcher.updates[-1].order == running.order


class Loading(socketserver.StreamRequestHandler):
    """A server that is loading its file: it accepts connections and refuses commands, until the fourth."""

    taken = 0

    def handle(self) -> None:
        Loading.taken += 1
        answers = {b"CLIENT": b"+OK", b"PING": b"+PONG", b"SUBSCRIBE": b"*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1"}
        if Loading.taken < 4:
            answers |= dict.fromkeys((b"PING", b"SUBSCRIBE"), b"-LOADING the dataset in memory")
        while line := self.rfile.readline():
            if answer := answers.get(line.strip()):
                self.wfile.write(answer + b"\r\n")


def test_a_server_that_loads_its_file_is_one_outage_until_it_serves() -> None:
    lost, subscribed = [], threading.Event()
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Loading) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        pubsub = PubSub(
            make_settings(f"redis://127.0.0.1:{server.server_address[1]}/0"),
            on_subscribed=lambda channel: subscribed.set(),
            on_message=lambda channel, text: None,
            on_lost=lambda: lost.append(pubsub.is_down),
        )
        pubsub.add("a")
        pubsub.start()
        try:
            assert subscribed.wait(60)
            assert (lost, pubsub.is_down, Loading.taken) == ([True], False, 4)
        finally:
            pubsub.stop()
            server.shutdown()

"""A planned failover: the address leads to a new primary while connections to the old one stay open."""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import requests
from redis import exceptions

from syncapp import task_queue
from syncapp.dev.servers import Valkey
from syncapp.errors import StoreUnavailable
from syncapp.realtime.pubsub import PubSub
from syncapp.store.bucket_leases import BucketLeases
from syncapp.store.client import connect
from syncapp.store.failover import says_wrong_server
from syncapp.store.keys import Keyspace
from syncapp.store.sessions import SessionStore
from tests.support.cluster import MakeCluster
from tests.support.store import chess_request, make_settings
from tests.support.tcp_proxy import TcpProxy
from tests.support.types import Redis
from tests.support.web_clients import RestClient, wait_until

AT_ONCE = ("--repl-diskless-sync-delay", "0")


class Pair:
    """A primary and its replica, behind one address."""

    def __init__(self, primary: Valkey, replica: Valkey, proxy: TcpProxy) -> None:
        self.primary, self.replica, self.proxy = primary, replica, proxy
        self.url = f"redis://127.0.0.1:{proxy.port}/0"
        with Redis.from_url(replica.url) as client:
            client.replicaof("127.0.0.1", str(primary.port))
        self._wait_in_step(replica)

    def fail_over(self) -> float:
        """Promote the replica, demote the primary, move the address; return the time of the move (monotonic s)."""
        with Redis.from_url(self.primary.url) as old, Redis.from_url(self.replica.url) as new:
            self._wait_in_step(self.replica)
            new.replicaof("NO", "ONE")
            old.replicaof("127.0.0.1", str(self.replica.port))
        self.proxy.retarget(self.replica.port)
        self.primary, self.replica = self.replica, self.primary
        return time.monotonic()

    def _wait_in_step(self, replica: Valkey) -> None:
        with Redis.from_url(replica.url) as client:
            wait_until(lambda: client.info("replication").get("master_link_status") == "up", within_s=60)


@pytest.fixture
def make_pair(run_directory: Path, tmp_path: Path) -> Iterator[Callable[[], Pair]]:
    with ExitStack() as stack:

        def make() -> Pair:
            servers = [Valkey(run_directory, tmp_path / name, options=AT_ONCE) for name in ("one", "two")]
            for server in servers:
                server.spawn()
                stack.callback(server.stop)
            for server in servers:
                server.wait_ready()
            return Pair(servers[0], servers[1], stack.enter_context(TcpProxy(servers[0].port, random.Random(1))))

        yield make


def test_after_a_failover_the_first_refused_command_is_the_only_one(make_pair: Callable[[], Pair]) -> None:
    pair = make_pair()
    chosen = make_settings(pair.url)
    client = connect(chosen)
    store = SessionStore(client, chosen)
    session_id = store.create(chess_request()).found.session_id
    store.start(session_id)
    client.ping()  # a connection that redis-py has used, too
    store._runner._scripts.functions.pause(None, 600)
    pair.fail_over()
    with pytest.raises(StoreUnavailable) as refused:
        store.switch(session_id)
    assert refused.value.details["reason"] == "ReadOnlyError"
    assert store.switch(session_id).found.version == 3
    with Redis.from_url(pair.primary.url) as new:
        assert int(new.info("clients")["connected_clients"]) > 1
        assert client.info("replication")["role"] == "master"


def test_a_function_that_the_wrong_server_refuses_runs_as_a_script_on_the_right_one(
    make_pair: Callable[[], Pair],
) -> None:
    pair = make_pair()
    chosen = make_settings(pair.url)
    store = SessionStore(connect(chosen), chosen)
    session_id = store.create(chess_request()).found.session_id
    pair.fail_over()
    assert store.start(session_id).found.version == 2
    with Redis.from_url(pair.primary.url) as new:
        assert new.hget(Keyspace().session(session_id), "scalars").split()[1] == b"2"


@pytest.mark.parametrize("command", ["set", "pipeline", "transaction", "script", "enqueue", "lease"])
def test_whoever_notices_the_wrong_server_all_pools_of_the_process_leave_it(
    make_pair: Callable[[], Pair], command: str
) -> None:
    pair = make_pair()
    chosen = make_settings(pair.url)
    one, other, queue = connect(chosen), connect(chosen, decode=False), task_queue.connect(chosen)
    store = SessionStore(other, chosen)
    session_id = store.create(chess_request()).found.session_id
    leases = BucketLeases(one, Keyspace(), itertools.count().__next__)
    leases.hold()
    store._runner._scripts.functions.pause(None, 600)
    one.ping(), other.ping(), queue.pending_count()
    pair.fail_over()

    def notice() -> None:
        match command:
            case "set":
                one.set("a", "1")
            case "pipeline":
                with one.pipeline(transaction=False) as pipe:
                    pipe.get("a")
                    pipe.set("a", "1")
                    pipe.execute()
            case "transaction":
                with one.pipeline(transaction=True) as pipe:
                    pipe.set("a", "1")
                    pipe.set("b", "1")
                    pipe.execute()
            case "script":
                store.start(session_id)
            case "enqueue":
                queue.storage.enqueue(b"{}")
            case "lease":
                leases.hold()

    with pytest.raises((exceptions.ReadOnlyError, exceptions.ResponseError, StoreUnavailable)):
        notice()
    for client in (one, other, Redis(connection_pool=queue.storage.pool)):
        assert client.info("replication")["role"] == "master"
    notice()


def test_a_read_that_finds_a_replica_without_its_primary_leaves_it(make_pair: Callable[[], Pair]) -> None:
    pair = make_pair()
    chosen = make_settings(pair.url)
    store = SessionStore(connect(chosen), chosen)
    session_id = store.create(chess_request()).found.session_id
    store._runner._scripts.functions.pause(None, 600)
    pair.fail_over()
    with Redis.from_url(pair.replica.url) as demoted:
        demoted.config_set("replica-serve-stale-data", "no")
        demoted.replicaof("127.0.0.1", "1")
        wait_until(lambda: demoted.info("replication")["master_link_status"] == "down", within_s=30)
    with pytest.raises(StoreUnavailable):
        store.get(session_id)
    assert store.get(session_id).found.version == 1


def test_a_pubsub_connection_leaves_with_the_others(make_pair: Callable[[], Pair]) -> None:
    pair = make_pair()
    chosen = make_settings(pair.url)
    heard: list[str] = []
    pubsub = PubSub(
        chosen, on_subscribed=heard.append, on_message=lambda _, text: heard.append(text), on_lost=lambda: None
    )
    client = connect(chosen)
    pubsub.start()
    try:
        client.ping()
        pubsub.add("a channel")
        wait_until(lambda: heard == ["a channel"])
        pair.fail_over()
        with pytest.raises(exceptions.ReadOnlyError):
            client.set("a", "1")
        wait_until(lambda: heard == ["a channel", "a channel"], within_s=30)
        with Redis.from_url(pair.primary.url) as new:
            assert new.pubsub_numsub("a channel")[0][1] == 1
    finally:
        pubsub.stop()


@pytest.mark.parametrize("word", ["READONLY", "MASTERDOWN", "LOADING", "CLUSTERDOWN", "MOVED", "ERR READONLY"])
def test_every_word_of_a_wrong_server_is_known_in_scripts_and_in_commands(word: str) -> None:
    assert says_wrong_server(exceptions.ResponseError(f"{word} whatever it says"))
    assert says_wrong_server(exceptions.RedisError("whatever it says", status_code=word.removeprefix("ERR ")))


@pytest.mark.parametrize("text", ["OOM command not allowed", "BUSY a script", "ERR unknown", "NOPERM", "LOADINGS x"])
def test_other_errors_close_nothing(text: str) -> None:
    assert not says_wrong_server(exceptions.ResponseError(text))


def test_after_a_planned_failover_everything_works_and_verify_is_clean(
    make_pair: Callable[[], Pair], make_cluster: MakeCluster, database_url: str
) -> None:
    pair = make_pair()
    cluster = make_cluster(REDIS_URL=pair.url)
    apis = [RestClient(url) for url in cluster.urls]
    sessions = [apis[0].running() for _ in range(4)]
    moved_s = pair.fail_over()

    def accepted(api: RestClient, session_id: str) -> bool:
        return requests.post(f"{api.url}/v1/sessions/{session_id}/switch", timeout=10).status_code == 200

    for api in apis:
        wait_until(lambda api=api: accepted(api, sessions[0]), within_s=60)  # type: ignore[misc]  # the default binds it
    print(f"commands were accepted {time.monotonic() - moved_s:.2f} s after the address had moved")
    for api in apis:
        wait_until(lambda api=api: requests.get(f"{api.url}/ready", timeout=10).status_code == 200, within_s=60)  # type: ignore[misc]  # as above
        for session_id in sessions:
            assert accepted(api, session_id)
    versions = {session_id: apis[0].state(session_id)["version"] for session_id in sessions}
    assert versions == {session_id: apis[1].state(session_id)["version"] for session_id in sessions}
    wait_until(lambda: _stored(database_url, versions), within_s=60)
    # Only the replication and this query are still connected to the demoted server.
    with Redis.from_url(pair.replica.url) as demoted:
        wait_until(lambda: len(demoted.client_list(_type="normal")) <= 1, within_s=30)


def _stored(database_url: str, versions: dict[str, int]) -> bool:
    from syncapp.audit.verify import VerifyResult, verify

    checked = VerifyResult()
    faults = [fault for session_id in versions for fault in verify(database_url, checked, session_id)]
    return not faults and checked.events == sum(versions.values())

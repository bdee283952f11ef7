"""Commands, pub/sub and the queue follow the primary that the Sentinels name."""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from redis import RedisError

from syncapp import metrics, task_queue
from syncapp.config import Settings
from syncapp.dev.servers import Valkey
from syncapp.errors import StoreUnavailable
from syncapp.loops import Loops
from syncapp.realtime.pubsub import PubSub
from syncapp.store import sentinels as asking
from syncapp.store.client import connect, server_of, servers_of
from syncapp.store.failover import NoPrimaryNamed, Server, asks_sentinels
from syncapp.store.health import StoreCheck
from syncapp.store.sentinels import Sentinels
from syncapp.store.sessions import SessionStore
from tests.support.captured_logs import capture_own_logs
from tests.support.certificates import new_certificate
from tests.support.paths import ROOT
from tests.support.sentinels import NAME, SentinelGroup, SentinelServer, sentinel_group
from tests.support.store import chess_request, make_settings
from tests.support.tcp_proxy import TcpProxy
from tests.support.types import Redis
from tests.support.web_clients import wait_until

MakeGroup = Callable[..., SentinelGroup]


@pytest.fixture
def make_group(run_directory: Path, tmp_path: Path) -> Iterator[MakeGroup]:
    with ExitStack() as stack:
        yield lambda **more: stack.enter_context(sentinel_group(run_directory, tmp_path / "group", **more))


@pytest.fixture
def other_server(run_directory: Path, tmp_path: Path) -> Iterator[Valkey]:
    """A primary that does not belong to a group."""
    server = Valkey(run_directory, tmp_path / "other")
    server.start()
    yield server
    server.stop()


@contextmanager
def asked_every_second(settings: Settings) -> Iterator[None]:
    """Run the loop of a web process and a worker."""
    stopped = threading.Event()
    turn = asks_sentinels(servers_of(settings))
    assert turn
    thread = Loops().start("sentinels", turn, stopped)
    try:
        yield
    finally:
        stopped.set()
        thread.join(60)


@contextmanager
def listening(settings: Settings, channel: str, heard: list[str]) -> Iterator[None]:
    pubsub = PubSub(
        settings, on_subscribed=lambda _: None, on_message=lambda _, text: heard.append(text), on_lost=lambda: None
    )
    pubsub.start()
    pubsub.add(channel)
    try:
        wait_until(lambda: pubsub.is_subscribed(channel))
        yield
    finally:
        pubsub.stop()


def accepted(command: Callable[[], object]) -> bool:
    try:
        command()
    except (RedisError, StoreUnavailable):
        return False
    return True


def foreign_clients(client: Redis) -> list[dict[str, str]]:
    """Return the connections to a server that are neither its Sentinels' nor this one."""
    listed = [*client.client_list(_type="normal"), *client.client_list(_type="pubsub")]
    return [
        each for each in listed if not each["name"].startswith("sentinel-") and int(each["id"]) != client.client_id()
    ]


def port_of(client: Redis) -> int:
    """Return the port of the server that a client of SyncApp reaches."""
    return int(client.info("server")["tcp_port"])


def test_after_a_planned_failover_at_most_one_command_is_refused(make_group: MakeGroup) -> None:
    group = make_group()
    chosen = make_settings(group.url)
    client = connect(chosen)
    store = SessionStore(client, chosen)
    session_id = store.create(chess_request()).found.session_id
    store.start(session_id)
    before = group.primary
    group.wait_in_step()
    primary, _ = group.fail_over()
    group.wait_until_demoted(before)
    # No loop runs here, as in a command of `flask`.
    refused = not accepted(lambda: store.switch(session_id))
    assert store.switch(session_id).found.version == (3 if refused else 4)
    assert port_of(client) == primary.port


def test_a_coordinated_failover_loses_no_acknowledged_command(make_group: MakeGroup) -> None:
    group = make_group()
    chosen = make_settings(group.url)
    client = connect(chosen)
    acknowledged: list[str] = []
    stopped = threading.Event()

    def keep_writing() -> None:
        number = 0
        while not stopped.wait(0.01):
            number += 1
            if accepted(lambda: client.set(f"key-{number}", "1")):  # noqa: B023 it is called at once
                acknowledged.append(f"key-{number}")

    thread = threading.Thread(target=keep_writing)
    with asked_every_second(chosen):
        thread.start()
        try:
            wait_until(lambda: acknowledged)
            primary, _ = group.fail_over("COORDINATED")
            wait_until(lambda: accepted(lambda: port_of(client)) and port_of(client) == primary.port)
            count = len(acknowledged)
            wait_until(lambda: len(acknowledged) > count)
        finally:
            stopped.set()
            thread.join(60)
    with group.client_of(primary) as new:
        assert new.exists(*acknowledged) == len(acknowledged)


@pytest.mark.parametrize("end", ["killed", "paused"])
def test_commands_messages_and_tasks_follow_a_promotion(make_group: MakeGroup, end: str) -> None:
    group = make_group()
    chosen = make_settings(group.url)
    client = connect(chosen)
    store, queue = SessionStore(client, chosen), task_queue.connect(chosen)
    heard: list[str] = []
    session_id = store.create(chess_request()).found.session_id
    store.start(session_id)
    with asked_every_second(chosen), listening(chosen, "news", heard):
        queue.storage.enqueue(b"{}")
        group.wait_in_step()
        before = group.primary
        accepted_s: dict[str, float] = {}

        def keep_trying(name: str, command: Callable[[], object]) -> None:
            while not accepted(command):
                time.sleep(0.02)
            accepted_s[name] = time.monotonic()

        (before.kill if end == "killed" else before.pause)()
        names: dict[str, Callable[[], object]] = {
            "command": lambda: store.switch(session_id),
            "task": lambda: queue.storage.enqueue(b"[]"),
        }
        threads = [threading.Thread(target=keep_trying, args=item) for item in names.items()]
        for thread in threads:
            thread.start()
        primary, named_s = group.wait_until_named(before)
        with group.client_of(primary) as new:
            wait_until(lambda: new.publish("news", "hello") and "hello" in heard)
            accepted_s["message"] = time.monotonic()
            for thread in threads:
                thread.join(60)
            assert new.llen("huey.redis.syncapp") == 2
            shown = {name: f"{at_s - named_s:.2f} s" for name, at_s in accepted_s.items()}
            print(f"after a Sentinel named the new primary ({end}): {shown}")
            assert port_of(client) == primary.port
            if end == "paused":
                before.unpause()
            else:
                before.start()
            # Each of the commands reaches the new primary, whatever the old one does.
            version = store.get(session_id).found.version
            for _ in range(50):
                version += 1
                assert store.switch(session_id).found.version == version
        group.wait_until_demoted(before)
        with group.client_of(before) as old:
            wait_until(lambda: not foreign_clients(old), within_s=60)
            assert store.switch(session_id).found.version == version + 1


def test_a_primary_that_works_is_left_when_the_sentinels_name_another(
    make_group: MakeGroup, other_server: Valkey
) -> None:
    group = make_group(replicas=0)
    chosen = make_settings(group.url)
    one, two = connect(chosen), connect(chosen, decode=False)
    heard: list[str] = []
    before, promotions = group.primary, metrics.PROMOTIONS._value.get()
    with capture_own_logs() as lines, asked_every_second(chosen), listening(chosen, "news", heard):
        assert port_of(one) == port_of(two) == before.port
        for sentinel in group.sentinels:
            sentinel.ask("SENTINEL REMOVE", NAME)
            sentinel.ask("SENTINEL MONITOR", NAME, "127.0.0.1", str(other_server.port), "2")
        # No command is refused, because both servers are primaries.
        wait_until(lambda: port_of(one) == port_of(two) == other_server.port)
        with Redis.from_url(other_server.url) as new, Redis.from_url(before.url) as old:
            wait_until(lambda: new.publish("news", "hello") and "hello" in heard)
            wait_until(lambda: not foreign_clients(old))
    assert metrics.PROMOTIONS._value.get() == promotions + 1
    changes = [line for line in lines if line["event"] == "primary_changed"]
    assert [(line["before"], line["after"]) for line in changes] == [
        (f"127.0.0.1:{before.port}", f"127.0.0.1:{other_server.port}")
    ]


def test_a_sentinel_that_is_cut_off_is_outvoted_by_the_newer_answer(
    make_group: MakeGroup, other_server: Valkey, run_directory: Path, tmp_path: Path
) -> None:
    group = make_group()
    lines = [f"sentinel monitor {NAME} 127.0.0.1 {other_server.port} 2"]
    cut_off = SentinelServer(run_directory, tmp_path / "cut-off", more=lines)
    cut_off.start()
    try:
        primary, _ = group.fail_over()
        # The lowest and the highest port of the two: the order of addresses must not matter.
        two = [each.port for each in group.sentinels[:2]]
        for ports in ([cut_off.port, *two], [*two, cut_off.port]):
            sentinels = Sentinels([("127.0.0.1", port) for port in ports], NAME, {})
            assert sentinels.ask() == ("127.0.0.1", primary.port)
        for sentinel in group.sentinels[:2]:
            sentinel.kill()
        # It is the only one that answers, and its answer is older than one seen earlier.
        assert sentinels.ask() is None
        assert Sentinels([("127.0.0.1", cut_off.port)], NAME, {}).ask() == ("127.0.0.1", other_server.port)
    finally:
        cut_off.stop()


def test_the_new_primary_is_known_before_all_replicas_follow_it(make_group: MakeGroup) -> None:
    group = make_group(times={"failover-timeout": 600_000})
    before = group.primary
    for replica in group.servers[1:]:
        with group.client_of(replica) as client:
            client.execute_command("ACL", "SETUSER", "default", "-psync", "-sync")
    sentinels = Sentinels([("127.0.0.1", each.port) for each in group.sentinels], NAME, {})
    primary, _ = group.fail_over()
    states = [each.state() for each in group.sentinels]
    assert before.port in [int(state["port"]) for state in states]  # the one that promoted says so in its MASTER
    assert len({state["config-epoch"] for state in states}) == 1
    for _ in range(3):
        assert sentinels.ask() == ("127.0.0.1", primary.port)


def test_without_sentinels_the_known_primary_is_used_and_the_worry_is_shown(make_group: MakeGroup) -> None:
    group = make_group(replicas=0)
    chosen = make_settings(group.url)
    store = SessionStore(connect(chosen), chosen)
    session_id = store.create(chess_request()).found.session_id
    store.start(session_id)
    server = server_of(chosen)
    with capture_own_logs() as lines, asked_every_second(chosen):
        assert server.worries() == []
        for sentinel in group.sentinels:
            sentinel.kill()
        wait_until(lambda: server.worries() == ["3 of 3 Sentinels do not answer"])
        server.leave(server.generation)  # new connections, too
        for version in range(3, 10):
            assert store.switch(session_id).found.version == version
            time.sleep(0.3)  # over a few turns of the loop
        for sentinel in group.sentinels:
            sentinel.start()
        wait_until(lambda: server.worries() == [])
    asked = [line for line in lines if line["event"] == "sentinels_asked"]
    assert asked[-1]["log_level"] == "info"
    assert asked[-1]["answered"] == 3
    assert len(asked) <= 6  # a line for each change: the three do not end and start at the same instant
    assert not [line for line in lines if line["event"] == "primary_changed"]


def test_a_process_that_starts_before_the_sentinels_recovers_by_itself(make_group: MakeGroup) -> None:
    group = make_group(replicas=0)
    for sentinel in group.sentinels:
        sentinel.stop()
    chosen = make_settings(group.url)
    client = connect(chosen)
    store = SessionStore(client, chosen)
    heard: list[str] = []
    with pytest.raises(StoreUnavailable) as refused:
        store.create(chess_request())
    assert refused.value.details["reason"] == "NoPrimaryNamed"
    assert StoreCheck(client, store.check).health().reason == "is not named by any Sentinel"
    for sentinel in group.sentinels:
        sentinel.start()
    wait_until(lambda: accepted(lambda: store.create(chess_request())))
    assert StoreCheck(client, store.check).health().reason is None
    with listening(chosen, "news", heard):
        pass


def test_users_passwords_and_the_database_of_both_kinds_of_servers(make_group: MakeGroup) -> None:
    group = make_group(passwords={"server": "of-servers", "sentinel": "of-sentinels"})
    for server in group.servers:
        with group.client_of(server) as admin:
            admin.acl_setuser(
                "app", enabled=True, passwords=["+p@ss/word"], keys=["*"], channels=["*"], commands=["+@all"]
            )
    hosts = group.hosts
    chosen = make_settings(
        f"redis+sentinel://app:p%40ss%2Fword@{hosts}/{NAME}/2?sentinel_password=of-sentinels", redis_timeout_s=20
    )
    client = connect(chosen)
    store = SessionStore(client, chosen)
    session_id = store.create(chess_request()).found.session_id
    assert (client.acl_whoami(), client.client_info()["db"]) == ("app", 2)
    group.wait_in_step()
    before = group.primary
    before.kill()
    primary, _ = group.wait_until_named(before)
    wait_until(lambda: accepted(lambda: store.start(session_id)))
    assert port_of(client) == primary.port
    assert store.get(session_id).found.version == 2
    text = (ROOT / "docs" / "keys.md").read_text()
    rights = text.split("ACL SETUSER syncapp_sentinels ", 1)[1].split("```", 1)[0].replace("PASSWORD", "secret").split()
    for sentinel in group.sentinels:
        sentinel.ask("ACL", "SETUSER", "syncapp_sentinels", *rights, password="of-sentinels")
        sentinel.ask("ACL", "LOG", "RESET", password="of-sentinels")
    own = "?sentinel_username=syncapp_sentinels&sentinel_password=secret"
    limited = server_of(make_settings(f"redis+sentinel://app:p%40ss%2Fword@{hosts}/{NAME}/2{own}"))
    assert limited.endpoint()["port"] == primary.port
    assert limited.worries() == []
    assert [each.ask("ACL", "LOG", password="of-sentinels") for each in group.sentinels] == [[], [], []]
    for wrong in ("", "?sentinel_password=wrong", "?sentinel_username=nobody&sentinel_password=of-sentinels"):
        refused = server_of(make_settings(f"redis+sentinel://app:p%40ss%2Fword@{hosts}/{NAME}/2{wrong}"))
        with pytest.raises(NoPrimaryNamed):
            refused.endpoint()
        assert refused.worries() == ["3 of 3 Sentinels do not name the server"]


def test_an_unknown_name_and_a_data_server_are_told_from_silence(make_group: MakeGroup, other_server: Valkey) -> None:
    group = make_group(replicas=0)
    addresses = [("127.0.0.1", each.port) for each in group.sentinels]
    unknown = Sentinels(addresses, "others", {})
    assert unknown.ask() is None
    assert unknown.worries() == ["3 of 3 Sentinels do not name the server"]
    mixed = Sentinels([*addresses, ("127.0.0.1", other_server.port), ("127.0.0.1", 1)], NAME, {})
    assert mixed.ask() == ("127.0.0.1", group.primary.port)
    assert mixed.worries() == ["1 of 5 Sentinels do not answer", "1 of 5 Sentinels do not name the server"]


class CountedSentinels(Sentinels):
    count = 0

    def ask(self) -> tuple[str, int] | None:
        self.count += 1
        return super().ask()


@contextmanager
def mute_sentinel() -> Iterator[tuple[str, int]]:
    """An address that accepts connections, and never replies."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()


def test_a_mute_sentinel_delays_no_connection_while_the_others_are_asked(
    make_group: MakeGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    group = make_group(replicas=0)
    monkeypatch.setattr(asking, "MAX_WAIT_S", 3.0)
    with mute_sentinel() as mute:
        sentinels = Sentinels([mute, *(("127.0.0.1", each.port) for each in group.sentinels)], NAME, {})
        server = Server(sentinels)
        expected = {"host": "127.0.0.1", "port": group.primary.port}
        assert server.endpoint() == expected
        assert sentinels.worries() == ["1 of 4 Sentinels do not answer"]
        thread = threading.Thread(target=server.ask)
        thread.start()
        wait_until(server._asking.locked)
        server.suspect()
        for _ in range(100):
            assert server.endpoint() == expected
        assert thread.is_alive()
        thread.join(60)


def test_many_callers_without_an_address_wait_for_one_question() -> None:
    with mute_sentinel() as one, mute_sentinel() as two:
        sentinels = CountedSentinels([one, two], NAME, {})
        server, gate = Server(sentinels), threading.Barrier(20)
        refused = []

        def connect_once() -> None:
            gate.wait()
            try:
                server.endpoint()
            except NoPrimaryNamed as error:
                refused.append(error)

        threads = [threading.Thread(target=connect_once) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert (len(refused), sentinels.count) == (20, 1)
        assert sentinels.worries() == ["2 of 2 Sentinels do not answer"]


def test_both_kinds_of_connections_use_tls_with_the_options_of_the_url(
    run_directory: Path, tmp_path: Path, other_server: Valkey
) -> None:
    certificate = new_certificate(tmp_path)
    with TcpProxy(other_server.port, random.Random(1), certificate.server_context()) as to_server:
        lines = [f"sentinel monitor {NAME} 127.0.0.1 {to_server.port} 1"]
        sentinel = SentinelServer(run_directory, tmp_path / "sentinel", more=lines)
        sentinel.start()
        try:
            with TcpProxy(sentinel.port, random.Random(1), certificate.server_context()) as to_sentinel:
                url = f"rediss+sentinel://127.0.0.1:{to_sentinel.port}/{NAME}"
                trusting = make_settings(f"{url}?ssl_ca_certs={certificate.chain}", redis_timeout_s=20)
                assert port_of(connect(trusting)) == other_server.port
                with listening(trusting, "news", []):
                    pass
                careless = make_settings(url, redis_verify_tls=False, redis_timeout_s=20)
                assert port_of(connect(careless)) == other_server.port
                with pytest.raises(NoPrimaryNamed):
                    connect(make_settings(url)).ping()
                with pytest.raises(NoPrimaryNamed):
                    connect(make_settings(url.replace("rediss", "redis"))).ping()
        finally:
            sentinel.stop()

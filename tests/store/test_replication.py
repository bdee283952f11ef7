"""`REDIS_MIN_REPLICAS`: what is acknowledged is on the replicas, and so is what drains store."""

from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from syncapp.api.batch_commands import run_each
from syncapp.audit.drain import Drain
from syncapp.audit.log import AuditLog
from syncapp.audit.outbox import Outbox
from syncapp.dev.servers import Valkey
from syncapp.domain.results import Claim
from syncapp.errors import (
    Conflict,
    InvalidTransition,
    NotReplicated,
    SessionNotFound,
    StoreUnavailable,
    SyncError,
    ValidationFailed,
)
from syncapp.postgres.database import Database
from syncapp.store.client import connect
from syncapp.store.connection_pool import packed
from syncapp.store.health import StoreCheck
from syncapp.store.links import Link, LinkStore
from syncapp.store.replication import Replication, TooFewReplicas
from syncapp.store.sessions import SessionStore
from tests.support.full_store import FullStore, log_lines, running_worker, web_and_worker
from tests.support.paths import ROOT
from tests.support.replicated import (
    COMMANDS,
    KEYS,
    LACKING,
    NEVER_MS,
    NEW,
    SOON_MS,
    Act,
    Pair,
    follow,
    pending,
    running,
    version_of,
    wait_in_step,
)
from tests.support.store import make_settings
from tests.support.tcp_proxy import TcpProxy
from tests.support.types import Redis
from tests.support.web_clients import OpenWebSocket, RestClient, wait_until


@pytest.fixture(scope="module")
def replica(own: FullStore, tmp_path_factory: pytest.TempPathFactory, run_directory: Path) -> Iterator[Valkey]:
    own.redis.config_set("repl-diskless-sync-delay", 0)
    server = Valkey(run_directory, tmp_path_factory.mktemp("replica"))
    server.start()
    try:
        follow(server, own.valkey)
        yield server
    finally:
        server.unpause()
        server.stop()


@pytest.fixture
def pair(full: FullStore, replica: Valkey) -> Iterator[Pair]:
    replica.unpause()
    wait_in_step(full.valkey)
    yield Pair(full.valkey, replica)
    replica.unpause()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_acknowledged_when_a_replica_has_it(pair: Pair, name: str) -> None:
    prepare, run = COMMANDS[name]
    store = pair.patient()
    session = prepare(store)
    run(store, session, Claim())
    with Redis.from_url(pair.replica.url) as there, Redis.from_url(pair.primary.url) as here:
        assert there.hgetall(KEYS.session(session)) == here.hgetall(KEYS.session(session))


@pytest.mark.parametrize("name", COMMANDS)
def test_neither_a_command_nor_its_repetition_is_acknowledged_before_the_replica_has_it(pair: Pair, name: str) -> None:
    prepare, run = COMMANDS[name]
    session, claim = prepare(pair.patient()), Claim(idempotency_key="k")
    pair.replica.pause()
    before = version_of(pair.store(), session)
    with pytest.raises(NotReplicated) as refused:
        run(pair.store(), session, claim)
    assert (refused.value.status, refused.value.code, refused.value.details) == (503, "NOT_REPLICATED", LACKING)
    assert refused.value.headers == {"Retry-After": "1"}
    assert version_of(pair.store(), session) == (0 if name == "delete" else before + 1)
    for _ in range(2):  # each over another connection, where WAIT alone would not notice
        with pytest.raises(NotReplicated):
            run(pair.store(), session, claim)
    pair.replica.unpause()
    assert run(pair.patient(), session, claim).replayed


@pytest.mark.parametrize("key", [None, "k"], ids=["bare", "keyed"])
@pytest.mark.parametrize("name", ["complete", "cancel", "delete"])
def test_what_finds_nothing_to_do_is_not_acknowledged_either(pair: Pair, name: str, key: str | None) -> None:
    prepare, run = COMMANDS[name]
    session = prepare(pair.patient())
    pair.replica.pause()
    for claim in (Claim(), Claim(idempotency_key=key), Claim(idempotency_key=key)):
        with pytest.raises(NotReplicated):
            run(pair.store(), session, claim)
    pair.replica.unpause()
    assert run(pair.patient(), session, Claim(idempotency_key=key)).replayed == (key is not None)


def test_an_erasure_of_a_missing_session_is_not_acknowledged_before_the_replica_has_it(pair: Pair) -> None:
    pair.replica.pause()
    with pytest.raises(NotReplicated):
        pair.store().delete(NEW, erases=True)
    pair.replica.unpause()
    pair.patient().delete(NEW, erases=True)


def test_that_a_command_took_effect_on_a_session_that_is_gone_is_not_said_before_the_replica_knows(pair: Pair) -> None:
    session, claim = pending(pair.patient()), Claim(idempotency_key="k")
    pair.replica.pause()
    acts: list[Act] = [lambda: pair.store().start(session, claim), lambda: pair.store().delete(session)]
    for act in acts * 2:
        with pytest.raises(NotReplicated):
            act()
    pair.replica.unpause()
    with pytest.raises(SessionNotFound) as gone:
        pair.patient().start(session, claim)
    assert gone.value.details == {"replayed": True}


def test_refusals_come_as_they_are(pair: Pair) -> None:
    session = running(pair.patient())
    pair.replica.pause()
    with pytest.raises(InvalidTransition):
        pair.store().start(session)
    with pytest.raises(Conflict):
        pair.store().switch(session, Claim(expected_version=1))
    with pytest.raises(ValidationFailed):
        pair.store().switch(session, next_participant_id="nobody")
    with pytest.raises(SessionNotFound):
        pair.store().switch(NEW)


def test_a_script_that_the_server_forgot_waits_too(pair: Pair, full: FullStore) -> None:
    session = running(pair.patient())
    pair.replica.pause()
    full.redis.script_flush()
    with pytest.raises(NotReplicated):
        pair.store().switch(session)
    assert version_of(pair.store(), session) == 3


def test_a_repetition_is_acknowledged_in_a_full_store(pair: Pair, full: FullStore) -> None:
    session, claim = running(pair.patient()), Claim(idempotency_key="k")
    pair.patient().switch(session, claim)
    full.redis.config_set("maxmemory", 1)
    assert pair.patient().switch(session, claim).replayed
    assert not pair.patient().complete(session).replayed
    with pytest.raises(StoreUnavailable, match="nothing was changed"):
        pair.patient().reopen(session)


def test_a_primary_that_wants_replicas_itself_refuses_a_change_before_it_is_made(pair: Pair, full: FullStore) -> None:
    session = running(pair.patient())
    full.redis.config_set("min-replicas-to-write", 2)
    try:
        with pytest.raises(StoreUnavailable, match="nothing was changed"):
            pair.patient().switch(session)
    finally:
        full.redis.config_set("min-replicas-to-write", 0)
    assert version_of(pair.store(), session) == 2


def test_wait_lasts_half_of_the_timeout(pair: Pair) -> None:
    chosen = replace(pair.settings, redis_timeout_s=3)
    assert Replication.of(connect(chosen), chosen)._wait == packed("WAIT", 1, 1500)


def test_a_batch_is_held_up_once(pair: Pair) -> None:
    sessions = [running(pair.patient()) for _ in range(40)]
    pair.replica.pause()
    found = run_each(sessions, pair.store().pause)
    codes = [each.code for each in found if isinstance(each, SyncError)]
    assert len(codes) == 40
    assert 1 <= codes.count("NOT_REPLICATED") <= 8
    assert {version_of(pair.store(), each) for each in sessions} == {2, 3}


# Reads, and what sessions do by themselves


def test_reads_and_expiries_do_not_wait(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    session = running(pair.patient())

    def fail(*args: object, **kwargs: object) -> None:
        pytest.fail("it waits for replicas")

    monkeypatch.setattr(Replication, "call", fail)
    store = pair.store()
    assert store.get(session).found.version == 2
    assert store.summaries([session])[0][0]
    assert store.position(session)
    assert store.attend([session]) == [None]
    assert store.expire([session])


def in_threads(acts: list[Act]) -> tuple[list[threading.Thread], list[Exception]]:
    failures: list[Exception] = []

    def run(act: Act) -> None:
        try:
            act()
        except Exception as error:  # noqa: BLE001 the test looks at it
            failures.append(error)

    threads = [threading.Thread(target=run, args=(act,)) for act in acts]
    for each in threads:
        each.start()
    return threads, failures


def test_reads_have_connections_left_and_a_change_too_many_is_refused_unmade(pair: Pair, full: FullStore) -> None:
    sessions = [running(pair.patient()) for _ in range(4)]
    store = pair.store(NEVER_MS, redis_max_connections=4)
    links = LinkStore(store._client, KEYS, Replication(store._client, 1, 0.05))
    pair.replica.pause()
    threads, failures = in_threads([lambda each=each: store.switch(each) for each in sessions[:3]])  # type: ignore[misc]  # mypy cannot infer it
    wait_until(lambda: full.redis.info("clients")["blocked_clients"] == 3)
    assert store.get(sessions[3]).found.version == 2
    store._runner._replication._timeout_s = 0.05
    with pytest.raises(StoreUnavailable, match="nothing was changed") as refused:
        store.switch(sessions[3])
    assert refused.value.details["reason"] == "MaxConnectionsError"
    with pytest.raises(StoreUnavailable, match="nothing was changed"):  # the places belong to the connections
        links.add_revoked([("a", 2e9)])
    assert store.get(sessions[3]).found.version == 2
    assert not full.redis.exists(KEYS.revoked())
    pair.replica.unpause()
    for each in threads:
        each.join()
    assert not failures
    assert store.switch(sessions[3]).found.version == 3


def test_places_grow_with_the_pool(pair: Pair) -> None:
    client = connect(pair.settings, max_connections=1)
    replication = Replication.of(client, pair.settings)
    client.connection_pool.grow(8)  # type: ignore[attr-defined]  # ours
    with ExitStack() as stack:
        for _ in range(6):
            stack.enter_context(replication._place(""))
        assert not replication._has_place(replication._places[None])


# Links


def test_a_link_and_its_revocation_wait(pair: Pair) -> None:
    link = Link(jti="1-a", scope="watch", created_s=1.0, expires_s=4_000_000_000)
    pair.links(NEVER_MS).add(NEW, link)
    pair.replica.pause()
    acts: list[Act] = [
        lambda: pair.links().add(NEW, replace_jti(link, "1-b")),
        lambda: pair.links().revoke(NEW, [link]),
        lambda: pair.links().add_revoked([("c", 2e9)]),
        lambda: pair.links().forget(NEW),
        lambda: pair.links().forget(NEW),  # has nothing to forget
    ]
    for act in acts:
        with pytest.raises(NotReplicated):
            act()
    pair.replica.unpause()
    pair.links(NEVER_MS).revoke(NEW, [link])
    pair.links(NEVER_MS).forget(NEW)
    with Redis.from_url(pair.replica.url) as there:
        assert there.xlen(KEYS.revoked()) == 3


def replace_jti(link: Link, jti: str) -> Link:
    return Link(jti=jti, scope=link.scope, created_s=link.created_s, expires_s=link.expires_s)


# Rights and readiness


def test_without_the_right_to_wait_nothing_is_changed_and_ready_says_so(pair: Pair, full: FullStore) -> None:
    session = running(pair.patient())
    url = pair.primary.url.replace("//", "//app:secret@", 1)
    everything: Any = {"keys": ["*"], "channels": ["*"]}
    full.redis.acl_setuser("app", enabled=True, reset=True, passwords=["+secret"], commands=["+@all"], **everything)
    try:
        store = pair.store(NEVER_MS, url)
        assert store.switch(session).found.version == 3
        full.redis.acl_setuser("app", enabled=True, commands=["-wait"])
        with pytest.raises(NotReplicated):  # only now does this process notice
            store.switch(session)
        for each in (store, pair.store(NEVER_MS, url)):
            with pytest.raises(StoreUnavailable, match="nothing was changed") as refused:
                each.switch(session)
            assert refused.value.details["reason"] == "NOPERM"
        assert version_of(store, session) == 4
        reason = StoreCheck(store._client, store.check).health().reason
        assert reason == "denies this user commands or keys that are needed (docs/keys.md)"
        full.redis.acl_setuser("app", enabled=True, commands=["+wait"])
        assert store.switch(session).found.version == 5
    finally:
        full.redis.acl_deluser("app")


def test_the_documented_rights_are_enough(pair: Pair, full: FullStore) -> None:
    words = (ROOT / "docs" / "keys.md").read_text().split("ACL SETUSER syncapp ", 1)[1].split("```", 1)[0]
    ask: Any = full.redis.execute_command
    ask("ACL", "SETUSER", "syncapp", *words.replace("PASSWORD", "secret").split())
    try:
        chosen = replace(pair.settings, redis_url=pair.primary.url.replace("//", "//syncapp:secret@", 1))
        store = SessionStore(connect(chosen), chosen)
        session = running(store)
        assert StoreCheck(store._client, store.check).health().reason is None
        assert len(Outbox.of(connect(chosen, decode=False), chosen).read_new(KEYS.bucket(session), 10)) == 2
    finally:
        full.redis.acl_deluser("syncapp")


def test_a_store_without_its_replicas_is_not_ready(pair: Pair) -> None:
    store = pair.patient()
    assert StoreCheck(store._client, store.check).health().reason is None
    pair.replica.pause()
    store = pair.store()
    found = StoreCheck(store._client, store.check).health()
    assert found.reason == "has 0 of the 1 replicas that changes wait for (REDIS_MIN_REPLICAS)"


# Drains


def left_in_outboxes(full: FullStore) -> int:
    return sum(full.redis.xlen(key) for key in full.redis.scan_iter(match="sync:*outbox"))


@pytest.fixture
def drain(pair: Pair, full: FullStore) -> Iterator[Callable[[int], Drain]]:
    with closing(Database(full.servers.database_url)) as database:
        yield lambda wait_ms: Drain(pair.outbox(wait_ms), AuditLog(database), batch=100)


def test_drains_store_only_what_the_replicas_have(pair: Pair, full: FullStore, drain: Callable[[int], Drain]) -> None:
    session = running(pair.patient())
    assert drain(NEVER_MS).run_all() == (2, {})
    pair.replica.pause()
    with pytest.raises(NotReplicated):
        pair.store().switch(session)
    bucket, lacking = KEYS.bucket(session), drain(SOON_MS)
    assert lacking.run((bucket + 1) % KEYS.buckets).moved == 0  # there is nothing that replicas could lack
    for _ in range(2):  # the second time, the entry has been read
        with pytest.raises(TooFewReplicas):
            lacking.run(bucket)
    moved, failures = drain(SOON_MS).run_all()
    assert (moved, [len(each) for each in failures.values()]) == (0, [1])
    assert left_in_outboxes(full) == 1
    pair.replica.unpause()
    assert drain(NEVER_MS).run_all() == (1, {})
    full.check_commands_drains_and_log()


def test_a_worker_holds_events_until_the_replicas_have_them_and_logs_no_traceback(pair: Pair, full: FullStore) -> None:
    sessions = [running(pair.patient()) for _ in range(3)]
    pair.replica.pause()
    with running_worker(full, REDIS_MIN_REPLICAS="1", REDIS_TIMEOUT_S="4", AUDIT_RETRIES="3") as process:
        wait_until(lambda: log_lines(process, "drain_failed"))
        assert left_in_outboxes(full) == 2 * len(sessions)
        pair.replica.unpause()
        wait_until(lambda: left_in_outboxes(full) == 0)
    line = log_lines(process, "drain_failed")[0]
    assert line["error"] == "0 of 1 required replicas had the change in time"
    assert "exception" not in line
    assert "Traceback" not in process.output()
    full.check_commands_drains_and_log()


# Clients


def test_clients_get_503_with_details_and_watchers_the_change(
    pair: Pair, full: FullStore, open_websocket: OpenWebSocket
) -> None:
    with web_and_worker(full, REDIS_MIN_REPLICAS="1", REDIS_TIMEOUT_S="4") as cluster:
        url = cluster.urls[0]
        assert requests.get(f"{url}/ready", timeout=60).status_code == 200
        session = RestClient(url).running()
        watcher = open_websocket(url, session)
        watcher.next("CONNECTED")
        player = open_websocket(url, session)
        player.next("CONNECTED")
        pair.replica.pause()
        ready = requests.get(f"{url}/ready", timeout=60)
        assert ready.status_code == 503
        assert "has 0 of the 1 replicas that changes wait for" in ready.json()["redis"]
        switch, key = f"{url}/v1/sessions/{session}/switch", {"Idempotency-Key": "k"}
        for _ in range(2):
            answer = requests.post(switch, headers=key, timeout=60)
            error = answer.json()["error"]
            assert (answer.status_code, answer.headers["Retry-After"], error["code"]) == (503, "1", "NOT_REPLICATED")
            assert error["details"] == LACKING
        wait_until(lambda: watcher.next().get("version") == 3)
        asked: dict[str, Any] = {"type": "COMMAND", "command": "pause"}
        for number in range(3):
            player.send(id=number, idempotency_key=f"p{number}", **asked)
        errors = [player.next("ERROR") for _ in range(3)]
        assert [each["id"] for each in errors] == [0, 1, 2]
        assert (errors[0]["code"], errors[0]["details"]) == ("NOT_REPLICATED", LACKING)
        wait_until(lambda: watcher.next().get("version") == 4)
        # The others would wait as long, and were not sent.
        assert {each["code"] for each in errors[1:]} == {"STORE_UNAVAILABLE"}
        pair.replica.unpause()
        wait_until(lambda: requests.post(switch, headers=key, timeout=60).status_code == 200)
        player.send(id=9, idempotency_key="p0", **asked)
        assert player.next("ACK")["id"] == 9
        wait_until(lambda: requests.get(f"{url}/ready", timeout=60).status_code == 200)


# Failovers


def test_after_a_failover_the_promoted_replica_has_all_that_was_acknowledged(
    run_directory: Path, tmp_path: Path
) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    print(f"seed {seed}")
    rng = random.Random(seed)
    with ExitStack() as stack:
        servers = [Valkey(run_directory, tmp_path / name) for name in ("primary", "replica")]
        for server in servers:
            stack.callback(server.stop)
            server.start()
        primary, replica = servers
        stack.callback(replica.unpause)
        with Redis.from_url(primary.url) as client:
            client.config_set("repl-diskless-sync-delay", 0)
        # A paused replica would still read what the system has received for it.
        network = stack.enter_context(TcpProxy(primary.port, rng))
        with Redis.from_url(replica.url) as client:
            client.replicaof("127.0.0.1", str(network.port))
        wait_in_step(primary)
        pair = Pair(primary, replica)
        acknowledged: dict[str, int] = {}
        attempts: list[bool] = []
        lots = [(running(pair.patient()), random.Random(rng.random())) for _ in range(4)]

        def play(session: str, own: random.Random) -> None:
            """Switch until the primary is gone; repeat some switches, each over another connection."""
            while True:
                claim = Claim(idempotency_key=uuid.UUID(int=own.getrandbits(128)).hex)
                for _ in range(own.randint(1, 3)):
                    try:
                        result = pair.store(20).switch(session, claim)
                    except NotReplicated:
                        attempts.append(False)
                        continue
                    except StoreUnavailable:
                        return
                    attempts.append(True)
                    version = result.first[1] if result.first else result.found.version
                    acknowledged[session] = max(acknowledged.get(session, 0), version)
                    break

        threads, failures = in_threads([lambda lot=lot: play(*lot) for lot in lots])  # type: ignore[misc]  # mypy cannot infer it
        while sum(attempts) < 300 and not failures:
            replica.pause()
            threads[0].join(rng.uniform(0, 0.1))
            replica.unpause()
            threads[0].join(rng.uniform(0, 0.1))
        network.silence(on=True)
        enough = len(attempts) + 20
        wait_until(lambda: len(attempts) >= enough or failures)
        primary.kill()
        for each in threads:
            each.join()
        assert not failures
        print(f"{attempts.count(False)} of {len(attempts)} attempts were not acknowledged")
        with Redis.from_url(replica.url) as client:
            client.replicaof("NO", "ONE")
        promoted = SessionStore(connect(make_settings(replica.url)), make_settings(replica.url))
        for session, version in acknowledged.items():
            assert promoted.get(session).found.version >= version
